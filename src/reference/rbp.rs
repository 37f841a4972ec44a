//! Recurrent backpropagation (Definition 6, Algorithm 4), with vector–Jacobian products by hand.

use super::Gradients;
use crate::model::dynamics::{Dynamics, Layers, PreActivation, Time};
use crate::model::{Connection, Model, Parameters};
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

/// ∇θ(tot) = Σ ∇θ(t) at the state `s_star`, until a step adds less than `tolerance` of what there is or there were
/// `most` steps, and how many there were: what BPTT comes to where T and K are large enough. Keeps no step.
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
    loop {
        let (earlier, grad_theta) = transition.vjp(&grad_s)?;
        if !visit(std::mem::replace(&mut grad_s, earlier), grad_theta)? {
            return Ok(());
        }
    }
}

/// F near a state: what its Jacobians are made of.
struct Transition<'a> {
    model: &'a Model,
    theta: &'a Parameters,
    s: &'a [Tensor],
    /// ρ(sⁿ), and ρ(x) as that of layer N + 1.
    rho: Vec<Tensor>,
    /// hⁿ.
    h: Vec<Tensor>,
    /// 1 where a state is free to move, 0 where a clamp holds it; `None` without clamp.
    free: Option<Vec<Tensor>>,
}

impl<'a> Transition<'a> {
    fn at(model: &'a Model, theta: &'a Parameters, x: &Tensor, s: &'a [Tensor]) -> Result<Self> {
        let dynamics = &model.dynamics;
        let drive = dynamics.drive(theta, x)?;
        let free = match dynamics.time {
            Time::Real if dynamics.clamp => {
                let mut free = model.clone();
                (free.dynamics.clamp, free.settle.damping) = (false, 0.0);
                let s_next = free.step(theta, &drive, s, Layers::All, None)?;
                let inside = |s: &Tensor| (s.gt(0.0)? * s.lt(1.0)?)?.to_dtype(s.dtype());
                Some(s_next.iter().map(inside).collect::<Result<_>>()?)
            }
            _ => None,
        };
        Ok(Self {
            model,
            theta,
            s,
            rho: s.iter().chain([x]).map(|s| dynamics.rho(s)).collect::<Result<_>>()?,
            h: (dynamics.pre_activations(theta, &drive, s, Layers::All)?.iter().flatten())
                .map(PreActivation::total)
                .collect::<Result<_>>()?,
            free,
        })
    }

    /// (∂F/∂s)ᵀ·v and (∂F/∂θ)ᵀ·v, the latter a mean over the batch.
    fn vjp(&self, v: &[Tensor]) -> Result<(Vec<Tensor>, Parameters)> {
        let Model { dynamics, settle, .. } = self.model;
        let Dynamics { activation, time, epsilon, .. } = *dynamics;
        let mut grad_s: Vec<Tensor> = v.iter().map(|v| v.zeros_like()).collect::<Result<_>>()?;
        // Through F up to hⁿ.
        let mut grad_h = Vec::with_capacity(v.len());
        for n in 0..v.len() {
            let mut v = v[n].clone();
            if settle.damping > 0.0 {
                grad_s[n] = (&v * settle.damping)?;
                v = (v * (1.0 - settle.damping))?;
            }
            if let Some(free) = &self.free {
                v = (v * &free[n])?;
            }
            grad_h.push(match time {
                Time::Discrete => (v * activation.derivative(&self.h[n])?)?,
                Time::Real => {
                    grad_s[n] = (&grad_s[n] + (&v * (1.0 - epsilon))?)?;
                    let v = (v * epsilon)?;
                    if dynamics.gated(self.theta, n) {
                        let bend = (activation.second_derivative(&self.s[n])? * &self.h[n])?;
                        grad_s[n] = (&grad_s[n] + (&v * bend)?)?;
                        (v * activation.derivative(&self.s[n])?)?
                    } else {
                        v
                    }
                }
            });
        }
        // Through hⁿ to the ρ(s) that made it.
        let mut grad_rho: Vec<Tensor> = v.iter().map(|v| v.zeros_like()).collect::<Result<_>>()?;
        for c in self.theta.network.connections().iter().filter(|c| c.from < v.len()) {
            let back = grad_h[c.to].matmul(&self.theta.transposed(c)?.t()?)?;
            grad_rho[c.from] = (&grad_rho[c.from] + back)?;
        }
        for (n, (grad_s, grad_rho)) in grad_s.iter_mut().zip(&grad_rho).enumerate() {
            let through = match time {
                Time::Discrete => grad_rho.clone(),
                Time::Real => (grad_rho * activation.derivative(&self.s[n])?)?,
            };
            *grad_s = (&*grad_s + through)?;
        }
        Ok((grad_s, self.parameters(&grad_h)?))
    }

    /// (∂h/∂θ)ᵀ·grad_h, a mean over the batch. A tied weight works in both directions.
    fn parameters(&self, grad_h: &[Tensor]) -> Result<Parameters> {
        let network = &self.theta.network;
        let mean = 1.0 / grad_h[0].dim(0)? as f64;
        let outer = |a: &Tensor, b: &Tensor| a.t()?.matmul(b)? * mean;
        let weight = |own: &Connection| {
            let mut uses = network.connections().iter().filter(|c| c.weight == own.weight);
            let first = outer(&grad_h[own.to], &self.rho[own.from])?;
            match uses.find(|c| c.transposed) {
                Some(back) => first + outer(&self.rho[back.from], &grad_h[back.to])?,
                None => Ok(first),
            }
        };
        let weights = network.weights().map(weight).collect::<Result<_>>()?;
        let biases = grad_h.iter().map(|grad| grad.sum(0)? * mean).collect::<Result<_>>()?;
        Ok(Parameters { network: network.clone(), weights, biases })
    }
}
