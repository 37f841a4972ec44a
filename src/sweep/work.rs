//! Training of a sweep's runs: each worker takes the next run that no process has, and trains it on one thread.

use super::SweepFolder;
use crate::base::files;
use crate::base::lock;
use crate::base::panic::guard;
use crate::run::{self, Interrupt, Options, Outcome, Prepared, Resources, Run};
use crate::telemetry::board::Board;
use anyhow::{Result, bail};
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::thread;
use tracing::{info_span, warn};

/// The state shared by the workers of a process.
pub struct Workers<'a> {
    /// The sweep.
    pub folder: &'a SweepFolder,
    /// Data and devices.
    pub resources: &'a Resources,
    /// The progress display.
    pub board: &'a Board,
    /// The signal that stops it.
    pub interrupt: &'a Interrupt,
}

impl Workers<'_> {
    /// Trains these runs, `count` at a time, until none is left or a signal arrives. Tries runs of other processes
    /// again after all others. Returns those that another process still has.
    ///
    /// # Errors
    /// Where the folder itself cannot be read or written. What goes wrong in a run is written down, and said.
    pub fn train(&self, names: Vec<String>, count: usize) -> Result<Vec<String>> {
        let all = names.len();
        let (queue, held) = (Mutex::new(names.into_iter()), Mutex::new(Vec::new()));
        let worker = || -> Result<()> {
            while self.interrupt.signal().is_none() {
                // A statement of its own, so that the queue is not locked while the run is trained.
                let next = guard(&queue).next();
                let Some(name) = next else { break };
                if !self.take(&name)? {
                    guard(&held).push(name);
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
            let mut ended = workers.into_iter().map(|worker| worker.join());
            ended.try_for_each(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
        })?;
        let held = std::mem::take(&mut *guard(&held));
        match held.len() < all && self.interrupt.signal().is_none() {
            true => self.train(held, count),
            false => Ok(held),
        }
    }

    /// Trains a run, unless that has been done in the meantime. Returns false where another process has it.
    ///
    /// # Errors
    /// Where the sweep's folder cannot be read or written.
    fn take(&self, name: &str) -> Result<bool> {
        let sweep = self.folder;
        if !sweep.state(name)?.is_open() {
            self.board.finish(name, "ended in another process");
            return Ok(true);
        }
        if let Err(error) = sweep.check_run(name) {
            return self.failed(name, &error);
        }
        // Existing folders are locked before anything is read from them.
        let options = Options::going_on(name, &sweep.path);
        for folder in [&options.runs_dir, &options.checkpoints_dir] {
            files::create_folder(&folder.join(name))?;
        }
        match run::with_threads(Some(1), || self.train_one(name, &options)) {
            Ok(Some(how)) => self.board.finish(name, &how),
            Ok(None) => {}
            Err(error) if matches!(error.downcast_ref(), Some(run::Error::Lock(lock::Error::Held(..)))) => {
                warn!("{name}: {error:#}");
                return Ok(false);
            }
            Err(error) => return self.failed(name, &error),
        }
        Ok(true)
    }

    /// Records and reports why a run has failed, which ends it.
    fn failed(&self, name: &str, error: &anyhow::Error) -> Result<bool> {
        files::write_atomically(&self.folder.failed(name), format!("{error:#}").as_bytes())?;
        self.board.finish(name, &format!("failed: {error:#}"));
        Ok(true)
    }

    /// Trains a run from its position, and returns in words how it ended; `None` where a signal stopped it.
    ///
    /// # Errors
    /// Why it cannot be trained to its end.
    fn train_one(&self, name: &str, options: &Options) -> Result<Option<String>> {
        let _span = info_span!("run", name).entered();
        let run = match Run::prepare(&self.folder.choices(name), options, self.resources)? {
            Prepared::Ready(run) => run,
            Prepared::Complete(_) => return Ok(Some("was complete".into())),
        };
        if run.progress.run != name {
            bail!(
                "the data here is {}, not that of the sweep: give the same by --data-dir",
                run.dataset.name
            );
        }
        let mut line = self.board.follow(&run.extent());
        Ok(match run::train(*run, &mut line, self.interrupt)? {
            Outcome::Done => Some(line.summary()),
            Outcome::Interrupted(_) => None,
            Outcome::Diverged => {
                bail!("diverged: a state or weight is no longer a number, or weights have run away")
            }
        })
    }
}
