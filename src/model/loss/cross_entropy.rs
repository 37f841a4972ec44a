//! ℓ = −Σ y·log ŷ with ŷ = softmax(z), the loss of the [readout](crate::model::readout).

use super::LossFunction;
use candle_core::{D, Result, Tensor};

/// In the place of s⁰ it is given z.
pub(super) struct CrossEntropy;

impl LossFunction for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    /// log Σ exp z − Σ y·z, since Σ y = 1.
    fn sum(&self, target: &Tensor, output: &Tensor) -> Result<Tensor> {
        // From each row its largest number is taken off, so that nothing overflows.
        let shifted = output.broadcast_sub(&output.detach().max_keepdim(D::Minus1)?)?;
        let log_sums = shifted.exp()?.sum(D::Minus1)?.log()?;
        log_sums.sum_all()? - (target * shifted)?.sum_all()?
    }

    /// y − ŷ.
    fn descent(&self, target: &Tensor, output: &Tensor) -> Result<Tensor> {
        target - softmax(output)?
    }

    /// As [`CrossEntropy::sum`], for each of very many images.
    fn of_image(&self, output: &[f64], label: u8) -> Result<f64> {
        let Some(&at_label) = output.get(usize::from(label)) else { return Ok(f64::NAN) };
        let largest = output.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = output.iter().map(|z| (z - largest).exp()).sum();
        Ok(sum.ln() + largest - at_label)
    }
}

/// softmax(z) over the last dimension, any shape.
///
/// # Errors
/// Only those of candle.
pub fn softmax(z: &Tensor) -> Result<Tensor> {
    candle_nn::ops::softmax(z, D::Minus1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn the_loss_is_minus_the_logarithm_of_what_the_truth_is_given_however_it_is_asked_for() -> Result<()> {
        // exp z is 1 : 2 : 5.
        let z = [0.0, 2f64.ln(), 5f64.ln()].map(|z| z + 3.0);
        let expected = (8.0f64 / 2.0).ln();
        assert!((CrossEntropy.of_image(&z, 1)? - expected).abs() < 1e-14);
        let [y, z] = [[[0.0, 1.0, 0.0]], [z]].map(|row| Tensor::new(&row, &Device::Cpu));
        assert!((CrossEntropy.sum(&y?, &z?)?.to_scalar::<f64>()? - expected).abs() < 1e-14);
        Ok(())
    }

    #[test]
    fn large_numbers_neither_overflow_nor_lose_the_loss() -> Result<()> {
        assert_eq!(CrossEntropy.of_image(&[1000.0, 0.0], 1)?, 1000.0);
        let z = Tensor::new(&[[1000f32, 0.0]], &Device::Cpu)?;
        let y = Tensor::new(&[[0f32, 1.0]], &Device::Cpu)?;
        assert_eq!(CrossEntropy.sum(&y, &z)?.to_scalar::<f32>()?, 1000.0);
        assert_eq!(softmax(&z)?.to_vec2::<f32>()?, [[1.0, 0.0]]);
        Ok(())
    }

    #[test]
    fn descent_is_the_negative_gradient() -> Result<()> {
        let y = Tensor::new(&[[0.2, 0.7, 0.1], [1.0, 0.0, 0.0]], &Device::Cpu)?;
        let z = Var::new(&[[0.3, -1.2, 2.0], [0.1, 0.4, -0.6]], &Device::Cpu)?;
        let gradients = CrossEntropy.sum(&y, z.as_tensor())?.backward()?;
        let Some(gradient) = gradients.get(z.as_tensor()) else { candle_core::bail!("no gradient") };
        let off = (CrossEntropy.descent(&y, z.as_tensor())? + gradient)?.abs()?.max_all()?;
        assert!(off.to_scalar::<f64>()? < 1e-14);
        Ok(())
    }
}
