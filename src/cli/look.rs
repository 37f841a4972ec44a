//! The commands that make a page about runs: `inspect` and `compare`.

use super::figures::FigureArgs;
use super::{count, data_folder};
use crate::base::files;
use crate::base::output;
use crate::data;
use crate::model::Parameters;
use crate::run::checkpoint;
use crate::run::locate::locate;
use crate::run::with_threads;
use crate::study::{compare, inspect};
use anyhow::{Context, Result};
use candle_core::Device;
use clap::Args;
use std::path::{Path, PathBuf};

/// Where runs are looked for by name.
#[derive(Debug, Args)]
pub struct Places {
    /// Where runs have left metrics and TensorBoard events.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs_dir: PathBuf,
    /// Where runs have left checkpoints.
    #[arg(long, value_name = "DIR", default_value = "checkpoints")]
    pub checkpoints_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A run's name, its folder, or a checkpoint.
    #[arg(value_name = "RUN|CHECKPOINT")]
    what: PathBuf,
    /// The page [default: inspect.html in the run's folder].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The number of the test image whose settling is shown [default: the least settled of the first 500].
    #[arg(long, value_name = "I")]
    image: Option<usize>,
    /// A data set: a folder with IDX files or with PNGs by class, or an .npz file [env: EQPROP_DATA].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Threads to compute with [default: all cores].
    #[arg(long, value_name = "N", value_parser = count())]
    threads: Option<usize>,
    #[command(flatten)]
    figures: FigureArgs,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Runs, by name or folder.
    #[arg(value_name = "RUN", required = true, num_args = 1..)]
    runs: Vec<PathBuf>,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    out: PathBuf,
    #[command(flatten)]
    figures: FigureArgs,
    #[command(flatten)]
    places: Places,
}

pub fn inspect(args: InspectArgs) -> Result<u8> {
    let found = locate(&args.what, &args.places.runs_dir, &args.places.checkpoints_dir)?;
    let path = found.checkpoint.as_deref().with_context(|| {
        format!(
            "{}: there is no checkpoint of the run in {}: say where with --checkpoints-dir",
            found.name,
            args.places.checkpoints_dir.display()
        )
    })?;
    let (checkpoint, progress) = checkpoint::read_progress(path)?;
    let config = &progress.config;
    let (dims, dtype) = (&config.network.dims, config.training.dtype.dtype());
    let theta = Parameters::from_named(&checkpoint.tensors, dims, config.tied(), dtype, &Device::Cpu)
        .with_context(|| format!("{}: does not fit its own configuration", path.display()))?;
    let mut dataset =
        data::load(config.training.data.again(&progress.data), data_folder(args.data_dir)?.as_deref())?;
    dataset.limit(None, config.training.limit_test);
    dataset.check(dims)?;
    if dataset.checksums != progress.checksums {
        tracing::warn!("the run was trained on {}, and is shown on {}", progress.data, dataset.name);
    }
    let made = with_threads(args.threads, || {
        inspect::write(&inspect::Subject {
            progress: &progress,
            theta: &theta,
            dataset: &dataset,
            folder: found.folder.as_deref(),
            checkpoint: path.display().to_string(),
            image: args.image,
        })
    })?;
    let beside = found.folder.as_deref().or(path.parent()).unwrap_or(Path::new(""));
    let out = args.out.unwrap_or_else(|| beside.join("inspect.html"));
    args.figures.save(&made.charts)?;
    write_page(&out, &made.page)
}

pub fn compare(args: CompareArgs) -> Result<u8> {
    let folder = |what: &PathBuf| {
        let found = locate(what, &args.places.runs_dir, &args.places.checkpoints_dir)?;
        found.folder.with_context(|| {
            format!("{}: what the run told is not in {}", found.name, args.places.runs_dir.display())
        })
    };
    let folders = args.runs.iter().map(folder).collect::<Result<Vec<_>>>()?;
    let made = compare::write(&folders)?;
    args.figures.save(&made.charts)?;
    write_page(&args.out, &made.page)
}

fn write_page(out: &Path, page: &str) -> Result<u8> {
    files::write_atomically(out, page.as_bytes())?;
    output::result(&format!("{}\n", out.display()))?;
    Ok(0)
}
