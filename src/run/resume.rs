//! Resuming: the choice of the checkpoint, and the checks that the request fits it.

use super::checkpoint::{self, Checkpoint, CheckpointFolder, LAST};
use super::error::{Result, refuse};
use super::folders::Folders;
use super::progress::Progress;
use super::{Options, locate};
use crate::base::files;
use crate::base::name;
use crate::config::{self, Config, Resolved};
use crate::data::Dataset;
use crate::telemetry::records::{self, CONFIG, ENVIRONMENT, METRICS, Told};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// The checkpoint to resume from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The last one of the run of this name, if there is one; a new run otherwise.
    Auto,
    /// This file.
    File(PathBuf),
}

/// A checkpoint and its path.
pub struct From {
    /// Its file.
    pub path: PathBuf,
    /// Its tensors.
    pub checkpoint: Checkpoint,
    /// Its position and metadata.
    pub progress: Progress,
}

impl From {
    /// The checkpoint in a file. Where a `last.safetensors` is not whole, or older than the newest checkpoint beside
    /// it, takes that one and says so.
    ///
    /// # Errors
    /// As [`checkpoint::read_progress`].
    pub fn file(path: &Path) -> checkpoint::Result<Self> {
        let newest = match path.parent() {
            Some(folder) if path.ends_with(LAST) && path.is_file() => {
                Self::newest(&CheckpointFolder(folder.to_path_buf()))?
            }
            _ => None,
        };
        match newest {
            Some(newest) => Ok(newest),
            None => Self::at(path),
        }
    }

    fn at(path: &Path) -> checkpoint::Result<Self> {
        let (checkpoint, progress) = checkpoint::read_progress(path)?;
        Ok(Self { path: path.to_path_buf(), checkpoint, progress })
    }

    /// The checkpoint to resume from: `last.safetensors`, or, where that is missing, not whole or older, the newest
    /// whole numbered one, with a message. `None` where there is neither, or only the save before the first
    /// minibatch, and that not whole.
    ///
    /// # Errors
    /// As [`checkpoint::read_progress`], and where files are there of which none is whole.
    pub fn newest(folder: &CheckpointFolder) -> checkpoint::Result<Option<Self>> {
        let last = folder.last();
        let mut candidates = if folder.0.is_dir() { folder.numbered()? } else { Vec::new() };
        let missed = missed_by_last(&last, &candidates);
        if !missed.is_empty() {
            warn!("{} is older than the newest numbered checkpoint, as after a power cut", last.display());
            candidates.retain(|path| !missed.contains(path));
        }
        if last.is_file() {
            candidates.push(last.clone());
        } else if !candidates.is_empty() {
            warn!("{} is {}", last.display(), if last.exists() { "no regular file" } else { "not there" });
        }
        candidates.extend(missed);
        let at_start = candidates.iter().all(|path| path.ends_with(checkpoint::numbered_name(0)));
        let mut complaint = None;
        for path in candidates.into_iter().rev() {
            match Self::at(&path) {
                Ok(found) => {
                    if path != last {
                        warn!("resuming from {}, the newest whole checkpoint of the run", path.display());
                    }
                    return Ok(Some(found));
                }
                Err(error @ checkpoint::Error::Damaged(..)) => {
                    warn!("{}: not whole", path.display());
                    complaint.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        complaint.filter(|_| !at_start).map_or(Ok(None), Err)
    }

    /// Warns about missing files of a resumed run: its metrics, or, in its own folder, the best checkpoint, which may
    /// also not be whole.
    pub fn say_what_is_gone(&self, folders: &Folders, options: &Options) {
        if !self.progress.begun() || options.makes_another_run() {
            return;
        }
        if !records::holds_metrics(&folders.records) {
            warn!(
                "{}: is gone, and with it the numbers of the epochs before {}",
                folders.records.join(METRICS).display(),
                self.progress.next_epoch()
            );
        }
        let (best, there) = (folders.checkpoints.best(), self.path.parent());
        if there != Some(&folders.checkpoints.0) || checkpoint::is_whole(&best) {
            return;
        }
        let how = if best.exists() { "is not whole" } else { "is gone" };
        warn!(
            "{}: {how}, and with it the best weights so far; a better epoch writes it again",
            best.display()
        );
    }

    /// The name of the run: that of its folder in `checkpoints`, which may have been renamed; where the checkpoint
    /// lies elsewhere, the name stored in it.
    ///
    /// # Errors
    /// Where the folder has a name that no run can have, or that hides on which data this one is.
    pub fn run_name(&self, checkpoints: &Path) -> Result<String> {
        let Progress { run, data, .. } = &self.progress;
        let folder = std::path::absolute(&self.path).ok().and_then(|path| Some(path.parent()?.to_path_buf()));
        let whole = |path: &Path| path.canonicalize().ok();
        let folder = folder.filter(|folder| {
            folder.parent().and_then(whole).is_some_and(|above| Some(above) == whole(checkpoints))
        });
        let Some(name) = folder.as_ref().and_then(|folder| folder.file_name()) else {
            return Ok(run.clone());
        };
        let there = checkpoints.join(name);
        let Some(name) = name.to_str() else {
            refuse!("{}: cannot name a run, because it is not UTF-8: rename it", there.display())
        };
        if name == run {
            return Ok(run.clone());
        }
        name::check(name, &there.display().to_string())?;
        let full = name::on_data(name, data)?;
        if full != name {
            refuse!(
                "{}: holds the run {run}, which is on {data}, and the name of a run on any set but MNIST says on which, \
                 so that no result is taken for another's: rename this folder, and that in runs, to {full}",
                there.display()
            );
        }
        Ok(full)
    }

    /// Checks that the records of `run` are where it will resume: both folders of a run have its name, and perhaps
    /// only one was renamed.
    ///
    /// # Errors
    /// Says which other folder to rename.
    pub fn check_in_one_piece(&self, run: &str, options: &Options) -> Result<()> {
        let Options { runs_dir: runs, checkpoints_dir: checkpoints, name, .. } = options;
        let before = &self.progress.run;
        if options.makes_another_run() || files::holds_anything(&runs.join(run)) || !self.progress.begun() {
            return Ok(());
        }
        let has_checkpoints = |name: &str| files::holds_anything(&checkpoints.join(name));
        let is_its_record = |name: &String| {
            let folder = runs.join(name);
            let says_so = || records::first_name(&folder).as_ref() == Some(before) && !has_checkpoints(name);
            records::holds_metrics(&folder) && (name == before || says_so())
        };
        let Some(other) = locate::names(runs).into_iter().find(is_its_record) else { return Ok(()) };
        let [record, here, there] = [runs.join(run), checkpoints.join(run), checkpoints.join(&other)];
        let path = self.path.display();
        if has_checkpoints(&other) {
            if name.is_some() {
                return Ok(());
            }
            refuse!(
                "{path}: is of the run {other}, which has other checkpoints in {}: give --name {other} to \
                 resume that run from here, or --name {run} to make another run of it",
                there.display()
            );
        }
        refuse!(
            "{path}: the records of its run are in {}, and both folders of a run have its name: rename {} \
             to {}, or {} \
             to {}",
            runs.join(&other).display(),
            runs.join(&other).display(),
            record.display(),
            here.display(),
            there.display()
        )
    }

    /// True where all epochs are done and the run is resumed automatically; then makes this its last checkpoint
    /// again.
    ///
    /// # Errors
    /// Where they are done and this checkpoint is named to resume from, and where it cannot be made the last.
    pub fn is_complete(&self, epochs: usize, folder: &CheckpointFolder, options: &Options) -> Result<bool> {
        if self.progress.epoch < epochs {
            return Ok(false);
        }
        let path = self.path.display();
        let done =
            format!("{path}: the run has already completed {} of {epochs} epochs", self.progress.epoch);
        if options.resume != Some(Resume::Auto) {
            refuse!("{done}; raise --epochs, the total, to train further");
        }
        info!("{done}");
        if !options.dry_run && self.path != folder.last() {
            folder.make_last(&self.path)?;
            info!("{} is that one now", folder.last().display());
        }
        Ok(true)
    }

    /// The position of the run that resumes here, under the name `run` and with this configuration.
    pub fn going_on(self, run: String, config: &Config) -> Progress {
        let Self { path, progress, .. } = self;
        info!(
            "resuming {run} after {} epochs and {} minibatches, from {}",
            progress.epoch,
            progress.minibatch,
            path.display()
        );
        if progress.run != run {
            info!("the run was called {} until now, and resumes as {run}", progress.run);
        }
        Progress { config: config.clone(), run, ..progress }
    }

    /// Checks that the run can resume with this configuration and data, into this folder of checkpoints and that of
    /// its `records`.
    ///
    /// # Errors
    /// Where the science, the data or the position differ, or a folder holds another run; shows how.
    pub fn check(
        &self,
        resolved: &Resolved,
        dataset: &Dataset,
        folder: &CheckpointFolder,
        records: &Path,
    ) -> Result<()> {
        let path = self.path.display();
        let mut changes = resolved.changed_science(&self.progress.config)?;
        // A stand-in has no checksums.
        if !dataset.checksums.is_empty() && dataset.checksums != self.progress.checksums {
            changes.push(format!(
                "the data: {} then, {} from {} now, with other checksums",
                self.progress.data, dataset.name, dataset.source
            ));
        }
        if !changes.is_empty() {
            refuse!(
                "{path}: cannot be resumed with other science ({}): leave the changes out, or start a new run \
                 from its weights with --init",
                changes.join("; ")
            );
        }
        self.progress
            .check_position(dataset.train.len())
            .with_context(|| format!("{path}: cannot be resumed; use another checkpoint of the run"))?;
        self.check_folder(folder)?;
        self.check_records(resolved, records)
    }

    /// Checks that a checkpoint from elsewhere does not overwrite another run.
    fn check_folder(&self, folder: &CheckpointFolder) -> Result<()> {
        let from = self.path.parent().and_then(|parent| parent.canonicalize().ok());
        let is_there = from.is_some() && from == folder.0.canonicalize().ok();
        if is_there || !files::holds_anything(&folder.0) {
            return Ok(());
        }
        let newest = match Self::newest(folder) {
            Err(checkpoint::Error::Damaged(..)) => None,
            newest => newest?.map(|there| there.progress),
        };
        let Some(theirs) = newest.or_else(|| checkpoint::progress_in_header(&folder.best())) else {
            refuse!(
                "{} holds no whole checkpoint that shows whether it belongs to the run of {}: move it away, \
                 or give this one \
                 another name with --name",
                folder.0.display(),
                self.path.display()
            );
        };
        let ours = &self.progress;
        if ours.checksums != theirs.checksums || !ours.config.changes_from(&theirs.config)?.is_empty() {
            refuse!(
                "{} holds another run than that of {}: give this one another name with --name",
                folder.0.display(),
                self.path.display()
            );
        }
        Ok(())
    }

    /// Checks that the records in the folder are of this run: resuming cuts its metrics and writes its configuration
    /// anew.
    fn check_records(&self, resolved: &Resolved, folder: &Path) -> Result<()> {
        let config = files::read_if_there(&folder.join(CONFIG))?;
        let environment = records::environment(folder)?;
        let foreign = |why: &str| {
            refuse!(
                "{} holds other records than those of the run of {} ({why}): give this one another name with \
                 --name, or move the folder away",
                folder.display(),
                self.path.display()
            )
        };
        if config.is_none() && environment.is_none() && folder.join(METRICS).exists() {
            return foreign(&format!("there is neither a {CONFIG} nor an {ENVIRONMENT}"));
        }
        if let Some(text) = config {
            let theirs = match toml::from_slice::<toml::Value>(&text).and_then(config::of_any_version) {
                Ok(theirs) => theirs,
                Err(error) => {
                    let why = format!("its {CONFIG} is not the configuration of a run: {}", error.message());
                    return foreign(&why);
                }
            };
            // The name under which the data was asked for may differ, even if the data do not.
            let changes = resolved.config.changes_from(&theirs)?;
            if let Some((key, value)) = changes.iter().find(|(key, _)| key != "training.data") {
                return foreign(&format!("{key} of its {CONFIG} is not {value}"));
            }
        }
        if let Some(there) = environment {
            let sums = &there["data"]["sha256"];
            if sums.is_object() && *sums != serde_json::json!(self.progress.checksums) {
                return foreign(&format!("its {ENVIRONMENT} has other checksums of the data"));
            }
        }
        Ok(())
    }
}

/// The numbered checkpoints, given oldest first, that were written after `last`, though each becomes it. Those
/// further on but older belong to a branch that the run left when it went back.
fn missed_by_last(last: &Path, numbered: &[PathBuf]) -> Vec<PathBuf> {
    let saved = |path: &Path| path.metadata().and_then(|there| there.modified()).ok();
    let Some((there, when)) = checkpoint::progress_in_header(last).zip(saved(last)) else {
        return Vec::new();
    };
    let is_missed = |path: &&PathBuf| {
        checkpoint::step_of(path).is_some_and(|step| step > there.rng.beta_sign)
            && saved(path).is_some_and(|newer| newer > when)
            && checkpoint::progress_in_header(path).is_some_and(|further| {
                further.run == there.run && further.rng.beta_sign > there.rng.beta_sign
            })
    };
    numbered.iter().filter(is_missed).cloned().collect()
}

/// Checks that the files in the folders of a run without a checkpoint are those of a run stopped before its first
/// checkpoint.
///
/// # Errors
/// Where it has come further than that.
pub fn check_left_over(folders: &Folders) -> Result<()> {
    let Folders { records, checkpoints, .. } = folders;
    let best = checkpoints.best();
    if checkpoint::progress_in_header(&best).is_some_and(|progress| progress.epoch > 0) {
        refuse!(
            "{}: holds the best checkpoint of a run but neither the last nor a numbered one: resume from \
             that with --resume {}, or give a new run another name with --name",
            checkpoints.0.display(),
            best.display()
        );
    }
    let epochs = Told::read(records)?.epochs.last_key_value().map_or(0, |(last, _)| *last);
    if epochs > 0 {
        refuse!(
            "{} has recorded {epochs} epochs, but {} holds no checkpoint to resume from: is \
             --checkpoints-dir the right folder? To begin anew, give the run another name with --name, or \
             move the folder away",
            records.display(),
            checkpoints.0.display()
        );
    }
    Ok(())
}
