//! Progress of one run for people: a bar on a terminal, a line per epoch elsewhere; all on stderr.

use super::observer::{Epoch, Extent, Judged, Observer};
use crate::base::output::undirected;
use crate::base::time::duration;
use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The bars that are on the screen, if any, so that log lines can be printed above them.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// The place for bars; `None` where stderr is no terminal.
pub fn screen() -> Option<MultiProgress> {
    let bars = io::stderr().is_terminal().then(MultiProgress::new);
    if let Ok(mut shown) = BARS.lock() {
        shown.clone_from(&bars);
    }
    bars
}

/// A bar of this look and length, which leaves the screen when it is dropped.
pub fn bar(template: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style).with_finish(ProgressFinish::AndClear)
}

/// stderr, for progress and log lines: keeps them clear of progress bars, and drops what nobody reads.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bars = BARS.lock().map(|bars| bars.clone()).unwrap_or_default();
        let text = undirected(&String::from_utf8_lossy(bytes));
        // A full or closed stderr is no reason to end a run.
        let _ = match bars {
            Some(bars) => bars.suspend(|| io::stderr().write_all(text.as_bytes())),
            None => io::stderr().write_all(text.as_bytes()),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints a line of progress on stderr.
pub fn say(line: &str) {
    // Stderr drops what cannot be written.
    let _ = Stderr.write_all(format!("{line}\n").as_bytes());
}

/// Shows the progress of a run on stderr.
pub struct Display {
    run: Extent,
    bar: Option<ProgressBar>,
    /// The time when the first minibatch began.
    started: Option<Instant>,
    done_at_start: u64,
    last_shown: Instant,
    errors: String,
}

impl Display {
    /// A display for a run that is about to begin or resume.
    pub fn new(run: &Extent) -> Self {
        let template = "{msg}\n{wide_bar:.cyan/dim} {pos}/{len}";
        Self::on(run, screen().map(|screen| screen.add(bar(template, run.total).with_position(run.done))))
    }

    /// A display that prints lines and has no bar.
    pub fn of_lines(run: &Extent) -> Self {
        Self::on(run, None)
    }

    fn on(run: &Extent, bar: Option<ProgressBar>) -> Self {
        // Until the first minibatch it shows the epoch that is about to be trained.
        if let Some(bar) = &bar {
            let per_epoch = (run.total / run.epochs.max(1) as u64).max(1);
            let epoch = (run.done / per_epoch + 1).min(run.epochs as u64);
            bar.set_message(format!("epoch {epoch}/{}", run.epochs));
        }
        let (done_at_start, last_shown) = (run.done, Instant::now());
        Self { run: run.clone(), bar, started: None, done_at_start, last_shown, errors: String::new() }
    }

    /// The line about an epoch.
    pub fn line(&self, epoch: &Epoch) -> String {
        let Judged { set, error, best, .. } = epoch.judged;
        let train = epoch.trained.map(|report| format!("  train error {:6.2} %", report.error_percent()));
        let (train, pace) = (train.unwrap_or_default(), self.pace());
        let (number, epochs) = (epoch.number, self.run.epochs);
        format!("epoch {number:>3}/{epochs}{train}  {set} error {error:6.2} %  best {best:6.2} %{pace}")
    }

    /// Minibatches a second since the first, testing and saving included, and the time left at that speed, in words;
    /// empty where no time has passed.
    fn pace(&self) -> String {
        let elapsed = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let speed = (self.run.done - self.done_at_start) as f64 / elapsed;
        if !speed.is_normal() {
            return String::new();
        }
        let left = (self.run.total - self.run.done) as f64 / speed;
        format!("  {speed:.0} minibatches/s  {} elapsed, {} left", duration(elapsed), duration(left))
    }
}

impl Observer for Display {
    fn begin(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    fn minibatch(&mut self, epoch: usize, train_error: f64) {
        self.run.done += 1;
        let Some(bar) = &self.bar else { return };
        if self.last_shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.last_shown = Instant::now();
        bar.set_position(self.run.done);
        bar.set_message(format!(
            "epoch {epoch}/{}  train error {train_error:.2} %{}{}",
            self.run.epochs,
            self.errors,
            self.pace()
        ));
    }

    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        let Judged { set, error, best, .. } = epoch.judged;
        self.errors = format!("  {set} error {error:.2} % (best {best:.2})");
        say(&self.line(epoch));
        Ok(())
    }
}
