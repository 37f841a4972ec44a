//! Sweeps: many runs in one folder, trained by as many processes as there are, here or on a cluster.
//!
//! A sweep's folder holds `sweeps/` (the files it was made from), `plan.json` (its runs, in order), `configs/`,
//! `failed/` (why a run cannot be completed, one file for each), and `runs/` and `checkpoints/` as `train` leaves
//! them. A run is complete when its last checkpoint says so. It belongs to the process that holds the lock on its
//! folder, which the system releases when that process ends, in whatever way.

mod plan;
mod slurm;
mod work;

pub use plan::{SWEEPS, SweepFile, SweepRow};
pub use work::Workers;

use crate::base::files;
use crate::base::lock::Lock;
use crate::base::made::{check_no_link, cleared};
use crate::base::name;
use crate::base::output::usage;
use crate::config::{Choices, Resolved};
use crate::run::checkpoint;
use crate::telemetry::records;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest wait for another process that is planning in the folder; planning takes it much less.
const PATIENCE: Duration = Duration::from_secs(10);

/// A run of a sweep, in `plan.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// The estimated duration on one core of the machine that planned it, seconds.
    pub seconds: f64,
}

/// The state of a run of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// This share of its epochs is done, from 0 to below 1.
    Open(f64),
    /// All its epochs are done.
    Done,
    /// It cannot be completed, for this reason.
    Failed(String),
}

impl State {
    /// True where work is left.
    pub fn is_open(&self) -> bool {
        matches!(self, State::Open(_))
    }

    /// The share of the work that is done, or needs no more doing.
    pub fn share(&self) -> f64 {
        if let State::Open(share) = self { *share } else { 1.0 }
    }
}

/// A sweep's folder.
#[derive(Clone, Debug)]
pub struct SweepFolder {
    /// Its path; it need not exist yet.
    pub path: PathBuf,
}

/// The effect of planning on a run.
#[derive(Clone, Copy, PartialEq)]
enum Planning {
    /// It does not exist, or has fewer epochs.
    New,
    /// It exists with other settings that do not change the science.
    Other,
    /// Nothing.
    Same,
}

impl SweepFolder {
    /// Its runs in the order in which they were planned; empty where nothing is planned yet.
    ///
    /// # Errors
    /// Where the plan is there but cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let path = self.path.join("plan.json");
        let Some(text) = files::read_if_there(&path)? else { return Ok(Vec::new()) };
        let entries: Vec<Entry> = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{}: cannot be read: move it away, and say `eqprop sweep --config` with the folder again, \
                 which plans the runs of that file anew and resumes those that exist",
                path.display()
            )
        })?;
        for entry in &entries {
            name::check(&entry.name, &path.display().to_string())?;
        }
        Ok(entries)
    }

    /// The state of a run, from its checkpoint, its configuration and `failed/`.
    ///
    /// # Errors
    /// Where it has failed for a reason that cannot be read.
    pub fn state(&self, name: &str) -> Result<State> {
        if let Some(reason) = files::read_if_there(&self.failed(name))? {
            return Ok(State::Failed(String::from_utf8_lossy(&reason).trim().to_string()));
        }
        let last = self.path.join("checkpoints").join(name).join("last.safetensors");
        // Errors in a configuration, or a checkpoint of another run, are reported when the run is to be trained.
        let (Ok(wanted), Some(progress)) =
            (Resolved::new(&self.choices(name)), checkpoint::progress_in_header(&last))
        else {
            return Ok(State::Open(0.0));
        };
        let (done, epochs) = (progress.epoch, wanted.config.training.epochs);
        Ok(match wanted.changed_science(&progress.config)?.is_empty() {
            true if done >= epochs => State::Done,
            true => State::Open(done as f64 / epochs as f64),
            false => State::Open(0.0),
        })
    }

    /// The choices that a run is made from.
    pub fn choices(&self, name: &str) -> Choices {
        Choices { config: Some(self.config(name)), ..Choices::default() }
    }

    /// Its configuration.
    fn config(&self, name: &str) -> PathBuf {
        self.path.join("configs").join(format!("{name}.toml"))
    }

    /// `runs/`.
    pub fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    /// The file with the reason why a run has failed, if it has.
    fn failed(&self, name: &str) -> PathBuf {
        self.path.join("failed").join(name)
    }

    /// Adds runs to the plan, whose earlier runs keep their places. Existing runs keep their science and their
    /// epochs, unless they now have more epochs; `retry` asks for failed ones once more.
    ///
    /// # Errors
    /// Where a run is there with other science, another process is planning here, or something cannot be written.
    pub fn add(&self, sweep: &Path, planned: &[(Entry, Resolved)], retry: bool) -> Result<()> {
        files::create_folder(&self.path)?;
        self.check_folders()?;
        let _planning = Lock::wait(&self.path, PATIENCE)?;
        let _turn = cleared(&self.path)?;
        // All are checked before anything is written.
        let planning = |(run, resolved): &(Entry, Resolved)| self.planning(&run.name, resolved);
        let planning = planned.iter().map(planning).collect::<Result<Vec<_>>>()?;
        let text = SweepFile::text(sweep)?.into_bytes();
        let mut copy = self.path.join("sweeps").join(sweep.file_name().unwrap_or_default());
        if copy.extension().is_none() {
            copy.set_extension("toml");
        }
        if !self.path.join("plan.json").exists() {
            let configs = planned
                .iter()
                .map(|(run, resolved)| (self.config(&run.name), resolved.annotated().into_bytes()));
            for (path, contents) in configs.chain([(copy.clone(), text.clone())]) {
                check_not_foreign(&path, &contents)?;
            }
        }
        files::create_folder(&self.path.join("failed"))?;
        // These folders are written without the lock that is held here.
        for folder in ["configs", "sweeps"].map(|name| self.path.join(name)) {
            files::create_folder(&folder)?;
            files::remove_temporaries(&folder)?;
        }
        files::write_atomically(&copy, &text)?;
        let mut entries = self.entries()?;
        for ((run, resolved), planning) in planned.iter().zip(planning) {
            match entries.iter_mut().find(|known| known.name == run.name) {
                Some(known) => *known = run.clone(),
                None => entries.push(run.clone()),
            }
            if planning != Planning::Same {
                files::write_atomically(&self.config(&run.name), resolved.annotated().as_bytes())?;
            }
            let failed = self.failed(&run.name);
            if (planning == Planning::New || retry) && failed.exists() {
                fs::remove_file(&failed).map_err(files::failed(&failed, "cannot be removed"))?;
            }
        }
        // Last, so that a run in the plan has its configuration.
        Ok(files::write_atomically(&self.path.join("plan.json"), &serde_json::to_vec_pretty(&entries)?)?)
    }

    /// Checks that everything a sweep writes stays in its folder.
    ///
    /// # Errors
    /// Names the folder that is a link.
    pub fn check_folders(&self) -> Result<()> {
        ["configs", "failed", "sweeps", "runs", "checkpoints"]
            .iter()
            .try_for_each(|name| check_no_link(&self.path.join(name)))
    }

    /// Checks that a run's folders, and the files in them, are no links, and that a run has written them.
    ///
    /// # Errors
    /// Names what does not.
    fn check_run(&self, name: &str) -> Result<()> {
        let records = self.runs().join(name);
        for folder in [&records, &self.path.join("checkpoints").join(name)] {
            check_no_link(folder)?;
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.into_iter().try_for_each(|entry| check_no_link(&entry.path()))?;
        }
        if files::holds_anything(&records) && !records::FILES.iter().any(|name| records.join(name).exists()) {
            bail!("{}: is not written by a run: move it away", records.display());
        }
        Ok(())
    }

    /// The effect of planning on a run, which must keep its science.
    fn planning(&self, name: &str, resolved: &Resolved) -> Result<Planning> {
        if !self.config(name).exists() {
            return Ok(Planning::New);
        }
        let there = Resolved::new(&self.choices(name))?.config;
        let changes = resolved.changed_science(&there)?;
        if !changes.is_empty() {
            bail!(
                "{}: run {name} exists with other settings ({}): give the row a label, or choose another \
                 folder with --out",
                self.path.display(),
                changes.join("; ")
            );
        }
        let (before, now) = (there.training.epochs, resolved.config.training.epochs);
        Ok(match () {
            () if before < now => Planning::New,
            () if before == now && there.values()? != resolved.config.values()? => Planning::Other,
            () => Planning::Same,
        })
    }
}

/// Checks that a file unknown to any plan is the one that would be written there.
fn check_not_foreign(path: &Path, contents: &[u8]) -> Result<()> {
    let is_same = |path: &Path| -> std::io::Result<bool> {
        let (file, size) = files::open(path)?;
        let mut there = Vec::new();
        file.take(contents.len() as u64).read_to_end(&mut there)?;
        Ok(size == contents.len() as u64 && there == contents)
    };
    if path.symlink_metadata().is_ok() && !is_same(path).unwrap_or(false) {
        usage!(
            "{}: already exists, and no sweep is planned in this folder: move it away, or choose another \
             folder with \
             --out",
            path.display()
        );
    }
    Ok(())
}
