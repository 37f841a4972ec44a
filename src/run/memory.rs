//! Whether a network fits into memory, asked before it is made: the system would end the process without a word.

use super::error::{Result, refuse};
use crate::config::Config;
use std::fs;

/// Checks the least that a run of this configuration needs against the memory that is free.
///
/// # Errors
/// Says how much is needed and how much there is.
pub fn check(config: &Config) -> Result<()> {
    let (dims, training) = (&config.network.dims, &config.training);
    let neurons: usize = dims.0.iter().sum();
    // θ, the engine's copy and a checkpoint; the states of two steps, their sums and x.
    let numbers = 3 * config.network().parameter_count() + 4 * training.batch_size * neurons;
    let needed = (numbers * training.dtype.dtype().size_in_bytes()) as u64;
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
