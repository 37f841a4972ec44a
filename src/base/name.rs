//! The names of runs. They become names of folders, so each is checked wherever it comes from: the command line, a
//! checkpoint's metadata, a sweep's plan, the name of a data folder.

use crate::base::output::{Usage, is_control, quoted, usage};

/// The longest name in bytes; file systems take 255, of which `.1`, `-data` and the like need some.
const LONGEST: usize = 200;

/// Checks that `name` can name a folder of its own, neither hidden nor anywhere else. `place` says where the
/// name stands.
///
/// # Errors
/// Says what is wrong with it, and where it stands.
pub fn check(name: &str, place: &str) -> Result<(), Usage> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.contains(['/', '\\']) {
        "it leads to another folder"
    } else if name.starts_with(['.', '-']) {
        "it begins with a dot or a dash"
    } else if name.chars().any(is_control) {
        "it holds control characters"
    } else if name.len() > LONGEST {
        "it is too long"
    } else {
        return Ok(());
    };
    let name = quoted(name);
    usage!("{place}: {name:?} cannot name a run, because {problem}: use letters, digits, '-' and '_'")
}

/// The full name of a run that the user calls `name`: on any data set but MNIST it also carries the name of the set,
/// `data`.
///
/// # Errors
/// Where `name`, or what it is with the data set's, cannot name a run.
pub fn on_data(name: &str, data: &str) -> Result<String, Usage> {
    check(name, "--name")?;
    if data == "mnist" || name.contains(data) {
        return Ok(name.to_string());
    }
    let both = format!("{name}-{data}");
    check(&both, "the run and its data set")?;
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_part_of_a_path() {
        for name in ["a", "ep-1h seed0", "größe"] {
            assert!(check(name, "here").is_ok(), "{name}");
        }
        for name in ["", ".", "../x", "a/b", "a\nb", "a\x1b[2J", "-x", &"x".repeat(201)] {
            assert!(check(name, "here").is_err(), "{name}");
        }
        for data in ["x/../..", "a\x1b[31m\nb", &"d".repeat(199)] {
            assert!(on_data("a", data).is_err(), "{data}");
        }
        assert_eq!(on_data("a", "digits").unwrap(), "a-digits");
    }
}
