//! Messages about waits that last.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use tracing::info;

/// The length of a wait without a message.
const PATIENCE: Duration = Duration::from_secs(2);

/// A wait that lasts until this is dropped.
pub struct Waiting {
    _over: Sender<()>,
}

impl Waiting {
    /// Prints what is being waited for once that has taken two seconds.
    pub fn on(what: impl Into<String>) -> Self {
        let (over, ended) = mpsc::channel::<()>();
        let what = what.into();
        thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                info!("{what} …");
            }
        });
        Self { _over: over }
    }
}
