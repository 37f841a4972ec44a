//! Output of a run while it trains: numbers for TensorBoard and metrics.jsonl, and progress for people.

#[cfg(feature = "cli")]
pub mod board;
mod ledger;
pub mod look;
pub mod metrics;
pub mod observer;
#[cfg(feature = "cli")]
pub mod plugins;
#[cfg(feature = "cli")]
pub mod progress;
pub mod records;
#[cfg(feature = "cli")]
mod refill;
#[cfg(feature = "cli")]
pub mod showing;
pub mod tags;
#[cfg(feature = "cli")]
pub mod tensorboard;
