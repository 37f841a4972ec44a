//! A probe: a short run like any other, judged on images that are held out. It never sees test images.

use super::Tuner;
use crate::base::files;
use crate::config::{Choices, Config};
use crate::run::{self, Options, Outcome, Prepared, Run};
use crate::study::record::Record;
use crate::telemetry::observer::Observer;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Settings to try, and their name.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The name of its run.
    pub name: String,
    /// Its settings.
    pub config: Config,
}

/// The results of a probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probed {
    /// The tolerance to which an image settles.
    pub tolerance: f64,
    /// K.
    #[serde(rename = "K")]
    pub second_steps: usize,
    /// β.
    pub beta: f64,
    /// η, input side first.
    pub learning_rates: Vec<f64>,
    /// Train error, percent, by epoch.
    pub train: Vec<f64>,
    /// Error on the images held out, percent, by epoch.
    pub validation: Vec<f64>,
    /// Steps of the first phase that an image took in the last epoch, mean.
    pub steps: f64,
    /// The share of images that had not settled in the last epoch, percent.
    pub unsettled_percent: f64,
    /// True where it diverged or collapsed.
    pub lost: bool,
}

impl Probed {
    /// The error that judges it: on the images held out after the last epoch, percent; infinite where it is lost.
    pub fn error(&self) -> f64 {
        match self.validation.last() {
            Some(error) if !self.lost => *error,
            _ => f64::INFINITY,
        }
    }

    /// The train error of an epoch, from 1, percent.
    pub fn train_error(&self, epoch: usize) -> f64 {
        if self.lost { f64::INFINITY } else { self.train.get(epoch - 1).copied().unwrap_or(f64::INFINITY) }
    }
}

/// An observer that says nothing: a probe has one line, when it is done.
struct Quiet;

impl Observer for Quiet {}

impl Tuner<'_> {
    /// Trains a candidate up to so many epochs, resuming where it stands.
    ///
    /// # Errors
    /// What a run reports that cannot be read or written, and where a signal has come.
    pub fn probe(&mut self, candidate: &Candidate, epochs: usize) -> Result<Probed> {
        let work = self.work_of(&candidate.config, epochs)?;
        let before = self.done.insert(candidate.name.clone(), work).unwrap_or(0.0);
        self.spent += (work - before).max(0.0);
        let run_name = self.run_name(&candidate.name)?;
        let Tuner { log, request, folder, .. } = self;
        log.step(&format!("probe/{}/{epochs}", candidate.name), || {
            let probes = folder.join("probes");
            files::create_folder(&probes)?;
            let mut config = candidate.config.clone();
            config.training.epochs = epochs;
            let file = probes.join(format!("{}.toml", candidate.name));
            files::write_atomically(&file, toml::to_string(&config)?.as_bytes())?;
            let choices = Choices { config: Some(file), ..Choices::default() };
            let options = Options::going_on(&candidate.name, &probes);
            let mut lost = false;
            if let Prepared::Ready(run) = Run::prepare(&choices, &options, request.resources)? {
                match run::train(*run, &mut Quiet, request.interrupt)? {
                    Outcome::Done => {}
                    Outcome::Diverged => lost = true,
                    Outcome::Interrupted(signal) => return Err(super::Stopped(signal).into()),
                }
            }
            let record = Record::read(&probes.join("runs").join(run_name), 0)?;
            let of =
                |tag: &str| record.curve(tag).into_iter().filter(|point| point.0 >= 1.0).map(|point| point.1);
            Ok(Probed {
                tolerance: config.settle.tolerance,
                second_steps: config.learning.K,
                beta: config.learning.beta,
                learning_rates: config.learning.learning_rates.clone(),
                train: of("error/train").collect(),
                validation: of("error/validation").collect(),
                steps: record.last("settle/steps").unwrap_or(0.0),
                unsettled_percent: record.last("settle/unsettled_percent").unwrap_or(0.0),
                lost: lost || record.collapsed().is_some(),
            })
        })
    }

    /// The checkpoint that a probe has left.
    ///
    /// # Errors
    /// Where there is none.
    pub fn weights_of(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join("probes/checkpoints").join(self.run_name(name)?).join("last.safetensors");
        path.is_file().then_some(path.clone()).with_context(|| {
            format!("{}: no longer exists: begin again in another folder with --out", path.display())
        })
    }
}
