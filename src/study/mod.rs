//! What is looked at beside training: gradient-descending dynamics, the toy model, figures, speed.

pub mod bench;
pub mod figures;
pub mod gdd;
pub mod toy;
