//! Replicas: runs that differ in their seed, trained together.

use super::{Interrupt, Options, Outcome, Resume, Run, Shared, train, with_threads};
use crate::base::mutex::guard;
use crate::config::{Choices, Resolved};
use crate::telemetry::board::Board;
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread;
use tracing::{error, info_span};

/// The runs of `config`'s seed and of those after it, one for each replica, ready to train. Those that are complete
/// already are left out.
///
/// # Errors
/// As [`Run::prepare`].
pub fn prepare(choices: &Choices, options: &Options, shared: &Shared) -> Result<Vec<Run>> {
    if matches!(options.resume, Some(Resume::File(_))) {
        bail!("--resume FILE continues one run, and training.replicas asks for many: use --resume auto");
    }
    let training = Resolved::new(choices)?.config.training;
    let mut runs = Vec::new();
    for seed in (training.seed..).take(training.replicas) {
        let mut choices = choices.clone();
        let origin = || format!("replica of seed {}", training.seed);
        choices.flags.push((origin(), "training.seed".into(), toml::Value::from(seed as i64)));
        choices.flags.push((origin(), "training.replicas".into(), toml::Value::from(1)));
        let name = options.name.as_ref().map(|name| format!("{name}-seed{seed}"));
        let options = Options { name, ..options.clone() };
        let _span = info_span!("replica", seed).entered();
        runs.extend(Run::prepare(&choices, &options, shared)?);
    }
    Ok(runs)
}

/// Trains all runs, so many at a time, each on so many threads of its own. One that fails or diverges does not
/// stop the others.
///
/// # Errors
/// The last of those of the runs; all are logged.
pub fn train_all(runs: Vec<Run>, at_a_time: usize, threads: usize, interrupt: &Interrupt) -> Result<Outcome> {
    let standing = runs.iter().map(|run| {
        let (total, done) = run.minibatches();
        (run.progress.run.clone(), total as f64, done as f64 / total as f64)
    });
    let board = &Board::new(standing, at_a_time);
    let one = |run: Run| {
        let name = run.progress.run.clone();
        let mut line = board.follow(&run.extent());
        let outcome = with_threads(Some(threads), || {
            let _span = info_span!("run", name = name.as_str()).entered();
            train(run, &mut line, interrupt)
        });
        let how = match &outcome {
            Ok(Outcome::Done) => line.summary(),
            Ok(Outcome::Diverged) => "diverged".to_string(),
            Ok(Outcome::Interrupted(_)) => "interrupted and saved".to_string(),
            Err(error) => {
                error!("{name}: {error:#}");
                "failed".to_string()
            }
        };
        board.finish(&name, &how);
        outcome
    };
    let waiting = &Mutex::new(VecDeque::from(runs));
    let outcomes: Mutex<Vec<Result<Outcome>>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                // Apart from the loop's condition, which would hold the lock all through its body.
                let next = || guard(waiting).pop_front();
                while let Some(run) = next() {
                    let outcome = match interrupt.signal() {
                        Some(signal) => Ok(Outcome::Interrupted(signal)),
                        None => one(run),
                    };
                    guard(&outcomes).push(outcome);
                }
            });
        }
    });
    let mut worst = Outcome::Done;
    for outcome in std::mem::take(&mut *guard(&outcomes)) {
        match outcome? {
            Outcome::Done => {}
            Outcome::Diverged if matches!(worst, Outcome::Interrupted(_)) => {}
            other => worst = other,
        }
    }
    Ok(worst)
}
