//! The softmax readout, in float64: its loss against finite differences, RBP against BPTT, the orders of Theorem 1 in
//! β for all rules, with a σ that bends, and what W_out learns when.

mod common;

use candle_core::{D, DType, Device, Tensor};
use common::{Place, distance, metrics, norm};
use eqprop::engine::{self, EngineKind};
use eqprop::learning::angle::Trace;
use eqprop::learning::{Learning, Nudging, Rule, SigmaPrime};
use eqprop::model::dynamics::{Layers, Time};
use eqprop::model::loss::softmax;
use eqprop::model::network::Init;
use eqprop::model::{Activation, Dims, Loss, Model, Network, Order, Parameters, Readout, Settle, Solver};
use eqprop::reference::bptt::bptt;
use eqprop::reference::rbp::rbp;
use eqprop::study::referee::{Case, Cause};
use eqprop::{Batch, Config};
use std::fs;

const RULES: [Rule; 5] = [Rule::EP, Rule::CEP, Rule::CEP_RESCALED, Rule::VF, Rule::CVF];

/// A small network with a readout, an input and targets that are distributions.
struct Problem {
    model: Model,
    learning: Learning,
    theta: Parameters,
    x: Tensor,
    y: Tensor,
}

impl Problem {
    /// Weights are symmetric where they are not tied.
    fn new(dims: &[usize], time: Time, rule: Rule, seed: u64) -> Self {
        let dims = Dims(dims.to_vec());
        let network = Network::layered(dims.clone(), rule.tied.unwrap_or(true));
        let theta = Parameters::init(network, Init::FanIn, 0.0, seed, DType::F64, &Device::Cpu).unwrap();
        let draw = |salt: u64, width: usize| {
            let value = |i: u64| ((seed * 31 + salt + i) as f64 * 0.754_877_666).fract();
            let values: Vec<f64> = (0..3 * width as u64).map(value).collect();
            Tensor::from_vec(values, (3, width), &Device::Cpu).unwrap()
        };
        let (x, y) = (draw(1, dims.input()), softmax(&(draw(9, dims.output()) * 4.0).unwrap()).unwrap());
        let steps = if time == Time::Discrete { 200 } else { 900 };
        let mut model = Model::discrete(Activation::Sigmoid, Settle::synchronous(steps, 0.0));
        (model.dynamics.time, model.dynamics.epsilon) = (time, 0.2);
        (model.dynamics.readout, model.loss) = (Readout::Softmax, Loss::CROSS_ENTROPY);
        let learning = Learning::new(rule, 8, 0.1, vec![0.0; dims.depth() + 1]);
        Self { model, learning, theta: theta.symmetric().unwrap(), x, y }
    }

    fn trace(&self, beta: f64) -> Trace {
        let nudge = self.model.nudge(&self.y, beta);
        Trace::record(&self.model, &self.learning, &self.theta, &self.x, nudge).unwrap()
    }

    fn settled(&self) -> Vec<Tensor> {
        self.model.settle(&self.theta, &self.x).unwrap().state().to_vec()
    }

    /// ŷ of hidden states, and Σ −y·log ŷ / B, from the definition.
    fn read(&self, theta: &Parameters, s: &[Tensor]) -> (Tensor, f64) {
        let s_1 = self.model.dynamics.rho(&s[1]).unwrap();
        let z = s_1.matmul(&theta.weights[0].t().unwrap()).unwrap().broadcast_add(&theta.biases[0]).unwrap();
        let exp = z.exp().unwrap();
        let y_hat = exp.broadcast_div(&exp.sum_keepdim(D::Minus1).unwrap()).unwrap();
        let loss = (&self.y * y_hat.log().unwrap()).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap();
        (y_hat, -loss / 3.0)
    }
}

fn scaled(theta: &Parameters, scale: f64) -> Parameters {
    theta.plus(theta, |_| scale - 1.0).unwrap()
}

fn size(theta: &Parameters) -> f64 {
    distance(theta, &scaled(theta, 0.0))
}

/// ‖Δ_θ − (−∇θ)‖ over all steps, relative to ‖∇θ‖.
fn error_of_updates(trace: &Trace) -> f64 {
    let steps = || trace.delta_theta.iter().zip(&trace.gradients.parameters);
    let off: f64 = steps().map(|(update, gradient)| distance(update, &scaled(gradient, -1.0)).powi(2)).sum();
    let all: f64 = steps().map(|(_, gradient)| size(gradient).powi(2)).sum();
    (off / all).sqrt()
}

/// The exponent p of error ∝ βᵖ, from errors at two β, the second half of the first.
fn order(errors: [f64; 2]) -> f64 {
    (errors[0] / errors[1]).log2()
}

#[test]
fn bptt_is_the_derivative_of_the_cross_entropy_of_the_readout() {
    for time in [Time::Discrete, Time::Real] {
        for rule in [Rule::EP, Rule::VF] {
            let mut problem = Problem::new(&[4, 5, 6, 3], time, rule, 3);
            (problem.model.settle.steps, problem.learning.K) = (12, 12);
            let Problem { model, learning, theta, x, y } = &problem;
            let gradients = bptt(model, theta, x, y, learning.K).unwrap().total().unwrap();
            for (i, (name, gradient)) in gradients.named().into_iter().enumerate() {
                // Feedback of the readout carries nothing in the first phase.
                if name == "feedback.0.weight" {
                    assert_eq!(norm(gradient), 0.0);
                    continue;
                }
                let loss = |h: f64| {
                    let mut moved: Vec<(String, Tensor)> =
                        theta.named().into_iter().map(|(n, t)| (n, t.clone())).collect();
                    moved[i].1 = (&moved[i].1 + (gradient * h).unwrap()).unwrap();
                    let network = theta.network.clone();
                    let moved = moved.into_iter().collect();
                    let moved = Parameters::from_named(&moved, network, DType::F64, &Device::Cpu).unwrap();
                    problem.read(&moved, model.settle(&moved, x).unwrap().state()).1
                };
                let h = 1e-5 / norm(gradient);
                let slope = (loss(h) - loss(-h)) / (2.0 * h);
                let off = slope / norm(gradient).powi(2) - 1.0;
                assert!(off.abs() < 1e-7, "{time:?} {rule:?} {name}: {off:.1e}");
            }
        }
    }
}

#[test]
fn rbp_equals_bptt_once_settled() {
    for time in [Time::Discrete, Time::Real] {
        for rule in [Rule::EP, Rule::CVF] {
            for damping in [0.0, 0.5] {
                let mut problem = Problem::new(&[5, 6, 7, 4], time, rule, 8);
                problem.model.settle.damping = damping;
                problem.model.settle.steps *= if damping > 0.0 { 4 } else { 1 };
                let Problem { model, learning, theta, x, y } = &problem;
                let through_time = bptt(model, theta, x, y, learning.K).unwrap();
                let recurrent = rbp(model, theta, x, y, &problem.settled(), learning.K).unwrap();
                for t in 0..learning.K {
                    for (a, b) in through_time.states[t].iter().zip(&recurrent.states[t]) {
                        assert!(norm(&(a - b).unwrap()) < 1e-9, "{time:?} {rule:?} {damping} t={t}");
                    }
                    let off = distance(&through_time.parameters[t], &recurrent.parameters[t]);
                    assert!(off < 1e-9, "{time:?} {rule:?} {damping} t={t}: {off:.1e}");
                }
            }
        }
    }
}

#[test]
fn the_states_know_nothing_of_the_readout_and_it_reads_the_last_of_them() {
    for (order, solver) in [
        (Order::Synchronous, Solver::Iterate),
        (Order::Synchronous, Solver::Anderson),
        (Order::Alternating, Solver::Iterate),
        (Order::Alternating, Solver::Anderson),
    ] {
        let mut problem = Problem::new(&[5, 7, 6, 4], Time::Discrete, Rule::EP, 2);
        problem.model.settle = Settle { order, solver, tolerance: 1e-12, ..Settle::synchronous(200, 0.0) };
        let settled = problem.model.settle(&problem.theta, &problem.x).unwrap();
        let before = settled.state().to_vec();
        let (y_hat, _) = problem.read(&problem.theta, &before);
        assert!(norm(&(softmax(&before[0]).unwrap() - y_hat).unwrap()) < 1e-14, "{order:?} {solver:?}");
        assert!(settled.converged.iter().all(|&converged| converged), "{order:?} {solver:?}");
        // Neither do the looks at whether they have settled, however fast z moves.
        problem.theta.weights[0] = (&problem.theta.weights[0] * -1e6).unwrap();
        let again = problem.model.settle(&problem.theta, &problem.x).unwrap();
        assert_eq!(
            (again.steps.clone(), again.residuals().unwrap()),
            (settled.steps.clone(), settled.residuals().unwrap())
        );
        for (now, before) in again.recent[2].iter().zip(&before).skip(1) {
            assert_eq!(norm(&(now - before).unwrap()), 0.0, "{order:?} {solver:?}");
        }
    }
}

#[test]
fn theorem_1_holds_step_by_step_for_any_sigma() {
    for (time, rule) in [
        (Time::Discrete, Rule::CEP),
        (Time::Discrete, Rule::CVF),
        (Time::Discrete, Rule::VF),
        (Time::Real, Rule::CEP),
    ] {
        for (nudging, expected) in [(Nudging::Positive, 1.0), (Nudging::Centered, 2.0)] {
            let mut problem = Problem::new(&[5, 7, 6, 4], time, rule, 5);
            problem.learning.nudging = nudging;
            let errors = [0.04, 0.02].map(|beta| error_of_updates(&problem.trace(beta)));
            let p = order(errors);
            let what = format!("{time:?} {rule:?} {nudging:?}: order {p:.3} in β, errors {errors:?}");
            assert!((p - expected).abs() < 0.1 && errors[1] < 0.05, "{what}");
        }
    }
}

#[test]
fn theorem_1_of_the_neurons_which_move_by_sigma_prime_times_their_gradient() {
    let errors = [0.04, 0.02].map(|beta| {
        let problem = Problem::new(&[5, 7, 6, 4], Time::Discrete, Rule::CEP, 5);
        let (model, theta) = (&problem.model, &problem.theta);
        let (drive, s) = (model.dynamics.drive(theta, &problem.x).unwrap(), problem.settled());
        let h = model.dynamics.pre_activations(theta, &drive, &s, Layers::All).unwrap();
        let trace = problem.trace(beta);
        let (mut off, mut all) = (0.0, 0.0);
        for (delta, gradients) in trace.delta_s.iter().zip(&trace.gradients.states) {
            for n in 0..s.len() {
                // What is sent, e, is −β ∂ℓ/∂z as it is; all neurons have their σ′.
                let gate = match n {
                    0 => s[0].ones_like().unwrap(),
                    _ => model
                        .dynamics
                        .activation
                        .derivative(&h[n].as_ref().unwrap().total().unwrap())
                        .unwrap(),
                };
                let expected = (&gradients[n] * gate).unwrap();
                off += norm(&(&delta[n] + &expected).unwrap()).powi(2);
                all += norm(&expected).powi(2);
            }
        }
        (off / all).sqrt()
    });
    assert!((order(errors) - 1.0).abs() < 0.1 && errors[1] < 0.05, "{errors:?}");
}

#[test]
fn the_whole_update_of_every_rule_is_the_gradient_up_to_beta_and_centred_up_to_its_square() {
    for order_of_layers in [Order::Synchronous, Order::Alternating] {
        for rule in RULES {
            let mut problem = Problem::new(&[5, 7, 6, 4], Time::Discrete, rule, 5);
            problem.model.settle.order = order_of_layers;
            problem.learning.K = 60;
            problem.model.settle.steps = 400;
            // So small that weights do not change the states of a phase by as much as β² does.
            let eta = 1e-8;
            problem.learning.learning_rates.fill(eta);
            let mut bias = |nudging: Nudging, beta: f64| {
                problem.learning.nudging = nudging;
                let trace = problem.trace(beta);
                let change = scaled(&trace.theta.plus(&problem.theta, |_| -1.0).unwrap(), 1.0 / eta);
                let gradient = trace.gradients.total().unwrap();
                distance(&change, &scaled(&gradient, -1.0)) / size(&gradient)
            };
            for (nudging, expected) in [(Nudging::Positive, 1.0), (Nudging::Centered, 2.0)] {
                let errors = [0.08, 0.04].map(|beta| bias(nudging, beta));
                let p = order(errors);
                let what = format!("{rule:?} {nudging:?} {order_of_layers:?}: order {p:.3}, {errors:?}");
                assert!((p - expected).abs() < 0.15 && errors[1] < 0.05, "{what}");
            }
        }
    }
}

#[test]
fn with_one_hidden_layer_it_is_the_backpropagation_of_a_feedforward_network() {
    let mut problem = Problem::new(&[5, 7, 4], Time::Discrete, Rule::EP, 4);
    let s = problem.settled();
    // Nothing comes back, so that the layer settles in a step.
    problem.model.settle.steps = 1;
    assert_eq!(norm(&(&problem.settled()[1] - &s[1]).unwrap()), 0.0);
    problem.model.settle.steps = 8;
    // The textbook: δ = y − ŷ at the output, σ′(h)⊙W_outᵀδ at the hidden layer.
    let (y_hat, _) = problem.read(&problem.theta, &s);
    let delta_0 = (&problem.y - y_hat).unwrap();
    let h = problem.model.dynamics.drive(&problem.theta, &problem.x).unwrap()[1].clone().unwrap();
    let slope = problem.model.dynamics.activation.derivative(&h).unwrap();
    let delta_1 = (delta_0.matmul(&problem.theta.weights[0]).unwrap() * slope).unwrap();
    let outer = |a: &Tensor, b: &Tensor| (a.t().unwrap().matmul(b).unwrap() / 3.0).unwrap();
    let expected = [outer(&delta_0, &s[1]), outer(&delta_1, &problem.x)];
    for rule in RULES {
        problem.learning = Learning { rule, ..problem.learning.clone() };
        let network = Network::layered([5, 7, 4], rule.tied.unwrap_or(true));
        let theta = Parameters::init(network, Init::FanIn, 0.0, 4, DType::F64, &Device::Cpu).unwrap();
        let trace = Problem { theta, ..problem_of(&problem) }.trace(1e-5);
        for (weight, expected) in expected.iter().enumerate() {
            let total = trace.delta_theta.iter().map(|update| update.weights[weight].clone());
            let total = total.reduce(|a, b| (a + b).unwrap()).unwrap();
            let off = norm(&(total - expected).unwrap()) / norm(expected);
            assert!(off < 1e-4, "{rule:?} weight {weight}: {off:.1e}");
        }
    }
}

fn problem_of(problem: &Problem) -> Problem {
    let Problem { model, learning, theta, x, y } = problem;
    Problem {
        model: model.clone(),
        learning: learning.clone(),
        theta: theta.clone(),
        x: x.clone(),
        y: y.clone(),
    }
}

#[test]
fn the_readout_learns_when_the_target_comes_and_then_as_its_error_changes() {
    let problem = Problem::new(&[5, 7, 6, 4], Time::Discrete, Rule::CVF, 6);
    let s = problem.settled();
    let (y_hat, _) = problem.read(&problem.theta, &s);
    let error = (&problem.y - y_hat).unwrap();
    let expected = (error.t().unwrap().matmul(&s[1]).unwrap() / 3.0).unwrap();
    let steps = |problem: &Problem, beta| -> Vec<Tensor> {
        problem.trace(beta).delta_theta.iter().map(|update| update.weights[0].clone()).collect()
    };
    // The vector field: at the first step (y − ŷ)·sᵀ at the free state, whatever β; then only what β has made of it.
    for beta in [0.5, -0.1] {
        assert!(norm(&(&steps(&problem, beta)[0] - &expected).unwrap()) < 1e-14, "{beta}");
    }
    let later = |beta| steps(&problem, beta)[1..].iter().map(norm).sum::<f64>();
    assert!((order([later(0.02), later(0.01)]) - 1.0).abs() < 0.1);
    // Correlation telescopes: the updates of all steps are (y − ŷ)·sᵀ where the phase ends, as EP has it.
    let problem = Problem::new(&[5, 7, 6, 4], Time::Discrete, Rule::CEP, 6);
    let trace = problem.trace(0.5);
    let s_end = trace.states.last().unwrap();
    let sent = (&s_end[0] / 0.5).unwrap();
    let at_end = (sent.t().unwrap().matmul(&s_end[1]).unwrap() / 3.0).unwrap();
    let total = steps(&problem, 0.5).into_iter().reduce(|a, b| (a + b).unwrap()).unwrap();
    assert!(norm(&(total - &at_end).unwrap()) < 1e-14);
    // What was sent in the last step is the error of the state before it.
    let (y_hat, _) = problem.read(&problem.theta, &trace.states[trace.states.len() - 2]);
    assert!(norm(&(sent - (&problem.y - y_hat).unwrap()).unwrap()) < 1e-13);
}

#[test]
fn untied_the_error_goes_back_through_a_weight_of_its_own_that_hardly_learns() {
    let mut problem = Problem::new(&[5, 7, 6, 4], Time::Discrete, Rule::CVF, 7);
    let (y_hat, _) = problem.read(&problem.theta, &problem.settled());
    let back = 2; // forward.0, forward.1, forward.2, feedback.0, …
    let names: Vec<String> = problem.theta.named().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[6 + back - 2], "feedback.0.weight");
    let feedback = (problem.theta.weights[3].clone() * -2.0).unwrap();
    problem.theta.weights[3] = feedback.clone();
    let (beta, s) = (1e-6, problem.settled());
    let drive = problem.model.dynamics.drive(&problem.theta, &problem.x).unwrap();
    let h = problem.model.dynamics.pre_activations(&problem.theta, &drive, &s, Layers::All).unwrap();
    let slope =
        problem.model.dynamics.activation.derivative(&h[1].as_ref().unwrap().total().unwrap()).unwrap();
    let expected = ((&problem.y - y_hat).unwrap().matmul(&feedback.t().unwrap()).unwrap() * slope).unwrap();
    let moved = problem.trace(beta).delta_s[0][1].clone();
    assert!(norm(&(moved - &expected).unwrap()) < 1e-5 * norm(&expected));
    let learnt = |beta| {
        norm(
            &problem
                .trace(beta)
                .delta_theta
                .iter()
                .fold(None, |sum: Option<Tensor>, update| {
                    let own = update.weights[3].clone();
                    Some(sum.map_or(own.clone(), |sum| (sum + own).unwrap()))
                })
                .unwrap(),
        )
    };
    assert!((order([learnt(0.02), learnt(0.01)]) - 1.0).abs() < 0.1);
}

#[test]
fn nothing_but_beta_k_and_eta_stands_between_ep_with_a_readout_and_the_gradient() {
    let batch = common::striped_batch(3);
    for rule in RULES {
        let config = Config::preset(rule, [30, 12, 8, 4]).unwrap();
        let mut config = config.with("network.readout", "softmax").unwrap();
        config.learning.sigma_prime = SigmaPrime::Ignored;
        let theta = config.parameters(&Device::Cpu).unwrap();
        let (model, learning) = (config.model(), &config.learning);
        let applies = |cause: Cause| cause.applies(&model, learning, &theta);
        assert!(!applies(Cause::SigmaPrime), "{rule:?}");
        let case = Case::new(&model, &theta, &batch).unwrap();
        let off = [
            Cause::Rounding,
            Cause::Unsettled,
            Cause::Continual,
            Cause::Beta,
            Cause::Truncated,
            Cause::Untied,
        ];
        let off: Vec<Cause> = off.into_iter().filter(|&cause| applies(cause)).collect();
        let update = case.update(learning, learning.beta, &off).unwrap();
        let angle = eqprop::learning::angle::Comparison::new(&update, &case.gradient).unwrap().total_degrees;
        assert!(angle < 0.01, "{rule:?}: {angle}°");
    }
}

#[test]
fn what_cannot_have_a_readout_is_refused_with_the_reason() {
    let with = |rule: Rule, more: &[(&str, &str)]| {
        let config = Config::preset(rule, [30, 12, 4]).unwrap();
        let more = more.iter().map(|(key, value)| (*key, toml::Value::from(*value)));
        config.with_all([("network.readout", "softmax".into())].into_iter().chain(more))
    };
    for rule in [Rule::ASYM_EP, Rule::DYADIC_EP] {
        let refused = format!("{:#}", with(rule, &[]).unwrap_err());
        assert!(refused.contains("network.readout") && refused.contains("outside σ"), "{refused}");
    }
    let fused = format!("{:#}", with(Rule::EP, &[("training.engine", "fused")]).unwrap_err());
    assert!(fused.contains("no softmax readout") && fused.contains("auto"), "{fused}");
    for rule in [Rule::BPTT, Rule::RBP].into_iter().chain(RULES) {
        let config = with(rule, &[]).unwrap();
        let (network, job) = (config.network(), config.job(&Device::Cpu));
        assert_eq!(EngineKind::Auto.chosen(&network, &job, DType::F32), Ok(EngineKind::Plain), "{rule:?}");
    }
}

#[test]
fn every_rule_learns_with_it() {
    let batch = common::striped_batch(1);
    let batch = Batch { labels: batch.labels, images: batch.images };
    for rule in [Rule::BPTT, Rule::RBP].into_iter().chain(RULES) {
        let config = Config::preset(rule, [30, 24, 4]).unwrap();
        let mut config = config.with("network.readout", "softmax").unwrap();
        // Continual updates learn from the drift of their own weights where η/β is too large.
        config.learning.learning_rates = if rule.is_continual() { vec![0.02; 2] } else { vec![0.5; 2] };
        config.learning.beta = 0.5;
        let mut engine = engine::build(
            EngineKind::Auto,
            config.job(&Device::Cpu),
            config.parameters(&Device::Cpu).unwrap(),
        )
        .unwrap();
        let before = engine.evaluate(&batch).unwrap();
        // Before it has learnt anything each of the four classes is about as likely.
        assert!((before.mean_loss() - 4f64.ln()).abs() < 0.3, "{rule:?}: {}", before.mean_loss());
        for minibatch in 0..600 {
            engine.train(&batch, config.beta(minibatch)).unwrap();
        }
        let after = engine.evaluate(&batch).unwrap();
        assert!(after.mean_loss() < 0.7 * before.mean_loss(), "{rule:?}: {}", after.mean_loss());
    }
}

#[test]
fn a_run_with_a_readout_goes_on_in_the_same_bits_and_can_be_looked_at() {
    const READOUT: [&str; 4] = ["--set", "network.readout=softmax", "--set", "training.keep_checkpoints=0"];
    for rule in ["cep", "cvf"] {
        let place = Place::new();
        let more = [&READOUT[..], &["--epochs", "2", "--name", "r-data"]].concat();
        let done = place.eqprop().args(place.small_run(rule, &more)).assert().success();
        let said = String::from_utf8_lossy(&done.get_output().stderr).to_string();
        assert!(said.contains("plain engine computes, since the fused one has no softmax readout"), "{said}");
        let last = place.path("checkpoints/r-data/last.safetensors");
        let (expected, expected_metrics) =
            (fs::read(&last).unwrap(), metrics(&place.path("runs/r-data/metrics.jsonl")));
        let mut halfway = place.eqprop();
        halfway.args(["train", "--threads", "1", "--data-dir", "data", "--resume"]);
        halfway.arg("checkpoints/r-data/step-00000015.safetensors").assert().success();
        assert_eq!(fs::read(&last).unwrap(), expected, "{rule}");
        assert_eq!(metrics(&place.path("runs/r-data/metrics.jsonl")), expected_metrics, "{rule}");
        let config =
            ["angle", "--config", "runs/r-data/config.toml", "--init", "r-data", "--data-dir", "data"];
        let angle = [&config[..], &["--batches", "2"]].concat();
        for command in [
            &["eval", "r-data", "--data-dir", "data"][..],
            &["inspect", "r-data", "--data-dir", "data"],
            &angle,
            &[&angle[..], &["--explain"]].concat(),
        ] {
            place.eqprop().args(command).assert().success();
        }
    }
}
