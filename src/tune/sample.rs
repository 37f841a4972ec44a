//! Some minibatches in their stationary states with the gradients there, on which updates are measured.

use crate::config::Config;
use crate::data::Split;
use crate::learning::Learning;
use crate::learning::angle::{Comparison, Summary};
use crate::model::{Model, Parameters, Settled};
use crate::reference::rbp;
use crate::run::angles;
use crate::study::referee;
use anyhow::{Context, Result};
use candle_core::Tensor;

/// The number of minibatches.
const MINIBATCHES: usize = 4;
/// The bound on a step's part of a complete gradient.
const COMPLETE: f64 = 1e-3;
/// The most steps of a gradient.
pub const MOST_STEPS: usize = 300;

/// A network and some minibatches, settled.
pub struct Sample<'a> {
    /// The network.
    pub model: Model,
    /// θ.
    pub theta: &'a Parameters,
    /// The minibatches.
    pub points: Vec<Point>,
}

/// A minibatch.
pub struct Point {
    /// The images, (B, d_in).
    pub x: Tensor,
    /// Their targets, one-hot.
    pub y: Tensor,
    /// s_*.
    pub settled: Settled,
    /// ∇θ(tot), complete.
    pub gradient: Parameters,
}

impl<'a> Sample<'a> {
    /// Settles the minibatches that `eqprop angle` measures on, and takes their gradients.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn take(config: &Config, theta: &'a Parameters, split: &Split) -> Result<Self> {
        let model = config.model();
        let mut points = Vec::new();
        for indices in angles::minibatches(config, split, 0).take(MINIBATCHES) {
            let batch = split.batch(&indices);
            let (x, y) = (batch.x_for(theta)?, batch.y_for(theta)?);
            let settled = model.settle(theta, &x)?;
            let (gradient, _) = rbp::whole(&model, theta, &x, &y, settled.state(), COMPLETE, MOST_STEPS)?;
            points.push(Point { x, y, settled, gradient });
        }
        Ok(Self { model, theta, points })
    }

    /// Δtot of a minibatch at β.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn update(&self, point: &Point, learning: &Learning, beta: f64) -> Result<Parameters> {
        let nudge = self.model.nudge(&point.y, beta);
        Ok(referee::total(&self.model, learning, self.theta, &point.x, nudge, &point.settled)?)
    }

    /// The agreement of Δtot at β with −∇, over the minibatches.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn follows(&self, learning: &Learning, beta: f64) -> Result<Summary> {
        let compare = |point: &Point| -> Result<Comparison> {
            Ok(Comparison::new(&self.update(point, learning, beta)?, &point.gradient)?)
        };
        let comparisons = self.points.iter().map(compare).collect::<Result<Vec<_>>>()?;
        Summary::of(&comparisons).context("no minibatch to measure on")
    }
}

/// Returns the rule with weights that stay during the second phase, η = 0.
pub fn with_fixed_weights(learning: &Learning) -> Learning {
    let mut fixed = learning.clone();
    fixed.learning_rates.fill(0.0);
    fixed
}
