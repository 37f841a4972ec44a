//! σ(x) = tanh x.

use super::Sigma;
use candle_core::{Result, Tensor};

pub(super) struct Tanh;

impl Sigma for Tanh {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.tanh()
    }

    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        self.slope(&x.tanh()?)
    }

    /// σ′ = 1 − σ².
    fn slope(&self, s: &Tensor) -> Result<Tensor> {
        s.sqr()?.affine(-1.0, 1.0)
    }

    /// σ″ = −2σσ′.
    fn second_derivative(&self, x: &Tensor) -> Result<Tensor> {
        self.derivative(x)? * x.tanh()?.affine(-2.0, 0.0)?
    }
}
