//! Δ_θ(t), the normalised Hebbian update of one step, and what it makes of σ′.

use crate::model::dynamics::{Beta, Dynamics, PreActivation};
use crate::model::network::{Forward, Parameters};
use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

/// How ∂F/∂W of the vector-field rules treats σ′ (discrete time; in real time ∂F/∂W has none).
///
/// With h_fⁿ = W_nn+1·sⁿ⁺¹ + b_n and h_bⁿ = W_nn−1·sⁿ⁻¹ at the old state s_t and the weights θ_t of the step:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigmaPrime {
    /// Left out, as Eq. 12 prints the rule.
    Ignored,
    /// Every connection into layer n is gated by σ′ of what it alone delivers: forward.n and the bias by
    /// σ′(h_fⁿ), feedback.(n−1) by σ′(h_bⁿ). Not in the paper's text; the published rows of Table 3 were very
    /// probably made with it.
    Partial,
    /// Every connection into layer n, its bias too, is gated by σ′(h_fⁿ + h_bⁿ): ∂F/∂W of Eq. 67.
    Full,
}

impl SigmaPrime {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            SigmaPrime::Ignored => "ignored",
            SigmaPrime::Partial => "partial",
            SigmaPrime::Full => "full",
        }
    }

    /// Δs of each layer, (B, d_n), as the forward and as the feedback connections into it learn from it. `h` is not
    /// looked at where σ′ is ignored.
    fn gate(
        self,
        dynamics: &Dynamics,
        h: &[Option<PreActivation>],
        delta: Vec<Tensor>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        if self == SigmaPrime::Ignored {
            return Ok((delta.clone(), delta));
        }
        let gated = |delta: &Tensor, h: &Tensor| delta * dynamics.activation.derivative(h)?;
        let layers = delta.iter().zip(h).map(|(delta, h)| {
            // A layer that the step has left alone: Δs is 0.
            let Some(h) = h else { return Ok((delta.clone(), delta.clone())) };
            if let (SigmaPrime::Partial, Some(feedback)) = (self, &h.feedback) {
                return Ok((gated(delta, &h.forward)?, gated(delta, feedback)?));
            }
            let gated = gated(delta, &h.total()?)?;
            Ok((gated.clone(), gated))
        });
        Ok(layers.collect::<Result<Vec<_>>>()?.into_iter().unzip())
    }
}

/// One step of the second phase. States are (B, d_n), output first.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// t, from 0.
    pub t: usize,
    /// s_t.
    pub s: &'a [Tensor],
    /// hⁿ at s_t and θ_t of the layers that it updates.
    pub h: &'a [Option<PreActivation>],
    /// s_{t+1}.
    pub s_next: &'a [Tensor],
    /// β of the phase.
    pub beta: Beta<'a>,
}

/// Δ_θ(t), the normalised update of one `step` from s to s', a mean over the batch. `x` is (B, d_in); ρ is
/// [`Dynamics::rho`].
///
/// - tied (Eq. 89, 95, E.3): Δ_{W nn+1} = (ρ(s'ⁿ)·ρ(s'ⁿ⁺¹)ᵀ − ρ(sⁿ)·ρ(sⁿ⁺¹)ᵀ)/β
/// - untied (E.4, E.5): Δ_{W nn+1} = (s'ⁿ − sⁿ)·ρ(sⁿ⁺¹)ᵀ/β, Δ_{W n+1n} = (s'ⁿ⁺¹ − sⁿ⁺¹)·ρ(sⁿ)ᵀ/β, with
///   s'ⁿ − sⁿ gated as [`SigmaPrime`] says
/// - weights from the input as the others, with ρ(x) on both sides; biases as if their input were 1.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn hebbian_update(
    dynamics: &Dynamics,
    tied: bool,
    sigma_prime: SigmaPrime,
    x: &Tensor,
    step: &Step,
) -> Result<Parameters> {
    let &Step { s, h, s_next, beta, .. } = step;
    let last = s.len() - 1;
    let images = x.dim(D::Minus2)? as f64;
    let scaled = |sum: &Tensor| beta.scale(sum, |beta| 1.0 / (beta * images));
    let outer = |a: &Tensor, b: &Tensor| a.t()?.matmul(b);
    let rho = |s: &[Tensor]| -> Result<Vec<Tensor>> { s.iter().map(|s| dynamics.rho(s)).collect() };
    let (rho, rho_next) = (rho(s)?, rho(s_next)?);
    let (before, after) = if tied { (&rho[..], &rho_next[..]) } else { (s, s_next) };
    let delta = (after.iter().zip(before)).map(|(a, b)| a - b).collect::<Result<_>>()?;
    let (delta, delta_feedback) = sigma_prime.gate(dynamics, h, delta)?;
    let mut forward = Vec::new();
    let mut feedback = Vec::new();
    for n in 0..=last {
        let weight = if n == last {
            outer(&delta[n], &dynamics.rho(x)?)?
        } else if tied {
            (outer(&rho_next[n], &rho_next[n + 1])? - outer(&rho[n], &rho[n + 1])?)?
        } else {
            feedback.push(scaled(&outer(&delta_feedback[n + 1], &rho[n])?)?);
            outer(&delta[n], &rho[n + 1])?
        };
        let bias = scaled(&delta[n].sum_keepdim(D::Minus2)?)?.squeeze(D::Minus2)?;
        forward.push(Forward { weight: scaled(&weight)?, bias });
    }
    let feedback = (!tied).then_some(feedback);
    Ok(Parameters { forward, feedback })
}
