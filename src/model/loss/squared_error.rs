//! ℓ = ½‖y − s⁰‖² (Eq. 3).

use super::LossFunction;
use candle_core::{Result, Tensor};

pub(super) struct SquaredError;

impl LossFunction for SquaredError {
    fn name(&self) -> &'static str {
        "squared-error"
    }

    fn sum(&self, target: &Tensor, output: &Tensor) -> Result<Tensor> {
        (output - target)?.sqr()?.sum_all()? * 0.5
    }

    /// y − s⁰.
    fn descent(&self, target: &Tensor, output: &Tensor) -> Result<Tensor> {
        target - output
    }

    /// As [`SquaredError::sum`], for each of very many images.
    fn of_image(&self, output: &[f64], label: u8) -> Result<f64> {
        let target = |class: usize| if class == usize::from(label) { 1.0 } else { 0.0 };
        Ok((output.iter().enumerate())
            .fold(0.0, |loss, (class, &s)| loss + 0.5 * (target(class) - s).powi(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_loss_is_half_the_squared_distance_however_it_is_asked_for() -> Result<()> {
        let expected = 0.5 * (0.25 + 0.0625);
        assert_eq!(SquaredError.of_image(&[0.5, 0.25, 1.0], 2)?, expected);
        let [y, s] = [[[0.0, 0.0, 1.0]], [[0.5, 0.25, 1.0]]].map(|row| Tensor::new(&row, &Device::Cpu));
        assert_eq!(SquaredError.sum(&y?, &s?)?.to_scalar::<f64>()?, expected);
        Ok(())
    }
}
