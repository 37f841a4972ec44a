//! The first phase from settling: when an image is at rest, and how long it takes until almost all are.
//!
//! Each image settles by itself, until a tolerance that follows from β; T is only the bound that hardly one reaches.
//! A T that all images take alike, as in the paper, is too long for most of them and, in a trained network, too short
//! for some, whose updates then are wrong.

use super::Stop;
use super::rates::tidy;
use crate::config::Config;
use crate::data::Split;
use crate::model::dynamics::Time;
use crate::model::settle::percentiles;
use crate::model::{Parameters, Settle, Solver};
use crate::run::angles;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The number of images, in minibatches of the configured size.
const IMAGES: usize = 1000;
/// The share of images that must have settled.
pub const SHARE: f64 = 0.999;
/// The most steps looked at, and the largest T.
pub const MOST_STEPS: usize = 500;
/// The factor from the steps that those images need to T: trained networks settle more slowly, and the others take no
/// more steps for it.
pub const MARGIN: usize = 4;
/// The bound on movement below which nothing can be seen: float32 has no smaller steps between states near 1.
const LEAST: f64 = 2e-7;
/// An image is at rest where F moves it by at most this part of β: the rest of the first phase adds 1/β times its
/// movement to Δs, so this is a thousandth of the nudge.
pub const FINE: f64 = 1e-3;
/// A hundredth of the nudge, where that is enough.
pub const COARSE: f64 = 1e-2;

/// `settle.tolerance` where F may move an image by `part` of β. Damped steps, and those of real time, go only a part
/// of the way.
pub fn tolerance(config: &Config, part: f64) -> f64 {
    let time = match config.network.time {
        Time::Discrete => 1.0,
        Time::Real => config.network.epsilon,
    };
    tidy(part * config.learning.beta * time * (1.0 - config.settle.damping)).max(LEAST)
}

/// The first phase of this configuration for a network that settles as measured.
pub fn settle(config: &Config, settling: &Settling) -> Settle {
    let tolerance = tolerance(config, FINE);
    Settle { tolerance, steps: settling.bound(tolerance), ..config.settle }
}

/// The course of settling.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settling {
    /// max|s_{t+1} − s_t| of an image, by t: the 99.9th percentile of the images (nearest rank).
    pub residuals: Vec<f64>,
    /// The median of the images (nearest rank).
    pub median: Vec<f64>,
}

impl Settling {
    /// Runs steps of F without a nudge from s = 0 on random images, until all but 0.1 % are at rest.
    ///
    /// # Errors
    /// Only those of candle, and where `stop` says so.
    pub fn measure(config: &Config, theta: &Parameters, split: &Split, stop: &Stop) -> Result<Self> {
        let mut model = config.model();
        model.settle.solver = Solver::Iterate;
        let minibatches = (IMAGES / config.training.batch_size).max(1);
        let mut phases = (angles::minibatches(config, split, 1).take(minibatches))
            .map(|indices| model.follow(theta, &split.batch(&indices).x_for(theta)?))
            .collect::<Result<Vec<_>, _>>()?;
        let mut settling = Self { residuals: Vec::new(), median: Vec::new() };
        for _ in 0..MOST_STEPS {
            let mut moved = Vec::new();
            for phase in &mut phases {
                stop.check()?;
                phase.step()?;
                moved.extend(phase.residuals()?);
            }
            let [settled, median] = percentiles(moved, [SHARE, 0.5]);
            settling.residuals.push(settled);
            settling.median.push(median);
            if settled <= LEAST {
                break;
            }
        }
        Ok(settling)
    }

    /// The first step from which on 99.9 % of the images move by at most `tolerance`; `None` where there is none.
    pub fn steps(&self, tolerance: f64) -> Option<usize> {
        first_within(&self.residuals, tolerance)
    }

    /// T where images settle to `tolerance`; the largest where they do not.
    pub fn bound(&self, tolerance: f64) -> usize {
        self.steps(tolerance).map_or(MOST_STEPS, |steps| (MARGIN * steps).min(MOST_STEPS))
    }

    /// The first step from which on nothing moves by more than a millionth; the last one measured where there is
    /// none.
    pub fn motionless(&self) -> usize {
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
    use crate::config::{Choices, Resolved};

    #[test]
    fn settled_is_what_stays_settled() {
        let of = |residuals: &[f64]| Settling { residuals: residuals.to_vec(), median: vec![] };
        assert_eq!(of(&[0.5, 0.009, 0.02, 0.004, 0.001]).steps(0.01), Some(4));
        assert_eq!(of(&[0.001, 0.001]).steps(0.01), Some(1));
        assert_eq!(of(&[0.5, 0.4]).steps(0.01), None);
        assert_eq!(of(&[0.001, f64::NAN]).steps(0.01), None);
        assert_eq!(of(&[0.5, 0.001]).bound(0.01), 4 * 2);
        assert_eq!(of(&[0.5, 0.4]).bound(0.01), MOST_STEPS);
    }

    #[test]
    fn rest_is_a_part_of_beta_and_of_what_a_step_may_move() {
        let choices = Choices { config: Some("ep-1h".into()), ..Choices::default() };
        let mut config = Resolved::new(&choices).unwrap().config;
        (config.learning.beta, config.settle.damping, config.network.epsilon) = (0.5, 0.2, 0.1);
        assert_eq!(tolerance(&config, FINE), 4e-4);
        config.network.time = Time::Real;
        assert_eq!(tolerance(&config, FINE), 4e-5);
    }
}
