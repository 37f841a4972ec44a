//! σ(x) = min(max(x, 0), 1).

use super::Sigma;
use candle_core::{Result, Tensor};

pub(super) struct HardSigmoid;

impl Sigma for HardSigmoid {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.clamp(0.0, 1.0)
    }

    /// 1 from corner to corner, these included.
    fn derivative(&self, x: &Tensor) -> Result<Tensor> {
        (x.ge(0.0)? * x.le(1.0)?)?.to_dtype(x.dtype())
    }

    fn slope(&self, s: &Tensor) -> Result<Tensor> {
        (s.gt(0.0)? * s.lt(1.0)?)?.to_dtype(s.dtype())
    }

    fn second_derivative(&self, x: &Tensor) -> Result<Tensor> {
        x.zeros_like()
    }
}
