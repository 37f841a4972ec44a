//! A run that is ready to train: its length, the files it writes before it begins, and its outline.

use super::ending::{Ending, Finished};
use super::error::Result;
use super::folders::Folders;
use super::progress::Progress;
use super::sessions::{Session, Surroundings};
use crate::base::files;
use crate::config::Resolved;
use crate::data::Dataset;
use crate::engine::Engine;
use crate::telemetry::observer::Extent;
use crate::telemetry::records;
use std::path::Path;
use std::sync::Arc;

/// A run that is ready to train.
pub struct Run {
    /// Its configuration, with the origin of each value.
    pub resolved: Resolved,
    /// The data.
    pub dataset: Arc<Dataset>,
    /// The engine with the weights.
    pub engine: Box<dyn Engine>,
    /// Its position.
    pub progress: Progress,
    /// True where it continues an earlier process.
    pub resumed: bool,
    /// Its name, and its earlier names if its folders were renamed.
    pub(super) names: Vec<String>,
    /// Its folders.
    pub(super) folders: Folders,
    /// The machine, program and threads that compute it.
    pub(super) surroundings: Surroundings,
    /// The command that resumes from its last checkpoint.
    pub go_on: String,
    /// The commands that may follow at its end: purpose and command.
    pub(super) next: Vec<(&'static str, String)>,
}

/// The whole path of a source that is a file or folder; otherwise its description.
fn whole_path(source: &str) -> String {
    match Path::new(source).exists().then(|| std::path::absolute(source)) {
        Some(Ok(whole)) => whole.display().to_string(),
        _ => source.to_string(),
    }
}

impl Run {
    /// The length of the run, and the part that is done.
    pub fn extent(&self) -> Extent {
        let epochs = self.resolved.config.training.epochs;
        let per_epoch = self.minibatches_per_epoch();
        Extent {
            name: self.progress.run.clone(),
            epochs,
            total: per_epoch * epochs as u64,
            done: per_epoch * self.progress.epoch as u64 + self.progress.minibatch,
        }
    }

    /// The end of the run.
    pub fn ending(&self) -> Ending {
        Ending {
            records: self.folders.records.clone(),
            known: Finished::known(&self.progress, &self.progress.run, false),
            next: self.next.clone(),
        }
    }

    /// Minibatches an epoch; the last may be smaller.
    pub fn minibatches_per_epoch(&self) -> u64 {
        let size = self.resolved.config.training.batch_size;
        self.dataset.train.len().div_ceil(size) as u64
    }

    /// Creates the run's folders, makes them this process's, and records its configuration and surroundings.
    ///
    /// # Errors
    /// Names what cannot be created or written, and who has the run where another process does.
    pub fn create_files(&mut self) -> Result<Session> {
        self.folders.create(self.resumed)?;
        let Self { resolved, dataset, progress, folders, surroundings, .. } = self;
        let config = format!(
            "# The resolved configuration of run {}, trained on {}; see environment.json.\n\n{}",
            progress.run,
            dataset.name,
            resolved.with_data(&dataset.name).annotated()
        );
        files::write_atomically(&folders.records.join(records::CONFIG), config.as_bytes())?;
        let environment = folders.records.join(records::ENVIRONMENT);
        if !environment.exists() {
            let mut fields = serde_json::to_value(&surroundings).map_err(anyhow::Error::from)?;
            fields["run"] = progress.run.clone().into();
            fields["seed"] = resolved.config.training.seed.into();
            fields["best_by"] = if dataset.validation.is_empty() { "test" } else { "validation" }.into();
            fields["data"] = serde_json::json!({
                "name": dataset.name,
                // The process that resumes the run may be in another folder.
                "source": whole_path(&dataset.source),
                "sha256": dataset.checksums,
            });
            if !progress.class_names.is_empty() {
                fields["data"]["classes"] = progress.class_names.clone().into();
            }
            files::write_atomically(&environment, format!("{fields:#}\n").as_bytes())?;
        }
        Ok(Session::begin(&folders.records, surroundings.clone(), progress.rng.beta_sign)?)
    }

    /// The outline for `--dry-run`: shapes, parameters, steps and disk.
    pub fn outline(&self) -> String {
        let config = &self.resolved.config;
        let dims = &config.network.dims;
        let network = config.network();
        let mut text =
            format!("run {} on {} ({})\n", self.progress.run, self.dataset.name, self.surroundings.device);
        for connection in network.weights() {
            let (to, from) = (dims.width(connection.to), dims.width(connection.from));
            let name = connection.name();
            let bias = if connection.is_forward() { " + bias" } else { "" };
            text += &match connection.convolution {
                // What follows is the size of both layers.
                Some(convolution) => {
                    let shape = convolution.shape().map(|side| side.to_string()).join(" × ");
                    format!("{name:<11} {shape}{bias}, between {from} and {to} neurons\n")
                }
                None if bias.is_empty() => format!("{name:<11} {to:>5} × {from}\n"),
                None => format!("{name:<11} {to:>5} × {from:<5}{bias}\n"),
            };
        }
        let parameters = network.parameter_count();
        let bytes = config.remembered() * config.training.dtype.dtype().size_in_bytes();
        let files = 2 + config.training.keep_checkpoints;
        let minibatches = self.extent().total;
        if !self.dataset.validation.is_empty() {
            text += &format!(
                "{} training images, and {} of them held out for validation, on which the best epoch is chosen\n",
                self.dataset.train.len(),
                self.dataset.validation.len()
            );
        }
        let memory = self.resolved.config.synapse.synapse().memory().join(" and ");
        let memory = if memory.is_empty() { memory } else { format!(" with a {memory} each") };
        text += &format!(
            "{parameters} parameters{memory}, {:.1} MB per checkpoint, {:.0} MB for {files} of them\n\
             {minibatches} minibatches of {} images in {} epochs, {} + {} steps each\n",
            bytes as f64 / 1e6,
            (bytes * files) as f64 / 1e6,
            config.training.batch_size,
            config.training.epochs,
            config.settle.steps,
            config.learning.K,
        );
        text
    }
}
