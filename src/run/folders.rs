//! The folders of a run, and their locks.

use super::checkpoint::CheckpointFolder;
use super::error::{Result, refuse};
use super::prepare::Options;
use crate::base::files;
use crate::base::lock::Lock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The two folders of a run. An error names the folder that another process has, that holds another run, or that
/// cannot be created or moved.
pub struct Folders {
    /// `runs/NAME`.
    pub records: PathBuf,
    /// `checkpoints/NAME`.
    pub checkpoints: CheckpointFolder,
    /// Locks on those that this process holds.
    locks: BTreeMap<PathBuf, Lock>,
}

impl Folders {
    /// The folders of the run of this name.
    pub fn of(run: &str, options: &Options) -> Self {
        Self {
            records: options.runs_dir.join(run),
            checkpoints: CheckpointFolder(options.checkpoints_dir.join(run)),
            locks: BTreeMap::new(),
        }
    }

    fn both(&self) -> [PathBuf; 2] {
        [self.records.clone(), self.checkpoints.0.clone()]
    }

    /// Locks those that exist.
    pub fn lock(&mut self) -> Result<()> {
        for path in self.both().into_iter().filter(|path| path.is_dir()) {
            let lock = Lock::take(&path)?;
            self.locks.insert(path, lock);
        }
        Ok(())
    }

    /// Checks that a new run overwrites nothing.
    pub fn check_free(&self) -> Result<()> {
        self.both().iter().try_for_each(|path| check_free(path))
    }

    /// Creates those that do not exist, and locks both. Moves left-over files aside where a run begins anew.
    pub fn create(&mut self, resumed: bool) -> Result<()> {
        let begins_anew = |path: &PathBuf| !resumed && self.locks.contains_key(path);
        let old: Vec<PathBuf> =
            self.both().into_iter().filter(|path| begins_anew(path) && files::holds_anything(path)).collect();
        files::move_aside(&old)?;
        for path in &old {
            self.locks.remove(path);
        }
        for path in self.both() {
            if !self.locks.contains_key(&path) {
                files::create_folder(&path)?;
                self.locks.insert(path.clone(), Lock::take(&path)?);
                // Another process may have created something since the last check.
                check_free(&path)?;
            }
            files::remove_temporaries(&path)?;
            // The lock file may exist where no other file can be created.
            tempfile::tempfile_in(&path).map_err(files::failed(
                &path,
                "takes no new file. May this user write there, and is there space?",
            ))?;
        }
        Ok(())
    }
}

fn check_free(folder: &Path) -> Result<()> {
    if files::holds_anything(folder) {
        refuse!(
            "{} already holds a run: continue it with --resume auto, give this one another name with --name, or begin anew with --overwrite, \
             which moves the old one aside",
            folder.display()
        );
    }
    Ok(())
}
