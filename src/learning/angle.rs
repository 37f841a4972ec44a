//! Agreement of updates with gradients: Ψ(Δtot, −∇BPTT tot), and the share of synapses that agree in sign.

use super::{Learning, Lesson, Memory, Update};
use crate::base::spread::Spread;
use crate::model::dynamics::Nudge;
use crate::model::network::angle_degrees;
use crate::model::{Model, Parameters};
use crate::reference::Gradients;
use crate::reference::bptt::bptt;
use candle_core::{DType, Result, Tensor};

/// A nudged trajectory beside the gradients it should follow.
#[derive(Clone, Debug)]
pub struct Trace {
    /// s_*, where the first phase ends.
    pub first: Vec<Tensor>,
    /// s_{t+1} of the second phase, t = 0…K−1; of the first of two second phases.
    pub states: Vec<Vec<Tensor>>,
    /// Δ_s(t) = (s_{t+1} − s_t)/β, each (B, d_n); the mean of both phases where there are two.
    pub delta_s: Vec<Vec<Tensor>>,
    /// Δ_θ(t); the mean of both phases where there are two.
    pub delta_theta: Vec<Parameters>,
    /// ∇s(t) and ∇θ(t) of BPTT, at the weights before the second phase.
    pub gradients: Gradients,
    /// θ after the second phase, as the rule leaves it.
    pub theta: Parameters,
    /// (θ′ − θ)/η, in double precision, where it differs from the sum of Δ_θ(t): with a rule of one's own, weights
    /// that decay or align, and synapses that do not do as they are told. Starts without any memory of the synapses.
    /// 0 where η is 0.
    pub moved: Option<Parameters>,
    /// Mean loss of the batch at s_*.
    pub loss: f64,
}

impl Trace {
    /// Runs both phases of a Hebbian rule on one batch, and BPTT. `theta` itself does not change.
    ///
    /// # Errors
    /// Where K > T, and those of candle.
    pub fn record(
        model: &Model,
        learning: &Learning,
        theta: &Parameters,
        x: &Tensor,
        nudge: Nudge,
    ) -> Result<Self> {
        let settled = model.settle(theta, x)?;
        let double = |tensor: &Tensor| tensor.to_dtype(DType::F64);
        let loss = model.loss.sum(&double(nudge.target)?, &double(&settled.state()[0])?)?;
        let loss = loss.to_scalar::<f64>()? / x.dim(0)? as f64;
        let (mut states, mut delta_s, mut delta_theta) = (Vec::new(), Vec::new(), Vec::new());
        let lesson = Lesson::new(model, learning, theta, x, nudge, &settled);
        let theta_end = lesson.learn(&mut Memory::new(model, theta)?, &mut |step| {
            let delta = |(next, s): (&Tensor, &Tensor)| step.beta.scale(&(next - s)?, |beta| 1.0 / beta);
            let change: Vec<Tensor> = step.s_next.iter().zip(step.s).map(delta).collect::<Result<_>>()?;
            let update = lesson.update(step)?;
            if step.t == states.len() {
                delta_s.push(change);
                delta_theta.push(update);
                states.push(step.s_next.to_vec());
                return Ok(());
            }
            let mean = |(a, b): (&Tensor, &Tensor)| (a + b)? * 0.5;
            delta_s[step.t] = delta_s[step.t].iter().zip(&change).map(mean).collect::<Result<_>>()?;
            delta_theta[step.t] = delta_theta[step.t].mean(&update)?;
            Ok(())
        })?;
        let gradients = bptt(model, theta, x, nudge.target, learning.K)?;
        let first = settled.state().to_vec();
        let synapse = &model.synapse;
        let as_wished = synapse.adds_up()
            && synapse.left() == 1.0
            && learning.only_learns()
            && model.noise.updates == 0.0;
        let moved = match learning.rule.update {
            Update::Nudged(..) if as_wished => None,
            _ => Some(moved(learning, theta, &theta_end)?),
        };
        Ok(Self { first, states, delta_s, delta_theta, gradients, theta: theta_end, moved, loss })
    }

    /// Compares the rule's change of the weights with −∇θ(tot). That change is the sum of the updates over t = 0…K−1,
    /// or (θ′ − θ)/η where the two differ.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn compare(&self) -> Result<Comparison> {
        let update = match &self.moved {
            Some(moved) => moved.clone(),
            None => Gradients { states: Vec::new(), parameters: self.delta_theta.clone() }.total()?,
        };
        Comparison::new(&update, &self.gradients.total()?)
    }
}

/// (θ′ − θ)/η in double precision, the change of the weights for each unit of the learning rate; 0 where η is 0.
///
/// # Errors
/// Only those of candle (parameters that differ in shape).
pub fn moved(learning: &Learning, theta: &Parameters, theta_end: &Parameters) -> Result<Parameters> {
    let double = |tensor: &Tensor| tensor.to_dtype(DType::F64);
    let moved = theta_end.map(double)?.plus(&theta.map(double)?, |_| -1.0)?;
    let of_rate = |n: usize| if learning.rate(n) > 0.0 { 1.0 / learning.rate(n) } else { 0.0 };
    moved.zip(&moved, |moved, _, n| moved.affine(of_rate(n), 0.0))
}

/// The agreement of total updates with total gradients; weight matrices only, no biases.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Ψ(Δtot, −∇tot) over all matrices flattened and concatenated, degrees.
    pub total_degrees: f64,
    /// Ψ of each matrix, by name, degrees.
    pub per_matrix_degrees: Vec<(String, f64)>,
    /// The share of synapses whose Δtot and −∇tot have the same sign. Two zeros agree, as at pixels that are black in
    /// every image of the batch.
    pub sign_match: f64,
    /// The share for each matrix, by name.
    pub per_matrix_sign_match: Vec<(String, f64)>,
}

impl Comparison {
    /// Compares a total update with a total gradient.
    ///
    /// # Errors
    /// Only those of candle (parameters that differ in shape).
    pub fn new(update: &Parameters, gradient: &Parameters) -> Result<Self> {
        let (mut all_updates, mut all_descents) = (Vec::new(), Vec::new());
        let agree = |update: &Tensor, descent: &Tensor| -> Result<f64> {
            update.sign()?.eq(&descent.sign()?)?.to_dtype(DType::F64)?.mean_all()?.to_scalar()
        };
        let (mut per_matrix_degrees, mut per_matrix_sign_match) = (Vec::new(), Vec::new());
        for ((name, update), (_, gradient)) in update.named().into_iter().zip(gradient.named()) {
            let Some(matrix) = name.strip_suffix(".weight") else { continue };
            let descent = gradient.to_dtype(DType::F64)?.neg()?;
            let update = update.to_dtype(DType::F64)?;
            per_matrix_degrees.push((matrix.to_string(), angle_degrees(&update, &descent)?));
            per_matrix_sign_match.push((matrix.to_string(), agree(&update, &descent)?));
            all_updates.push(update.flatten_all()?);
            all_descents.push(descent.flatten_all()?);
        }
        let update = Tensor::cat(&all_updates, 0)?;
        let descent = Tensor::cat(&all_descents, 0)?;
        Ok(Self {
            total_degrees: angle_degrees(&update, &descent)?,
            per_matrix_degrees,
            sign_match: agree(&update, &descent)?,
            per_matrix_sign_match,
        })
    }
}

/// Statistics of comparisons over some minibatches.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Ψ(Δtot, −∇tot), degrees.
    pub total_degrees: Spread,
    /// Ψ of each matrix, by name, degrees.
    pub per_matrix_degrees: Vec<(String, Spread)>,
    /// The share of synapses that agree in sign.
    pub sign_match: Spread,
    /// The share for each matrix, by name.
    pub per_matrix_sign_match: Vec<(String, Spread)>,
}

impl Summary {
    /// Means and spreads of comparisons of the same network; `None` where there are none.
    pub fn of(comparisons: &[Comparison]) -> Option<Self> {
        let first = comparisons.first()?;
        let over = |value: &dyn Fn(&Comparison) -> f64| Spread::of(comparisons.iter().map(value));
        Some(Self {
            total_degrees: over(&|c| c.total_degrees)?,
            per_matrix_degrees: (first.per_matrix_degrees.iter().enumerate())
                .map(|(i, (name, _))| Some((name.clone(), over(&|c| c.per_matrix_degrees[i].1)?)))
                .collect::<Option<_>>()?,
            sign_match: over(&|c| c.sign_match)?,
            per_matrix_sign_match: (first.per_matrix_sign_match.iter().enumerate())
                .map(|(i, (name, _))| Some((name.clone(), over(&|c| c.per_matrix_sign_match[i].1)?)))
                .collect::<Option<_>>()?,
        })
    }
}
