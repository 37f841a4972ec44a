//! Stopping and resuming: whatever happens to a run, its weights and metrics end up the same.

mod common;

use common::{Place, metrics};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LAST: &str = "checkpoints/r/last.safetensors";
const METRICS: &str = "runs/r/metrics.jsonl";

/// The undisturbed run: its last checkpoint and metrics.
fn undisturbed(rule: &str, more: &[&str]) -> (Vec<u8>, Vec<serde_json::Value>) {
    let place = Place::new();
    let name = ["--name", "r-data"];
    place.eqprop().args(place.small_run(rule, &[more, &name].concat())).assert().success();
    (
        fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap(),
        metrics(&place.path("runs/r-data/metrics.jsonl")),
    )
}

fn path(place: &Place, name: &str) -> std::path::PathBuf {
    place.path(&name.replace("/r/", "/r-data/"))
}

fn resume(place: &Place) -> Command {
    let mut command = place.process();
    command.args([
        "train",
        "--threads",
        "1",
        "--data-dir",
        "data",
        "--resume",
        "checkpoints/r-data/last.safetensors",
    ]);
    command
}

#[test]
fn every_checkpoint_leads_to_the_same_end() {
    const ALTERNATING: &str = "settle.order=alternating";
    const ANDERSON: &str = "settle.solver=anderson";
    const CENTERED: &str = "learning.nudging=centered";
    for (rule, settings) in [
        ("ep", ["settle.tolerance=1e-3", ALTERNATING, ANDERSON]),
        ("cep", ["training.engine=plain", ALTERNATING, CENTERED]),
        ("cep", ["settle.tolerance=1e-3", ALTERNATING, CENTERED]),
        ("ep", ["settle.tolerance=0.0"; 3]),
        ("cep", ["settle.tolerance=0.0"; 3]),
        ("vf", ["settle.tolerance=0.0"; 3]),
        ("cvf", ["settle.tolerance=0.0"; 3]),
        ("cvf", ["synapse.law=device", "synapse.preset=reram-es", "synapse.lifetime=90.0"]),
        ("cep", ["synapse.law=device", "synapse.preset=pcm", "training.engine=plain"]),
        ("vf", ["synapse.law=device", "synapse.preset=ecram", "synapse.pulses=deterministic"]),
    ] {
        let [a, b, c] = settings;
        let more =
            ["--epochs", "2", "--set", "training.keep_checkpoints=0", "--set", a, "--set", b, "--set", c];
        let (expected, expected_metrics) = undisturbed(rule, &more);
        let place = Place::new();
        place
            .eqprop()
            .args(place.small_run(rule, &[&more[..], &["--name", "r-data"]].concat()))
            .assert()
            .success();
        let mut numbered: Vec<_> = fs::read_dir(place.path("checkpoints/r-data"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("step-"))
            .collect();
        numbered.sort();
        // 12 minibatches an epoch, every 3 of them, and before the first.
        assert_eq!(numbered.len(), 9, "{rule}");
        for checkpoint in &numbered[..8] {
            let mut command = place.eqprop();
            command.args(["train", "--threads", "1", "--data-dir", "data", "--resume"]).arg(checkpoint);
            command.assert().success();
            assert_eq!(
                fs::read(path(&place, LAST)).unwrap(),
                expected,
                "{rule} from {}",
                checkpoint.display()
            );
            assert_eq!(metrics(&path(&place, METRICS)), expected_metrics, "{rule}");
        }
    }
}

#[test]
fn killed_at_twenty_moments_the_run_ends_in_the_same_bits() {
    let more = ["--epochs", "60", "--set", "settle.steps=400"];
    let begun = Instant::now();
    let (expected, expected_metrics) = undisturbed("cvf", &more);
    let undisturbed_time = begun.elapsed();
    let place = Place::new();
    let mut kills = 0;
    for attempt in 0.. {
        let last = path(&place, LAST);
        let mut command = if last.is_file() {
            resume(&place)
        } else {
            // A run killed before its first checkpoint leaves nothing to resume.
            fs::remove_dir_all(place.path("runs")).ok();
            fs::remove_dir_all(place.path("checkpoints")).ok();
            let mut command = place.process();
            command.args(place.small_run("cvf", &[&more[..], &["--name", "r-data"]].concat()));
            command
        };
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        if kills < 20 {
            // Moments spread over a twentieth of the run, by a multiplicative sequence.
            let fraction = f64::from(attempt * 7919 % 1000 + 1) / 1000.0;
            sleep(undisturbed_time.mul_f64(fraction / 20.0) + Duration::from_millis(5));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                kills += 1;
                child.wait().unwrap();
                continue;
            }
        }
        let status = child.wait().unwrap();
        if status.success() {
            break;
        }
        assert!(attempt < 200, "the run does not get on: {status}");
    }
    assert!(kills >= 10, "only {kills} kills before the run was over");
    assert_eq!(fs::read(path(&place, LAST)).unwrap(), expected);
    assert_eq!(metrics(&path(&place, METRICS)), expected_metrics);
}

#[test]
fn killed_before_its_first_checkpoint_a_run_begins_anew() {
    let more = ["--epochs", "2"];
    let (expected, expected_metrics) = undisturbed("cep", &more);
    let place = Place::new();
    fs::create_dir_all(place.path("runs/r-data")).unwrap();
    fs::create_dir_all(place.path("checkpoints/r-data")).unwrap();
    fs::write(place.path("runs/r-data/metrics.jsonl"), "{\"epoch\":0,\"data\":\"data\"}\n").unwrap();
    for part in [".tmpAbCdEf", "best.safetensors", "step-00000000.safetensors"] {
        fs::write(place.path(&format!("checkpoints/r-data/{part}")), "half of what is saved first").unwrap();
    }
    let name = ["--name", "r-data", "--resume", "auto"];
    place.eqprop().args(place.small_run("cep", &[&more[..], &name].concat())).assert().success();
    assert_eq!(fs::read(path(&place, LAST)).unwrap(), expected);
    assert_eq!(metrics(&path(&place, METRICS)), expected_metrics);
}

#[cfg(unix)]
#[test]
fn signals_save_say_how_to_go_on_and_set_the_status() {
    for (signal, status) in [("INT", 130), ("TERM", 143), ("USR1", 138), ("XCPU", 152)] {
        let place = Place::new();
        let more = ["--epochs", "100000", "--name", "r-data"];
        let child =
            place.process().args(place.small_run("cep", &more)).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(300);
        while !path(&place, METRICS).exists() || metrics(&path(&place, METRICS)).len() < 3 {
            assert!(Instant::now() < deadline, "the run does not begin");
            sleep(Duration::from_millis(20));
        }
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("eqprop train --resume checkpoints/r-data/last.safetensors"), "{said}");
        // A saved run can be tested and resumed.
        place
            .eqprop()
            .args([
                "eval",
                "--json",
                "--data-dir",
                "data",
                "--checkpoint",
                "checkpoints/r-data/last.safetensors",
            ])
            .assert()
            .success();
    }
}

#[test]
fn resuming_refuses_changed_science_and_shows_it() {
    let place = Place::new();
    place.eqprop().args(place.small_run("cep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    let refused = |more: &[&str]| {
        let mut command = resume(&place);
        let output = command.args(more).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&[]).contains("already completed 1 of 1 epochs"));
    let said = refused(&["--epochs", "2", "--set", "learning.beta=0.3"]);
    assert!(said.contains("learning.beta: 0.2 → 0.3"), "{said}");
    // Other data under the same name.
    let images = place.path("data/train-images-idx3-ubyte");
    let mut bytes = fs::read(&images).unwrap();
    bytes[100] ^= 1;
    fs::write(&images, bytes).unwrap();
    assert!(refused(&["--epochs", "2"]).contains("other checksums"));
}

#[test]
fn more_epochs_go_on_where_the_run_ended() {
    let (expected, expected_metrics) = undisturbed("cvf", &["--epochs", "4"]);
    let place = Place::new();
    place.eqprop().args(place.small_run("cvf", &["--epochs", "2", "--name", "r-data"])).assert().success();
    assert!(resume(&place).args(["--epochs", "4"]).status().unwrap().success());
    assert_eq!(fs::read(path(&place, LAST)).unwrap(), expected);
    assert_eq!(metrics(&path(&place, METRICS)), expected_metrics);
}

#[test]
fn the_number_of_threads_does_not_matter_to_the_bits() {
    let place = Place::new();
    let run = |threads: &str, rule: &str, settling: &str, dims: &str, settings: &[&str]| {
        let name = format!("{rule}-{settling}-{threads}-{}-{}", dims.len(), settings.len());
        let settling = format!("settle.tolerance={settling}");
        let rates = format!("learning.learning_rates={:?}", vec![0.01; dims.split(',').count() - 1]);
        let dims = format!("network.dims={dims}");
        let more = ["--epochs", "1", "--name", &name, "--set", &settling, "--set", &dims, "--set", &rates];
        // From these weights images settle after different numbers of steps.
        let set = settings.iter().flat_map(|setting| ["--set", setting]);
        let more: Vec<&str> = more.into_iter().chain(["--set", "network.init=glorot"]).chain(set).collect();
        let mut arguments = place.small_run(rule, &more);
        let at = arguments.iter().position(|a| *a == "--threads").unwrap();
        arguments[at + 1] = threads;
        place.eqprop().args(arguments).assert().success();
        let bytes = fs::read(place.path(&format!("checkpoints/{name}-data/last.safetensors"))).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        (bytes[8 + header..].to_vec(), metrics(&place.path(&format!("runs/{name}-data/metrics.jsonl"))))
    };
    // Wide enough for threads to share the second phase, with panels that do not come out even.
    let wide = "[64, 272, 272, 4]";
    let solver: &[&str] =
        &["settle.order=alternating", "settle.solver=anderson", "learning.nudging=centered"];
    for (rule, settling, dims, settings) in [
        ("cvf", "0.0", "[64, 24, 4]", &[][..]),
        ("cvf", "1e-3", "[64, 24, 4]", &[]),
        ("ep", "0.0", wide, &[]),
        ("cep", "1e-3", wide, &[]),
        ("vf", "0.0", wide, &[]),
        ("cvf", "1e-3", wide, &[]),
        ("ep", "1e-3", wide, &solver[..2]),
        ("cep", "1e-3", wide, solver),
        ("vf", "1e-3", wide, solver),
        ("cvf", "1e-3", wide, solver),
    ] {
        let alone = run("1", rule, settling, dims, settings);
        let steps = alone.1[1]["settle/steps"].as_f64().unwrap();
        assert_eq!(steps.fract() != 0.0, settling != "0.0", "{steps} steps");
        for threads in ["2", "3", "4"] {
            let same = alone == run(threads, rule, settling, dims, settings);
            assert!(same, "{rule} {settling} {dims} {settings:?} {threads}");
        }
    }
}
