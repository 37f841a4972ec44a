//! Setting up a run: from what the user asked for to something that can train.

use super::checkpoint::{self, Checkpoint, CheckpointFolder, Progress, RngPosition};
use super::error::{Result, refuse};
use super::resume::{self, From, Resume};
use super::sessions::{Session, Surroundings};
use super::{Resources, locate, memory};
use crate::base::files::{self, failed};
use crate::base::lock::Lock;
use crate::base::name;
use crate::base::output::{shell_word, usage};
use crate::config::{Choices, Config, DeviceChoice, Resolved};
use crate::data::{self, DataChoice, Dataset};
use crate::engine::{Engine, Report};
use crate::model::Parameters;
use crate::telemetry::observer::Extent;
use anyhow::Context;
use candle_core::Device;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::{info, warn};

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

impl Options {
    /// Whether a checkpoint is to begin another run: so says who names one with --name and a file.
    pub(super) fn makes_another_run(&self) -> bool {
        self.name.is_some() && matches!(self.resume, Some(Resume::File(_)))
    }

    /// A run of this name that goes on from where it stands, one of many in a folder that holds their `runs/` and
    /// `checkpoints/`.
    pub fn going_on(name: &str, folder: &Path) -> Self {
        Self {
            init: None,
            resume: Some(Resume::Auto),
            name: Some(name.to_string()),
            runs_dir: folder.join("runs"),
            checkpoints_dir: folder.join("checkpoints"),
            dry_run: false,
        }
    }
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
    /// What it is called, and what it has been called before its folders were renamed.
    pub(super) names: Vec<String>,
    /// Its folders that hold what a run left that was stopped before its first checkpoint.
    left_over: Vec<PathBuf>,
    /// Its folders, once they are ours.
    locks: BTreeMap<PathBuf, Lock>,
    /// `runs/NAME`.
    pub folder: PathBuf,
    /// `checkpoints/NAME`.
    pub checkpoints: CheckpointFolder,
    /// Where it computes, in words.
    pub device: String,
    /// The name of the engine that computes.
    engine_name: &'static str,
    /// How many threads it has for that.
    threads: usize,
    /// The command that goes on from its last checkpoint.
    pub go_on: String,
}

impl Run {
    /// Resolves, loads and checks everything. Creates nothing but, in the folders of a run that is there, the
    /// file that locks them. `None` where the run is to be resumed automatically and is complete.
    ///
    /// # Errors
    /// Whatever cannot work, named with its remedy.
    pub fn prepare(choices: &Choices, options: &Options, resources: &Resources) -> Result<Option<Self>> {
        if options.init.is_some() && options.resume.is_some() {
            usage!("--init starts a new run and --resume continues one: leave out one of them");
        }
        let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
        if whole(&options.runs_dir) == whole(&options.checkpoints_dir) {
            usage!(
                "--runs-dir and --checkpoints-dir are one folder, {}, and each run needs a folder of its own in either: \
                 give two, and move the checkpoints (*.safetensors) of a run that is there to its folder in the other",
                options.runs_dir.display()
            );
        }
        let auto = options.resume == Some(Resume::Auto);
        // First which run it is and where it goes on from, then what that says, and then the data.
        let named = match &options.resume {
            Some(Resume::File(path)) => Some(From::file(path)?),
            _ => None,
        };
        let (run, fresh) = match (&named, &options.name) {
            (Some(from), None) => (from.run_name(&options.checkpoints_dir)?, None),
            (Some(from), Some(name)) => (name::on_data(name, &from.progress.data)?, None),
            (None, _) => {
                let fresh = Resolved::new(choices)?;
                (name_of_new(&fresh.config, options, resources)?, Some(fresh))
            }
        };
        let folder = options.runs_dir.join(&run);
        let checkpoints_path = options.checkpoints_dir.join(&run);
        let mut locks = BTreeMap::new();
        if options.resume.is_some() && !options.dry_run {
            for path in [&folder, &checkpoints_path].into_iter().filter(|path| path.is_dir()) {
                locks.insert(path.clone(), Lock::take(path)?);
            }
        }
        // What it keeps is known once it is resolved.
        let found = match auto {
            true => From::newest(&CheckpointFolder::new(checkpoints_path.clone(), 0))?,
            false => None,
        };
        let from = named.or(found);
        if let Some(from) = &from {
            from.check_in_one_piece(&run, options)?;
        }
        let resolved = match &from {
            Some(from) => Resolved::on_checkpoint(&from.progress.config, &from.path, choices)?.told(),
            None => fresh.map_or_else(|| Resolved::new(choices), Ok)?.told(),
        };
        let training = &resolved.config.training;
        let dataset = match &from {
            Some(from) => resources.dataset_again(training, &from.progress.data)?,
            None => resources.dataset(training)?,
        };
        let resolved = resolved.sized_for(&dataset)?;
        let config = &resolved.config;
        dataset.check(&config.network.dims)?;
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
        let class_names = named_classes(from.as_ref(), &dataset);
        if !class_names.is_empty() {
            info!("classes: {}", data::class_list(&class_names));
        }
        let checkpoints = CheckpointFolder::new(checkpoints_path, config.training.keep_checkpoints);
        let mut left_over = Vec::new();
        match &from {
            Some(from) => {
                from.check(&resolved, &dataset, &checkpoints, &folder)?;
                if from.progress.epoch >= config.training.epochs {
                    let done = format!(
                        "{}: the run has already completed {} of {} epochs",
                        from.path.display(),
                        from.progress.epoch,
                        config.training.epochs
                    );
                    if auto {
                        info!("{done}");
                        if !options.dry_run && from.path != checkpoints.last() {
                            let bytes = fs::read(&from.path).map_err(failed(&from.path, "cannot be read"))?;
                            checkpoints.make_last(&from.path, &bytes)?;
                            info!("{} is that one again", checkpoints.last().display());
                        }
                        return Ok(None);
                    }
                    refuse!("{done}; raise --epochs, the total, to go on");
                }
            }
            None if auto => {
                info!("nothing to resume at {}: a new run", checkpoints.last().display());
                left_over = resume::left_over(&folder, &checkpoints)?;
            }
            None => check_free(&[&folder, checkpoints.path()])?,
        }

        let device = resources.device(config.training.device)?;
        let theta = match &from {
            Some(from) => fitting(config, &from.path, &from.checkpoint, &device)?,
            None => initial_parameters(config, options.init.as_deref(), &device)?,
        };
        let (engine_name, threads) = (resources.engine_name(config, &device), rayon::current_num_threads());
        let mut engine = resources.engine(config, theta, &device)?;
        if let Some(from) = &from {
            let recalled = engine.recall(&from.checkpoint.tensors);
            recalled.with_context(|| format!("{}: does not fit the synapses", from.path.display()))?;
        }
        let resumed = from.is_some();
        let same = from.as_ref().filter(|_| !options.makes_another_run());
        let before = [same.map(|from| from.progress.run.clone()), locate::first_name(&folder)];
        let names = [run.clone()].into_iter().chain(before.into_iter().flatten()).collect();
        let progress = match from {
            Some(from) => {
                info!(
                    "resuming {run} after {} epochs and {} minibatches, from {}",
                    from.progress.epoch,
                    from.progress.minibatch,
                    from.path.display()
                );
                if from.progress.run != run {
                    info!("the run was called {} until now, and goes on as {run}", from.progress.run);
                }
                Progress { config: config.clone(), run, class_names, ..from.progress }
            }
            None => Progress {
                format: checkpoint::FORMAT,
                run,
                config: config.clone(),
                data: dataset.name.clone(),
                checksums: dataset.checksums.clone(),
                class_names,
                threads,
                epoch: 0,
                minibatch: 0,
                rng: RngPosition::new(config.training.seed, 0, 0),
                running: Report::default(),
                best_test_error: None,
                best_validation_error: None,
                best_train_error: None,
            },
        };
        let go_on = go_on(options, resources, &checkpoints.last());
        let device = describe(&device);
        Ok(Some(Self {
            resolved,
            dataset,
            engine,
            progress,
            resumed,
            names,
            left_over,
            locks,
            folder,
            checkpoints,
            device,
            engine_name,
            threads,
            go_on,
        }))
    }

    /// How long it is, and how far it has come.
    pub fn extent(&self) -> Extent {
        let (total, done) = self.minibatches();
        let epochs = self.resolved.config.training.epochs;
        Extent { name: self.progress.run.clone(), epochs, total, done }
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

    /// Creates the run's folders, makes them this process's, and records its configuration and surroundings.
    ///
    /// # Errors
    /// Names what cannot be created or written, and who has the run where another process does.
    pub fn create_files(&mut self) -> Result<Session> {
        for path in std::mem::take(&mut self.left_over) {
            files::move_aside(&path)?;
            self.locks.remove(&path);
        }
        for path in [self.folder.clone(), self.checkpoints.path().to_path_buf()] {
            if !self.locks.contains_key(&path) {
                files::create_folder(&path)?;
                self.locks.insert(path.clone(), Lock::take(&path)?);
                // Another process may have been there since this one looked.
                check_free(&[&path])?;
            }
            files::remove_temporaries(&path)?;
        }
        let config = format!(
            "# The resolved configuration of run {}, trained on {}; see environment.json.\n\n{}",
            self.progress.run,
            self.dataset.name,
            self.resolved.with_data(&self.dataset.name).annotated()
        );
        files::write_atomically(&self.folder.join("config.toml"), config.as_bytes())?;
        let surroundings = Surroundings::here(&self.device, self.engine_name, self.threads);
        let environment = self.folder.join("environment.json");
        if !environment.exists() {
            let mut fields = serde_json::to_value(&surroundings).map_err(anyhow::Error::from)?;
            fields["run"] = self.progress.run.clone().into();
            fields["seed"] = self.resolved.config.training.seed.into();
            fields["best_by"] = self.judged_by().into();
            fields["data"] = serde_json::json!({
                "name": self.dataset.name,
                "source": self.dataset.source,
                "sha256": self.dataset.checksums,
            });
            if !self.progress.class_names.is_empty() {
                fields["data"]["classes"] = self.progress.class_names.clone().into();
            }
            let text = format!("{fields:#}\n");
            files::write_atomically(&environment, text.as_bytes())?;
        }
        Ok(Session::begin(&self.folder, surroundings, self.progress.rng.beta_sign)?)
    }

    /// What the run would be, for `--dry-run`: shapes, parameters, steps and disk.
    pub fn outline(&self) -> String {
        let config = &self.resolved.config;
        let dims = &config.network.dims;
        let network = config.network();
        let mut text = format!("run {} on {} ({})\n", self.progress.run, self.dataset.name, self.device);
        for n in 0..=dims.depth() {
            text += &format!("forward.{n}   {:>5} × {:<5} + bias\n", dims.width(n), dims.width(n + 1));
        }
        for n in (0..dims.depth()).filter(|_| !network.is_tied()) {
            text += &format!("feedback.{n}  {:>5} × {}\n", dims.width(n + 1), dims.width(n));
        }
        let parameters = network.parameter_count();
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
            config.settle.steps,
            config.learning.K,
        );
        text
    }
}

/// What the classes are called. A run keeps the names it began with, and is told where the data have others now.
fn named_classes(from: Option<&From>, dataset: &Dataset) -> Vec<String> {
    let now = &dataset.class_names;
    let before = from.map(|from| &from.progress.class_names).filter(|before| !before.is_empty());
    if let Some(before) = before.filter(|before| !now.is_empty() && *before != now) {
        warn!(
            "the classes of {} are called otherwise than when the run began, whose names stay: {} now",
            dataset.source,
            data::class_list(now)
        );
        return before.clone();
    }
    before.unwrap_or(now).clone()
}

/// Checks that a new run overwrites nothing.
fn check_free(folders: &[&Path]) -> Result<()> {
    match folders.iter().find(|folder| files::holds_anything(folder)) {
        None => Ok(()),
        Some(taken) => refuse!(
            "{} already holds a run: continue it with --resume auto, give this one another name with --name, or \
             move the folder away",
            taken.display()
        ),
    }
}

/// The command that goes on from a checkpoint, to be pasted where this one was typed.
fn go_on(options: &Options, resources: &Resources, last: &Path) -> String {
    let program = std::env::args().next().unwrap_or("eqprop".into());
    let mut command = format!("{} train --resume {}", shell_word(program), shell_word(last.display()));
    let folders = [
        ("--runs-dir", Some(options.runs_dir.as_path()).filter(|folder| *folder != Path::new("runs"))),
        (
            "--checkpoints-dir",
            Some(options.checkpoints_dir.as_path()).filter(|folder| *folder != Path::new("checkpoints")),
        ),
        ("--data-dir", resources.data_dir()),
    ];
    for (flag, folder) in folders {
        if let Some(folder) = folder {
            command += &format!(" {flag} {}", shell_word(folder.display()));
        }
    }
    command
}

/// The name of the run that is asked for, which is that of its data set too.
///
/// # Errors
/// Where the data cannot be had, or would have to be asked of the network for a name that is taken. Glyphs are no substitute for MNIST where a run on MNIST is to be resumed.
fn name_of_new(config: &Config, options: &Options, resources: &Resources) -> Result<String> {
    let on = |data: &str| match &options.name {
        Some(name) => name::on_data(name, data),
        None => Ok(config.run_name(data, "")),
    };
    if options.resume.is_none()
        && let Some(data) = data::remote_name(config.training.data, resources.data_dir())
    {
        let run = on(data)?;
        check_free(&[&options.runs_dir.join(&run), &options.checkpoints_dir.join(&run)])?;
    }
    let dataset = resources.dataset(&config.training)?;
    let run = on(&dataset.name)?;
    name::check(&run, "the run and its data set")?;
    if options.resume == Some(Resume::Auto)
        && config.training.data == DataChoice::Auto
        && dataset.name == DataChoice::GLYPHS
    {
        let other = on(DataChoice::MNIST)?;
        let there = [&options.runs_dir, &options.checkpoints_dir];
        if other != run && there.iter().any(|folder| files::holds_anything(&folder.join(&other))) {
            refuse!(
                "{other} is on MNIST, which cannot be had now, and does not go on with other data: give a folder \
                 with MNIST's files by --data-dir or EQPROP_DATA, or ask for a run on glyphs with --data glyphs"
            );
        }
    }
    Ok(run)
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
    Ok(config.parameters(device)?)
}

fn fitting(config: &Config, path: &Path, checkpoint: &Checkpoint, device: &Device) -> Result<Parameters> {
    let dtype = config.training.dtype.dtype();
    let theta = Parameters::from_named(&checkpoint.tensors, config.network(), dtype, device);
    Ok(theta.with_context(|| format!("{}: does not fit the network", path.display()))?)
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
        DeviceChoice::Cuda if !cuda => refuse!(
            "device = \"cuda\": this eqprop was built without CUDA; build it with `cargo build --release \
             --features cuda` on a machine with a CUDA toolkit, or choose --device cpu"
        ),
        DeviceChoice::Auto | DeviceChoice::Cuda => match Device::new_cuda(0) {
            Ok(device) => Ok(device),
            Err(error) => {
                // The rest is a backtrace.
                let reason = error.to_string().lines().next().unwrap_or_default().to_string();
                if choice == DeviceChoice::Cuda {
                    refuse!(
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
