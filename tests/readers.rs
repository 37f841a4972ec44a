//! Other programs open the files of a run: TensorBoard's readers and its server, and Python's safetensors.
//!
//! `EQPROP_PYTHON` names the Python to use; without its packages these tests skip with a message,
//! and fail where CI=true.

mod common;

use common::{Place, metrics, python, python_in};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// Runs a Python script in the place's folder and returns what it prints.
fn script(place: &Place, python: &Path, text: &str) -> String {
    let output = Command::new(python).current_dir(place.dir.path()).args(["-c", text]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A run of five epochs that went back to the middle of the third, and then had six.
fn gone_back() -> Place {
    let place = Place::new();
    let more = ["--epochs", "5", "--name", "r-data", "--set", "training.keep_checkpoints=0"];
    place.eqprop().args(place.small_run("cvf", &more)).assert().success();
    let back = "checkpoints/r-data/step-00000030.safetensors";
    let resume = ["train", "--data-dir", "data", "--threads", "1", "--resume", back, "--epochs", "6"];
    place.eqprop().args(resume).assert().success();
    place
}

#[test]
fn tensorboard_reads_curves_without_gaps_or_double_points_after_resuming() {
    let Some(python) = python("tensorboard") else { return };
    let place = gone_back();
    let printed = script(
        &place,
        &python,
        r#"
import json
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util.tensor_util import make_ndarray
other = event_accumulator.EventAccumulator("runs/r-data").Reload()
# The server's own, where its data server cannot run.
server = plugin_event_accumulator.EventAccumulator("runs/r-data").Reload()
scalars = other.Tags()["scalars"]
curves = {
    "other": {tag: [(e.step, e.value) for e in other.Scalars(tag)] for tag in scalars},
    "server": {tag: [(e.step, make_ndarray(e.tensor_proto).item()) for e in server.Tensors(tag)] for tag in scalars},
}
steps = {tag: [e.step for e in server.Tensors(tag)] for tag in server.Tags()["tensors"]}
print(json.dumps({"curves": curves, "steps": steps}))
"#,
    );
    let read: Value = serde_json::from_str(&printed).unwrap();
    let lines = metrics(&place.path("runs/r-data/metrics.jsonl"));
    assert_eq!(lines.len(), 7);
    for reader in ["other", "server"] {
        are_those_of(&lines, &read["curves"][reader], reader);
    }
    // Pictures, histograms and texts too.
    let all = read["steps"].as_object().unwrap();
    assert!(all.contains_key("pictures/receptive_fields") && all.contains_key("run/command"));
    for (tag, steps) in all {
        let steps: Vec<_> = steps.as_array().unwrap().iter().map(Value::as_u64).collect();
        assert!(steps.is_sorted_by(|one, next| one < next), "{tag} {steps:?}");
    }
}

/// Asserts that the curves that TensorBoard's `reader` read are the `lines` of metrics.jsonl.
fn are_those_of(lines: &[Value], curves: &Value, reader: &str) {
    let mut compared = 0;
    for (tag, curve) in curves.as_object().unwrap() {
        // Angles are measured before training and after some epochs; `metrics` leaves out the speed, which epoch 0
        // has none of.
        let shown = tag.replace("more_angles/", "angle/");
        let tag = &shown;
        let has = |epoch: u64| match tag.starts_with("speed/") {
            true => epoch > 0,
            false => lines[epoch as usize].get(tag).is_some(),
        };
        let expected: Vec<u64> = (0..lines.len() as u64).filter(|&epoch| has(epoch)).collect();
        let steps: Vec<u64> = curve.as_array().unwrap().iter().map(|p| p[0].as_u64().unwrap()).collect();
        assert_eq!(steps, expected, "{reader}: {tag}");
        for point in curve.as_array().unwrap().iter().filter(|_| !tag.starts_with("speed/")) {
            let expected = lines[point[0].as_u64().unwrap() as usize][tag].as_f64().unwrap() as f32;
            assert_eq!(point[1].as_f64().unwrap() as f32, expected, "{reader}: {tag}");
            compared += 1;
        }
    }
    for tag in [
        "angle/total",
        "error/train",
        "error/test",
        "more_angles/minibatches",
        "loss/train",
        "settle/residual",
        "weights/norm/forward.0",
        "psi/0",
    ] {
        assert!(curves.get(tag).is_some(), "{reader}: {tag}");
    }
    assert!(compared > 50);
}

#[test]
fn the_server_of_tensorboard_shows_every_point_once_with_its_data_server_and_without() {
    let Some(python) = python("tensorboard") else { return };
    let place = gone_back();
    for how in ["auto", "false"] {
        let text = r#"
import json, re, subprocess, sys, time, urllib.request
deadline = time.time() + 300
log = open("tensorboard.log", "w")
command = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--reload_multifile", "true", "--load_fast=HOW"]
server = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", "0"], stdout=log, stderr=log)
def wait(what):
    while time.time() < deadline and server.poll() is None:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    sys.exit("TensorBoard shows too little: " + open("tensorboard.log").read())
ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
def steps(address):
    """Once the last epoch is there, which only the resumed run had."""
    def last():
        try:
            points = json.load(ask(f"http://127.0.0.1:{port[1]}/data/plugin/{address}&run=r-data"))
        except urllib.error.HTTPError: # Nothing is loaded yet.
            return
        steps = [point["step"] if isinstance(point, dict) else point[1] for point in points]
        return steps if 6 in steps else None
    return wait(last)
try:
    port = wait(lambda: re.search(r"http://127.0.0.1:(\d+)/", open("tensorboard.log").read()))
    addresses = ["scalars/scalars?tag=error/test", "histograms/histograms?tag=weights/forward.0", "images/images?sample=0&tag=pictures/receptive_fields"]
    print(json.dumps([steps(address) for address in addresses]))
finally:
    server.terminate()
    server.wait()
"#;
        let shown: Value = serde_json::from_str(&script(&place, &python, &text.replace("HOW", how))).unwrap();
        // Pictures are drawn before training, every five epochs and after the last.
        let epochs: Vec<usize> = (0..7).collect();
        assert_eq!(shown, serde_json::json!([epochs, epochs, [0, 5, 6]]), "--load_fast={how}");
    }
}

#[test]
fn tensorboard_knows_settings_layout_texts_histograms_and_pictures() {
    let Some(python) = python("tensorboard") else { return };
    let place = Place::new();
    place.eqprop().args(place.small_run("cvf", &["--epochs", "2", "--name", "r-data"])).assert().success();
    let more = ["train", "--data-dir", "data", "--threads", "1", "--resume", "r-data", "--epochs", "3"];
    place.eqprop().args(more).assert().success();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "tied-data"])).assert().success();
    let printed = script(
        &place,
        &python,
        r#"
import json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
events = EventAccumulator("runs/r-data", size_guidance={"tensors": 0, "images": 0, "histograms": 0})
events.Reload()
tags = events.Tags()
def hparams(tag):
    return plugin_data_pb2.HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/" + tag).plugin_data.content)
start = hparams("session_start_info").session_start_info.hparams
events, run = EventAccumulator("runs/tied-data").Reload(), events
others = hparams("session_start_info").session_start_info.hparams
events = run
layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
named = events.SummaryMetadata("error/test")
print(json.dumps({
    "rule": start["rule"].string_value,
    "T": start["steps T"].number_value,
    "angle": abs(start["angle before training, °"].number_value - events.Scalars("angle/total")[0].value) < 1e-3,
    "first": sorted(tags["scalars"])[:3],
    "columns": "_hparams_/experiment" in tags["tensors"],
    "ψ": ["Ψ, °" in start, "Ψ, °" in others],
    "done": hparams("session_end_info").session_end_info.status,
    "charts": [[tag for c in category.chart for tag in c.multiline.tag] for category in layout.category],
    "closed": [category.closed for category in layout.category],
    "command": "--epochs 3" in events.Tensors("run/command")[-1].tensor_proto.string_val[0].decode(),
    "configuration": "[network]" in events.Tensors("run/configuration")[0].tensor_proto.string_val[0].decode(),
    "name": named.display_name,
    "images": sorted({tag for tag in tags["images"]}),
    "histograms": sorted(tags["histograms"]),
    "counted": events.Histograms("weights/forward.1")[-1].histogram_value.num,
}))
"#,
    );
    let mut found: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(found["charts"][0], serde_json::json!(["angle/total$", "error/test$"]));
    found["charts"] = Value::Null;
    let expected = serde_json::json!({
        "rule": "cvf", "T": 40.0, "angle": true, "ψ": [true, false], "done": 1, "charts": null, "closed": [false, true],
        // Names are sorted; TensorBoard finds the columns that differ.
        "first": ["angle/total", "error/test", "error/train"], "columns": false,
        "command": true, "configuration": true, "name": "test error, %",
        "images": ["pictures/confusion", "pictures/most_wrong", "pictures/receptive_fields"],
        "histograms": ["states/hidden_layer_1", "weights/feedback.0", "weights/forward.0", "weights/forward.1"],
        "counted": 24.0 * 64.0,
    });
    assert_eq!(found, expected);
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
    let found: Value = serde_json::from_str(&printed).unwrap();
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

/// docs/outputs.md has a program that rebuilds a network in PyTorch. `EQPROP_TORCH` names the Python that has it.
#[test]
fn pytorch_gets_the_same_test_error() {
    let manual = include_str!("../docs/outputs.md");
    let (_, from) = manual.split_once("```python\nimport gzip").unwrap();
    let program = format!("import gzip{}", from.split_once("```").unwrap().0);
    let Some(python) = python_in("EQPROP_TORCH", "torch, safetensors") else { return };
    let place = Place::new();
    for name in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        let packed = std::fs::File::create(place.path(&format!("data/{name}.gz"))).unwrap();
        let mut packed = GzEncoder::new(packed, Compression::default());
        packed.write_all(&std::fs::read(place.path(&format!("data/{name}"))).unwrap()).unwrap();
        packed.finish().unwrap();
    }
    // One and two hidden layers, tied and untied weights.
    for (name, rule, dims, rates, epochs) in [
        ("one-data", "cvf", "network.dims=[64, 24, 4]", "learning.learning_rates=[0.01, 0.01]", "30"),
        ("tied-data", "ep", "network.dims=[64, 24, 4]", "learning.learning_rates=[0.01, 0.01]", "30"),
        (
            "two-data",
            "cvf",
            "network.dims=[64, 24, 16, 4]",
            "learning.learning_rates=[0.01, 0.01, 0.01]",
            "80",
        ),
    ] {
        let more = ["--name", name, "--epochs", epochs, "--set", rates];
        let run = place.small_run(rule, &more).into_iter();
        let run = run.map(|argument| if argument.starts_with("network.dims") { dims } else { argument });
        place.eqprop().args(run).assert().success();
        let errors = metrics(&place.path(&format!("runs/{name}/metrics.jsonl")));
        let error = errors.last().unwrap()["error/test"].as_f64().unwrap();
        // One that has learnt something and not everything: else any network would do.
        assert!(error > 0.0 && error < 60.0, "{name}: {error}");
        let output = Command::new(&python)
            .current_dir(place.dir.path())
            .args(["-c", &program, &format!("checkpoints/{name}/last.safetensors"), "data"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), format!("{error:.2}"), "{name}");
    }
}
