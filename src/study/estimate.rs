//! Estimates of the duration of runs, from a short measurement.

use super::bench::{self, Timing};
use crate::config::Config;
use crate::data::{Dataset, Split};
use crate::run::{Resources, initial_parameters};
use anyhow::Result;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Minibatches measured.
const MINIBATCHES: usize = 10;

/// Estimates runs, measuring each kind once.
#[derive(Default)]
pub struct Estimator(HashMap<String, Timing>);

impl Estimator {
    /// Seconds of the whole run, on the threads of the caller.
    ///
    /// # Errors
    /// What the engine reports.
    pub fn seconds(&mut self, config: &Config, dataset: &Arc<Dataset>, resources: &Resources) -> Result<f64> {
        let mut kind = config.clone();
        (kind.network.psi, kind.training.seed, kind.training.epochs) = (0.0, 0, 1);
        let timing = match self.0.entry(serde_json::to_string(&kind)?) {
            Entry::Occupied(measured) => measured.into_mut(),
            Entry::Vacant(place) => {
                let device = resources.device(config)?;
                let theta = initial_parameters(config, None, &device)?;
                let mut engine = resources.engine(config, theta, &device)?;
                place.insert(bench::time(config, engine.as_mut(), dataset, MINIBATCHES)?)
            }
        };
        let minibatches = |split: &Split| split.len() as f64 / config.training.batch_size as f64;
        let epoch =
            minibatches(&dataset.train) * timing.whole + minibatches(&dataset.test) * timing.to_classify();
        Ok(epoch * config.training.epochs as f64)
    }
}
