//! The command that trains many runs.

use super::{count, data_folder, environment, settings};
use crate::base::output::{self, shell_word, usage};
use crate::config::Choices;
use crate::data::DataChoice;
use crate::run::{Interrupt, Shared, with_threads};
use crate::sweep::{Estimator, Folder, Planned, State, SweepFile, work};
use crate::telemetry::board::Board;
use anyhow::{Context, Result, bail};
use clap::Args;
use glob::Pattern;
use indicatif::HumanDuration;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::info;

/// Exit status where runs failed while the sweep itself went well.
const SOME_FAILED: u8 = 4;

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The sweep: rows × grid. Those of the paper are in configs/reproduce/.
    #[arg(long, value_name = "FILE", required_unless_present = "worker")]
    config: Option<PathBuf>,
    /// The sweep's folder; what is there is kept and continued [default: sweeps/ and the name of FILE].
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    out: Option<PathBuf>,
    /// Runs at a time, one thread each [default: one a core; on a GPU as many as fit].
    #[arg(long, value_name = "N", value_parser = count())]
    workers: Option<usize>,
    /// Where to compute: auto, cpu or cuda.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Let runs of one shape compute together, as replicas; always so on a GPU.
    #[arg(long)]
    together: bool,
    /// A data set: a folder with IDX files or with PNGs by class, or an .npz file [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Set any key in every run, for example --set training.epochs=5; beats all else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Only runs whose name matches, for example --only 'cvf-1h-*-seed0'; may be given more than once.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<Pattern>,
    /// Try runs that have failed once more.
    #[arg(long)]
    retry_failed: bool,
    /// List the runs with an estimate of their time, and touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write a Slurm job array for the runs, and train nothing.
    #[arg(long)]
    slurm: bool,
    /// Take one run of the sweep in --out and train it: what each task of a job array does.
    #[arg(long, conflicts_with_all = ["config", "workers", "device", "together", "set", "only", "retry_failed", "dry_run", "slurm"])]
    worker: bool,
}

pub fn sweep(args: SweepArgs) -> Result<u8> {
    let data_dir = data_folder(args.data_dir)?;
    let shared = Shared::new(data_dir.clone());
    let (Some(config), false) = (&args.config, args.worker) else {
        let folder = Folder::new(args.out.context("--worker needs --out")?);
        if folder.entries()?.is_empty() {
            bail!(
                "{}: holds no sweep; make one with `eqprop sweep --config … --out …`",
                folder.path.display()
            );
        }
        return train(&folder, &shared, 1, true);
    };
    let folder = Folder::new(match args.out {
        Some(out) => out,
        None => Path::new("sweeps").join(config.file_stem().context("the sweep file has no name")?),
    });
    let mut flags = settings(&args.set)?;
    if let Some(device) = args.device {
        flags.push((format!("--device {device}"), "training.device".into(), device.into()));
    }
    let overrides = Choices { flags, environment: environment()?, ..Choices::default() };
    let planned = plan(config, &overrides, &args.only, &shared)?;
    let room = planned.iter().map(|(run, _)| shared.room_for(&run.resolved.config));
    let room = room.collect::<Result<Vec<_>>>()?.into_iter().min().flatten();
    let shared = if room.is_some() || args.together { shared.with_replicas(None) } else { shared };
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let workers = args.workers.or(room).unwrap_or_else(cores);
    if args.dry_run {
        return list(&folder, &planned, workers);
    }
    folder.add(config, &planned, args.retry_failed)?;
    if args.slurm {
        let open: Vec<f64> = (folder.standing()?.into_iter())
            .filter(|(_, done)| *done < 1.0)
            .map(|(entry, _)| entry.seconds)
            .collect();
        if open.is_empty() {
            info!("every run of {} is done: there is nothing to submit", folder.path.display());
            return Ok(0);
        }
        let longest = open.iter().copied().fold(0.0, f64::max);
        let script = folder.write_slurm_script(open.len(), longest, data_dir.as_deref())?;
        info!("{} runs; submit them with: sbatch {}", open.len(), shell_word(script.display()));
        return Ok(0);
    }
    train(&folder, &shared, workers, false)
}

/// The runs of a sweep file, each with an estimate of its time in seconds.
fn plan(path: &Path, overrides: &Choices, only: &[Pattern], shared: &Shared) -> Result<Vec<(Planned, f64)>> {
    let sweep = SweepFile::read(path)?;
    // The names of runs carry that of their data set, which may turn out another than asked for.
    let mut planned = sweep.expand(path, overrides, "mnist")?;
    let mut names = Vec::new();
    for run in &planned {
        let training = &run.resolved.config.training;
        if training.data != DataChoice::Mnist {
            names.push(shared.dataset(training)?.name.clone());
        }
    }
    names.dedup();
    match &names[..] {
        [] => {}
        [name] => planned = sweep.expand(path, overrides, name)?,
        _ => bail!("{}: all runs of a sweep need the same data set", path.display()),
    }
    planned.retain(|run| only.is_empty() || only.iter().any(|pattern| pattern.matches(&run.name)));
    if planned.is_empty() {
        usage!("{}: --only leaves nothing to run; --dry-run without it lists the names", path.display());
    }
    let mut estimator = Estimator::default();
    with_threads(Some(1), || {
        (planned.into_iter())
            .map(|run| {
                let config = &run.resolved.config;
                let dataset = shared.dataset(&config.training)?;
                dataset.check(&config.network.dims)?;
                let seconds = estimator.seconds(config, &dataset, shared)?;
                Ok((run, seconds))
            })
            .collect()
    })
}

/// The runs, how they stand and how long they should take, to standard output.
fn list(folder: &Folder, planned: &[(Planned, f64)], workers: usize) -> Result<u8> {
    let duration =
        |seconds: f64| HumanDuration(Duration::from_secs_f64(seconds.clamp(0.0, 1e12))).to_string();
    let mut open = 0.0;
    let mut longest: f64 = 0.0;
    let mut text = String::new();
    for (run, seconds) in planned {
        let state = match folder.state(&run.name)? {
            None => "new",
            Some(State::Waiting) => "waiting",
            Some(State::Running) => "running",
            Some(State::Done) => "done",
            Some(State::Failed(_)) => "failed",
        };
        if !matches!(state, "done" | "failed") {
            open += seconds;
            longest = longest.max(*seconds);
        }
        let epochs = run.resolved.config.training.epochs;
        text += &format!("{:<40} {state:<8} {epochs:>4} epochs  {}\n", run.name, duration(*seconds));
    }
    let all = (open / workers as f64).max(longest);
    text += &format!(
        "{} runs; those to be done take about {} with {workers} worker(s)\n",
        planned.len(),
        duration(all)
    );
    output::result(&text)?;
    Ok(0)
}

fn train(folder: &Folder, shared: &Shared, workers: usize, one_each: bool) -> Result<u8> {
    let interrupt = Interrupt::listen()?;
    let standing = folder.standing()?.into_iter();
    let standing = standing.map(|(entry, done)| (entry.name, entry.seconds, done));
    let board = Board::new(standing, workers);
    let tally = work(folder, shared, workers, one_each, &board, &interrupt)?;
    drop(board);
    let count = |wanted: fn(&State) -> bool| -> Result<usize> {
        let mut count = 0;
        for entry in folder.entries()? {
            count += usize::from(folder.state(&entry.name)?.as_ref().is_some_and(wanted));
        }
        Ok(count)
    };
    let done = count(|state| *state == State::Done)?;
    let failed = count(|state| matches!(state, State::Failed(_)))?;
    let elsewhere = count(|state| *state == State::Running)?;
    let left = folder.entries()?.len() - done - failed - elsewhere;
    info!(
        "{}: {done} runs done, {failed} failed, {elsewhere} with other workers, {left} left",
        folder.path.display()
    );
    match interrupt.signal() {
        Some(signal) => Ok(128 + signal as u8),
        None if tally.failed > 0 => Ok(SOME_FAILED),
        None => Ok(0),
    }
}
