//! The command that trains many runs.

use super::{count, data_folder, environment, settings};
use crate::base::lock::Lock;
use crate::base::output::{self, shell_word, usage};
use crate::base::time::duration;
use crate::config::{Choices, Resolved, TrainingConfig};
use crate::run::{Interrupt, Resources, with_threads};
use crate::study::estimate::Estimator;
use crate::sweep::{Entry, State, SweepFile, SweepFolder, Workers};
use crate::telemetry::board::Board;
use anyhow::{Context, Result, bail};
use clap::Args;
use glob::Pattern;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::slice;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tracing::info;

/// The time for which a task of a job array waits for a run of another process.
const PATIENCE: Duration = Duration::from_secs(180);

/// Exit status where runs failed, here or in another process, while the sweep itself went well.
const SOME_FAILED: u8 = 4;

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The sweep, rows × grid: a file, or the name of a built-in one, for example table3 or device-levels
    /// (configs/reproduce/, configs/devices/).
    #[arg(long, value_name = "FILE", required_unless_present_any = ["task", "worker"])]
    config: Option<PathBuf>,
    /// The sweep's folder; existing runs are kept and resumed [default: sweeps/ and the name of FILE].
    #[arg(long, value_name = "DIR", required_unless_present_any = ["config", "worker"])]
    out: Option<PathBuf>,
    /// Number of runs at a time, one thread each [default: one per core; on a GPU as many as fit, which compute
    /// together].
    #[arg(long, value_name = "N", value_parser = count())]
    workers: Option<usize>,
    /// Device to compute on: auto, cpu or cuda.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// A data set: an .npz file, or a folder of IDX, .npy or .npz files or of PNGs by class [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Set any key in every run, for example --set training.epochs=5; beats all else.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Plan and train only runs whose name matches, for example --only 'cvf-1h-*-seed0'; may be given more than once.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<Pattern>,
    /// Try runs that have failed once more.
    #[arg(long)]
    retry_failed: bool,
    /// List the runs with an estimate of their time; change and download nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write a Slurm job array for the runs, and train nothing.
    #[arg(long)]
    slurm: bool,
    /// Train the N-th run of the plan in --out and no other: the work of one task of a job array.
    #[arg(long, value_name = "N",
        conflicts_with_all = ["config", "workers", "device", "set", "only", "retry_failed", "dry_run", "slurm"])]
    task: Option<NonZeroUsize>,
    /// A flag of earlier versions.
    #[arg(long, hide = true)]
    worker: bool,
    /// A flag of earlier versions.
    #[arg(long, hide = true)]
    together: bool,
}

pub fn sweep(args: SweepArgs) -> Result<u8> {
    if args.worker {
        usage!(
            "--worker is no longer a flag: the tasks of a job array are `eqprop sweep --task N --out DIR`, \
             N counting \
             the runs of the plan from 1; --slurm writes the script anew"
        );
    }
    if args.together {
        usage!(
            "--together is no longer a flag: runs of one shape compute together wherever that pays, which \
             is on a \
             GPU; leave it out"
        );
    }
    let resources = Resources::new(data_folder(args.data_dir)?);
    let resources = if args.dry_run { resources.without_network() } else { resources };
    let Some(config) = &args.config else {
        let folder = SweepFolder { path: args.out.context("--task needs --out")? };
        return train_task(&folder, args.task.context("--task is missing")?, &resources);
    };
    let usual = || Path::new("sweeps").join(config.file_stem().unwrap_or_default());
    let folder = SweepFolder { path: args.out.unwrap_or_else(usual) };
    let mut flags = settings(&args.set)?;
    if let Some(device) = args.device {
        flags.push((format!("--device {device}"), "training.device".into(), device.into()));
    }
    let overrides = Choices { flags, environment: environment()?, ..Choices::default() };
    let planned = plan(config, &overrides, &args.only, &resources)?;
    let room = planned.iter().map(|(_, resolved)| resources.room_for(&resolved.config));
    let room = room.collect::<Result<Vec<_>, _>>()?.into_iter().min().flatten();
    let resources = if room.is_some() { resources.computing_together() } else { resources };
    let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let workers = args.workers.or(room).unwrap_or_else(cores);
    if args.dry_run {
        return list(&folder, &planned, workers);
    }
    folder.add(config, &planned, args.retry_failed)?;
    let ours: BTreeSet<&str> = planned.iter().map(|(run, _)| run.name.as_str()).collect();
    if args.slurm {
        return write_script(&folder, &ours, resources.data_dir());
    }
    let mut runs = folder.entries()?;
    runs.retain(|run| ours.contains(run.name.as_str()));
    let (status, _) = train(&folder, &runs, &resources, workers, &Interrupt::listen()?)?;
    Ok(status)
}

/// The runs of a sweep file.
fn plan(
    path: &Path,
    overrides: &Choices,
    only: &[Pattern],
    resources: &Resources,
) -> Result<Vec<(Entry, Resolved)>> {
    // The names of runs include that of their data set, which may turn out to be another than asked for.
    let data = |training: &TrainingConfig| Ok(resources.dataset(training)?.name.clone());
    let mut planned = SweepFile::read(path)?.expand(path, overrides, data)?;
    planned.retain(|(name, _)| only.is_empty() || only.iter().any(|pattern| pattern.matches(name)));
    if planned.is_empty() {
        usage!("{}: --only leaves nothing to run; --dry-run without it lists the names", path.display());
    }
    let mut estimator = Estimator::default();
    with_threads(Some(1), || {
        (planned.into_iter())
            .map(|(name, resolved)| {
                let dataset = resources.dataset(&resolved.config.training)?;
                let resolved = resolved.sized_for(&dataset)?;
                dataset.check(&resolved.config.network.dims)?;
                let seconds = estimator.seconds(&resolved.config, &dataset, resources)?;
                Ok((Entry { name, seconds }, resolved))
            })
            .collect()
    })
}

/// Lists the runs, their states and estimated times on standard output.
fn list(folder: &SweepFolder, planned: &[(Entry, Resolved)], workers: usize) -> Result<u8> {
    let entries = folder.entries()?;
    let mut open = 0.0;
    let mut longest: f64 = 0.0;
    let mut text = String::new();
    for (Entry { name, seconds }, resolved) in planned {
        let state = match folder.state(name)? {
            State::Done => "done",
            State::Failed(_) => "failed",
            State::Open(_) if Lock::is_held(&folder.runs().join(name)) => "running",
            State::Open(_) if entries.iter().any(|entry| entry.name == *name) => "waiting",
            State::Open(_) => "new",
        };
        if !matches!(state, "done" | "failed") {
            open += seconds;
            longest = longest.max(*seconds);
        }
        let epochs = resolved.config.training.epochs;
        text += &format!("{name:<40} {state:<8} {epochs:>4} epochs  {}\n", duration(*seconds));
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

/// Writes a job array for those of `ours` that are open.
fn write_script(folder: &SweepFolder, ours: &BTreeSet<&str>, data_dir: Option<&Path>) -> Result<u8> {
    let mut tasks = Vec::new();
    let mut longest: f64 = 0.0;
    for (task, entry) in (1..).zip(folder.entries()?) {
        if ours.contains(entry.name.as_str()) && folder.state(&entry.name)?.is_open() {
            tasks.push(task);
            longest = longest.max(entry.seconds);
        }
    }
    if tasks.is_empty() {
        info!("no run of {} is left to be done: there is nothing to submit", folder.path.display());
        return Ok(0);
    }
    let script = folder.write_slurm_script(&tasks, longest, data_dir)?;
    info!("{} runs; submit them with: sbatch {}", tasks.len(), shell_word(script.display()));
    Ok(0)
}

/// Trains these runs of the plan. Returns the exit status, and the runs that another process has.
fn train(
    folder: &SweepFolder,
    runs: &[Entry],
    resources: &Resources,
    workers: usize,
    interrupt: &Interrupt,
) -> Result<(u8, Vec<String>)> {
    folder.check_folders()?;
    let states = || runs.iter().map(|run| folder.state(&run.name)).collect::<Result<Vec<_>>>();
    let before = states()?;
    let standing = runs.iter().zip(&before);
    let open =
        standing.clone().filter(|(_, state)| state.is_open()).map(|(run, _)| run.name.clone()).collect();
    let board =
        Board::new(standing.map(|(run, state)| (run.name.clone(), run.seconds, state.share())), workers);
    let mut held = Workers { folder, resources, board: &board, interrupt }.train(open, workers)?;
    drop(board);
    let after = states()?;
    let left = runs.iter().zip(&after).filter(|(_, state)| state.is_open());
    let left: BTreeSet<&String> = left.map(|(run, _)| &run.name).collect();
    held.retain(|name| left.contains(name));
    let failed = |states: &[State]| states.iter().filter(|state| matches!(state, State::Failed(_))).count();
    info!(
        "{}: {} runs done, {} failed, {} left, {} of them with other processes",
        folder.path.display(),
        after.iter().filter(|state| **state == State::Done).count(),
        failed(&after),
        left.len(),
        held.len()
    );
    let status = match interrupt.signal() {
        Some(signal) => 128 + signal as u8,
        None if failed(&after) > failed(&before) => SOME_FAILED,
        None => 0,
    };
    Ok((status, held))
}

/// Trains the run at this place of the plan, counted from 1. A requeued task may start before the system has noticed
/// that its predecessor is gone, so it waits a while for a run that another process has.
fn train_task(folder: &SweepFolder, task: NonZeroUsize, resources: &Resources) -> Result<u8> {
    let place = folder.path.display();
    folder.check_folders()?;
    let entries = folder.entries()?;
    if entries.is_empty() {
        bail!("{place}: holds no sweep; make one with `eqprop sweep --config … --out …`");
    }
    let Some(entry) = entries.get(task.get() - 1) else {
        usage!("--task {task}: the plan in {place} has {} runs", entries.len());
    };
    let name = &entry.name;
    let run = folder.runs().join(name);
    let interrupt = Interrupt::listen()?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match folder.state(name)? {
            State::Done => {
                info!("{place}: run {name} is done");
                return Ok(0);
            }
            State::Failed(_) => {
                info!("{place}: run {name} has failed; --retry-failed plans it anew");
                return Ok(0);
            }
            State::Open(_) if Lock::is_held(&run) => {}
            State::Open(_) => {
                let (status, held) = train(folder, slice::from_ref(entry), resources, 1, &interrupt)?;
                if held.is_empty() {
                    return Ok(status);
                }
            }
        }
        if let Some(signal) = interrupt.signal() {
            return Ok(128 + signal as u8);
        }
        sleep(Duration::from_secs(1));
    }
    // The error says who has it.
    drop(Lock::take(&run)?);
    bail!("{place}: another process has the checkpoints of run {name}")
}
