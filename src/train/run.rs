//! Setting up a run: from what the user asked for to something that can train.

use super::checkpoint::{self, Checkpoint, Folder, Progress, RngPosition};
use super::{Shared, files, memory};
use crate::config::{Choices, Config, DeviceChoice, Resolved};
use crate::data::Dataset;
use crate::engine::{self, Engine, Report};
use crate::network::Parameters;
use crate::output::{check_name, shell_word};
use anyhow::{Context, Result, bail};
use candle_core::Device;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::info;

/// Which checkpoint to continue from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The last one of the run of this name, if there is one; a new run otherwise.
    Auto,
    /// This file.
    File(PathBuf),
}

/// What `train` is told beside the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// Start from these weights.
    pub init: Option<PathBuf>,
    /// Continue a run.
    pub resume: Option<Resume>,
    /// The run's name.
    pub name: Option<String>,
    /// Where runs leave what they tell.
    pub runs_dir: PathBuf,
    /// Where runs leave their checkpoints.
    pub checkpoints_dir: PathBuf,
    /// Check everything, say what would be done, and touch nothing.
    pub dry_run: bool,
}

/// A run that is ready to train.
pub struct Run {
    /// Its configuration, with the origin of each value.
    pub resolved: Resolved,
    /// The data.
    pub dataset: Arc<Dataset>,
    /// The engine with the weights.
    pub engine: Box<dyn Engine>,
    /// Where it stands.
    pub progress: Progress,
    /// Whether it continues an earlier process.
    pub resumed: bool,
    /// Whether `folder` holds what a run left that was killed before its first checkpoint.
    left_over: bool,
    /// `runs/NAME`.
    pub folder: PathBuf,
    /// `checkpoints/NAME`.
    pub checkpoints: Folder,
    /// Where it computes, in words.
    pub device: String,
    /// The command that goes on from its last checkpoint.
    pub go_on: String,
}

impl Run {
    /// Resolves, loads and checks everything. Creates nothing.
    ///
    /// # Errors
    /// Whatever cannot work, named with its remedy.
    pub fn prepare(choices: &Choices, options: &Options, shared: &Shared) -> Result<Self> {
        if options.init.is_some() && options.resume.is_some() {
            bail!("--init starts a new run and --resume continues one: leave out one of them");
        }
        let mut from: Option<(PathBuf, Checkpoint, Progress)> = match &options.resume {
            Some(Resume::File(path)) => {
                let (checkpoint, progress) = checkpoint::read_progress(path)?;
                Some((path.clone(), checkpoint, progress))
            }
            _ => None,
        };
        let mut resolved = match &from {
            Some((path, _, progress)) => Resolved::on_checkpoint(&progress.config, path, choices)?,
            None => Resolved::new(choices)?,
        };
        let dataset = shared.dataset(&resolved.config.training)?;
        dataset.check(&resolved.config.network.dims)?;
        info!(
            "data: {} ({}), {} training{} and {} test images",
            dataset.name,
            dataset.source,
            dataset.train.len(),
            match dataset.validation.len() {
                0 => String::new(),
                held_out => format!(", {held_out} validation"),
            },
            dataset.test.len()
        );

        let name = match (&options.name, &from) {
            (Some(name), _) => mark_data(name, &dataset.name)?,
            (None, Some((_, _, progress))) => progress.run.clone(),
            (None, None) => resolved.config.run_name(&dataset.name),
        };
        let folder = options.runs_dir.join(&name);
        let checkpoints_path = options.checkpoints_dir.join(&name);
        let checkpoints = Folder::new(checkpoints_path.clone(), resolved.config.training.keep_checkpoints);
        if options.resume == Some(Resume::Auto) {
            let last = checkpoints.last();
            if last.is_file() {
                let (checkpoint, progress) = checkpoint::read_progress(&last)?;
                resolved = Resolved::on_checkpoint(&progress.config, &last, choices)?;
                from = Some((last, checkpoint, progress));
            } else {
                info!("nothing to resume at {}: a new run", last.display());
            }
        }
        let config = &resolved.config;
        let mut left_over = false;
        if let Some((path, _, progress)) = &from {
            check_same_science(path, &resolved, progress, &dataset)?;
        } else if options.resume == Some(Resume::Auto) && checkpoints.is_at_start() {
            // Killed before its first checkpoint was whole, if anything is there at all: begun anew.
            left_over = files::holds_anything(&folder);
        } else {
            for taken in [&folder, &checkpoints_path] {
                if files::holds_anything(taken) {
                    bail!(
                        "{} already holds a run: continue it with --resume auto, give this one another \
                         name with --name, or remove the folder",
                        taken.display()
                    );
                }
            }
        }

        let device = shared.device(config.training.device)?;
        let theta = starting_parameters(config, &from, options.init.as_deref(), &device)?;
        let engine = shared.engine(config, theta, &device)?;
        let progress = match &from {
            Some((path, _, progress)) => {
                info!(
                    "resuming {} after {} epochs and {} minibatches, from {}",
                    name,
                    progress.epoch,
                    progress.minibatch,
                    path.display()
                );
                let progress = progress.clone();
                Progress { config: config.clone(), run: name, ..progress }
            }
            None => Progress {
                format: checkpoint::FORMAT,
                run: name,
                config: config.clone(),
                data: dataset.name.clone(),
                checksums: dataset.checksums.clone(),
                threads: rayon::current_num_threads(),
                epoch: 0,
                minibatch: 0,
                rng: RngPosition::new(config.training.seed, 0, 0),
                running: Report::default(),
                best_test_error: None,
                best_validation_error: None,
                best_train_error: None,
            },
        };
        if progress.threads != rayon::current_num_threads() {
            info!(
                "the run began with {} threads and goes on with {}",
                progress.threads,
                rayon::current_num_threads()
            );
        }
        let resumed = from.is_some();
        let per_epoch = dataset.train.len().div_ceil(config.training.batch_size) as u64;
        if progress.minibatch >= per_epoch {
            bail!(
                "{}: the checkpoint is at minibatch {} of an epoch, which has {per_epoch}: use another checkpoint",
                progress.run,
                progress.minibatch
            );
        }
        let go_on = go_on(options, shared, &checkpoints.last());
        let device = describe(&device);
        Ok(Self {
            resolved,
            dataset,
            engine,
            progress,
            resumed,
            left_over,
            folder,
            checkpoints,
            device,
            go_on,
        })
    }

    /// Minibatches an epoch; the last may be smaller.
    pub fn minibatches_per_epoch(&self) -> u64 {
        let size = self.resolved.config.training.batch_size;
        self.dataset.train.len().div_ceil(size) as u64
    }

    /// Minibatches of all epochs, and how many of them are done.
    pub fn minibatches(&self) -> (u64, u64) {
        let per_epoch = self.minibatches_per_epoch();
        let total = per_epoch * self.resolved.config.training.epochs as u64;
        (total, per_epoch * self.progress.epoch as u64 + self.progress.minibatch)
    }

    /// Which images the best epoch is chosen on: `validation` where some are held out, else `test`.
    pub fn judged_by(&self) -> &'static str {
        if self.dataset.validation.is_empty() { "test" } else { "validation" }
    }

    /// Creates the run's folders and records its configuration and surroundings.
    ///
    /// # Errors
    /// Names what cannot be created or written.
    pub fn create_files(&self) -> Result<()> {
        if self.left_over {
            let complaint = || format!("{}: cannot be removed to begin anew", self.folder.display());
            fs::remove_dir_all(&self.folder).with_context(complaint)?;
        }
        files::create_folder(&self.folder)?;
        if let Some(parent) = self.checkpoints.last().parent() {
            files::create_folder(parent)?;
        }
        let config = format!(
            "# The resolved configuration of run {}, trained on {}; see environment.json.\n\n{}",
            self.progress.run,
            self.dataset.name,
            self.resolved.annotated()
        );
        files::write_atomically(&self.folder.join("config.toml"), config.as_bytes())?;
        let environment = json!({
            "run": self.progress.run,
            "version": env!("CARGO_PKG_VERSION"),
            "commit": env!("BUILD_COMMIT"),
            "command": std::env::args().collect::<Vec<_>>(),
            "seed": self.resolved.config.training.seed,
            "threads": rayon::current_num_threads(),
            "device": self.device,
            "vector_instructions": format!("{:?}", engine::fused::Isa::detect()),
            "best_by": self.judged_by(),
            "data": {
                "name": self.dataset.name,
                "source": self.dataset.source,
                "sha256": self.dataset.checksums,
            },
        });
        let text = serde_json::to_string_pretty(&environment)? + "\n";
        files::write_atomically(&self.folder.join("environment.json"), text.as_bytes())
    }

    /// What the run would be, for `--dry-run`: shapes, parameters, steps and disk.
    pub fn outline(&self) -> String {
        let config = &self.resolved.config;
        let dims = &config.network.dims;
        let tied = config.tied();
        let mut text = format!("run {} on {} ({})\n", self.progress.run, self.dataset.name, self.device);
        for n in 0..=dims.depth() {
            text += &format!("forward.{n}   {:>5} × {:<5} + bias\n", dims.width(n), dims.width(n + 1));
        }
        for n in (0..dims.depth()).filter(|_| !tied) {
            text += &format!("feedback.{n}  {:>5} × {}\n", dims.width(n + 1), dims.width(n));
        }
        let parameters = dims.parameter_count(tied);
        let bytes = parameters * config.training.dtype.dtype().size_in_bytes();
        let files = 2 + config.training.keep_checkpoints;
        let (minibatches, _) = self.minibatches();
        if !self.dataset.validation.is_empty() {
            text += &format!(
                "{} training images, and {} of them held out for validation, on which the best epoch is chosen\n",
                self.dataset.train.len(),
                self.dataset.validation.len()
            );
        }
        text += &format!(
            "{parameters} parameters, {:.1} MB a checkpoint, {:.0} MB for {files} of them\n\
             {minibatches} minibatches of {} images in {} epochs, {} + {} steps each\n",
            bytes as f64 / 1e6,
            (bytes * files) as f64 / 1e6,
            config.training.batch_size,
            config.training.epochs,
            config.learning.T,
            config.learning.K,
        );
        text
    }
}

/// The command that goes on from a checkpoint, to be pasted where this one was typed.
fn go_on(options: &Options, shared: &Shared, last: &Path) -> String {
    let program = std::env::args().next().unwrap_or("eqprop".into());
    let mut command = format!("{} train --resume {}", shell_word(program), shell_word(last.display()));
    let folders = [
        ("--runs-dir", Some(options.runs_dir.as_path()).filter(|folder| *folder != Path::new("runs"))),
        (
            "--checkpoints-dir",
            Some(options.checkpoints_dir.as_path()).filter(|folder| *folder != Path::new("checkpoints")),
        ),
        ("--data-dir", shared.data_dir()),
    ];
    for (flag, folder) in folders {
        if let Some(folder) = folder {
            command += &format!(" {flag} {}", shell_word(folder.display()));
        }
    }
    command
}

/// A run on any data set but MNIST carries the set's name in its own.
fn mark_data(name: &str, data: &str) -> Result<String> {
    check_name("--name", name)?;
    if data == "mnist" || name.contains(data) {
        return Ok(name.to_string());
    }
    Ok(format!("{name}-{data}"))
}

fn check_same_science(
    path: &Path,
    resolved: &Resolved,
    progress: &Progress,
    dataset: &Dataset,
) -> Result<()> {
    let mut changes = resolved.changed_science(&progress.config)?;
    if dataset.checksums != progress.checksums {
        changes.push(format!(
            "the data: {} then, {} from {} now, with other checksums",
            progress.data, dataset.name, dataset.source
        ));
    }
    if !changes.is_empty() {
        bail!(
            "{}: cannot be resumed with other science ({}): leave the changes out, or start a new run \
             from its weights with --init",
            path.display(),
            changes.join("; ")
        );
    }
    if progress.epoch >= resolved.config.training.epochs {
        bail!(
            "{}: the run has already completed {} of {} epochs; raise --epochs, the total, to go on",
            path.display(),
            progress.epoch,
            resolved.config.training.epochs
        );
    }
    Ok(())
}

/// The weights of the checkpoint that is resumed, or those a new run begins with.
fn starting_parameters(
    config: &Config,
    from: &Option<(PathBuf, Checkpoint, Progress)>,
    init: Option<&Path>,
    device: &Device,
) -> Result<Parameters> {
    match from {
        Some((path, checkpoint, _)) => fitting(config, path, checkpoint, device),
        None => initial_parameters(config, init, device),
    }
}

/// The weights in the file `init`, or random ones as the configuration says.
///
/// # Errors
/// Where the file cannot be read, or does not fit the network.
pub fn initial_parameters(config: &Config, init: Option<&Path>, device: &Device) -> Result<Parameters> {
    if let Some(path) = init {
        return fitting(config, path, &checkpoint::read(path)?, device);
    }
    memory::check(config)?;
    let (network, training) = (&config.network, &config.training);
    let dtype = training.dtype.dtype();
    let psi = config.psi_degrees();
    Ok(Parameters::init(&network.dims, network.init, psi, training.seed, dtype, device)?)
}

fn fitting(config: &Config, path: &Path, checkpoint: &Checkpoint, device: &Device) -> Result<Parameters> {
    let (dims, dtype) = (&config.network.dims, config.training.dtype.dtype());
    Parameters::from_named(&checkpoint.tensors, dims, config.tied(), dtype, device)
        .with_context(|| format!("{}: does not fit the network", path.display()))
}

/// Opens the device that was asked for.
///
/// # Errors
/// Where CUDA is asked for and this binary has none, or no GPU answers.
pub fn open_device(choice: DeviceChoice) -> Result<Device> {
    let cuda = candle_core::utils::cuda_is_available();
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto if !cuda => Ok(Device::Cpu),
        DeviceChoice::Cuda if !cuda => bail!(
            "device = \"cuda\": this eqprop was built without CUDA; build it with `cargo build --release \
             --features cuda` on a machine with a CUDA toolkit, or choose --device cpu"
        ),
        DeviceChoice::Auto | DeviceChoice::Cuda => match Device::new_cuda(0) {
            Ok(device) => Ok(device),
            Err(error) => {
                // The rest is a backtrace.
                let reason = error.to_string().lines().next().unwrap_or_default().to_string();
                if choice == DeviceChoice::Cuda {
                    bail!(
                        "device = \"cuda\": no GPU answers ({reason}); is its driver loaded? --device cpu goes without"
                    );
                }
                info!("no GPU answers ({reason}); computing on the CPU");
                Ok(Device::Cpu)
            }
        },
    }
}

/// A device in words.
fn describe(device: &Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        other => format!("{:?}", other.location()).to_lowercase(),
    }
}
