//! The best epoch is chosen on images held out of the training set, if any, and the output says which images chose
//! it.

mod common;

use common::{Place, TRAIN, metrics};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

const HELD_OUT: usize = 40;

fn progress(place: &Place, checkpoint: &str) -> Value {
    let bytes = fs::read(place.path(checkpoint)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    serde_json::from_str(header["__metadata__"]["eqprop"].as_str().unwrap()).unwrap()
}

fn train(place: &Place, more: &[&str]) -> String {
    let output = place.eqprop().args(place.small_run("cvf", more)).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// The lines of a run's metrics, and the error in each by which the best is chosen.
fn errors(place: &Place, run: &str, set: &str) -> Vec<f64> {
    let lines = metrics(&place.path(&format!("runs/{run}/metrics.jsonl")));
    lines.iter().map(|line| line[&format!("error/{set}")].as_f64().unwrap()).collect()
}

#[test]
fn the_best_epoch_is_that_of_the_lowest_validation_error() {
    let place = Place::new();
    let set = format!("training.validation={HELD_OUT}");
    let said = train(&place, &["--epochs", "12", "--name", "v-data", "--set", &set]);
    assert!(said.contains("190 training, 40 validation and 60 test images"), "{said}");
    assert!(said.contains("validation error") && !said.contains("test error"), "{said}");
    let validation = errors(&place, "v-data", "validation");
    let lowest = validation.iter().copied().fold(f64::INFINITY, f64::min);
    let first = validation.iter().position(|&error| error == lowest).unwrap();
    let best = progress(&place, "checkpoints/v-data/best.safetensors");
    assert_eq!((&best["epoch"], &best["best_validation_error"]), (&first.into(), &lowest.into()));
    assert_eq!(best["best_test_error"], Value::Null);
    // Errors are whole numbers of the images held out.
    for error in validation {
        let wrong = error / 100.0 * HELD_OUT as f64;
        assert!((wrong - wrong.round()).abs() < 1e-9, "{error}");
    }
    let environment: Value = serde_json::from_str(&place.read("runs/v-data/environment.json")).unwrap();
    assert_eq!(environment["best_by"], "validation");
    assert!(place.read("runs/v-data/config.toml").contains("validation = 40"));
    // The test error is still that of the test images.
    let eval =
        ["eval", "--json", "--checkpoint", "checkpoints/v-data/last.safetensors", "--data-dir", "data"];
    let result: Value = serde_json::from_slice(&place.eqprop().args(eval).output().unwrap().stdout).unwrap();
    assert_eq!(result["test_error_percent"], *errors(&place, "v-data", "test").last().unwrap());
}

#[test]
fn without_it_nothing_changes() {
    let place = Place::new();
    let said = train(&place, &["--epochs", "2", "--name", "a-data"]);
    assert!(said.contains("test error") && !said.contains("validation"), "{said}");
    train(&place, &["--epochs", "2", "--name", "b-data", "--set", "training.validation=0"]);
    let a = progress(&place, "checkpoints/a-data/last.safetensors");
    let mut b = progress(&place, "checkpoints/b-data/last.safetensors");
    for other in ["run", "checksum"] {
        b[other] = a[other].clone();
    }
    assert_eq!(a, b);
    // As in checkpoints from before the key existed.
    assert!(!a.to_string().contains("validation"), "{a}");
    assert!(a["best_test_error"].is_f64());
    assert!(!place.read("runs/a-data/metrics.jsonl").contains("validation"));
    assert!(!place.read("runs/a-data/config.toml").contains("validation"));
}

#[test]
fn what_is_held_out_depends_on_the_seed_alone_and_is_not_trained_on() {
    let data = eqprop::data::glyphs::dataset();
    let held = |seed| data.hold_out(1000, seed).unwrap();
    let (a, again, b) = (held(1), held(1), held(2));
    assert_eq!((a.train.len(), a.validation.len(), a.test.len()), (59_000, 1000, 10_000));
    assert_eq!(a.validation.images, again.validation.images);
    assert_ne!(a.validation.images, b.validation.images);
    assert_eq!(a.checksums, data.checksums);
    let images = |split: &eqprop::data::Split| -> BTreeSet<Vec<u8>> {
        split.images.chunks_exact(split.pixels).map(<[u8]>::to_vec).collect()
    };
    let (trained, held, all) = (images(&a.train), images(&a.validation), images(&data.train));
    assert!(trained.is_disjoint(&held) && trained.len() + held.len() == all.len());
}

#[test]
fn it_is_refused_where_it_leaves_nothing_and_where_a_resumed_run_had_another() {
    let place = Place::new();
    for count in [TRAIN, 1 << 40] {
        let set = format!("training.validation={count}");
        let output = place.eqprop().args(place.small_run("ep", &["--set", &set])).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("training.validation") && said.contains("230 training images"), "{said}");
    }
    train(&place, &["--epochs", "1", "--name", "r-data", "--set", "training.validation=20"]);
    let last = "checkpoints/r-data/last.safetensors";
    let resume = ["train", "--resume", last, "--data-dir", "data", "--epochs", "2"];
    let other = place.eqprop().args(resume).args(["--set", "training.validation=30"]).output().unwrap();
    assert_ne!(other.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&other.stderr).contains("training.validation: 20 → 30"));
    place.eqprop().args(resume).assert().success();
    assert_eq!(errors(&place, "r-data", "validation").len(), 3);
}

const SWEEP: &str = r#"
title = "best"
set.network.dims = [64, 24, 4]
set.training.epochs = 3

[[rows]]
config = "ep-1h"

[[rows]]
config = "ep-1h"
label = "held"
set.training.validation = 40
"#;

/// A cell of `runs.csv`.
fn cell(place: &Place, run: &str, column: &str) -> String {
    let mut table = csv::Reader::from_path(place.path("s/runs.csv")).unwrap();
    let at = table.headers().unwrap().iter().position(|name| name == column).unwrap();
    let mut lines = table.records().map(Result::unwrap);
    lines.find(|line| &line[0] == run).unwrap_or_else(|| panic!("{run} is not there"))[at].to_string()
}

#[test]
fn the_report_names_the_best_epoch_and_what_chose_it() {
    let place = Place::new();
    fs::write(place.path("s.toml"), SWEEP).unwrap();
    let sweep = ["sweep", "--config", "s.toml", "--out", "s", "--data-dir", "data"];
    place.eqprop().args(sweep).assert().success();
    // A run that never beats its start: its errors are made to rise.
    let (plain, held) = ("ep-1h-data-seed0", "ep-1h-data-held-seed0");
    let rewrite = |run: &str, change: &dyn Fn(u64, &mut Value)| {
        let path = place.path(&format!("s/runs/{run}/metrics.jsonl"));
        let lines = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                change(line["epoch"].as_u64().unwrap(), &mut line);
                format!("{line}\n")
            })
            .collect::<String>();
        fs::write(&path, lines).unwrap();
    };
    rewrite(plain, &|epoch, line| line["error/test"] = (50.0 + epoch as f64).into());
    // The validation error is lowest in epoch 2, the test error in epoch 3.
    rewrite(held, &|epoch, line| {
        line["error/validation"] = [60.0, 50.0, 40.0, 45.0][epoch as usize].into();
        line["error/test"] = [60.0, 50.0, 41.0, 30.0][epoch as usize].into();
    });
    place.eqprop().args(["report", "s"]).assert().success();
    let read = |run: &str| {
        ["best_test", "best_epoch", "best_by", "best_validation"].map(|column| cell(&place, run, column))
    };
    assert_eq!(read(plain), ["50.0", "0", "test", ""]);
    assert_eq!(read(held), ["41.0", "2", "validation", "40.0"]);
}
