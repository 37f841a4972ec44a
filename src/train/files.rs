//! Files that are whole or absent under their final names.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::Write;
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
