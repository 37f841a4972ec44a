//! `eqprop`: parse, run, print errors once, decide the exit status.

use clap::Parser;
use eqprop::cli::Cli;
use eqprop::train::progress::Stderr;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("EQPROP_LOG").unwrap_or_else(|_| EnvFilter::new(cli.default_log()));
    let color =
        std::env::var_os("NO_COLOR").is_none() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Stderr)
        .with_ansi(color)
        .with_target(false)
        .without_time()
        .init();
    match cli.run() {
        Ok(status) => ExitCode::from(status as u8),
        Err(error) => {
            eprintln!("eqprop: {error:#}");
            ExitCode::FAILURE
        }
    }
}
