//! Training the runs of a sweep: each worker takes the next run that nobody has, and trains it on one thread.

use super::{State, SweepFolder};
use crate::base::files;
use crate::base::lock;
use crate::base::mutex::guard;
use crate::config::Choices;
use crate::run::{self, Interrupt, Options, Outcome, Resources, Run};
use crate::telemetry::board::Board;
use anyhow::{Error, Result, bail};
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use tracing::{error, info_span, warn};

/// What the workers of a process share.
pub struct Workers<'a> {
    /// The sweep.
    pub folder: &'a SweepFolder,
    /// Its data, and where it computes.
    pub resources: &'a Resources,
    /// What a person sees of it.
    pub board: &'a Board,
    /// What stops it.
    pub interrupt: &'a Interrupt,
}

impl Workers<'_> {
    /// Trains these runs, `count` at a time, until none is left to take or a signal comes. Runs that another process
    /// has are tried again when all others are over, and after that for so long as `patience`. Returns how many have
    /// failed.
    ///
    /// # Errors
    /// Where the folder itself cannot be read or written. What goes wrong in a run is written down, and said.
    pub fn train(&self, mut names: Vec<String>, count: usize, patience: Duration) -> Result<usize> {
        let begun = Instant::now();
        let failed = AtomicUsize::new(0);
        loop {
            let all = names.len();
            let (queue, held) = (Mutex::new(names.into_iter()), Mutex::new(Vec::new()));
            let worker = || -> Result<()> {
                while self.interrupt.signal().is_none() {
                    // A statement of its own, so that the queue is not locked while the run is trained.
                    let next = guard(&queue).next();
                    let Some(name) = next else { break };
                    match self.take(&name) {
                        Err(error) if is_held(&error) => {
                            warn!("{name}: {error:#}");
                            guard(&held).push(name);
                        }
                        outcome => _ = failed.fetch_add(usize::from(outcome?), Ordering::Relaxed),
                    }
                }
                Ok(())
            };
            thread::scope(|scope| {
                let workers: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
                let mut ended = workers.into_iter().map(|worker| worker.join());
                ended.try_for_each(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
            })?;
            names = std::mem::take(&mut *guard(&held));
            let none_taken = names.len() == all;
            if names.is_empty()
                || self.interrupt.signal().is_some()
                || none_taken && begun.elapsed() >= patience
            {
                return Ok(failed.into_inner());
            }
            if none_taken {
                sleep(Duration::from_secs(1));
            }
        }
    }

    /// Trains a run, unless that has been done meanwhile. Returns whether it has failed.
    ///
    /// # Errors
    /// [`lock::Error::Held`] where another process has it, and where the sweep's folder cannot be read or written.
    fn take(&self, name: &str) -> Result<bool> {
        let sweep = self.folder;
        if !matches!(sweep.state(name)?, State::Open(_)) {
            self.board.finish(name, "ended in another process");
            return Ok(false);
        }
        // Folders that are there are locked before anything is read from them.
        for folder in [sweep.runs(), sweep.checkpoints()] {
            files::create_folder(&folder.join(name))?;
        }
        let reason = match run::with_threads(Some(1), || self.train_one(name)) {
            Ok((Outcome::Interrupted(_), _)) => return Ok(false),
            Ok((Outcome::Done, summary)) => {
                self.board.finish(name, &summary);
                return Ok(false);
            }
            Ok((Outcome::Diverged, _)) => {
                "diverged: a state or weight is no longer a number, or weights have run away".to_string()
            }
            Err(error) if is_held(&error) => return Err(error),
            Err(error) => format!("{error:#}"),
        };
        files::write_atomically(&sweep.failed(name), reason.as_bytes())?;
        error!("{name}: {reason}");
        self.board.finish(name, &format!("failed: {reason}"));
        Ok(true)
    }

    /// Trains a run to its end, from where it stands. Also says, in words, how it ended.
    fn train_one(&self, name: &str) -> Result<(Outcome, String)> {
        let sweep = self.folder;
        let choices = Choices { config: Some(sweep.config(name)), ..Choices::default() };
        let options = Options::going_on(name, &sweep.path);
        let _span = info_span!("run", name).entered();
        let Some(run) = Run::prepare(&choices, &options, self.resources)? else {
            return Ok((Outcome::Done, "was complete".into()));
        };
        if run.progress.run != name {
            bail!(
                "the data here is {}, not that of the sweep: give the same by --data-dir",
                run.dataset.name
            );
        }
        let mut line = self.board.follow(&run.extent());
        let outcome = run::train(run, &mut line, self.interrupt)?;
        Ok((outcome, line.summary()))
    }
}

/// Whether another process has the run.
fn is_held(error: &Error) -> bool {
    matches!(error.downcast_ref(), Some(run::Error::Lock(lock::Error::Held(_))))
}
