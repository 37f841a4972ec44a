//! One step, both phases, BPTT and a whole minibatch, at the paper's sizes, on the glyphs.
//!
//! `make bench`, or `cargo bench -- cvf` for some of them. Ratios between lines are what to look at: machines
//! are noisy.

use candle_core::{DType, Device};
use criterion::{Criterion, criterion_group, criterion_main};
use eqprop::config::{Choices, Config, Resolved, parse_value};
use eqprop::data::Batch;
use eqprop::data::glyphs;
use eqprop::engine::{self, EngineKind};
use eqprop::learning::Rule;
use eqprop::model::dynamics::{Dynamics, Layers, Time};
use eqprop::model::network::{Init, Network, Parameters};
use eqprop::model::{Activation, Model, Settle};
use eqprop::reference::bptt::bptt;
use std::time::{Duration, Instant};

fn config(rule: Rule, depth: usize, settings: &[&str]) -> Config {
    let flag = |setting: &&str| {
        let (key, value) = setting.split_once('=').unwrap();
        ("--set".into(), key.into(), parse_value(value))
    };
    let flags = settings.iter().map(flag).collect();
    let choices = Choices { algo: Some(rule), depth: Some(depth), flags, ..Choices::default() };
    Resolved::new(&choices).unwrap().config
}

fn parameters(config: &Config) -> Parameters {
    let network = &config.network;
    Parameters::init(config.network(), network.init, network.psi, 0, DType::F32, &Device::Cpu).unwrap()
}

fn phases(c: &mut Criterion) {
    let data = glyphs::dataset();
    let mut batch = Batch::default();
    data.train.gather(&(0..20).collect::<Vec<u32>>(), &mut batch);
    // Presets with two hidden layers take the last of these ways, those with one the first.
    let synchronous = ["settle.order=synchronous", "settle.solver=iterate"];
    let alternating = ["settle.order=alternating", "settle.solver=iterate"];
    let anderson = ["settle.order=alternating", "settle.solver=anderson", "settle.tolerance=5e-7"];
    let ways: [(EngineKind, &str, &[&str]); 4] = [
        (EngineKind::Fused, "fused", &synchronous),
        (EngineKind::Fused, "fused, alternating", &alternating),
        (EngineKind::Fused, "fused, alternating, anderson", &anderson),
        (EngineKind::Plain, "plain", &synchronous),
    ];
    for depth in [1, 2] {
        for rule in [Rule::EP, Rule::CEP, Rule::VF, Rule::CVF] {
            for (kind, name, settings) in ways {
                let config = config(rule, depth, settings);
                let job = config.job(&Device::Cpu);
                let mut engine = engine::build(kind, job, parameters(&config)).unwrap();
                let mut group = c.benchmark_group(format!("{}-{depth}h/{name}", rule.name()));
                group.sample_size(10);
                group.measurement_time(Duration::from_secs(3));
                group.bench_function("first phase", |b| b.iter(|| engine.evaluate(&batch).unwrap()));
                group.bench_function("minibatch", |b| b.iter(|| engine.train(&batch, 0.2).unwrap()));
                // The difference of the two, measured in turn.
                group.bench_function("second phase", |b| {
                    b.iter_custom(|times| {
                        let (mut whole, mut first) = (Duration::ZERO, Duration::ZERO);
                        for _ in 0..times {
                            let started = Instant::now();
                            engine.evaluate(&batch).unwrap();
                            let between = Instant::now();
                            engine.train(&batch, 0.2).unwrap();
                            first += between - started;
                            whole += between.elapsed();
                        }
                        whole.saturating_sub(first)
                    })
                });
                group.finish();
            }
        }
    }
}

/// A minibatch of C-VF with each way to align feedback weights, all else equal.
fn alignment(c: &mut Criterion) {
    let data = glyphs::dataset();
    let mut batch = Batch::default();
    data.train.gather(&(0..20).collect::<Vec<u32>>(), &mut batch);
    let ways: [(&str, &[(&str, toml::Value)]); 3] = [
        ("none", &[("learning.alignment", "none".into()), ("learning.decay", 0.0.into())]),
        ("kolen-pollack", &[]),
        (
            "homeostasis",
            &[
                ("learning.alignment", "homeostasis".into()),
                ("learning.decay", 0.0.into()),
                ("learning.strength", 1e-3.into()),
            ],
        ),
    ];
    for preset in ["cvf-1h-aligned", "cvf-2h-aligned"] {
        let choices = Choices { config: Some(preset.into()), ..Choices::default() };
        let mut group = c.benchmark_group(format!("alignment/{preset}"));
        group.sample_size(10);
        group.measurement_time(Duration::from_secs(3));
        for (name, settings) in &ways {
            let config = Resolved::new(&choices).unwrap().config;
            let config = config.with_all(settings.iter().cloned()).unwrap();
            let mut engine = config.engine().unwrap();
            group.bench_function(*name, |b| b.iter(|| engine.train(&batch, 0.2).unwrap()));
        }
        group.finish();
    }
}

fn references(c: &mut Criterion) {
    let data = glyphs::dataset();
    let mut batch = Batch::default();
    data.train.gather(&(0..20).collect::<Vec<u32>>(), &mut batch);
    let x = batch.x(DType::F32, &Device::Cpu).unwrap();
    let target = batch.y(10, DType::F32, &Device::Cpu).unwrap();
    for depth in [1, 2] {
        let config = config(Rule::CVF, depth, &[]);
        let (model, theta, steps) = (config.model(), parameters(&config), config.learning.K);
        let mut group = c.benchmark_group(format!("reference-{depth}h"));
        group.sample_size(10);
        group.bench_function("bptt", |b| b.iter(|| bptt(&model, &theta, &x, &target, steps).unwrap()));
        group.finish();
    }
}

fn step(c: &mut Criterion) {
    for (name, time) in [("discrete", Time::Discrete), ("real", Time::Real)] {
        let network = Network::layered([784, 512, 512, 10], false);
        let theta = Parameters::init(network, Init::FanIn, 45.0, 0, DType::F32, &Device::Cpu).unwrap();
        let mut model = Model::discrete(Activation::Sigmoid, Settle::synchronous(1, 0.0));
        (model.dynamics.time, model.dynamics.epsilon) = (time, 0.08);
        let batch = Batch { images: vec![100; 20 * 784], labels: vec![3; 20] };
        let x = batch.x(DType::F32, &Device::Cpu).unwrap();
        let target = batch.y(10, DType::F32, &Device::Cpu).unwrap();
        let drive = model.dynamics.drive(&theta, &x).unwrap();
        let s = Dynamics::initial_state(&theta, &x).unwrap();
        let nudge = model.nudge(&target, 0.2);
        c.bench_function(&format!("step-2h/plain/{name}"), |b| {
            b.iter(|| model.step(&theta, &drive, &s, Layers::All, Some(nudge)).unwrap())
        });
    }
}

criterion_group!(benches, step, phases, alignment, references);
criterion_main!(benches);
