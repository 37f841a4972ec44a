//! One process per run: a lock on a file in its folder, held as long as the process works on the run. The system
//! releases it when the process ends, however it ends.

use super::files::{self, LOCK, failed};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tracing::warn;

/// Beginning of the text in a lock file.
const HOLDER: &str = "process ";

/// The most bytes of that text: the name of a machine has up to 255.
const MOST_HOLDER: u64 = 1000;

/// A folder locked by this process, until this is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Why a folder cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("{}: {} is at work there: let it end, or stop it, and repeat this command", .0.display(), .1)]
    Held(PathBuf, String),
    /// Somebody's own file has its name.
    #[error("{}: is not a lock of this program, which needs a file of that name: move it away", .0.display())]
    Foreign(PathBuf),
    /// The file in it cannot be written.
    #[error(transparent)]
    File(#[from] files::Error),
}

impl Lock {
    /// Locks a folder that exists.
    ///
    /// # Errors
    /// [`Error::Held`], which says by whom, where another process has it; [`Error::Foreign`] where the file is
    /// somebody's own; and where it cannot be written.
    pub fn take(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(LOCK);
        let unlockable = || failed(&path, "cannot be locked; may this user write there?");
        if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
            return Err(Error::Foreign(path));
        }
        let mut file = files::open_or_create(&path).map_err(unlockable())?;
        let mut locked = file.try_lock();
        if let Err(TryLockError::WouldBlock) = locked {
            // Another process may only be checking who holds it, as `is_held` does, which is over at once.
            sleep(Duration::from_millis(10));
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = files::read(&path, MOST_HOLDER).unwrap_or_default();
                let holder = String::from_utf8_lossy(&holder);
                let holder = Some(holder.trim()).filter(|holder| !holder.is_empty());
                return Err(Error::Held(folder.to_path_buf(), holder.unwrap_or("another process").into()));
            }
            Err(TryLockError::Error(error)) if is_without_locks(&error) => {
                warn!(
                    "{}: this file system has no locks ({error}), so make sure that only one process works \
                     there",
                    folder.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(unlockable()(error).into()),
        }
        let mut there = String::new();
        let read = (&file).take(HOLDER.len() as u64).read_to_string(&mut there);
        // A power cut may leave zeros of what was being written.
        if read.is_err() || !HOLDER.starts_with(there.trim_end_matches('\0')) {
            return Err(Error::Foreign(path));
        }
        let holder = format!("{HOLDER}{} on {}\n", std::process::id(), host());
        file.rewind().map_err(unlockable())?;
        file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())).map_err(unlockable())?;
        Ok(Self { _file: file })
    }

    /// True where some process has the folder locked. Writes nothing.
    pub fn is_held(folder: &Path) -> bool {
        files::open(&folder.join(LOCK))
            .is_ok_and(|(file, _)| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Locks a folder as [`Lock::take`] does, but waits up to `patience` for another process.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn wait(folder: &Path, patience: Duration) -> Result<Self, Error> {
        again(patience, |outcome| matches!(outcome, Err(Error::Held(..))), || Self::take(folder))
    }
}

/// The turn of this process to write into a folder, until this is dropped. Unlike a [`Lock`] it leaves no file there,
/// and there is none where folders cannot be locked.
#[derive(Debug)]
pub struct Turn {
    _folder: File,
}

impl Turn {
    /// Waits up to `patience` for other processes; `None` where they take longer, or folders cannot be locked.
    pub fn wait(folder: &Path, patience: Duration) -> Option<Self> {
        let folder = files::open_folder(folder).ok()?;
        let is_held = |outcome: &std::result::Result<_, _>| matches!(outcome, Err(TryLockError::WouldBlock));
        again(patience, is_held, || folder.try_lock()).ok()?;
        Some(Self { _folder: folder })
    }
}

/// Repeats an attempt, up to `patience`, as long as another process has the lock.
fn again<T>(patience: Duration, is_held: impl Fn(&T) -> bool, mut attempt: impl FnMut() -> T) -> T {
    let begun = Instant::now();
    loop {
        let outcome = attempt();
        if !is_held(&outcome) || begun.elapsed() >= patience {
            return outcome;
        }
        sleep(Duration::from_millis(50));
    }
}

/// True where a file system says that it has no locks. NFS has an error of its own for a lock service that is not
/// running on the client or server.
fn is_without_locks(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Unsupported || (cfg!(unix) && error.raw_os_error() == Some(libc::ENOLCK))
}

/// The name of this machine.
pub fn host() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn only_some_errors_say_that_there_are_no_locks() {
        let says_so = |number| is_without_locks(&io::Error::from_raw_os_error(number));
        assert!([libc::ENOLCK, libc::ENOSYS, libc::EOPNOTSUPP].into_iter().all(says_so));
        assert!(![libc::EACCES, libc::EWOULDBLOCK, libc::EIO, libc::EINTR].into_iter().any(says_so));
    }
}
