//! Ctrl-C, SIGTERM, SIGHUP, and the signals that batch systems send before they end a job, SIGUSR1 and SIGXCPU. On
//! the first signal the run saves and stops; on the second it stops at once. SIGUSR1 and SIGXCPU do not count as a
//! first signal: the one that they announce comes after them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// The signal that has asked the run to stop, if any. The default listens to none.
#[derive(Default)]
pub struct Interrupt(Arc<AtomicI32>);

impl Interrupt {
    /// Starts listening, on a thread of its own, which ends the process with status 1 on a second signal. A signal
    /// that is already ignored, as SIGHUP is under nohup, stays ignored, except for Ctrl-C and SIGTERM.
    ///
    /// # Errors
    /// Where the operating system refuses.
    #[cfg(feature = "cli")]
    pub fn listen() -> anyhow::Result<Self> {
        use anyhow::Context;
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXCPU};
        use signal_hook::iterator::Signals;
        let asked = Arc::new(AtomicI32::new(0));
        let warnings = [SIGHUP, SIGUSR1, SIGXCPU].into_iter().filter(|signal| !is_ignored(*signal));
        let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(warnings))
            .context("cannot listen for signals")?;
        let remembered = asked.clone();
        let listen = move || {
            for signal in signals.forever() {
                let is_warning = |signal| [SIGUSR1, SIGXCPU].contains(&signal);
                let before = remembered.load(Ordering::Relaxed);
                if before == 0 || (is_warning(before) && !is_warning(signal)) {
                    remembered.store(signal, Ordering::Relaxed);
                } else if !is_warning(signal) {
                    // Bypasses the log, which the main thread may be holding.
                    let word = "eqprop: stopped at once by a second signal; what was saved before stays\n";
                    let _ = std::io::Write::write_all(&mut std::io::stderr(), word.as_bytes());
                    signal_hook::low_level::exit(1);
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(listen)
            .context("cannot listen for signals")?;
        Ok(Self(asked))
    }

    /// Asks the run to stop as this signal would.
    pub fn ask(&self, signal: i32) {
        self.0.store(signal, Ordering::Relaxed);
    }

    /// The signal that has arrived, if any.
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

/// True where this process was started with a signal ignored.
#[cfg(feature = "cli")]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: nothing is changed, and zeroes are a valid `sigaction` to be written over.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
