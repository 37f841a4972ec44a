//! Runs of networks with convolutions, through the program: train, resume, look, and what is refused.

mod common;

use candle_core::{DType, Device, Tensor, safetensors};
use common::{CLASSES, Place, SIDE, python_in};
use eqprop::config::{Choices, Resolved};
use eqprop::data::Batch;
use eqprop::engine::{Engine, plain::Plain};
use eqprop::model::Parameters;
use std::collections::HashMap;
use std::process::Command;

/// A run on the small set, of `rule` and with these settings beside; what begins with `--` is a flag.
fn train(place: &Place, rule: &str, name: &str, settings: &[&str]) -> assert_cmd::assert::Assert {
    let dims = format!("network.dims=[\"{SIDE}x{SIDE}\", \"conv 6 3 pool 2\", \"conv 5 2\", {CLASSES}]");
    let mut command = place.eqprop();
    command.args(["train", "--algo", rule, "--depth", "2", "--data-dir", "data", "--name", name]);
    command.args(["--set", &dims, "--set", "settle.steps=20", "--set", "learning.K=4"]);
    command.args(["--set", "network.activation=hard-sigmoid"]);
    if rule != "bptt" {
        command.args(["--set", "learning.beta=0.3"]);
    }
    command.args(["--set", "settle.order=synchronous"]);
    command.args(["--set", "settle.solver=iterate", "--set", "learning.learning_rates=[0.02, 0.02, 0.02]"]);
    for setting in settings {
        match setting.starts_with("--") {
            true => command.arg(setting),
            false => command.args(["--set", setting]),
        };
    }
    command.assert()
}

/// The output of a command, on both streams.
fn said(assert: &assert_cmd::assert::Assert) -> String {
    let output = assert.get_output();
    String::from_utf8_lossy(&output.stdout).to_string() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_rule_trains_and_a_resumed_run_with_other_threads_ends_in_the_same_bits() {
    let place = Place::new();
    for (rule, more) in
        [("ep", ""), ("cep", ""), ("vf", "network.psi=30"), ("cvf", "network.psi=30"), ("bptt", "")]
    {
        let settings: Vec<&str> = Some(more).filter(|more| !more.is_empty()).into_iter().collect();
        let whole = format!("{rule}-whole-data");
        let two = [&settings[..], &["training.epochs=2", "--threads=1"]].concat();
        let told = said(&train(&place, rule, &whole, &two).success());
        assert!(told.contains("the plain engine computes, which alone has convolutions"), "{told}");
        let parts = format!("{rule}-parts-data");
        let first = ["training.epochs=1", "--threads=2"];
        train(&place, rule, &parts, &[&settings[..], &first].concat()).success();
        let second = ["training.epochs=2", "--threads=3", "--resume=auto"];
        train(&place, rule, &parts, &[&settings[..], &second].concat()).success();
        let weights = |name: &str| {
            let file = place.path(&format!("checkpoints/{name}/last.safetensors"));
            let mut tensors: Vec<_> = safetensors::load(file, &Device::Cpu).unwrap().into_iter().collect();
            tensors.sort_by(|a, b| a.0.cmp(&b.0));
            let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let shapes: Vec<_> = tensors.iter().map(|(name, t)| (name.clone(), t.dims().to_vec())).collect();
            (shapes, tensors.into_iter().map(|(_, tensor)| values(tensor)).collect::<Vec<_>>())
        };
        let ((shapes, one), (_, other)) = (weights(&whole), weights(&parts));
        assert!(one == other, "{rule}: the resumed run has other weights");
        let shape = |name: &str| shapes.iter().find(|(known, _)| known == name).map(|(_, shape)| &shape[..]);
        assert_eq!(shape("forward.2.weight"), Some(&[6, 1, 3, 3][..]));
        assert_eq!(shape("forward.1.weight"), Some(&[5, 6, 2, 2][..]));
        assert_eq!(shape("forward.1.bias"), Some(&[5][..]));
        assert_eq!(shape("forward.0.weight"), Some(&[CLASSES, 20][..]));
        let untied = rule.ends_with("vf");
        assert_eq!(shape("feedback.1.weight"), untied.then_some(&[5, 6, 2, 2][..]));
        for look in ["eval", "inspect"] {
            place.eqprop().args([look, &whole, "--data-dir", "data"]).assert().success();
        }
    }
}

#[test]
fn other_engines_and_what_a_shared_weight_cannot_have_are_refused_with_a_reason() {
    let place = Place::new();
    for (rule, settings, expected) in [
        ("cep", &["training.engine=fused"][..], "has no convolutions"),
        ("cvf", &["learning.alignment=homeostasis", "learning.strength=0.1"], "kolen-pollack"),
        ("cep", &["synapse.law=device"], "shares it among many"),
        ("cep", &["network.dims=[\"8x8\", \"conv 6 3 pool 4\", 5, 4]"], "makes maps of 6x6 from 8x8"),
    ] {
        let told = said(&train(&place, rule, "refused", settings).code(2));
        assert!(told.contains(expected), "{settings:?}: {told}");
    }
    for settings in [
        &["synapse.law=device", "synapse.pulses=deterministic"][..],
        &["synapse.law=momentum"],
        &["settle.order=alternating", "settle.solver=anderson", "settle.tolerance=1e-5"],
        &["network.time=real", "network.epsilon=0.2"],
    ] {
        train(&place, "cep", &settings.join("-").replace(['.', '='], "-"), settings).success();
    }
}

/// A minibatch of the presets with fewer steps, by this and by a plain program of PyTorch. `EQPROP_TORCH` names the
/// Python that has it.
#[test]
fn a_minibatch_is_that_of_a_plain_program_of_pytorch() {
    let Some(python) = python_in("EQPROP_TORCH", "torch, safetensors") else { return };
    let folder = tempfile::tempdir().unwrap();
    for rule in ["ep", "cep"] {
        let preset = Choices { config: Some(format!("{rule}-conv").into()), ..Choices::default() };
        let config = Resolved::new(&preset).unwrap().config;
        let config = config.with("settle.steps", 12).unwrap().with("settle.tolerance", 0.0).unwrap();
        // In float32 rounding decides which of two nearly equal values is the largest of its window.
        let config = config.with("training.dtype", "f64").unwrap();
        let theta = config.parameters(&Device::Cpu).unwrap();
        // Pixels like those of a digit: black at the margin, where windows hold equals.
        let pixel = |i: usize| {
            let (row, column) = (i % 784 / 28, i % 28);
            let inside = (6..22).contains(&row) && (6..22).contains(&column);
            if inside { ((i * 2_654_435_761) >> 9) as u8 } else { 0 }
        };
        let batch = Batch { images: (0..5 * 784).map(pixel).collect(), labels: vec![3, 1, 4, 1, 5] };
        let mut engine = Plain::new(config.job(&Device::Cpu), theta.clone()).unwrap();
        engine.train(&batch, config.learning.beta).unwrap();
        let named = |theta: &Parameters, prefix: &str| -> HashMap<String, Tensor> {
            theta
                .named()
                .into_iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
                .collect()
        };
        let mut tensors = named(&theta, "");
        tensors.extend(named(&engine.parameters().unwrap(), "after."));
        tensors.insert("x".into(), batch.x(DType::F64, &Device::Cpu).unwrap());
        tensors.insert("y".into(), batch.y(10, DType::F64, &Device::Cpu).unwrap());
        let file = folder.path().join("minibatch.safetensors");
        safetensors::save(&tensors, &file).unwrap();
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/yardstick/torch_conv.py");
        let output = Command::new(&python)
            .args([program, rule, "--threads", "1", "--steps", "12", "--check"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{rule}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
