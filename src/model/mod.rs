//! The model: a layered network, its neural dynamics, and the equilibrium it settles in.
//!
//! [`network`] has the layers and their parameters θ, [`convolution`] connections that share weights, [`delivery`] what
//! connections deliver, [`activation`] σ, [`dynamics`] one step s_{t+1} = F(x, s_t, θ), [`readout`] an output that is no
//! part of them, [`settle`] the first (free) phase, [`loss`] what the output is judged by, [`synapse`] how weights change,
//! [`noise`] what a circuit adds to all that.

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

/// What stays the same while a network learns, beside the network: how its neurons move and settle, what its output is
/// judged by, and how its weights change.
#[derive(Clone, Debug)]
pub struct Model {
    /// F.
    pub dynamics: Dynamics,
    /// The first phase.
    pub settle: Settle,
    /// ℓ.
    pub loss: Loss,
    /// What makes changes of weights of those that are wished.
    pub synapse: Synapse,
    /// What a circuit adds to states, reads and updates.
    pub noise: Noise,
}

impl Model {
    /// What pulls the output towards `target`, one-hot (B, d_0).
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
