//! Files that a command writes under fixed names, in folders where the user's own files may have those names.

use super::files::{self, failed};
use super::lock::Turn;
use super::output::usage;
use anyhow::Result;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest wait for another process that writes into the folder; writing takes it much less.
const PATIENCE: Duration = Duration::from_secs(10);

/// Marks by which a file is known as one of ours, by extension: where the mark begins, and with which byte of which
/// number it ends.
const KINDS: [(&str, usize, u8, usize); 8] = [
    ("html", 0, b'>', 1),        // <!DOCTYPE html>
    ("svg", 0, b'"', 3),         // <svg xmlns="http://www.w3.org/2000/svg" viewBox="
    ("pdf", 0, b'\n', 2),        // the version, and bytes that are no text
    ("csv", 0, b',', 1),         // the first column's name
    ("json", 0, b'"', 2),        // the first field's name
    ("jsonl", 0, b'"', 2),       // that of the first line
    ("sh", 0, b';', 1),          // what has written it
    ("safetensors", 8, b'"', 4), // what stands in its metadata, after the length of the header
];

/// Files to be written, all or none. Each replaces a file of its own kind, and nothing else.
#[derive(Default)]
pub struct Made(Vec<(PathBuf, Vec<u8>)>);

impl Made {
    /// Adds a file.
    pub fn add(&mut self, path: PathBuf, contents: impl Into<Vec<u8>>) {
        self.0.push((path, contents.into()));
    }

    /// Writes all files, and creates their folders where they do not exist. Removes temporary files that killed
    /// processes have left.
    ///
    /// # Errors
    /// Names a file that is there and is somebody else's, before anything is written; and what cannot be written.
    pub fn write(self) -> Result<()> {
        for (path, contents) in &self.0 {
            check(path, contents)?;
        }
        let mut folders = BTreeMap::new();
        for folder in self.0.iter().filter_map(|(path, _)| path.parent()).collect::<BTreeSet<_>>() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            files::create_folder(folder)?;
            let whole = folder.canonicalize().map_err(failed(folder, "cannot be found"))?;
            if let Entry::Vacant(place) = folders.entry(whole) {
                place.insert(cleared(folder)?);
            }
        }
        for (path, contents) in &self.0 {
            files::write_atomically(path, contents)?;
        }
        Ok(())
    }
}

/// Clears a folder of the temporary files that killed processes have left in it. Until the returned value is dropped,
/// no other process writes there as this one does.
///
/// # Errors
/// Names what cannot be listed or removed.
pub fn cleared(folder: &Path) -> files::Result<Option<Turn>> {
    let turn = Turn::wait(folder, PATIENCE);
    if turn.is_some() {
        files::remove_temporaries(folder)?;
    }
    Ok(turn)
}

/// Checks that nothing is at `path` but a file of the kind of these contents, or an empty one.
fn check(path: &Path, contents: &[u8]) -> Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, "cannot be looked at")(error).into()),
        Ok(there) if !there.is_file() => usage!(
            "{}: is a link, a folder or a device, and a file of this name is to be written: move it away, or give another \
             folder",
            path.display()
        ),
        Ok(_) => {}
    }
    let mark = mark(path, contents);
    let mut there = Vec::new();
    let (file, size) = files::open(path).map_err(failed(path, "cannot be read"))?;
    file.take((mark.0 + mark.1.len()) as u64)
        .read_to_end(&mut there)
        .map_err(failed(path, "cannot be read"))?;
    if size > 0 && there.get(mark.0..) != Some(mark.1) {
        usage!(
            "{}: already exists and was not made by this command: move it away, or give another folder",
            path.display()
        );
    }
    Ok(())
}

/// The mark of a file with these contents, and where it begins.
fn mark<'a>(path: &Path, contents: &'a [u8]) -> (usize, &'a [u8]) {
    let extension = path.extension().unwrap_or_default();
    let Some((_, begin, last, count)) = KINDS.iter().find(|(known, ..)| extension == *known) else {
        return (0, contents);
    };
    let rest = contents.get(*begin..).unwrap_or_default();
    let ends = rest.iter().enumerate().filter(|(_, byte)| *byte == last).map(|(i, _)| i + 1);
    (*begin, &rest[..ends.take(*count).last().unwrap_or(rest.len())])
}

/// Checks that a folder, or whatever is at `path`, is no link, which may lead to the user's own files.
///
/// # Errors
/// Says what to do.
pub fn check_no_link(path: &Path) -> Result<()> {
    if fs::read_link(path).is_ok() {
        usage!(
            "{}: is a link, and what is written there would go where it leads: put a folder or file of its own in its \
             place",
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaces_one_of_its_kind_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (csv, html) = (folder.path().join("a.csv"), folder.path().join("a.html"));
        let write = |text: &str| {
            let mut made = Made::default();
            made.add(html.clone(), "<!DOCTYPE html><p>new");
            made.add(csv.clone(), text);
            made.write().map_err(|error| error.to_string())
        };
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        write("run,test\na,1\n").unwrap();
        write("run,epochs\nb,2\n").unwrap();
        assert_eq!(read(&csv), "run,epochs\nb,2\n");
        for theirs in ["my own", "runs,test\n", "r"] {
            fs::write(&csv, theirs).unwrap();
            fs::write(&html, "<!DOCTYPE html><p>old").unwrap();
            assert!(write("run,test\n").unwrap_err().contains("a.csv"), "{theirs}");
            // Nothing else is written either.
            assert_eq!((read(&csv), read(&html)), (theirs.to_string(), "<!DOCTYPE html><p>old".to_string()));
        }
        fs::write(&csv, "").unwrap();
        write("run,test\n").unwrap();
        #[cfg(unix)]
        {
            fs::rename(&csv, folder.path().join("mine")).unwrap();
            std::os::unix::fs::symlink(folder.path().join("mine"), &csv).unwrap();
            assert!(write("run,test\n").unwrap_err().contains("link"));
        }
    }
}
