//! The command that shows the results of sweeps, beside the published ones where they repeat the paper.

use super::figures::FigureArgs;
use crate::report;
use anyhow::Result;
use clap::Args;
use glob::Pattern;
use std::path::PathBuf;
use tracing::info;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Sweeps' folders, and folders with the records.jsonl of earlier reports, whose runs are included.
    #[arg(value_name = "DIR", required = true)]
    sources: Vec<PathBuf>,
    /// Only runs whose name matches, for example --only 'cvf-1h-psi45-*'; may be given more than once. The chosen
    /// runs are shown as a sweep of their own.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<Pattern>,
    /// Folder for report.html, records.jsonl and the CSV files [default: the first DIR].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    figures: FigureArgs,
}

pub fn report(args: ReportArgs) -> Result<u8> {
    let first = &args.sources[0];
    let beside = if first.is_file() { first.parent() } else { None };
    let out = args.out.as_deref().or(beside).unwrap_or(first);
    let page = report::write(&args.sources, &args.only, out, args.figures.given())?;
    info!("{}: open it in any browser; the numbers are in the CSV files beside it", page.display());
    Ok(0)
}
