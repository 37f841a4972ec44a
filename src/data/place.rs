//! The contents of `--data-dir`: a place is listed once, and every [`Source`](super::Source) uses that list.
//!
//! What Macs, Windows and network drives drop into folders is nowhere data.

use super::error::{Error, Result, refuse};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Names of such files, beside all that begin with a dot; compared without case.
const DROPPINGS: [&str; 6] = ["__macosx", "@eadir", "@recycle", "#recycle", "thumbs.db", "desktop.ini"];

/// The depth to which a set is looked for below a folder: torchvision has its files in `MNIST/raw`.
const DEEPEST: usize = 2;
/// The most folders that are listed for that.
const MOST_FOLDERS: usize = 1000;

/// A file or folder of the user's, or a folder below it, and its contents.
#[derive(Clone, Debug)]
pub struct Place {
    given: PathBuf,
    path: PathBuf,
    is_folder: bool,
    /// The files in it, in the order of their names; a place that is a file holds itself.
    pub files: Vec<PathBuf>,
    /// The folders in it, likewise.
    pub folders: Vec<PathBuf>,
}

impl Place {
    /// Lists the file or folder that a user has given.
    ///
    /// # Errors
    /// Where it does not exist or cannot be listed.
    pub fn at(path: &Path) -> Result<Self> {
        let is_folder = match fs::metadata(path) {
            Ok(there) if there.is_dir() => true,
            Ok(there) if there.is_file() => false,
            Ok(_) => {
                refuse!(path, "is a pipe or a device: give a folder with regular files, or an .npz file");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse!(path, "does not exist: give a folder with a data set, or an .npz file");
            }
            Err(error) => return Err(Error::unreadable(path, "cannot be looked at", &error)),
        };
        let (files, folders) = match is_folder {
            true => list(path)?,
            false => (vec![path.to_path_buf()], Vec::new()),
        };
        Ok(Self { given: path.into(), path: path.into(), is_folder, files, folders })
    }

    /// The path that the user has given, which names the set.
    pub fn given(&self) -> &Path {
        &self.given
    }

    /// The path of the set: the given one, or a folder below it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True for a folder.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// The folders below this one for which `holds` is true, each as a place to read; empty where there are too many
    /// to look at.
    pub(super) fn below(&self, holds: &dyn Fn(&Place) -> bool) -> Vec<Place> {
        let (mut found, mut listed) = (Vec::new(), 0);
        let mut level = self.folders.clone();
        for _ in 0..DEEPEST {
            let mut next = Vec::new();
            for path in level {
                listed += 1;
                if listed > MOST_FOLDERS {
                    return Vec::new();
                }
                // A folder that may not be listed is left out.
                let Ok((files, folders)) = list(&path) else { continue };
                let place = Self { given: self.given.clone(), path, is_folder: true, files, folders };
                match holds(&place) {
                    true => found.push(place),
                    false => next.extend(place.folders),
                }
            }
            level = next;
        }
        found
    }
}

/// The files and folders in a folder, without system files, sorted by name. Anything but a folder counts as a file
/// here; opening it refuses pipes and devices.
///
/// # Errors
/// Names the folder that cannot be listed.
pub(super) fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> =
        listed.map_err(|cause| Error::unreadable(folder, "cannot be listed", &cause))?;
    paths.retain(|path| !is_dropping(&name(path)));
    paths.sort();
    Ok(paths.into_iter().partition(|path| !path.is_dir()))
}

/// The last part of a path, as text.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// True where a file's name ends in `.ENDING`, in any case.
pub(super) fn ends_in(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
}

fn is_dropping(name: &str) -> bool {
    name.starts_with('.') || DROPPINGS.contains(&name.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn droppings_are_nowhere_listed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["._a.npz", ".DS_Store", "Thumbs.db", "a.npz"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        for name in ["__MACOSX", "@eaDir", ".git", "b"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let place = Place::at(folder.path()).unwrap();
        let names = |paths: &[PathBuf]| paths.iter().map(|path| name(path)).collect::<Vec<_>>();
        assert_eq!((names(&place.files), names(&place.folders)), (vec!["a.npz".into()], vec!["b".into()]));
    }

    #[test]
    fn sets_are_looked_for_two_folders_deep() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/raw", "b", "c/d/e"] {
            fs::create_dir_all(folder.path().join(path)).unwrap();
            fs::write(folder.path().join(path).join("set"), "").unwrap();
        }
        let place = Place::at(folder.path()).unwrap();
        let below = place.below(&|place| place.files.iter().any(|file| name(file) == "set"));
        let found: Vec<_> = below.iter().map(|place| name(place.path())).collect();
        assert_eq!(found, ["b", "raw"]);
        assert!(below.iter().all(|place| place.given() == folder.path()));
    }
}
