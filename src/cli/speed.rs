//! The command that measures speed.

use super::ConfigArgs;
use super::study::NetworkArgs;
use crate::base::output;
use crate::config::Resolved;
use crate::engine;
use crate::run::{open_device, with_threads};
use crate::study::bench;
use anyhow::{Result, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of minibatches to time.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    minibatches: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn bench(args: BenchArgs) -> Result<u8> {
    let resolved = Resolved::new(&args.config.choices()?)?.told();
    let speed = with_threads(args.network.threads, || {
        let (config, dataset, theta) = args.network.load(resolved)?;
        if dataset.train.len() < config.training.batch_size {
            bail!("training.batch_size = {} is more than there are images", config.training.batch_size);
        }
        let kind = config.training.engine;
        let device = open_device(config.training.device)?;
        let mut engine = engine::build(kind, config.job(&device), theta)?;
        bench::measure(&config, engine.as_mut(), &dataset, args.minibatches)
    })?;
    if args.json {
        output::result(&(serde_json::to_string(&speed)? + "\n"))?;
        return Ok(0);
    }
    output::result(&format!(
        "{:.3} ms per minibatch: first phase {:.3} ms ({:.1} steps), second phase {:.3} ms\n\
         {:.1} GFLOP/s of {:.1} GFLOP/s of sgemm here with {} thread(s): {:.0} %\n\
         classifying takes {:.1} ms per 1,000 images of the test set, at {:.1} GFLOP/s\n\
         peak memory {:.0} MiB\n",
        speed.ms_per_minibatch,
        speed.ms_first_phase,
        speed.first_phase_steps,
        speed.ms_second_phase,
        speed.gflops,
        speed.peak_gflops,
        speed.threads,
        100.0 * speed.gflops / speed.peak_gflops,
        speed.ms_per_1000_tested,
        speed.gflops_testing,
        speed.peak_rss_mib
    ))?;
    Ok(0)
}
