//! A run: prepared from a configuration, trained, saved, interrupted and resumed.

pub mod angles;
pub mod checkpoint;
mod ending;
mod error;
mod folders;
mod health;
mod interrupt;
pub mod locate;
mod memory;
mod prepare;
pub mod progress;
mod ready;
mod resources;
mod resume;
pub mod sessions;
mod source;
mod threads;
mod train;
mod weights;

pub use ending::{Ending, Finished};
pub use error::{Error, Result};
pub use interrupt::Interrupt;
pub use prepare::{Options, Prepared};
pub use ready::Run;
pub use resources::{Resources, open_device, open_gpu};
pub use resume::Resume;
pub use threads::{guarded, pool, with_threads};
pub use train::{Outcome, TEST_BATCH, evaluate, train};
pub use weights::initial_parameters;
