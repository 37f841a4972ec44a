//! Why a configuration cannot be had.

use super::Problem;
use crate::base::output::Usage;

/// Why a configuration cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for is wrong: an unknown key, an impossible value, a combination. Names the key, the place it
    /// came from and the remedy.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// A file that cannot be read.
    #[error("{problem}")]
    Unreadable {
        /// The file, and what to do.
        problem: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A configuration that is possible otherwise, checked without knowing where its values came from.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// A value that cannot be written as TOML.
    #[error(transparent)]
    Unwritable(#[from] toml::ser::Error),
    /// A built-in file that is not TOML.
    #[error(transparent)]
    Builtin(#[from] toml::de::Error),
}

/// What resolving a configuration gives.
pub type Result<T> = std::result::Result<T, Error>;
