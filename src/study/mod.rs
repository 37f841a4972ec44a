//! Studies beside training: gradient-descending dynamics, the toy model, runs, speed.

pub mod bench;
#[cfg(feature = "cli")]
pub mod compare;
#[cfg(feature = "cli")]
pub mod equilibrium;
pub mod estimate;
pub mod explain;
#[cfg(feature = "cli")]
mod figures;
#[cfg(feature = "cli")]
pub mod gdd;
#[cfg(feature = "cli")]
pub mod inspect;
#[cfg(feature = "cli")]
pub(crate) mod record;
pub mod referee;
pub mod toy;
#[cfg(feature = "cli")]
mod trajectory;
