//! Sweeps: many runs in one folder, worked off by as many workers as there are, here or on a cluster.
//!
//! A sweep folder holds `sweeps/` (the files it was made from), `plan.json` (its runs, in order), `configs/`,
//! `tickets/` (who runs what), and `runs/` and `checkpoints/` as `train` leaves them.

mod estimate;
mod plan;
mod slurm;
mod tickets;
mod work;

pub use estimate::Estimator;
pub use plan::{Planned, Row, SweepFile};
pub use tickets::State;
pub use work::{Tally, work};

use crate::base::files;
use crate::base::lock::Lock;
use crate::base::name;
use crate::config::{Choices, Resolved};
use crate::run::checkpoint;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tickets::Tickets;

/// How long to wait for another process that is planning in the same folder, which takes it much less.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run of a sweep, in `plan.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// How long it should take on one core of the machine that planned it.
    pub seconds: f64,
}

/// A sweep's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    tickets: Tickets,
}

impl Folder {
    /// A sweep's folder, which may not exist yet.
    pub fn new(path: PathBuf) -> Self {
        let tickets = Tickets::new(path.join("tickets"));
        Self { path, tickets }
    }

    /// Its runs, in the order they are to be taken; none where nothing is planned yet.
    ///
    /// # Errors
    /// Where the plan is there but cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let path = self.path.join("plan.json");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let damaged =
            || format!("{}: cannot be read; run `eqprop sweep --config` on the folder again", path.display());
        let entries: Vec<Entry> =
            serde_json::from_slice(&fs::read(&path).with_context(damaged)?).with_context(damaged)?;
        for entry in &entries {
            name::check(&entry.name, &path.display().to_string())?;
        }
        Ok(entries)
    }

    /// How a run stands; `None` where it is not planned.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn state(&self, name: &str) -> Result<Option<State>> {
        self.tickets.state(name)
    }

    /// The configuration of a run.
    pub fn config(&self, name: &str) -> PathBuf {
        self.path.join("configs").join(format!("{name}.toml"))
    }

    /// `runs/`.
    pub fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The last checkpoint of a run.
    fn last_checkpoint(&self, name: &str) -> PathBuf {
        self.checkpoints().join(name).join("last.safetensors")
    }

    /// All runs with the share of each that is done, as its last checkpoint says.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn standing(&self) -> Result<Vec<(Entry, f64)>> {
        let entries = self.entries()?;
        (entries.into_iter())
            .map(|entry| {
                let share = match self.state(&entry.name)? {
                    Some(State::Done | State::Failed(_)) => 1.0,
                    _ => self.share_done(&entry.name).unwrap_or(0.0),
                };
                Ok((entry, share))
            })
            .collect()
    }

    /// The share of a run's epochs that its last checkpoint has behind it; `None` where there is none.
    fn share_done(&self, name: &str) -> Option<f64> {
        let (_, progress) = checkpoint::read_progress(&self.last_checkpoint(name)).ok()?;
        Some(progress.epoch as f64 / progress.config.training.epochs as f64)
    }

    /// Adds runs to the plan. Those that are there already stay as they stand, unless they now have more
    /// epochs or `retry` asks for failed ones once more.
    ///
    /// # Errors
    /// Where a run is there with other science, another process is planning here, or something cannot be written.
    pub fn add(&self, sweep: &Path, planned: &[(Planned, f64)], retry: bool) -> Result<()> {
        for (run, _) in planned {
            self.check_unchanged(run)?;
        }
        files::create_folder(&self.path)?;
        let _ours = Lock::wait(&self.path, PATIENCE)?;
        // Once more: what has been planned meanwhile.
        for (run, _) in planned {
            self.check_unchanged(run)?;
        }
        self.tickets.create()?;
        for folder in [self.path.join("configs"), self.path.join("sweeps"), self.runs(), self.checkpoints()] {
            files::create_folder(&folder)?;
        }
        // Not in the folder itself, where job scripts and reports are written without the lock.
        for folder in ["configs", "sweeps"] {
            files::remove_temporaries(&self.path.join(folder))?;
        }
        let text = fs::read(sweep).with_context(|| format!("{}: cannot be read", sweep.display()))?;
        let file_name = sweep.file_name().context("the sweep file has no name")?;
        files::write_atomically(&self.path.join("sweeps").join(file_name), &text)?;
        let mut entries = self.entries()?;
        for (run, seconds) in planned {
            let entry = Entry { name: run.name.clone(), seconds: *seconds };
            match entries.iter_mut().find(|entry| entry.name == run.name) {
                Some(known) => *known = entry,
                None => entries.push(entry),
            }
        }
        files::write_atomically(&self.path.join("plan.json"), &serde_json::to_vec_pretty(&entries)?)?;
        for (run, _) in planned {
            let longer = self
                .earlier(run)?
                .is_some_and(|earlier| earlier.config.training.epochs < run.resolved.config.training.epochs);
            if longer || !self.config(&run.name).exists() {
                files::write_atomically(&self.config(&run.name), run.resolved.annotated().as_bytes())?;
            }
            match self.tickets.state(&run.name)? {
                None => self.tickets.add(&run.name)?,
                Some(State::Done) if longer => self.tickets.again(&run.name)?,
                Some(State::Failed(_)) if longer || retry => self.tickets.again(&run.name)?,
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The configuration that a run of this name has in the folder.
    fn earlier(&self, run: &Planned) -> Result<Option<Resolved>> {
        let path = self.config(&run.name);
        match path.exists() {
            true => Ok(Some(Resolved::new(&Choices { config: Some(path), ..Choices::default() })?)),
            false => Ok(None),
        }
    }

    fn check_unchanged(&self, run: &Planned) -> Result<()> {
        let Some(earlier) = self.earlier(run)? else { return Ok(()) };
        let changes = run.resolved.changed_science(&earlier.config)?;
        if !changes.is_empty() {
            bail!(
                "{}: run {} is there with other settings ({}): give the row a label, or choose another \
                 folder with --out",
                self.path.display(),
                run.name,
                changes.join("; ")
            );
        }
        Ok(())
    }
}
