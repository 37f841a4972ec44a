//! The model: a layered network, its neural dynamics, and the equilibrium it settles in.
//!
//! [`network`] has the layers and their parameters θ, [`convolution`] connections that share weights, [`delivery`] the
//! deliveries of connections, [`activation`] σ, [`dynamics`] one step s_{t+1} = F(x, s_t, θ), [`readout`] an output that
//! is no part of them, [`settle`] the first (free) phase, [`loss`] what the output is judged by, [`synapse`] how weights
//! change, [`noise`] what a circuit adds to all that.

pub mod activation;
pub mod anderson;
pub mod convolution;
pub mod delivery;
pub mod dynamics;
pub mod follow;
pub mod loss;
pub mod network;
pub mod noise;
pub mod normal;
mod patches;
pub mod readout;
pub mod settle;
pub mod synapse;

pub use activation::Activation;
pub use convolution::{Convolution, Maps};
pub use delivery::Largest;
pub use dynamics::Dynamics;
pub use loss::Loss;
pub use network::{Connection, Dims, Network, Parameters};
pub use noise::Noise;
pub use normal::Normal;
pub use readout::Readout;
pub use settle::{Order, Settle, Settled, Solver};
pub use synapse::Synapse;

use candle_core::Tensor;
use dynamics::Nudge;

/// The fixed properties of a model beside its network: dynamics, first phase, loss, and the law of its synapses.
#[derive(Clone, Debug)]
pub struct Model {
    /// F.
    pub dynamics: Dynamics,
    /// The first phase.
    pub settle: Settle,
    /// ℓ.
    pub loss: Loss,
    /// The law that turns wished changes of weights into changes.
    pub synapse: Synapse,
    /// The noise that a circuit adds to states, reads and updates.
    pub noise: Noise,
}

impl Model {
    /// The nudge of the output towards `target`, one-hot (B, d_0).
    pub fn nudge<'a>(&self, target: &'a Tensor, beta: f64) -> Nudge<'a> {
        Nudge { loss: self.loss, target, beta: beta.into() }
    }

    /// Discrete time, the squared error and ideal synapses, as in most of the paper.
    pub fn discrete(activation: Activation, settle: Settle) -> Self {
        Self {
            dynamics: Dynamics::discrete(activation),
            settle,
            loss: Loss::default(),
            synapse: Synapse::ideal(),
            noise: Noise::default(),
        }
    }
}
