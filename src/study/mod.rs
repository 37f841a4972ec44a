//! What is looked at beside training: gradient-descending dynamics, the toy model, figures, speed.

pub mod bench;
#[cfg(feature = "cli")]
pub mod figures;
#[cfg(feature = "cli")]
pub mod gdd;
pub mod toy;
