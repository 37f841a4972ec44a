//! Alignment of feedback weights θb with forward weights θf, where weights are untied.

use crate::model::{Model, Parameters};
use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

/// A local mechanism that makes the feedback weights the transpose of the forward weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// No alignment: the rules of the paper.
    #[default]
    None,
    /// Both weights of a pair learn the same product, Δ = Δs_post·s_preᵀ + s_post·Δs_preᵀ, the change of
    /// s_post·s_preᵀ, and both decay by [λ](super::Learning::decay). So their difference θf − θbᵀ shrinks by (1 − λ)
    /// a minibatch (Kolen and Pollack 1994; Akrout et al. 2019). A synapse needs the states on its two sides, now and
    /// one step ago.
    KolenPollack,
    /// After each minibatch the weights of a pair take a step of [κ](super::Learning::strength) down the asymmetry of
    /// the Jacobian at the fixed point, see [`homeostasis`] (Laborieux and Zenke 2024).
    Homeostasis,
    /// The feedback weights never change, not even by decay (feedback alignment, Lillicrap et al. 2016): a control.
    Fixed,
}

impl Alignment {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Alignment::None => "none",
            Alignment::KolenPollack => "kolen-pollack",
            Alignment::Homeostasis => "homeostasis",
            Alignment::Fixed => "fixed",
        }
    }

    /// True for [`Alignment::None`].
    pub fn is_none(&self) -> bool {
        *self == Alignment::None
    }
}

/// θ one step of κ = `strength` down P = ‖A‖², A = (J − Jᵀ)/2, a mean over the batch, with J = ∂F/∂s = DW of discrete
/// time at the fixed point `s_star`, D = diag σ′ as the states themselves have it ([`Activation::slope`]). With W =
/// θf, B = θb:
///
/// - P = ½ Σ_pairs ‖D_to·W − (D_from·B)ᵀ‖², no 1/n
/// - w_ij ← w_ij − κ⟨σ′_i(σ′_i·w_ij − σ′_j·b_ji)⟩, and b_ji by the same with the two changed over
///
/// which is the gradient with D held, as it is at a fixed point that does not move. States are (B, d_n), output
/// first; the sizes of σ′ being at most 1, every κ below 1 shrinks P.
///
/// [`Activation::slope`]: crate::model::Activation::slope
///
/// # Errors
/// Only those of candle.
pub fn homeostasis(
    model: &Model,
    theta: &Parameters,
    s_star: &[Tensor],
    strength: f64,
) -> Result<Parameters> {
    let slopes: Vec<Tensor> =
        s_star.iter().map(|s| model.dynamics.activation.slope(s)).collect::<Result<_>>()?;
    let images = s_star[0].dim(D::Minus2)? as f64;
    let mut changed = theta.clone();
    // Of a readout nothing comes back at the fixed point.
    let nearest = model.dynamics.readout.nearest();
    for (there, back) in theta.network.pairs().filter(|(there, _)| there.to >= nearest) {
        // ⟨σ′_iσ′_j⟩, which both directions have.
        let products = (slopes[there.to].t()?.matmul(&slopes[there.from])? / images)?;
        for (own, other, products) in [(there, back, products.clone()), (back, there, products.t()?)] {
            let (w, b) = (&theta.weights[own.weight], theta.weights[other.weight].t()?);
            let squares = slopes[own.to].sqr()?.mean_keepdim(D::Minus2)?.t()?;
            let gradient = (w.broadcast_mul(&squares)? - (products * b)?)?;
            changed.weights[own.weight] = (w - (gradient * strength)?)?;
        }
    }
    Ok(changed)
}
