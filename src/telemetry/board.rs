//! Progress of many runs for people: one bar per run and one for all on a terminal, one line per run elsewhere.

use super::observer::{Epoch, Extent, Observer};
use super::progress::{bar, say, screen};
use crate::base::panic::guard;
use crate::base::time::duration;
use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Many runs, as this process sees them.
pub struct Board {
    screen: Option<MultiProgress>,
    overall: Option<ProgressBar>,
    workers: usize,
    begun: Instant,
    estimates: Mutex<Estimates>,
}

/// The amount of work, in estimated seconds.
struct Estimates {
    /// By run: the whole, and the share of it that is done.
    runs: BTreeMap<String, (f64, f64)>,
    /// The work done before this process began.
    before: f64,
    finished: usize,
}

impl Estimates {
    fn total(&self) -> f64 {
        self.runs.values().map(|(seconds, _)| seconds).sum()
    }

    fn done(&self) -> f64 {
        self.runs.values().map(|(seconds, share)| seconds * share).sum()
    }
}

impl Board {
    /// A board for these runs (name, estimated seconds, share done), `workers` at a time.
    pub fn new(runs: impl IntoIterator<Item = (String, f64, f64)>, workers: usize) -> Self {
        let runs: BTreeMap<_, _> =
            runs.into_iter().map(|(name, seconds, done)| (name, (seconds, done))).collect();
        let finished = runs.values().filter(|(_, done)| *done >= 1.0).count();
        let mut estimates = Estimates { runs, before: 0.0, finished };
        estimates.before = estimates.done();
        let screen = screen();
        let overall = screen.as_ref().map(|screen| screen.add(bar("{wide_bar:.green/dim} {msg}", 1000)));
        let board =
            Self { screen, overall, workers, begun: Instant::now(), estimates: Mutex::new(estimates) };
        board.show_overall();
        board
    }

    fn with<R>(&self, look: impl FnOnce(&mut Estimates) -> R) -> R {
        look(&mut guard(&self.estimates))
    }

    /// The time left: at the pace so far, once there is one; before that as estimated.
    fn left(&self) -> f64 {
        let elapsed = self.begun.elapsed().as_secs_f64();
        let (left, done) = self
            .with(|estimates| (estimates.total() - estimates.done(), estimates.done() - estimates.before));
        let pace = if elapsed > 30.0 && done > 0.0 { done / elapsed } else { self.workers as f64 };
        left / pace
    }

    fn show_overall(&self) {
        let Some(overall) = &self.overall else { return };
        let (share, finished, count) = self.with(|estimates| {
            (estimates.done() / estimates.total().max(1e-9), estimates.finished, estimates.runs.len())
        });
        overall.set_position((1000.0 * share) as u64);
        overall.set_message(format!("{finished} of {count} runs done  {} left", duration(self.left())));
    }

    /// Follows a run that begins or resumes.
    pub fn follow(&self, run: &Extent) -> Line<'_> {
        let bar = self.screen.as_ref().map(|screen| {
            let bar = bar("{prefix}  {bar:24.cyan/dim} {msg}", run.total);
            screen.insert_from_back(1, bar.with_prefix(run.name.clone()).with_position(run.done))
        });
        let (first, now) = (run.done, Instant::now());
        Line { board: self, run: run.clone(), bar, first, begun: now, shown: now, errors: String::new() }
    }

    /// Reports in one line that a run has ended, well or not.
    pub fn finish(&self, name: &str, how: &str) {
        let (finished, count) = self.with(|estimates| {
            if let Some(run) = estimates.runs.get_mut(name) {
                run.1 = 1.0;
            }
            estimates.finished += 1;
            (estimates.finished, estimates.runs.len())
        });
        self.show_overall();
        say(&format!("[{finished}/{count}] {name}: {how}; {} left", duration(self.left())));
    }
}

/// One run on the board.
pub struct Line<'a> {
    board: &'a Board,
    run: Extent,
    bar: Option<ProgressBar>,
    first: u64,
    begun: Instant,
    shown: Instant,
    errors: String,
}

impl Line<'_> {
    /// The last error by which it is judged, in words, and how long the run took here.
    pub fn summary(&self) -> String {
        format!("{}{}", self.errors, duration(self.begun.elapsed().as_secs_f64()))
    }
}

impl Observer for Line<'_> {
    fn minibatch(&mut self, epoch: usize, train_error: f64) {
        self.run.done += 1;
        if self.shown.elapsed() < Duration::from_millis(250) {
            return;
        }
        self.shown = Instant::now();
        let share = self.run.done as f64 / self.run.total.max(1) as f64;
        self.board.with(|estimates| {
            if let Some(run) = estimates.runs.get_mut(&self.run.name) {
                run.1 = share.min(1.0);
            }
        });
        if let Some(bar) = &self.bar {
            let pace = (self.run.done - self.first) as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
            let left = (self.run.total - self.run.done) as f64 / pace;
            bar.set_position(self.run.done);
            bar.set_message(format!(
                "epoch {epoch}/{}  train {train_error:.2} %  {}{} left",
                self.run.epochs,
                self.errors,
                duration(left)
            ));
        }
        self.board.show_overall();
    }

    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        self.errors = format!("{} error {:.2} %, ", epoch.judged.set, epoch.judged.error);
        let (epoch, Extent { name, epochs, .. }) = (epoch.number, &self.run);
        let tenth = |epoch: usize| 10 * epoch / epochs;
        if self.bar.is_none() && epoch > 0 && epoch < *epochs && tenth(epoch) > tenth(epoch - 1) {
            let left = duration(self.board.left());
            say(&format!("{name} epoch {epoch}/{epochs}: {}{left} left in all", self.errors));
        }
        Ok(())
    }
}
