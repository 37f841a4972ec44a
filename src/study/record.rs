//! The records of a run so far: its configuration and its numbers, read from its folder.

use crate::config::{Choices, Config, Resolved};
use crate::telemetry::records::{self, Told};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::path::Path;
use tracing::warn;

/// The note of charts of sign agreement.
pub const CHANCE: &str = "½ is chance, except where both are 0, as at black pixels";

/// A run's own record.
pub struct Record {
    /// Its name.
    pub name: String,
    /// Its configuration; `None` where the folder has none that can be read.
    pub config: Option<Config>,
    /// The numbers of each epoch, by tag.
    pub lines: Vec<Map<String, Value>>,
}

impl Record {
    /// Reads `config.toml` and `metrics.jsonl`, and reports what is missing; `next` as in [`Told::lines`].
    ///
    /// # Errors
    /// Where there are no metrics, or they are not what a run writes.
    pub fn read(folder: &Path, next: usize) -> Result<Self> {
        let whole = folder.canonicalize().with_context(|| format!("{}: cannot be read", folder.display()))?;
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = folder.join(records::CONFIG);
        let config = match Resolved::new(&Choices { config: Some(path.clone()), ..Choices::default() }) {
            Ok(resolved) => Some(resolved.config),
            Err(error) => {
                if path.exists() {
                    warn!("{:#}", anyhow::Error::from(error));
                }
                None
            }
        };
        let told = folder.join(records::METRICS);
        ensure!(told.exists(), "{}: is not there", told.display());
        Ok(Self { name, config, lines: Told::lines(folder, next)? })
    }

    /// The curve of a tag over the epochs.
    pub fn curve(&self, tag: &str) -> Vec<(f64, f64)> {
        let point =
            |line: &Map<String, Value>| Some((line.get("epoch")?.as_f64()?, line.get(tag)?.as_f64()?));
        self.lines.iter().filter_map(point).collect()
    }

    /// The tags with this prefix, in the order of their first appearance, without it.
    pub fn tags(&self, prefix: &str) -> Vec<String> {
        let mut tags: Vec<String> = Vec::new();
        for tag in self.lines.iter().flat_map(|line| line.keys()) {
            if let Some(rest) = tag.strip_prefix(prefix).filter(|rest| !tags.iter().any(|tag| tag == rest)) {
                tags.push(rest.into());
            }
        }
        tags.sort_by_key(|tag| tag != "total");
        tags
    }

    /// The last value of a tag.
    pub fn last(&self, tag: &str) -> Option<f64> {
        self.curve(tag).last().map(|point| point.1)
    }

    /// The first value of a tag.
    pub fn first(&self, tag: &str) -> Option<f64> {
        self.curve(tag).first().map(|point| point.1)
    }

    /// Completed epochs.
    pub fn epochs(&self) -> usize {
        self.lines.last().and_then(|line| line.get("epoch")?.as_u64()).unwrap_or(0) as usize
    }

    /// The data set.
    pub fn data(&self) -> &str {
        self.lines.last().and_then(|line| line.get("data")?.as_str()).unwrap_or("")
    }

    /// The first epoch that was marked as collapsed.
    pub fn collapsed(&self) -> Option<u64> {
        let line = self.lines.iter().find(|line| line.get("collapsed") == Some(&Value::Bool(true)))?;
        line.get("epoch")?.as_u64()
    }
}
