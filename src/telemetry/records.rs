//! Records of a run in its folder `runs/NAME`, and how they are read again.

use crate::base::files::{self, Line};
use crate::base::name;
use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tracing::warn;

/// Its resolved configuration.
pub const CONFIG: &str = "config.toml";
/// Its data, machine and program when it began.
pub const ENVIRONMENT: &str = "environment.json";
/// A line of numbers for each epoch; 0 is before training.
pub const METRICS: &str = "metrics.jsonl";
/// A line for each process that has worked on it.
pub const SESSIONS: &str = "sessions.jsonl";
/// All of them.
pub const FILES: [&str; 4] = [CONFIG, ENVIRONMENT, METRICS, SESSIONS];

/// The record of the run's beginning: null where it cannot be understood, `None` where there is none.
///
/// # Errors
/// Names the file that cannot be read.
pub fn environment(folder: &Path) -> files::Result<Option<Value>> {
    let text = files::read_if_there(&folder.join(ENVIRONMENT))?;
    Ok(text.map(|text| serde_json::from_slice(&text).unwrap_or_default()))
}

/// The name of a run when it began, from its folder.
pub fn first_name(folder: &Path) -> Option<String> {
    let environment = environment(folder).ok()??;
    let first = environment["run"].as_str()?;
    name::check(first, ENVIRONMENT).is_ok().then(|| first.to_string())
}

/// True where a folder holds metrics of a run, readable or not.
pub fn holds_metrics(folder: &Path) -> bool {
    folder.join(METRICS).exists()
}

/// True where a folder is that of a run, with metrics or without.
pub fn is_of_run(folder: &Path) -> bool {
    holds_metrics(folder) || folder.join(SESSIONS).exists()
}

/// True where the run of a folder began there, and was not resumed from a checkpoint of another.
fn began_here(folder: &Path) -> bool {
    let first = files::lines(&folder.join(SESSIONS)).ok().flatten().and_then(|mut lines| lines.next()?.ok());
    let first = first.and_then(|line| serde_json::from_slice::<Value>(&line.bytes).ok());
    first.is_some_and(|line| line["from_step"] == 0)
}

/// The contents of a `metrics.jsonl`: one line for each epoch it has, in order.
#[derive(Debug, Default)]
pub struct Told {
    path: PathBuf,
    /// True where the file exists.
    is_there: bool,
    /// True where epoch 0 must be among them.
    from_start: bool,
    /// The lines without their ends; of several lines of an epoch the last.
    pub epochs: BTreeMap<usize, Vec<u8>>,
    /// The epochs that had several lines.
    doubled: BTreeSet<usize>,
    /// The first line that no run has written, by its number, and its error.
    foreign: Option<(usize, String)>,
    /// True where the file has lines that are not in `epochs`, apart from a last line that was cut short.
    pub holds_more: bool,
}

impl Told {
    /// Reads the metrics in the folder of a run.
    ///
    /// # Errors
    /// Names the file that is there and cannot be read.
    pub fn read(folder: &Path) -> files::Result<Self> {
        let path = folder.join(METRICS);
        let mut told = Self { path: path.clone(), ..Self::default() };
        let Some(lines) = files::lines(&path)? else { return Ok(told) };
        (told.is_there, told.from_start) = (true, began_here(folder));
        for line in lines {
            let Line { number, bytes, is_whole } = line?;
            match serde_json::from_slice::<Map<String, Value>>(&bytes).map(|line| line.get("epoch")?.as_u64())
            {
                Ok(Some(epoch)) if epoch <= MOST_EPOCHS => {
                    let epoch = epoch as usize;
                    if let Some(before) = told.epochs.insert(epoch, bytes) {
                        told.holds_more |= told.epochs.get(&epoch) != Some(&before);
                        told.doubled.insert(epoch);
                    }
                }
                // The last one may be cut short where the run was killed.
                _ if !is_whole => {}
                wrong => {
                    let why =
                        wrong.map_or_else(|error| in_line(&error), |_| "it has no epoch that can be".into());
                    told.foreign.get_or_insert((number, why));
                    told.holds_more = true;
                }
            }
        }
        Ok(told)
    }

    /// Reads the metrics for those who do not write them: reports doubled epochs, and missing ones up to the last
    /// that is there and before `next`, the first epoch that the caller does not know to be done.
    ///
    /// # Errors
    /// Names the file that cannot be read, and the line that is not what a run writes.
    pub fn lines(folder: &Path, next: usize) -> Result<Vec<Map<String, Value>>> {
        let told = Self::read(folder)?;
        if let Some((number, why)) = &told.foreign {
            bail!(
                "{}: line {number} is not what a run writes ({why}): take it out, or resume the run, which \
                 keeps the valid lines and moves the whole file aside",
                told.path.display()
            );
        }
        let beyond = told.epochs.last_key_value().map_or(1, |(last, _)| last + 1);
        told.say(next.max(beyond));
        Ok(told.epochs.values().map(|line| serde_json::from_slice(line)).collect::<Result<_, _>>()?)
    }

    /// Warns of epochs before `next` that have no line, and of those that have several.
    pub fn say(&self, next: usize) {
        let path = self.path.display();
        let first = self.epochs.keys().next().copied().filter(|_| !self.from_start);
        let missing: Vec<usize> =
            (first.unwrap_or(0)..next).filter(|epoch| !self.epochs.contains_key(epoch)).collect();
        if self.is_there && !missing.is_empty() {
            warn!("{path}: lines are missing, and with them the numbers of {}", epochs_in_words(missing));
        }
        if !self.doubled.is_empty() {
            let doubled = self.doubled.iter().copied();
            warn!(
                "{path}: several lines are of one epoch ({}): the last one counts",
                epochs_in_words(doubled)
            );
        }
    }
}

/// Numbers of epochs in words, in order: `epochs 1, 3 to 5`.
fn epochs_in_words(numbers: impl IntoIterator<Item = usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let one = |(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        _ => format!("{first} to {last}"),
    };
    let word = if matches!(ranges[..], [(first, last)] if first == last) { "epoch" } else { "epochs" };
    let shown: Vec<String> = ranges.iter().take(MOST_RANGES).map(one).collect();
    let more = if ranges.len() > MOST_RANGES { " and others" } else { "" };
    format!("{word} {}{more}", shown.join(", "))
}

/// The most epochs that a run has, as `training.epochs` allows.
const MOST_EPOCHS: u64 = 1_000_000;

/// The most gaps that a message names.
const MOST_RANGES: usize = 10;

/// The error of a line of JSON, without the line number 1 that the parser adds.
pub fn in_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column", " at column")
}

/// Reads a file of JSON, one item per line; `None` where it does not exist.
///
/// # Errors
/// Names the file, and the line that is not what `writer` writes.
pub fn read_lines<T>(
    path: &Path,
    writer: &str,
    item: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Option<Vec<T>>> {
    let Some(lines) = files::lines(path)? else { return Ok(None) };
    let items = lines.map(|line| {
        let Line { number, bytes, .. } = line?;
        item(&bytes).map_err(|why| {
            anyhow!(
                "{}: line {number} is not what {writer} writes: {why}. Restore the file from a copy, or \
                 take that line out",
                path.display()
            )
        })
    });
    items.collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_named_by_their_ranges() {
        for (numbers, words) in
            [(&[3][..], "epoch 3"), (&[0, 1, 2], "epochs 0 to 2"), (&[0, 2, 3, 7], "epochs 0, 2 to 3, 7")]
        {
            assert_eq!(epochs_in_words(numbers.iter().copied()), words);
        }
        assert!(epochs_in_words((0..100).map(|n| 2 * n)).ends_with("16, 18 and others"));
    }
}
