//! The loss ℓ = ½‖y − s⁰‖² of one image, its target y and its output s⁰.

use candle_core::{Result, Tensor};

/// ℓ summed over all images of a batch: a scalar. `target` and `output` are (B, d_0).
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn sum(target: &Tensor, output: &Tensor) -> Result<Tensor> {
    (output - target)?.sqr()?.sum_all()? * 0.5
}

/// −∂ℓ/∂s⁰ = y − s⁰, of each image: where the nudge pulls.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn descent(target: &Tensor, output: &Tensor) -> Result<Tensor> {
    target - output
}

/// ℓ of one image with this label.
pub fn of_image(output: &[f64], label: u8) -> f64 {
    let target = |class: usize| if class == usize::from(label) { 1.0 } else { 0.0 };
    (output.iter().enumerate()).fold(0.0, |loss, (class, &s)| loss + 0.5 * (target(class) - s).powi(2))
}

/// The class that the network gives an image with this output: argmax s⁰, the first of equals.
pub fn answer(output: &[f64]) -> usize {
    (1..output.len()).fold(0, |best, class| if output[class] > output[best] { class } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_one_image_is_half_the_squared_distance() {
        assert_eq!(of_image(&[0.5, 0.25, 1.0], 2), 0.5 * (0.25 + 0.0625));
    }
}
