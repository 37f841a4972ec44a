//! The program `eqprop`: runs the command line and returns its exit status.
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody reads.
#![warn(clippy::disallowed_methods)] // Files are opened in `base::files`.

mod memory;

use std::process::ExitCode;

#[global_allocator]
static MEMORY: memory::Memory = memory::Memory;

fn main() -> ExitCode {
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        // The errors of candle would carry a trace in their text wherever RUST_BACKTRACE asks for that of a panic.
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    }
    ExitCode::from(eqprop::cli::main(std::env::args_os()))
}
