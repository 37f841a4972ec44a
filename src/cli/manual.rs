//! The program's descriptions of itself: completions for shells, and a manual page.

use super::Cli;
use crate::base::output;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command to describe [default: all, in short].
    command: Option<String>,
}

pub fn completions(args: CompletionsArgs) -> Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "eqprop", &mut text);
    output::result(&String::from_utf8_lossy(&text))?;
    Ok(0)
}

pub fn man(args: ManArgs) -> Result<u8> {
    let mut command = Cli::command();
    command.build();
    if let Some(name) = &args.command {
        let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let Some(found) = command.find_subcommand(name) else {
            output::usage!("man {name}: there is no such command; there are {}", names.join(", "))
        };
        command = found.clone();
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    output::result(&String::from_utf8_lossy(&text))?;
    Ok(0)
}
