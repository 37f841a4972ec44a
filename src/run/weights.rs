//! The weights that a run starts from.

use super::checkpoint::{self, Checkpoint};
use super::error::{Result, refuse};
use crate::config::Config;
use crate::model::Parameters;
use anyhow::Context;
use candle_core::Device;
use std::fs;
use std::path::Path;

/// The weights in the file `init`, or random ones as the configuration says.
///
/// # Errors
/// Where the file cannot be read, or does not fit the network; where the network does not fit into memory.
pub fn initial_parameters(config: &Config, init: Option<&Path>, device: &Device) -> Result<Parameters> {
    if let Some(path) = init {
        return fitting(config, path, &checkpoint::read(path)?, device);
    }
    check_memory(config)?;
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

/// Checks the least that a run of this configuration needs against the memory that is free, before its network is made:
/// the system would end the process without a word.
fn check_memory(config: &Config) -> Result<()> {
    let (dims, training) = (&config.network.dims, &config.training);
    let neurons: usize = dims.0.iter().sum();
    // θ and what synapses remember, the engine's copy and a checkpoint; the states of two steps, their sums and x.
    let numbers = 3 * config.remembered() + 4 * training.batch_size * neurons;
    let devices = config.network().parameter_count() * config.synapse.synapse().bytes();
    let needed = (numbers * training.dtype.dtype().size_in_bytes() + devices) as u64;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    if let Some(free) = available().filter(|free| needed > *free) {
        refuse!(
            "network.dims = {:?} with training.batch_size = {} needs {:.1} GiB of memory at the least, and {:.1} GiB \
             are free here: choose less of either",
            dims.0,
            training.batch_size,
            gib(needed),
            gib(free)
        );
    }
    Ok(())
}

/// Bytes of memory that can be had without swapping; `None` where the system does not say.
fn available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(1024 * line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?)
}
