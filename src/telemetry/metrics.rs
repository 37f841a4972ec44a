//! The numbers of an epoch, and `metrics.jsonl`, a line an epoch of them.

use super::observer::{Epoch, Observer};
use super::records;
pub use super::records::lines;
use crate::base::files;
use crate::engine::Report;
use crate::learning::angle::Summary;
use crate::model::network::Parameters;
use crate::model::synapse::Ledger;
use anyhow::{Context, Result};
use candle_core::DType;
use serde_json::{Map, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The tag of how many minibatches the angles of an epoch were measured on.
pub const ANGLE_MINIBATCHES: &str = "angle/minibatches";

/// The tag of the total angle before training, degrees, which epoch 0 alone has.
pub const START_ANGLE: &str = "start/angle";

/// The numbers of one epoch, by TensorBoard tag, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub Vec<(String, f64)>);

impl Metrics {
    /// Adds a number.
    pub fn push(&mut self, tag: impl Into<String>, value: f64) {
        self.0.push((tag.into(), value));
    }

    /// What training, the images held out and testing showed. Errors in percent.
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

    /// Ψ(Δtot, −∇BPTT tot) in degrees, and shares of synapses that agree in sign: means, what is known of their spread, and
    /// over how many minibatches.
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

    /// Pulses a synapse, and what part of their steps has led nowhere, Σ|Δw|/Σ|w − w'|: of an array of devices in an epoch,
    /// from what had been done to arrays `before`, with weights `theta_before`, to what has been done `after` it.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn push_ledger(
        &mut self,
        (before, theta_before): (&[Ledger], &Parameters),
        (after, theta): (&[Ledger], &Parameters),
    ) -> Result<()> {
        let names = theta.network.weights().map(|c| c.name());
        let names = names.chain((0..theta.biases.len()).map(|n| format!("forward.{n}.bias")));
        let tensors = theta.weights.iter().chain(&theta.biases);
        let tensors = tensors.zip(theta_before.weights.iter().chain(&theta_before.biases));
        for (i, (name, (now, then))) in names.zip(tensors).enumerate() {
            let [before, after] = [before, after].map(|ledger| ledger.get(i).copied().unwrap_or_default());
            let net = (now - then)?.abs()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            let pulses = after.pulses.saturating_sub(before.pulses) as f64;
            self.push(format!("pulses/{name}"), pulses / now.elem_count() as f64);
            if net > 0.0 {
                self.push(format!("wasted/{name}"), (after.moved - before.moved) / net);
            }
        }
        Ok(())
    }

    /// Norms of all weights, and Ψ(θf, θb) in degrees.
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
    /// That in the run's folder. Lines of epochs from `next` on, which a resumed run will write again, are dropped. Where
    /// others are no lines of a run, all of them stay in a file beside it.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn open(folder: &Path, data: &str, next: Option<usize>) -> Result<Self> {
        let path = folder.join(records::METRICS);
        if let Some(next) = next {
            let text = files::read_if_there(&path)?.unwrap_or_default();
            let (mut kept, mut all_known) = (String::new(), true);
            for (line, epoch) in records::epochs(&text) {
                match epoch {
                    Some(epoch) if epoch < next => kept += &format!("{}\n", line.trim_end_matches('\n')),
                    Some(_) => {}
                    // The last one may be cut short.
                    None => all_known &= !line.ends_with('\n'),
                }
            }
            if !all_known {
                let aside = files::free_beside(&path);
                files::write_atomically(&aside, text.as_bytes())?;
                warn!(
                    "{}: some lines are not those of a run; all of them are in {}",
                    path.display(),
                    aside.display()
                );
            }
            files::write_atomically(&path, kept.as_bytes())?;
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
        let append = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            file.write_all(&text)?;
            file.sync_data()
        };
        append().with_context(|| format!("{}: cannot be written. Is there space left?", self.path.display()))
    }
}
