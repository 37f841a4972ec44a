//! Equilibrium Propagation with continual weight updates.
#![deny(missing_docs)]
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody listens.

pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
pub mod figures;
pub mod gdd;
pub mod learning;
pub mod model;
pub mod name;
pub mod output;
pub mod reference;
pub mod report;
pub mod rng;
pub mod sweep;
pub mod toy;
pub mod train;
