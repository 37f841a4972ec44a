//! The training loop: minibatches, epochs, tests, checkpoints.

use super::angles::Angles;
use super::checkpoint;
use super::error::Result;
use super::health::{self, Health};
use super::progress::RngPosition;
use super::sessions::Session;
use super::{Interrupt, Run};
use crate::base::waiting::Waiting;
use crate::data::Split;
use crate::engine::{Engine, Report, Turn};
use crate::rng::{self, Purpose};
use crate::telemetry::metrics::{Metrics, MetricsFile};
use crate::telemetry::observer::{Epoch, Observer};
#[cfg(feature = "cli")]
use crate::telemetry::showing::TensorBoard;
use std::time::Instant;
use tracing::{error, info};

/// Images classified at a time in a test.
pub const TEST_BATCH: usize = 1000;

/// The ways a run can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Done,
    /// A state or weight was not a finite number, or the weights had run away.
    Diverged,
    /// This signal stopped it; it has been saved.
    Interrupted(i32),
}

/// Trains `run` to the end of its epochs, or until it diverges or is interrupted.
///
/// # Errors
/// What cannot be read or written, named with its remedy; the last checkpoint stays.
pub fn train(mut run: Run, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Outcome> {
    let mut session = run.create_files()?;
    let next = run.resumed.then(|| run.progress.next_epoch());
    let Run { resolved, dataset, progress, surroundings, .. } = &run;
    let folder = &run.folders.records;
    #[cfg(feature = "cli")]
    let names = &progress.class_names;
    // An observer's additions to the metrics of an epoch are written by those after it.
    let observers: &mut [&mut dyn Observer] = &mut [
        &mut Angles { config: resolved.config.clone(), dataset: dataset.clone(), found: None },
        #[cfg(feature = "cli")]
        &mut TensorBoard::open(folder, next, &progress.run, resolved, dataset, names, surroundings)?,
        &mut MetricsFile::open(folder, &dataset.name, next)?,
        observer,
    ];
    info!("run {} on {}: {}", progress.run, surroundings.device, folder.display());
    let outcome = Training { run: &mut run, session: &mut session, observers, interrupt }.all_epochs()?;
    session.end()?;
    Ok(outcome)
}

/// A run in training, with everything that takes part.
struct Training<'a, 'b> {
    run: &'a mut Run,
    session: &'a mut Session,
    observers: &'a mut [&'b mut dyn Observer],
    interrupt: &'a Interrupt,
}

impl Training<'_, '_> {
    /// Trains all epochs from the run's position.
    fn all_epochs(&mut self) -> Result<Outcome> {
        if !self.run.progress.begun() {
            // From here on there is a checkpoint to resume from.
            if let Some(outcome) = self.save(false)? {
                return Ok(outcome);
            }
            if let Some(outcome) = self.close_epoch(None)? {
                return Ok(outcome);
            }
        }
        let mut health = Health::default();
        let epochs = self.run.resolved.config.training.epochs;
        while self.run.progress.epoch < epochs {
            if let Some(outcome) = self.epoch(&mut health)? {
                return Ok(outcome);
            }
            if let Some(signal) = self.interrupt.signal()
                && self.run.progress.epoch < epochs
            {
                return Ok(self.interrupted(signal));
            }
        }
        self.observers.iter_mut().try_for_each(|observer| observer.done(epochs))?;
        Ok(Outcome::Done)
    }

    /// Trains the rest of the current epoch.
    fn epoch(&mut self, health: &mut Health) -> Result<Option<Outcome>> {
        let per_epoch = self.run.minibatches_per_epoch();
        let (epoch, first) = (self.run.progress.epoch, self.run.progress.minibatch);
        let config = self.run.resolved.config.clone();
        let training = &config.training;
        let order = rng::permutation(training.seed, epoch, self.run.dataset.train.len());
        if first == 0 {
            self.run.engine.clear_ledger();
        }
        let images: Vec<&[u32]> = order.chunks(training.batch_size).collect();
        let started = Instant::now();
        while self.run.progress.minibatch < per_epoch {
            let run = &mut *self.run;
            let done = run.progress.minibatch;
            let global = epoch as u64 * per_epoch + done;
            self.observers.iter_mut().for_each(|observer| observer.begin());
            // As many as the engine likes, up to the next checkpoint.
            let to_checkpoint = training.checkpoint_every - global % training.checkpoint_every;
            let end = per_epoch.min(done + to_checkpoint.min(run.engine.stride() as u64));
            let ahead = &images[done as usize..end as usize];
            for report in learn(run, ahead, global)? {
                run.progress.running.add(&report);
                run.progress.minibatch += 1;
                let global = epoch as u64 * per_epoch + run.progress.minibatch;
                run.progress.rng = RngPosition::new(training.seed, epoch, global);
                if !report.is_finite() {
                    return self.diverged("a state or weight is no longer a number").map(Some);
                }
                health.watch(epoch + 1, &report, run.engine.as_ref(), run.progress.best_train_error)?;
                let error = run.progress.running.error_percent();
                self.observers.iter_mut().for_each(|observer| observer.minibatch(epoch + 1, error));
            }
            let done = self.run.progress.minibatch;
            let due = (epoch as u64 * per_epoch + done).is_multiple_of(training.checkpoint_every);
            let stop = self.interrupt.signal();
            if stop.is_some() || (due && done < per_epoch) {
                let ended = self.save(false)?.or_else(|| stop.map(|signal| self.interrupted(signal)));
                if ended.is_some() {
                    return Ok(ended);
                }
            }
        }
        // An epoch stopped during its test has nothing left to time.
        let speed = (first < per_epoch).then(|| (per_epoch - first) as f64 / started.elapsed().as_secs_f64());
        self.close_epoch(speed)
    }

    /// Tests, shows the epoch to all observers, and saves; before the first epoch and after each. `speed` in
    /// minibatches a second. A signal postpones that until the run is resumed.
    fn close_epoch(&mut self, speed: Option<f64>) -> Result<Option<Outcome>> {
        let stop = || self.interrupt.signal().is_some();
        let mut epoch = test(self.run, speed, &stop)?;
        self.observers.iter_mut().try_for_each(|observer| observer.measure(&epoch, &stop))?;
        if let Some(signal) = self.interrupt.signal() {
            let diverged = self.save(false)?;
            return Ok(diverged.or_else(|| Some(self.interrupted(signal))));
        }
        self.run.progress.close(&epoch);
        self.observers.iter_mut().try_for_each(|observer| observer.epoch(&mut epoch))?;
        self.save(epoch.judged.improved)
    }

    /// Writes a checkpoint, unless the weights have diverged, which is reported.
    fn save(&mut self, best: bool) -> Result<Option<Outcome>> {
        let Run { engine, progress, folders, names, resolved, .. } = &*self.run;
        let theta = engine.parameters()?;
        if let Some(reason) = health::diverged(&theta)? {
            return self.diverged(&reason).map(Some);
        }
        let bytes = checkpoint::to_bytes(&theta, &engine.memory()?, progress)?;
        let (step, keep) = (progress.rng.beta_sign, resolved.config.training.keep_checkpoints);
        folders.checkpoints.save(names, keep, step, &bytes, best)?;
        self.session.reached(step);
        Ok(None)
    }

    fn diverged(&self, reason: &str) -> Result<Outcome> {
        let Run { engine, progress, folders, .. } = &*self.run;
        let norms = health::norms(&engine.parameters()?)?;
        let last = folders.checkpoints.last();
        let good = match last.is_file() {
            true => format!("The last good checkpoint is {}.", last.display()),
            false => "There is no good checkpoint.".into(),
        };
        error!(
            "diverged in epoch {} at minibatch {}: {reason} (largest residual of the first phase {:.2e}, norms \
             {norms}). {good} Smaller learning rates, or `--set settle.damping=0.5`, may help.",
            progress.epoch + 1,
            progress.minibatch,
            progress.running.residual,
        );
        Ok(Outcome::Diverged)
    }

    fn interrupted(&self, signal: i32) -> Outcome {
        let Run { progress, go_on, .. } = &*self.run;
        info!(
            "stopped by signal {signal} after {} epochs and {} minibatches; to resume: {go_on}",
            progress.epoch, progress.minibatch
        );
        Outcome::Interrupted(signal)
    }
}

/// Learns minibatches of these images, the first of which is the `global`-th of the run; augmented ones one by one.
fn learn(run: &mut Run, ahead: &[&[u32]], global: u64) -> Result<Vec<Report>> {
    let (config, per_epoch) = (&run.resolved.config, run.minibatches_per_epoch());
    let training = &config.training;
    let turn = |global: u64| Turn { beta: config.beta(global), epochs: global as f64 / per_epoch as f64 };
    let lessons = (global..).zip(ahead);
    let (Some(shape), false) = (run.dataset.train.shape, training.augment().is_none()) else {
        let lessons: Vec<_> = lessons.map(|(global, images)| (*images, turn(global))).collect();
        return Ok(run.engine.train_ahead(&run.dataset, &lessons)?);
    };
    let mut learn = |(global, images): (u64, &&[u32])| {
        let mut batch = run.dataset.train.batch(images);
        let mut rng = rng::stream(training.seed, Purpose::Augment, global);
        training.augment().apply(&mut batch, shape, &mut rng);
        Ok(run.engine.train_at(&batch, turn(global))?)
    };
    lessons.map(&mut learn).collect()
}

/// Tests the network, and collects the results of the epoch; some are missing where `stop` turns true.
fn test(run: &mut Run, speed: Option<f64>, stop: &dyn Fn() -> bool) -> Result<Epoch> {
    // A test after an epoch is covered by the line of the epoch.
    let _waiting = (run.progress.minibatch == 0)
        .then(|| Waiting::on(format!("testing on {} images before training", run.dataset.test.len())));
    let test = evaluate(run.engine.as_mut(), &run.dataset.test, stop)?;
    let validation = match run.dataset.validation.is_empty() {
        true => None,
        false => Some(evaluate(run.engine.as_mut(), &run.dataset.validation, stop)?),
    };
    let (training, progress) = (&run.resolved.config.training, &run.progress);
    let trained = (progress.minibatch > 0).then_some(progress.running);
    let number = progress.epoch + usize::from(trained.is_some());
    let theta = run.engine.parameters()?;
    let mut metrics = Metrics::default();
    metrics.push_reports(trained.as_ref(), validation.as_ref(), &test);
    metrics.push_weights(&theta)?;
    if let Some((ledger, trained)) = run.engine.ledger().zip(trained.as_ref()) {
        metrics.push_ledger(&run.resolved.config, &theta, &ledger, trained);
    }
    // Not finite where no time has passed: `Instant` never runs backwards, but may stand still.
    if let Some(speed) = speed.filter(|speed| speed.is_finite()) {
        metrics.push("speed/minibatches_per_second", speed);
        metrics.push("speed/epoch_seconds", run.minibatches_per_epoch() as f64 / speed);
    }
    let collapsed = |report: Report| health::collapsed(report.error_percent(), progress.best_train_error);
    Ok(Epoch {
        number,
        last: number == training.epochs,
        due: number == 0 || (training.angle_every > 0 && number.is_multiple_of(training.angle_every)),
        theta,
        trained,
        validation,
        test,
        judged: progress.judge(validation.as_ref(), &test),
        collapsed: trained.is_some_and(collapsed),
        metrics,
    })
}

/// Classifies a split, some images at a time, until `stop` turns true.
///
/// # Errors
/// What the engine reports.
pub fn evaluate(engine: &mut dyn Engine, split: &Split, stop: &dyn Fn() -> bool) -> Result<Report> {
    let mut report = Report::default();
    for batch in split.batches(usize::MAX, TEST_BATCH) {
        if stop() {
            break;
        }
        report.add(&engine.evaluate(&batch)?);
    }
    Ok(report)
}
