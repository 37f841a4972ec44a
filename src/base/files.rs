//! Files that are whole or absent under their final names, and folders in which nothing gets lost.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::Builder;
use tracing::{info, warn};

/// What the system does not let be done, and to which file or folder.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct Error {
    path: PathBuf,
    problem: String,
    source: io::Error,
}

/// What succeeds, unless the system does not let it.
pub type Result<T> = std::result::Result<T, Error>;

/// Makes of what the system says an error that names the file, and what could not be done with it.
pub fn failed(path: &Path, problem: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    |source| Error { path: path.to_path_buf(), problem: problem.into(), source }
}

/// The name of the file that is locked in a folder, see [`super::lock`]. It stays when the lock is gone, since a file that is
/// removed while another process waits for it locks nothing.
pub const LOCK: &str = "lock";

/// How the names of our temporary files begin and end; between are letters and digits.
const TEMPORARY: (&str, &str) = (".eqprop-", ".tmp");

/// Makes temporary files that [`remove_temporaries`] knows again.
fn temporaries() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
    builder
}

fn is_temporary(name: &str) -> bool {
    let random = name.strip_prefix(TEMPORARY.0).and_then(|name| name.strip_suffix(TEMPORARY.1));
    random.is_some_and(|random| !random.is_empty() && random.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Writes a file so that after any interruption it holds either the old contents or the new.
///
/// # Errors
/// Names the file where it cannot be written (no space, no permission); the old contents stay. Where only its folder
/// cannot be synced the new ones are there.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = folder_of(path);
    let mut builder = temporaries();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Those of any new file, of which the umask takes what it takes.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let replace = || -> io::Result<()> {
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(contents)?;
        sync(file.as_file())?;
        file.persist(path)?;
        Ok(())
    };
    replace().map_err(failed(
        path,
        "cannot be written; what was there before is unchanged. Is there space, and may this user write there?",
    ))?;
    (File::open(folder).and_then(|folder| sync(&folder)))
        .map_err(failed(path, "is written, but may be lost in a power cut: its folder cannot be synced"))
}

/// Writes a file that the user has named. A link is followed, and a device or a pipe is written to, not replaced.
///
/// # Errors
/// Names the file where it cannot be written.
pub fn write_named(path: &Path, contents: &[u8]) -> Result<()> {
    let path = &match (path.canonicalize(), fs::read_link(path)) {
        (Ok(whole), _) => whole,
        // A link to what is not there yet.
        (Err(_), Ok(target)) => folder_of(path).join(target),
        (Err(_), Err(_)) => path.to_path_buf(),
    };
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            fs::write(path, contents).map_err(failed(path, "cannot be written to"))
        }
        _ => write_atomically(path, contents),
    }
}

/// Waits until a file or folder would survive a power cut.
fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    tests::SYNCED.with(|synced| synced.borrow_mut().push(file.metadata().is_ok_and(|m| m.is_dir())));
    file.sync_all()
}

/// Makes `path` another name of the file `original`, at once; what `path` was before is gone.
///
/// # Errors
/// Where the file system has no links.
pub fn link_atomically(original: &Path, path: &Path) -> io::Result<()> {
    let link = temporaries().make_in(folder_of(path), |link| fs::hard_link(original, link))?;
    link.persist(path)?;
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Removes the temporary files that processes killed while writing have left in a folder. Only for those who
/// hold the folder's lock: nobody else may be writing.
///
/// # Errors
/// Names what cannot be listed or removed.
pub fn remove_temporaries(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(failed(folder, "cannot be listed"))? {
        let entry = entry.map_err(failed(folder, "cannot be listed"))?;
        let ours = entry.file_name().to_str().is_some_and(is_temporary);
        if ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            fs::remove_file(&path).map_err(failed(&path, "cannot be removed"))?;
            info!("{}: half written when a process was killed, removed", path.display());
        }
    }
    Ok(())
}

/// A name beside `path` that nothing has: NAME.1 or the like.
pub fn free_beside(path: &Path) -> PathBuf {
    numbered(path, free_number(path, 1))
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    path.with_file_name(format!("{}.{number}", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// The first number from `least` on that nothing beside `path` has.
fn free_number(path: &Path, least: usize) -> usize {
    let mut number = least;
    while numbered(path, number).symlink_metadata().is_ok() {
        number += 1;
    }
    number
}

/// Moves folders aside, all to the same number that is free beside each: what belongs together has names that do. Says so.
///
/// # Errors
/// Names the folder that cannot be moved.
pub fn move_aside(paths: &[PathBuf]) -> Result<()> {
    let number = paths.iter().map(|path| free_number(path, 1)).max().unwrap_or(1);
    let number = (number..).find(|n| paths.iter().all(|path| free_number(path, *n) == *n)).unwrap_or(number);
    for path in paths {
        let aside = numbered(path, number);
        fs::rename(path, &aside).map_err(failed(path, format!("cannot be moved to {}", aside.display())))?;
        warn!("{} is moved aside: it is now {}", path.display(), aside.display());
    }
    Ok(())
}

/// The most bytes of a text that a person writes: a configuration, a sweep.
const MOST_TEXT: u64 = 1 << 20;

/// Opens a file to read it, and says how many bytes it has. Pipes and devices, which may never end, are refused.
///
/// # Errors
/// Where it cannot be opened or is no regular file. The caller names it.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Before opening: that waits, where a pipe has no writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is a folder, a pipe or a device: give a regular file"));
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Reads a text that a person wrote.
///
/// # Errors
/// As [`open`], and where it is too large or not UTF-8. The caller names it.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.0.take(MOST_TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_TEXT {
        return Err(io::Error::other(format!("it has more than {MOST_TEXT} bytes")));
    }
    Ok(text)
}

/// Reads a text that need not be there: `None` where it is not.
///
/// # Errors
/// Names the file that is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "cannot be read")(error)),
    }
}

/// Creates a folder and those above it.
///
/// # Errors
/// Names the folder.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(failed(path, "cannot be created"))
}

/// Whether a folder exists and holds anything but a lock and unfinished files.
pub fn holds_anything(path: &Path) -> bool {
    let counts = |name: &str| name != LOCK && !is_temporary(name);
    fs::read_dir(path)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_str().is_none_or(counts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    thread_local! {
        /// What has been synced, in order: whether it was a folder.
        pub static SYNCED: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
    }

    #[test]
    fn what_is_written_is_synced_and_then_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(SYNCED.take(), [false, true, false, true]);
    }
}
