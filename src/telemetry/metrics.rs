//! The numbers of an epoch, and `metrics.jsonl`, which has them as one line for each epoch.

use super::observer::{Epoch, Observer};
use super::records::{self, Told};
use crate::base::files;
use crate::engine::Report;
use crate::learning::angle::Summary;
use crate::model::network::Parameters;
use anyhow::{Context, Result};
use serde_json::{Map, json};
use std::path::{Path, PathBuf};
use tracing::warn;

/// The tag of the number of minibatches behind the angles of an epoch.
pub const ANGLE_MINIBATCHES: &str = "angle/minibatches";

/// The tag of the total angle before training, degrees; epoch 0 alone has it.
pub const START_ANGLE: &str = "start/angle";

/// The numbers of one epoch, by TensorBoard tag, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub Vec<(String, f64)>);

impl Metrics {
    /// Adds a number.
    pub fn push(&mut self, tag: impl Into<String>, value: f64) {
        self.0.push((tag.into(), value));
    }

    /// Adds the results of training, validation and testing. Errors in percent.
    pub fn push_reports(&mut self, train: Option<&Report>, validation: Option<&Report>, test: &Report) {
        if let Some(train) = train {
            self.push("error/train", train.error_percent());
            self.push("loss/train", train.mean_loss());
            self.push("settle/residual", train.residual);
            self.push("settle/residual_two_steps", train.residual_two_steps);
            self.push("settle/steps", train.mean_steps());
            self.push("settle/unsettled_percent", train.unsettled_percent());
        }
        if let Some(validation) = validation {
            self.push("error/validation", validation.error_percent());
            self.push("loss/validation", validation.mean_loss());
        }
        self.push("error/test", test.error_percent());
        self.push("loss/test", test.mean_loss());
    }

    /// Adds Ψ(Δtot, −∇BPTT tot) in degrees, and shares of synapses that agree in sign: means, their known spread, and
    /// the number of minibatches.
    pub fn push_angles(&mut self, summary: &Summary) {
        let groups = [
            ("angle", summary.total_degrees, &summary.per_matrix_degrees),
            ("sign_match", summary.sign_match, &summary.per_matrix_sign_match),
        ];
        for (group, total, per_matrix) in groups {
            for (name, spread) in [("total".into(), total)].iter().chain(per_matrix) {
                self.push(format!("{group}/{name}"), spread.mean);
                if let Some(std) = spread.std {
                    self.push(format!("spread/{group}/{name}"), std);
                }
                if let (Some([lower, upper]), "angle") = (spread.quartiles, group) {
                    self.push(format!("quartiles/{group}/{name}/lower"), lower);
                    self.push(format!("quartiles/{group}/{name}/upper"), upper);
                }
            }
        }
        self.push(ANGLE_MINIBATCHES, summary.total_degrees.count as f64);
    }

    /// Adds norms of all weights, and Ψ(θf, θb) in degrees.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn push_weights(&mut self, theta: &Parameters) -> Result<()> {
        for (name, norm) in theta.weight_norms()? {
            self.push(format!("weights/norm/{name}"), norm);
        }
        for (n, psi) in theta.psi_degrees()?.into_iter().enumerate() {
            self.push(format!("psi/{n}"), psi);
        }
        Ok(())
    }
}

/// `metrics.jsonl` of a run.
pub struct MetricsFile {
    data: String,
    path: PathBuf,
}

impl MetricsFile {
    /// Opens the file in the run's folder. Drops lines of epochs from `next` on, which a resumed run will write
    /// again, and all but the last of several lines of an epoch. Where some lines are no lines of a run, or differ,
    /// all of them stay in a file beside it. Missing epochs are reported.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn open(folder: &Path, data: &str, next: Option<usize>) -> Result<Self> {
        let path = folder.join(records::METRICS);
        if let Some(next) = next {
            let told = Told::read(folder)?;
            told.say(next);
            if told.holds_more {
                let aside = files::keep_aside(&path)?;
                warn!(
                    "{}: some lines are not those of a run; all of them are in {}",
                    path.display(),
                    aside.display()
                );
            }
            let kept: Vec<u8> =
                told.epochs.range(..next).flat_map(|(_, line)| line.iter().copied().chain([b'\n'])).collect();
            files::write_atomically(&path, &kept)?;
        }
        Ok(Self { data: data.to_string(), path })
    }
}

impl Observer for MetricsFile {
    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        let mut line = Map::new();
        line.insert("epoch".into(), json!(epoch.number));
        line.insert("data".into(), json!(self.data));
        line.extend(epoch.metrics.0.iter().map(|(tag, value)| (tag.clone(), json!(value))));
        line.insert("collapsed".into(), json!(epoch.collapsed));
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        files::append(&self.path, &text)
            .with_context(|| format!("{}: cannot be written. Is there space left?", self.path.display()))
    }
}
