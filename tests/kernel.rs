//! The CUDA kernel of both phases, compiled for the CPU by a C++ compiler, against the plain engine.
//!
//! It shows what the kernel computes, and that its threads do not race (ThreadSanitizer, where the compiler has it);
//! that a GPU runs it is for `tests/cuda.rs`. Without g++ it skips with a message.

use candle_core::{DType, Device, Tensor};
use eqprop::config::{Choices, Config, Resolved, parse_value};
use eqprop::engine::cuda::Kernel;
use eqprop::engine::{self, EngineKind, Job};
use eqprop::learning::{Lesson, Memory, Rule};
use eqprop::model::dynamics::{Beta, Nudge};
use eqprop::model::network::Parameters;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const REPLICAS: usize = 2;
const IMAGES: usize = 6;
const PIXELS: usize = 30;
const HIDDEN: usize = 40;
const CLASSES: usize = 5;

/// The compiler's flags with which programs run: with ThreadSanitizer where it has that, and without.
fn compilers(place: &Path) -> Option<[Vec<&'static str>; 2]> {
    let empty = place.join("empty.cpp");
    fs::write(&empty, "#include <barrier>\nint main() {}\n").unwrap();
    let works = |flags: &[&str]| {
        let made = Command::new("g++").args(flags).arg(&empty).arg("-o").arg(place.join("empty")).output();
        made.is_ok_and(|made| made.status.success())
            && Command::new(place.join("empty")).status().is_ok_and(|status| status.success())
    };
    let plain = vec!["-std=c++20", "-O1", "-pthread"];
    let sanitized = [&plain[..], &["-fsanitize=thread"]].concat();
    if !works(&plain) {
        // Where CI=true everything is installed.
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: no g++ with C++20");
        eprintln!("SKIPPED: no g++ with C++20");
        return None;
    }
    Some([if works(&sanitized) { sanitized } else { plain.clone() }, plain])
}

fn emulator(place: &Path, flags: &[&str], kernel: &Kernel) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = place.join("emulate");
    let output = Command::new("g++")
        .args(flags)
        .args(kernel.definitions())
        .arg(format!("-DKERNEL=\"{}\"", root.join("src/engine/cuda/phases.cu").display()))
        .arg(root.join("tests/kernel/emulate.cpp"))
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn emulate(place: &Path, program: &Path, kernel: &Kernel, given: &Tensor) -> candle_core::Result<Tensor> {
    let numbers = given.flatten_all()?.to_vec1::<f32>()?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let (given_file, returned_file) = (place.join("in"), place.join("out"));
    fs::write(&given_file, bytes)?;
    let replicas = given.dim(0)?;
    let output =
        Command::new(program).arg(given_file).arg(&returned_file).arg(replicas.to_string()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let returned: Vec<f32> = (fs::read(returned_file)?.chunks_exact(4))
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    Tensor::from_vec(returned, (replicas, kernel.returned_size()), &Device::Cpu)
}

/// The kernel has the rule as Eq. 12 prints it.
const PRINTED: &str = "learning.sigma_prime=ignored";

fn config(rule: Rule, settings: &[&str]) -> Config {
    let dims = format!("network.dims=[{PIXELS}, {HIDDEN}, {CLASSES}]");
    let flags = (settings.iter().copied().chain([dims.as_str(), "settle.steps=6", "learning.K=4"]))
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            ("test".to_string(), key.to_string(), parse_value(value))
        })
        .collect();
    Resolved::new(&Choices { algo: Some(rule), depth: Some(1), flags, ..Choices::default() }).unwrap().config
}

/// Random weights with a leading dimension of replicas, as `engine::replicas` stacks them.
fn stacked(config: &Config) -> Parameters {
    let all: Vec<Parameters> = (0..REPLICAS as u64)
        .map(|seed| {
            let network = &config.network;
            Parameters::init(config.network(), network.init, network.psi, seed, DType::F32, &Device::Cpu)
                .unwrap()
        })
        .collect();
    let stack = |of: fn(&Parameters) -> &Vec<Tensor>| -> Vec<Tensor> {
        let one =
            |i: usize| Tensor::stack(&all.iter().map(|theta| &of(theta)[i]).collect::<Vec<_>>(), 0).unwrap();
        (0..of(&all[0]).len()).map(one).collect()
    };
    let biases = stack(|theta| &theta.biases);
    Parameters {
        network: all[0].network.clone(),
        weights: stack(|theta| &theta.weights),
        biases: biases.iter().map(|bias| bias.unsqueeze(1).unwrap()).collect(),
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn the_kernel_equals_the_plain_engine() {
    let place = tempfile::tempdir().unwrap();
    let Some([sanitized, plain]) = compilers(place.path()) else { return };
    let numbers = |count: usize| (0..count).map(|i| ((i * 7919 % 1000) as f32) / 1000.0).collect::<Vec<_>>();
    let x = Tensor::from_vec(numbers(REPLICAS * IMAGES * PIXELS), (REPLICAS, IMAGES, PIXELS), &Device::Cpu)
        .unwrap();
    let labels: Vec<u32> = (0..(REPLICAS * IMAGES) as u32).map(|i| i * 3 % CLASSES as u32).collect();
    let y = Tensor::from_vec(labels, (REPLICAS, IMAGES), &Device::Cpu).unwrap();
    let target = candle_nn::encoding::one_hot(y, CLASSES, 1f32, 0f32).unwrap();
    let signs = Beta::signs(&[0.1, -0.1], DType::F32, &Device::Cpu).unwrap();
    for (rule, settings) in [
        (Rule::EP, &[][..]),
        (Rule::CEP, &["network.activation=tanh"]),
        (Rule::VF, &["network.psi=45"]),
        // The rule that changes most while other threads read.
        (Rule::CVF, &["network.psi=90", PRINTED, "learning.authors_code=false"]),
        (
            Rule::CVF,
            &[
                "settle.damping=0.8",
                "network.activation=hard-sigmoid",
                PRINTED,
                "learning.authors_code=false",
            ],
        ),
        (Rule::CVF, &[PRINTED]),
    ] {
        // Rates large enough for every update to be seen.
        let config = config(rule, &[settings, &["learning.learning_rates=[0.05, 0.08]"]].concat());
        // The computation does not need a GPU.
        let job = config.job(&Device::Cpu);
        let (Job { model, learning, .. }, theta) = (&job, stacked(&config));
        let beta = Beta::of_replicas(config.learning.beta, &signs);
        let nudge = Nudge { loss: model.loss, target: &target, beta };
        let settled = &model.settle(&theta, &x).unwrap();
        let lesson = Lesson::new(model, learning, &theta, &x, nudge, settled);
        let expected = lesson.learn(&mut Memory::new(model, &theta).unwrap(), &mut |_| Ok(())).unwrap();

        let kernel = Kernel::for_shape(&job, &theta, IMAGES).unwrap();
        let races = rule == Rule::CVF && config.settle.damping == 0.0 && !config.learning.authors_code;
        let program = emulator(place.path(), if races { &sanitized } else { &plain }, &kernel);
        let launch = |given: &Tensor| emulate(place.path(), &program, &kernel, given);
        let (ours, trained) = kernel.run(&job, &theta, &x, nudge, launch).unwrap();
        for (age, (ours, states)) in ours.iter().zip(&settled.recent).enumerate() {
            for (n, (ours, state)) in ours.iter().zip(states).enumerate() {
                let difference = largest_difference(ours, state);
                assert!(difference < 2e-6, "{rule:?} {settings:?}: layer {n} of state {age}: {difference:e}");
            }
        }
        let (ours, before, expected) = (trained.named(), theta.named(), expected.named());
        for (((name, ours), (_, before)), (_, expected)) in ours.iter().zip(&before).zip(&expected) {
            let change = largest_difference(expected, before);
            let difference = largest_difference(ours, expected);
            let frozen = name == "forward.1.bias" && config.learning.authors_code;
            assert!(change > 1e-3 || frozen, "{rule:?} {settings:?}: {name} hardly changes: {change:e}");
            assert!(difference < 2e-5, "{rule:?} {settings:?}: {name}: {difference:e} of {change:e}");
        }
    }
}

/// Jobs that the kernel cannot do are errors that say why, and `auto` never takes it.
#[test]
fn the_kernel_is_taken_only_where_it_is_asked_for_and_applies() {
    let resolve = |rule: Rule, depth: usize, settings: &[&str]| {
        let flags = (settings.iter().copied().chain(["training.engine=kernel"]))
            .map(|setting| {
                let (key, value) = setting.split_once('=').unwrap();
                ("test".to_string(), key.to_string(), parse_value(value))
            })
            .collect();
        Resolved::new(&Choices { algo: Some(rule), depth: Some(depth), flags, ..Choices::default() })
    };
    let mut wrong = Vec::new();
    for (rule, depth, settings, why) in [
        (Rule::CEP, 1, &["training.device=cpu"][..], "runs on a GPU only"),
        (Rule::EP, 2, &["settle.tolerance=0.0"], "one hidden layer"),
        (Rule::CVF, 1, &["learning.sigma_prime=partial"], "learning.sigma_prime = \"ignored\""),
        (Rule::CEP, 1, &["network.time=real"], "discrete time"),
        (Rule::BPTT, 1, &[], "ep, cep, vf and cvf"),
        (Rule::CEP, 1, &["training.dtype=f64"], "float32"),
        (Rule::CEP, 1, &["settle.tolerance=1e-7"], "settle.tolerance = 0.0"),
    ] {
        match resolve(rule, depth, settings) {
            Ok(_) => wrong.push(format!("{rule:?} {settings:?} is taken")),
            Err(error) if !format!("{error:#}").contains(why) => {
                wrong.push(format!("{rule:?} {settings:?}: {error:#}"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let config = resolve(Rule::CEP, 1, &["settle.tolerance=0.0"]).unwrap().config;
    let network = &config.network;
    let theta =
        Parameters::init(config.network(), network.init, network.psi, 0, DType::F32, &Device::Cpu).unwrap();
    let build = |kind, theta| engine::build(kind, config.job(&Device::Cpu), theta);
    let refused = build(config.training.engine, theta.clone()).err().expect("a kernel without a GPU");
    assert!(refused.to_string().contains("runs on a GPU only"), "{refused}");
    assert!(build(EngineKind::Auto, theta).is_ok());
}
