//! The referee: with every cause switched off an update is the gradient, and each cause acts where theory says it does.
//! Expectations follow from the linearised dynamics (`study::referee`) and from the paper's theorems.

mod common;

use candle_core::{DType, Device};
use common::Place;
use eqprop::config::Config;
use eqprop::data::Batch;
use eqprop::learning::angle::Comparison;
use eqprop::learning::{Learning, Rule, SigmaPrime};
use eqprop::model::network::Init;
use eqprop::model::synapse::device::Fault;
use eqprop::model::{Activation, Dims, Model, Network, Parameters, Settle};
use eqprop::rng::{Purpose, stream};
use eqprop::study::explain::Explanation;
use eqprop::study::referee::{CAUSES, Case, Cause};
use proptest::prelude::*;
use rand::Rng;

struct Problem {
    model: Model,
    learning: Learning,
    theta: Parameters,
    batch: Batch,
}

impl Problem {
    fn new(dims: &[usize], activation: Activation, rule: Rule, seed: u64) -> Self {
        let dims = Dims(dims.to_vec());
        let tied = rule.tied.unwrap();
        let network = Network::layered(dims.clone(), tied);
        let theta = Parameters::init(network, Init::FanIn, 60.0, seed, DType::F64, &Device::Cpu).unwrap();
        let mut rng = stream(seed, Purpose::Figure, 99);
        let batch = Batch {
            images: (0..3 * dims.input()).map(|_| rng.random()).collect(),
            labels: (0..3).map(|_| rng.random_range(0..dims.output()) as u8).collect(),
        };
        let learning = Learning {
            sigma_prime: if tied { SigmaPrime::Ignored } else { SigmaPrime::Partial },
            ..Learning::new(rule, 4, 0.3, vec![0.02; dims.depth() + 1])
        };
        let model = Model::discrete(activation, Settle::synchronous(6, 0.0));
        Self { model, learning, theta, batch }
    }

    /// Ψ(Δtot, −∇), degrees, with these switched off; `None` where the network does not settle.
    fn angle_if_settled(&self, beta: f64, off: &[Cause]) -> Option<f64> {
        let case = Case::new(&self.model, &self.theta, &self.batch).ok()?;
        let update = case.update(&self.learning, beta, off).unwrap();
        Some(Comparison::new(&update, &case.gradient).unwrap().total_degrees)
    }

    fn angle(&self, beta: f64, off: &[Cause]) -> f64 {
        self.angle_if_settled(beta, off).unwrap()
    }
}

fn all_but(kept: Cause) -> Vec<Cause> {
    CAUSES.into_iter().filter(|cause| *cause != kept).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: common::seed(), ..ProptestConfig::with_cases(20) })]

    /// (DW)ᵗDe is the gradient, whatever the sizes, the rule and σ.
    #[test]
    fn with_every_cause_off_the_update_is_the_gradient(
        hidden in prop::collection::vec(3usize..20, 1..=3),
        (input, output) in (3usize..30, 2usize..8),
        seed in 0u64..1000,
        rule in prop::sample::select(&[Rule::EP, Rule::CEP, Rule::CEP_RESCALED, Rule::VF, Rule::CVF][..]),
        activation in prop::sample::select(&[Activation::Sigmoid, Activation::Tanh][..]),
        damping in prop::sample::select(&[0.0, 0.4][..]),
    ) {
        let dims = [&[input], &hidden[..], &[output]].concat();
        let mut problem = Problem::new(&dims, activation, rule, seed);
        problem.model.settle.damping = damping;
        let angle = problem.angle_if_settled(0.3, &CAUSES);
        prop_assume!(angle.is_some());
        let angle = angle.unwrap();
        prop_assert!(angle < 0.1, "{rule:?} {activation:?} {dims:?}: {angle}°");
    }
}

#[test]
fn each_cause_alone_turns_the_update_away() {
    let problem = Problem::new(&[12, 9, 8, 4], Activation::Sigmoid, Rule::CVF, 3);
    for cause in
        CAUSES.into_iter().filter(|cause| cause.applies(&problem.model, &problem.learning, &problem.theta))
    {
        let angle = problem.angle(0.3, &all_but(cause));
        assert!(angle > 0.05, "{cause:?}: {angle}°");
    }
}

#[test]
fn what_beta_contributes_is_linear_in_it_and_what_eta_does_in_eta() {
    let problem = Problem::new(&[12, 9, 4], Activation::Sigmoid, Rule::CEP, 3);
    let ratio = problem.angle(0.02, &all_but(Cause::Beta)) / problem.angle(0.01, &all_but(Cause::Beta));
    assert!((ratio - 2.0).abs() < 0.05, "{ratio}");
    // Theorem 1: the measure is how far the weights move while the nudge is felt, η/β.
    let of_eta = |eta: f64, beta: f64| {
        let mut problem = Problem::new(&[12, 9, 4], Activation::Sigmoid, Rule::CEP, 3);
        problem.learning.learning_rates.fill(eta);
        let off: Vec<Cause> =
            CAUSES.into_iter().filter(|c| ![Cause::Continual, Cause::Beta].contains(c)).collect();
        problem.angle(beta, &off)
    };
    let ratio = of_eta(2e-6, 1e-4) / of_eta(1e-6, 1e-4);
    assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
    let same = of_eta(2e-6, 2e-4) / of_eta(1e-6, 1e-4);
    assert!((same - 1.0).abs() < 0.1, "{same}");
}

#[test]
fn a_tied_network_without_sigma_prime_on_the_nudge_keeps_its_angle() {
    // (DW)ᵗe and (DW)ᵗDe differ however small β, whatever T and K: the angle that docs/angles.md shows of EP.
    let problem = Problem::new(&[12, 9, 4], Activation::Sigmoid, Rule::EP, 5);
    let left = problem.angle(0.1, &all_but(Cause::SigmaPrime));
    assert!(left > 1.0, "{left}");
}

/// The output of the program, which must succeed.
fn explained(place: &Place, more: &[&str]) -> serde_json::Value {
    let fixed = ["angle", "--data-dir", "data", "--set", "network.dims=[64, 24, 4]", "--explain", "--json"];
    let output = place.eqprop().args(fixed).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_the_program_says_adds_up() {
    let place = Place::new();
    let said = explained(&place, &["--algo", "cvf", "--psi", "45", "--batches", "3", "--out", "page.html"]);
    let mean = |cells: &serde_json::Value, column: &str| cells[column]["mean"].as_f64().unwrap();
    // The rest is measured, not computed from the falls: it is almost 0.
    for column in ["all", "forward.0", "forward.1", "feedback.0"] {
        let falls: f64 =
            said["in_order"].as_array().unwrap().iter().map(|row| mean(&row["degrees"], column)).sum();
        let (start, rest) = (mean(&said["start_degrees"], column), mean(&said["rest_degrees"], column));
        assert!((start - falls - rest).abs() < 1e-9, "{column}: {start} is not {falls} + {rest}");
        assert!(rest < 0.5, "{column}: {rest}° are left");
    }
    let names: Vec<&str> =
        said["in_order"].as_array().unwrap().iter().map(|r| r["cause"].as_str().unwrap()).collect();
    assert_eq!(names, ["rounding", "T", "eta", "beta", "K", "sigma_prime", "untied"]);
    assert_eq!(place.read("page.html").matches("<svg").count(), 4);
    // EP has no weights that move meanwhile, and no untied weights.
    let said = explained(&place, &["--algo", "ep", "--batches", "1", "--set", "training.dtype=f64"]);
    let names: Vec<&str> =
        said["in_order"].as_array().unwrap().iter().map(|r| r["cause"].as_str().unwrap()).collect();
    assert_eq!(names, ["T", "beta", "K", "sigma_prime"]);
}

#[test]
fn what_has_no_angle_is_refused_in_one_paragraph() {
    let place = Place::new();
    let output = (place.eqprop())
        .args([
            "angle",
            "--algo",
            "bptt",
            "--data-dir",
            "data",
            "--set",
            "network.dims=[64, 24, 4]",
            "--explain",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("bptt"));
}

/// Devices that are ideal but for what is set: their changes are so small and so many that nothing is left of single
/// ones.
fn nearly_ideal(settings: &[(&str, toml::Value)]) -> Config {
    let base = [
        ("training.dtype", "f64".into()),
        ("training.data", "glyphs".into()),
        ("learning.authors_code", false.into()),
        ("learning.K", 6.into()),
        ("synapse.law", "device".into()),
        ("synapse.device", "constant".into()),
        ("synapse.pulses", "deterministic".into()),
        ("synapse.train_length", 10_000.into()),
        ("synapse.dw_min", 3e-7.into()),
        ("synapse.dw_min_std", 0.0.into()),
        ("synapse.dw_min_dtod", 0.0.into()),
        ("synapse.up_down_dtod", 0.0.into()),
        ("synapse.w_max", 10.0.into()),
        ("synapse.w_min", (-10.0).into()),
        ("synapse.w_max_dtod", 0.0.into()),
        ("synapse.w_min_dtod", 0.0.into()),
    ];
    let set = |config: Config, (key, value): &(&str, toml::Value)| config.with(key, value.clone()).unwrap();
    base.iter().chain(settings).fold(Config::preset(Rule::CVF, [30, 20, 4]).unwrap(), set)
}

fn explained_with(settings: &[(&str, toml::Value)]) -> Vec<(Cause, f64)> {
    let config = nearly_ideal(settings);
    let batches = [common::striped_batch(0)];
    let theta = config.parameters(&Device::Cpu).unwrap();
    let explanation = Explanation::of_batches(&config, &theta, batches, |_| {}).unwrap();
    let falls: f64 = explanation.in_order.iter().map(|(_, falls)| falls[0].mean).sum();
    let (start, rest) = (explanation.start[0].mean, explanation.rest[0].mean);
    assert!((start - falls - rest).abs() < 1e-9 && rest < 0.5, "{settings:?}: {start} {falls} {rest}");
    explanation.in_order.iter().map(|(cause, falls)| (*cause, falls[0].mean)).collect()
}

/// The part of an explanation that is due to devices and to noise elsewhere.
fn of_circuits(causes: Vec<(Cause, f64)>) -> Vec<(Cause, f64)> {
    causes.into_iter().filter(|(cause, _)| matches!(cause, Cause::Noise | Cause::Device(_))).collect()
}

#[test]
fn an_ideal_device_has_next_to_nothing_of_each_cause() {
    let causes = of_circuits(explained_with(&[]));
    assert_eq!(causes.len(), 5);
    for (cause, degrees) in causes {
        assert!(degrees.abs() < 0.5, "{cause:?}: {degrees}°");
    }
}

#[test]
fn what_a_device_has_turns_the_update_away_by_its_cause_alone() {
    let cases: [(Cause, &[(&str, toml::Value)]); 6] = [
        (Cause::Noise, &[("noise.reads", 0.05.into())]),
        (Cause::Device(Fault::CycleToCycle), &[("synapse.dw_min_std", 30.0.into())]),
        (Cause::Device(Fault::Granularity), &[("synapse.dw_min", 2e-5.into())]),
        (Cause::Device(Fault::DeviceToDevice), &[("synapse.dw_min_dtod", 0.5.into())]),
        (Cause::Device(Fault::Asymmetry), &[("synapse.up_down", 0.6.into())]),
        (Cause::Device(Fault::Bounds), &[("synapse.w_max", 0.1.into()), ("synapse.w_min", (-0.1).into())]),
    ];
    for (cause, settings) in cases {
        let config = nearly_ideal(settings);
        let theta = config.parameters(&Device::Cpu).unwrap();
        let case = Case::new(&config.model(), &theta, &common::striped_batch(0)).unwrap();
        for (other, _) in cases {
            // A pulse has noise only where there are pulses: without their grain they are their own mean.
            let with_grain = other == Cause::Device(Fault::CycleToCycle);
            let mut off = all_but(other);
            off.retain(|cause| !with_grain || *cause != Cause::Device(Fault::Granularity));
            let update = case.update(&config.learning, config.learning.beta, &off).unwrap();
            let degrees = Comparison::new(&update, &case.gradient).unwrap().total_degrees;
            match other == cause {
                true => assert!(degrees > 2.0, "{settings:?}, {other:?}: {degrees}°"),
                false if with_grain && cause == Cause::Device(Fault::Granularity) => {}
                false => assert!(degrees < 1.0, "{settings:?}, {other:?}: {degrees}°"),
            }
        }
    }
}

#[test]
fn a_published_device_is_taken_apart_by_the_program() {
    let place = Place::new();
    for (algo, preset) in [("cep", "reram-es"), ("ep", "pcm"), ("cvf", "gokmen-vlasov")] {
        let law = ["--set", "synapse.law=device", "--set", "noise.states=0.01", "--set"];
        let preset = format!("synapse.preset={preset}");
        let said = explained(&place, &[&["--algo", algo, "--batches", "2"][..], &law, &[&preset]].concat());
        let names: Vec<&str> =
            said["in_order"].as_array().unwrap().iter().map(|r| r["cause"].as_str().unwrap()).collect();
        let circuits = [
            "noise",
            "cycle_to_cycle",
            "granularity",
            "device_to_device",
            "asymmetry",
            "bounds",
            "rounding",
            "T",
        ];
        assert_eq!(names[..8], circuits, "{algo}");
        let mean = |cells: &serde_json::Value| cells["all"]["mean"].as_f64().unwrap();
        let falls: f64 = said["in_order"].as_array().unwrap().iter().map(|row| mean(&row["degrees"])).sum();
        let (start, rest) = (mean(&said["start_degrees"]), mean(&said["rest_degrees"]));
        assert!((start - falls - rest).abs() < 1e-9 && rest < 0.5, "{algo}: {start} {falls} {rest}");
    }
}

#[test]
fn an_update_that_no_device_makes_counts_as_unrelated() {
    // Steps that are far larger than all that is wished, of which none is made.
    let causes = explained_with(&[("synapse.dw_min", 0.1.into())]);
    assert!(causes.iter().all(|(_, degrees)| degrees.is_finite()), "{causes:?}");
    let granularity = causes.iter().find(|(cause, _)| *cause == Cause::Device(Fault::Granularity)).unwrap().1;
    let others: f64 = causes.iter().map(|(_, degrees)| degrees).sum::<f64>() - granularity;
    assert!((granularity + others - 90.0).abs() < 0.5, "{causes:?}");
}
