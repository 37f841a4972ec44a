//! σ and its derivatives in vectors: the activations of the fused engine. Others run on the plain engine.

use super::simd::{Lanes, Real};
use crate::model::Activation;

/// An [`Activation`] that has a form in vectors.
#[derive(Clone, Copy)]
pub enum Sigma {
    Sigmoid,
    Tanh,
    HardSigmoid,
}

impl Sigma {
    const OF: [(Activation, Self); 3] = [
        (Activation::Sigmoid, Self::Sigmoid),
        (Activation::Tanh, Self::Tanh),
        (Activation::HardSigmoid, Self::HardSigmoid),
    ];

    /// The form of an activation in vectors, where it has one.
    pub fn of(activation: Activation) -> Option<Self> {
        Self::OF.into_iter().find_map(|(known, sigma)| (known == activation).then_some(sigma))
    }

    /// σ(x), see [`Activation::apply`].
    #[inline(always)]
    pub fn apply<L: Lanes>(self, x: L) -> L {
        let one = L::number(1.0);
        match self {
            Self::Sigmoid => one.div(x.mul_add(L::number(-4.0), L::number(2.0)).exp().add(one)),
            // tanh x = 1 − 2/(exp(2x) + 1)
            Self::Tanh => one.sub(L::number(2.0).div(x.add(x).exp().add(one))),
            Self::HardSigmoid => one.min(L::number(0.0).max(x)),
        }
    }

    /// σ′(x), where `s` = σ(x); see [`Activation::derivative`].
    #[inline(always)]
    pub fn derivative<L: Lanes>(self, x: L, s: L) -> L {
        let (zero, one) = (L::number(0.0), L::number(1.0));
        match self {
            Self::Sigmoid => s.mul_add(s.mul_add(L::number(-4.0), L::number(4.0)), zero),
            Self::Tanh => zero.sub(s).mul_add(s, one),
            Self::HardSigmoid => zero.le(x).mul_add(x.le(one), zero),
        }
    }

    /// σ′ of a neuron from its state s alone, see [`Activation::slope`].
    pub fn slope<T: Real>(self, s: T) -> T {
        let one = T::from_f64(1.0);
        match self {
            Self::Sigmoid => T::from_f64(4.0) * s * (one - s),
            Self::Tanh => one - s * s,
            Self::HardSigmoid if T::default() < s && s < one => one,
            Self::HardSigmoid => T::default(),
        }
    }
}
