//! What a run tells: `metrics.jsonl` and TensorBoard, the same numbers in both; and pictures for TensorBoard.

use super::pictures::{self, Picture};
use super::plugins::{Layout, PluginContent};
use super::tensorboard::EventFile;
use crate::base::files;
use crate::base::output::visible;
use crate::config::Resolved;
use crate::data::Split;
use crate::engine::Report;
use crate::learning::angle::Summary;
use crate::model::network::Parameters;
use crate::run::look::Look;
use anyhow::{Context, Result};
use candle_core::DType;
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

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

/// How many receptive fields a picture shows.
const FIELDS: usize = 100;
/// How many wrong images a picture shows.
const WRONG: usize = 36;

/// Where a run's numbers go.
pub struct Telemetry {
    data: String,
    metrics: PathBuf,
    events: EventFile,
}

impl Telemetry {
    /// Opens the files in the run's folder. Lines of epochs from `next` on, which a resumed run will write
    /// again, are dropped.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn open(folder: &Path, data: &str, next: Option<usize>) -> Result<Self> {
        let metrics = folder.join("metrics.jsonl");
        if let Some(next) = next {
            let text = match fs::read_to_string(&metrics) {
                Ok(text) => text,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(e) => return Err(e).with_context(|| format!("{}: cannot be read", metrics.display())),
            };
            let kept: String = (text.split_inclusive('\n'))
                .filter(|line| {
                    let line: Option<Value> = serde_json::from_str(line).ok();
                    let epoch = line.and_then(|line| line["epoch"].as_u64());
                    epoch.is_some_and(|epoch| (epoch as usize) < next)
                })
                .collect();
            files::write_atomically(&metrics, kept.as_bytes())?;
        }
        let events = EventFile::create(folder, next)?;
        Ok(Self { data: data.to_string(), metrics, events })
    }

    /// Tells TensorBoard what the run is: which curves belong together, its settings, its configuration and command.
    /// `step` is the next epoch that is recorded.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn introduce(
        &mut self,
        run: &str,
        resolved: &Resolved,
        surroundings: &Value,
        step: usize,
    ) -> Result<()> {
        let events = &mut self.events;
        events.layout(&Layout::of_run(), step)?;
        events.hparams(&PluginContent::columns(&resolved.config), step)?;
        events.hparams(&PluginContent::row(run, &resolved.config, &self.data), step)?;
        let fenced = |text: &str| format!("```\n{}\n```\n", text.replace("```", "` ` `"));
        let configuration = format!("# run {run}, on {}\n\n{}", self.data, resolved.annotated());
        events.text("run/configuration", &fenced(&configuration), step)?;
        let mut lines = String::new();
        for (key, value) in surroundings.as_object().into_iter().flatten() {
            let words = match value {
                Value::Array(words) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
                Value::String(word) => word.clone(),
                other => other.to_string(),
            };
            lines += &format!("{key:<20} {}\n", visible(&words));
        }
        events.text("run/command", &fenced(lines.trim_end()), step)?;
        events.flush()
    }

    /// Tells TensorBoard how the weights are spread.
    ///
    /// # Errors
    /// Names the file that cannot be written, and those of candle.
    pub fn weights(&mut self, epoch: usize, theta: &Parameters) -> Result<()> {
        for (name, tensor) in theta.named() {
            if let Some(matrix) = name.strip_suffix(".weight") {
                let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                self.events.histogram(&format!("weights/{matrix}"), &values, epoch)?;
            }
        }
        Ok(())
    }

    /// Tells TensorBoard what a closer look at the images of `split` shows; where it was at all of them, with what is
    /// taken for what.
    ///
    /// # Errors
    /// Names the file that cannot be written, and those of candle.
    pub fn look(
        &mut self,
        epoch: usize,
        theta: &Parameters,
        split: &Split,
        look: &Look,
        all: bool,
    ) -> Result<()> {
        for (n, states) in look.hidden.iter().enumerate() {
            self.events.histogram(&format!("states/hidden_layer_{}", n + 1), states, epoch)?;
        }
        let first = &theta.forward[theta.depth()].weight;
        let weights = first.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let mut pictures = vec![("receptive_fields", pictures::receptive_fields(&weights, FIELDS)?)];
        if all {
            pictures.push(("confusion", Some(pictures::confusion(&look.confusion(split))?)));
            pictures.push(("most_wrong", pictures::most_wrong(&look.most_wrong(split, WRONG))?));
        }
        for (name, picture) in pictures {
            if let Some(Picture { png, width, height }) = picture {
                self.events.image(&format!("pictures/{name}"), png, width, height, epoch)?;
            }
        }
        Ok(())
    }

    /// Tells TensorBoard that the run is complete.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn done(&mut self, epoch: usize) -> Result<()> {
        self.events.hparams(&PluginContent::done(), epoch)?;
        self.events.flush()
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
            self.events.scalar(tag, *value, epoch)?;
        }
        line.insert("collapsed".into(), json!(collapsed));
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
