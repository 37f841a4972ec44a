//! Files that are whole or absent under their final names, and folders in which nothing gets lost.
//!
//! Every file of this program is opened here, so that there is one place that refuses pipes and devices and bounds
//! what is read; a lint, `disallowed_methods` in `clippy.toml`, keeps it so.
#![cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "this is the one place"))]

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile};
use tracing::{info, warn};

/// An operation that the system refused, and the file or folder that it was for.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct Error {
    path: PathBuf,
    problem: String,
    source: io::Error,
}

/// The result of an operation on a file or folder.
pub type Result<T> = std::result::Result<T, Error>;

/// Turns an error of the system into one that names the file and what could not be done with it.
pub fn failed(path: &Path, problem: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    |source| Error { path: path.to_path_buf(), problem: problem.into(), source }
}

/// The name of the file that is locked in a folder, see [`super::lock`]. It stays when the lock is gone, since a file
/// that is removed while another process waits for it locks nothing.
pub const LOCK: &str = "lock";

/// Beginning and end of the names of our temporary files; letters and digits stand between them.
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
        // The permissions of any new file, less what the umask takes.
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
        "cannot be written; the former contents are unchanged. Is there space, and may this user write \
         there?",
    ))?;
    sync_folder(folder)
        .map_err(failed(path, "is written, but may be lost in a power cut: its folder cannot be synced"))
}

/// Waits until what was created, renamed or linked in a folder would survive a power cut. There is nothing to wait
/// for in a folder that this user may not read, or on file systems that do not sync folders.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match open_folder(folder).and_then(|folder| sync(&folder)) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => Ok(()),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        outcome => outcome,
    }
}

/// Writes a file that the user has named. A link is followed, and a device or a pipe is written to, not replaced.
///
/// # Errors
/// Names the file where it cannot be written.
pub fn write_named(path: &Path, contents: &[u8]) -> Result<()> {
    let path = &match (path.canonicalize(), fs::read_link(path)) {
        (Ok(whole), _) => whole,
        // A link to a file that does not exist yet.
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

/// Makes `path` another name of the file `original` at once, or a copy where the file system has no links; what
/// `path` was before is gone.
///
/// # Errors
/// Names the file that cannot be made; what was there before stays.
pub fn link_atomically(original: &Path, path: &Path) -> Result<()> {
    let link = || temporaries().make_in(folder_of(path), |link| fs::hard_link(original, link));
    let linked = match link() {
        Ok(link) => link.persist(path).map_err(io::Error::from),
        Err(_) => {
            copy_of(original, path).and_then(|copy| copy.persist(path).map(drop).map_err(io::Error::from))
        }
    };
    (linked.and_then(|()| sync_folder(folder_of(path))))
        .map_err(failed(path, "cannot be written. Is there space, and may this user write there?"))
}

/// A copy of a file, for a name beside `path`, that would survive a power cut.
fn copy_of(original: &Path, path: &Path) -> io::Result<NamedTempFile> {
    let mut copy = temporaries().tempfile_in(folder_of(path))?;
    io::copy(&mut open(original)?.0, &mut copy)?;
    sync(copy.as_file())?;
    Ok(copy)
}

/// Keeps what is at `path` under a name beside it as well, which is returned: another name of the file, or a copy
/// where the file system has no links.
///
/// # Errors
/// Names the file that cannot be written.
pub fn keep_aside(path: &Path) -> Result<PathBuf> {
    let aside = free_beside(path);
    let copy = || copy_of(path, &aside)?.persist_noclobber(&aside).map(drop).map_err(io::Error::from);
    (fs::hard_link(path, &aside).or_else(|_| copy()).and_then(|()| sync_folder(folder_of(path))))
        .map_err(failed(path, format!("cannot be kept as {}. Is there space?", aside.display())))?;
    Ok(aside)
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

/// The first number, counting from `least`, for which nothing stands beside `path`.
fn free_number(path: &Path, least: usize) -> usize {
    let mut number = least;
    while numbered(path, number).symlink_metadata().is_ok() {
        number += 1;
    }
    number
}

/// Moves folders aside, all to one number that is free beside each, so that their names still belong together. Says
/// so.
///
/// # Errors
/// Names the folder that cannot be moved.
pub fn move_aside(paths: &[PathBuf]) -> Result<()> {
    let number = paths.iter().map(|path| free_number(path, 1)).max().unwrap_or(1);
    let number = (number..).find(|n| paths.iter().all(|path| free_number(path, *n) == *n)).unwrap_or(number);
    for path in paths {
        let aside = numbered(path, number);
        (fs::rename(path, &aside).and_then(|()| sync_folder(folder_of(path))))
            .map_err(failed(path, format!("cannot be moved to {}", aside.display())))?;
        warn!("{} is moved aside: it is now {}", path.display(), aside.display());
    }
    Ok(())
}

/// The most bytes of a text that a person writes: a configuration, a sweep.
const MOST_TEXT: u64 = 1 << 20;

/// The most bytes of a text that this program writes and reads as a whole; a plan of 100,000 runs takes a tenth of
/// that.
const MOST_WRITTEN: u64 = 64 << 20;

/// The most bytes of a line that this program writes; the metrics of synapses, layers and angles take a hundredth of
/// that.
const MOST_LINE: u64 = 1 << 20;

/// Opens a file to read it, and says how many bytes it has. Pipes and devices, which may never end, are refused.
///
/// # Errors
/// Where it cannot be opened or is no regular file. The caller names it.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    open_regular(path, OpenOptions::new().read(true))
}

/// Opens a regular file in some way.
fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<(File, u64)> {
    let regular = |there: fs::Metadata| match there.is_file() {
        true => Ok(there.len()),
        false => Err(io::Error::other("it is a folder, a pipe or a device: give a regular file")),
    };
    // Before opening: opening alone can have an effect on a device.
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        there => drop(regular(there?)?),
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A file that has become a pipe since then does not block.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    let size = regular(file.metadata()?)?;
    Ok((file, size))
}

/// Opens a folder, to lock or sync it.
///
/// # Errors
/// Where it cannot be opened or is no folder. The caller names it.
pub fn open_folder(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_dir() {
        true => File::open(path),
        false => Err(io::Error::other("it is not a folder")),
    }
}

/// Opens a file to read and write it; creates it where it does not exist.
///
/// # Errors
/// As [`open`].
pub fn open_or_create(path: &Path) -> io::Result<File> {
    Ok(open_regular(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))?.0)
}

/// Creates a new file to write to.
///
/// # Errors
/// Where it is there, or cannot be made. The caller names it.
pub fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    sync_folder(folder_of(path))?;
    Ok(file)
}

/// Adds to the end of a file, which is created where it does not exist, and waits until that would survive a power
/// cut.
///
/// # Errors
/// As [`open`], and where there is no space. The caller names it.
pub fn append(path: &Path, contents: &[u8]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = open_regular(path, OpenOptions::new().create(true).append(true))?.0;
    file.write_all(contents)?;
    sync(&file)?;
    if is_new { sync_folder(folder_of(path)) } else { Ok(()) }
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// As [`open`], and where it is larger. The caller names it.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, size) = open(path)?;
    let mut bytes = Vec::new();
    // The files of /proc have no size, but contents.
    if size <= most {
        file.take(most + 1).read_to_end(&mut bytes)?;
    }
    match size.max(bytes.len() as u64) {
        size if size > most => {
            Err(io::Error::other(format!("it has {size} bytes, of which at most {most} are read")))
        }
        _ => Ok(bytes),
    }
}

/// Reads a text that a person has written.
///
/// # Errors
/// As [`open`], and where it is too large or not UTF-8. The caller names it.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path, MOST_TEXT)?).map_err(|wrong| {
        io::Error::new(ErrorKind::InvalidData, format!("it is not UTF-8 text: {}", wrong.utf8_error()))
    })
}

/// Reads a file that this program writes as a whole; `None` where it does not exist.
///
/// # Errors
/// Names the file that is there and cannot be read.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match read(path, MOST_WRITTEN) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, "cannot be read")(error)),
    }
}

/// A line of a file.
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Its bytes without the end of the line; empty where the line is longer than any that this program writes.
    pub bytes: Vec<u8>,
    /// True where the line has an end; the last line may be cut short.
    pub is_whole: bool,
}

/// Reads a file line by line; `None` where it does not exist. No line takes more memory than the longest that this
/// program writes.
///
/// # Errors
/// Names the file that is there and cannot be opened, or a line that cannot be read.
pub fn lines(path: &Path) -> Result<Option<impl Iterator<Item = Result<Line>>>> {
    let mut file = match open(path) {
        Ok((file, _)) => BufReader::new(file),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "cannot be read")(error)),
    };
    let mut next = move |number: usize| -> io::Result<Option<Line>> {
        let mut bytes = Vec::new();
        (&mut file).take(MOST_LINE + 1).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut is_whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if !is_whole && bytes.len() as u64 > MOST_LINE {
            is_whole = skip_line(&mut file)?;
            bytes.clear();
        }
        Ok(Some(Line { number, bytes, is_whole }))
    };
    let path = path.to_path_buf();
    let (mut number, mut ended) = (0, false);
    Ok(Some(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        number += 1;
        let line = next(number).map_err(failed(&path, format!("line {number} cannot be read")));
        ended = line.is_err();
        line.transpose()
    })))
}

/// Reads to the end of a line, and says whether there is one.
fn skip_line(file: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let there = file.fill_buf()?;
        let (found, length) = match there.iter().position(|byte| *byte == b'\n') {
            Some(end) => (true, end + 1),
            None => (false, there.len()),
        };
        file.consume(length);
        if found || length == 0 {
            return Ok(found);
        }
    }
}

/// Creates a folder and those above it, which would survive a power cut.
///
/// # Errors
/// Names the folder.
pub fn create_folder(path: &Path) -> Result<()> {
    let new: Vec<&Path> =
        path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    (fs::create_dir_all(path)
        .and_then(|()| new.into_iter().rev().try_for_each(|folder| sync_folder(folder_of(folder)))))
    .map_err(failed(path, "cannot be created. Is there space, and may this user write there?"))
}

/// True where a folder exists and holds anything but a lock and unfinished files.
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
        /// Kinds of what has been synced, in order: true for a folder.
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
        // Also names: of a link, of new folders, of a folder that is moved, of a file that is first added to.
        link_atomically(&path, &folder.path().join("b")).unwrap();
        assert_eq!(SYNCED.take(), [true]);
        let (above, below) = (folder.path().join("c"), folder.path().join("c/d"));
        create_folder(&below).unwrap();
        assert_eq!(SYNCED.take(), [true, true]);
        create_folder(&below).unwrap();
        assert_eq!(SYNCED.take(), [false; 0]);
        move_aside(&[above]).unwrap();
        assert_eq!(SYNCED.take(), [true]);
        let lines = folder.path().join("lines");
        append(&lines, b"one\n").unwrap();
        append(&lines, b"two\n").unwrap();
        assert_eq!(SYNCED.take(), [false, true, false]);
    }

    #[test]
    fn no_more_is_read_than_allowed_and_lines_have_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "it has 5 bytes, of which at most 4 are read");
        let long = "x".repeat(MOST_LINE as usize + 1);
        let most = &long[1..];
        fs::write(&path, format!("one\n{long}\n{most}\n\nlast")).unwrap();
        let read = |path| -> Vec<(usize, usize, bool)> {
            let lines = lines(path).unwrap().unwrap().map(Result::unwrap);
            lines.map(|line| (line.number, line.bytes.len(), line.is_whole)).collect()
        };
        let expected = [(1, 3, true), (2, 0, true), (3, most.len(), true), (4, 0, true), (5, 4, false)];
        assert_eq!(read(&path), expected);
        // A file without end takes no memory.
        fs::write(&path, "").unwrap();
        File::options().write(true).open(&path).unwrap().set_len(20 << 20).unwrap();
        assert_eq!(read(&path), [(1, 0, false)]);
        assert!(lines(&folder.path().join("gone")).unwrap().is_none());
        assert!(lines(folder.path()).is_err());
    }
}
