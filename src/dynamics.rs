//! The neural dynamics s_{t+1} = F(x, s_t, θ): what one step does to the states.
//!
//! States are one tensor (B, d_n) a layer, output first.

use crate::activation::Activation;
use crate::network::Parameters;
use candle_core::{Result, Tensor};

/// The force of the second phase on the output layer, −β ∂ℓ/∂s⁰ = β(y − s⁰).
#[derive(Clone, Copy, Debug)]
pub struct Nudge<'a> {
    /// y, one-hot targets (B, d_0).
    pub target: &'a Tensor,
    /// β, of either sign.
    pub beta: f64,
}

/// Discrete-time dynamics (E.1, E.4), the same for tied and untied weights.
#[derive(Clone, Copy, Debug)]
pub struct Dynamics {
    /// σ.
    pub activation: Activation,
}

impl Dynamics {
    /// s_0 = 0 for every layer.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn rest(&self, theta: &Parameters, batch: usize) -> Result<Vec<Tensor>> {
        theta
            .forward
            .iter()
            .map(|layer| Tensor::zeros_like(&layer.bias.unsqueeze(0)?.repeat((batch, 1))?))
            .collect()
    }

    /// W_x·x + b_N, what the input x (B, d_in) contributes to the last hidden layer: (B, d_N).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn drive(&self, theta: &Parameters, x: &Tensor) -> Result<Tensor> {
        let input = &theta.forward[theta.depth()];
        x.matmul(&input.weight.t()?)?.broadcast_add(&input.bias)
    }

    /// F(x, s, θ), Eq. 85 (tied) and Eq. 98 (untied); with a nudge, Eq. 86 and Eq. 99:
    ///
    /// - s⁰ ← σ(W_01·s¹ + b_0) + β(y − s⁰)
    /// - sⁿ ← σ(W_nn+1·sⁿ⁺¹ + W_nn−1·sⁿ⁻¹ + b_n)
    /// - sᴺ ← σ(W_x·x + W_NN−1·sᴺ⁻¹ + b_N)
    ///
    /// All layers move at once. `drive` is [`Dynamics::drive`] for the same θ and x.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn step(
        &self,
        theta: &Parameters,
        drive: &Tensor,
        s: &[Tensor],
        nudge: Option<Nudge>,
    ) -> Result<Vec<Tensor>> {
        let last = theta.depth();
        let mut s_next = Vec::with_capacity(s.len());
        for n in 0..=last {
            let mut input = if n == last {
                drive.clone()
            } else {
                let layer = &theta.forward[n];
                s[n + 1].matmul(&layer.weight.t()?)?.broadcast_add(&layer.bias)?
            };
            if n > 0 {
                input = (input + s[n - 1].matmul(&theta.backward_weight(n - 1)?)?)?;
            }
            s_next.push(self.activation.apply(&input)?);
        }
        if let Some(Nudge { target, beta }) = nudge {
            s_next[0] = (&s_next[0] + ((target - &s[0])? * beta)?)?;
        }
        Ok(s_next)
    }
}
