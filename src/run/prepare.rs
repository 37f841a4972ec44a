//! Preparation of a run: from the user's request to a run that is ready to train.

use super::ending::{Ending, Finished};
use super::error::{Result, refuse};
use super::folders::Folders;
use super::progress::Progress;
use super::resources::describe;
use super::resume::{self, From, Resume};
use super::sessions::Surroundings;
use super::source::run_on_its_own_data;
use super::weights::fitting;
use super::{Resources, Run, initial_parameters};
use crate::base::output::{shell_word, usage};
use crate::base::{files, name, program};
use crate::config::{Choices, Config, Resolved};
use crate::data::{self, DataChoice, Dataset};
use crate::telemetry::records;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::{info, warn};

/// The options of `train` beside the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file of weights to start from.
    pub init: Option<PathBuf>,
    /// The run to resume.
    pub resume: Option<Resume>,
    /// The run's name.
    pub name: Option<String>,
    /// The folder of all runs' records.
    pub runs_dir: PathBuf,
    /// The folder of all runs' checkpoints.
    pub checkpoints_dir: PathBuf,
    /// Checks everything, prints the plan, and changes nothing.
    pub dry_run: bool,
    /// Begins anew where a run of this name exists, and moves its folders aside.
    pub overwrite: bool,
    /// Lets a resumed run keep its number of epochs, unless a flag or a variable gives another.
    pub keep_epochs: bool,
}

/// The outcome of preparing a run.
pub enum Prepared {
    /// A run that is ready to train.
    Ready(Box<Run>),
    /// A run that was to be resumed automatically and has no epoch left to train.
    Complete(Ending),
}

impl Options {
    /// True where a checkpoint begins another run: where it is given as a file together with --name.
    pub(super) fn makes_another_run(&self) -> bool {
        self.name.is_some() && matches!(self.resume, Some(Resume::File(_)))
    }

    /// Options that resume the run of this name, in a folder that holds `runs/` and `checkpoints/`.
    pub fn going_on(name: &str, folder: &Path) -> Self {
        Self {
            init: None,
            resume: Some(Resume::Auto),
            name: Some(name.to_string()),
            runs_dir: folder.join("runs"),
            checkpoints_dir: folder.join("checkpoints"),
            dry_run: false,
            overwrite: false,
            keep_epochs: false,
        }
    }

    /// Checks that the options fit together.
    fn check(&self) -> Result<()> {
        if self.init.is_some() && self.resume.is_some() {
            usage!("--init starts a new run and --resume continues one: leave out one of them");
        }
        if self.overwrite && self.resume.is_some() {
            usage!("--overwrite begins a run anew and --resume continues it: leave out one of them");
        }
        let whole = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
        if whole(&self.runs_dir) == whole(&self.checkpoints_dir) {
            usage!(
                "--runs-dir and --checkpoints-dir are one folder, {}, and each run needs a folder of its \
                 own in both: \
                 give two, and move the checkpoints (*.safetensors) of a run that is there to its folder in the other",
                self.runs_dir.display()
            );
        }
        Ok(())
    }

    /// The command that resumes from a checkpoint, for the folder in which this one was typed.
    fn go_on(&self, data_dir: Option<&Path>, last: &Path) -> String {
        self.command(&format!("train --resume {}", shell_word(last.display())), data_dir)
    }

    /// The commands that may follow at the end of a run: purpose and command.
    fn next(&self, run: &str, epochs: usize, data_dir: Option<&Path>) -> Vec<(&'static str, String)> {
        let run = shell_word(run);
        let more = format!("train --resume {run} --epochs {}", 2 * epochs);
        vec![
            ("to look at it", self.command(&format!("inspect {run}"), data_dir)),
            ("to train it longer", self.command(&more, data_dir)),
        ]
    }

    /// A command of this program, with the folders that this one was given.
    fn command(&self, what: &str, data_dir: Option<&Path>) -> String {
        let mut command = format!("{} {what}", shell_word(program::name()));
        let folders = [
            ("--runs-dir", Some(&*self.runs_dir), "runs"),
            ("--checkpoints-dir", Some(&*self.checkpoints_dir), "checkpoints"),
            ("--data-dir", data_dir, ""),
        ];
        for (flag, folder, default) in folders {
            if let Some(folder) = folder.filter(|folder| *folder != Path::new(default)) {
                command += &format!(" {flag} {}", shell_word(folder.display()));
            }
        }
        command
    }
}

impl Run {
    /// Resolves, loads and checks everything. Creates only lock files, in the folders of an existing run.
    ///
    /// # Errors
    /// Whatever cannot work, named with its remedy.
    pub fn prepare(choices: &Choices, options: &Options, resources: &Resources) -> Result<Prepared> {
        options.check()?;
        // In order: which run it is and where it resumes, its configuration, its data.
        let named = match &options.resume {
            Some(Resume::File(path)) => Some(From::file(path)?),
            _ => None,
        };
        let run = match (&named, &options.name) {
            (Some(from), None) => from.run_name(&options.checkpoints_dir)?,
            (Some(from), Some(name)) => name::on_data(name, &from.progress.data)?,
            (None, _) => name_of_new(&Resolved::new(choices)?.config, options, resources)?,
        };
        let mut folders = Folders::of(&run, options);
        let goes_on_or_anew = options.resume.is_some() || options.overwrite;
        if goes_on_or_anew && !options.dry_run {
            folders.lock()?;
        }
        let auto = options.resume == Some(Resume::Auto);
        let from = if auto { From::newest(&folders.checkpoints)? } else { named };
        if let Some(from) = &from {
            from.check_in_one_piece(&run, options)?;
        }
        let resolved = match &from {
            Some(from) => {
                let resolved = Resolved::on_checkpoint(&from.progress.config, &from.path, choices)?;
                if options.keep_epochs { resolved.keeping_epochs(&from.progress.config)? } else { resolved }
            }
            None => Resolved::new(choices)?,
        };
        let (resolved, dataset) = with_data(resolved.told(), from.as_ref(), &folders.records, resources)?;
        let class_names = named_classes(from.as_ref(), &dataset);
        let config = &resolved.config;
        match &from {
            Some(from) => {
                from.check(&resolved, &dataset, &folders.checkpoints, &folders.records)?;
                from.say_what_is_gone(&folders, options);
                if from.is_complete(config.training.epochs, &folders.checkpoints, options)? {
                    return Ok(Prepared::Complete(Ending {
                        records: folders.records.clone(),
                        known: Finished::known(&from.progress, &run, true),
                        next: options.next(&run, from.progress.epoch, resources.data_dir()),
                    }));
                }
            }
            None if auto => {
                info!("nothing to resume at {}: a new run", folders.checkpoints.last().display());
                resume::check_left_over(&folders)?;
            }
            None if options.overwrite => {}
            None => folders.check_free()?,
        }
        let device = resources.device(config)?;
        let theta = match &from {
            Some(from) => fitting(config, &from.path, &from.checkpoint, &device)?,
            None => initial_parameters(config, options.init.as_deref(), &device)?,
        };
        let (engine_name, threads) = (resources.engine_name(config, &device), rayon::current_num_threads());
        info!("{}", resources.engine_in_words(config, &device));
        let mut engine = resources.engine(config, theta, &device)?;
        if let Some(from) = &from {
            let recalled = engine.recall(&from.checkpoint.tensors);
            recalled.with_context(|| format!("{}: does not fit the synapses", from.path.display()))?;
        }
        let same = from.as_ref().filter(|_| !options.makes_another_run());
        let before = [same.map(|from| from.progress.run.clone()), records::first_name(&folders.records)];
        Ok(Prepared::Ready(Box::new(Self {
            engine,
            resumed: from.is_some(),
            names: [run.clone()].into_iter().chain(before.into_iter().flatten()).collect(),
            progress: match from {
                Some(from) => Progress { class_names, ..from.going_on(run.clone(), config) },
                None => Progress::start(run.clone(), config, &dataset, threads),
            },
            surroundings: Surroundings::here(&describe(&device), engine_name, threads),
            go_on: options.go_on(resources.data_dir(), &folders.checkpoints.last()),
            next: options.next(&run, config.training.epochs, resources.data_dir()),
            folders,
            resolved,
            dataset,
        })))
    }
}

/// The data of the run, and its configuration with their sizes.
fn with_data(
    resolved: Resolved,
    from: Option<&From>,
    records: &Path,
    resources: &Resources,
) -> Result<(Resolved, Arc<Dataset>)> {
    let training = &resolved.config.training;
    let dataset = match from {
        Some(from) => resources.dataset_of(training, &from.progress, Some(records))?,
        None => resources.dataset(training)?,
    };
    let resolved = resolved.sized_for(&dataset)?;
    dataset.check(&resolved.config.network.dims)?;
    resolved.config.training.augment().check(&dataset.train)?;
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
    Ok((resolved, dataset))
}

/// The names of the classes. A run keeps the names it began with; differing names in the data are reported.
fn named_classes(from: Option<&From>, dataset: &Dataset) -> Vec<String> {
    let now = &dataset.class_names;
    let before = from.map(|from| &from.progress.class_names).filter(|before| !before.is_empty());
    let names = before.unwrap_or(now);
    if !now.is_empty() && names != now {
        warn!(
            "the classes of {} have other names than when the run began, which stay: {} now",
            dataset.source,
            data::class_list(now)
        );
    }
    if !names.is_empty() {
        info!("classes: {}", data::class_list(names));
    }
    names.clone()
}

/// The name of the requested run, which includes that of its data set.
///
/// # Errors
/// Where the data cannot be loaded, or would have to be downloaded for a name that is taken. Glyphs are no
/// substitute for MNIST where a run on MNIST is to be resumed.
fn name_of_new(config: &Config, options: &Options, resources: &Resources) -> Result<String> {
    let on = |data: &str| match &options.name {
        Some(name) => name::on_data(name, data),
        None => Ok(config.run_name(data, "")),
    };
    if options.resume == Some(Resume::Auto)
        && resources.data_dir().is_none()
        && let Some(run) =
            run_on_its_own_data(config, &options.runs_dir, &options.checkpoints_dir, &|data| on(data).ok())
    {
        return Ok(run);
    }
    if options.resume.is_none()
        && !options.overwrite
        && let Some(data) = data::remote_name(config.training.data, resources.data_dir())
    {
        Folders::of(&on(data)?, options).check_free()?;
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
                "{other} is on MNIST, which is not available now, and cannot be resumed on other data: give \
                 a folder \
                 with MNIST's files by --data-dir or EQPROP_DATA, or ask for a run on glyphs with --data glyphs"
            );
        }
    }
    Ok(run)
}
