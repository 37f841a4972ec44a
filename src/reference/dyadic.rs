//! Dyadic EP (Scurria et al. 2026): two copies of every neuron, whose difference carries the gradient.
//!
//! Let x and z be the copies, m = (x + z)/2 their mean and d = x − z their difference. The nudged dynamics are those of
//! the function dᵀ(F(m) − m) − β(ℓ(x) + ℓ(z))/2, down in one copy and up in the other:
//!
//! ```text
//! m ← F(m) + β(e_x − e_z)/4        d ← J(m)ᵀ·d + β(e_x + e_z)/2        e = −∂ℓ/∂s at each copy, J = ∂F/∂s
//! ```
//!
//! from m = s_* and d = 0. To first order in β, m stays at s_* and Δd(t)/β = (Jᵀ)ᵗe = −∇s(t), whatever J: no symmetry
//! is asked for. With −β the copies change places, so that the error is of order β². Not local: d travels through Jᵀ,
//! for which each synapse must work backwards with the weight that it has forwards.

use super::Gradients;
use super::transition::Transition;
use crate::model::dynamics::{Layers, Nudge};
use crate::model::{Model, Parameters};
use candle_core::{Result, Tensor};

/// ∇s(t) and ∇θ(t) as estimated by `steps` synchronous steps of Dyadic EP from the state `s_star`, in the time
/// convention of [`super`].
///
/// # Errors
/// Only those of candle.
pub fn dyadic(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    nudge: Nudge,
    s_star: &[Tensor],
    steps: usize,
) -> Result<Gradients> {
    let drive = model.dynamics.drive(theta, x)?;
    let mut found = Gradients { states: Vec::new(), parameters: Vec::new() };
    let mut mean = s_star.to_vec();
    let mut difference: Vec<Tensor> = mean.iter().map(Tensor::zeros_like).collect::<Result<_>>()?;
    let pull = |output: &Tensor| nudge.beta.scale(&nudge.loss.descent(nudge.target, output)?, |beta| beta);
    for _ in 0..steps {
        let transition = Transition::at(model, theta, x, &mean)?;
        let half = (&difference[0] * 0.5)?;
        let (one, other) = (pull(&(&mean[0] + &half)?)?, pull(&(&mean[0] - &half)?)?);
        let mut next = transition.vjp(&difference)?.0;
        next[0] = (&next[0] + ((&one + &other)? * 0.5)?)?;
        let ascent = |(next, d): (&Tensor, &Tensor)| nudge.beta.scale(&(d - next)?, |beta| 1.0 / beta);
        let grad_s: Vec<Tensor> = next.iter().zip(&difference).map(ascent).collect::<Result<_>>()?;
        found.parameters.push(transition.vjp(&grad_s)?.1);
        found.states.push(grad_s);
        let mut moved = model.step(theta, &drive, &mean, Layers::All, None)?;
        moved[0] = (&moved[0] + ((one - other)? * 0.25)?)?;
        (mean, difference) = (moved, next);
    }
    Ok(found)
}
