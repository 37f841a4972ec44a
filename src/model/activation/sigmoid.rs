//! σ(x) = 1 / (1 + exp(−4(x − ½))) (Eq. 102).

use super::Sigma;
use candle_core::{Result, Tensor};

pub(super) struct Sigmoid;

impl Sigma for Sigmoid {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.affine(-4.0, 2.0)?.exp()?.affine(1.0, 1.0)?.recip()
    }

    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        self.slope(&self.apply(x)?)
    }

    /// σ′ = 4σ(1 − σ).
    fn slope(&self, s: &Tensor) -> Result<Tensor> {
        s * s.affine(-4.0, 4.0)?
    }

    /// σ″ = 4σ′(1 − 2σ).
    fn second_derivative(&self, x: &Tensor) -> Result<Tensor> {
        self.derivative(x)? * self.apply(x)?.affine(-8.0, 4.0)?
    }
}
