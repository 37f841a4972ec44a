//! The weights that a run starts from.

use super::checkpoint::{self, Checkpoint};
use super::error::Result;
use super::memory;
use crate::config::Config;
use crate::model::Parameters;
use anyhow::Context;
use candle_core::Device;
use std::path::Path;

/// The weights in the file `init`, or random ones as the configuration says.
///
/// # Errors
/// Where the file cannot be read, or does not fit the network; where the network does not fit into memory.
pub fn initial_parameters(config: &Config, init: Option<&Path>, device: &Device) -> Result<Parameters> {
    memory::check(config)?;
    if let Some(path) = init {
        return fitting(config, path, &checkpoint::read(path, &config.saved())?, device);
    }
    Ok(config.parameters(device)?)
}

/// The weights of a checkpoint, which is the file at `path`.
///
/// # Errors
/// Where they do not fit the network.
pub fn fitting(config: &Config, path: &Path, checkpoint: &Checkpoint, device: &Device) -> Result<Parameters> {
    let dtype = config.training.dtype.dtype();
    let theta = Parameters::from_named(&checkpoint.tensors, config.network(), dtype, device);
    Ok(theta.with_context(|| format!("{}: does not fit the network", path.display()))?)
}
