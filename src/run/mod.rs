//! A run: prepared from a configuration, trained, saved, interrupted and gone on with.

pub mod angles;
pub mod checkpoint;
mod health;
mod interrupt;
mod memory;
mod prepare;
mod resume;
pub mod sessions;
mod shared;
mod threads;
mod train;

pub use interrupt::Interrupt;
pub use prepare::{Options, Run, initial_parameters, open_device};
pub use resume::Resume;
pub use shared::Shared;
pub use threads::with_threads;
pub use train::{Outcome, evaluate, for_each_test_batch, train};
