//! T from settling: how long it takes until almost no image moves any more.

use super::Stop;
use crate::config::Config;
use crate::data::{Batch, Split};
use crate::engine::{SETTLED, plain};
use crate::model::settle::largest_changes;
use crate::model::{Dynamics, Parameters};
use crate::run::angles;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// How many images, in minibatches as large as the configured.
const IMAGES: usize = 1000;
/// The share of images that must have settled.
const SHARE: f64 = 0.999;
/// The share without which a run says that it does not settle.
const MOST_SHARE: f64 = 0.99;
/// The most steps looked at.
pub const MOST_STEPS: usize = 500;
/// Where nothing moves by more, there is nothing left to see: float32 has no smaller steps between states near 1.
const STILL: f64 = 2e-7;
/// A state may move by this part of β in the last step: what is left of the first phase adds 1/β times its movement to
/// Δs, so that this is a hundredth of the nudge.
const OF_BETA: f64 = 0.01;

/// How images settle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settling {
    /// max|s_{t+1} − s_t| of an image, by t: the value that 99.9 % of the images do not exceed.
    pub residuals: Vec<f64>,
    /// The same for 99 % of the images.
    pub most: Vec<f64>,
    /// The same for half of them.
    pub median: Vec<f64>,
}

impl Settling {
    /// Steps of F without a nudge from s = 0 on random images, until all but 0.1 % are at rest.
    ///
    /// # Errors
    /// Only those of candle, and where `stop` says so.
    pub fn measure(config: &Config, theta: &Parameters, split: &Split, stop: &Stop) -> Result<Self> {
        let dynamics = config.model().dynamics;
        let weight = &theta.forward[0].weight;
        let mut states = Vec::new();
        let minibatches = (IMAGES / config.training.batch_size).max(1);
        for indices in angles::minibatches(config, split, 1).take(minibatches) {
            let mut batch = Batch::default();
            split.gather(&indices, &mut batch);
            let x = plain::images(&batch, weight.dtype(), weight.device())?;
            states.push((dynamics.drive(theta, &x)?, Dynamics::initial_state(theta, &x)?));
        }
        let mut settling = Self { residuals: Vec::new(), most: Vec::new(), median: Vec::new() };
        for t in 0..MOST_STEPS {
            let mut moved = Vec::new();
            for (drive, s) in &mut states {
                stop.check()?;
                let s_next = dynamics.step(theta, drive, s, config.settle.order.layers(t), None)?;
                moved.extend(largest_changes(&s_next, s)?);
                *s = s_next;
            }
            moved.sort_by(f64::total_cmp);
            let at =
                |share: f64| moved[((share * moved.len() as f64).ceil() as usize).clamp(1, moved.len()) - 1];
            settling.residuals.push(at(SHARE));
            settling.most.push(at(MOST_SHARE));
            settling.median.push(at(0.5));
            if at(SHARE) <= STILL {
                break;
            }
        }
        Ok(settling)
    }

    /// T: the first step from which on 99.9 % of the images move by no more than β/100; `None` where that has not come.
    pub fn steps(&self, beta: f64) -> Option<usize> {
        first_within(&self.residuals, OF_BETA * beta.abs())
    }

    /// The least T: the first step from which on 99 % of the images have settled as a run counts it ([`SETTLED`]).
    pub fn least(&self) -> Option<usize> {
        first_within(&self.most, SETTLED)
    }

    /// The first step from which on nothing moves by more than a millionth; all that were looked at where that has not
    /// come.
    pub fn still(&self) -> usize {
        first_within(&self.residuals, 1e-6).unwrap_or(self.residuals.len())
    }
}

/// The first step from which on no residual is larger.
fn first_within(residuals: &[f64], largest: f64) -> Option<usize> {
    let unsettled = residuals.iter().rposition(|moved| moved.is_nan() || *moved > largest);
    let steps = unsettled.map_or(1, |last| last + 2);
    (steps <= residuals.len()).then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_what_stays_settled() {
        let of = |residuals: &[f64]| Settling { residuals: residuals.to_vec(), most: vec![], median: vec![] };
        assert_eq!(of(&[0.5, 0.009, 0.02, 0.004, 0.001]).steps(1.0), Some(4));
        assert_eq!(of(&[0.001, 0.001]).steps(1.0), Some(1));
        assert_eq!(of(&[0.5, 0.4]).steps(1.0), None);
        assert_eq!(of(&[0.001, f64::NAN]).steps(1.0), None);
        assert_eq!(of(&[0.5, 0.1, 0.002]).steps(-0.1), None);
    }
}
