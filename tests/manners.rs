//! A run knows its data, its result, and the remains of an older run.

mod common;

use common::Place;
use serde_json::Value;
use std::fs;

/// The program's exit status, stdout and stderr, where no hub answers.
fn run(place: &Place, arguments: &[&str]) -> (i32, String, String) {
    let offline = [("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HOME", "nowhere")];
    let output = place.eqprop().args(arguments).envs(offline).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The arguments of a small run whose data are not named.
const SMALL: [&str; 11] = [
    "train",
    "--algo",
    "ep",
    "--threads",
    "1",
    "--set",
    "network.dims=[64, 24, 4]",
    "--set",
    "training.angle_every=0",
    "--name",
    "r-data",
];

fn small(more: &[&'static str]) -> Vec<&'static str> {
    SMALL.into_iter().chain(more.iter().copied()).collect()
}

/// A place with a run of so many epochs on its data.
fn with_run(epochs: &'static str) -> Place {
    let place = Place::new();
    let (status, _, said) = run(&place, &small(&["--epochs", epochs, "--data-dir", "data"]));
    assert_eq!(status, 0, "{said}");
    place
}

fn result(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[test]
fn a_run_goes_on_and_is_looked_at_with_the_data_it_had() {
    let place = with_run("1");
    let environment: Value = serde_json::from_str(&place.read("runs/r-data/environment.json")).unwrap();
    let source = environment["data"]["source"].as_str().unwrap();
    assert_eq!(fs::canonicalize(source).unwrap(), fs::canonicalize(place.path("data")).unwrap());
    let (status, shown, said) = run(&place, &["eval", "r-data", "--json", "--threads", "1"]);
    assert_eq!(status, 0, "{said}");
    assert_eq!((&result(&shown)["data"], &result(&shown)["source"]), (&"data".into(), &source.into()));
    let (status, shown, said) = run(&place, &["inspect", "r-data", "--threads", "1"]);
    assert_eq!((status, shown.as_str()), (0, "runs/r-data/inspect.html\n"), "{said}");
    assert!(!place.path("inspect.html").exists());
    // The starting angle is a number with its n, and the image has a reason.
    let page = place.read("runs/r-data/inspect.html");
    let metrics = place.read("runs/r-data/metrics.jsonl");
    let before: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let [angle, n] = ["angle/total", "angle/minibatches"].map(|tag| before[tag].as_f64().unwrap());
    assert!(page.contains(&format!("−∇BPTT tot) = {angle:.1}")), "{page}");
    assert!(page.contains(&format!("(n = {n} minibatches)")), "{page}");
    assert!(page.contains("the one that still moves most at T of all"), "{page}");
    let (status, ..) = run(&place, &["inspect", "r-data", "--threads", "1", "--image", "3"]);
    let page = place.read("runs/r-data/inspect.html");
    assert!(status == 0 && page.contains("Test image 3 (as --image asks)"), "{page}");
    let (status, _, said) = run(&place, &["train", "--resume", "r-data", "--epochs", "2", "--threads", "1"]);
    assert_eq!(status, 0, "{said}");
    // Even where the run is looked for by its name.
    let (status, _, said) = run(&place, &small(&["--resume", "auto", "--epochs", "3"]));
    assert!(status == 0 && said.contains("resuming r-data"), "{said}");
    assert!(!said.contains("hub") && !said.contains("is not available"), "{said}");
}

#[test]
fn a_run_whose_data_are_gone_says_so_and_looks_in_the_usual_places() {
    let place = with_run("1");
    fs::rename(place.path("data"), place.path("elsewhere")).unwrap();
    let (status, _, said) = run(&place, &["train", "--resume", "r-data", "--epochs", "2"]);
    assert_eq!(status, 1, "{said}");
    assert_eq!(said.matches("where the run had its data, no longer exists").count(), 1, "{said}");
    // Other data in their place are not taken for the run's.
    fs::rename(place.path("elsewhere"), place.path("data")).unwrap();
    let labels = place.path("data/t10k-labels-idx1-ubyte");
    let mut bytes = fs::read(&labels).unwrap();
    bytes[9] = (bytes[9] + 1) % 4;
    fs::write(&labels, bytes).unwrap();
    let (status, _, said) = run(&place, &["train", "--resume", "r-data", "--epochs", "2"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("holds other data than the run used"), "{said}");
}

#[test]
fn training_ends_with_its_result_and_what_may_follow() {
    let place = Place::new();
    let (status, shown, said) = run(&place, &small(&["--epochs", "2", "--data-dir", "data"]));
    assert_eq!(status, 0, "{said}");
    let lines = common::metrics(&place.path("runs/r-data/metrics.jsonl"));
    let test = |epoch: usize| lines[epoch]["error/test"].as_f64().unwrap();
    let best = (0..3).min_by(|&a, &b| test(a).total_cmp(&test(b))).unwrap();
    assert_eq!(
        shown,
        format!(
            "r-data: {:.2} % test error on data after 2 epochs, best {:.2} % in epoch {best}, train error {:.2} %\n",
            test(2),
            test(best),
            lines[2]["error/train"].as_f64().unwrap()
        )
    );
    assert!(said.contains("inspect r-data"), "{said}");
    assert!(said.contains("train --resume r-data --epochs 4"), "{said}");
    let (status, shown, said) = run(&place, &small(&["--resume", "auto", "--epochs", "3", "--json"]));
    assert_eq!(status, 0, "{said}");
    let shown = result(&shown);
    assert_eq!((&shown["run"], &shown["epochs"]), (&"r-data".into(), &3.into()));
    let last = &common::metrics(&place.path("runs/r-data/metrics.jsonl"))[3];
    assert_eq!(shown["test_error_percent"], last["error/test"]);
    assert_eq!(shown["train_error_percent"], last["error/train"]);
    assert_eq!(shown["already_done"], false);
}

#[test]
fn a_finished_run_is_made_longer_by_a_flag_or_a_variable_alone() {
    let place = with_run("1");
    let before = place.read("runs/r-data/metrics.jsonl");
    // The preset has 30 epochs.
    let (status, shown, said) = run(&place, &small(&["--resume", "auto"]));
    assert_eq!(status, 0, "{said}");
    assert!(shown.starts_with("r-data: already done, ") && shown.contains("after 1 epochs"), "{shown}");
    assert!(said.contains("already completed 1 of 1 epochs") && said.contains("--epochs 30"), "{said}");
    // Nor does a file.
    let file = place.read("runs/r-data/config.toml").replace("\nepochs = 1 ", "\nepochs = 5 ");
    assert!(file.contains("epochs = 5"), "{file}");
    fs::write(place.path("longer.toml"), file).unwrap();
    let named = ["train", "--config", "longer.toml", "--name", "r-data", "--resume", "auto", "--json"];
    let (status, shown, said) = run(&place, &[&named[..], &["--threads", "1"]].concat());
    assert_eq!(status, 0, "{said}");
    assert_eq!((&result(&shown)["epochs"], &result(&shown)["already_done"]), (&1.into(), &true.into()));
    assert_eq!(place.read("runs/r-data/metrics.jsonl"), before);
    let (status, shown, _) = run(&place, &small(&["--resume", "auto", "--epochs", "2"]));
    assert!(status == 0 && shown.contains("after 2 epochs"), "{shown}");
}

#[test]
fn overwriting_moves_both_folders_aside_under_one_name() {
    let place = with_run("1");
    let old = place.read("runs/r-data/metrics.jsonl");
    // A name that is free beside one of them only.
    fs::create_dir(place.path("runs/r-data.1")).unwrap();
    let again = ["--epochs", "2", "--data-dir", "data"];
    let (status, _, said) = run(&place, &small(&again));
    assert!(status == 1 && said.contains("--overwrite"), "{said}");
    let (status, _, said) = run(&place, &small(&[&again[..], &["--overwrite"]].concat()));
    assert_eq!(status, 0, "{said}");
    assert_eq!(place.read("runs/r-data.2/metrics.jsonl"), old);
    assert!(place.path("checkpoints/r-data.2/last.safetensors").is_file());
    assert!(!place.path("checkpoints/r-data.1").exists());
    assert_eq!(place.read("runs/r-data/metrics.jsonl").lines().count(), 3);
    let (status, _, said) = run(&place, &small(&["--overwrite", "--resume", "auto"]));
    assert!(status == 2 && said.contains("--resume"), "{said}");
}

#[test]
fn an_angle_of_one_minibatch_has_no_spread_and_says_so() {
    let place = Place::new();
    let more = ["--epochs", "1", "--data-dir", "data", "--set", "training.angle_every=1"];
    let (status, _, said) = run(&place, &small(&more));
    assert_eq!(status, 0, "{said}");
    let lines = common::metrics(&place.path("runs/r-data/metrics.jsonl"));
    assert_eq!((&lines[0]["angle/minibatches"], &lines[1]["angle/minibatches"]), (&4.0.into(), &1.0.into()));
    assert!(lines[0].get("spread/angle/total").is_some() && lines[1].get("spread/angle/total").is_none());
    assert!(lines[1].get("angle/total").is_some());
    let config = ["angle", "--config", "runs/r-data/config.toml", "--data-dir", "data", "--batches"];
    let angle = |more: &[&str]| run(&place, &[&config[..], more].concat()).1;
    let (one, eight) = (angle(&["1"]), angle(&["8"]));
    assert!(one.contains("n = 1 minibatches") && !one.contains('±'), "{one}");
    assert!(eight.contains("n = 8 minibatches") && eight.contains('±') && eight.contains(" to "), "{eight}");
    let [one, eight] = [["1", "--json"], ["8", "--json"]].map(|more| result(&angle(&more)));
    assert!(one["angle_total_degrees"]["std"].is_null());
    assert_eq!(eight["angle_total_degrees"]["count"], 8);
    assert!(eight["angle_total_degrees"]["quartiles"][1].is_f64());
}
