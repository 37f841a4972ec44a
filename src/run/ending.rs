//! The result of a run at its end, and the commands that may follow.

use super::error::Result;
use super::progress::Progress;
use crate::telemetry::records::Told;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The end of a run, known before it is trained.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Its folder `runs/NAME`.
    pub(super) records: PathBuf,
    /// The part of the result that is known before training.
    pub(super) known: Finished,
    /// Commands that may follow: purpose and command.
    pub next: Vec<(&'static str, String)>,
}

/// The result of a run. Errors in percent; `None` where its folder does not have them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finished {
    /// Its name.
    pub run: String,
    /// Its data set.
    pub data: String,
    /// Completed epochs.
    pub epochs: usize,
    /// Test error after the last epoch.
    pub test_error_percent: Option<f64>,
    /// Test error after the best epoch.
    pub best_test_error_percent: Option<f64>,
    /// The best epoch: the first with the lowest error of those that judge it; 0 is before training.
    pub best_epoch: Option<usize>,
    /// The images by which it is the best: `validation` or `test`.
    pub best_by: &'static str,
    /// Train error of the last epoch.
    pub train_error_percent: Option<f64>,
    /// True where nothing was left to train.
    pub already_done: bool,
}

impl Finished {
    /// The part of the result that a checkpoint has.
    pub(super) fn known(progress: &Progress, run: &str, already_done: bool) -> Self {
        let held_out = progress.config.training.validation > 0;
        Self {
            run: run.into(),
            data: progress.data.clone(),
            epochs: if already_done { progress.epoch } else { progress.config.training.epochs },
            test_error_percent: None,
            best_test_error_percent: progress.best_test_error.filter(|_| already_done && !held_out),
            best_epoch: None,
            best_by: if held_out { "validation" } else { "test" },
            train_error_percent: None,
            already_done,
        }
    }

    /// The result of a run that has completed `epochs` epochs, from its folder. `held_out`: images were held out to
    /// choose the best epoch on.
    ///
    /// # Errors
    /// Where its `metrics.jsonl` cannot be read, or is not what a run writes.
    pub fn recorded(folder: &Path, run: &str, data: &str, epochs: usize, held_out: bool) -> Result<Self> {
        let finished = Self {
            run: run.into(),
            data: data.into(),
            epochs,
            test_error_percent: None,
            best_test_error_percent: None,
            best_epoch: None,
            best_by: if held_out { "validation" } else { "test" },
            train_error_percent: None,
            already_done: false,
        };
        finished.with_records(folder)
    }

    /// Adds what the folder of the run has recorded up to its last epoch.
    fn with_records(self, folder: &Path) -> Result<Self> {
        let lines = Told::lines(folder, self.epochs + 1)?;
        let judge = format!("error/{}", self.best_by);
        let (mut finished, mut lowest) = (self, f64::INFINITY);
        for line in &lines {
            let number = |tag: &str| line.get(tag).and_then(serde_json::Value::as_f64);
            let Some(epoch) = line.get("epoch").and_then(serde_json::Value::as_u64) else { continue };
            let epoch = epoch as usize;
            if epoch > finished.epochs {
                continue;
            }
            if let Some(error) = number(&judge).filter(|error| *error < lowest) {
                lowest = error;
                finished.best_epoch = Some(epoch);
                finished.best_test_error_percent = number("error/test");
            }
            if epoch == finished.epochs {
                finished.test_error_percent = number("error/test");
                finished.train_error_percent = number("error/train");
            }
        }
        Ok(finished)
    }

    /// The result as one line for people.
    pub fn line(&self) -> String {
        let percent = |error: Option<f64>| error.map_or("unknown".into(), |error| format!("{error:.2} %"));
        let mut text = format!("{}: ", self.run);
        if self.already_done {
            text += "already done, ";
        }
        text += &format!(
            "{} test error on {} after {} epochs, best {}",
            percent(self.test_error_percent),
            self.data,
            self.epochs,
            percent(self.best_test_error_percent)
        );
        if let Some(epoch) = self.best_epoch {
            text += &format!(" in epoch {epoch}");
        }
        if self.best_by != "test" {
            text += &format!(" (chosen by {} error)", self.best_by);
        }
        if let Some(error) = self.train_error_percent {
            text += &format!(", train error {error:.2} %");
        }
        text + "\n"
    }
}

impl Ending {
    /// The result, once the run has ended.
    ///
    /// # Errors
    /// Where its `metrics.jsonl` cannot be read, or is not what a run writes.
    pub fn finished(&self) -> Result<Finished> {
        self.known.clone().with_records(&self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_epoch_is_the_first_with_the_lowest_error_of_those_that_judge_it() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [(0, 90.0, 90.0), (1, 6.0, 5.0), (2, 4.0, 5.0), (3, 3.0, 7.0)].map(
            |(epoch, test, validation)| {
                format!("{{\"epoch\":{epoch},\"error/test\":{test},\"error/validation\":{validation},\"error/train\":1.5}}\n")
            },
        );
        std::fs::write(folder.path().join(crate::telemetry::records::METRICS), lines.concat()).unwrap();
        let known = |best_by| Finished {
            run: "r".into(),
            data: "mnist".into(),
            epochs: 3,
            test_error_percent: None,
            best_test_error_percent: None,
            best_epoch: None,
            best_by,
            train_error_percent: None,
            already_done: false,
        };
        let line = |best_by| known(best_by).with_records(folder.path()).unwrap().line();
        let all = "r: 3.00 % test error on mnist after 3 epochs, best";
        assert_eq!(line("test"), format!("{all} 3.00 % in epoch 3, train error 1.50 %\n"));
        assert_eq!(
            line("validation"),
            format!("{all} 6.00 % in epoch 1 (chosen by validation error), train error 1.50 %\n")
        );
        let gone = known("test").with_records(Path::new("nowhere")).unwrap().line();
        assert_eq!(gone, "r: unknown test error on mnist after 3 epochs, best unknown\n");
    }
}
