//! The trajectory of one image: every state through both phases.

use crate::config::Config;
use crate::data::Split;
use crate::learning::{Lesson, Memory};
use crate::model::Parameters;
use crate::model::loss::softmax;
use anyhow::Result;
use candle_core::{DType, Tensor};

/// The states of an image through T + K steps.
pub struct Trajectory {
    /// T.
    pub first: usize,
    /// The steps of a sweep, in which every layer moves once.
    pub sweep: usize,
    /// `states[t][n]` is sⁿ_t, t = 0…T (+ K where the rule has a second phase); output first. Of a readout layer 0 is
    /// ŷ.
    pub states: Vec<Vec<Vec<f64>>>,
    /// The name of layer 0: s⁰, or ŷ.
    pub output: &'static str,
    /// Its class.
    pub truth: usize,
    /// The factor of y − s⁰ in a step of the second phase: β in discrete time without damping.
    pub strength: f64,
}

impl Trajectory {
    /// All T steps of the first phase of image `number`, whatever the tolerance, and the K steps of the second, in
    /// which weights change by the rule. `theta` is not changed.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn record(config: &Config, theta: &Parameters, split: &Split, number: usize) -> Result<Self> {
        let batch = split.batch(&[number as u32]);
        let (model, learning) = (config.model(), &config.learning);
        let x = batch.x_for(theta)?;
        let mut phase = model.follow(theta, &x)?;
        let mut all = vec![phase.state().to_vec()];
        let first = model.settle.sweeps() * model.settle.order.sweep();
        for _ in 0..first {
            phase.step()?;
            all.push(phase.state().to_vec());
        }
        let (target, readout) = (batch.y_for(theta)?, model.dynamics.readout);
        if learning.rule.is_nudged() {
            let settled = phase.end();
            let nudge = model.nudge(&target, learning.beta);
            let lesson = Lesson::new(&model, learning, theta, &x, nudge, &settled);
            lesson.learn(&mut Memory::new(&model, theta)?, &mut |step| {
                // Of two second phases, the first.
                if all.len() == first + 1 + step.t {
                    all.push(step.s_next.to_vec());
                }
                Ok(())
            })?;
        }
        for (t, layers) in all.iter_mut().enumerate().filter(|_| !readout.is_none()) {
            // z, and then β(y − ŷ).
            layers[0] = match t <= first {
                true => softmax(&layers[0])?,
                false => (&target - (&layers[0] / learning.beta)?)?,
            };
        }
        let values = |s: &Tensor| s.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
        let states =
            all.iter().map(|layers| layers.iter().map(values).collect()).collect::<Result<_, _>>()?;
        Ok(Self {
            first,
            sweep: model.settle.order.sweep(),
            states,
            output: if readout.is_none() { "s⁰" } else { "ŷ" },
            truth: usize::from(batch.labels[0]),
            strength: model.dynamics.nudge_strength(learning.beta) * (1.0 - model.settle.damping),
        })
    }

    /// The largest |s_t − s_{t−lag}| of any neuron, by t.
    pub fn residuals(&self, lag: usize) -> Vec<(f64, f64)> {
        let change = |t: usize| {
            let pairs = self.states[t].iter().flatten().zip(self.states[t - lag].iter().flatten());
            pairs.map(|(now, before)| (now - before).abs()).fold(0.0, f64::max)
        };
        (lag..self.states.len()).map(|t| (t as f64, change(t))).collect()
    }

    /// The most that the nudge moves an output in the step from t, |β(y − s⁰_t)| in discrete time without damping, by
    /// t.
    pub fn nudge(&self) -> Vec<(f64, f64)> {
        let size = |t: usize| {
            let outputs = self.states[t][0].iter().enumerate();
            let target = |class: usize| if class == self.truth { 1.0 } else { 0.0 };
            outputs.map(|(class, s)| (self.strength * (target(class) - s)).abs()).fold(0.0, f64::max)
        };
        (self.first..self.states.len()).map(|t| (t as f64, size(t))).collect()
    }
}
