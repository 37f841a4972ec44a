//! What a run leaves in its folder `runs/NAME`, and how it is read again.

use crate::base::{files, name};
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// Its resolved configuration.
pub const CONFIG: &str = "config.toml";
/// On what, and with what, it began.
pub const ENVIRONMENT: &str = "environment.json";
/// A line of numbers for each epoch; 0 is before training.
pub const METRICS: &str = "metrics.jsonl";
/// A line for each process that has worked on it.
pub const SESSIONS: &str = "sessions.jsonl";
/// All of them.
pub const FILES: [&str; 4] = [CONFIG, ENVIRONMENT, METRICS, SESSIONS];

/// What its folder says of how it began: null where that cannot be understood, `None` where it says nothing.
///
/// # Errors
/// Names the file that cannot be read.
pub fn environment(folder: &Path) -> files::Result<Option<Value>> {
    let text = files::read_if_there(&folder.join(ENVIRONMENT))?;
    Ok(text.map(|text| serde_json::from_str(&text).unwrap_or_default()))
}

/// What a run was called when it began, as its folder says.
pub fn first_name(folder: &Path) -> Option<String> {
    let environment = environment(folder).ok()??;
    let first = environment["run"].as_str()?;
    name::check(first, ENVIRONMENT).is_ok().then(|| first.to_string())
}

/// Whether a run has told something in a folder.
pub fn holds_metrics(folder: &Path) -> bool {
    folder.join(METRICS).is_file()
}

/// Each line of a `metrics.jsonl` with this text, and the epoch that it is of; of none where no run has written it, or
/// only in part.
pub fn epochs(text: &str) -> impl Iterator<Item = (&str, Option<usize>)> {
    text.split_inclusive('\n').map(|line| {
        let found: Option<Value> = serde_json::from_str(line).ok();
        (line, found.and_then(|found| Some(found["epoch"].as_u64()? as usize)))
    })
}

/// The lines of a `metrics.jsonl` with this text. The last may be cut short where the run was killed, and is left out.
///
/// # Errors
/// Names the file at `path` where it is not what a run writes.
pub fn lines(text: &str, path: &Path) -> Result<Vec<Map<String, Value>>> {
    (text.split_inclusive('\n').filter(|line| line.ends_with('\n')))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{}: not what a run writes", path.display()))
}
