//! The training loop: minibatches, epochs, tests, checkpoints.

use super::checkpoint::{self, RngPosition};
use super::error::Result;
use super::health::{self, Health};
use super::sessions::Session;
use super::{Interrupt, Run, angles};
use crate::data::{Batch, Split, class_list};
use crate::engine::{Engine, Report, Turn};
use crate::rng;
use crate::telemetry::look;
use crate::telemetry::metrics::{Metrics, Telemetry};
use crate::telemetry::observer::{Judged, Observer};
use std::time::Instant;
use tracing::{error, info};

/// Images classified at a time when testing.
pub(super) const TEST_BATCH: usize = 1000;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Done,
    /// A state or weight was no longer a number, or the weights had run away.
    Diverged,
    /// This signal asked it to stop; it has been saved.
    Interrupted(i32),
}

/// Trains `run` to the end of its epochs, or until it diverges or is interrupted.
///
/// # Errors
/// What cannot be read or written, named with its remedy; the last checkpoint stays.
pub fn train(mut run: Run, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Outcome> {
    let mut session = run.create_files()?;
    let outcome = train_on(&mut run, &mut session, observer, interrupt)?;
    session.end()?;
    Ok(outcome)
}

/// From where the run stands.
fn train_on(
    run: &mut Run,
    session: &mut Session,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Outcome> {
    let next = run.resumed.then(|| run.progress.next_epoch());
    let mut telemetry = Telemetry::open(&run.folder, &run.dataset.name, next)?;
    let mut surroundings = serde_json::to_value(session.surroundings()).map_err(anyhow::Error::from)?;
    if !run.progress.class_names.is_empty() {
        surroundings["classes"] = class_list(&run.progress.class_names).into();
    }
    telemetry.introduce(&run.progress.run, &run.resolved, &surroundings, next.unwrap_or(0))?;
    let config = run.resolved.config.clone();
    let per_epoch = run.minibatches_per_epoch();
    info!("run {} on {}: {}", run.progress.run, run.device, run.folder.display());

    if !run.progress.begun() {
        // From here on there is something to go on from.
        if let Some(outcome) = save(run, session, false)? {
            return Ok(outcome);
        }
        if let Some(outcome) = close_epoch(run, session, &mut telemetry, observer, interrupt, None)? {
            return Ok(outcome);
        }
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
            observer.begin();
            run.dataset.train.gather(indices, &mut batch);
            let turn = Turn { beta: config.beta(global), epochs: global as f64 / per_epoch as f64 };
            let report = run.engine.train_at(&batch, turn)?;
            run.progress.running.add(&report);
            run.progress.minibatch += 1;
            run.progress.rng = RngPosition::new(config.training.seed, epoch, global + 1);
            if !report.is_finite() {
                return diverged(run, "a state or weight is no longer a number");
            }
            health.watch(epoch + 1, &report, run.engine.as_ref())?;
            observer.minibatch(epoch + 1, run.progress.running.error_percent());
            let due = (global + 1).is_multiple_of(config.training.checkpoint_every);
            let stop = interrupt.signal();
            if stop.is_some() || (due && run.progress.minibatch < per_epoch) {
                if let Some(outcome) = save(run, session, false)? {
                    return Ok(outcome);
                }
                if let Some(signal) = stop {
                    return Ok(interrupted(run, signal));
                }
            }
        }
        // Stopped while it was tested, an epoch has nothing left to time.
        let speed = (first < per_epoch).then(|| (per_epoch - first) as f64 / started.elapsed().as_secs_f64());
        if let Some(outcome) = close_epoch(run, session, &mut telemetry, observer, interrupt, speed)? {
            return Ok(outcome);
        }
        health.close_epoch(run.progress.best_train_error);
        if let Some(signal) = interrupt.signal()
            && run.progress.epoch < config.training.epochs
        {
            return Ok(interrupted(run, signal));
        }
    }
    telemetry.done(run.progress.epoch)?;
    Ok(Outcome::Done)
}

/// Tests, records the epoch's numbers and saves; before the first epoch and after each. `speed` in minibatches a
/// second. A signal puts that off until the run goes on.
fn close_epoch(
    run: &mut Run,
    session: &mut Session,
    telemetry: &mut Telemetry,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
    speed: Option<f64>,
) -> Result<Option<Outcome>> {
    let stop = || interrupt.signal().is_some();
    let test = evaluate(run.engine.as_mut(), &run.dataset.test, &stop)?;
    let validation = match run.dataset.validation.is_empty() {
        true => None,
        false => Some(evaluate(run.engine.as_mut(), &run.dataset.validation, &stop)?),
    };
    let theta = run.engine.parameters()?;
    let training = &run.resolved.config.training;
    let after_training = run.progress.minibatch > 0;
    let epoch = run.progress.epoch + usize::from(after_training);
    let due = epoch == 0 || (training.angle_every > 0 && epoch.is_multiple_of(training.angle_every));
    let angles = match due {
        true => {
            if epoch == 0 && training.angle_minibatches > 0 && run.resolved.config.learning.rule.is_nudged() {
                info!(
                    "measuring the angle between update and gradient on {} minibatches",
                    training.angle_minibatches
                );
            }
            let (config, split) = (&run.resolved.config, &run.dataset.train);
            // On fewer than before training, so that it takes 2 % of the time and not 8.
            let minibatches = match epoch {
                0 => training.angle_minibatches,
                _ => training.angle_minibatches.div_ceil(4),
            };
            angles::measure(config, &theta, split, minibatches, epoch, &stop)?
        }
        false => None,
    };
    let last = epoch == training.epochs;
    // TensorBoard alone shows it.
    let looked = match cfg!(feature = "cli") && (due || last) {
        true => {
            // All test images once, which takes about as long as half an epoch; before that a few, for their states.
            let count = if last { usize::MAX } else { look::WITH_STATES };
            look::look(&run.resolved.config, &theta, &run.dataset.test, count, &stop)?
        }
        false => None,
    };
    if let Some(signal) = interrupt.signal() {
        let diverged = save(run, session, false)?;
        return Ok(diverged.or_else(|| Some(interrupted(run, signal))));
    }
    let trained = std::mem::take(&mut run.progress.running);
    let trained = after_training.then_some(&trained);
    let mut metrics = Metrics::default();
    metrics.push_reports(trained, validation.as_ref(), &test);
    metrics.push_weights(&theta)?;
    if let Some(summary) = angles {
        if epoch == 0 {
            let (mean, std) = (summary.total_degrees.mean, summary.total_degrees.std);
            info!("before training Ψ(Δtot, −∇BPTT tot) = {mean:.1} ± {std:.1}°");
            metrics.push("start/angle", mean);
        }
        metrics.push_angles(&summary);
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
    telemetry.weights(epoch, &theta)?;
    if let Some(looked) = &looked {
        telemetry.look(epoch, &theta, &run.dataset.test, &run.progress.class_names, looked, last)?;
    }
    telemetry.write(epoch, collapsed, &metrics)?;
    observer.epoch(run.progress.epoch, trained.map(Report::error_percent), Judged { set, error, best });
    save(run, session, improved)
}

/// Writes a checkpoint, unless the weights have diverged, which is said.
fn save(run: &Run, session: &mut Session, best: bool) -> Result<Option<Outcome>> {
    let theta = run.engine.parameters()?;
    if let Some(reason) = health::diverged(&theta)? {
        return diverged(run, &reason).map(Some);
    }
    let bytes = checkpoint::to_bytes(&theta, &run.engine.memory()?, &run.progress)?;
    let step = run.progress.rng.beta_sign;
    run.checkpoints.save(&run.names, step, &bytes, best)?;
    session.reached(step);
    Ok(None)
}

/// Classifies a split, some images at a time, or as many of them as it can before `stop` says so.
///
/// # Errors
/// What the engine reports.
pub fn evaluate(engine: &mut dyn Engine, split: &Split, stop: &dyn Fn() -> bool) -> Result<Report> {
    let mut report = Report::default();
    for_each_test_batch(split, |batch| {
        if !stop() {
            report.add(&engine.evaluate(batch)?);
        }
        Ok(())
    })?;
    Ok(report)
}

/// All images of a split, in order, as they are classified together.
///
/// # Errors
/// Those of `visit`.
pub fn for_each_test_batch(
    split: &Split,
    mut visit: impl FnMut(&Batch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    let order: Vec<u32> = (0..split.len() as u32).collect();
    for indices in order.chunks(TEST_BATCH) {
        split.gather(indices, &mut batch);
        visit(&batch)?;
    }
    Ok(())
}

fn diverged(run: &Run, reason: &str) -> Result<Outcome> {
    let norms = health::norms(&run.engine.parameters()?)?;
    let last = run.checkpoints.last();
    let good = match last.is_file() {
        true => format!("The last good checkpoint is {}.", last.display()),
        false => "There is no good checkpoint.".into(),
    };
    error!(
        "diverged in epoch {} at minibatch {}: {reason} (largest residual of the first phase {:.2e}, norms \
         {norms}). {good} Smaller learning rates, or `--set settle.damping=0.5`, may help.",
        run.progress.epoch + 1,
        run.progress.minibatch,
        run.progress.running.residual,
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
