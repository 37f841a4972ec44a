//! Files that are whole or absent under their final names.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Writes a file so that after any interruption it holds either the old contents or the new.
///
/// # Errors
/// Names the file where it cannot be written (no space, no permission); the old contents stay.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(contents)?;
        file.as_file().sync_all()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    attempt().with_context(|| {
        format!(
            "{}: cannot be written; what was there before is unchanged. Is there space, and may this \
             user write there?",
            path.display()
        )
    })
}

/// The most bytes of a text that a person writes: a configuration, a sweep.
const MOST_TEXT: u64 = 1 << 20;

/// Opens a file to read it, and says how many bytes it has. Pipes and devices, which may never end, are refused.
///
/// # Errors
/// Where it cannot be opened or is no regular file. The caller names it.
pub fn open(path: &Path) -> Result<(File, u64)> {
    // Before opening: that waits, where a pipe has no writer.
    if !fs::metadata(path)?.is_file() {
        bail!("it is a folder, a pipe or a device: give a regular file");
    }
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Reads a text that a person wrote.
///
/// # Errors
/// As [`open`], and where it is too large or not UTF-8. The caller names it.
pub fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    open(path)?.0.take(MOST_TEXT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_TEXT {
        bail!("it has more than {MOST_TEXT} bytes");
    }
    Ok(text)
}

/// Creates a folder and those above it.
///
/// # Errors
/// Names the folder.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}: cannot be created", path.display()))
}

/// Whether a folder exists and holds anything.
pub fn holds_anything(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
