//! Who runs what: a ticket a run, whose place says how it stands.
//!
//! A ticket lies in `waiting/`, `running/`, `done/` or `failed/`, and moves by rename, which is atomic on local
//! and shared file systems: of two workers that reach for a ticket one gets it and the other finds it gone. In
//! `running/` its name carries the worker's, who touches it now and then; a ticket whose worker is dead, or
//! has not touched it for [`STALE`], may be taken over, again by rename.

use crate::base::files;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a worker touches the tickets it holds.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// A ticket not touched for so long by a worker on another machine counts as left behind. The clocks of
/// machines that share a folder must agree better than this.
pub const STALE: Duration = Duration::from_secs(300);

/// How a run of a sweep stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has it.
    Waiting,
    /// Somebody has it, or had it when killed.
    Running,
    /// Complete.
    Done,
    /// It cannot be completed, for this reason.
    Failed(String),
}

/// The tickets of a sweep.
#[derive(Clone, Debug)]
pub struct Tickets {
    folder: PathBuf,
}

/// A ticket that is ours.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The run.
    pub name: String,
    path: PathBuf,
}

impl Tickets {
    /// The tickets in this folder, which may not exist yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Creates what does not exist yet.
    ///
    /// # Errors
    /// Names the folder that cannot be created.
    pub fn create(&self) -> Result<()> {
        for place in ["waiting", "running", "done", "failed"] {
            files::create_folder(&self.folder.join(place))?;
        }
        Ok(())
    }

    fn place(&self, place: &str, name: &str) -> PathBuf {
        self.folder.join(place).join(name)
    }

    /// The tickets in `running/`: name of the run, name of the worker, path.
    fn running(&self) -> Result<Vec<(String, String, PathBuf)>> {
        let folder = self.folder.join("running");
        let entries =
            fs::read_dir(&folder).with_context(|| format!("{}: cannot be listed", folder.display()))?;
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let (name, worker) = path.file_name()?.to_str()?.split_once('@')?;
                Some((name.to_string(), worker.to_string(), path.clone()))
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// How a run stands; `None` where it has no ticket.
    ///
    /// # Errors
    /// Where a ticket cannot be read.
    pub fn state(&self, name: &str) -> Result<Option<State>> {
        // In the order in which tickets move, so that one that moves meanwhile is not missed.
        if self.place("waiting", name).is_file() {
            return Ok(Some(State::Waiting));
        }
        if self.folder.is_dir() && self.running()?.iter().any(|(running, ..)| running == name) {
            return Ok(Some(State::Running));
        }
        if self.place("done", name).is_file() {
            return Ok(Some(State::Done));
        }
        let failed = self.place("failed", name);
        match fs::read_to_string(&failed) {
            Ok(reason) => Ok(Some(State::Failed(reason.trim().to_string()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{}: cannot be read", failed.display())),
        }
    }

    /// A new ticket, waiting.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add(&self, name: &str) -> Result<()> {
        let path = self.place("waiting", name);
        // An empty file is whole as soon as it is there.
        let created = File::options().append(true).create(true).open(&path);
        created.map(drop).with_context(|| format!("{}: cannot be created", path.display()))
    }

    /// Puts a ticket that is done or failed back to wait.
    ///
    /// # Errors
    /// Where it cannot be moved.
    pub fn again(&self, name: &str) -> Result<()> {
        for place in ["done", "failed"] {
            take(&self.place(place, name), &self.place("waiting", name))?;
        }
        Ok(())
    }

    /// The first ticket to be had: of those left behind, then of those waiting, in the order of `names`.
    ///
    /// # Errors
    /// Where tickets cannot be listed or moved.
    pub fn claim(&self, names: &[String]) -> Result<Option<Claim>> {
        if let Some(claim) = self.claim_abandoned()? {
            return Ok(Some(claim));
        }
        let worker = worker();
        for name in names {
            let path = self.place("running", &format!("{name}@{worker}"));
            if take(&self.place("waiting", name), &path)? {
                return Ok(Some(Claim { name: name.clone(), path }));
            }
        }
        Ok(None)
    }

    /// A ticket whose worker is no more.
    ///
    /// # Errors
    /// As [`Tickets::claim`].
    pub fn claim_abandoned(&self) -> Result<Option<Claim>> {
        let worker = worker();
        for (name, owner, old) in self.running()? {
            if owner != worker && abandoned(&owner, &old) {
                let path = self.place("running", &format!("{name}@{worker}"));
                if take(&old, &path)? {
                    return Ok(Some(Claim { name, path }));
                }
            }
        }
        Ok(None)
    }

    /// The run is complete.
    ///
    /// # Errors
    /// Where the ticket cannot be moved.
    pub fn done(&self, claim: &Claim) -> Result<()> {
        take(&claim.path, &self.place("done", &claim.name)).map(drop)
    }

    /// The run goes on another time.
    ///
    /// # Errors
    /// Where the ticket cannot be moved.
    pub fn release(&self, claim: &Claim) -> Result<()> {
        take(&claim.path, &self.place("waiting", &claim.name)).map(drop)
    }

    /// The run cannot be completed.
    ///
    /// # Errors
    /// Where that cannot be written down.
    pub fn failed(&self, claim: &Claim, reason: &str) -> Result<()> {
        // Into the ticket first: what is in failed/ has its reason, whenever we are killed.
        let written = File::options().write(true).truncate(true).open(&claim.path).and_then(|mut ticket| {
            ticket.write_all(reason.as_bytes())?;
            ticket.sync_all()
        });
        match written {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{}: cannot be written", claim.path.display())),
            Ok(()) => take(&claim.path, &self.place("failed", &claim.name)).map(drop),
        }
    }
}

impl Claim {
    /// Says that the worker is alive; `false` where the ticket is not ours any more.
    pub fn touch(&self) -> bool {
        File::options()
            .append(true)
            .open(&self.path)
            .and_then(|file| file.set_modified(SystemTime::now()))
            .is_ok()
    }

    /// Whether the ticket is ours.
    ///
    /// # Errors
    /// Where it is not.
    pub fn check(&self) -> Result<()> {
        if !self.path.is_file() {
            bail!("{}: another worker has taken this run over", self.name);
        }
        Ok(())
    }
}

/// Moves a ticket; `false` where it is not there (any more).
fn take(from: &Path, to: &Path) -> Result<bool> {
    let moved = File::options()
        .append(true)
        .open(from)
        // First, lest it look left behind where it goes.
        .and_then(|ticket| ticket.set_modified(SystemTime::now()))
        .and_then(|()| fs::rename(from, to));
    match moved {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be moved", from.display())),
    }
}

/// Whether the worker of this name, holding this ticket, is dead or has not been heard of for [`STALE`].
fn abandoned(worker: &str, ticket: &Path) -> bool {
    let mut parts = worker.splitn(3, '.');
    if parts.next() == Some(&machine())
        && let Some(Ok(process)) = parts.next().map(str::parse)
        && started(std::process::id()).is_some()
    {
        return started(process).as_deref() != parts.next();
    }
    let touched = fs::metadata(ticket).and_then(|ticket| ticket.modified());
    touched.is_ok_and(|touched| touched.elapsed().is_ok_and(|silent| silent > STALE))
}

/// The name of this process: machine, process number and when it began.
fn worker() -> String {
    let process = std::process::id();
    format!("{}.{process}.{}", machine(), started(process).unwrap_or_default())
}

/// The name of this machine: the host's, and what tells it from others, and containers, of the same name.
fn machine() -> String {
    let host = gethostname::gethostname().to_string_lossy().replace(['@', '.', '/'], "-");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let digest = Sha256::digest(format!("{boot}{}", namespace.display()));
    format!("{host}-{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2])
}

/// When a process began, in ticks since the machine did; `None` where there is no such process.
fn started(process: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the program in parentheses, may hold anything; the 22nd is the one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn tickets(names: &[&str]) -> (tempfile::TempDir, Tickets, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let tickets = Tickets::new(folder.path().join("tickets"));
        tickets.create().unwrap();
        for name in names {
            tickets.add(name).unwrap();
        }
        (folder, tickets, names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn of_many_who_reach_for_a_ticket_one_gets_it() {
        let names: Vec<String> = (0..200).map(|i| format!("run{i}")).collect();
        let refs: Vec<&str> = names.iter().map(String::as_str).collect();
        let (_folder, tickets, names) = tickets(&refs);
        let mut got: Vec<String> = thread::scope(|scope| {
            let reach = || {
                let mut got = Vec::new();
                while let Some(claim) = tickets.claim(&names).unwrap() {
                    got.push(claim.name);
                }
                got
            };
            let workers: Vec<_> = (0..8).map(|_| scope.spawn(reach)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        got.sort();
        let mut expected = names;
        expected.sort();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_ticket_moves_as_its_run_does() {
        let (_folder, tickets, names) = tickets(&["a", "b"]);
        let state = |name: &str| tickets.state(name).unwrap();
        let claim = tickets.claim(&names).unwrap().unwrap();
        assert_eq!(
            (claim.name.as_str(), state("a"), state("b")),
            ("a", Some(State::Running), Some(State::Waiting))
        );
        assert!(claim.touch() && claim.check().is_ok());
        tickets.done(&claim).unwrap();
        assert_eq!(state("a"), Some(State::Done));
        assert!(!claim.touch() && claim.check().is_err());
        let claim = tickets.claim(&names).unwrap().unwrap();
        tickets.failed(&claim, "no reason").unwrap();
        assert_eq!(state("b"), Some(State::Failed("no reason".into())));
        assert!(tickets.claim(&names).unwrap().is_none());
        tickets.again("b").unwrap();
        tickets.release(&tickets.claim(&names).unwrap().unwrap()).unwrap();
        assert_eq!((state("b"), state("c")), (Some(State::Waiting), None));
    }

    #[test]
    fn tickets_of_the_dead_and_the_silent_are_taken_over() {
        let (_folder, tickets, _) = tickets(&[]);
        let place = |worker: &str, silent: u64| {
            let path = tickets.place("running", &format!("a@{worker}"));
            fs::write(&path, b"").unwrap();
            let then = SystemTime::now() - Duration::from_secs(silent);
            File::options().append(true).open(&path).unwrap().set_modified(then).unwrap();
            path
        };
        let alive = format!("{}.1.{}", machine(), started(1).unwrap_or_default());
        let far = STALE.as_secs();
        for (worker, silent, expected) in [
            ("elsewhere-abc.1.2", 0, false),
            ("elsewhere-abc.1.2", far - 20, false),
            ("elsewhere-abc.1.2", far + 20, true),
            (alive.as_str(), far + 20, false),
            (&format!("{}.1.7", machine()), 0, true),
            (&format!("{}.4194305.7", machine()), 0, true),
        ] {
            let path = place(worker, silent);
            let claim = tickets.claim_abandoned().unwrap();
            assert_eq!(claim.is_some(), expected, "{worker} silent for {silent} s");
            claim
                .map(|claim| fs::remove_file(claim.path).unwrap())
                .unwrap_or_else(|| fs::remove_file(path).unwrap());
        }
    }
}
