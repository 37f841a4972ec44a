//! The threads of a run.

use crate::base::output::usage;
use crate::base::panic;
use anyhow::{Result, anyhow};
use rayon::ThreadPool;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work` in a pool of so many threads, by default one per core. A panic of the work becomes an error.
///
/// # Errors
/// Where there can be no such pool, those of `work`, and where it panics.
pub fn with_threads<R: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let pool = pool(threads)?;
    guarded(|| pool.install(work))
}

/// A pool of so many threads, by default one per core.
///
/// # Errors
/// Where there can be none.
pub fn pool(threads: Option<usize>) -> Result<ThreadPool> {
    if threads == Some(0) {
        usage!("--threads must be at least 1");
    }
    rayon::ThreadPoolBuilder::new()
        // Autograd recurses through all steps of a phase.
        .stack_size(256 << 20)
        .num_threads(threads.unwrap_or(0))
        .build()
        .map_err(|cause| {
            anyhow!(
                "cannot start the threads to compute with: {cause}. Each takes 256 MiB of address space, of which ulimit -v \
                 and -u may leave too little: give fewer --threads, or raise the limit"
            )
        })
}

/// Runs `work`, and turns a panic into an error.
///
/// # Errors
/// Those of `work`, and where it panics.
pub fn guarded<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic::words(&*panic);
        Err(anyhow!("a mistake in eqprop itself, please report it: panicked, {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_has_failed() {
        let outcome = with_threads(Some(2), || -> Result<()> { panic!("one of {}", 2) });
        assert!(outcome.unwrap_err().to_string().ends_with("panicked, one of 2"));
        assert_eq!(with_threads(Some(2), || Ok(3)).unwrap(), 3);
    }
}
