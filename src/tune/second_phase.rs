//! K from the gradients: the number of steps until those of the layer next to the input have arrived.

use super::sample::{MOST_STEPS, Sample, with_fixed_weights};
use crate::config::Config;
use crate::learning::{Learning, Lesson, Memory};
use crate::model::Parameters;
use crate::reference::rbp;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The part of the whole gradient of the layer next to the input that may be missing after K steps.
pub const MISSING: f64 = 0.05;
/// The missing part with which K is too small, whatever short probes show.
pub const TOO_MUCH: f64 = 0.2;
/// The number of steps shown beyond K.
const SHOWN: usize = 2;

/// The arrival of gradients, and of updates, on one minibatch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrival {
    /// The weight matrices.
    pub matrices: Vec<String>,
    /// ‖∇(t)‖ of each matrix, by t.
    pub gradients: Vec<Vec<f64>>,
    /// ‖Δ(t)‖ of each matrix, by t, where weights do not move.
    pub updates: Vec<Vec<f64>>,
    /// ‖Σ_{τ<t} ∇(τ) − ∇(tot)‖ / ‖∇(tot)‖ of the weights from the input, by t = 1, 2, …: what is missing.
    pub missing: Vec<f64>,
    /// ‖∇(tot)‖ of forward.n, output first; mean over the minibatches.
    pub forward_norms: Vec<f64>,
}

impl Arrival {
    /// Follows gradients back from s_*, and the second phase at `beta`.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn measure(config: &Config, sample: &Sample, beta: f64) -> Result<Self> {
        let Sample { model, theta, points } = sample;
        let point = points.first().context("no minibatch to measure on")?;
        let last = theta.depth();
        let norms = |of: &Parameters| -> candle_core::Result<Vec<f64>> {
            Ok(of.weight_norms()?.into_iter().map(|(_, norm)| norm).collect())
        };
        let whole = norms(&point.gradient)?[last];
        let mut left = point.gradient.clone();
        let (mut gradients, mut missing) = (Vec::new(), Vec::new());
        rbp::each(model, theta, &point.x, &point.y, point.settled.state(), |_, gradient| {
            left = left.plus(&gradient, |_| -1.0)?;
            gradients.push(norms(&gradient)?);
            missing.push(norms(&left)?[last] / whole);
            let arrived = missing.last().is_none_or(|part| *part < MISSING / 5.0);
            Ok(gradients.len() < MOST_STEPS && !(arrived && gradients.len() > last + SHOWN))
        })?;
        let learning = Learning { K: gradients.len(), ..with_fixed_weights(&config.learning) };
        let (nudge, settled) = (model.nudge(&point.y, beta), &point.settled);
        let lesson = Lesson::new(model, &learning, theta, &point.x, nudge, settled);
        let mut updates = Vec::new();
        lesson.learn(&mut Memory::new(model, theta)?, &mut |step| {
            updates.push(norms(&lesson.update(step)?)?);
            Ok(())
        })?;
        let mut forward_norms = vec![0.0; last + 1];
        for point in points {
            for (mean, norm) in forward_norms.iter_mut().zip(norms(&point.gradient)?) {
                *mean += norm / points.len() as f64;
            }
        }
        let matrices = theta.weight_norms()?.into_iter().map(|(name, _)| name).collect();
        Ok(Self { matrices, gradients, updates, missing, forward_norms })
    }

    /// K: the first step after which at most 5 % of the gradient of the input weights is missing; the last one
    /// measured where there is none.
    pub fn steps(&self) -> usize {
        self.first_with(MISSING)
    }

    /// The least K: the first step after which at most 20 % is missing.
    pub fn least(&self) -> usize {
        self.first_with(TOO_MUCH)
    }

    fn first_with(&self, missing: f64) -> usize {
        self.missing.iter().position(|part| *part <= missing).map_or(self.missing.len(), |t| t + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_is_where_the_gradient_of_the_input_weights_has_come() {
        let arrival = Arrival {
            matrices: vec![],
            gradients: vec![],
            updates: vec![],
            missing: vec![1.0, 0.4, 0.15, 0.04, 0.01],
            forward_norms: vec![],
        };
        assert_eq!((arrival.least(), arrival.steps()), (3, 4));
    }
}
