//! Errors of configurations.

use super::Problem;
use crate::base::output::Usage;

/// The reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong request: an unknown key, an impossible value, a combination. Names the key, the place it came from and
    /// the remedy.
    #[error(transparent)]
    Usage(#[from] Usage),
    /// A file that cannot be read.
    #[error("{problem}")]
    Unreadable {
        /// The file, and what to do.
        problem: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// An impossible configuration, checked without knowing where its values came from.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// A value that cannot be written as TOML.
    #[error(transparent)]
    Unwritable(#[from] toml::ser::Error),
    /// A built-in file that is not TOML.
    #[error(transparent)]
    Builtin(#[from] toml::de::Error),
}

/// The result of resolving a configuration.
pub type Result<T> = std::result::Result<T, Error>;
