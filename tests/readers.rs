//! Other programs open what a run leaves: TensorBoard's own reader, and Python's safetensors.
//!
//! `EQPROP_PYTHON` names the Python to use; without its packages these tests skip with a message,
//! and fail where CI=true.

mod common;

use common::{Place, metrics, python};
use std::process::Command;

/// Runs a Python script in the place's folder and returns what it prints.
fn script(place: &Place, python: &std::path::Path, text: &str) -> String {
    let output = Command::new(python).current_dir(place.dir.path()).args(["-c", text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tensorboard_reads_curves_without_gaps_or_double_points_after_resuming() {
    let Some(python) = python("tensorboard") else { return };
    let place = Place::new();
    let more = ["--epochs", "5", "--name", "r-data", "--set", "training.keep_checkpoints=0"];
    place.eqprop().args(place.small_run("cvf", &more)).assert().success();
    // Go back to the middle of the third epoch and train it and the later ones again.
    let back = "checkpoints/r-data/step-00000030.safetensors";
    place
        .eqprop()
        .args(["train", "--data-dir", "data", "--threads", "1", "--resume", back])
        .assert()
        .success();
    let printed = script(
        &place,
        &python,
        r#"
import json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator("runs/r-data")
events.Reload()
curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
print(json.dumps(curves))
"#,
    );
    let curves: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let lines = metrics(&place.path("runs/r-data/metrics.jsonl"));
    assert_eq!(lines.len(), 6);
    let mut compared = 0;
    for (tag, curve) in curves.as_object().unwrap() {
        // Angles are measured before training only; `metrics` leaves out the speed, which epoch 0 has none of.
        let has = |epoch: u64| match tag.starts_with("speed/") {
            true => epoch > 0,
            false => lines[epoch as usize].get(tag).is_some(),
        };
        let expected: Vec<u64> = (0..6).filter(|&epoch| has(epoch)).collect();
        let steps: Vec<u64> = curve.as_array().unwrap().iter().map(|p| p[0].as_u64().unwrap()).collect();
        assert_eq!(steps, expected, "{tag}");
        for point in curve.as_array().unwrap().iter().filter(|_| !tag.starts_with("speed/")) {
            let expected = lines[point[0].as_u64().unwrap() as usize][tag].as_f64().unwrap() as f32;
            assert_eq!(point[1].as_f64().unwrap() as f32, expected, "{tag}");
            compared += 1;
        }
    }
    for tag in
        ["error/train", "error/test", "loss/train", "settle/residual", "weights/norm/forward.0", "psi/0"]
    {
        assert!(curves.get(tag).is_some(), "{tag}");
    }
    assert!(compared > 50);
}

#[test]
fn python_reads_the_weights_and_what_resuming_needs() {
    let Some(python) = python("safetensors, numpy") else { return };
    let place = Place::new();
    place.eqprop().args(place.small_run("cvf", &["--epochs", "2", "--name", "r-data"])).assert().success();
    let printed = script(
        &place,
        &python,
        r#"
import json, numpy
from safetensors import safe_open
with safe_open("checkpoints/r-data/last.safetensors", "np") as f:
    progress = json.loads(f.metadata()["eqprop"])
    shapes = {name: list(f.get_tensor(name).shape) for name in f.keys()}
    norm = float(numpy.linalg.norm(f.get_tensor("forward.0.weight").astype("f8")))
print(json.dumps({"shapes": shapes, "norm": norm, "epoch": progress["epoch"], "rule": progress["config"]["learning"]["rule"]}))
"#,
    );
    let found: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let expected = serde_json::json!({
        "forward.0.weight": [4, 24], "forward.0.bias": [4], "forward.1.weight": [24, 64],
        "forward.1.bias": [24], "feedback.0.weight": [24, 4],
    });
    assert_eq!(found["shapes"], expected);
    assert_eq!((&found["epoch"], &found["rule"]), (&2.into(), &"cvf".into()));
    let line = &metrics(&place.path("runs/r-data/metrics.jsonl"))[2];
    let norm = line["weights/norm/forward.0"].as_f64().unwrap();
    assert!((found["norm"].as_f64().unwrap() / norm - 1.0).abs() < 1e-9);
}
