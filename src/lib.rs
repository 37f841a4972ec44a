//! Equilibrium Propagation with continual weight updates.
#![deny(missing_docs)]
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody listens.

pub mod base;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
pub mod learning;
pub mod model;
pub mod reference;
#[cfg(feature = "cli")]
pub mod report;
pub mod rng;
pub mod run;
pub mod study;
#[cfg(feature = "cli")]
pub mod sweep;
pub mod telemetry;
