//! The program's output: results on stdout, everything else on stderr, and the exit status that an error asks for.

use anyhow::Result;
use std::fmt;
use std::io::{self, ErrorKind, Write};

/// An error in what the user asked for: a value, a key, a combination. Exit status 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Returns a [`Usage`] error with a formatted message, as `bail!` does any error.
macro_rules! usage {
    ($($message:tt)*) => { return Err($crate::base::output::Usage(format!($($message)*)).into()) };
}
pub(crate) use usage;

/// stdout does not take a result.
#[derive(Debug, thiserror::Error)]
#[error("the result cannot be written to standard output: {0}")]
struct Unwritten(io::Error);

/// Writes a result to stdout, whole.
///
/// # Errors
/// Where stdout does not take it: a full disk, or a reader that is gone.
pub fn result(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(unwritten)
}

/// The error that [`result`] returns where stdout fails with this one.
pub fn unwritten(error: io::Error) -> anyhow::Error {
    Unwritten(error).into()
}

/// Prints what went wrong, unless nobody is left to read it, and returns the exit status: 2 for `wrong_usage`, 141
/// where the reader of stdout is gone, as SIGPIPE would give, and 1 otherwise.
pub fn complain(error: &anyhow::Error, wrong_usage: bool) -> u8 {
    let gone = |unwritten: &Unwritten| unwritten.0.kind() == ErrorKind::BrokenPipe;
    if error.downcast_ref().is_some_and(gone) {
        return 128 + 13;
    }
    to_stderr(&format!("eqprop: {error:#}\n"));
    if wrong_usage { 2 } else { 1 }
}

/// Prints an error on stderr; the text may contain words of the user's.
pub fn to_stderr(text: &str) {
    let lines: Vec<String> = text.split('\n').map(visible).collect();
    // Nothing can be done about a closed stderr.
    let _ = io::stderr().write_all(lines.join("\n").as_bytes());
}

/// A line whose control characters are spelt out, so that they have no effect on a terminal or a file.
pub fn visible(line: &str) -> String {
    let spell = |c: char| match is_control(c) {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    line.chars().map(spell).collect()
}

/// A text with lines and colours of ours in which the user's words stand: only the characters that [`is_control`]
/// names are spelt out.
pub fn undirected(text: &str) -> String {
    let spell = |c: char| match is_control(c) && !c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(spell).collect()
}

/// True for a character that shows nothing itself and changes how others look: control characters, ends of lines and
/// paragraphs, changes of the direction of writing, and characters without width. Those that join letters and emoji
/// are letters.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Quotes a text line by line, as [`quoted`] does.
pub fn quoted_lines(text: impl fmt::Display) -> String {
    text.to_string().trim_end().lines().map(quoted).collect::<Vec<_>>().join("\n")
}

/// The most characters of a value that a message quotes.
const QUOTED: usize = 200;

/// The beginning of a user's text, for a message.
pub fn quoted(text: impl fmt::Display) -> String {
    let text = text.to_string();
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
        None => text,
    }
}

/// A path or other text as one word of a shell, for commands that are to be pasted.
pub fn shell_word(text: impl fmt::Display) -> String {
    let text = text.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelt_out() {
        assert_eq!(visible("a\x1b[31mb\nψ\u{9b}"), "a\\u{1b}[31mb\\nψ\\u{9b}");
        assert_eq!(visible("a\u{202e}b\u{2066}\u{feff}"), "a\\u{202e}b\\u{2066}\\u{feff}");
        assert_eq!(visible("größe 👩\u{200d}🔬"), "größe 👩\u{200d}🔬");
    }

    #[test]
    fn a_message_quotes_the_beginning_of_what_is_long() {
        assert_eq!(quoted("ψ".repeat(200)), "ψ".repeat(200));
        assert_eq!(quoted("ψ".repeat(201)), "ψ".repeat(200) + "… (201 characters)");
    }

    #[test]
    fn shell_words_are_quoted_where_they_must_be() {
        for (text, word) in [("a/b-1.x", "a/b-1.x"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")] {
            assert_eq!(shell_word(text), word);
        }
    }
}
