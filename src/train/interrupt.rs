//! Ctrl-C and SIGTERM: asked for once, the run saves and stops; asked for twice, it stops at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Remembers the signal that asked the run to stop.
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Starts listening.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicUsize::new(0));
        let asked_before = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the second time the first of these ends the process.
            flag::register_conditional_shutdown(signal, 128 + signal, asked_before.clone())
                .and_then(|_| flag::register(signal, asked_before.clone()))
                .and_then(|_| flag::register_usize(signal, asked.clone(), signal as usize))
                .context("cannot listen for signals")?;
        }
        Ok(Self(asked))
    }

    /// The signal that has come, if any.
    pub fn signal(&self) -> Option<i32> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(signal as i32),
        }
    }
}
