//! The commands that make a page about runs: `inspect` and `compare`.

use super::figures::FigureArgs;
use super::{count, data_folder};
use crate::base::files;
use crate::base::made::check_no_link;
use crate::base::output::{self, usage};
use crate::base::waiting::Waiting;
use crate::config::{DeviceChoice, TrainingConfig};
use crate::data::{self, Dataset, class_list};
use crate::model::Parameters;
use crate::run::locate::locate;
use crate::run::{Resources, checkpoint, open_device, with_threads};
use crate::study::{compare, inspect};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use clap::Args;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folders in which runs are found by name.
#[derive(Debug, Args)]
pub struct Places {
    /// Folder of runs' metrics and TensorBoard events.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs_dir: PathBuf,
    /// Folder of runs' checkpoints.
    #[arg(long, value_name = "DIR", default_value = "checkpoints")]
    pub checkpoints_dir: PathBuf,
}

/// A network that a run has saved, and data to test it on: that of the run, or the user's.
pub struct Saved {
    pub progress: checkpoint::Progress,
    pub theta: Parameters,
    pub dataset: Arc<Dataset>,
    pub device: Device,
}

impl Saved {
    /// Reads a checkpoint, for the device it was trained on unless another is `chosen`, and the data: that in
    /// `data_dir`, or else that of the run, whose `records` may name its place.
    ///
    /// # Errors
    /// Where it cannot be read, the device does not answer, or the data cannot be loaded or does not fit.
    pub fn open(
        path: &Path,
        records: Option<&Path>,
        data_dir: Option<PathBuf>,
        chosen: Option<DeviceChoice>,
    ) -> Result<Self> {
        let (checkpoint, progress) = checkpoint::read_progress(path)?;
        let config = &progress.config;
        let mut there = config.clone();
        there.training.device = chosen.unwrap_or(config.training.device);
        let device = open_device(&there)?;
        let dtype = config.training.dtype.dtype();
        let theta = Parameters::from_named(&checkpoint.tensors, config.network(), dtype, &device)
            .with_context(|| format!("{}: does not fit its own configuration", path.display()))?;
        let dataset = match data_dir {
            Some(place) => Arc::new(any_data(&place, &progress)?),
            None => own_data(&progress, records)?,
        };
        if !dataset.is_that_of(&progress.checksums) {
            tracing::warn!(
                "the run was trained on {}, and {} from {} is other data",
                progress.data,
                dataset.name,
                dataset.source
            );
        }
        let (now, then) = (&dataset.class_names, &progress.class_names);
        if !now.is_empty() && !then.is_empty() && now != then {
            tracing::warn!(
                "the classes of {} are {}, and those that the run was trained on {}",
                dataset.source,
                class_list(now),
                class_list(then)
            );
        }
        fits(&dataset, &progress)?;
        Ok(Self { progress, theta, dataset, device })
    }
}

/// The data that a run was trained on, from its recorded place or from where data are usually found.
fn own_data(progress: &checkpoint::Progress, records: Option<&Path>) -> Result<Arc<Dataset>> {
    let resources = Resources::new(data_folder(None)?);
    // The images held out are training images, which are not needed here.
    let training = TrainingConfig { validation: 0, ..progress.config.training.clone() };
    let dataset = resources.dataset_of(&training, progress, records)?;
    match dataset.is_that_of(&progress.checksums) {
        true => Ok(dataset),
        false => Ok(Arc::new(in_classes_of(Arc::unwrap_or_clone(dataset), progress)?)),
    }
}

/// The user's images to test on. The limits of the run apply to its own data only.
fn any_data(place: &Path, progress: &checkpoint::Progress) -> Result<Dataset> {
    let mut dataset = data::load_test(place)?;
    let training = &progress.config.training;
    if dataset.is_that_of(&progress.checksums) {
        dataset.limit(training.limit_train, training.limit_test);
        return Ok(dataset);
    }
    in_classes_of(dataset, progress)
}

/// Data other than the run's own, with labels by the classes of the run's network. Where only one of the two has
/// names, the numbers of classes must be equal, and a message says so.
fn in_classes_of(dataset: Dataset, progress: &checkpoint::Progress) -> Result<Dataset> {
    match (&dataset.class_names[..], &progress.class_names[..]) {
        ([], []) => {}
        (names, []) => tracing::warn!(
            "{}: its classes are numbered in the order of their names ({}), which must be that of the run's",
            dataset.source,
            names.join(", ")
        ),
        ([], names) => tracing::warn!(
            "{}: its classes have no names, and their numbers must be those of the run's: {}",
            dataset.source,
            class_list(names)
        ),
        _ => {}
    }
    Ok(dataset.with_classes(&progress.class_names)?)
}

/// Checks that a run's network takes test images of this size and has their classes.
fn fits(dataset: &Dataset, progress: &checkpoint::Progress) -> Result<()> {
    let (dims, test) = (&progress.config.network.dims, &dataset.test);
    if test.pixels != dims.input() {
        bail!(
            "{}: its images have {} pixels, and the network of {} takes images of {}: give images of that size",
            dataset.source,
            test.pixels,
            progress.run,
            dims.input()
        );
    }
    if let Some(i) = test.labels.iter().position(|&label| usize::from(label) >= dims.output()) {
        bail!(
            "{}: image {i} has label {}, and the network of {} knows classes 0 to {}: leave out the images of others",
            test.origin,
            test.labels[i],
            progress.run,
            dims.output() - 1
        );
    }
    Ok(())
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
    /// Images to test on, any data set of the network's size [default: the run's own, from EQPROP_DATA or where it
    /// had them].
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
    let path = found.saved(&args.places.checkpoints_dir)?;
    let beside = found.folder.as_deref().or(path.parent()).unwrap_or(Path::new(""));
    let out = match args.out {
        Some(out) => out,
        None => {
            let out = beside.join("inspect.html");
            // A link that the user names is meant.
            check_no_link(&out)
                .context("the page is inspect.html in the run's folder by default; --out names another")?;
            out
        }
    };
    check_page(&out)?;
    let made = with_threads(args.threads, || {
        let saved = Saved::open(path, found.folder.as_deref(), args.data_dir, Some(DeviceChoice::Cpu))?;
        let _waiting = Waiting::on(format!("testing on {} images and drawing", saved.dataset.test.len()));
        inspect::write(&inspect::Subject {
            progress: &saved.progress,
            theta: &saved.theta,
            dataset: &saved.dataset,
            folder: found.folder.as_deref(),
            checkpoint: path.display().to_string(),
            image: args.image,
        })
    })?;
    args.figures.save(&made.charts)?;
    write_page(&out, &made.page)
}

pub fn compare(args: CompareArgs) -> Result<u8> {
    let folder = |what: &PathBuf| {
        let found = locate(what, &args.places.runs_dir, &args.places.checkpoints_dir)?;
        let saved = found.checkpoint.as_deref().and_then(checkpoint::progress_in_header);
        let folder = found.folder.with_context(|| {
            format!("{}: the records of the run are not in {}", found.name, args.places.runs_dir.display())
        })?;
        Ok((folder, saved.map_or(0, |progress| progress.next_epoch())))
    };
    check_page(&args.out)?;
    let folders = args.runs.iter().map(folder).collect::<Result<Vec<_>>>()?;
    let made = compare::write(&folders)?;
    args.figures.save(&made.charts)?;
    write_page(&args.out, &made.page)
}

/// Checks that a page may be written to `out`, before it is made: only another page may be there.
pub fn check_page(out: &Path) -> Result<()> {
    let begin = "<!DOCTYPE html>";
    if out.is_file() {
        let mut there = Vec::new();
        let read =
            files::open(out).and_then(|(file, _)| file.take(begin.len() as u64).read_to_end(&mut there));
        read.with_context(|| format!("{}: cannot be read", out.display()))?;
        if !there.is_empty() && !there.eq_ignore_ascii_case(begin.as_bytes()) {
            usage!("--out {}: already exists and is no page: give another file", out.display());
        }
    }
    Ok(())
}

fn write_page(out: &Path, page: &str) -> Result<u8> {
    files::write_named(out, page.as_bytes())?;
    output::result(&format!("{}\n", out.display()))?;
    Ok(0)
}
