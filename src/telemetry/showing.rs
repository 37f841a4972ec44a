//! What TensorBoard shows of a run beside its numbers: layout, settings, histograms, pictures.

use super::look::{Look, Wrong};
use super::metrics::Telemetry;
use super::plugins;
use crate::base::output::visible;
use crate::charts::pictures;
use crate::config::Resolved;
use crate::data::Split;
use crate::model::Parameters;
use anyhow::Result;
use candle_core::DType;
use serde_json::Value;

/// How many receptive fields a picture shows.
const FIELDS: usize = 100;
/// How many wrong images a picture shows.
const WRONG: usize = 36;

impl Telemetry {
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
        events.layout(&plugins::layout(), step)?;
        events.hparams(&plugins::columns(&resolved.config), step)?;
        events.hparams(&plugins::row(run, &resolved.config, &self.data), step)?;
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
    /// taken for what, by the `names` of the classes where there are any.
    ///
    /// # Errors
    /// Names the file that cannot be written, and those of candle.
    pub fn look(
        &mut self,
        epoch: usize,
        theta: &Parameters,
        split: &Split,
        names: &[String],
        look: &Look,
        all: bool,
    ) -> Result<()> {
        for (n, states) in look.hidden.iter().enumerate() {
            self.events.histogram(&format!("states/hidden_layer_{}", n + 1), states, epoch)?;
        }
        let first = &theta.forward[theta.depth()].weight;
        let weights = first.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let mut pictures = vec![("receptive_fields", pictures::receptive_fields(&weights, FIELDS))];
        if all {
            let wrong: Vec<_> = look.most_wrong(split, WRONG).iter().map(Wrong::answered).collect();
            pictures.push(("confusion", Some(pictures::confusion(&look.confusion(split), names))));
            pictures.push(("most_wrong", pictures::most_wrong(&wrong, names)));
        }
        for (name, picture) in pictures {
            if let Some(picture) = picture {
                self.events.image(&format!("pictures/{name}"), &picture, epoch)?;
            }
        }
        Ok(())
    }

    /// Tells TensorBoard that the run is complete.
    ///
    /// # Errors
    /// Names the file that cannot be written.
    pub fn done(&mut self, epoch: usize) -> Result<()> {
        self.events.hparams(&plugins::done(), epoch)?;
        self.events.flush()
    }
}
