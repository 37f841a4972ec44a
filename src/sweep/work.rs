//! Workers: each takes a run, trains it on one thread to its end, and takes the next.

use super::Folder;
use super::tickets::{Claim, HEARTBEAT};
use crate::base::lock::Held as HeldElsewhere;
use crate::base::mutex::guard;
use crate::config::Choices;
use crate::run::{self, Interrupt, Options, Outcome, Resume, Run, Shared};
use crate::telemetry::board::{Board, Line};
use crate::telemetry::progress::{Judged, Observer};
use anyhow::{Result, bail};
use std::sync::{Mutex, mpsc};
use std::thread;
use tracing::{error, info_span, warn};

/// What workers have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs completed.
    pub done: usize,
    /// Runs that cannot be.
    pub failed: usize,
}

/// Works off a sweep's runs with so many workers, until none is left to take or a signal comes. With
/// `one_each`, a worker takes one run, and after it only those whose workers have been killed.
///
/// # Errors
/// Where the folder itself cannot be read or written. What goes wrong in a run is written down, and said.
pub fn work(
    folder: &Folder,
    shared: &Shared,
    workers: usize,
    one_each: bool,
    board: &Board,
    interrupt: &Interrupt,
) -> Result<Tally> {
    let planned: Vec<String> = folder.entries()?.into_iter().map(|entry| entry.name).collect();
    let held: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
    let worker = || -> Result<Tally> {
        let mut tally = Tally::default();
        let mut names = planned.clone();
        let mut had_one = false;
        while interrupt.signal().is_none() {
            let claim = match one_each && had_one {
                true => folder.tickets.claim_abandoned()?,
                false => folder.tickets.claim(&names)?,
            };
            let Some(ours) = claim else { break };
            had_one = true;
            guard(&held).push(ours.clone());
            let outcome = run(folder, shared, &ours, board, interrupt);
            guard(&held).retain(|other| other.name != ours.name);
            let how = match &outcome {
                _ if ours.check().is_err() => Err("another worker has taken it over".to_string()),
                Ok((Outcome::Done, summary)) => {
                    folder.tickets.done(&ours)?;
                    tally.done += 1;
                    Ok(summary.clone())
                }
                Ok((Outcome::Interrupted(_), _)) => {
                    folder.tickets.release(&ours)?;
                    break;
                }
                Ok((Outcome::Diverged, _)) => {
                    Err("diverged: a state or weight is no longer a number, or weights have run away".into())
                }
                // Silent, and yet alive: the run is in good hands.
                Err(error) if error.is::<HeldElsewhere>() => {
                    warn!("{}: {error:#}", ours.name);
                    folder.tickets.release(&ours)?;
                    names.retain(|name| *name != ours.name);
                    had_one = false;
                    continue;
                }
                Err(error) => Err(format!("{error:#}")),
            };
            if let Err(reason) = &how
                && ours.check().is_ok()
            {
                folder.tickets.failed(&ours, reason)?;
                tally.failed += 1;
                error!("{}: {reason}", ours.name);
            }
            board.finish(&ours.name, &how.unwrap_or_else(|reason| format!("failed: {reason}")));
        }
        Ok(tally)
    };
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        let held = &held;
        scope.spawn(move || {
            while stopped.recv_timeout(HEARTBEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
                for claim in guard(held).iter() {
                    claim.touch();
                }
            }
        });
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let mut all = Tally::default();
        let mut outcome = Ok(());
        for worker in workers {
            match worker.join() {
                Ok(Ok(tally)) => {
                    all.done += tally.done;
                    all.failed += tally.failed;
                }
                Ok(Err(error)) => outcome = Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        drop(stop);
        outcome.map(|()| all)
    })
}

/// A run on the board whose ticket is ours, or else it ends.
struct Held<'a> {
    line: Line<'a>,
    claim: &'a Claim,
}

impl Observer for Held<'_> {
    fn minibatch(&mut self, epoch: usize, train_error: f64) {
        self.line.minibatch(epoch, train_error);
    }

    fn epoch(&mut self, epoch: usize, train: Option<f64>, judged: Judged) {
        self.line.epoch(epoch, train, judged);
    }

    fn may_write(&self) -> Result<()> {
        self.claim.check()
    }
}

/// Trains a run to its end, from where it stands. Also says, in words, how it ended.
fn run(
    folder: &Folder,
    shared: &Shared,
    claim: &Claim,
    board: &Board,
    interrupt: &Interrupt,
) -> Result<(Outcome, String)> {
    let name = &claim.name;
    let choices = Choices { config: Some(folder.config(name)), ..Choices::default() };
    let options = Options {
        init: None,
        resume: Some(Resume::Auto),
        name: Some(name.clone()),
        runs_dir: folder.runs(),
        checkpoints_dir: folder.checkpoints(),
        dry_run: false,
    };
    run::with_threads(Some(1), || {
        let _span = info_span!("run", name = name.as_str()).entered();
        let Some(run) = Run::prepare(&choices, &options, shared)? else {
            return Ok((Outcome::Done, "was complete".into()));
        };
        if run.progress.run != *name {
            bail!(
                "the data here is {}, not that of the sweep: give the same by --data-dir",
                run.dataset.name
            );
        }
        let mut held = Held { line: board.follow(&run.extent()), claim };
        let outcome = run::train(run, &mut held, interrupt)?;
        Ok((outcome, held.line.summary()))
    })
}
