//! The command that shows what sweeps have measured, beside what the paper published where they repeat it.

use super::figures::FigureArgs;
use crate::report;
use anyhow::Result;
use clap::Args;
use glob::Pattern;
use std::path::PathBuf;
use tracing::info;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The sweep's folder, or those of several.
    #[arg(value_name = "SWEEP_DIR", required = true)]
    sweeps: Vec<PathBuf>,
    /// Only runs whose name matches, for example --only 'cvf-1h-psi45-*'; may be given more than once. What is chosen
    /// is shown as a sweep of its own.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<Pattern>,
    /// Where to put report.html and the CSV files [default: the first sweep's folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    figures: FigureArgs,
}

pub fn report(args: ReportArgs) -> Result<u8> {
    let out = args.out.as_ref().unwrap_or(&args.sweeps[0]);
    let page = report::write(&args.sweeps, &args.only, out, args.figures.given())?;
    info!("{}: open it in any browser; the numbers are in the CSV files beside it", page.display());
    Ok(0)
}
