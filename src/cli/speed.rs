//! The command that measures speed.

use super::ConfigArgs;
use super::study::NetworkArgs;
use crate::base::output;
use crate::config::{Config, Resolved};
use crate::data::Dataset;
use crate::engine::{self, EngineKind, replicas};
use crate::model::Parameters;
use crate::run::{open_device, with_threads};
use crate::study::bench;
use anyhow::{Result, bail};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    network: NetworkArgs,
    /// Number of minibatches to time.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    minibatches: usize,
    /// Train R networks of this shape together, as a sweep on a GPU does, and print milliseconds a minibatch of one.
    #[arg(long, value_name = "R", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    replicas: Option<usize>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn bench(args: BenchArgs) -> Result<u8> {
    let resolved = Resolved::new(&args.config.choices()?)?.told();
    if let Some(replicas) = args.replicas {
        return together(&args, resolved, replicas);
    }
    let speed = with_threads(args.network.threads, || {
        let (config, dataset, theta) = load(&args, resolved)?;
        let kind = config.training.engine;
        let device = open_device(&config)?;
        let mut engine = engine::build(kind, config.job(&device), theta)?;
        bench::measure(&config, engine.as_mut(), &dataset, args.minibatches)
    })?;
    if args.json {
        output::result(&(serde_json::to_string(&speed)? + "\n"))?;
        return Ok(0);
    }
    let steps = format!("{:.1} steps", speed.first_phase_steps);
    let phases = match speed.ms_first_phase.zip(speed.ms_second_phase) {
        Some((first, second)) => format!("first phase {first:.3} ms ({steps}), second phase {second:.3} ms"),
        None => format!("{steps} in the first phase"),
    };
    output::result(&format!(
        "{:.3} ms per minibatch: {phases}\n\
         {:.1} GFLOP/s of {:.1} GFLOP/s of sgemm here with {} thread(s): {:.0} %\n\
         classifying takes {:.1} ms per 1,000 images of the test set, at {:.1} GFLOP/s\n\
         peak memory {:.0} MiB\n",
        speed.ms_per_minibatch,
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

/// The network to measure, with images enough for a minibatch.
fn load(args: &BenchArgs, resolved: Resolved) -> Result<(Config, Arc<Dataset>, Parameters)> {
    let (config, dataset, theta) = args.network.load(resolved)?;
    if dataset.train.len() < config.training.batch_size {
        bail!("training.batch_size = {} is more than there are images", config.training.batch_size);
    }
    Ok((config, dataset, theta))
}

/// Measures networks that train together.
fn together(args: &BenchArgs, resolved: Resolved, replicas: usize) -> Result<u8> {
    let (config, dataset, theta) = load(args, resolved)?;
    let device = open_device(&config)?;
    let job = config.job(&device);
    let chosen = config.training.engine.chosen(&theta.network, &job, theta.dtype());
    let why = match &chosen {
        Ok(EngineKind::Fused) => {
            Err("trains one network at a time on a CPU, as sweeps do there: it needs --device cuda"
                .to_string())
        }
        Ok(_) => replicas::supports(&theta.network, &job),
        Err(why) => Err(why.clone()),
    };
    let engine = if chosen == Ok(EngineKind::Kernel) { "kernel" } else { "plain" };
    if let Err(why) = why {
        bail!("--replicas {replicas}: eqprop {why}");
    }
    let seconds = bench::time_together(&config, &device, &dataset, replicas, args.minibatches)?;
    let ms = 1e3 * seconds;
    output::result(&match args.json {
        true => {
            let result =
                serde_json::json!({"replicas": replicas, "engine": engine, "ms_per_replica_minibatch": ms});
            format!("{result}\n")
        }
        false => format!("{ms:.4} ms per minibatch of one of {replicas} networks, {engine} engine\n"),
    })?;
    Ok(0)
}
