//! Who follows a run while it trains, and what they are told.

use super::metrics::Metrics;
use crate::engine::Report;
use crate::model::network::Parameters;
use anyhow::Result;

/// Follows a run while it trains, and does what there is to do after an epoch beside testing and saving. A new one is a
/// file of its own and a line in `run::train`. Fails where a file cannot be written, which the error names, or candle fails.
pub trait Observer {
    /// A minibatch begins.
    fn begin(&mut self) {}

    /// One minibatch more; `train_error` in percent, of the epoch (from 1) so far.
    fn minibatch(&mut self, _epoch: usize, _train_error: f64) {}

    /// Looks closer at the network after an epoch. What that shows is dropped where `stop` comes to say so, since the run
    /// then ends, and closes the epoch when it goes on.
    fn measure(&mut self, _epoch: &Epoch, _stop: &dyn Fn() -> bool) -> Result<()> {
        Ok(())
    }

    /// An epoch is complete. Adds to its metrics what others are to write, or shows it.
    fn epoch(&mut self, _epoch: &mut Epoch) -> Result<()> {
        Ok(())
    }

    /// The run is complete, after so many epochs.
    fn done(&mut self, _epochs: usize) -> Result<()> {
        Ok(())
    }
}

/// An epoch that has been trained and tested.
pub struct Epoch {
    /// Its number; 0 is before training.
    pub number: usize,
    /// Whether it is the last of the run.
    pub last: bool,
    /// Whether the network is to be looked at closer: before training, and then every `training.angle_every` epochs.
    pub due: bool,
    /// The weights after it.
    pub theta: Parameters,
    /// What training has shown, but before training.
    pub trained: Option<Report>,
    /// What the images held out have shown, where there are any.
    pub validation: Option<Report>,
    /// What the test images have shown.
    pub test: Report,
    /// What it is judged by.
    pub judged: Judged,
    /// Whether the network has lost what it knew.
    pub collapsed: bool,
    /// Its numbers.
    pub metrics: Metrics,
}

/// What a run is judged by while it trains: the error on the validation images where some are held out, else on
/// the test images. Percent.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// `validation` or `test`.
    pub set: &'static str,
    /// The error now.
    pub error: f64,
    /// The lowest so far, this one included.
    pub best: f64,
    /// Whether none was as low before.
    pub improved: bool,
}

/// How long a run is, and how far it has come.
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
