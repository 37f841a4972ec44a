//! How long runs take, from a short measurement.

use crate::config::Config;
use crate::data::Dataset;
use crate::engine;
use crate::run::{Resources, initial_parameters};
use crate::study::bench;
use anyhow::Result;
use std::collections::HashMap;

/// Minibatches measured.
const MINIBATCHES: usize = 10;

/// Estimates runs, measuring each kind once.
#[derive(Default)]
pub struct Estimator {
    /// Seconds of a minibatch and of its first phase, by what decides them.
    measured: HashMap<String, (f64, f64)>,
}

impl Estimator {
    /// Seconds of the whole run, on the threads it is called with.
    ///
    /// # Errors
    /// What the engine reports.
    pub fn seconds(&mut self, config: &Config, dataset: &Dataset, resources: &Resources) -> Result<f64> {
        let (whole, first) = self.minibatch(config, dataset, resources)?;
        let minibatches = |images: usize| images as f64 / config.training.batch_size as f64;
        let epoch = minibatches(dataset.train.len()) * whole + minibatches(dataset.test.len()) * first;
        Ok(epoch * config.training.epochs as f64)
    }

    fn minibatch(&mut self, config: &Config, dataset: &Dataset, resources: &Resources) -> Result<(f64, f64)> {
        let mut kind = config.clone();
        kind.network.psi = 0.0;
        kind.training.seed = 0;
        kind.training.epochs = 1;
        let kind = serde_json::to_string(&kind)?;
        if let Some(&known) = self.measured.get(&kind) {
            return Ok(known);
        }
        let device = resources.device(config.training.device)?;
        let theta = initial_parameters(config, None, &device)?;
        let mut engine =
            engine::build(config.training.engine, config.model(), config.protocol(), theta, &device)?;
        let timing = bench::time(config, engine.as_mut(), &dataset.train, MINIBATCHES)?;
        let seconds = (timing.whole, timing.first_phase);
        self.measured.insert(kind, seconds);
        Ok(seconds)
    }
}
