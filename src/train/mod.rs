//! The training loop, and what stands around it.

pub mod angles;
pub mod board;
pub mod checkpoint;
pub mod files;
pub mod fleet;
mod health;
mod interrupt;
mod memory;
pub mod progress;
mod run;
mod shared;
mod telemetry;
pub mod tensorboard;

pub use interrupt::Interrupt;
pub use run::{Options, Resume, Run, initial_parameters, open_device};
pub use shared::Shared;
pub(crate) use shared::lock;

use crate::data::Split;
use crate::engine::{Batch, Engine, Report};
use crate::output::usage;
use crate::rng;
use anyhow::{Context, Result};
use checkpoint::RngPosition;
use health::Health;
use progress::{Judged, Observer};
use std::time::Instant;
use telemetry::{Metrics, Telemetry};
use tracing::{error, info};

/// Images classified at a time when testing.
const TEST_BATCH: usize = 1000;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Done,
    /// A state or weight was no longer a number.
    Diverged,
    /// This signal asked it to stop; it has been saved.
    Interrupted(i32),
}

/// Runs `work` in a pool of so many threads, by default one a core.
///
/// # Errors
/// Where there can be no such pool, and those of `work`.
pub fn with_threads<R: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    if threads == Some(0) {
        usage!("--threads must be at least 1");
    }
    let pool = rayon::ThreadPoolBuilder::new()
        // Autograd recurses through all steps of a phase.
        .stack_size(256 << 20)
        .num_threads(threads.unwrap_or(0))
        .build()
        .context("cannot start the threads to compute with")?;
    pool.install(work)
}

/// Trains `run` to the end of its epochs, or until it diverges or is interrupted.
///
/// # Errors
/// What cannot be read or written, named with its remedy; the last checkpoint stays.
pub fn train(mut run: Run, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Outcome> {
    observer.may_write()?;
    run.create_files()?;
    let completed = run.resumed.then_some(run.progress.epoch);
    let mut telemetry = Telemetry::open(&run.folder, &run.dataset.name, completed)?;
    let config = run.resolved.config.clone();
    let per_epoch = run.minibatches_per_epoch();
    info!("run {} on {}: {}", run.progress.run, run.device, run.folder.display());

    if !run.resumed
        && let Some(outcome) = close_epoch(&mut run, &mut telemetry, observer, None)?
    {
        return Ok(outcome);
    }
    let mut health = Health::new(run.progress.best_train_error);
    let mut batch = Batch::default();
    while run.progress.epoch < config.training.epochs {
        let epoch = run.progress.epoch;
        let order = rng::permutation(config.training.seed, epoch, run.dataset.train.len());
        let started = Instant::now();
        let first = run.progress.minibatch;
        for indices in order.chunks(config.training.batch_size).skip(first as usize) {
            let global = epoch as u64 * per_epoch + run.progress.minibatch;
            let sign = match config.learning.random_beta {
                true => rng::beta_sign(config.training.seed, global),
                false => 1.0,
            };
            observer.begin();
            run.dataset.train.gather(indices, &mut batch);
            let report = run.engine.train(&batch, sign * config.learning.beta)?;
            run.progress.running.add(&report);
            run.progress.minibatch += 1;
            run.progress.rng = RngPosition::new(config.training.seed, epoch, global + 1);
            if !report.is_finite() {
                return diverged(&run, &report);
            }
            health.watch(epoch + 1, &report, run.engine.as_ref())?;
            observer.minibatch(epoch + 1, run.progress.running.error_percent());
            let due = (global + 1).is_multiple_of(config.training.checkpoint_every);
            let stop = interrupt.signal();
            if run.progress.minibatch < per_epoch && (due || stop.is_some()) {
                if !save(&run, observer, false)? {
                    return diverged(&run, &report);
                }
                if let Some(signal) = stop {
                    return Ok(interrupted(&run, signal));
                }
            }
        }
        let speed = (per_epoch - first) as f64 / started.elapsed().as_secs_f64();
        if let Some(outcome) = close_epoch(&mut run, &mut telemetry, observer, Some(speed))? {
            return Ok(outcome);
        }
        health.close_epoch(run.progress.best_train_error);
        if let Some(signal) = interrupt.signal()
            && run.progress.epoch < config.training.epochs
        {
            return Ok(interrupted(&run, signal));
        }
    }
    Ok(Outcome::Done)
}

/// Tests, records the epoch's numbers and saves. `speed` is `None` before the first epoch.
fn close_epoch(
    run: &mut Run,
    telemetry: &mut Telemetry,
    observer: &mut dyn Observer,
    speed: Option<f64>,
) -> Result<Option<Outcome>> {
    let test = evaluate(run.engine.as_mut(), &run.dataset.test)?;
    let validation = match run.dataset.validation.is_empty() {
        true => None,
        false => Some(evaluate(run.engine.as_mut(), &run.dataset.validation)?),
    };
    let trained = std::mem::take(&mut run.progress.running);
    let trained = speed.map(|_| &trained);
    let theta = run.engine.parameters()?;
    let mut metrics = Metrics::default();
    metrics.push_reports(trained, validation.as_ref(), &test);
    metrics.push_weights(&theta)?;
    let training = &run.resolved.config.training;
    let epoch = run.progress.epoch + usize::from(speed.is_some());
    if epoch == 0 || (training.angle_every > 0 && epoch.is_multiple_of(training.angle_every)) {
        let minibatches = training.angle_minibatches;
        let summary = angles::measure(&run.resolved.config, &theta, &run.dataset.train, minibatches, epoch)?;
        if let Some(summary) = summary {
            if epoch == 0 {
                let (mean, std) = (summary.total_degrees.mean, summary.total_degrees.std);
                info!("before training Ψ(Δtot, −∇BPTT tot) = {mean:.1} ± {std:.1}°");
            }
            metrics.push_angles(&summary);
        }
    }
    // Not finite where the clock has stood still: `Instant` never runs backwards, but stops where it would.
    if let Some(speed) = speed.filter(|speed| speed.is_finite()) {
        metrics.push("speed/minibatches_per_second", speed);
        metrics.push("speed/epoch_seconds", run.minibatches_per_epoch() as f64 / speed);
    }
    let mut collapsed = false;
    if let Some(trained) = trained {
        run.progress.epoch += 1;
        run.progress.minibatch = 0;
        let error = trained.error_percent();
        collapsed = health::collapsed(error, run.progress.best_train_error);
        let best = run.progress.best_train_error.unwrap_or(f64::INFINITY);
        run.progress.best_train_error = Some(best.min(error));
        run.progress.rng.shuffle = run.progress.epoch as u64;
    }
    let set = run.judged_by();
    let (judged, best) = match &validation {
        Some(validation) => (validation, &mut run.progress.best_validation_error),
        None => (&test, &mut run.progress.best_test_error),
    };
    let error = judged.error_percent();
    let improved = best.is_none_or(|best| error < best);
    let best = *best.insert(best.map_or(error, |best| best.min(error)));
    observer.may_write()?;
    telemetry.write(run.progress.epoch, collapsed, &metrics)?;
    observer.epoch(run.progress.epoch, trained.map(Report::error_percent), Judged { set, error, best });
    if !save(run, observer, improved)? {
        return diverged(run, &test).map(Some);
    }
    Ok(None)
}

/// Writes a checkpoint; `false` where a weight is not a number, and nothing is written.
fn save(run: &Run, observer: &dyn Observer, best: bool) -> Result<bool> {
    observer.may_write()?;
    let theta = run.engine.parameters()?;
    if theta.weight_norms()?.iter().any(|(_, norm)| !norm.is_finite()) {
        return Ok(false);
    }
    let bytes = checkpoint::to_bytes(&theta, &run.progress)?;
    run.checkpoints.save(run.progress.rng.beta_sign, &bytes, best)?;
    Ok(true)
}

/// Classifies a split, some images at a time.
///
/// # Errors
/// What the engine reports.
pub fn evaluate(engine: &mut dyn Engine, split: &Split) -> Result<Report> {
    let mut report = Report::default();
    for_each_test_batch(split, |batch| {
        report.add(&engine.evaluate(batch)?);
        Ok(())
    })?;
    Ok(report)
}

/// All images of a split, in order, as they are classified together.
///
/// # Errors
/// Those of `visit`.
pub fn for_each_test_batch(split: &Split, mut visit: impl FnMut(&Batch) -> Result<()>) -> Result<()> {
    let mut batch = Batch::default();
    let order: Vec<u32> = (0..split.len() as u32).collect();
    for indices in order.chunks(TEST_BATCH) {
        split.gather(indices, &mut batch);
        visit(&batch)?;
    }
    Ok(())
}

fn diverged(run: &Run, report: &Report) -> Result<Outcome> {
    let norms = health::norms(&run.engine.parameters()?)?;
    error!(
        "diverged in epoch {} at minibatch {}: a state or weight is no longer a number (residual of the \
         first phase {:.2e}, norms {norms}). The last good checkpoint is {}. Smaller learning rates, or \
         `--set learning.damped=true`, may help.",
        run.progress.epoch + 1,
        run.progress.minibatch,
        report.residual,
        run.checkpoints.last().display()
    );
    Ok(Outcome::Diverged)
}

fn interrupted(run: &Run, signal: i32) -> Outcome {
    info!(
        "stopped by signal {signal} after {} epochs and {} minibatches; to go on: {}",
        run.progress.epoch, run.progress.minibatch, run.go_on
    );
    Outcome::Interrupted(signal)
}
