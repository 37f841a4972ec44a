//! The command that searches for hyperparameters.

use super::{ConfigArgs, count, data_folder, status};
use crate::base::output;
use crate::config::Resolved;
use crate::run::{Interrupt, Outcome, Resources, with_threads};
use crate::tune::budget::Budget;
use crate::tune::{Request, TUNED, tune as search};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct TuneArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A data set: an .npz file, or a folder of IDX, .npy or .npz files or of PNGs by class [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Duration, as 90s, 20m or 2h; or multiply-adds of probes, as 3e13.
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = |text: &str| text.parse::<Budget>())]
    budget: Budget,
    /// Folder for tuned.toml, tune.html and tune.jsonl; where it has those of the same tuning, that resumes.
    #[arg(long, value_name = "DIR", default_value = "tune")]
    out: PathBuf,
    /// Threads to compute with [default: all cores].
    #[arg(long, value_name = "N", value_parser = count())]
    threads: Option<usize>,
}

pub fn tune(args: TuneArgs) -> Result<u8> {
    let config = Resolved::new(&args.config.choices()?)?.told().config;
    let resources = Resources::new(data_folder(args.data_dir)?);
    let interrupt = Interrupt::listen()?;
    let tuned = args.out.join(TUNED);
    let request = Request {
        config,
        budget: args.budget,
        folder: args.out,
        resources: &resources,
        interrupt: &interrupt,
    };
    let outcome = with_threads(args.threads, || search(&request))?;
    if outcome == Outcome::Done {
        output::result(&format!("{}\n", tuned.display()))?;
    }
    Ok(status(outcome))
}
