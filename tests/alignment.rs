//! Feedback weights that align themselves, and those that never learn. Expectations follow from the definition: with the
//! same update on both sides what θf and θbᵀ differ in changes by decay alone; from θb = θfᵀ aligned C-VF is C-EP.

mod common;

use candle_core::{Device, Tensor};
use common::{norm, striped_batch as batch};
use eqprop::engine::{self, EngineKind};
use eqprop::model::Parameters;
use eqprop::{Config, Rule};

fn config(rule: Rule, settings: &[(&str, toml::Value)]) -> Config {
    let base = [
        ("training.dtype", toml::Value::from("f64")),
        ("learning.learning_rates", toml::Value::try_from([0.05, 0.03, 0.02]).unwrap()),
        ("settle.steps", 12.into()),
        ("learning.K", 6.into()),
        ("training.data", "glyphs".into()),
    ];
    let untied =
        [("learning.sigma_prime", toml::Value::from("ignored")), ("learning.authors_code", false.into())];
    let untied = if rule.tied == Some(false) { &untied[..] } else { &[] };
    // All at once: some are only possible together.
    let all = base.iter().chain(untied).chain(settings);
    Config::preset(rule, [30, 20, 16, 4]).unwrap().with_all(all.cloned()).unwrap()
}

/// θ after some minibatches.
fn train(config: &Config, kind: EngineKind, theta: Parameters) -> Parameters {
    let mut engine = engine::build(kind, config.job(&Device::Cpu), theta).unwrap();
    for (i, beta) in [0.3, -0.3, 0.3].into_iter().enumerate() {
        engine.train(&batch(i), beta).unwrap();
    }
    engine.parameters().unwrap()
}

/// θf − θbᵀ between layers 0 and 1, and between 1 and 2.
fn skew(theta: &Parameters) -> Vec<Tensor> {
    let pair = |n: usize| (&theta.weights[n] - theta.weights[3 + n].t().unwrap()).unwrap();
    (0..2).map(pair).collect()
}

const BOTH: [EngineKind; 2] = [EngineKind::Plain, EngineKind::Fused];

#[test]
fn what_forward_and_feedback_weights_differ_in_shrinks_by_lambda_a_minibatch() {
    for order in ["synchronous", "alternating"] {
        for rule in [Rule::CVF, Rule::VF] {
            let settings = [
                ("network.psi", 60.0.into()),
                ("settle.order", order.into()),
                ("learning.alignment", "kolen-pollack".into()),
                ("learning.decay", 0.25.into()),
            ];
            let config = config(rule, &settings);
            for kind in BOTH {
                let start = config.parameters(&Device::Cpu).unwrap();
                let end = train(&config, kind, start.clone());
                for (before, after) in skew(&start).iter().zip(skew(&end)) {
                    let off = norm(&(after - (before * 0.75f64.powi(3)).unwrap()).unwrap()) / norm(before);
                    assert!(off < 1e-12, "{rule:?} {kind:?} {order}: off by {off:.1e}");
                }
                assert!(norm(&(&end.weights[0] - &start.weights[0]).unwrap()) > 0.0);
            }
        }
    }
}

#[test]
fn from_symmetric_weights_aligned_c_vf_is_c_ep() {
    let aligned = config(Rule::CVF, &[("learning.alignment", "kolen-pollack".into())]);
    let c_ep = config(Rule::CEP, &[]);
    let theta = aligned.parameters(&Device::Cpu).unwrap().symmetric().unwrap();
    let mut tied = c_ep.parameters(&Device::Cpu).unwrap();
    tied.weights.clone_from_slice(&theta.weights[..3]);
    tied.biases.clone_from(&theta.biases);
    for kind in BOTH {
        let (ours, theirs) = (train(&aligned, kind, theta.clone()), train(&c_ep, kind, tied.clone()));
        for (n, (ours, theirs)) in ours.weights.iter().zip(&theirs.weights).enumerate() {
            let off = norm(&(ours - theirs).unwrap());
            assert!(off < 1e-12, "{kind:?}: forward.{n} off by {off:.1e}");
        }
    }
}

#[test]
fn both_engines_align_alike() {
    for (rule, alignment) in
        [(Rule::CVF, "kolen-pollack"), (Rule::VF, "kolen-pollack"), (Rule::CVF, "fixed"), (Rule::VF, "fixed")]
    {
        for nudging in ["positive", "centered"] {
            let decay = if alignment == "fixed" { 0.0 } else { 0.01 };
            let settings = [
                ("network.psi", 120.0.into()),
                ("learning.alignment", alignment.into()),
                ("learning.decay", decay.into()),
                ("learning.nudging", nudging.into()),
            ];
            // What is fixed does not decay either.
            let lossy = [
                ("synapse.law", "momentum".into()),
                ("synapse.momentum", 0.0.into()),
                ("synapse.decay", 0.01.into()),
            ];
            let lossy = &lossy[..if alignment == "fixed" { 3 } else { 0 }];
            let config = config(rule, &[&settings[..], lossy].concat());
            let start = config.parameters(&Device::Cpu).unwrap();
            let [plain, fused] = BOTH.map(|kind| train(&config, kind, start.clone()));
            for ((name, plain), ((_, fused), (_, start))) in
                plain.named().into_iter().zip(fused.named().into_iter().zip(start.named()))
            {
                let (off, moved) = (norm(&(plain - fused).unwrap()), norm(&(plain - start).unwrap()));
                assert!(
                    off <= 1e-9 * moved,
                    "{rule:?} {alignment} {nudging} {name}: {off:.1e} of {moved:.1e}"
                );
                assert_eq!(moved == 0.0, alignment == "fixed" && name.starts_with("feedback"), "{name}");
            }
        }
    }
}

#[test]
fn alignment_is_refused_where_there_is_nothing_to_align() {
    let says = |rule: Rule, settings: &[(&str, toml::Value)]| {
        let settings = settings.iter().cloned();
        format!("{:#}", Config::preset(rule, [30, 20, 4]).unwrap().with_all(settings).unwrap_err())
    };
    assert!(says(Rule::EP, &[("learning.alignment", "kolen-pollack".into())]).contains("feedback weights"));
    assert!(says(Rule::CVF, &[("learning.alignment", "kolen-pollack".into())]).contains("sigma_prime"));
    assert!(says(Rule::CVF, &[("learning.decay", 0.1.into())]).contains("learning.decay"));
    assert!(says(Rule::CVF, &[("learning.alignment", "magic".into())]).contains("kolen-pollack"));
}
