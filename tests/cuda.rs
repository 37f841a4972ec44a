//! The GPU against the CPU: the first minibatches within rounding, for every rule, depth, order and σ′, step by step
//! and by the kernel; and replicas among many against replicas alone, to the bit.
//!
//! Skips with a message where this was built without the feature `cuda`, or no GPU answers.

use candle_core::{DType, Device, Tensor};
use eqprop::config::{Choices, Config, Resolved, parse_value};
use eqprop::data::{Dataset, glyphs};
use eqprop::engine::replicas::Hub;
use eqprop::engine::{self, Engine, EngineKind, Report, Turn, plain::Plain};
use eqprop::learning::Rule;
use eqprop::model::network::Parameters;
use eqprop::rng;
use eqprop::run::open_gpu;
use std::sync::Arc;
use std::thread;

const SYNCHRONOUS: [&str; 2] = ["settle.order=synchronous", "settle.solver=iterate"];
const ALTERNATING: [&str; 2] = ["settle.order=alternating", "settle.solver=iterate"];

fn gpu() -> Option<Device> {
    if !candle_core::utils::cuda_is_available() {
        eprintln!("SKIPPED: built without the feature cuda");
        return None;
    }
    let device = open_gpu();
    if let Err(error) = &device {
        eprintln!("SKIPPED: no GPU answers: {error}");
    }
    device.ok()
}

fn config(rule: Rule, depth: usize, settings: &[&str]) -> Config {
    let flags = (settings.iter())
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            ("test".to_string(), key.to_string(), parse_value(value))
        })
        .collect();
    Resolved::new(&Choices { algo: Some(rule), depth: Some(depth), flags, ..Choices::default() })
        .unwrap()
        .config
}

fn theta(config: &Config, device: &Device) -> Parameters {
    let network = &config.network;
    Parameters::init(config.network(), network.init, network.psi, 0, DType::F32, device).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_device(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Every rule that nudges in each order, with every σ′ that it knows; and what else a configuration can ask for.
fn cases() -> Vec<(Rule, usize, Vec<&'static str>)> {
    let mut cases = Vec::new();
    for depth in [1, 2] {
        for order in [SYNCHRONOUS, ALTERNATING] {
            for rule in [Rule::EP, Rule::CEP, Rule::CEP_RESCALED] {
                cases.push((rule, depth, order.to_vec()));
            }
            for rule in [Rule::VF, Rule::CVF] {
                for gate in [
                    "learning.sigma_prime=ignored",
                    "learning.sigma_prime=partial",
                    "learning.sigma_prime=full",
                ] {
                    cases.push((rule, depth, [&order[..], &["network.psi=45", gate]].concat()));
                }
            }
        }
        cases.push((Rule::CVF, depth, [&ALTERNATING[..], &["learning.nudging=centered"]].concat()));
        cases.push((Rule::CEP, depth, [&SYNCHRONOUS[..], &["settle.tolerance=1e-4"]].concat()));
        cases.push((Rule::EP, depth, [&ALTERNATING[..], &["settle.damping=0.5"]].concat()));
    }
    cases.extend([
        (Rule::CVF, 2, vec!["settle.solver=anderson"]),
        (Rule::CEP, 1, vec!["network.time=real"]),
        (
            Rule::CVF,
            1,
            vec!["network.time=real", "learning.sigma_prime=ignored", "learning.authors_code=false"],
        ),
        (Rule::BPTT, 1, vec![]),
        (Rule::RBP, 1, vec![]),
    ]);
    cases
}

/// The first minibatches of a training set, and their turns.
fn lessons(config: &Config, dataset: &Dataset, seed: u64, count: usize) -> Vec<(Vec<u32>, Turn)> {
    let order = rng::permutation(seed, 0, dataset.train.len());
    let chunks = order.chunks(config.training.batch_size).take(count).enumerate();
    chunks.map(|(m, images)| (images.to_vec(), turn(config, m))).collect()
}

fn turn(config: &Config, m: usize) -> Turn {
    Turn { beta: config.learning.beta * if m.is_multiple_of(2) { 1.0 } else { -1.0 }, epochs: 0.0 }
}

fn train(engine: &mut dyn Engine, dataset: &Arc<Dataset>, lessons: &[(Vec<u32>, Turn)]) -> Vec<Report> {
    let lessons: Vec<(&[u32], Turn)> = lessons.iter().map(|(images, turn)| (&images[..], *turn)).collect();
    engine.train_ahead(dataset, &lessons).unwrap()
}

#[test]
fn the_first_minibatches_are_the_cpus_within_rounding() {
    let Some(gpu) = gpu() else { return };
    let dataset = Arc::new(glyphs::dataset());
    for (rule, depth, settings) in cases() {
        let config = config(rule, depth, &[&settings[..], &["network.init=fan-in"]].concat());
        let lessons = lessons(&config, &dataset, 0, 2);
        let start = theta(&config, &Device::Cpu);
        let mut cpu = Plain::new(config.job(&Device::Cpu), start.clone()).unwrap();
        let expected = train(&mut cpu, &dataset, &lessons);
        let cpu = cpu.parameters().unwrap();
        let job = config.job(&gpu);
        for kind in [EngineKind::Plain, EngineKind::Kernel] {
            if kind.supports(&config.network(), &job, DType::F32).is_err() {
                continue;
            }
            let name = format!("{rule:?} {depth} {settings:?} {kind:?}");
            let mut ours = engine::build(kind, job.clone(), theta(&config, &gpu)).unwrap();
            for (ours, expected) in train(ours.as_mut(), &dataset, &lessons).iter().zip(&expected) {
                let close = (ours.loss - expected.loss).abs() <= 1e-4 * expected.loss;
                assert!(close, "{name}: loss {} and {}", ours.loss, expected.loss);
                assert_eq!((ours.errors, ours.images), (expected.errors, expected.images), "{name}");
            }
            let ours = ours.parameters().unwrap();
            for (((part, ours), (_, cpu)), (_, start)) in
                ours.named().iter().zip(cpu.named()).zip(start.named())
            {
                let (ours, cpu, start) = (values(ours), values(cpu), values(start));
                let change = cpu.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let difference = ours.iter().zip(&cpu).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let allowed = 1e-6 + 1e-2 * change;
                assert!(difference <= allowed, "{name} {part}: {difference:e} of {change:e}");
            }
        }
    }
}

#[test]
fn a_replica_among_many_has_the_bits_it_has_alone() {
    let Some(gpu) = gpu() else { return };
    let dataset = Arc::new(glyphs::dataset());
    for (depth, kind) in [(1, EngineKind::Kernel), (1, EngineKind::Plain), (2, EngineKind::Kernel)] {
        let config = config(Rule::CVF, depth, &[&ALTERNATING[..], &["network.psi=45"]].concat());
        let bits = |replicas: u64| -> Vec<Vec<u32>> {
            let hub = Hub::new(config.job(&gpu)).with_engine(kind);
            let all: Vec<_> = (0..replicas).map(|_| hub.join(theta(&config, &gpu))).collect();
            let trained = thread::scope(|scope| {
                let threads: Vec<_> = (0..)
                    .zip(all)
                    .map(|(seed, mut replica)| {
                        let (config, dataset) = (&config, &dataset);
                        scope.spawn(move || {
                            train(&mut replica, dataset, &lessons(config, dataset, seed, 3));
                            replica.parameters().unwrap()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            let first = trained[0].named();
            first.iter().map(|(_, tensor)| values(tensor).into_iter().map(f32::to_bits).collect()).collect()
        };
        let alone = bits(1);
        for replicas in [8, 45, 128] {
            assert!(bits(replicas) == alone, "{depth} {kind:?}: one of {replicas}");
        }
    }
}
