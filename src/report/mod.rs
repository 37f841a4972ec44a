//! Reports on sweeps: one HTML file, and CSV.
//!
//! [`measured`] is a run and what it left, [`records`] keeps that, [`results`] sorts it, [`paper`] is what was
//! published, [`verdict`] compares, [`varied`] finds in what the groups of a sweep differ, [`page`] and [`tables`]
//! write.

mod measured;
mod page;
mod paper;
mod records;
mod results;
mod tables;
mod varied;
mod verdict;

use crate::base::made::Made;
use crate::charts::plot::{self, Style};
use crate::charts::saved;
use anyhow::Result;
use glob::Pattern;
use results::Results;
use std::path::{Path, PathBuf};

/// Writes a report on `sources`, each the folder of a sweep or one with the `records.jsonl` of an earlier report.
///
/// There will be `report.html`, `records.jsonl` (what the next report needs of this one's runs) and CSV files in
/// `out`: `table3.csv` where the sweeps are the paper's, with `as-printed.csv` and `equilibrium.csv` (rows with yet
/// another way to equilibrium) where there are such runs, `sweep.csv` for what is not in the paper, `runs.csv` and
/// `curves.csv`. Where the curves of all groups fit into one figure, that is `curves.svg` too, and where Ψ varies the
/// error against it `error-by-psi.svg`; where a quantity of devices varies, `threshold-….svg`. Every figure goes into
/// the folder `figures` as well, where one is given.
///
/// # Errors
/// Where a source cannot be read, nothing matches `only`, `out` holds records of runs that are not among the sources,
/// a file of one of these names is somebody else's, or one cannot be written.
pub fn write(
    sources: &[PathBuf],
    only: &[Pattern],
    out: &Path,
    figures: Option<(&Path, Style)>,
) -> Result<PathBuf> {
    let results = Results::read(sources, only)?;
    records::check_none_lost(out, &results.names)?;
    let mut made = Made::default();
    let runs = results.groups.iter().flat_map(|group| &group.runs);
    made.add(out.join(records::FILE), records::text(runs)?);
    for (name, text) in tables::all(&results)? {
        made.add(out.join(name), text);
    }
    let drawn = page::figures(&results)?;
    if !results.is_papers {
        let split = drawn.iter().any(|(name, _)| name == "curves-2");
        for (name, charts) in drawn.iter().filter(|(name, _)| !split || !name.starts_with("curves")) {
            let figure = plot::figure(charts, Style::Screen);
            made.add(out.join(format!("{name}.svg")), figure);
        }
    }
    if let Some((folder, style)) = figures {
        for (name, charts) in &drawn {
            saved::save(&mut made, folder, name, charts, style)?;
        }
    }
    let report = out.join("report.html");
    made.add(report.clone(), page::page(&results)?);
    made.write()?;
    Ok(report)
}
