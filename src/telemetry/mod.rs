//! What a run says while it trains: numbers for TensorBoard and metrics.jsonl, and progress for people.

pub mod board;
pub mod metrics;
pub mod pictures;
pub mod plugins;
pub mod progress;
pub mod tags;
pub mod tensorboard;
