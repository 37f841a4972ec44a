//! The way this program was started: as a process of its own, or by a Python script.

use std::env;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The words that a script was started with. The process does not know them: its own words begin with an interpreter.
static SCRIPT: OnceLock<Vec<String>> = OnceLock::new();

/// Records the words that a script was started with, its own path first.
pub fn started_as(words: Vec<String>) {
    // A process runs one script.
    let _ = SCRIPT.set(words);
}

/// The command line.
pub fn command() -> Vec<String> {
    let process = || env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    SCRIPT.get().cloned().unwrap_or_else(process)
}

/// The beginning of a command that the user can paste where this program was started.
pub fn name() -> String {
    // Python that has imported the module is not this program; the script is beside it.
    let imported = cfg!(feature = "python") && SCRIPT.get().is_none();
    let word = if imported { None } else { command().into_iter().next() };
    word.unwrap_or("eqprop".into())
}

/// The file that starts this program again.
///
/// # Errors
/// Where there is no way to know.
pub fn path() -> Result<PathBuf> {
    match SCRIPT.get() {
        None => env::current_exe(),
        Some(words) => match words.first().map(Path::new).filter(|script| script.is_file()) {
            Some(script) => std::path::absolute(script),
            None => Err(Error::from(ErrorKind::NotFound)),
        },
    }
}
