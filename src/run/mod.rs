//! A run: prepared from a configuration, trained, saved, interrupted and gone on with.

pub mod angles;
pub mod checkpoint;
mod error;
mod health;
mod interrupt;
pub mod locate;
mod memory;
mod prepare;
mod resources;
mod resume;
pub mod sessions;
mod threads;
mod train;

pub use error::{Error, Result};
pub use interrupt::Interrupt;
pub use prepare::{Options, Run, initial_parameters, open_device};
pub use resources::Resources;
pub use resume::Resume;
pub use threads::with_threads;
pub use train::{Outcome, evaluate, for_each_test_batch, train};
