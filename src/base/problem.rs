//! What of a configuration is not possible.

/// What is wrong with a configuration: a key, and what to do about it.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// Nothing, unless there is a problem.
pub type Result = std::result::Result<(), Problem>;

/// Sees that `met` is so, and says of the key what should be.
///
/// # Errors
/// That, where it is not so.
pub fn need(met: bool, key: &'static str, message: impl Into<String>) -> Result {
    if met { Ok(()) } else { Err(Problem { key, message: message.into() }) }
}
