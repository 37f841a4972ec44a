//! Training on real MNIST, where `EQPROP_DATA` names a folder that holds it; skipped elsewhere.

mod common;

use common::{Place, metrics};
use flate2::read::GzDecoder;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

#[test]
fn ep_1h_learns_mnist() {
    let Some(folder) = mnist() else { return };
    let place = Place::new();
    place
        .eqprop()
        .args(["train", "--algo", "ep", "--depth", "1", "--epochs", "2", "--data", "mnist", "--name", "m"])
        .arg("--data-dir")
        .arg(folder)
        .assert()
        .success();
    let lines = metrics(&place.path("runs/m/metrics.jsonl"));
    let error = |epoch: usize| lines[epoch]["error/test"].as_f64().unwrap();
    assert!(error(0) > 80.0 && error(1) < 6.0 && error(2) < 4.5, "{} {} {}", error(0), error(1), error(2));
}

/// The folder with MNIST's files, or `None` with a message.
fn mnist() -> Option<PathBuf> {
    let folder = std::env::var_os("EQPROP_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED: EQPROP_DATA names no folder with MNIST");
    }
    folder
}

/// The output of a dry run on `data` from the folder `there`, and its status.
fn dry(place: &Place, data: &str, there: &str) -> (i32, String) {
    let arguments = ["train", "--algo", "ep", "--data", data, "--dry-run", "--data-dir", there];
    let output = place.eqprop().args(arguments).output().unwrap();
    let said = [output.stderr, output.stdout].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
];

#[test]
fn mnist_is_not_fashion_mnist() {
    let Some(folder) = mnist() else { return };
    let (status, said) = dry(&Place::new(), "fashion-mnist", &folder.display().to_string());
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("this is not Fashion-MNIST") && said.contains("other training images"), "{said}");
}

#[test]
fn a_part_of_another_set_is_named_and_takes_the_name_away() {
    let Some(folder) = mnist() else { return };
    let whole = |name: &str| {
        let mut bytes = Vec::new();
        GzDecoder::new(fs::File::open(folder.join(name)).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes
    };
    for (other, differs) in
        FILES.into_iter().zip(["other training images", "other labels", "other test images", "other labels"])
    {
        let place = Place::new();
        fs::create_dir(place.path("mixed")).unwrap();
        for name in FILES.iter().filter(|name| **name != other) {
            symlink(folder.join(name), place.path(&format!("mixed/{name}"))).unwrap();
        }
        // As many images or labels, the last of them different.
        let mut bytes = whole(other);
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(place.path(&format!("mixed/{}", other.trim_end_matches(".gz"))), bytes).unwrap();
        let (status, said) = dry(&place, "mnist", "mixed");
        assert_eq!(status, 1, "{other}: {said}");
        let file = format!("mixed/{}", other.trim_end_matches(".gz"));
        for words in ["this is not MNIST", &file, differs] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let (status, said) = dry(&place, "auto", "mixed");
        assert!(status == 0 && said.contains("data: mixed"), "{other}: {said}");
    }
}

#[test]
fn mnist_in_another_order_is_mnist() {
    let Some(folder) = mnist() else { return };
    let place = Place::new();
    fs::create_dir(place.path("turned")).unwrap();
    for (name, (header, size)) in FILES.into_iter().zip([(16, 784), (8, 1), (16, 784), (8, 1)]) {
        let mut bytes = Vec::new();
        GzDecoder::new(fs::File::open(folder.join(name)).unwrap()).read_to_end(&mut bytes).unwrap();
        let turned: Vec<u8> = bytes[header..].chunks(size).rev().flatten().copied().collect();
        bytes.truncate(header);
        bytes.extend(turned);
        fs::write(place.path(&format!("turned/{}", name.trim_end_matches(".gz"))), bytes).unwrap();
    }
    let (status, said) = dry(&place, "mnist", "turned");
    assert!(status == 0 && said.contains("data: mnist"), "{said}");
}

#[test]
fn a_few_digits_are_not_fashion_mnist() {
    let place = Place::new();
    let (status, said) = dry(&place, "fashion-mnist", "data");
    assert_eq!(status, 1, "{said}");
    let words = "data/train-images-idx3-ubyte has 230 training images of 64 pixels, where Fashion-MNIST has 60000 of 784";
    assert!(said.contains(words), "{said}");
}

#[test]
fn mnist_in_another_split_is_no_mnist_and_called_what_it_is() {
    let Some(folder) = mnist() else { return };
    let place = Place::new();
    fs::create_dir(place.path("mine")).unwrap();
    let whole = |name: &str| {
        let mut bytes = Vec::new();
        GzDecoder::new(fs::File::open(folder.join(name)).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes
    };
    // The last training image changes places with the last to test on.
    for (train, test, header, size) in [(FILES[0], FILES[2], 16, 784), (FILES[1], FILES[3], 8, 1)] {
        let (mut train_bytes, mut test_bytes) = (whole(train), whole(test));
        let (a, b) = (train_bytes.len() - size, test_bytes.len() - size);
        assert!(a > header && train_bytes[a..] != test_bytes[b..]);
        train_bytes[a..].swap_with_slice(&mut test_bytes[b..]);
        for (name, bytes) in [(train, train_bytes), (test, test_bytes)] {
            fs::write(place.path(&format!("mine/{}", name.trim_end_matches(".gz"))), bytes).unwrap();
        }
    }
    let (status, said) = dry(&place, "mnist", "mine");
    assert!(status == 1 && said.contains("this is not MNIST"), "{said}");
    let (status, said) = dry(&place, "auto", "mine");
    assert!(status == 0 && said.contains("data: mnist-own-split"), "{said}");
    assert!(
        said.contains("not to be compared") && said.contains("run ep-1h-mnist-own-split-seed0"),
        "{said}"
    );
}
