//! What aligns feedback weights θb with forward weights θf, where they are of their own.

use serde::{Deserialize, Serialize};

/// A local mechanism by which the way back comes to be the transposed way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// None: the rules of the paper.
    #[default]
    None,
    /// Both weights of a pair learn the same product, Δ = Δs_post·s_preᵀ + s_post·Δs_preᵀ, the change of s_post·s_preᵀ,
    /// and both decay by [λ](super::Learning::decay): what they differ in, θf − θbᵀ, shrinks by (1 − λ) a minibatch
    /// (Kolen and Pollack 1994; Akrout et al. 2019). A synapse needs the states on its two sides, now and a step ago.
    KolenPollack,
    /// The feedback weights never change, not by decay either (feedback alignment, Lillicrap et al. 2016): a control.
    Fixed,
}

impl Alignment {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Alignment::None => "none",
            Alignment::KolenPollack => "kolen-pollack",
            Alignment::Fixed => "fixed",
        }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Alignment::None
    }
}
