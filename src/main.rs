//! The program `eqprop`: runs the command line and returns its exit status.
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody reads.
#![warn(clippy::disallowed_methods)] // Files are opened in `base::files`.

mod memory;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

#[global_allocator]
static MEMORY: memory::Memory = memory::Memory;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // The errors of candle would carry a trace in their text wherever RUST_BACKTRACE asks for that of a panic.
    set("RUST_LIB_BACKTRACE", "0".as_ref());
    // candle has threads of its own for sums and the like, as many as there are cores, which spin while they wait.
    set("CANDLE_NUM_THREADS", "1".as_ref());
    // Its products take as many, whatever the number of threads that compute.
    if let Some(threads) = threads(&arguments) {
        set("RAYON_NUM_THREADS", threads);
    }
    ExitCode::from(eqprop::cli::main(arguments))
}

/// Sets a variable of the environment that the user has not set.
fn set(name: &str, value: &OsStr) {
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var(name, value) };
    }
}

/// The number of threads that the command line asks for; each run of a sweep has one.
fn threads(arguments: &[OsString]) -> Option<&OsStr> {
    if arguments.get(1).is_some_and(|command| command == "sweep") {
        return Some("1".as_ref());
    }
    let mut arguments = arguments.iter();
    let argument = arguments.find(|argument| argument.to_string_lossy().starts_with("--threads"))?;
    match argument.to_str()?.strip_prefix("--threads=") {
        Some(threads) => Some(threads.as_ref()),
        None => arguments.next().map(OsString::as_os_str),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_the_threads() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            threads(&words).map(OsStr::to_os_string)
        };
        assert_eq!(of("eqprop train --threads 3 --algo ep"), Some("3".into()));
        assert_eq!(of("eqprop bench --threads=2"), Some("2".into()));
        assert_eq!(of("eqprop sweep --config table3 --workers 4"), Some("1".into()));
        assert_eq!(of("eqprop train --algo ep"), None);
        assert_eq!(of("eqprop train --threads"), None);
    }
}
