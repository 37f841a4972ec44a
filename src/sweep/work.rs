//! Training the runs of a sweep: each worker takes the next run that nobody has, and trains it on one thread.

use super::{State, SweepFolder};
use crate::base::files;
use crate::base::lock::Held;
use crate::base::mutex::guard;
use crate::config::Choices;
use crate::run::{self, Interrupt, Options, Outcome, Resume, Run, Shared};
use crate::telemetry::board::Board;
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use tracing::{error, info_span, warn};

/// What has become of the runs that were to be trained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were completed here.
    pub done: usize,
    /// How many have failed here.
    pub failed: usize,
    /// Those that another process has.
    pub elsewhere: Vec<String>,
}

/// Trains the runs `names` with so many workers, until none of them is left to take or a signal comes. Runs that
/// another process has are left to it, and tried again when all others are over.
///
/// # Errors
/// Where the folder itself cannot be read or written. What goes wrong in a run is written down, and said.
pub fn work(
    sweep: &SweepFolder,
    names: Vec<String>,
    shared: &Shared,
    workers: usize,
    board: &Board,
    interrupt: &Interrupt,
) -> Result<Tally> {
    let mut all = Tally { elsewhere: names, ..Tally::default() };
    loop {
        let queue = Mutex::new(VecDeque::from(std::mem::take(&mut all.elsewhere)));
        let tally = Mutex::new(Tally::default());
        let worker = || -> Result<()> {
            while interrupt.signal().is_none() {
                // A statement of its own, so that the queue is not locked while the run is trained.
                let next = guard(&queue).pop_front();
                let Some(name) = next else { break };
                take(sweep, name, shared, board, interrupt, &tally)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
            (workers.into_iter())
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .fold(Ok(()), Result::and)
        })?;
        let pass = std::mem::take(&mut *guard(&tally));
        all.done += pass.done;
        all.failed += pass.failed;
        all.elsewhere = pass.elsewhere;
        let none_taken = pass.done + pass.failed == 0;
        if none_taken || all.elsewhere.is_empty() || interrupt.signal().is_some() {
            return Ok(all);
        }
    }
}

/// Trains a run, unless that has been done meanwhile or another process does it.
fn take(
    sweep: &SweepFolder,
    name: String,
    shared: &Shared,
    board: &Board,
    interrupt: &Interrupt,
    tally: &Mutex<Tally>,
) -> Result<()> {
    if !matches!(sweep.state(&name)?, State::Open(_)) {
        board.finish(&name, "ended in another process");
        return Ok(());
    }
    // Folders that are there are locked before anything is read from them.
    for folder in [sweep.runs(), sweep.checkpoints()] {
        files::create_folder(&folder.join(&name))?;
    }
    let how = match train(sweep, &name, shared, board, interrupt) {
        Ok((Outcome::Interrupted(_), _)) => return Ok(()),
        Ok((Outcome::Done, summary)) => {
            guard(tally).done += 1;
            summary
        }
        Err(error) if error.is::<Held>() => {
            warn!("{name}: {error:#}");
            guard(tally).elsewhere.push(name);
            return Ok(());
        }
        failed => {
            let reason = match failed {
                Err(error) => format!("{error:#}"),
                _ => "diverged: a state or weight is no longer a number, or weights have run away".into(),
            };
            files::write_atomically(&sweep.failed(&name), reason.as_bytes())?;
            guard(tally).failed += 1;
            error!("{name}: {reason}");
            format!("failed: {reason}")
        }
    };
    board.finish(&name, &how);
    Ok(())
}

/// Trains a run to its end, from where it stands. Also says, in words, how it ended.
fn train(
    sweep: &SweepFolder,
    name: &str,
    shared: &Shared,
    board: &Board,
    interrupt: &Interrupt,
) -> Result<(Outcome, String)> {
    let choices = Choices { config: Some(sweep.config(name)), ..Choices::default() };
    let options = Options {
        init: None,
        resume: Some(Resume::Auto),
        name: Some(name.to_string()),
        runs_dir: sweep.runs(),
        checkpoints_dir: sweep.checkpoints(),
        dry_run: false,
    };
    run::with_threads(Some(1), || {
        let _span = info_span!("run", name).entered();
        let Some(run) = Run::prepare(&choices, &options, shared)? else {
            return Ok((Outcome::Done, "was complete".into()));
        };
        if run.progress.run != name {
            bail!(
                "the data here is {}, not that of the sweep: give the same by --data-dir",
                run.dataset.name
            );
        }
        let mut line = board.follow(&run.extent());
        let outcome = run::train(run, &mut line, interrupt)?;
        Ok((outcome, line.summary()))
    })
}
