//! What sweeps have measured: one HTML file, and CSV.
//!
//! [`results`] reads the runs and sorts them, [`paper`] is what was published, [`varied`] finds in what the groups of
//! a sweep differ, [`page`] and [`tables`] write.

mod page;
mod paper;
mod results;
mod tables;
mod varied;

use crate::base::files;
use crate::charts::plot::{self, Style};
use crate::charts::saved;
use crate::sweep::SweepFolder;
use anyhow::Result;
use glob::Pattern;
use results::Results;
use std::path::{Path, PathBuf};

/// Writes `report.html` and its CSV files into `out`: `table3.csv` where the sweeps are the paper's, with `as-printed.csv`
/// and `equilibrium.csv` (rows with another way to equilibrium) where there are such runs, `sweep.csv` for what is not in
/// the paper, `runs.csv` and `curves.csv`. Where the curves of all groups fit into one figure, that is `curves.svg` too.
/// Every figure goes into the folder `figures` as well, where one is given.
///
/// # Errors
/// Where a sweep cannot be read, nothing matches `only`, or a file cannot be written.
pub fn write(
    sweeps: &[PathBuf],
    only: &[Pattern],
    out: &Path,
    figures: Option<(&Path, Style)>,
) -> Result<PathBuf> {
    let folders: Vec<SweepFolder> = sweeps.iter().cloned().map(|path| SweepFolder { path }).collect();
    let results = Results::read(&folders, only)?;
    files::create_folder(out)?;
    for (name, text) in tables::all(&results)? {
        files::write_atomically(&out.join(name), &text)?;
    }
    let drawn = page::figures(&results)?;
    if let [(_, curves)] = &drawn[..]
        && !results.is_papers
    {
        files::write_atomically(&out.join("curves.svg"), plot::figure(curves, Style::Screen).as_bytes())?;
    }
    if let Some((folder, style)) = figures {
        for (name, charts) in &drawn {
            saved::save(folder, name, charts, style)?;
        }
    }
    let report = out.join("report.html");
    files::write_atomically(&report, page::page(&results)?.as_bytes())?;
    Ok(report)
}
