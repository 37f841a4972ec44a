//! Recurrent backpropagation (Definition 6, Algorithm 4), with the vector–Jacobian products of [`super::transition`].

use super::Gradients;
use super::transition::Transition;
use crate::model::{Model, Parameters};
use candle_core::{Result, Tensor};

/// ∇s(t) and ∇θ(t), t = 0…K−1, K = `steps`, at the state `s_star` (Eq. 32–34, in the time convention of
/// [`super`]): ∇s(0) = ∂ℓ/∂s, ∇s(t+1) = (∂F/∂s)ᵀ·∇s(t), ∇θ(t) = (∂F/∂θ)ᵀ·∇s(t).
///
/// # Errors
/// Only those of candle.
pub fn rbp(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    target: &Tensor,
    s_star: &[Tensor],
    steps: usize,
) -> Result<Gradients> {
    let mut found = Gradients { states: Vec::new(), parameters: Vec::new() };
    each(model, theta, x, target, s_star, |grad_s, grad_theta| {
        found.states.push(grad_s);
        found.parameters.push(grad_theta);
        Ok(found.states.len() < steps)
    })?;
    Ok(found)
}

/// ∇θ(tot) = Σ ∇θ(t) at the state `s_star`, and the number of steps. Stops once a step adds less than `tolerance` of
/// the sum, or after `most` steps. This is the limit of BPTT for large T and K. Keeps no step.
///
/// # Errors
/// Only those of candle.
pub fn whole(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    target: &Tensor,
    s_star: &[Tensor],
    tolerance: f64,
    most: usize,
) -> Result<(Parameters, usize)> {
    let mut total = theta.plus(theta, |_| -1.0)?;
    let mut steps = 0;
    each(model, theta, x, target, s_star, |_, grad_theta| {
        total = total.plus(&grad_theta, |_| 1.0)?;
        steps += 1;
        // The first steps have not reached all layers, and add nothing there.
        let adds = steps <= theta.depth() + 1
            || (grad_theta.norms()?.iter().zip(total.norms()?)).any(|(step, all)| step.1 > tolerance * all.1);
        Ok(adds && steps < most)
    })?;
    Ok((total, steps))
}

/// Shows ∇s(t) and ∇θ(t) at the state `s_star` to `visit`, t = 0, 1, …, as long as this says so.
///
/// # Errors
/// Only those of candle and of `visit`.
pub fn each(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    target: &Tensor,
    s_star: &[Tensor],
    mut visit: impl FnMut(Vec<Tensor>, Parameters) -> Result<bool>,
) -> Result<()> {
    let transition = Transition::at(model, theta, x, s_star)?;
    let mut grad_s: Vec<Tensor> = s_star.iter().map(|s| s.zeros_like()).collect::<Result<_>>()?;
    grad_s[0] = model.loss.descent(target, &s_star[0])?.neg()?;
    let mut grad_s = transition.read_out(grad_s)?;
    loop {
        let (earlier, grad_theta) = transition.vjp(&grad_s)?;
        if !visit(std::mem::replace(&mut grad_s, earlier), grad_theta)? {
            return Ok(());
        }
    }
}
