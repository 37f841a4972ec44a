//! The command that lays what a sweep has measured beside what the paper published.

use crate::report;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use tracing::info;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The sweep's folder.
    #[arg(value_name = "SWEEP_DIR")]
    sweep: PathBuf,
    /// Where to put report.html and the CSV files [default: the sweep's folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn report(args: ReportArgs) -> Result<u8> {
    let page = report::write(&args.sweep, args.out.as_deref().unwrap_or(&args.sweep))?;
    info!("{}: open it in any browser; the numbers are in the CSV files beside it", page.display());
    Ok(0)
}
