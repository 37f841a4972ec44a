//! Equilibrium Propagation with continual weight updates, after Ernoult, Grollier, Querlioz, Bengio and Scellier
//! (2020): EP, C-EP and C-VF, exact and reproducible to the bit, on [candle](https://github.com/huggingface/candle).
//!
//! # The model
//!
//! Layers are numbered as in the paper: 0 is the output, N the last hidden layer, above it the input x.
//!
//! ```text
//! first (free) phase     s₀ = 0,  s_{t+1} = F(x, s_t, θ),            t = 0 … T−1, until s_t = s_*
//! F, discrete time       sⁿ ← σ(W_{n,n+1} sⁿ⁺¹ + b_n + W_{n,n−1} sⁿ⁻¹)           (Eq. 85, 98)
//! loss                   ℓ = ½‖y − s⁰‖²                                           (Eq. 3)
//! second (nudged) phase  the same from s_*, and s⁰ ← s⁰ + β(y − s⁰),  t = 0 … K−1 (Eq. 86, 99)
//! update, tied           Δ_W(t) = (s^n_{t+1} s^{n+1}_{t+1}ᵀ − s^n_t s^{n+1}_tᵀ)/β  (Eq. 89)
//! update, untied         Δ_W(t) = (s^n_{t+1} − s^n_t) s^{n+1}_tᵀ/β                 (Eq. 12)
//! EP, VF                 θ ← θ + η Σ_t Δ_θ(t), after the second phase             (Alg. 1)
//! C-EP, C-VF             θ_{t+1} = θ_t + η Δ_θ(t), at every step of it            (Alg. 2)
//! Theorem 1              Σ_t Δ_θ(t) → −dL/dθ as BPTT has it, for small β and η
//! ```
//!
//! # A network that learns
//!
//! ```
//! use eqprop::{Batch, Config, Rule};
//!
//! # fn main() -> anyhow::Result<()> {
//! // C-EP as in Table 2, for 4 pixels, 16 hidden neurons and 2 classes, with rates for so few images.
//! let config = Config::preset(Rule::CEP, [4, 16, 2])?.with("learning.learning_rates", vec![0.1, 0.05])?;
//! let mut engine = config.engine()?;
//!
//! // Is the left half bright, or the right one?
//! let images = vec![250, 200, 10, 0, 220, 180, 30, 20, 0, 30, 240, 190, 20, 10, 200, 230];
//! let batch = Batch { images, labels: vec![0, 0, 1, 1] };
//! let before = engine.evaluate(&batch)?.mean_loss();
//! for _ in 0..50 {
//!     engine.train(&batch, 0.5)?; // β = ½
//! }
//! let after = engine.evaluate(&batch)?;
//! assert!(after.mean_loss() < 0.2 * before);
//! assert_eq!(after.errors, 0);
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//!
//! Each knows only those above it.
//!
//! | module | contents |
//! |---|---|
//! | [`base`], [`rng`] | files that are whole or absent, locks, names; the random streams |
//! | [`model`] | layers and connections, σ, the loss, the synapses, one step F, the first phase |
//! | [`reference`](mod@reference) | the gradients the updates are held against: BPTT, RBP |
//! | [`learning`] | the rules, which are values, and the second phase, which runs them |
//! | [`data`] | labelled images, minibatches, and the ways to load them: one file each |
//! | [`engine`] | engines that run the two phases on minibatches: plain (candle, step by step), and fast ones |
//! | [`config`] | a run's configuration, resolved from defaults, files, environment and flags |
//! | `charts` | charts, pictures, and the pages they stand in (feature `cli`) |
//! | [`telemetry`] | output of a run: metrics, and with `cli` TensorBoard and progress bars |
//! | [`run`] | a run: prepared, trained, saved, interrupted and resumed |
//! | [`study`] | studies beside training: the toy model, speed, and with `cli` runs |
//! | `tune`, `sweep`, `report`, `cli` | hyperparameter search, many runs, reports, the command line (feature `cli`) |
//!
//! # Features
//!
//! - `cli` (default): the program `eqprop`, with its command line, progress bars, sweeps, reports, figures and
//!   TensorBoard events. A library that uses this one leaves it out, and builds fewer than half the dependencies.
//! - `hub` (default): MNIST, Fashion-MNIST and CIFAR-10 from the Hugging Face hub.
//! - `cuda`: GPUs.
//!
//! # Errors
//!
//! [`model`], [`learning`] and [`reference`](mod@reference) return candle's; [`data::Error`], [`config::Error`],
//! [`run::checkpoint::Error`], [`base::files::Error`] and [`base::lock::Error`] say what is wrong with data, a
//! configuration, a checkpoint, a file or a folder, and [`run::Error`] which of these keeps a run from being prepared,
//! resumed or trained. Engines and the modules above [`run`] return `anyhow::Error`.
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody listens.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))] // Files are opened in `base::files`.

pub use config::Config;
pub use data::Batch;
pub use learning::Rule;

pub mod base;
#[cfg(feature = "cli")]
pub mod charts;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
pub mod learning;
pub mod model;
#[cfg(feature = "python")]
pub mod python;
pub mod reference;
#[cfg(feature = "cli")]
pub mod report;
pub mod rng;
pub mod run;
pub mod study;
#[cfg(feature = "cli")]
pub mod sweep;
pub mod telemetry;
#[cfg(feature = "cli")]
pub mod tune;
