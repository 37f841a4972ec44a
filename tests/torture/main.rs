//! Broken input, sudden deaths, power cuts and failing disks, through the real program: no panic, no hang, no more
//! than 1 GiB, and afterwards the same end as without them.
//!
//! `cargo test --release --test torture -- INPUTS KILLS CUTS FAULTS`, by default a few of each; `make torture` says
//! how many a release wants, and draws a seed, PROPTEST_RNG_SEED, by which all can be had again. A mutation harness
//! of its own: cargo-fuzz wants a nightly compiler, which this project does not. Power cuts and faults want strace.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod inputs;
mod power;
mod process;

use calls::Call;
use common::{Place, metrics};
use inputs::Dice;
use process::{Ended, run};
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

/// The most memory that any input may make the program use.
const MOST_MEMORY: u64 = 1 << 30;

#[derive(Default)]
struct Tally {
    tried: usize,
    panics: usize,
    hangs: usize,
    beyond: usize,
    /// Exit statuses without a meaning, and ends that differ.
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
    let [inputs, kills, cuts, faults] =
        [(0, 200), (1, 5), (2, 10), (3, 10)].map(|(i, few)| numbers.get(i).copied().unwrap_or(few));
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut tally = Tally::default();
    feed(inputs, seed, &mut tally);
    kill(kills, seed, &mut tally);
    if calls::can_trace() {
        on_bad_disks(cuts, faults, seed, &mut tally);
    } else {
        common::skip("there is no strace, or it may not trace: no power cuts and no faults");
    }
    let Tally { tried, panics, hangs, beyond, wrong } = tally;
    println!(
        "PROPTEST_RNG_SEED={seed}: {tried} tried, {panics} panics, {hangs} hangs, {beyond} beyond 1 GiB, {wrong} wrong"
    );
    match panics + hangs + beyond + wrong {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The random numbers of a case: others for each seed, kind and number.
fn dice(seed: u64, kind: u64, number: usize) -> Dice {
    Dice::new(seed.wrapping_mul(1_000_000_007) + 1_000_000 * kind + number as u64)
}

/// Gives the program so many mutated inputs, of each kind in turn. The seed of each is its number.
fn feed(count: usize, seed: u64, tally: &mut Tally) {
    let place = Place::new();
    let arguments = place.small_run("cvf", &["--epochs", "1", "--name", "r-data"]);
    place.eqprop().args(arguments).assert().success();
    let good = inputs::Good::read(&place);
    for number in 0..count {
        let mut dice = dice(seed, 0, number);
        let mut command = place.process();
        let what = good.spoil(number, &mut dice, &place, &mut command);
        tally.count(&run(command, Duration::from_secs(30)), &format!("input {number}: {what}"));
        good.restore(&place);
    }
}

/// Kills a run so many times, resumes it each time, and compares the end with that of one never stopped.
fn kill(count: usize, seed: u64, tally: &mut Tally) {
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
        let mut dice = dice(seed, 1, number);
        let mut child = command().stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(5 + dice.below(60)));
        child.kill().unwrap();
        child.wait().unwrap();
        tally.tried += 1;
    }
    // Where the last killed process had finished, there is nothing to resume.
    let ended = run(command(), Duration::from_secs(120));
    let last =
        |place: &Place| fs::read(place.path("checkpoints/k-data/last.safetensors")).unwrap_or_default();
    if last(&place) != last(&undisturbed) {
        tally.wrong += 1;
        println!("after {count} kills the weights differ from those of a run never stopped:\n{}", ended.said);
    }
}

/// A run that resumes by itself, however it was stopped.
fn going_on(place: &Place) -> std::process::Command {
    let more =
        ["--epochs", "3", "--name", "p-data", "--resume", "auto", "--set", "training.angle_minibatches=0"];
    let mut command = place.process();
    command.args(place.small_run("cvf", &more));
    command
}

/// Cuts the power of a run so many times, at any call, and makes so many calls fail, each in a run of its own;
/// resumes it, and compares the end with that of a run never stopped.
fn on_bad_disks(cuts: usize, faults: usize, seed: u64, tally: &mut Tally) {
    let undisturbed = Place::new();
    let calls = calls::record(&going_on(&undisturbed), &undisturbed);
    let expected = End::of(&undisturbed);
    let root = undisturbed.dir.path();
    for number in 0..cuts {
        let mut dice = dice(seed, 2, number);
        let at = dice.below(calls.len() as u64) as usize;
        let mut disk = power::Disk::of(root);
        calls[..=at].iter().for_each(|call| disk.take(call));
        let place = Place::new();
        disk.after_a_cut(root, place.dir.path(), &mut dice);
        let what = format!("power cut {number} after call {at} of {}, {}", calls.len(), calls[at].name);
        goes_on(&place, &expected, &what, tally);
    }
    let may_fail: Vec<&Call> =
        calls.iter().filter(|call| calls::FAULTS.iter().any(|(name, _)| *name == call.name)).collect();
    for number in 0..faults {
        let mut dice = dice(seed, 3, number);
        let call = may_fail[dice.below(may_fail.len() as u64) as usize];
        let (name, errors) = calls::FAULTS.iter().find(|(name, _)| *name == call.name).unwrap();
        let error = errors[dice.below(errors.len() as u64) as usize];
        // Once, or as a disk that stays full.
        let again = ["", "+"][dice.below(2) as usize];
        let fault = format!("inject={name}:error={error}:when={}{again}", call.earlier + 1);
        let place = Place::new();
        let trace = format!("trace={name}");
        let command = calls::traced(&going_on(&place), &place, &["-e", &trace, "-e", &fault]);
        let ended = run(command, Duration::from_secs(120));
        let what = format!("fault {number}, {fault} at {}", call.paths[0].display());
        tally.count(&ended, &what);
        if ended.status == Some(1) && !ended.said.contains("os error") && !again.contains('+') {
            tally.wrong += 1;
            println!("UNSAID {what}\n{}", ended.said);
        }
        goes_on(&place, &expected, &what, tally);
    }
}

/// The final files of a run.
#[derive(PartialEq)]
struct End {
    weights: Vec<u8>,
    epochs: Vec<serde_json::Value>,
}

impl End {
    fn of(place: &Place) -> Self {
        let weights = fs::read(place.path("checkpoints/p-data/last.safetensors")).unwrap_or_default();
        let told = place.path("runs/p-data/metrics.jsonl");
        // Invalid lines count as wrong.
        let epochs = std::panic::catch_unwind(|| metrics(&told)).unwrap_or_default();
        Self { weights, epochs }
    }
}

/// Resumes a run, which must end as expected.
fn goes_on(place: &Place, expected: &End, what: &str, tally: &mut Tally) {
    let ended = run(going_on(place), Duration::from_secs(120));
    tally.count(&ended, what);
    let end = End::of(place);
    if ended.status != Some(0) || end != *expected {
        tally.wrong += 1;
        println!(
            "WRONG {:?}, the weights {}, {} epochs: {what}\n{}",
            ended.status,
            if end.weights == expected.weights { "are right" } else { "differ" },
            end.epochs.len(),
            ended.said
        );
    }
}
