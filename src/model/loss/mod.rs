//! The loss ℓ of one image, by which the output s⁰ is judged, and the direction of the nudge.
//!
//! A loss is a file here that implements [`LossFunction`], and a line in [`LOSSES`]. The plain engine then has it; the
//! fast ones state −∂ℓ/∂s⁰ once more in their own vectors, and say which they have.

mod cross_entropy;
mod squared_error;

pub use cross_entropy::softmax;

use crate::base::named::by_name;
use candle_core::{Device, Result, Tensor};

/// All losses, as configurations name them.
pub const LOSSES: [Loss; 1] = [Loss::SQUARED_ERROR];

/// A loss. Two are the same if they have the same name.
#[derive(Clone, Copy)]
pub struct Loss(pub &'static dyn LossFunction);

by_name!(Loss, "loss", LOSSES);

impl Loss {
    /// ℓ = ½‖y − s⁰‖² (Eq. 3).
    pub const SQUARED_ERROR: Loss = Loss(&squared_error::SquaredError);

    /// ℓ = −Σ y·log ŷ, which a softmax [readout](super::readout) has and nothing else; its "output" is z, of which ŷ is
    /// the softmax.
    pub const CROSS_ENTROPY: Loss = Loss(&cross_entropy::CrossEntropy);

    /// True for the paper's loss.
    pub fn is_default(&self) -> bool {
        *self == Loss::default()
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss::SQUARED_ERROR
    }
}

impl std::ops::Deref for Loss {
    type Target = dyn LossFunction;
    fn deref(&self) -> &Self::Target {
        self.0
    }
}

/// A loss function. `target` and `output` are y, one-hot, and s⁰, of one shape (…, B, d_0).
pub trait LossFunction: Send + Sync {
    /// The name in configurations.
    fn name(&self) -> &'static str;

    /// ℓ summed over all images: a scalar, through which candle can differentiate.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    fn sum(&self, target: &Tensor, output: &Tensor) -> Result<Tensor>;

    /// −∂ℓ/∂s⁰ of each image, the direction of the nudge.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    fn descent(&self, target: &Tensor, output: &Tensor) -> Result<Tensor>;

    /// ℓ of one image with this label.
    ///
    /// # Errors
    /// As [`LossFunction::sum`].
    fn of_image(&self, output: &[f64], label: u8) -> Result<f64> {
        let target: Vec<f64> =
            (0..output.len()).map(|class| if class == usize::from(label) { 1.0 } else { 0.0 }).collect();
        let [target, output] = [&target[..], output].map(|row| Tensor::new(row, &Device::Cpu));
        self.sum(&target?.unsqueeze(0)?, &output?.unsqueeze(0)?)?.to_scalar()
    }

    /// The class that the network gives an image with this output: argmax s⁰, the first of equal ones, unless the
    /// loss has its own answer.
    fn answer(&self, output: &[f64]) -> usize {
        (1..output.len()).fold(0, |best, class| if output[class] > output[best] { class } else { best })
    }
}
