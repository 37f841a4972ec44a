//! Errors of data sets.

use crate::base::output::Usage;
use std::path::Path;

/// The reason why a data set cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong request: the user must change the command, not the files.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// A file or folder is missing, damaged, or not the one asked for.
    #[error("{place}: {problem}")]
    Files {
        /// The file or folder.
        place: String,
        /// The problem, and the remedy.
        problem: String,
    },
    /// The images or labels do not fit a network of these sizes.
    #[error("{place}: {problem}")]
    Misfit {
        /// The source of the images.
        place: String,
        /// The size or label that does not fit, and the remedy.
        problem: String,
    },
    /// A place that is no folder, such as the hub, does not give the set.
    #[error("{problem}")]
    Unavailable {
        /// The place, and the remedy.
        problem: String,
        /// Its own error.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// The result of reading a data set.
pub type Result<T> = std::result::Result<T, Error>;

/// The result of reading a part of a file, or the problem with it; the caller, who knows the file, names it.
pub(super) type Parsed<T> = std::result::Result<T, String>;

impl Error {
    /// A file or folder with this problem.
    pub fn files(path: &Path, problem: impl ToString) -> Self {
        Error::Files { place: path.display().to_string(), problem: problem.to_string() }
    }

    /// A set without training images where they are needed.
    pub(super) fn only_to_test_on(place: &str) -> Self {
        let problem = "holds test images alone, so there is nothing to train on: `eqprop eval RUN --data-dir DIR` tests \
                       a trained network on them";
        Error::Files { place: place.into(), problem: problem.into() }
    }

    /// A file or folder with this problem, and the error of the library that reads it.
    pub fn unreadable(path: &Path, problem: &str, cause: &dyn std::error::Error) -> Self {
        Self::files(path, format!("{problem}: {}", with_causes(cause)))
    }
}

/// Returns an error about a file or folder with a formatted message.
macro_rules! refuse {
    ($path:expr, $($problem:tt)*) => {
        return Err($crate::data::Error::files($path, format!($($problem)*)))
    };
}
pub(super) use refuse;

/// An error and its causes, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
