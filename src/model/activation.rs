//! Activation functions σ.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// An elementwise activation function σ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// σ(x) = 1 / (1 + exp(−4(x − ½))), the paper's "sigmoid" (Eq. 102).
    Sigmoid,
    /// σ(x) = tanh x, used for the figures of Appendix E.6.
    Tanh,
    /// σ(x) = min(max(x, 0), 1).
    HardSigmoid,
}

impl Activation {
    /// σ(x), elementwise, any shape.
    ///
    /// # Errors
    /// Whatever candle reports for the operations (an unsupported dtype, no memory).
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Sigmoid => x.affine(-4.0, 2.0)?.exp()?.affine(1.0, 1.0)?.recip(),
            Activation::Tanh => x.tanh(),
            Activation::HardSigmoid => x.clamp(0.0, 1.0),
        }
    }

    /// σ′(x), elementwise, any shape. At the corners of the hard sigmoid, 1: neurons at rest, s = 0, must
    /// be able to move.
    ///
    /// # Errors
    /// As [`Activation::apply`].
    pub fn derivative(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Sigmoid => {
                let s = self.apply(x)?;
                &s * s.affine(-4.0, 4.0)?
            }
            Activation::Tanh => x.tanh()?.sqr()?.affine(-1.0, 1.0),
            Activation::HardSigmoid => (x.ge(0.0)? * x.le(1.0)?)?.to_dtype(x.dtype()),
        }
    }

    /// σ″(x), elementwise, any shape.
    ///
    /// # Errors
    /// As [`Activation::apply`].
    pub fn second_derivative(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Sigmoid => self.derivative(x)? * self.apply(x)?.affine(-8.0, 4.0)?,
            Activation::Tanh => self.derivative(x)? * x.tanh()?.affine(-2.0, 0.0)?,
            Activation::HardSigmoid => x.zeros_like(),
        }
    }
}
