//! What a person sees of a run: a bar on a terminal, a line an epoch elsewhere; all on stderr.

pub use super::observer::{Extent, Judged, Observer};
use crate::base::time::duration;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The bars that are on the screen, if any, so that log lines can be printed above them.
static BARS: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Where bars can be put; `None` where stderr is no terminal.
pub fn screen() -> Option<MultiProgress> {
    let bars = io::stderr().is_terminal().then(MultiProgress::new);
    if let Ok(mut shown) = BARS.lock() {
        shown.clone_from(&bars);
    }
    bars
}

/// A bar of this look with so much to do.
pub(super) fn bar(look: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(look).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

/// stderr, for progress and log lines: keeps them clear of progress bars, and drops what nobody reads.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bars = BARS.lock().map(|bars| bars.clone()).unwrap_or_default();
        // A full or closed stderr is no reason to end a run.
        let _ = match bars {
            Some(bars) => bars.suspend(|| io::stderr().write_all(bytes)),
            None => io::stderr().write_all(bytes),
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says a line of progress on stderr.
pub fn say(line: &str) {
    // Stderr drops what cannot be written.
    let _ = Stderr.write_all(format!("{line}\n").as_bytes());
}

/// Shows on stderr how far a run is.
pub struct Display {
    bar: Option<ProgressBar>,
    epochs: usize,
    total: u64,
    done: u64,
    /// When the first minibatch began.
    started: Option<Instant>,
    done_at_start: u64,
    last_shown: Instant,
    errors: String,
}

impl Display {
    /// For a run that is about to begin or go on.
    pub fn new(run: &Extent) -> Self {
        let &Extent { epochs, total, done, .. } = run;
        let look = "{msg}\n{wide_bar:.cyan/dim} {pos}/{len}";
        let bar = screen().map(|screen| screen.add(bar(look, total).with_position(done)));
        let now = Instant::now();
        let errors = String::new();
        Self { bar, epochs, total, done, started: None, done_at_start: done, last_shown: now, errors }
    }

    /// Minibatches a second since the first, testing and saving included, and the time left at that speed, in words;
    /// nothing where no time has passed.
    fn pace(&self) -> String {
        let elapsed = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let speed = (self.done - self.done_at_start) as f64 / elapsed;
        if !speed.is_normal() {
            return String::new();
        }
        let left = (self.total - self.done) as f64 / speed;
        format!("  {speed:.0} minibatches/s  {} elapsed, {} left", duration(elapsed), duration(left))
    }
}

impl Observer for Display {
    fn begin(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    fn minibatch(&mut self, epoch: usize, train_error: f64) {
        self.done += 1;
        let Some(bar) = &self.bar else { return };
        if self.last_shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.last_shown = Instant::now();
        bar.set_position(self.done);
        bar.set_message(format!(
            "epoch {epoch}/{}  train error {train_error:.2} %{}{}",
            self.epochs,
            self.errors,
            self.pace()
        ));
    }

    fn epoch(&mut self, epoch: usize, train: Option<f64>, judged: Judged) {
        let Judged { set, error, best } = judged;
        self.errors = format!("  {set} error {error:.2} % (best {best:.2})");
        let train = train.map_or(String::new(), |error| format!("  train error {error:6.2} %"));
        let pace = self.pace();
        say(&format!(
            "epoch {epoch:>3}/{}{train}  {set} error {error:6.2} %  best {best:6.2} %{pace}",
            self.epochs
        ));
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
