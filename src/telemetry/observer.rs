//! Observers of a run while it trains, and the data they get.

use super::metrics::Metrics;
use crate::engine::Report;
use crate::model::network::Parameters;
use anyhow::Result;

/// An observer of a run in training, with its work after an epoch beside testing and saving. A new one is a file of
/// its own and a line in `run::train`. Fails where a file cannot be written, which the error names, or candle fails.
pub trait Observer {
    /// Called when a minibatch begins.
    fn begin(&mut self) {}

    /// Called after each minibatch; `train_error` in percent, of the epoch (from 1) so far.
    fn minibatch(&mut self, _epoch: usize, _train_error: f64) {}

    /// Looks closer at the network after an epoch. The outcome is dropped where `stop` turns true, since the run then
    /// ends, and closes the epoch when it is resumed.
    fn measure(&mut self, _epoch: &Epoch, _stop: &dyn Fn() -> bool) -> Result<()> {
        Ok(())
    }

    /// Called when an epoch is complete. Adds to its metrics, or shows them.
    fn epoch(&mut self, _epoch: &mut Epoch) -> Result<()> {
        Ok(())
    }

    /// Called when the run is complete, after so many epochs.
    fn done(&mut self, _epochs: usize) -> Result<()> {
        Ok(())
    }
}

/// An epoch that has been trained and tested.
pub struct Epoch {
    /// Its number; 0 is before training.
    pub number: usize,
    /// True for the last epoch of the run.
    pub last: bool,
    /// True where the network is to be looked at closer: before training, and then every `training.angle_every`
    /// epochs.
    pub due: bool,
    /// The weights after it.
    pub theta: Parameters,
    /// The results of training; `None` before training.
    pub trained: Option<Report>,
    /// The results on the images held out, where there are any.
    pub validation: Option<Report>,
    /// The results on the test images.
    pub test: Report,
    /// The error that judges it.
    pub judged: Judged,
    /// True where the network has lost what it had learnt.
    pub collapsed: bool,
    /// Its numbers.
    pub metrics: Metrics,
}

/// The error that judges a run while it trains: on the validation images where some are held out, else on the test
/// images. Percent.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// `validation` or `test`.
    pub set: &'static str,
    /// The error now.
    pub error: f64,
    /// The lowest so far, this one included.
    pub best: f64,
    /// True where it is lower than all before.
    pub improved: bool,
}

/// The length of a run, and the part that is done.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Its name.
    pub name: String,
    /// Epochs in all.
    pub epochs: usize,
    /// Minibatches in all.
    pub total: u64,
    /// Minibatches done.
    pub done: u64,
}
