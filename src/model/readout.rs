//! The readout: what the output layer is beside the network's states.
//!
//! Without one the output is a layer like all others, which sends its state s⁰ back into the network. The softmax
//! readout (Laborieux et al. 2021) takes it out of the state. ŷ = softmax(z), z = W_out·ρ(s¹) + b with W_out =
//! `forward.0`, only reads layer 1; in the first phase nothing comes back. In the second phase the output sends back
//! its error,
//!
//! ```text
//! e_t = β(y − ŷ_t)        s¹_{t+1} = σ(h¹_t + W_outᵀ·e_t)
//! ```
//!
//! which is −β ∂ℓ/∂s¹ for ℓ = −Σ y·log ŷ, inside σ as what every other layer sends. Untied weights have a feedback of
//! their own, `feedback.0`, in the place of W_outᵀ. Layer 0 of a state vector is z in the first phase and what is
//! sent, e, in the second, which begins with e = 0: before there is a target, nothing is sent. With that W_out learns
//! like all weights.

use serde::{Deserialize, Serialize};

/// The kind of output layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// A layer of neurons like the others, part of the state.
    #[default]
    None,
    /// softmax(W_out·ρ(s¹) + b), which is no part of the state.
    Softmax,
}

impl Readout {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Readout::None => "none",
            Readout::Softmax => "softmax",
        }
    }

    /// True where there is none.
    pub fn is_none(&self) -> bool {
        *self == Readout::None
    }

    /// The layer nearest to the output whose neurons have states: 0, or 1 where the output is a readout.
    pub fn nearest(self) -> usize {
        usize::from(!self.is_none())
    }
}
