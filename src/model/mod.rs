//! The model: a layered network, its neural dynamics, and the equilibrium it settles in.
//!
//! [`network`] has the layers and their parameters θ, [`activation`] σ, [`dynamics`] one step
//! s_{t+1} = F(x, s_t, θ), [`settle`] the first (free) phase, [`loss`] what the output is judged by.

pub mod activation;
pub mod anderson;
pub mod dynamics;
pub mod follow;
pub mod loss;
pub mod network;
pub mod settle;

pub use activation::Activation;
pub use dynamics::Dynamics;
pub use network::{Dims, Parameters};
pub use settle::{Order, Settle, Settled, Solver};

/// What stays the same while a network learns: its sizes, how its neurons move, and how long they are given to settle.
#[derive(Clone, Debug)]
pub struct Model {
    /// Layer sizes.
    pub dims: Dims,
    /// Whether feedback weights are the transposed forward weights.
    pub tied: bool,
    /// F.
    pub dynamics: Dynamics,
    /// The first phase.
    pub settle: Settle,
}
