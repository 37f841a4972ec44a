//! Equilibrium Propagation with continual weight updates.
#![deny(missing_docs)]

pub mod activation;
pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
pub mod dynamics;
pub mod engine;
pub mod figures;
pub mod gdd;
pub mod learning;
pub mod network;
pub mod reference;
pub mod report;
pub mod rng;
pub mod sweep;
pub mod toy;
pub mod train;
