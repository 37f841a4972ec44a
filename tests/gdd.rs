//! `eqprop gdd`, `angle` and `toy`: their files and their output.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{Place, python};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn largest(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// Puts the input of a golden case into IDX files, its weights and settings into files, and runs `gdd`.
fn run_golden(place: &Place, name: &str) -> (HashMap<String, Tensor>, serde_json::Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.safetensors"));
    let bytes = fs::read(&path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let case: serde_json::Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["case"]).unwrap();
    let golden = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    let images = golden["input.bytes"].to_vec2::<u8>().unwrap();
    let side = (images[0].len() as f64).sqrt() as u32;
    for prefix in ["train", "t10k"] {
        let mut file = vec![0, 0, 8, 3];
        for size in [images.len() as u32, side, side] {
            file.extend(size.to_be_bytes());
        }
        file.extend(images.iter().flatten());
        fs::write(place.path(&format!("data/{prefix}-images-idx3-ubyte")), file).unwrap();
        let mut file = vec![0, 0, 8, 1];
        file.extend((images.len() as u32).to_be_bytes());
        file.extend(golden["input.labels"].to_vec1::<u8>().unwrap());
        fs::write(place.path(&format!("data/{prefix}-labels-idx1-ubyte")), file).unwrap();
    }
    let weights: HashMap<_, _> = (golden.iter())
        .filter(|(name, _)| name.starts_with("forward.") || name.starts_with("feedback."))
        .map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect();
    candle_core::safetensors::save(&weights, place.path("weights.safetensors")).unwrap();
    let reversed = |key: &str| -> String {
        let mut list = case[key].as_array().cloned().unwrap_or_else(|| vec![0.1.into(); 2]);
        list.reverse();
        serde_json::Value::from(list).to_string()
    };
    let rule = match (case["tied"].as_bool().unwrap(), case["continual"].as_bool().unwrap()) {
        (true, false) => "ep",
        (true, true) => "cep",
        _ => "cvf",
    };
    let sigma_prime = case["gate"].as_str().unwrap_or("ignored");
    let authors_code = case["authors_code"].as_bool().unwrap_or(false);
    let epsilon = if case["time"] == "real" { case["epsilon"].to_string() } else { "0.08".into() };
    let config = format!(
        "[network]\ndims = {}\nactivation = {}\ntime = {}\nepsilon = {epsilon}\n\n[learning]\nrule = \"{rule}\"\nT = {}\nK = {}\nbeta = {}\n\
         learning_rates = {}\n\
         sigma_prime = \"{sigma_prime}\"\nauthors_code = {authors_code}\n\n[training]\nepochs = 1\n",
        reversed("dims_output_first"),
        case["activation"],
        case["time"],
        case["T"],
        case["K"],
        case["beta"],
        reversed("learning_rates_output_first"),
    );
    fs::write(place.path("case.toml"), config).unwrap();
    let count = images.len().to_string();
    place
        .eqprop()
        .args(["gdd", "--config", "case.toml", "--init", "weights.safetensors", "--data-dir", "data"])
        .args(["--batch-size", &count, "--index", "0", "--dtype", "f64", "--out", "out", "--trace"])
        .assert()
        .success();
    (golden, case)
}

#[test]
fn traces_and_summaries_are_those_of_the_golden_cases() {
    for name in ["ep-1h", "cep-1h", "cvf-2h", "cvf-1h-partial", "cvf-2h-full", "rt-cep-1h", "rt-cvf-1h"] {
        let place = Place::new();
        let (golden, case) = run_golden(&place, name);
        let trace =
            candle_core::safetensors::load(place.path("out/trace.safetensors"), &Device::Cpu).unwrap();
        let mut names: Vec<&String> = trace.keys().collect();
        let mut expected: Vec<&String> = golden.keys().collect();
        names.sort();
        expected.sort();
        assert_eq!(names, expected, "{name}");
        for (tensor, expected) in &golden {
            // These carry an error of the program that wrote them; see tests/golden.rs.
            if name == "rt-cep-1h" && tensor.starts_with("bptt.") && tensor.contains(".state.") {
                continue;
            }
            let cast = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let off = largest(&(cast(&trace[tensor]) - cast(expected)).unwrap());
            let rounding = 1e-15 / case["beta"].as_f64().unwrap();
            assert!(off <= 1e-9 * largest(expected) + rounding, "{name} {tensor}: off by {off:.1e}");
        }
        let summary: serde_json::Value = serde_json::from_str(&place.read("out/summary.json")).unwrap();
        let close = |got: &serde_json::Value, expected: &serde_json::Value| {
            let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
            assert!((got / expected - 1.0).abs() < 1e-9, "{name}: {got}, not {expected}");
        };
        for key in ["loss", "angle_total_degrees", "sign_match_total"] {
            close(&summary[key], &case[key]);
        }
        for (matrix, angle) in case["angle_per_matrix_degrees"].as_object().unwrap() {
            close(&summary["angle_per_matrix_degrees"][matrix], angle);
        }
        for (n, psi) in case["psi_per_pair_degrees"].as_array().unwrap().iter().enumerate() {
            close(&summary["psi_per_pair_degrees"][n], psi);
        }
        for picture in ["neurons", "synapses"] {
            let svg = place.read(&format!("out/{picture}.svg"));
            assert!(svg.contains("BPTT") && svg.contains("stroke-dasharray"), "{name}");
            assert!(
                fs::read(place.path(&format!("out/{picture}.pdf"))).unwrap().starts_with(b"%PDF-"),
                "{name}"
            );
        }
    }
}

#[test]
fn tensorboard_shows_the_pictures() {
    let Some(python) = python("tensorboard") else { return };
    let place = Place::new();
    // A second write into the folder is not shown twice.
    for _ in 0..2 {
        run_golden(&place, "cep-1h");
    }
    let script = r#"
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator("out")
events.Reload()
for tag in sorted(events.Tags()["images"]):
    image, = events.Images(tag)
    print(tag, image.width, image.height, image.encoded_image_string[1:4].decode())
"#;
    let output = std::process::Command::new(python)
        .current_dir(place.dir.path())
        .args(["-c", script])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    // Two panels of 460 × 300, a line of titles and one of the legend.
    assert_eq!(printed, "gdd/neurons 920 352 PNG\ngdd/synapses 920 352 PNG\n");
}

#[test]
fn angles_are_measured_before_training_and_as_often_as_asked() {
    let place = Place::new();
    let more = ["--epochs", "4", "--name", "r-data", "--set", "training.angle_every=2", "--psi", "45"];
    place.eqprop().args(place.small_run("cvf", &more)).assert().success();
    let lines = common::metrics(&place.path("runs/r-data/metrics.jsonl"));
    let measured: Vec<usize> = (0..5).filter(|&i| lines[i].get("angle/total").is_some()).collect();
    assert_eq!(measured, [0, 2, 4]);
    for tag in [
        "angle/forward.0",
        "angle/forward.1",
        "angle/feedback.0",
        "spread/angle/total",
        "sign_match/total",
        "sign_match/forward.0",
    ] {
        assert!(lines[0][tag].is_f64(), "{tag}");
    }
    // Measuring changes no bit of the run.
    let without =
        ["--epochs", "4", "--name", "w-data", "--set", "training.angle_minibatches=0", "--psi", "45"];
    place.eqprop().args(place.small_run("cvf", &without)).assert().success();
    let unmeasured = common::metrics(&place.path("runs/w-data/metrics.jsonl"));
    assert!(unmeasured[0].get("angle/total").is_none());
    assert_eq!(lines[4]["loss/test"], unmeasured[4]["loss/test"]);
    // `angle` measures the same before training.
    let output = place
        .eqprop()
        .args([
            "angle",
            "--json",
            "--config",
            "runs/r-data/config.toml",
            "--data-dir",
            "data",
            "--batches",
            "4",
        ])
        .output()
        .unwrap();
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["angle_total_degrees"]["mean"], lines[0]["angle/total"]);
}

#[test]
fn every_rule_trains_in_both_times() {
    let place = Place::new();
    for rule in ["ep", "cep", "cep-rescaled", "vf", "cvf", "bptt", "rbp", "asym-ep", "dyadic-ep"] {
        for time in ["discrete", "real"] {
            let name = format!("{rule}-{time}-data");
            // Continual updates want smaller rates, and real-time states are clamped in training.
            let continual = matches!(rule, "cep" | "cvf");
            let rates = if continual { "[0.04, 0.02]" } else { "[0.2, 0.1]" };
            let rates = format!("learning.learning_rates={rates}");
            let set = format!("network.time={time}");
            let clamp = format!("network.clamp={}", time == "real");
            let mut more = vec!["--name", &name, "--epochs", "30"];
            for setting in
                [&set[..], &clamp, &rates, "settle.steps=30", "learning.K=10", "learning.nudging=positive"]
            {
                more.extend(["--set", setting]);
            }
            if time == "real" {
                more.extend(["--set", "network.epsilon=0.3"]);
            }
            if !matches!(rule, "bptt" | "rbp") {
                more.extend(["--set", "learning.beta=0.2"]);
            }
            if time == "real" && matches!(rule, "cvf" | "asym-ep") {
                // The preset's settings for discrete time have no meaning here.
                more.extend([
                    "--set",
                    "learning.sigma_prime=ignored",
                    "--set",
                    "learning.authors_code=false",
                ]);
            }
            place.eqprop().args(place.small_run(rule, &more)).assert().success();
            let lines = common::metrics(&place.path(&format!("runs/{name}/metrics.jsonl")));
            let loss = |epoch: usize| lines[epoch]["loss/test"].as_f64().unwrap();
            assert!(loss(30) < 0.9 * loss(1), "{name}: {} → {}", loss(1), loss(30));
        }
    }
}

#[test]
fn the_toy_model_is_printed_beside_its_closed_forms() {
    let place = Place::new();
    let output = place.eqprop().arg("toy").output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for expected in ["−∇BPTT", "ΔC-EP", "-1.00000000 [-1.00000000]", "hold exactly"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}

#[test]
fn it_replaces_its_own_files_and_no_others_and_takes_the_type_that_is_asked_for() {
    let place = Place::new();
    let gdd = |more: &[&str], variable: Option<(&str, &str)>| {
        let fixed = ["gdd", "--algo", "cep", "--data-dir", "data", "--out", "g", "--trace"];
        let small =
            ["--set", "network.dims=[64, 12, 4]", "--set", "settle.steps=20", "--set", "learning.K=3"];
        let output = place.eqprop().args(fixed).args(small).args(more).envs(variable).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    fs::create_dir(place.path("g")).unwrap();
    let names =
        ["summary.json", "neurons.svg", "neurons.pdf", "synapses.svg", "synapses.pdf", "trace.safetensors"];
    for name in names.map(|name| format!("g/{name}")) {
        fs::write(place.path(&name), "my own\n").unwrap();
        let before = place.everything();
        let (status, said) = gdd(&[], None);
        assert_eq!(status, 2, "{name}: {said}");
        assert!(said.contains(&format!("{name}: already exists")), "{name}: {said}");
        assert!(place.everything() == before, "{name}");
        fs::remove_file(place.path(&name)).unwrap();
    }
    let dtype = |more: &[&str], variable: Option<(&str, &str)>| {
        let (status, said) = gdd(more, variable);
        assert_eq!(status, 0, "{said}");
        let trace = candle_core::safetensors::load(place.path("g/trace.safetensors"), &Device::Cpu).unwrap();
        trace["first.state.0"].dtype()
    };
    assert_eq!(dtype(&[], None), DType::F64);
    assert_eq!(dtype(&["--set", "training.dtype=f32"], None), DType::F32);
    assert_eq!(dtype(&[], Some(("EQPROP_TRAINING_DTYPE", "f32"))), DType::F32);
    assert_eq!(dtype(&["--dtype", "f64"], Some(("EQPROP_TRAINING_DTYPE", "f32"))), DType::F64);
}
