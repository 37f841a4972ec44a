//! Ψ(Δtot, −∇BPTT tot) of a network on random minibatches; during training, whenever a measurement is due.

use crate::base::spread::Spread;
use crate::base::waiting::Waiting;
use crate::config::Config;
use crate::data::{Batch, Dataset, Split};
use crate::learning::angle::{Summary, Trace};
use crate::model::network::Parameters;
use crate::rng::{Purpose, stream};
use crate::telemetry::metrics::START_ANGLE;
use crate::telemetry::observer::{Epoch, Observer};
use anyhow::Result;
use rand::Rng;
use std::sync::Arc;
use tracing::info;

/// Compares the rule's updates with BPTT on `minibatches` random minibatches, drawn for `epoch`. `theta` is not
/// changed. `None` for rules that have no updates of their own to compare (the baselines), where K is larger than T,
/// so that BPTT cannot go back K steps, and where `stop` turns true meanwhile.
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

/// Runs both phases and BPTT on the images with these numbers, at β as configured. `theta` is not changed.
///
/// # Errors
/// Where K > T, and those of candle.
pub fn record(config: &Config, theta: &Parameters, split: &Split, indices: &[u32]) -> Result<(Batch, Trace)> {
    let batch = split.batch(indices);
    let trace = record_batch(config, theta, &batch)?;
    Ok((batch, trace))
}

/// Runs both phases and BPTT on this minibatch.
///
/// # Errors
/// As [`record`].
pub fn record_batch(config: &Config, theta: &Parameters, batch: &Batch) -> Result<Trace> {
    let model = config.model();
    let (x, target) = (batch.x_for(theta)?, batch.y_for(theta)?);
    let nudge = model.nudge(&target, config.learning.beta);
    Ok(Trace::record(&model, &config.learning, theta, &x, nudge)?)
}

/// The count of minibatches from which quartiles are stated.
const ENOUGH: usize = 8;

/// The share of the training time that measuring angles may take.
const SHARE: f64 = 0.03;

/// The count of minibatches on which the angle is measured while a run trains on `images` images: a quarter of those
/// before training, and up to 8 as long as that takes less than 3 % of the time until the next measurement. The time
/// is estimated and not measured, so that a resumed run has the same numbers.
fn while_training(config: &Config, images: usize) -> usize {
    let training = &config.training;
    // Both phases and BPTT step by step take as long as this many minibatches of training in the fused engine: on two
    // cores 0.10 s for EP-1h (0.4 ms each) and 0.55 s for EP-2h (5 ms each). Convolutions train in the engine that measures.
    let takes = match config.network.dims.depth() {
        _ if config.network.dims.has_convolutions() => 4.0,
        1 => 250.0,
        _ => 110.0,
    };
    let between = (images.div_ceil(training.batch_size) * training.angle_every.max(1)) as f64;
    let affordable = (SHARE * between / takes) as usize;
    match training.angle_minibatches {
        0 => 0,
        most => most.div_ceil(4).max(affordable.min(ENOUGH)),
    }
}

/// Measures the angles of a run while it trains.
pub struct Angles {
    /// Its configuration.
    pub config: Config,
    /// Its data.
    pub dataset: Arc<Dataset>,
    /// The last measurement, until it is reported.
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
        let minibatches = match epoch.number {
            0 => most,
            _ => while_training(config, self.dataset.train.len()),
        };
        let _waiting = Waiting::on(format!("measuring the angle on {minibatches} minibatches"));
        self.found = measure(config, &epoch.theta, &self.dataset.train, minibatches, epoch.number, stop)?;
        Ok(())
    }

    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        let Some(summary) = self.found.take() else { return Ok(()) };
        if epoch.number == 0 {
            let Spread { mean, std, count, .. } = summary.total_degrees;
            let spread = std.map_or(String::new(), |std| format!(" ± {std:.1}"));
            info!("before training Ψ(Δtot, −∇BPTT tot) = {mean:.1}{spread}° (n = {count})");
            epoch.metrics.push(START_ANGLE, mean);
        }
        epoch.metrics.push_angles(&summary);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::Rule;

    #[test]
    fn angles_are_measured_on_as_many_minibatches_as_their_share_of_the_time_allows() {
        let ep = Config::preset(Rule::EP, [784, 512, 10]).unwrap();
        let of = |key: &str, value: i64| ep.with(key, value).unwrap();
        // 3 % of 5 epochs of 3,000 minibatches are 450, and one measured minibatch takes 250.
        assert_eq!(while_training(&ep, 60_000), 1);
        assert_eq!(while_training(&of("training.angle_every", 20), 60_000), 7);
        assert_eq!(while_training(&of("training.angle_every", 30), 60_000), 8);
        // A quarter of the number asked for, whatever it takes; none where it is 0.
        assert_eq!(while_training(&of("training.angle_minibatches", 40), 60_000), 10);
        assert_eq!(while_training(&of("training.angle_minibatches", 0), 60_000), 0);
        assert_eq!(while_training(&ep, 40), 1);
    }
}
