//! Runs whose folders have been renamed resume under the new name, in one piece or not at all.

mod common;

use common::{Place, metrics};
use serde_json::Value;
use std::fs;

/// A place where the run `r-data` has done two epochs.
fn place() -> Place {
    let place = Place::new();
    place.eqprop().args(place.small_run("cep", &["--epochs", "2", "--name", "r-data"])).assert().success();
    place
}

fn rename(place: &Place, folder: &str, from: &str, to: &str) {
    fs::rename(place.path(folder).join(from), place.path(folder).join(to)).unwrap();
}

/// Status and stderr of resuming, to the third epoch by default.
fn go_on(place: &Place, more: &[&str]) -> (i32, String) {
    let epochs = if more.contains(&"--epochs") { &[][..] } else { &["--epochs", "3"] };
    let train = [&["train", "--threads", "1", "--data-dir", "data"], epochs].concat();
    let output = place.eqprop().args([&train[..], more].concat()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Asserts that this resume is refused with these words, and that nothing is written.
fn refused(place: &Place, more: &[&str], words: &[&str]) {
    let before = place.everything();
    let (status, said) = go_on(place, more);
    assert_eq!(status, 1, "{more:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{more:?}, {word}: {said}");
    }
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(place.everything() == before, "{more:?}: something was written");
}

fn names(place: &Place, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(place.path(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_renamed_run_goes_on_as_it_is_called_now() {
    // The result under that name from the beginning.
    let expected = Place::new();
    expected
        .eqprop()
        .args(expected.small_run("cep", &["--epochs", "3", "--name", "s-data"]))
        .assert()
        .success();
    let file = "checkpoints/s-data/last.safetensors";
    for resume in ["s-data", "runs/s-data", "checkpoints/s-data", file, "auto"] {
        let place = place();
        let environment = place.read("runs/r-data/environment.json");
        rename(&place, "runs", "r-data", "s-data");
        rename(&place, "checkpoints", "r-data", "s-data");
        let (status, said) = match resume {
            "auto" => {
                let auto = ["--epochs", "3", "--name", "s-data", "--resume", "auto"];
                let output = place.eqprop().args(place.small_run("cep", &auto)).output().unwrap();
                (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
            }
            resume => go_on(&place, &["--resume", resume]),
        };
        assert_eq!(status, 0, "{resume}: {said}");
        assert!(said.contains("the run was called r-data until now, and resumes as s-data"), "{said}");
        assert_eq!(
            (names(&place, "runs"), names(&place, "checkpoints")),
            (vec!["s-data".into()], vec!["s-data".into()])
        );
        let all = "runs/s-data/metrics.jsonl";
        assert_eq!(metrics(&place.path(all)), metrics(&expected.path(all)), "{resume}");
        assert!(fs::read(place.path(file)).unwrap() == fs::read(expected.path(file)).unwrap(), "{resume}");
        assert_eq!(place.read("runs/s-data/environment.json"), environment);
        assert!(place.read("runs/s-data/config.toml").contains("of run s-data"));
        // Superfluous checkpoints are gone, under whichever name they were written.
        let mut numbered = names(&place, "checkpoints/s-data");
        numbered.retain(|name| name.starts_with("step-"));
        assert_eq!(numbered.len(), 3, "{numbered:?}");
        // From there on nothing more is said about it.
        let (status, said) = go_on(&place, &["--resume", "s-data", "--epochs", "4"]);
        assert_eq!((status, said.contains("was called")), (0, false), "{said}");
    }
}

#[test]
fn checkpoints_of_the_former_name_are_rotated_by_later_processes_too() {
    let place = place();
    rename(&place, "runs", "r-data", "s-data");
    rename(&place, "checkpoints", "r-data", "s-data");
    // This one saves so seldom that one of them is left,
    let seldom = ["--resume", "s-data", "--set", "training.checkpoint_every=1000"];
    assert_eq!(go_on(&place, &seldom).0, 0);
    let former = || {
        let files = names(&place, "checkpoints/s-data").into_iter().filter(|name| name.starts_with("step-"));
        let of = |name: &String| {
            let bytes = fs::read(place.path("checkpoints/s-data").join(name)).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
            let progress: Value =
                serde_json::from_str(header["__metadata__"]["eqprop"].as_str().unwrap()).unwrap();
            progress["run"] == "r-data"
        };
        files.filter(of).count()
    };
    assert!(former() > 0);
    // and the next removes it.
    assert_eq!(go_on(&place, &["--resume", "s-data", "--epochs", "5"]).0, 0);
    assert_eq!(former(), 0);
}

#[test]
fn where_one_folder_alone_is_renamed_the_other_is_named() {
    let place = place();
    rename(&place, "checkpoints", "r-data", "s-data");
    let words =
        ["runs/r-data", "rename runs/r-data to runs/s-data, or checkpoints/s-data to checkpoints/r-data"];
    refused(&place, &["--resume", "s-data"], &words);
    refused(&place, &["--resume", "checkpoints/s-data/last.safetensors"], &words);
    rename(&place, "checkpoints", "s-data", "r-data");

    rename(&place, "runs", "r-data", "s-data");
    let words =
        ["runs/s-data", "rename runs/s-data to runs/r-data, or checkpoints/r-data to checkpoints/s-data"];
    refused(&place, &["--resume", "r-data"], &words);
    refused(
        &place,
        &["--resume", "s-data"],
        &["was called r-data", "checkpoints/r-data", "to checkpoints/s-data"],
    );
    // The command in the message works.
    rename(&place, "checkpoints", "r-data", "s-data");
    assert_eq!(go_on(&place, &["--resume", "s-data"]).0, 0);
    // Another run may have the former name, and lose its record, though runs/s-data says that it had the name before.
    place.eqprop().args(place.small_run("cep", &["--epochs", "2", "--name", "r-data"])).assert().success();
    fs::remove_dir_all(place.path("runs/r-data")).unwrap();
    assert_eq!(go_on(&place, &["--resume", "r-data"]).0, 0);
}

#[test]
fn a_copy_of_checkpoints_goes_on_as_which_run_it_is_told() {
    let place = place();
    fs::create_dir(place.path("checkpoints/s-data")).unwrap();
    let copy = "checkpoints/s-data/last.safetensors";
    fs::copy(place.path("checkpoints/r-data/last.safetensors"), place.path(copy)).unwrap();
    refused(&place, &["--resume", copy], &["--name r-data to resume", "--name s-data to make another run"]);
    assert_eq!(go_on(&place, &["--resume", copy, "--name", "s-data"]).0, 0);
    assert_eq!(
        (names(&place, "runs").len(), metrics(&place.path("runs/s-data/metrics.jsonl")).len()),
        (2, 1)
    );
    assert_eq!(metrics(&place.path("runs/r-data/metrics.jsonl")).len(), 3);
}

#[test]
fn a_name_that_no_longer_says_on_which_data_is_refused() {
    let place = place();
    rename(&place, "runs", "r-data", "s");
    rename(&place, "checkpoints", "r-data", "s");
    for resume in ["s", "checkpoints/s/last.safetensors"] {
        refused(&place, &["--resume", resume], &["checkpoints/s", "is on data", "to s-data"]);
    }
    rename(&place, "runs", "s", "s-data");
    rename(&place, "checkpoints", "s", "s-data");
    assert_eq!(go_on(&place, &["--resume", "s-data"]).0, 0);
}
