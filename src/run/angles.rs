//! Ψ(Δtot, −∇BPTT tot) of a network as it is, on random minibatches; of one that is trained, whenever that is due.

use crate::config::Config;
use crate::data::{Batch, Dataset, Split};
use crate::learning::angle::{Summary, Trace};
use crate::model::network::Parameters;
use crate::rng::{Purpose, stream};
use crate::telemetry::observer::{Epoch, Observer};
use anyhow::Result;
use rand::Rng;
use std::sync::Arc;
use tracing::info;

/// Compares the rule's updates with BPTT on `minibatches` random minibatches, drawn for `epoch`. `theta` is
/// not changed. `None` for rules that have no updates of their own to compare (the baselines), where K
/// is larger than T, so that BPTT cannot go back K steps, and where `stop` says so meanwhile.
///
/// # Errors
/// Only those of candle.
pub fn measure(
    config: &Config,
    theta: &Parameters,
    split: &Split,
    minibatches: usize,
    epoch: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Summary>> {
    if !config.learning.rule.is_nudged() || config.learning.K > config.settle.steps {
        return Ok(None);
    }
    let mut comparisons = Vec::new();
    for indices in self::minibatches(config, split, epoch).take(minibatches) {
        if stop() {
            return Ok(None);
        }
        let (_, trace) = record(config, theta, split, &indices)?;
        comparisons.push(trace.compare()?);
    }
    Ok(Summary::of(&comparisons))
}

/// The minibatches that angles are measured on in `epoch`: numbers of images, without end.
pub fn minibatches(config: &Config, split: &Split, epoch: usize) -> impl Iterator<Item = Vec<u32>> {
    let mut rng = stream(config.training.seed, Purpose::Angle, epoch as u64);
    let (size, count) = (config.training.batch_size, split.len() as u32);
    std::iter::repeat_with(move || (0..size).map(|_| rng.random_range(0..count)).collect())
}

/// Both phases and BPTT on the images with these numbers, at β as configured. `theta` is not changed.
///
/// # Errors
/// Where K > T, and those of candle.
pub fn record(config: &Config, theta: &Parameters, split: &Split, indices: &[u32]) -> Result<(Batch, Trace)> {
    let mut batch = Batch::default();
    split.gather(indices, &mut batch);
    let (model, dtype, device) = (config.model(), theta.dtype(), theta.device());
    let x = batch.x(dtype, device)?;
    let target = batch.y(config.network.dims.output(), dtype, device)?;
    let nudge = model.nudge(&target, config.learning.beta);
    let trace = Trace::record(&model, &config.learning, theta, &x, nudge)?;
    Ok((batch, trace))
}

/// Measures the angles of a run while it trains.
pub struct Angles {
    /// Its configuration.
    pub config: Config,
    /// Its data.
    pub dataset: Arc<Dataset>,
    /// What has been measured last, until it is told.
    pub found: Option<Summary>,
}

impl Observer for Angles {
    fn measure(&mut self, epoch: &Epoch, stop: &dyn Fn() -> bool) -> Result<()> {
        if !epoch.due {
            return Ok(());
        }
        let (config, most) = (&self.config, self.config.training.angle_minibatches);
        if epoch.number == 0 && most > 0 && config.learning.rule.is_nudged() {
            info!("measuring the angle between update and gradient on {most} minibatches");
        }
        // On fewer than before training, so that it takes 2 % of the time and not 8.
        let minibatches = if epoch.number == 0 { most } else { most.div_ceil(4) };
        self.found = measure(config, &epoch.theta, &self.dataset.train, minibatches, epoch.number, stop)?;
        Ok(())
    }

    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        let Some(summary) = self.found.take() else { return Ok(()) };
        if epoch.number == 0 {
            let (mean, std) = (summary.total_degrees.mean, summary.total_degrees.std);
            info!("before training Ψ(Δtot, −∇BPTT tot) = {mean:.1} ± {std:.1}°");
            epoch.metrics.push("start/angle", mean);
        }
        epoch.metrics.push_angles(&summary);
        Ok(())
    }
}
