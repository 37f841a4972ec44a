//! What is looked at beside training: gradient-descending dynamics, the toy model, figures, speed.

pub mod bench;
pub mod compare;
pub mod figures;
pub mod gdd;
pub mod inspect;
mod page;
mod plot;
mod record;
mod settling;
pub mod toy;
