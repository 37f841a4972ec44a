//! η of each layer: their ratios from the norms of the gradients, their size from how far a step may go.
//!
//! The rates are η_n = s/‖∇_n‖, so that a minibatch moves every matrix by about s; F.1 raises rates towards the input
//! for the same reason. What limits s is, for a continual rule, that the weights move while the nudge travels, and
//! turn the update; and for the others that the loss bends under a step.

use super::Stop;
use super::sample::{Sample, with_fixed_weights};
use crate::config::Config;
use crate::learning::{Learning, Lesson, Memory};
use anyhow::{Result, bail};
use candle_core::DType;
use serde::{Deserialize, Serialize};

/// The bound on the turn of continual updates away from those of η → 0, degrees, mean of both signs of β.
pub const LOSS: f64 = 5.0;
/// The least fall of the loss per unit of step, as a part of that of the smallest step.
pub const GAIN: f64 = 0.5;
/// The first step that is tried, as a part of the smallest ‖W_n‖, and the factor of growth.
const FIRST: f64 = 1e-4;
const GROWTH: f64 = 2.0;
/// The most steps tried: the last moves a matrix by more than all of itself.
const TRIED: usize = 15;
/// The factor beyond the bound at which the search ends.
const FAR: f64 = 4.0;

/// The effect of a step of one length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AtStep {
    /// s, by how much a minibatch moves each matrix.
    pub step: f64,
    /// Continual rules: Ψ(Δtot, −∇), degrees, mean of both signs of β; others: the fall of the loss of the minibatch,
    /// divided by s, as a part of that of the smallest step. `None` where it is no number.
    pub shows: Option<f64>,
}

/// The effects of steps, and the longest allowed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Steps {
    /// True where the angle limits the steps; otherwise the loss does.
    pub continual: bool,
    /// Of continual rules the angle at η = 0, degrees; 1 of the others.
    #[serde(rename = "still")]
    pub first: f64,
    /// In order of s.
    pub tried: Vec<AtStep>,
    /// The s found.
    pub step: f64,
}

/// η_n = `step`/‖∇_n‖, to three digits, as configurations have it: input side first. `forward_norms` are output first.
pub fn rates(step: f64, forward_norms: &[f64]) -> Vec<f64> {
    forward_norms.iter().rev().map(|norm| tidy(step / norm.max(f64::MIN_POSITIVE))).collect()
}

/// A number to three digits, as people write them.
pub fn tidy(value: f64) -> f64 {
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Tries steps of growing length until they go too far.
///
/// # Errors
/// Those of candle, where `stop` says so, and where the shortest step already raises the loss.
pub fn measure(config: &Config, sample: &Sample, forward_norms: &[f64], stop: &Stop) -> Result<Steps> {
    let (learning, beta) = (&config.learning, config.learning.beta);
    let continual = learning.rule.is_continual();
    let last = sample.theta.depth();
    let weights = sample.theta.weight_norms()?;
    let smallest = weights[..=last].iter().map(|(_, norm)| *norm).fold(f64::INFINITY, f64::min);
    let with = |step: f64| Learning { learning_rates: rates(step, forward_norms), ..learning.clone() };
    let angle = |learning: &Learning| -> Result<f64> {
        let both = [sample.follows(learning, beta)?, sample.follows(learning, -beta)?];
        Ok(both.iter().map(|of| of.total_degrees.mean).sum::<f64>() / 2.0)
    };
    let first = if continual { angle(&with_fixed_weights(learning))? } else { 1.0 };
    let mut steps = Steps { continual, first, tried: Vec::new(), step: FIRST * smallest };
    let mut first_gain = None;
    for i in 0..TRIED {
        stop.check()?;
        let step = FIRST * smallest * GROWTH.powi(i as i32);
        let shows = match continual {
            true => angle(&with(step))?,
            false => {
                let gain = fall(sample, &with(step), beta)? / step;
                let first_gain = *first_gain.get_or_insert(gain);
                if first_gain <= 0.0 {
                    bail!(
                        "learning.rule = \"{}\": even the shortest step, which moves each matrix by {step:.1e}, \
                         raises the loss of the minibatch that is learnt, so no learning rate is right: does the \
                         update follow the gradient (network.psi, `eqprop angle`)?",
                        learning.rule.name
                    );
                }
                gain / first_gain
            }
        };
        steps.tried.push(AtStep { step, shows: Some(shows).filter(|shows| shows.is_finite()) });
        let within = match continual {
            true => shows <= first + FAR * LOSS,
            false => shows > GAIN / FAR,
        };
        if !within {
            break;
        }
    }
    steps.step = steps.longest();
    Ok(steps)
}

impl Steps {
    /// The longest step up to which none goes too far; the shortest where even that one does.
    fn longest(&self) -> f64 {
        let allowed = |at: &&AtStep| {
            at.shows.is_some_and(|shows| match self.continual {
                true => shows <= self.first + LOSS,
                false => shows >= GAIN,
            })
        };
        let longest = self.tried.iter().take_while(allowed).last().or(self.tried.first());
        longest.map_or(self.step, |at| at.step)
    }
}

/// The mean fall of the loss of a minibatch when it is learnt.
fn fall(sample: &Sample, learning: &Learning, beta: f64) -> Result<f64> {
    let Sample { model, theta, points } = sample;
    let mut fall = 0.0;
    for point in points {
        let loss_of = |state: &candle_core::Tensor| -> candle_core::Result<f64> {
            model.loss.sum(&point.y.to_dtype(DType::F64)?, &state.to_dtype(DType::F64)?)?.to_scalar::<f64>()
        };
        let nudge = model.nudge(&point.y, beta);
        let lesson = Lesson::new(model, learning, theta, &point.x, nudge, &point.settled);
        let learnt = lesson.learn(&mut Memory::new(model, theta)?, &mut |_| Ok(()))?;
        let after = model.settle(&learnt, &point.x)?;
        fall += (loss_of(&point.settled.state()[0])? - loss_of(&after.state()[0])?) / points.len() as f64;
    }
    Ok(fall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_move_every_layer_alike_and_are_written_input_first() {
        assert_eq!(rates(0.02, &[2.0, 0.5]), [0.04, 0.01]);
        assert_eq!(tidy(0.123_456), 0.123);
    }

    #[test]
    fn the_longest_step_is_before_the_first_that_goes_too_far() {
        let steps = |continual: bool, first: f64, shows: &[f64]| Steps {
            continual,
            first,
            tried: (shows.iter().enumerate())
                .map(|(i, shows)| AtStep {
                    step: (i + 1) as f64,
                    shows: Some(*shows).filter(|s| s.is_finite()),
                })
                .collect(),
            step: 0.5,
        };
        assert_eq!(steps(true, 16.0, &[16.0, 17.0, 20.9, 21.1, 16.0]).longest(), 3.0);
        assert_eq!(steps(false, 1.0, &[1.0, 0.9, 0.6, f64::NAN, 0.7]).longest(), 3.0);
        assert_eq!(steps(true, 16.0, &[40.0]).longest(), 1.0);
    }
}
