//! The position of a run: all that resuming needs beside the weights.

use crate::base::name;
use crate::config::Config;
use crate::data::Dataset;
use crate::engine::Report;
use crate::telemetry::observer::{Epoch, Judged};
use anyhow::{Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format written and read by this version.
pub const FORMAT: u32 = 1;

/// The contents of a checkpoint beside the weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Format of this metadata.
    pub format: u32,
    /// The name of the run.
    pub run: String,
    /// The resolved configuration.
    #[serde(deserialize_with = "crate::config::of_any_version")]
    pub config: Config,
    /// The data set that was trained on.
    pub data: String,
    /// Its checksums.
    pub checksums: BTreeMap<String, String>,
    /// The name of each class, by label; empty where there are only labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// Threads, on which the last bits may depend.
    pub threads: usize,
    /// Completed epochs.
    pub epoch: usize,
    /// Completed minibatches of the epoch under way.
    pub minibatch: u64,
    /// The positions of the random streams.
    pub rng: RngPosition,
    /// The results of the current epoch so far.
    pub running: Report,
    /// Best test error so far, percent.
    pub best_test_error: Option<f64>,
    /// Best error on the validation images so far, percent, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_validation_error: Option<f64>,
    /// Best train error of an epoch so far, percent.
    pub best_train_error: Option<f64>,
}

impl Progress {
    /// The position of a run that is about to begin.
    pub fn start(run: String, config: &Config, dataset: &Dataset, threads: usize) -> Self {
        Self {
            format: FORMAT,
            run,
            config: config.clone(),
            data: dataset.name.clone(),
            checksums: dataset.checksums.clone(),
            class_names: dataset.class_names.clone(),
            threads,
            epoch: 0,
            minibatch: 0,
            rng: RngPosition::new(config.training.seed, 0, 0),
            running: Report::default(),
            best_test_error: None,
            best_validation_error: None,
            best_train_error: None,
        }
    }

    /// The error by which an epoch is judged: on the images held out, where there are any, else on the test images.
    pub fn judge(&self, validation: Option<&Report>, test: &Report) -> Judged {
        let (set, report, best) = match validation {
            Some(validation) => ("validation", validation, self.best_validation_error),
            None => ("test", test, self.best_test_error),
        };
        let error = report.error_percent();
        let improved = best.is_none_or(|best| error < best);
        Judged { set, error, best: best.map_or(error, |best| best.min(error)), improved }
    }

    /// Records that an epoch is complete.
    pub fn close(&mut self, epoch: &Epoch) {
        if let Some(trained) = &epoch.trained {
            let best = self.best_train_error.unwrap_or(f64::INFINITY);
            self.best_train_error = Some(best.min(trained.error_percent()));
            self.epoch += 1;
            self.rng.shuffle = self.epoch as u64;
        }
        (self.minibatch, self.running) = (0, Report::default());
        let best = match epoch.validation {
            Some(_) => &mut self.best_validation_error,
            None => &mut self.best_test_error,
        };
        *best = Some(epoch.judged.best);
    }

    /// True where the network has been tested before training, which is the first thing a run does.
    pub fn begun(&self) -> bool {
        self.best_test_error.is_some() || self.best_validation_error.is_some()
    }

    /// The next epoch whose numbers are to be recorded; 0 is before training.
    pub fn next_epoch(&self) -> usize {
        if self.begun() { self.epoch + 1 } else { 0 }
    }

    /// Checks all that can be checked without the data: a checkpoint may have been altered, or made by anyone.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub(super) fn check(&self) -> Result<()> {
        name::check(&self.run, "the run's name")?;
        name::on_data(&self.run, &self.data)?;
        (self.config.validate()).map_err(|problem| anyhow!("{}: {}", problem.key, problem.message))?;
        let epochs = self.config.training.epochs;
        ensure!(self.epoch <= epochs, "{} epochs are done, and training.epochs = {epochs}", self.epoch);
        let percent = |error: Option<f64>| error.is_none_or(|error| (0.0..=100.0).contains(&error));
        let best = [self.best_test_error, self.best_validation_error, self.best_train_error];
        ensure!(best.into_iter().all(percent), "its best errors are not from 0 to 100 %");
        Ok(())
    }

    /// Checks the position in the run against the number of training images.
    ///
    /// # Errors
    /// The first thing that does not go together.
    pub fn check_position(&self, images: usize) -> Result<()> {
        let (training, running) = (&self.config.training, &self.running);
        let per_epoch = images.div_ceil(training.batch_size) as u64;
        ensure!(
            self.minibatch <= per_epoch,
            "it is at minibatch {}, and an epoch has {per_epoch}",
            self.minibatch
        );
        // At most the number of images, so that this cannot overflow.
        let seen = (self.minibatch as usize).saturating_mul(training.batch_size).min(images);
        let counted = running.images == seen && running.errors <= seen && running.unsettled <= seen;
        let most_steps = seen.saturating_mul(self.config.settle.steps);
        if !counted || running.steps > most_steps || running.loss < 0.0 {
            bail!(
                "{} minibatches are {seen} images, yet it counts {} images, {} errors, {} unsettled and {} steps",
                self.minibatch,
                running.images,
                running.errors,
                running.unsettled,
                running.steps
            );
        }
        let global = (self.epoch as u64).checked_mul(per_epoch).and_then(|n| n.checked_add(self.minibatch));
        let expected = global.map(|global| RngPosition::new(training.seed, self.epoch, global));
        ensure!(
            expected.as_ref() == Some(&self.rng),
            "its random streams are at {:?}, which is not epoch {}, minibatch {} of seed {}",
            self.rng,
            self.epoch,
            self.minibatch,
            training.seed
        );
        Ok(())
    }
}

/// The position of the random streams; they are counter-based, so this is their whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngPosition {
    /// The generator.
    pub generator: String,
    /// The seed of all streams.
    pub seed: u64,
    /// The next minibatch of the whole run: index into the β-sign stream.
    pub beta_sign: u64,
    /// The epoch under way: which shuffle stream orders it.
    pub shuffle: u64,
}

impl RngPosition {
    /// The position at a minibatch of the whole run in an epoch.
    pub fn new(seed: u64, epoch: usize, global_minibatch: u64) -> Self {
        Self { generator: "chacha8".into(), seed, beta_sign: global_minibatch, shuffle: epoch as u64 }
    }
}
