//! Feedback weights that align themselves, and those that never learn. Expectations follow from the definition: with
//! one update for both sides, θf − θbᵀ changes by decay alone; from θb = θfᵀ aligned C-VF is C-EP.

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::{norm, striped_batch as batch};
use eqprop::engine::{self, EngineKind};
use eqprop::learning::homeostasis;
use eqprop::model::Parameters;
use eqprop::model::dynamics::Layers;
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
    // All at once: some keys are only valid together.
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
        ["kolen-pollack", "fixed", "homeostasis"].into_iter().flat_map(|of| [(Rule::CVF, of), (Rule::VF, of)])
    {
        for nudging in ["positive", "centered"] {
            let of = |name: &str, value: f64| if alignment == name { value } else { 0.0 };
            let settings = [
                ("network.psi", 120.0.into()),
                ("learning.alignment", alignment.into()),
                ("learning.decay", of("kolen-pollack", 0.01).into()),
                ("learning.strength", of("homeostasis", 0.3).into()),
                ("learning.nudging", nudging.into()),
            ];
            // Fixed weights do not decay either.
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

/// ‖A‖², A = (J − Jᵀ)/2, a mean over images with these `slopes`, by layer, (B, d_n): J = DW of all neurons, as one
/// matrix.
fn asymmetry(theta: &Parameters, slopes: &[Tensor]) -> Tensor {
    let widths: Vec<usize> = slopes.iter().map(|slopes| slopes.dim(1).unwrap()).collect();
    let block = |to: usize, from: usize| {
        let connection = theta.network.weights().find(|c| (c.from, c.to) == (from, to));
        connection.map_or_else(
            || Tensor::zeros((widths[to], widths[from]), DType::F64, &Device::Cpu).unwrap(),
            |c| theta.weights[c.weight].clone(),
        )
    };
    let layers = 0..widths.len();
    let rows: Vec<Tensor> = (layers.clone())
        .map(|to| Tensor::cat(&layers.clone().map(|from| block(to, from)).collect::<Vec<_>>(), 1).unwrap())
        .collect();
    let w = Tensor::cat(&rows, 0).unwrap();
    let slopes = Tensor::cat(slopes, 1).unwrap();
    let images = slopes.dim(0).unwrap();
    let of_image = |i: usize| {
        let jacobian = w.broadcast_mul(&slopes.get(i).unwrap().unsqueeze(1).unwrap()).unwrap();
        let a = ((&jacobian - jacobian.t().unwrap()).unwrap() * 0.5).unwrap();
        a.sqr().unwrap().sum_all().unwrap()
    };
    (Tensor::stack(&(0..images).map(of_image).collect::<Vec<_>>(), 0).unwrap()).mean_all().unwrap()
}

/// σ′(h_*) of some images, by layer, and s_*.
fn settled(config: &Config, theta: &Parameters) -> (Vec<Tensor>, Vec<Tensor>) {
    let (model, batch) = (config.model(), batch(0));
    let x = batch.x_for(theta).unwrap();
    let drive = model.dynamics.drive(theta, &x).unwrap();
    let s = model.settle(theta, &x).unwrap().state().to_vec();
    let h = model.dynamics.pre_activations(theta, &drive, &s, Layers::All).unwrap();
    let slope =
        |h| model.dynamics.activation.derivative(&eqprop::model::dynamics::PreActivation::total(h).unwrap());
    let slopes = h.iter().flatten().map(|h| slope(h).unwrap()).collect();
    (slopes, s)
}

fn number(tensor: &Tensor) -> f64 {
    tensor.to_scalar().unwrap()
}

const HOMEOSTATIC: [(&str, f64); 2] = [("network.psi", 150.0), ("learning.strength", 0.4)];

/// A run with homeostasis whose first phase is long enough for a fixed point.
fn homeostatic(settings: &[(&str, toml::Value)]) -> Config {
    let fixed = HOMEOSTATIC.map(|(key, value)| (key, value.into()));
    let more = [
        ("learning.alignment", "homeostasis".into()),
        ("settle.steps", 600.into()),
        ("settle.tolerance", 0.0.into()),
    ];
    config(Rule::CVF, &[&fixed[..], &more, settings].concat())
}

#[test]
fn homeostasis_goes_down_the_gradient_of_the_asymmetry_of_the_jacobian() {
    for activation in ["sigmoid", "tanh"] {
        let config = homeostatic(&[("network.activation", activation.into())]);
        let start = config.parameters(&Device::Cpu).unwrap();
        let (slopes, s) = settled(&config, &start);
        // Autograd's gradient of ‖A‖² where D is held.
        let leaf = |tensor: &Tensor| Ok(Var::from_tensor(&tensor.copy()?)?.into_inner());
        let theta = start.map(leaf).unwrap();
        let gradients = asymmetry(&theta, &slopes).backward().unwrap();
        let after = homeostasis(&config.model(), &start, &s, 0.4).unwrap();
        for (c, ((own, before), after)) in
            start.network.weights().zip(theta.weights.iter().zip(&start.weights).zip(&after.weights))
        {
            let moved = (before - after).unwrap();
            let Some(gradient) = gradients.get(own) else {
                assert_eq!(norm(&moved), 0.0, "{} is in no pair", c.name());
                continue;
            };
            let expected = (gradient * 0.4).unwrap();
            let off = norm(&(moved - &expected).unwrap());
            assert!(off < 1e-9 * norm(&expected), "{activation} {}: {off:.1e}", c.name());
        }
    }
}

#[test]
fn the_jacobian_of_the_asymmetry_is_that_of_a_step() {
    // ‖A‖² by differences of the step itself, neuron by neuron, for the first image.
    let config = homeostatic(&[]);
    let theta = config.parameters(&Device::Cpu).unwrap();
    let (slopes, s) = settled(&config, &theta);
    let model = config.model();
    let one = |layers: &[Tensor]| layers.iter().map(|s| s.narrow(0, 0, 1).unwrap()).collect::<Vec<_>>();
    let (slopes, s) = (one(&slopes), one(&s));
    let x = batch(0).x_for(&theta).unwrap().narrow(0, 0, 1).unwrap();
    let drive = model.dynamics.drive(&theta, &x).unwrap();
    let widths: Vec<usize> = s.iter().map(|s| s.dim(1).unwrap()).collect();
    let all = Tensor::cat(&s, 1).unwrap();
    let column = |j: usize| -> Vec<f64> {
        let at = |h: f64| {
            let mut values = all.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            values[j] += h;
            let moved = Tensor::from_vec(values, all.shape(), &Device::Cpu).unwrap();
            let mut first = 0;
            let layers: Vec<Tensor> = (widths.iter())
                .map(|&width| {
                    first += width;
                    moved.narrow(1, first - width, width).unwrap()
                })
                .collect();
            Tensor::cat(&model.step(&theta, &drive, &layers, Layers::All, None).unwrap(), 1).unwrap()
        };
        ((at(1e-5) - at(-1e-5)).unwrap() / 2e-5).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let columns: Vec<Vec<f64>> = (0..widths.iter().sum()).map(column).collect();
    let mut expected = 0.0;
    for (i, column) in columns.iter().enumerate() {
        for (j, other) in columns.iter().enumerate() {
            expected += (0.5 * (column[j] - other[i])).powi(2);
        }
    }
    let found = number(&asymmetry(&theta, &slopes));
    assert!((found - expected).abs() < 1e-6 * expected, "{found} and not {expected}");
}

#[test]
fn homeostasis_lowers_the_asymmetry_in_both_engines() {
    for kind in BOTH {
        let config =
            homeostatic(&[("learning.learning_rates", toml::Value::try_from([0.0, 0.0, 0.0]).unwrap())]);
        let mut engine =
            engine::build(kind, config.job(&Device::Cpu), config.parameters(&Device::Cpu).unwrap()).unwrap();
        let of = |theta: &Parameters| number(&asymmetry(theta, &settled(&config, theta).0));
        let mut left = vec![of(&engine.parameters().unwrap())];
        for _ in 0..20 {
            engine.train(&batch(0), 0.3).unwrap();
            left.push(of(&engine.parameters().unwrap()));
        }
        assert!(left.windows(2).all(|pair| pair[1] < pair[0]), "{kind:?}: {left:?}");
        assert!(left[20] < 0.1 * left[0], "{kind:?}: {left:?}");
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
    assert!(says(Rule::CVF, &[("learning.alignment", "homeostasis".into())]).contains("learning.strength"));
    assert!(says(Rule::CVF, &[("learning.strength", 0.1.into())]).contains("homeostasis"));
    assert!(says(Rule::ASYM_EP, &[("learning.sigma_prime", "partial".into())]).contains("full"));
}
