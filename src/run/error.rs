//! Errors of preparing, resuming, training and saving a run.

use super::checkpoint;
use crate::base::output::Usage;
use crate::base::{files, lock};
use crate::{config, data};

/// The reason why a run cannot be prepared, resumed, trained or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong request of the user's.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// There is no valid configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Its data cannot be loaded.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Another process works on it, or its folders cannot be locked.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// One of its files or folders cannot be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// The existing files do not allow the request; says what to do.
    #[error("{0}")]
    Refused(String),
    /// The tensor library has failed.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
    /// The engine or the telemetry has failed.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The result of an operation on a run.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// True where the request is wrong: the user must change the command, not the files.
    pub fn is_usage(&self) -> bool {
        match self {
            Error::Usage(_) | Error::Config(config::Error::Usage(_)) | Error::Data(data::Error::Usage(_)) => {
                true
            }
            Error::Other(error) => error.is::<Usage>(),
            _ => false,
        }
    }
}

/// Returns an [`Error::Refused`] with a formatted message.
macro_rules! refuse {
    ($($message:tt)*) => { return Err($crate::run::Error::Refused(format!($($message)*))) };
}
pub(super) use refuse;
