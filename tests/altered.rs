//! Checkpoints that somebody has altered: refused by name and reason, and nothing is written.

mod common;

use common::Place;
use serde_json::{Value, json};
use std::fs;

/// A place with a complete run `r-data` of one epoch, its last checkpoint, and the contents of its folders.
fn place() -> Place {
    let place = Place::new();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    place
}

/// Writes `bad.safetensors`: the run's last checkpoint with its header, metadata and data altered, and without a
/// checksum, as before there were any.
fn alter(place: &Place, change: impl FnOnce(&mut Value, &mut Value, &mut [u8])) {
    let bytes = fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut metadata: Value =
        serde_json::from_str(header["__metadata__"]["eqprop"].as_str().unwrap()).unwrap();
    assert!(metadata.as_object_mut().unwrap().remove("checksum").is_some());
    let mut data = bytes[8 + length..].to_vec();
    change(&mut header, &mut metadata, &mut data);
    header["__metadata__"]["eqprop"] = metadata.to_string().into();
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    fs::write(place.path("bad.safetensors"), bytes).unwrap();
}

/// Asserts that a command fails with a message about `bad.safetensors` and `word`, and writes nothing.
fn refuses(place: &Place, arguments: &[&str], word: &str) {
    let before = place.everything();
    let output = place.eqprop().args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}, {word}: {said}");
    assert!(said.contains("bad.safetensors") && said.contains(word), "{word}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(place.everything() == before, "{arguments:?}, {word}: something was written");
}

const RESUME: [&str; 7] = ["train", "--resume", "bad.safetensors", "--epochs", "2", "--data-dir", "data"];
const EVAL: [&str; 5] = ["eval", "--checkpoint", "bad.safetensors", "--data-dir", "data"];

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let place = place();
    fs::create_dir_all(place.path("x/y")).unwrap();
    let absolute = place.path("elsewhere").to_string_lossy().into_owned();
    for name in ["../../x", "../x/y", absolute.as_str(), "", ".", "..", "a\\b", "a\nb", "\u{1b}[2J"] {
        alter(&place, |_, metadata, _| metadata["run"] = name.into());
        refuses(&place, &RESUME, "cannot name a run");
        refuses(&place, &EVAL, "cannot name a run");
    }
    // From the command line, and from a data folder, too.
    let start = place.small_run("ep", &["--name", "a\tb"]);
    let output = place.eqprop().args(start).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    fs::rename(place.path("data"), place.path("da\nta")).unwrap();
    let output = place.eqprop().args(["train", "--algo", "ep", "--data-dir", "da\nta"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("control characters"));
}

#[test]
fn positions_that_cannot_be_are_refused() {
    let place = place();
    // (section, key, value, what is said); the run has 12 minibatches an epoch and stands after the first.
    let cases: [(&str, &str, Value, &str); 14] = [
        ("", "minibatch", json!(u64::MAX), "an epoch has 12"),
        ("", "minibatch", json!(944), "minibatch 944, and an epoch has 12"),
        ("", "minibatch", json!(3), "60 images, yet it counts 0 images"),
        ("", "epoch", json!(u64::MAX), "epochs are done"),
        ("", "epoch", json!(0), "random streams"),
        ("", "best_test_error", json!(1e300), "best errors"),
        ("running", "errors", json!(1u64 << 63), "errors"),
        ("running", "images", json!(20), "counts 20 images"),
        ("running", "loss", json!(-1.0), "images"),
        ("rng", "beta_sign", json!(77), "random streams"),
        ("rng", "shuffle", json!(7), "random streams"),
        ("rng", "seed", json!(5), "random streams"),
        ("rng", "generator", json!("dice"), "random streams"),
        ("", "format", json!(99), "format"),
    ];
    for (section, key, value, said) in cases {
        alter(&place, |_, metadata, _| match section {
            "" => metadata[key] = value,
            section => metadata[section][key] = value,
        });
        refuses(&place, &RESUME, said);
    }
    for (section, key, value) in [
        ("training", "batch_size", json!(0)),
        ("network", "dims", json!([])),
        ("learning", "beta", json!(0.0)),
    ] {
        alter(&place, |_, metadata, _| metadata["config"][section][key] = value);
        refuses(&place, &RESUME, key);
        refuses(&place, &EVAL, key);
    }
}

#[test]
fn weights_and_biases_that_are_not_finite_floats_are_refused() {
    let place = place();
    let init = place.small_run("ep", &["--epochs", "1", "--name", "i-data", "--init", "bad.safetensors"]);
    for tensor in ["forward.0.weight", "forward.1.bias"] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            alter(&place, |header, _, data| {
                let begin = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
                data[begin..begin + 4].copy_from_slice(&value.to_le_bytes());
            });
            refuses(&place, &EVAL, tensor);
            refuses(&place, &RESUME, tensor);
            refuses(&place, &init, tensor);
        }
        alter(&place, |header, _, _| header[tensor]["dtype"] = "I32".into());
        refuses(&place, &EVAL, "floats");
        refuses(&place, &RESUME, "floats");
    }
}

#[test]
fn a_checkpoint_from_elsewhere_does_not_go_on_over_another_run() {
    let place = place();
    let other = ["--epochs", "1", "--name", "s-data", "--seed", "9"];
    place.eqprop().args(place.small_run("ep", &other)).assert().success();
    alter(&place, |_, metadata, _| metadata["run"] = "s-data".into());
    refuses(&place, &RESUME, "checkpoints/s-data holds another run");
}

#[test]
fn rotation_leaves_what_is_not_the_runs() {
    let place = Place::new();
    let other = ["--epochs", "1", "--name", "o-data", "--seed", "9"];
    place.eqprop().args(place.small_run("ep", &other)).assert().success();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    let foreign = fs::read(place.path("checkpoints/o-data/step-00000012.safetensors")).unwrap();
    let kept = ["step-00000001.safetensors", "step-mine.safetensors", "step-00000002.safetensors"];
    for (name, bytes) in kept.iter().zip([&foreign[..], b"mine", b"not whole"]) {
        fs::write(place.path(&format!("checkpoints/r-data/{name}")), bytes).unwrap();
    }
    let more = ["--epochs", "3", "--name", "r-data", "--resume", "auto"];
    place.eqprop().args(place.small_run("ep", &more)).assert().success();
    for name in kept {
        assert!(place.path(&format!("checkpoints/r-data/{name}")).is_file(), "{name}");
    }
    assert!(!place.path("checkpoints/r-data/step-00000006.safetensors").exists(), "nothing was rotated");
}

/// Resumes from `bad.safetensors`, a checkpoint of `r-data`, under another name.
const OVER: [&str; 11] = [
    "train",
    "--resume",
    "bad.safetensors",
    "--name",
    "s-data",
    "--epochs",
    "3",
    "--threads",
    "1",
    "--data-dir",
    "data",
];

#[test]
fn what_another_run_has_told_is_not_written_over() {
    // Its checkpoints are elsewhere, or only the best is left.
    for gone in ["checkpoints/s-data", "best"] {
        let place = place();
        alter(&place, |_, _, _| ());
        let other = ["--epochs", "2", "--name", "s-data", "--seed", "9"];
        place.eqprop().args(place.small_run("ep", &other)).assert().success();
        match gone {
            "best" => {
                fs::remove_dir_all(place.path("runs/s-data")).unwrap();
                for entry in fs::read_dir(place.path("checkpoints/s-data")).unwrap() {
                    let path = entry.unwrap().path();
                    if !path.ends_with("best.safetensors") {
                        fs::remove_file(path).unwrap();
                    }
                }
                refuses(&place, &OVER, "checkpoints/s-data holds another run");
            }
            _ => {
                fs::remove_dir_all(place.path(gone)).unwrap();
                refuses(&place, &OVER, "training.seed of its config.toml is not 0");
            }
        }
    }
    // Records that do not say whose they are.
    let place = place();
    alter(&place, |_, _, _| ());
    fs::create_dir_all(place.path("checkpoints/s-data")).unwrap();
    fs::write(place.path("checkpoints/s-data/last.safetensors"), "cut").unwrap();
    refuses(&place, &OVER, "checkpoints/s-data holds no whole checkpoint");
    fs::remove_dir_all(place.path("checkpoints/s-data")).unwrap();
    // Files that no run has written.
    fs::create_dir_all(place.path("runs/s-data")).unwrap();
    fs::write(place.path("runs/s-data/metrics.jsonl"), "{\"epoch\":9,\"mine\":1}\n").unwrap();
    refuses(&place, &OVER, "runs/s-data holds other records");
    fs::write(place.path("runs/s-data/config.toml"), "mine").unwrap();
    refuses(&place, &OVER, "not the configuration of a run");
    // The same run under another name.
    fs::remove_dir_all(place.path("runs/s-data")).unwrap();
    place.eqprop().args(OVER).assert().success();
    assert_eq!(place.read("runs/s-data/metrics.jsonl").lines().count(), 2, "epochs 2 and 3");
}

#[test]
fn a_data_set_whose_name_leads_elsewhere_is_refused() {
    let place = place();
    for data in ["x/../../../elsewhere", "a\u{1b}[31m\nb", &"d".repeat(240)] {
        alter(&place, |_, metadata, _| metadata["data"] = data.into());
        refuses(&place, &RESUME, "cannot name a run");
        refuses(&place, &EVAL, "cannot name a run");
    }
}

#[test]
fn a_turned_bit_of_a_checkpoint_is_noticed() {
    let place = place();
    let good = fs::read(place.path("checkpoints/r-data/last.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let find = |text: &str| good.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap();
    // In a learning rate, in the checksum itself, in a weight, in the last byte: every value is possible.
    let config = find(r#"\"learning_rates\":["#) + r#"\"learning_rates\":[0."#.len();
    let checksum = find(r#"{\"checksum\":\""#) + 20;
    for at in [config, checksum, header + 1000, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(place.path("bad.safetensors"), &bad).unwrap();
        refuses(&place, &EVAL, "the checksum differs");
        refuses(&place, &RESUME, "the checksum differs");
    }
    // A bad last checkpoint gives way to the one before.
    let mut bad = good.clone();
    bad[header + 1000] ^= 1;
    fs::write(place.path("checkpoints/r-data/last.safetensors"), &bad).unwrap();
    let more = place.small_run("ep", &["--epochs", "2", "--name", "r-data", "--resume", "auto"]);
    let output = place.eqprop().args(more).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("last.safetensors: not whole") && said.contains("the newest whole checkpoint"),
        "{said}"
    );
    // A checkpoint from before there were checksums resumes.
    alter(&place, |_, _, _| ());
    place.eqprop().args(EVAL).assert().success();
}
