//! σ(x) = ln(1 + exp x).

use super::Sigma;
use candle_core::{Result, Tensor};

pub(super) struct Softplus;

impl Sigma for Softplus {
    /// max(x, 0) + ln(1 + exp(−|x|)): the exponential is at most 1.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.relu()? + x.abs()?.neg()?.exp()?.affine(1.0, 1.0)?.log()?
    }

    /// σ′ = 1 / (1 + exp(−x)).
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        x.neg()?.exp()?.affine(1.0, 1.0)?.recip()
    }

    /// σ′ = 1 − exp(−s).
    fn slope(&self, s: &Tensor) -> Result<Tensor> {
        s.neg()?.exp()?.affine(-1.0, 1.0)
    }

    /// σ″ = σ′(1 − σ′).
    fn second_derivative(&self, x: &Tensor) -> Result<Tensor> {
        let slope = self.derivative(x)?;
        &slope * slope.affine(-1.0, 1.0)?
    }
}
