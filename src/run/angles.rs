//! Ψ(Δtot, −∇BPTT tot) of a network as it is, on random minibatches.

use crate::config::Config;
use crate::data::{Batch, Split};
use crate::learning::angle::{Summary, Trace};
use crate::model::network::Parameters;
use crate::rng::{Purpose, stream};
use anyhow::Result;
use rand::Rng;

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
