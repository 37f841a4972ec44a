//! The TensorBoard view of a run: its numbers, and beside them layout, settings, histograms and pictures.

use super::look::{self, Look};
use super::metrics::START_ANGLE;
use super::observer::{Epoch, Observer};
use super::plugins;
use super::refill::{self, Numbers};
use super::tensorboard::EventFile;
use crate::base::output::visible;
use crate::charts::pictures;
use crate::config::{Config, Resolved};
use crate::data::{Dataset, class_list};
use anyhow::Result;
use candle_core::DType;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tracing::info;

/// The number of receptive fields in a picture.
const FIELDS: usize = 100;
/// The number of wrong images in a picture.
const WRONG: usize = 36;

/// Writes a run's data for TensorBoard.
pub struct TensorBoard {
    events: EventFile,
    run: String,
    config: Config,
    dataset: Arc<Dataset>,
    /// The names of the classes, if any.
    class_names: Vec<String>,
    looked: Option<Look>,
    /// True once the table of runs has this one.
    has_row: bool,
}

impl TensorBoard {
    /// Begins an event file in the folder of the run of this name, which begins, or resumes with the epoch `next`.
    /// Writes which curves belong together, the run's settings, configuration and command. Writes the numbers again
    /// that earlier event files have lost.
    ///
    /// # Errors
    /// Names the file that cannot be read or written.
    pub fn open(
        folder: &Path,
        next: Option<usize>,
        run: &str,
        resolved: &Resolved,
        dataset: &Arc<Dataset>,
        class_names: &[String],
        surroundings: &impl Serialize,
    ) -> Result<Self> {
        let lost = next.map_or_else(|| Ok(Numbers::new()), |next| refill::lost(folder, next))?;
        // This file shows the later epochs of earlier files again.
        let from = lost.keys().next().copied().or(next);
        let (mut events, step) = (EventFile::create(folder, from)?, from.unwrap_or(0));
        events.layout(&plugins::layout(), step)?;
        let fenced = |text: &str| format!("```\n{}\n```\n", text.replace("```", "` ` `"));
        let configuration = format!("# run {run}, on {}\n\n{}", dataset.name, resolved.annotated());
        events.text("run/configuration", &fenced(&configuration), step)?;
        let mut surroundings = serde_json::to_value(surroundings)?;
        if !class_names.is_empty() {
            surroundings["classes"] = class_list(class_names).into();
        }
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
        let mut has_row = false;
        for (epoch, numbers) in &lost {
            if *epoch == 0 {
                let row = plugins::row(run, &resolved.config, &dataset.name, start_angle(numbers));
                events.hparams(&row, 0)?;
                has_row = true;
            }
            numbers.iter().try_for_each(|(tag, value)| events.scalar(tag, *value, *epoch))?;
        }
        if let Some(first) = from.filter(|_| !lost.is_empty()) {
            info!("TensorBoard's event files had lost numbers from epoch {first} on, and have them again");
        }
        events.flush()?;
        let (config, dataset, class_names) = (resolved.config.clone(), dataset.clone(), class_names.to_vec());
        Ok(Self { events, run: run.into(), config, dataset, class_names, looked: None, has_row })
    }

    /// Shows the distribution of the weights.
    fn weights(&mut self, epoch: &Epoch) -> Result<()> {
        for (name, tensor) in epoch.theta.named() {
            if let Some(matrix) = name.strip_suffix(".weight") {
                let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                self.events.histogram(&format!("weights/{matrix}"), &values, epoch.number)?;
            }
        }
        Ok(())
    }

    /// Shows pictures of a closer look at test images; with the confusion matrix where it was at all of them.
    fn pictures(&mut self, epoch: &Epoch, look: &Look) -> Result<()> {
        for (n, states) in look.hidden.iter().enumerate() {
            self.events.histogram(&format!("states/hidden_layer_{}", n + 1), states, epoch.number)?;
        }
        let weights = epoch.theta.that_look_at_images()?;
        let mut pictures = vec![("receptive_fields", pictures::receptive_fields(&weights, FIELDS))];
        if epoch.last {
            let (test, names) = (&self.dataset.test, &self.class_names);
            let wrong: Vec<_> = look.most_wrong(test, WRONG).iter().map(look::Wrong::answered).collect();
            pictures.push(("confusion", Some(pictures::confusion(&look.confusion(test), names)?)));
            pictures.push(("most_wrong", pictures::most_wrong(&wrong, names)));
        }
        for (name, picture) in pictures {
            if let Some(picture) = picture {
                self.events.image(&format!("pictures/{name}"), &picture, epoch.number)?;
            }
        }
        Ok(())
    }
}

/// The angle before training, if it is among these numbers.
fn start_angle(numbers: &[(String, f64)]) -> Option<f64> {
    numbers.iter().find(|(tag, _)| tag == START_ANGLE).map(|(_, angle)| *angle)
}

impl Observer for TensorBoard {
    fn measure(&mut self, epoch: &Epoch, stop: &dyn Fn() -> bool) -> Result<()> {
        // All test images once, which takes about as long as half an epoch; before that a few, for their states.
        let count = if epoch.last { usize::MAX } else { look::WITH_STATES };
        self.looked = match epoch.due || epoch.last {
            true => look::look(&self.config, &epoch.theta, &self.dataset.test, count, stop)?,
            false => None,
        };
        Ok(())
    }

    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        if !self.has_row {
            // For a resumed run, TensorBoard takes the first row.
            let row =
                plugins::row(&self.run, &self.config, &self.dataset.name, start_angle(&epoch.metrics.0));
            self.events.hparams(&row, epoch.number)?;
            self.has_row = true;
        }
        self.weights(epoch)?;
        if let Some(look) = self.looked.take() {
            self.pictures(epoch, &look)?;
        }
        for (tag, value) in &epoch.metrics.0 {
            self.events.scalar(tag, *value, epoch.number)?;
        }
        self.events.flush()
    }

    fn done(&mut self, epochs: usize) -> Result<()> {
        self.events.hparams(&plugins::done(), epochs)?;
        self.events.flush()
    }
}
