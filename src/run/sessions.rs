//! `sessions.jsonl`: a line for each process that has worked on a run, with the part it did.
//!
//! It is written when a process begins and when it ends. How far one came that was killed is filled in by the next,
//! which resumes from there.
//!
//! A version, CPU or GPU that rounds differently gives other bits, so a run that is resumed elsewhere says so.

use crate::base::files;
use crate::base::{lock, program};
use crate::engine::cpu::Isa;
use crate::telemetry::records;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tracing::warn;

/// The surroundings of a process: program, machine and threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Surroundings {
    /// The command line.
    pub command: Vec<String>,
    /// The version of this program.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The vector instructions in use.
    pub vector_instructions: String,
    /// Threads to compute with.
    pub threads: usize,
    /// The device.
    pub device: String,
    /// The engine that really computes: fused, plain, replicas or kernel.
    pub engine: String,
}

impl Surroundings {
    /// The surroundings of this process.
    pub fn here(device: &str, engine: &str, threads: usize) -> Self {
        Self {
            command: program::command(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("BUILD_COMMIT").into(),
            vector_instructions: format!("{:?}", Isa::detect()),
            threads,
            device: device.into(),
            engine: engine.into(),
        }
    }

    /// The differences from `before` that may change the last bits of results.
    fn changes_from(&self, before: &Self) -> Vec<String> {
        // The fused engine computes a number the same way on any thread.
        let threads = |of: &Self| if of.engine == "fused" { String::new() } else { of.threads.to_string() };
        let matters = |of: &Self| {
            [
                ("version", of.version.clone()),
                ("commit", of.commit.clone()),
                ("vector instructions", of.vector_instructions.clone()),
                ("device", of.device.clone()),
                ("engine", of.engine.clone()),
                ("threads", threads(of)),
            ]
        };
        let changed = matters(before).into_iter().zip(matters(self)).filter(|(before, now)| before != now);
        changed.map(|((what, before), (_, now))| format!("{what} {before} → {now}")).collect()
    }
}

/// A line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    process: u32,
    host: String,
    #[serde(flatten)]
    surroundings: Surroundings,
    /// Minibatches of the whole run that were done when it began,
    from_step: u64,
    /// and when it last saved; unknown for a process that is at work, or was killed.
    to_step: Option<u64>,
}

/// The line of this process.
pub struct Session {
    path: PathBuf,
    /// The lines of earlier processes, unchanged.
    earlier: Vec<u8>,
    line: Line,
}

impl Session {
    /// Begins a line in the run's folder, and warns where the surroundings differ from those of the last process.
    ///
    /// # Errors
    /// Names the file where it cannot be read or written.
    pub fn begin(folder: &Path, surroundings: Surroundings, step: u64) -> Result<Self> {
        let path = folder.join(records::SESSIONS);
        let mut earlier = files::read_if_there(&path)?.unwrap_or_default();
        let whole = earlier.strip_suffix(b"\n").unwrap_or(&earlier);
        let last = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let before = serde_json::from_slice::<Line>(&whole[last..]).ok();
        if let Some(killed) = before.as_ref().filter(|before| before.to_step.is_none()) {
            earlier.truncate(last);
            serde_json::to_writer(&mut earlier, &Line { to_step: Some(step), ..killed.clone() })?;
        }
        let changes = before.map_or(Vec::new(), |before| surroundings.changes_from(&before.surroundings));
        if !changes.is_empty() {
            warn!(
                "the run resumes in other surroundings ({}): its numbers may differ in the last bits from \
                 those of a run never stopped",
                changes.join("; ")
            );
        }
        let (process, host) = (std::process::id(), lock::host());
        let line = Line { process, host, surroundings, from_step: step, to_step: None };
        let mut session = Self { path, earlier, line };
        session.write()?;
        session.reached(step);
        Ok(session)
    }

    /// Records that the run has been saved after so many minibatches.
    pub fn reached(&mut self, step: u64) {
        self.line.to_step = Some(step);
    }

    /// Completes the line.
    ///
    /// # Errors
    /// Names the file where it cannot be written.
    pub fn end(self) -> Result<()> {
        self.write()
    }

    fn write(&self) -> Result<()> {
        let mut text = self.earlier.clone();
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        serde_json::to_writer(&mut text, &self.line)?;
        text.push(b'\n');
        Ok(files::write_atomically(&self.path, &text)?)
    }
}
