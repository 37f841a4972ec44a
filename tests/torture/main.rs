//! Broken input and sudden deaths, through the real program: no panic, no hang, no more than 1 GiB, and after a kill
//! the same end as without.
//!
//! `cargo test --release --test torture -- INPUTS KILLS`, by default a few of each; `make torture` says how many a
//! release wants. A mutation harness of its own: cargo-fuzz wants a nightly compiler, which this project does not.

#[path = "../common/mod.rs"]
mod common;
mod inputs;
mod process;

use common::Place;
use inputs::Dice;
use process::{Ended, run};
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

/// What no input may make the program take.
const MOST_MEMORY: u64 = 1 << 30;

#[derive(Default)]
struct Tally {
    tried: usize,
    panics: usize,
    hangs: usize,
    beyond: usize,
    /// Exit statuses that mean nothing, and ends that differ.
    wrong: usize,
}

impl Tally {
    fn count(&mut self, ended: &Ended, what: &str) {
        self.tried += 1;
        // 101 is a panic; a signal that is not ours, an abort.
        let panicked = ended.said.contains("panicked") || ended.status == Some(101);
        let kinds = [
            (&mut self.hangs, ended.hung, "HANG"),
            (&mut self.panics, !ended.hung && (panicked || ended.status.is_none()), "PANIC"),
            (&mut self.beyond, ended.memory > MOST_MEMORY, "BEYOND 1 GiB"),
            (&mut self.wrong, !ended.hung && !matches!(ended.status, Some(0..=3 | 101) | None), "STATUS"),
        ];
        for (counter, is_so, word) in kinds {
            if is_so {
                *counter += 1;
                println!("{word} {:?}, {} MiB: {what}\n{}", ended.status, ended.memory >> 20, ended.said);
            }
        }
    }
}

fn main() -> ExitCode {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (inputs, kills) = (numbers.first().copied().unwrap_or(200), numbers.get(1).copied().unwrap_or(5));
    let mut tally = Tally::default();
    feed(inputs, &mut tally);
    kill(kills, &mut tally);
    let Tally { tried, panics, hangs, beyond, wrong } = tally;
    println!("{tried} tried, {panics} panics, {hangs} hangs, {beyond} beyond 1 GiB");
    match panics + hangs + beyond + wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Gives the program so many mutated inputs of each kind in turn. The seed of each is its number.
fn feed(count: usize, tally: &mut Tally) {
    let place = Place::new();
    let arguments = place.small_run("cvf", &["--epochs", "1", "--name", "r-data"]);
    place.eqprop().args(arguments).assert().success();
    let good = inputs::Good::read(&place);
    for number in 0..count {
        let mut dice = Dice::new(number as u64);
        let mut command = place.process();
        let what = good.spoil(number, &mut dice, &place, &mut command);
        tally.count(&run(command, Duration::from_secs(30)), &format!("input {number}: {what}"));
        good.restore(&place);
    }
}

/// Kills a run so many times, each time goes on, and compares the end with that of one never stopped.
fn kill(count: usize, tally: &mut Tally) {
    let more = ["--epochs", "150", "--name", "k-data", "--resume", "auto"];
    let undisturbed = Place::new();
    undisturbed.eqprop().args(undisturbed.small_run("cvf", &more)).assert().success();
    let place = Place::new();
    let command = || {
        let mut command = place.process();
        command.args(place.small_run("cvf", &more));
        command
    };
    for number in 0..count {
        let mut dice = Dice::new(1_000_000 + number as u64);
        let mut child = command().stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + dice.below(60)));
        child.kill().unwrap();
        child.wait().unwrap();
        tally.tried += 1;
    }
    // Where the last process killed had finished, there is nothing to go on with.
    let ended = run(command(), Duration::from_secs(120));
    let last =
        |place: &Place| fs::read(place.path("checkpoints/k-data/last.safetensors")).unwrap_or_default();
    if last(&place) != last(&undisturbed) {
        tally.wrong += 1;
        println!("after {count} kills the weights differ from those of a run never stopped:\n{}", ended.said);
    }
}
