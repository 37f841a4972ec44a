//! Finds a run by its name, its folder, or one of its files.

use super::checkpoint::{self, LAST};
use crate::base::near::did_you_mean;
use crate::base::output::usage;
use crate::telemetry::records::{first_name, is_of_run};
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// The places of a run; it need not have both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its name.
    pub name: String,
    /// `runs/NAME`, with its records.
    pub folder: Option<PathBuf>,
    /// The checkpoint: the file that was named, else the run's last.
    pub checkpoint: Option<PathBuf>,
}

impl Located {
    /// Returns its checkpoint.
    ///
    /// # Errors
    /// Where there is none in `checkpoints`; says so where it is there under the name that the run had before.
    pub fn saved(&self, checkpoints: &Path) -> Result<&Path> {
        if let Some(checkpoint) = &self.checkpoint {
            return Ok(checkpoint);
        }
        let place = checkpoints.join(&self.name);
        let before = self.folder.as_deref().and_then(|folder| Some((folder, first_name(folder)?)));
        match before {
            Some((folder, first)) if first != self.name && checkpoints.join(&first).is_dir() => bail!(
                "{}: the run was called {first} when it began, and its checkpoints are still in {}: both \
                 folders of a run have its name, so rename that one to {} as well",
                folder.display(),
                checkpoints.join(&first).display(),
                place.display()
            ),
            _ => bail!(
                "{}: there is no checkpoint of the run in {}: give its folder with --checkpoints-dir",
                self.name,
                place.display()
            ),
        }
    }
}

/// Finds the run that `what` names: the name of one in `runs` or `checkpoints`, its folder in either, or a
/// checkpoint.
///
/// # Errors
/// Where there is none, with the name most alike.
pub fn locate(what: &Path, runs: &Path, checkpoints: &Path) -> Result<Located> {
    // A path to neither a file nor a folder is refused when it is opened.
    if what.exists() && !what.is_dir() {
        let (_, progress) = checkpoint::read_progress(what)?;
        let beside = what.canonicalize()?.parent().and_then(|parent| sibling(parent, "runs"));
        let folder = beside.into_iter().chain([runs.join(&progress.run)]).find(|folder| is_of_run(folder));
        return Ok(Located { name: progress.run, folder, checkpoint: Some(what.to_path_buf()) });
    }
    let named = |place: &Path| Some(place.join(what)).filter(|_| what.components().count() == 1);
    let there = [Some(what.to_path_buf()), named(runs), named(checkpoints)];
    for folder in there.into_iter().flatten().filter(|folder| folder.is_dir()) {
        let whole = folder.canonicalize()?;
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let last = |folder: &Path| Some(folder.join(LAST)).filter(|path| path.is_file());
        if let Some(checkpoint) = last(&folder) {
            let beside = sibling(&whole, "runs").into_iter().chain([runs.join(&name)]);
            let folder = beside.into_iter().find(|folder| is_of_run(folder));
            return Ok(Located { name, folder, checkpoint: Some(checkpoint) });
        }
        if is_of_run(&folder) {
            let beside = [checkpoints.join(&name)].into_iter().chain(sibling(&whole, "checkpoints"));
            let checkpoint = beside.into_iter().find_map(|folder| last(&folder));
            return Ok(Located { name, folder: Some(folder), checkpoint });
        }
    }
    let mut names: Vec<String> = [runs, checkpoints].into_iter().flat_map(names).collect();
    names.sort();
    names.dedup();
    let meant = did_you_mean(&what.to_string_lossy(), names.iter().map(String::as_str));
    usage!(
        "{}: is neither a checkpoint, nor a folder of a run, nor a run in {} or {}{meant}",
        what.display(),
        runs.display(),
        checkpoints.display()
    )
}

/// `…/KIND/NAME` for `…/any/NAME`.
fn sibling(folder: &Path, kind: &str) -> Option<PathBuf> {
    Some(folder.parent()?.parent()?.join(kind).join(folder.file_name()?))
}

/// The names of the folders in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}
