//! The training speed of a configuration on this machine.

use crate::base::files;
use crate::config::Config;
use crate::data::{Batch, Dataset, Split};
use crate::engine::replicas::{Hub, Replica};
use crate::engine::{Engine, Report, Turn};
use crate::{rng, run};
use anyhow::{Context, Result, anyhow};
use candle_core::{Device, Tensor};
use serde::Serialize;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

/// The measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Milliseconds a training minibatch, everything included.
    pub ms_per_minibatch: f64,
    /// Of these, the first phase; `None` where the engine does not run it alone.
    pub ms_first_phase: Option<f64>,
    /// The second phase with its updates; `None` likewise.
    pub ms_second_phase: Option<f64>,
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
    /// Of these, the first phase; `None` where the engine learns many minibatches at once.
    pub first_phase: Option<f64>,
    /// The first phases of all minibatches.
    pub report: Report,
    /// Multiply-adds of all minibatches.
    pub multiply_adds: f64,
}

impl Timing {
    /// Seconds to classify as many images as a minibatch has, at the most.
    pub fn to_classify(&self) -> f64 {
        self.first_phase.unwrap_or(self.whole)
    }
}

/// The first minibatches of a run: the numbers of their images, in `order`, and their turns.
fn lessons<'a>(config: &Config, order: &'a [u32], count: usize) -> Vec<(&'a [u32], Turn)> {
    let turn = |m: usize| Turn { beta: config.beta(m as u64), epochs: 0.0 };
    let minibatches = order.chunks(config.training.batch_size).cycle().take(count);
    minibatches.enumerate().map(|(m, images)| (images, turn(m))).collect()
}

/// Trains `minibatches` minibatches as a run would, and times them; and, in turn, their first phases, if the engine
/// takes one minibatch at a time.
///
/// # Errors
/// What the engine reports.
pub fn time(
    config: &Config,
    engine: &mut dyn Engine,
    dataset: &Arc<Dataset>,
    minibatches: usize,
) -> Result<Timing> {
    let order = rng::permutation(config.training.seed, 0, dataset.train.len());
    let lessons = lessons(config, &order, WARM_UP + minibatches);
    let (warm_up, timed) = lessons.split_at(WARM_UP);
    engine.train_ahead(dataset, warm_up)?;
    let alone = engine.stride() == 1;
    let mut batch = Batch::default();
    let (mut whole, mut first, mut multiply_adds) = (0.0, 0.0, 0.0);
    let mut report = Report::default();
    for ahead in timed.chunks(engine.stride()) {
        if alone {
            dataset.train.gather(ahead[0].0, &mut batch);
            let started = Instant::now();
            engine.evaluate(&batch)?;
            first += started.elapsed().as_secs_f64();
        }
        let started = Instant::now();
        let trained = engine.train_ahead(dataset, ahead)?;
        whole += started.elapsed().as_secs_f64();
        for trained in trained {
            let work = engine.multiply_adds(&trained);
            multiply_adds += work.first + work.second;
            report.add(&trained);
        }
    }
    let first_phase = alone.then_some(first / minibatches as f64);
    Ok(Timing { whole: whole / minibatches as f64, first_phase, report, multiply_adds })
}

/// Seconds that one minibatch of one network takes where `replicas` of them train together, each with a seed of its
/// own.
///
/// # Errors
/// What the engines report.
pub fn time_together(
    config: &Config,
    device: &Device,
    dataset: &Arc<Dataset>,
    replicas: usize,
    minibatches: usize,
) -> Result<f64> {
    let hub = Hub::new(config.job(device)).with_engine(config.training.engine);
    let started = Barrier::new(replicas + 1);
    let run = |mut engine: Replica, seed: u64| -> Result<()> {
        let order = rng::permutation(seed, 0, dataset.train.len());
        let lessons = lessons(config, &order, WARM_UP + minibatches);
        let (warm_up, timed) = lessons.split_at(WARM_UP);
        let warm = engine.train_ahead(dataset, warm_up);
        started.wait();
        warm?;
        timed.chunks(engine.stride()).try_for_each(|ahead| engine.train_ahead(dataset, ahead).map(drop))
    };
    let all = (0..replicas as u64).map(|seed| {
        let mut config = config.clone();
        config.training.seed = seed;
        Ok(hub.join(run::initial_parameters(&config, None, device)?))
    });
    let all: Vec<Replica> = all.collect::<Result<_>>()?;
    let seconds = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> =
            (0..).zip(all).map(|(seed, engine)| scope.spawn(move || run(engine, seed))).collect();
        started.wait();
        let clock = Instant::now();
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a replica has panicked"))??;
        }
        Ok::<_, anyhow::Error>(clock.elapsed().as_secs_f64())
    })?;
    Ok(seconds / (replicas * minibatches) as f64)
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
    dataset: &Arc<Dataset>,
    minibatches: usize,
) -> Result<Speed> {
    let timing = time(config, engine, dataset, minibatches)?;
    let (ms_per_1000_tested, tested) = time_testing(engine, &dataset.test)?;
    Ok(Speed {
        ms_per_minibatch: 1e3 * timing.whole,
        ms_first_phase: timing.first_phase.map(|first| 1e3 * first),
        // Two clocks: over few minibatches their difference may be noise.
        ms_second_phase: timing.first_phase.map(|first| 1e3 * (timing.whole - first).max(0.0)),
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
