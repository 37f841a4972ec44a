//! The training speed of a configuration on this machine.

use crate::base::files;
use crate::config::Config;
use crate::data::{Batch, Dataset, Split};
use crate::engine::{Engine, Report};
use crate::{rng, run};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// The measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Milliseconds a training minibatch, everything included.
    pub ms_per_minibatch: f64,
    /// Of these, the first phase.
    pub ms_first_phase: f64,
    /// The second phase with its updates.
    pub ms_second_phase: f64,
    /// Mean steps of the first phase.
    pub first_phase_steps: f64,
    /// Billions of floating-point operations done a second, a multiply-add being two.
    pub gflops: f64,
    /// Milliseconds to classify 1,000 images of the test set, the first phase alone.
    pub ms_per_1000_tested: f64,
    /// [`Speed::gflops`] of that test.
    pub gflops_testing: f64,
    /// The peak of a large float32 matrix product here, with the same threads.
    pub peak_gflops: f64,
    /// Threads used.
    pub threads: usize,
    /// Peak resident memory of the process, MiB; 0 where the system does not say.
    pub peak_rss_mib: f64,
}

/// Minibatches run before the clock starts.
const WARM_UP: usize = 5;

/// Durations of minibatches.
pub struct Timing {
    /// Seconds a training minibatch, everything included.
    pub whole: f64,
    /// Of these, the first phase.
    pub first_phase: f64,
    /// The first phases of all minibatches.
    pub report: Report,
    /// Multiply-adds of all minibatches.
    pub multiply_adds: f64,
}

/// Trains `minibatches` minibatches as a run would, and times them and their first phases in turn.
///
/// # Errors
/// What the engine reports.
pub fn time(config: &Config, engine: &mut dyn Engine, split: &Split, minibatches: usize) -> Result<Timing> {
    let size = config.training.batch_size;
    let order = rng::permutation(config.training.seed, 0, split.len());
    let mut batch = Batch::default();
    let (mut whole, mut first, mut multiply_adds) = (0.0, 0.0, 0.0);
    let mut report = Report::default();
    for (m, indices) in order.chunks(size).cycle().take(WARM_UP + minibatches).enumerate() {
        split.gather(indices, &mut batch);
        let started = Instant::now();
        engine.evaluate(&batch)?;
        let evaluated = started.elapsed().as_secs_f64();
        let beta = config.beta(m as u64);
        let started = Instant::now();
        split.gather(indices, &mut batch);
        let trained = engine.train(&batch, beta)?;
        if m >= WARM_UP {
            whole += started.elapsed().as_secs_f64();
            first += evaluated;
            let work = engine.multiply_adds(&trained);
            multiply_adds += work.first + work.second;
            report.add(&trained);
        }
    }
    let (whole, first_phase) = (whole / minibatches as f64, first / minibatches as f64);
    Ok(Timing { whole, first_phase, report, multiply_adds })
}

/// Classifies a split: milliseconds for 1,000 images, and multiply-adds a second.
fn time_testing(engine: &mut dyn Engine, split: &Split) -> Result<(f64, f64)> {
    let (mut seconds, mut multiply_adds) = (0.0, 0.0);
    for batch in split.batches(usize::MAX, run::TEST_BATCH) {
        let started = Instant::now();
        let report = engine.evaluate(&batch)?;
        seconds += started.elapsed().as_secs_f64();
        multiply_adds += engine.multiply_adds(&report).first;
    }
    Ok((1e6 * seconds / split.len() as f64, multiply_adds / seconds))
}

/// Measures the speed of a configuration, and this machine's peak beside it.
///
/// # Errors
/// What the engine reports.
pub fn measure(
    config: &Config,
    engine: &mut dyn Engine,
    dataset: &Dataset,
    minibatches: usize,
) -> Result<Speed> {
    let timing = time(config, engine, &dataset.train, minibatches)?;
    let (ms_per_1000_tested, tested) = time_testing(engine, &dataset.test)?;
    Ok(Speed {
        ms_per_minibatch: 1e3 * timing.whole,
        ms_first_phase: 1e3 * timing.first_phase,
        ms_second_phase: 1e3 * (timing.whole - timing.first_phase),
        first_phase_steps: timing.report.mean_steps(),
        gflops: 2e-9 * timing.multiply_adds / (timing.whole * minibatches as f64),
        ms_per_1000_tested,
        gflops_testing: 2e-9 * tested,
        peak_gflops: peak_gflops()?,
        threads: rayon::current_num_threads(),
        peak_rss_mib: peak_rss_mib(),
    })
}

/// The best of some products of large float32 matrices, by candle's own matmul, in GFLOP/s.
///
/// # Errors
/// Only those of candle.
pub fn peak_gflops() -> Result<f64> {
    const SIZE: usize = 1024;
    let matrix = || Tensor::rand(-1f32, 1f32, (SIZE, SIZE), &Device::Cpu);
    let (a, b) = (matrix()?, matrix()?);
    let mut best: f64 = 0.0;
    for _ in 0..20 {
        let started = Instant::now();
        a.matmul(&b)?;
        best = best.max(2e-9 * (SIZE as f64).powi(3) / started.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// Peak resident memory of this process so far, MiB, from /proc.
fn peak_rss_mib() -> f64 {
    let read = || -> Result<f64> {
        let status = files::read_text(Path::new("/proc/self/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    };
    read().unwrap_or(0.0)
}
