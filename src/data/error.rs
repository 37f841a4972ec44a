//! Why a data set cannot be had.

use crate::base::output::Usage;
use std::path::Path;

/// Why a data set cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is wrong: other words are needed, not other files.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// A file or folder is missing, damaged, or not what was asked for.
    #[error("{place}: {problem}")]
    Files {
        /// The file or folder.
        place: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The images or labels are not for a network of these sizes.
    #[error("{place}: {problem}")]
    Misfit {
        /// Where the images came from.
        place: String,
        /// What does not fit, and what to change.
        problem: String,
    },
    /// A place that is no folder, such as the hub, does not give the set.
    #[error("{problem}")]
    Unavailable {
        /// Which place, and what to do.
        problem: String,
        /// What it said.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// What reading a data set gives.
pub type Result<T> = std::result::Result<T, Error>;

/// What a part of a file says, or what is wrong with it; whoever knows the file names it.
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

    /// A file or folder with this problem, of which the library that reads it says this.
    pub fn unreadable(path: &Path, problem: &str, cause: &dyn std::error::Error) -> Self {
        Self::files(path, format!("{problem}: {}", with_causes(cause)))
    }
}

/// Ends with this problem of a file or folder, in the words of `format!`.
macro_rules! refuse {
    ($path:expr, $($problem:tt)*) => {
        return Err($crate::data::Error::files($path, format!($($problem)*)))
    };
}
pub(super) use refuse;

/// An error and what caused it, on one line.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
