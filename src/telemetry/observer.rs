//! Who follows a run while it trains, and what they are told.

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
}

/// Follows a run while it trains.
pub trait Observer {
    /// A minibatch begins.
    fn begin(&mut self) {}
    /// One minibatch more; `train_error` in percent, of the epoch (from 1) so far.
    fn minibatch(&mut self, epoch: usize, train_error: f64);
    /// An epoch is complete, with this train error in percent. Epoch 0 is before training.
    fn epoch(&mut self, epoch: usize, train: Option<f64>, judged: Judged);
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
