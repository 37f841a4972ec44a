//! Replicas: runs that differ in their seed, trained together.

use super::board::Board;
use super::{Interrupt, Options, Outcome, Resume, Run, Shared, checkpoint, train, with_threads};
use crate::config::{Choices, Resolved};
use anyhow::{Result, bail};
use std::thread;
use tracing::{error, info, info_span};

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
    let data = shared.dataset(&training)?.name.clone();
    let mut runs = Vec::new();
    for seed in (training.seed..).take(training.replicas) {
        let mut choices = choices.clone();
        let origin = || format!("replica of seed {}", training.seed);
        choices.flags.push((origin(), "training.seed".into(), toml::Value::from(seed as i64)));
        choices.flags.push((origin(), "training.replicas".into(), toml::Value::from(1)));
        let config = Resolved::new(&choices)?.config;
        let name = match &options.name {
            Some(name) => format!("{name}-seed{seed}"),
            None => config.run_name(&data),
        };
        let options = Options { name: Some(name.clone()), ..options.clone() };
        let last = options.checkpoints_dir.join(&name).join("last.safetensors");
        if options.resume.is_some() && checkpoint::is_complete(&last, config.training.epochs)? {
            info!("{name} is complete");
            continue;
        }
        let _span = info_span!("run", name = name.as_str()).entered();
        runs.push(Run::prepare(&choices, &options, shared)?);
    }
    Ok(runs)
}

/// Trains all runs at once, each on a thread of its own. One that fails or diverges does not stop the others.
///
/// # Errors
/// The last of those of the runs; all are logged.
pub fn train_all(runs: Vec<Run>, interrupt: &Interrupt) -> Result<Outcome> {
    let standing = runs.iter().map(|run| {
        let (total, done) = run.minibatches();
        (run.progress.run.clone(), total as f64, done as f64 / total as f64)
    });
    let board = &Board::new(standing, 1);
    let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
        let one = |run: Run| {
            let name = run.progress.run.clone();
            let mut line = board.follow(&run);
            let outcome = with_threads(Some(1), || {
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
        let threads: Vec<_> = runs.into_iter().map(|run| scope.spawn(move || one(run))).collect();
        let join = |thread: thread::ScopedJoinHandle<_>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    let mut worst = Outcome::Done;
    for outcome in outcomes {
        match outcome? {
            Outcome::Done => {}
            Outcome::Diverged if matches!(worst, Outcome::Interrupted(_)) => {}
            other => worst = other,
        }
    }
    Ok(worst)
}
