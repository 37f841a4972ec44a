//! Problems of a configuration.

/// A problem of a configuration: a key, and what to do about it.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// The key.
    pub key: &'static str,
    /// The problem and its remedy.
    pub message: String,
}

/// The result of a check.
pub type Result = std::result::Result<(), Problem>;

/// Checks a condition on a key; `message` says what should hold.
///
/// # Errors
/// That, where it is not so.
pub fn need(met: bool, key: &'static str, message: impl Into<String>) -> Result {
    if met { Ok(()) } else { Err(Problem { key, message: message.into() }) }
}
