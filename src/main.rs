//! `eqprop`: parse, run, print errors once, decide the exit status.
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic where nobody listens.

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use eqprop::base::output::{self, Usage};
use eqprop::cli::{self, Cli};
use eqprop::telemetry::progress::Stderr;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        // The errors of candle would carry a trace in their text wherever RUST_BACKTRACE asks for that of a panic.
        // SAFETY: no other thread is running yet.
        unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    }
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => ExitCode::from(output::complain(&error, cli::is_usage(&error))),
    }
}

fn run() -> anyhow::Result<u8> {
    let asked = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(mut shown) if shown.use_stderr() => {
            for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
                if let Some(ContextValue::String(given)) = shown.get(kind) {
                    let given = output::quoted(given);
                    shown.insert(kind, ContextValue::String(given));
                }
            }
            output::to_stderr(&shown.to_string());
            return Ok(2);
        }
        Err(help) => {
            help.print().map_err(output::unwritten)?;
            return Ok(0);
        }
    };
    let filter = match std::env::var_os("EQPROP_LOG").filter(|text| !text.is_empty()) {
        None => EnvFilter::new(asked.default_log()),
        Some(text) => EnvFilter::try_new(text.to_string_lossy()).map_err(|error| {
            Usage(format!("EQPROP_LOG={text:?}: {error}; write for example EQPROP_LOG=eqprop=debug"))
        })?,
    };
    let color =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .with_ansi(color)
        .with_target(false)
        .without_time()
        .init();
    asked.run()
}
