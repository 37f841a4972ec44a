//! References for the updates: the gradients of the loss.
//!
//! Time runs backwards here: ∇s(t) = ∂L/∂s_{T−t} and ∇θ(t) = ∂L/∂θ_{T−t}, t = 0…K−1, where θ_{T−t} is what
//! the step that made s_{T−t} used (Eq. 28, 52). Eq. 31 and Definition 6 shift ∇θ by one step against that.

pub mod bptt;
pub mod dyadic;
pub mod rbp;
pub(crate) mod transition;

pub use transition::Asymmetry;

use crate::model::Parameters;
use candle_core::{Result, Tensor, bail};

/// Gradients of the [loss](crate::model::loss) at s_T.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// ∇s(t)\[n\], (B, d_n): of each sample's own loss.
    pub states: Vec<Vec<Tensor>>,
    /// ∇θ(t): of the mean loss of the batch.
    pub parameters: Vec<Parameters>,
}

impl Gradients {
    /// ∇θ(tot) = Σ ∇θ(t), t = 0…K−1.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn total(&self) -> Result<Parameters> {
        let Some((first, rest)) = self.parameters.split_first() else {
            bail!("no steps to add up gradients of");
        };
        rest.iter().try_fold(first.clone(), |total, gradient| total.plus(gradient, |_| 1.0))
    }
}
