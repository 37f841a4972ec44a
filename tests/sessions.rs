//! Processes that have worked on a run, and their surroundings: recorded, and reported where they may change the last
//! bits.

mod common;

use common::Place;
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

fn sessions(place: &Place, name: &str) -> Vec<Value> {
    let text = place.read(&format!("runs/{name}/sessions.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Trains to so many epochs, with this in the environment, and returns the messages.
fn train(place: &Place, epochs: &str, more: &[&str], environment: &[(&str, &str)]) -> String {
    let arguments = [&["--epochs", epochs, "--name", "r-data", "--resume", "auto"], more].concat();
    let output = place
        .eqprop()
        .args(place.small_run("cep", &arguments))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_process_leaves_a_line_and_the_first_surroundings_stay() {
    let place = Place::new();
    let environment = || place.read("runs/r-data/environment.json");
    assert!(!train(&place, "1", &[], &[("EQPROP_ISA", "avx2")]).contains("other surroundings"));
    let first = environment();
    assert!(!train(&place, "2", &[], &[("EQPROP_ISA", "avx2")]).contains("other surroundings"));
    let said = train(&place, "3", &[], &[("EQPROP_ISA", "portable")]);
    assert!(said.contains("vector instructions Avx2 → Portable"), "{said}");
    // A run that is complete has no session.
    train(&place, "3", &[], &[]);
    let lines = sessions(&place, "r-data");
    let steps: Vec<_> =
        lines.iter().map(|line| (line["from_step"].as_u64(), line["to_step"].as_u64())).collect();
    assert_eq!(steps, [(0u64, 12u64), (12, 24), (24, 36)].map(|(from, to)| (Some(from), Some(to))));
    for line in &lines {
        assert_eq!((line["engine"].as_str(), line["device"].as_str()), (Some("fused"), Some("cpu")));
        assert_eq!(
            (line["threads"].as_u64(), line["version"].as_str()),
            (Some(1), Some(env!("CARGO_PKG_VERSION")))
        );
        assert!(line["commit"].is_string() && line["host"].is_string() && line["process"].is_u64());
        assert!(line["command"].as_array().unwrap().iter().any(|word| word == "r-data"), "{line}");
    }
    assert_eq!(lines[2]["vector_instructions"], "Portable");
    assert_eq!(environment(), first);
}

#[test]
fn how_far_a_killed_process_came_is_filled_in_by_the_next() {
    let place = Place::new();
    let arguments = place.small_run("cep", &["--epochs", "100000", "--name", "r-data"]);
    let mut child = place.process().args(arguments).stderr(Stdio::null()).spawn().unwrap();
    let metrics = place.path("runs/r-data/metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(300);
    while !fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 3) {
        assert!(Instant::now() < deadline, "the run does not begin");
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let steps = |line: &Value| (line["from_step"].as_u64(), line["to_step"].as_u64());
    let killed = sessions(&place, "r-data");
    assert_eq!(killed.iter().map(steps).collect::<Vec<_>>(), [(Some(0), None)]);

    let epochs = fs::read_to_string(&metrics).unwrap().lines().count() + 2;
    train(&place, &epochs.to_string(), &[], &[]);
    let lines: Vec<_> = sessions(&place, "r-data").iter().map(steps).collect();
    // 12 minibatches an epoch, of which at least two were done.
    assert!(lines.len() == 2 && lines[0].0 == Some(0) && lines[0].1 >= Some(24), "{lines:?}");
    assert_eq!(lines[1], (lines[0].1, Some(12 * epochs as u64)));
}

#[test]
fn threads_another_version_and_commit_are_said_where_they_may_change_bits() {
    let place = Place::new();
    let plain = ["--set", "training.engine=plain"];
    train(&place, "1", &plain, &[]);
    let more = [&plain[..], &["--threads", "2"]].concat();
    let arguments: Vec<&str> = place
        .small_run("cep", &[&["--epochs", "2", "--name", "r-data", "--resume", "auto"], &more[..]].concat())
        .into_iter()
        .collect();
    // The flag is there already, with 1.
    let at = arguments.iter().position(|word| *word == "--threads").unwrap();
    let arguments = [&arguments[..at], &arguments[at + 2..]].concat();
    let output = place.eqprop().args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("threads 1 → 2"), "{said}");
    let path = place.path("runs/r-data/sessions.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let older =
        text.replace(&format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION")), "\"version\":\"0.0.1\"");
    assert_ne!(older, text);
    fs::write(&path, older).unwrap();
    let said = train(&place, "3", &plain, &[]);
    assert!(said.contains("version 0.0.1 → ") && said.contains("threads 2 → 1"), "{said}");
}

#[test]
fn an_unknown_instruction_set_is_an_error() {
    let place = Place::new();
    for arguments in [place.small_run("ep", &["--epochs", "1"]), vec!["config", "--algo", "ep"]] {
        let output = place.eqprop().args(arguments).env("EQPROP_ISA", "sse9").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("EQPROP_ISA = \"sse9\"") && said.contains("avx512"), "{said}");
    }
    assert!(!place.path("runs").exists());
}
