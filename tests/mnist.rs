//! Training on real MNIST, where `EQPROP_DATA` names a folder that holds it; skipped elsewhere.

mod common;

use common::{Place, metrics};

#[test]
fn ep_1h_learns_mnist() {
    let Some(folder) = std::env::var_os("EQPROP_DATA") else {
        eprintln!("SKIPPED: EQPROP_DATA names no folder with MNIST");
        return;
    };
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

#[test]
fn mnist_is_not_fashion_mnist() {
    let Some(folder) = std::env::var_os("EQPROP_DATA") else {
        eprintln!("SKIPPED: EQPROP_DATA names no folder with MNIST");
        return;
    };
    let place = Place::new();
    let mut command = place.eqprop();
    command.args(["train", "--algo", "ep", "--data", "fashion-mnist", "--dry-run", "--data-dir"]).arg(folder);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("training images of MNIST, not of Fashion-MNIST"), "{said}");
}
