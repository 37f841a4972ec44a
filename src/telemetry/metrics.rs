//! What a run tells: `metrics.jsonl` and, with the feature `cli`, TensorBoard, the same numbers in both.

#[cfg(feature = "cli")]
use super::tensorboard::EventFile;
use crate::base::files;
use crate::engine::Report;
use crate::learning::angle::Summary;
use crate::model::network::Parameters;
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use tracing::warn;

/// The numbers of one epoch, by TensorBoard tag, in the order they were added.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<(String, f64)>);

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

    /// Ψ(Δtot, −∇BPTT tot) in degrees, and shares of synapses that agree in sign.
    pub fn push_angles(&mut self, summary: &Summary) {
        self.push("angle/total", summary.total_degrees.mean);
        self.push("spread/angle/total", summary.total_degrees.std);
        for (name, spread) in &summary.per_matrix_degrees {
            self.push(format!("angle/{name}"), spread.mean);
            self.push(format!("spread/angle/{name}"), spread.std);
        }
        self.push("sign_match/total", summary.sign_match.mean);
        self.push("spread/sign_match/total", summary.sign_match.std);
        for (name, spread) in &summary.per_matrix_sign_match {
            self.push(format!("sign_match/{name}"), spread.mean);
            self.push(format!("spread/sign_match/{name}"), spread.std);
        }
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

/// The lines of a `metrics.jsonl` with this text. The last may be cut short where the run was killed, and is left out.
///
/// # Errors
/// Names the file at `path` where it is not what a run writes.
pub fn lines(text: &str, path: &Path) -> Result<Vec<Map<String, Value>>> {
    (text.split_inclusive('\n').filter(|line| line.ends_with('\n')))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{}: not what a run writes", path.display()))
}

/// Where a run's numbers go.
pub struct Telemetry {
    pub(super) data: String,
    metrics: PathBuf,
    #[cfg(feature = "cli")]
    pub(super) events: EventFile,
}

impl Telemetry {
    /// Opens the files in the run's folder. Lines of epochs from `next` on, which a resumed run will write
    /// again, are dropped. Where others are no lines of a run, all of them stay in a file beside it.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn open(folder: &Path, data: &str, next: Option<usize>) -> Result<Self> {
        let metrics = folder.join("metrics.jsonl");
        if let Some(next) = next {
            let text = files::read_if_there(&metrics)?.unwrap_or_default();
            let (mut kept, mut all_known) = (String::new(), true);
            for line in text.split_inclusive('\n') {
                let found: Option<Value> = serde_json::from_str(line).ok();
                match found.and_then(|found| found["epoch"].as_u64()) {
                    Some(epoch) if (epoch as usize) < next => {
                        kept += line.trim_end_matches('\n');
                        kept.push('\n');
                    }
                    Some(_) => {}
                    // The last one may be cut short.
                    None => all_known &= !line.ends_with('\n'),
                }
            }
            if !all_known {
                let aside = files::free_beside(&metrics);
                files::write_atomically(&aside, text.as_bytes())?;
                warn!(
                    "{}: some lines are not those of a run; all of them are in {}",
                    metrics.display(),
                    aside.display()
                );
            }
            files::write_atomically(&metrics, kept.as_bytes())?;
        }
        Ok(Self {
            data: data.to_string(),
            metrics,
            #[cfg(feature = "cli")]
            events: EventFile::create(folder, next)?,
        })
    }

    /// Writes the numbers of an epoch; 0 is before training.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn write(&mut self, epoch: usize, collapsed: bool, metrics: &Metrics) -> Result<()> {
        let mut line = Map::new();
        line.insert("epoch".into(), json!(epoch));
        line.insert("data".into(), json!(self.data));
        for (tag, value) in &metrics.0 {
            line.insert(tag.clone(), json!(value));
            #[cfg(feature = "cli")]
            self.events.scalar(tag, *value, epoch)?;
        }
        line.insert("collapsed".into(), json!(collapsed));
        #[cfg(feature = "cli")]
        self.events.flush()?;
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let append = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.metrics)?;
            file.write_all(&text)?;
            file.sync_data()
        };
        append()
            .with_context(|| format!("{}: cannot be written. Is there space left?", self.metrics.display()))
    }
}

#[cfg(not(feature = "cli"))]
impl Telemetry {
    pub(crate) fn introduce(
        &mut self,
        _: &str,
        _: &crate::config::Resolved,
        _: &Value,
        _: usize,
    ) -> Result<()> {
        Ok(())
    }

    pub(crate) fn weights(&mut self, _: usize, _: &Parameters) -> Result<()> {
        Ok(())
    }

    pub(crate) fn look(
        &mut self,
        _: usize,
        _: &Parameters,
        _: &crate::data::Split,
        _: &[String],
        _: &super::look::Look,
        _: bool,
    ) -> Result<()> {
        Ok(())
    }

    pub(crate) fn done(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
}
