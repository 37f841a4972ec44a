//! Synapses: the effect of a wished change, in both engines, and the saving of their memory. The oracle is the
//! definition of momentum, and the plain engine for the fused one.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{distance, striped_batch as batch};
use eqprop::engine::{self, EngineKind, Turn};
use eqprop::learning::{Lesson, Nudging};
use eqprop::model::Parameters;
use eqprop::model::synapse::SynapseConfig;
use eqprop::{Config, Rule};
use std::collections::HashMap;

fn config(rule: Rule, settings: &[(&str, toml::Value)]) -> Config {
    let rates = toml::Value::try_from([0.05, 0.03]).unwrap();
    let base = [
        ("training.dtype", "f64".into()),
        ("learning.learning_rates", rates),
        ("settle.steps", 12.into()),
        ("learning.K", 6.into()),
        ("training.data", "glyphs".into()),
    ];
    let set = |config: Config, (key, value): &(&str, toml::Value)| config.with(key, value.clone()).unwrap();
    base.iter().chain(settings).fold(Config::preset(rule, [30, 20, 4]).unwrap(), set)
}

fn momentum(rule: Rule, momentum: f64, decay: f64) -> Config {
    let law = [("synapse.law", "momentum".into()), ("synapse.momentum", momentum.into())];
    config(rule, &[&law[..], &[("synapse.decay", decay.into())]].concat())
}

fn minus(a: &Parameters, b: &Parameters) -> Parameters {
    a.plus(b, |_| -1.0).unwrap()
}

const RULES: [Rule; 5] = [Rule::EP, Rule::CEP, Rule::CEP_RESCALED, Rule::VF, Rule::CVF];

#[test]
fn the_fused_engine_equals_the_plain_one() {
    for rule in RULES {
        for (mu, decay) in [(0.9, 0.0), (0.9, 0.01), (0.0, 0.01)] {
            for order in ["synchronous", "alternating"] {
                let config = momentum(rule, mu, decay).with("settle.order", order).unwrap();
                let run = |kind| {
                    let theta = config.parameters(&Device::Cpu).unwrap();
                    let mut engine = engine::build(kind, config.job(&Device::Cpu), theta).unwrap();
                    for (i, beta) in [0.3, -0.3, 0.3].into_iter().enumerate() {
                        engine.train(&batch(i), beta).unwrap();
                    }
                    engine.parameters().unwrap()
                };
                let (plain, fused) = (run(EngineKind::Plain), run(EngineKind::Fused));
                let moved = distance(&plain, &config.parameters(&Device::Cpu).unwrap());
                let off = distance(&plain, &fused);
                assert!(off < 1e-9 * moved, "{rule:?} {mu} {decay} {order}: {off:.1e} of {moved:.1e}");
            }
        }
    }
}

#[test]
fn with_momentum_a_minibatch_is_that_of_gradient_descent_with_momentum() {
    // v ← μ·v + η·Δ and θ ← θ + v, where η·Δ is the change of ideal synapses from the same θ.
    let (ideal, law) = (config(Rule::EP, &[]), momentum(Rule::EP, 0.75, 0.0));
    let mut engine = law.engine().unwrap();
    let mut theta = law.parameters(&Device::Cpu).unwrap();
    let mut velocity = minus(&theta, &theta);
    for i in 0..4 {
        let job = ideal.job(&Device::Cpu);
        let mut once = engine::build(EngineKind::Plain, job, theta.clone()).unwrap();
        once.train(&batch(i), 0.3).unwrap();
        let wished = minus(&once.parameters().unwrap(), &theta);
        velocity = velocity.map(|v| v * 0.75).unwrap().plus(&wished, |_| 1.0).unwrap();
        theta = theta.plus(&velocity, |_| 1.0).unwrap();
        engine.train(&batch(i), 0.3).unwrap();
    }
    let off = distance(&engine.parameters().unwrap(), &theta);
    assert!(off < 1e-12, "{off:.1e}");
}

#[test]
fn with_continual_updates_momentum_decays_at_every_step_of_the_second_phase() {
    // The definition, step by step: each step runs with the weights that v has left, and wishes η·Δ of them.
    for rule in [Rule::CEP, Rule::CVF] {
        let law = momentum(rule, 0.75, 0.0);
        let (model, learning) = (config(rule, &[]).model(), law.learning.clone());
        let mut theta = law.parameters(&Device::Cpu).unwrap();
        let mut velocity = minus(&theta, &theta);
        let mut engine = law.engine().unwrap();
        for i in 0..2 {
            let (x, y) = (batch(i).x_for(&theta).unwrap(), batch(i).y_for(&theta).unwrap());
            let settled = model.settle(&theta, &x).unwrap();
            let first = theta.clone();
            let lesson = Lesson::new(&model, &learning, &first, &x, model.nudge(&y, 0.3), &settled);
            lesson
                .second_phase(&mut |_| Ok(()), |step| {
                    let wished = Lesson::new(&model, &learning, &theta, &x, model.nudge(&y, 0.3), &settled);
                    let wished = wished.update(step)?;
                    let wished = wished.zip(&wished, |update, _, n| update * learning.rate(n))?;
                    velocity = velocity.map(|v| v * 0.75)?.plus(&wished, |_| 1.0)?;
                    theta = theta.plus(&velocity, |_| 1.0)?;
                    Ok(Some(theta.clone()))
                })
                .unwrap();
            engine.train(&batch(i), 0.3).unwrap();
        }
        let off = distance(&engine.parameters().unwrap(), &theta);
        assert!(off < 1e-12, "{rule:?}: {off:.1e}");
    }
}

#[test]
fn decay_takes_its_share_of_the_weights_once_a_minibatch_and_leaves_the_biases() {
    for rule in RULES {
        let law = momentum(rule, 0.0, 0.25).with("learning.learning_rates", vec![0.0, 0.0]).unwrap();
        for kind in [EngineKind::Plain, EngineKind::Fused] {
            let theta = law.parameters(&Device::Cpu).unwrap();
            let mut engine = engine::build(kind, law.job(&Device::Cpu), theta.clone()).unwrap();
            engine.train(&batch(0), 0.3).unwrap();
            let mut expected = theta;
            expected.weights.iter_mut().for_each(|w| *w = (&*w * 0.75).unwrap());
            assert_eq!(distance(&engine.parameters().unwrap(), &expected), 0.0, "{rule:?} {kind:?}");
        }
    }
}

#[test]
fn learning_rates_fall_over_the_epochs() {
    let law = |schedule: &str| {
        let law = momentum(Rule::EP, 0.0, 0.0);
        // Each has no meaning without the other.
        let falling = [("synapse.horizon", 10.into()), ("synapse.schedule", schedule.into())];
        law.with_all(falling.into_iter().skip(usize::from(schedule == "constant"))).unwrap()
    };
    for kind in [EngineKind::Plain, EngineKind::Fused] {
        let moved = |config: &Config, epochs: f64| {
            let theta = config.parameters(&Device::Cpu).unwrap();
            let mut engine = engine::build(kind, config.job(&Device::Cpu), theta.clone()).unwrap();
            engine.train_at(&batch(0), Turn { beta: 0.3, epochs }).unwrap();
            distance(&engine.parameters().unwrap(), &theta)
        };
        let whole = moved(&law("constant"), 7.0);
        assert_eq!(moved(&law("cosine"), 0.0), whole);
        assert_eq!(moved(&law("cosine"), 10.0), 0.0);
        let tenth = moved(&law("step"), 6.0) / whole;
        assert!((tenth - 0.1).abs() < 1e-9, "{kind:?}: {tenth}");
    }
}

#[test]
fn what_synapses_remember_goes_on_elsewhere() {
    for kind in [EngineKind::Plain, EngineKind::Fused] {
        let law = momentum(Rule::CEP, 0.9, 0.0);
        let start = |theta| engine::build(kind, law.job(&Device::Cpu), theta).unwrap();
        let mut whole = start(law.parameters(&Device::Cpu).unwrap());
        let mut first = start(law.parameters(&Device::Cpu).unwrap());
        for engine in [&mut whole, &mut first] {
            engine.train(&batch(0), 0.3).unwrap();
        }
        let saved: HashMap<String, Tensor> = first.memory().unwrap().into_iter().collect();
        assert!(saved.contains_key("synapse.velocity.forward.0.weight"), "{:?}", saved.keys());
        let mut second = start(first.parameters().unwrap());
        second.recall(&saved).unwrap();
        for engine in [&mut whole, &mut second] {
            engine.train(&batch(1), 0.3).unwrap();
        }
        assert_eq!(distance(&whole.parameters().unwrap(), &second.parameters().unwrap()), 0.0);
        let error = second.recall(&HashMap::new()).unwrap_err();
        assert!(format!("{error:#}").contains("forward.0.weight"), "{error:#}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let ideal = config(Rule::CEP, &[]);
    let says = |key: &str, value: toml::Value| format!("{:#}", ideal.with(key, value).unwrap_err());
    assert!(says("synapse.momentum", 0.5.into()).contains("synapse"));
    assert!(says("synapse.law", "magic".into()).contains("ideal"));
    let law = momentum(Rule::EP, 0.5, 0.0);
    assert!(format!("{:#}", law.with("synapse.momentum", 1.0).unwrap_err()).contains("below 1"));
    assert!(format!("{:#}", law.with("synapse.schedule", "cosine").unwrap_err()).contains("synapse.horizon"));
    // Two changes a minibatch, one in each branch: the fused engine makes one of them.
    let mut centered = law.job(&Device::Cpu);
    centered.learning.nudging = Nudging::Centered;
    let theta = law.parameters(&Device::Cpu).unwrap();
    let why = EngineKind::Fused.chosen(&theta.network, &centered, DType::F64).unwrap_err();
    assert!(why.contains("both sides"), "{why}");
    assert_eq!(EngineKind::Auto.chosen(&theta.network, &centered, DType::F64), Ok(EngineKind::Plain));
    centered.learning.rule = Rule::CEP_RESCALED;
    assert!(EngineKind::Fused.chosen(&theta.network, &centered, DType::F64).is_err());
    centered.learning.rule = Rule::CEP;
    assert_eq!(EngineKind::Fused.chosen(&theta.network, &centered, DType::F64), Ok(EngineKind::Fused));
    assert!(matches!(law.synapse, SynapseConfig::Momentum(_)));
}
