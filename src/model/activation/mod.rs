//! Activation functions σ.
//!
//! One is a file here that implements [`Sigma`], and a line in the list below. The plain engine then has it. The fast
//! ones, which state σ once more in their own vectors, run those that they have a form of, and leave others to it.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// An activation function σ and its derivatives, elementwise, any shape.
trait Sigma {
    /// σ(x).
    fn apply(&self, x: &Tensor) -> Result<Tensor>;
    /// σ′(x).
    fn derivative(&self, x: &Tensor) -> Result<Tensor>;
    /// σ′(x) from s = σ(x).
    fn slope(&self, s: &Tensor) -> Result<Tensor>;
    /// σ″(x).
    fn second_derivative(&self, x: &Tensor) -> Result<Tensor>;
}

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident in $file:ident,)*) => {
        $(mod $file;)*

        /// An elementwise activation function σ.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Activation {
            $($(#[$doc])* $name,)*
        }

        impl Activation {
            fn sigma(self) -> &'static dyn Sigma {
                match self {
                    $(Activation::$name => &$file::$name,)*
                }
            }
        }
    };
}

activations! {
    /// σ(x) = 1 / (1 + exp(−4(x − ½))), the paper's "sigmoid" (Eq. 102).
    Sigmoid in sigmoid,
    /// σ(x) = tanh x, used for the figures of Appendix E.6.
    Tanh in tanh,
    /// σ(x) = min(max(x, 0), 1).
    HardSigmoid in hard_sigmoid,
    /// σ(x) = ln(1 + exp x), on the plain engine alone.
    Softplus in softplus,
}

impl Activation {
    /// σ(x), elementwise, any shape.
    ///
    /// # Errors
    /// Whatever candle reports for the operations (an unsupported dtype, no memory).
    pub fn apply(self, x: &Tensor) -> Result<Tensor> {
        self.sigma().apply(x)
    }

    /// σ′(x), elementwise, any shape. At the corners of the hard sigmoid, 1: neurons at rest, s = 0, must
    /// be able to move.
    ///
    /// # Errors
    /// As [`Activation::apply`].
    pub fn derivative(self, x: &Tensor) -> Result<Tensor> {
        self.sigma().derivative(x)
    }

    /// σ′(x) where s = σ(x), elementwise, any shape: a neuron's own σ′ as a function of its state s. At 0 and at 1
    /// the hard sigmoid has slope 0, as beyond its corners.
    ///
    /// # Errors
    /// As [`Activation::apply`].
    pub fn slope(self, s: &Tensor) -> Result<Tensor> {
        self.sigma().slope(s)
    }

    /// σ″(x), elementwise, any shape.
    ///
    /// # Errors
    /// As [`Activation::apply`].
    pub fn second_derivative(self, x: &Tensor) -> Result<Tensor> {
        self.sigma().second_derivative(x)
    }
}
