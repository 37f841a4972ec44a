//! Backpropagation through time (Appendix B.2, Algorithm 3) by candle's autograd, its only use here.

use super::Gradients;
use crate::model::dynamics::Layers;
use crate::model::{Dynamics, Model, Order, Parameters, Solver};
use candle_core::{Result, Tensor, Var, bail};

/// ∇s(t) and ∇θ(t), t = 0…K−1, through the last K = `steps` of T synchronous steps from s_0 = 0; where the first phase
/// is found in another way ([`Settle`](crate::model::Settle)), through K synchronous steps from where that leads.
///
/// One forward pass in which every step has parameters of its own and every state an addend of its own
/// (0), then one backward pass for all t. Memory: K copies of θ and of the gradients, and the states of
/// K steps; with K = T that is backpropagation over the whole first phase.
///
/// # Errors
/// Where K > T, and those of candle.
pub fn bptt(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    target: &Tensor,
    steps: usize,
) -> Result<Gradients> {
    let (dynamics, first_steps) = (&model.dynamics, model.settle.steps);
    if steps > first_steps {
        bail!("cannot go back K = {steps} steps: the first phase has T = {first_steps}");
    }
    let mut s = match (model.settle.order, model.settle.solver) {
        (Order::Synchronous, Solver::Iterate) => {
            let mut s = Dynamics::initial_state(theta, x)?;
            let drive = dynamics.drive(theta, x)?;
            for _ in 0..first_steps - steps {
                s = model.step(theta, &drive, &s, Layers::All, None)?;
            }
            s
        }
        _ => model.settle(theta, x)?.state().to_vec(),
    };
    let mut leaves = Vec::with_capacity(steps);
    for _ in 0..steps {
        let theta_t = leaf(theta)?;
        let drive = dynamics.drive(&theta_t, x)?;
        s = model.step(&theta_t, &drive, &s, Layers::All, None)?;
        let mut addends = Vec::with_capacity(s.len());
        // A readout reads the states with what is added to them.
        for n in (0..s.len()).rev() {
            if n < dynamics.readout.nearest() {
                s = dynamics.read_out(&theta_t, &drive, s)?;
            }
            let addend = Var::from_tensor(&s[n].zeros_like()?)?;
            s[n] = (&s[n] + addend.as_tensor())?;
            addends.push(addend);
        }
        addends.reverse();
        leaves.push((addends, theta_t));
    }
    // The sum over the batch: each sample's states see only its own loss.
    let loss = model.loss.sum(target, &s[0])?;
    let gradients = loss.backward()?;
    let of = |tensor: &Tensor| match gradients.get(tensor) {
        Some(gradient) => Ok(gradient.detach()),
        None => tensor.zeros_like(),
    };
    let mean = 1.0 / x.dim(0)? as f64;
    let mut found = Gradients { states: Vec::new(), parameters: Vec::new() };
    for (addends, theta_t) in leaves.iter().rev() {
        found.states.push(addends.iter().map(|a| of(a.as_tensor())).collect::<Result<_>>()?);
        found.parameters.push(theta_t.map(|tensor| of(tensor)? * mean)?);
    }
    Ok(found)
}

/// A copy of θ that gradients can be taken of.
fn leaf(theta: &Parameters) -> Result<Parameters> {
    theta.map(|tensor| Ok(Var::from_tensor(&tensor.copy()?)?.into_inner()))
}
