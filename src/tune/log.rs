//! The log of a tuning: a line of JSON for each step, in the order of the procedure. A stopped tuning resumes from
//! it.

use crate::base::files;
use crate::base::output::usage;
use crate::telemetry::records;
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of the file in the folder of a tuning.
pub const FILE: &str = "tune.jsonl";

/// The steps so far.
pub struct Log {
    path: PathBuf,
    lines: Vec<Map<String, Value>>,
    /// The time when this process began, or its last step ended.
    since: Instant,
    /// The time that all logged steps took.
    spent: Duration,
}

impl Log {
    /// Reads the log in `folder`, or begins one that records `about`.
    ///
    /// # Errors
    /// Names the file that is no log of a tuning, and what differs where it is one of another.
    pub fn open(folder: &Path, about: &Value) -> Result<Self> {
        let path = folder.join(FILE);
        let mut log = Self { path, lines: Vec::new(), since: Instant::now(), spent: Duration::ZERO };
        let line = |bytes: &[u8]| serde_json::from_slice(bytes).map_err(|error| records::in_line(&error));
        log.lines = records::read_lines(&log.path, "a tuning", line)?.unwrap_or_default();
        match log.find("about") {
            None => {
                let made = [super::TUNED, super::PAGE].map(|name| folder.join(name));
                if let Some(there) = made.iter().find(|path| path.exists()) {
                    usage!(
                        "{}: exists, but without the {FILE} of its tuning: move it away, or give another \
                         folder with --out",
                        there.display()
                    );
                }
                log.write("about", about.clone())?;
            }
            Some(there) => {
                let differs = about
                    .as_object()
                    .into_iter()
                    .flatten()
                    .find(|(key, value)| there.get(*key) != Some(*value));
                if let Some((key, value)) = differs {
                    usage!(
                        "{}: is the log of a tuning with other {key} ({}, and now {value}): repeat the \
                         former settings, \
                         or give another folder with --out",
                        log.path.display(),
                        there.get(key).unwrap_or(&Value::Null)
                    );
                }
            }
        }
        let seconds = |line: &Map<String, Value>| line.get("seconds")?.as_f64();
        log.spent =
            Duration::from_secs_f64(log.lines.iter().filter_map(seconds).sum::<f64>().clamp(0.0, 1e9));
        Ok(log)
    }

    /// The time that the tuning has taken, in all its processes.
    pub fn elapsed(&self) -> Duration {
        self.spent + self.since.elapsed()
    }

    fn line(&self, step: &str) -> Option<&Map<String, Value>> {
        self.lines.iter().find(|line| line.get("step").and_then(Value::as_str) == Some(step))
    }

    /// The result of the step of this name, if it has been done.
    pub fn find(&self, step: &str) -> Option<&Value> {
        self.line(step)?.get("result")
    }

    /// The seconds that the step of this name took, in the process that completed it; 0 where it has not been done.
    pub fn seconds(&self, step: &str) -> f64 {
        self.line(step).and_then(|line| line.get("seconds")?.as_f64()).unwrap_or(0.0)
    }

    /// The names of all steps with this prefix, with their results.
    pub fn all<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        (self.lines.iter())
            .filter_map(|line| Some((line.get("step")?.as_str()?, line.get("result")?)))
            .filter(move |(step, _)| step.starts_with(prefix))
    }

    /// The result of the step of this name: from the log, or else from `take`, which is then logged.
    ///
    /// # Errors
    /// Those of `take`; and names the file where it cannot be written, or holds another result than such a step has.
    pub fn step<R: Serialize + DeserializeOwned>(
        &mut self,
        step: &str,
        take: impl FnOnce() -> Result<R>,
    ) -> Result<R> {
        if let Some(known) = self.find(step) {
            return serde_json::from_value(known.clone())
                .with_context(|| format!("{}: step {step} does not fit such a step", self.path.display()));
        }
        let result = take()?;
        self.write(step, serde_json::to_value(&result)?)?;
        Ok(result)
    }

    fn write(&mut self, step: &str, result: Value) -> Result<()> {
        let took = self.since.elapsed();
        let Value::Object(line) = json!({ "step": step, "seconds": took.as_secs_f64(), "result": result })
        else {
            return Ok(());
        };
        self.lines.push(line);
        let text: String = self.lines.iter().map(|line| json!(line).to_string() + "\n").collect();
        files::write_atomically(&self.path, text.as_bytes())?;
        self.spent += took;
        self.since = Instant::now();
        Ok(())
    }
}
