//! Going on: which checkpoint, and whether what is asked for goes together with it.

use super::checkpoint::{self, Checkpoint, CheckpointFolder, Progress};
use super::error::{Result, refuse};
use super::{Options, locate};
use crate::base::{files, name};
use crate::config::{self, Resolved};
use crate::data::Dataset;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Which checkpoint to continue from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The last one of the run of this name, if there is one; a new run otherwise.
    Auto,
    /// This file.
    File(PathBuf),
}

/// A checkpoint, and where it was found.
pub struct From {
    /// Its file.
    pub path: PathBuf,
    /// Its tensors.
    pub checkpoint: Checkpoint,
    /// What it knows.
    pub progress: Progress,
}

impl From {
    /// The checkpoint in a file. In the place of a `last.safetensors` that is not whole, the newest whole one
    /// beside it, which is said.
    ///
    /// # Errors
    /// As [`checkpoint::read_progress`].
    pub fn file(path: &Path) -> checkpoint::Result<Self> {
        match checkpoint::read_progress(path) {
            Ok((checkpoint, progress)) => Ok(Self { path: path.to_path_buf(), checkpoint, progress }),
            Err(error @ checkpoint::Error::Damaged { .. }) if path.ends_with("last.safetensors") => {
                let folder = path.parent().unwrap_or(Path::new(""));
                Self::newest(&CheckpointFolder::new(folder.to_path_buf(), 0))?.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The newest whole checkpoint in a folder, if any.
    ///
    /// # Errors
    /// As [`CheckpointFolder::newest`].
    pub fn newest(folder: &CheckpointFolder) -> checkpoint::Result<Option<Self>> {
        let found = folder.newest()?;
        Ok(found.map(|(path, checkpoint, progress)| Self { path, checkpoint, progress }))
    }

    /// What the run is called: as its folder in `checkpoints`, which may have been renamed; where the checkpoint lies
    /// elsewhere, as it says itself.
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

    /// Checks that what `run` has told is where it will go on: a run is called as its two folders are, and one of them
    /// alone may have been renamed.
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
            let says_so = || locate::first_name(&folder).as_ref() == Some(before) && !has_checkpoints(name);
            locate::holds_metrics(&folder) && (name == before || says_so())
        };
        let Some(other) = locate::names(runs).into_iter().find(is_its_record) else { return Ok(()) };
        let [record, here, there] = [runs.join(run), checkpoints.join(run), checkpoints.join(&other)];
        let path = self.path.display();
        if has_checkpoints(&other) {
            if name.is_some() {
                return Ok(());
            }
            refuse!(
                "{path}: is of the run {other}, which has other checkpoints in {}: say --name {other} to go on with that \
                 run from here, or --name {run} to make another run of it",
                there.display()
            );
        }
        refuse!(
            "{path}: what its run has told is in {}, and a run is called as its two folders are: rename {} to {}, or {} \
             to {}",
            runs.join(&other).display(),
            runs.join(&other).display(),
            record.display(),
            here.display(),
            there.display()
        )
    }

    /// Checks that the run can go on with this configuration and data, into this folder of checkpoints and that of its
    /// `records`.
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
        // A set that is not here has none.
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

    /// A checkpoint from elsewhere must not go on over another run.
    fn check_folder(&self, folder: &CheckpointFolder) -> Result<()> {
        let from = self.path.parent().and_then(|parent| parent.canonicalize().ok());
        if from.is_some() && from == folder.path().canonicalize().ok() {
            return Ok(());
        }
        if !files::holds_anything(folder.path()) {
            return Ok(());
        }
        let newest = match Self::newest(folder) {
            Err(checkpoint::Error::Damaged { .. }) => None,
            newest => newest?.map(|there| there.progress),
        };
        let Some(theirs) = newest.or_else(|| checkpoint::progress_in_header(&folder.best())) else {
            refuse!(
                "{} holds no whole checkpoint that says whether it is of the run of {}: move it away, or give this one \
                 another name with --name",
                folder.path().display(),
                self.path.display()
            );
        };
        let ours = &self.progress;
        let same = ours.checksums == theirs.checksums && ours.config.changes_from(&theirs.config)?.is_empty();
        if !same {
            refuse!(
                "{} holds another run than {} is of: give this one another name with --name",
                folder.path().display(),
                self.path.display()
            );
        }
        Ok(())
    }

    /// What a run has told must be told by this one: going on cuts its metrics and writes its configuration anew.
    fn check_records(&self, resolved: &Resolved, folder: &Path) -> Result<()> {
        let file = |name: &str| files::read_if_there(&folder.join(name));
        let (config, environment) = (file("config.toml")?, file("environment.json")?);
        let foreign = |why: &str| {
            refuse!(
                "{} holds other things than what the run of {} has told ({why}): give this one another name with \
                 --name, or move the folder away",
                folder.display(),
                self.path.display()
            )
        };
        if config.is_none() && environment.is_none() {
            return match folder.join("metrics.jsonl").exists() {
                true => foreign("there is neither a config.toml nor an environment.json"),
                false => Ok(()),
            };
        }
        if let Some(text) = config {
            let theirs = match toml::from_str::<toml::Value>(&text).and_then(config::of_any_version) {
                Ok(theirs) => theirs,
                Err(error) => {
                    let problem = error.message();
                    return foreign(&format!("its config.toml is not the configuration of a run: {problem}"));
                }
            };
            // Under which name the data was asked for says nothing of what it was.
            let changes = resolved.config.changes_from(&theirs)?;
            if let Some((key, value)) = changes.iter().find(|(key, _)| key != "training.data") {
                return foreign(&format!("{key} of its config.toml is not {value}"));
            }
        }
        if let Some(text) = environment {
            let there: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let sums = &there["data"]["sha256"];
            if sums.is_object() && *sums != serde_json::json!(self.progress.checksums) {
                return foreign("its environment.json has other checksums of the data");
            }
        }
        Ok(())
    }
}

/// Which of a run's folders must be moved aside for it to begin anew, where it has no checkpoint to go on from:
/// such as hold what a run leaves that was stopped before its first.
///
/// # Errors
/// Where it has come further than that.
pub fn left_over(folder: &Path, checkpoints: &CheckpointFolder) -> Result<Vec<PathBuf>> {
    let best = checkpoints.best();
    if checkpoint::progress_in_header(&best).is_some_and(|progress| progress.epoch > 0) {
        refuse!(
            "{}: holds the best checkpoint of a run but neither its last nor any numbered one: go on from that \
             with --resume {}, or give a new run another name with --name",
            checkpoints.path().display(),
            best.display()
        );
    }
    let metrics = files::read_if_there(&folder.join("metrics.jsonl"))?.unwrap_or_default();
    let epochs = metrics.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["epoch"].as_u64()
    });
    if let Some(epochs) = epochs.max().filter(|epochs| *epochs > 0) {
        refuse!(
            "{} has recorded {epochs} epochs, but {} holds no checkpoint to go on from: is --checkpoints-dir \
             where they are? To begin anew, give the run another name with --name, or move the folder away",
            folder.display(),
            checkpoints.path().display()
        );
    }
    let there = [folder, checkpoints.path()].into_iter().filter(|path| files::holds_anything(path));
    Ok(there.map(Path::to_path_buf).collect())
}
