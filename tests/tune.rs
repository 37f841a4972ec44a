//! `eqprop tune`: the promises of its documentation, driven through the program on a small data set.

mod common;

use common::Place;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

const SMALL: [&str; 6] = ["--data-dir", "data", "--set", "network.dims=[64, 24, 4]", "--epochs", "8"];

/// Arguments that tune `rule` in the folder `out`, with arithmetic for four candidates.
fn arguments<'a>(rule: &'a str, out: &'a str) -> Vec<&'a str> {
    let fixed = ["tune", "--algo", rule, "--out", out, "--budget", "1e9", "--threads", "1"];
    fixed.into_iter().chain(SMALL).collect()
}

fn succeeds(place: &Place, arguments: &[&str]) -> String {
    let output = place.eqprop().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(place: &Place, arguments: &[&str], words: &str) {
    let output = place.eqprop().args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(words), "{said}");
}

fn tuned(place: &Place, out: &str) -> toml::Table {
    place.read(&format!("{out}/tuned.toml")).parse().unwrap()
}

#[test]
fn it_ends_in_a_configuration_that_learns_and_a_page() {
    for rule in ["ep", "cvf"] {
        let place = Place::new();
        let said = succeeds(&place, &arguments(rule, "out"));
        assert_eq!(said, "out/tuned.toml\n");
        let found = tuned(&place, "out");
        assert_eq!(found["training"]["epochs"].as_integer(), Some(8), "what is not tuned stays");
        assert_eq!(found["learning"]["nudging"].as_str(), Some("random"));
        let [tolerance, beta] = [("settle", "tolerance"), ("learning", "beta")]
            .map(|(section, key)| found[section][key].as_float());
        let part = tolerance.unwrap() / beta.unwrap();
        assert!(
            [1e-3, 1e-2].iter().any(|rest| (part / rest - 1.0).abs() < 0.01),
            "{tolerance:?} of {beta:?}"
        );
        assert!(
            !found["training"].as_table().unwrap().contains_key("limit_train"),
            "nor is a run from it a probe"
        );
        assert!(
            place.read("out/tuned.toml").contains("# T, which hardly any image needs: 99.9 % settle"),
            "each value has its reason"
        );
        succeeds(&place, &["train", "--config", "out/tuned.toml", "--data-dir", "data", "--name", "tuned"]);
        let last = common::metrics(&place.path("runs/tuned-data/metrics.jsonl")).pop().unwrap();
        // Four classes: 75 % is chance.
        assert!(last["error/train"].as_f64().unwrap() < 40.0, "{rule}: {last}");
        let page = place.read("out/tune.html");
        for part in ["Residual against t", "‖∇(t)‖ and ‖Δ(t)‖", "Angle against β", "against η", "Train error"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("NaN"));
        // The settings that were kept are marked, the preset stands beside them, and the command to train comes at
        // the end.
        assert!(page.contains("<tr class=\"kept\">") && page.contains(", kept</td>"), "{page}");
        assert!(page.contains("as it started, from the preset"), "{page}");
        assert!(page.ends_with("eqprop train --config out/tuned.toml</pre></body></html>"), "{page}");
    }
}

#[test]
fn the_same_seed_and_arithmetic_choose_the_same_whatever_the_threads_and_test_images() {
    let (one, other) = (Place::new(), Place::new());
    let images = other.path("data/t10k-images-idx3-ubyte");
    let mut bytes = fs::read(&images).unwrap();
    bytes[16..].reverse();
    fs::write(&images, bytes).unwrap();
    succeeds(&one, &arguments("cep", "out"));
    let mut with_threads = arguments("cep", "out");
    let threads = with_threads.iter().position(|word| *word == "--threads").unwrap() + 1;
    with_threads[threads] = "2";
    succeeds(&other, &with_threads);
    assert_eq!(one.read("out/tuned.toml"), other.read("out/tuned.toml"));
}

#[test]
fn stopped_and_gone_on_with_it_ends_as_undisturbed() {
    let (undisturbed, stopped) = (Place::new(), Place::new());
    succeeds(&undisturbed, &arguments("ep", "out"));
    let steps = undisturbed.read("out/tune.jsonl").lines().count();
    let mut interrupted = 0;
    // Stopped among the measurements, and among the probes.
    for lines in [3, steps - 4] {
        let mut child = stopped
            .process()
            .args(arguments("ep", "out"))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let there = || fs::read_to_string(stopped.path("out/tune.jsonl")).unwrap_or_default().lines().count();
        while there() < lines && begun.elapsed() < Duration::from_secs(300) {
            sleep(Duration::from_millis(2));
        }
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        let status = child.wait().unwrap();
        assert!([Some(143), Some(0)].contains(&status.code()), "{status:?}");
        interrupted += usize::from(status.code() == Some(143));
    }
    assert!(interrupted > 0, "it was done before it could be stopped");
    let before = stopped.read("out/tune.jsonl");
    succeeds(&stopped, &arguments("ep", "out"));
    assert!(stopped.read("out/tune.jsonl").starts_with(&before), "what was done is not done again");
    assert_eq!(stopped.read("out/tuned.toml"), undisturbed.read("out/tuned.toml"));
}

/// The result of a step of a tuning.
fn step_of(place: &Place, out: &str, step: &str) -> serde_json::Value {
    let lines = place.read(&format!("{out}/tune.jsonl"));
    let mut lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.find(|line| line["step"] == step).unwrap_or_else(|| panic!("no step {step}"))["result"].clone()
}

#[test]
fn a_budget_of_time_becomes_as_much_arithmetic() {
    let place = Place::new();
    let mut arguments = arguments("ep", "out");
    let budget = arguments.iter().position(|word| *word == "1e9").unwrap();
    arguments[budget] = "6s";
    let epochs = arguments.iter().position(|word| *word == "8").unwrap();
    arguments[epochs] = "1000000"; // What it may do would take hours.
    succeeds(&place, &arguments);
    assert_eq!(step_of(&place, "out", "about")["budget"], serde_json::json!({ "seconds": 6.0 }));
    // However busy the machine: four fifths of the rest of six seconds, which may be nothing, at the speed measured.
    let plan = step_of(&place, "out", "plan");
    let [speed, work] = ["speed", "work"].map(|key| plan[key].as_f64().unwrap());
    assert!(speed > 0.0 && (0.0..0.8 * 6.0 * speed).contains(&work), "{plan}");
    assert_eq!(tuned(&place, "out")["training"]["epochs"].as_integer(), Some(1_000_000));
}

#[test]
fn what_cannot_be_tuned_is_refused_in_one_paragraph() {
    let place = Place::new();
    succeeds(&place, &arguments("ep", "out"));
    let before = place.read("out/tune.jsonl");
    refused(&place, &arguments("cep", "out"), "other configuration");
    assert_eq!(place.read("out/tune.jsonl"), before);
    refused(&place, &arguments("bptt", "other"), "not the steps of a second phase");
    assert!(!place.path("other").exists());
    let mut wrong = arguments("ep", "other");
    let budget = wrong.iter().position(|word| *word == "1e9").unwrap();
    wrong[budget] = "soon";
    refused(&place, &wrong, "20m");
}
