//! Why a run cannot be prepared, gone on with, trained or saved.

use super::checkpoint;
use crate::base::output::Usage;
use crate::base::{files, lock};
use crate::{config, data};

/// Why a run cannot be prepared, gone on with, trained or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is wrong.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// Its configuration cannot be had.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Its data cannot be had.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Another process has it, or its folders cannot be locked.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// A file or folder of it cannot be read or written.
    #[error(transparent)]
    File(#[from] files::Error),
    /// What is there does not allow what was asked for; says what to do.
    #[error("{0}")]
    Refused(String),
    /// What its network computes cannot be computed.
    #[error(transparent)]
    Model(#[from] candle_core::Error),
    /// The engine or the telemetry has failed.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What comes of a run, or why nothing does.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether what was asked for is wrong: other words are needed, not other files.
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
