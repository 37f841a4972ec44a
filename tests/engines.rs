//! The fused engine in float32, on every instruction set that this CPU has, against the plain engine in float64: at
//! the widths it runs at, at widths that leave panels and tiles half full, for every rule, σ′ and damping.
//!
//! The oracle is the plain engine, which `tests/golden.rs` holds to an independent program.

mod common;

use candle_core::{DType, Device};
use common::norm;
use eqprop::data::Batch;
use eqprop::engine::cpu::{Fused, Isa, Simd};
use eqprop::engine::plain::Plain;
use eqprop::engine::replicas::Hub;
use eqprop::engine::{Engine, Job, Report};
use eqprop::learning::{Learning, Nudging, Rule, SigmaPrime};
use eqprop::model::network::Init;
use eqprop::model::{Activation, Dims, Model, Network, Order, Parameters, Settle, Solver};
use rayon::prelude::*;

const PIXELS: usize = 90;
const CLASSES: usize = 10;
const BETA: f64 = 0.5;
/// Minibatches that one engine learns, one after the other, with β of either sign.
const BATCHES: [(usize, f64); 2] = [(20, BETA), (7, -BETA)];
/// Hidden layers, input side first.
const HIDDEN: [&[usize]; 6] = [&[512], &[500], &[130], &[37], &[512, 500], &[130, 37]];
/// The largest deviation of a change from the plain engine's, relative to its size.
const TOLERANCE: f64 = 1e-4;

#[derive(Clone, Debug)]
struct Case {
    hidden: &'static [usize],
    rule: Rule,
    sigma_prime: SigmaPrime,
    activation: Activation,
    settle: Settle,
    nudging: Nudging,
}

/// All cases; σ alternates.
fn cases() -> Vec<Case> {
    let gates = [SigmaPrime::Ignored, SigmaPrime::Partial, SigmaPrime::Full];
    let mut cases = Vec::new();
    for hidden in HIDDEN {
        for rule in [Rule::EP, Rule::CEP, Rule::CEP_RESCALED, Rule::VF, Rule::CVF] {
            for &sigma_prime in if rule.tied == Some(true) { &gates[..1] } else { &gates[..] } {
                for damping in [0.0, 0.5] {
                    let activation =
                        if cases.len() % 3 == 2 { Activation::Tanh } else { Activation::Sigmoid };
                    let settle = Settle { damping, ..Settle::synchronous(12, 0.0) };
                    let case =
                        Case { hidden, rule, sigma_prime, activation, settle, nudging: Nudging::Positive };
                    cases.push(case.clone());
                    if damping == 0.0 {
                        let settle = Settle { order: Order::Alternating, ..settle };
                        cases.push(Case { settle, ..case.clone() });
                        // Settled well enough that the effect of rounding on acceleration has gone.
                        let settle = Settle { solver: Solver::Anderson, steps: 60, ..settle };
                        cases.push(Case { settle, nudging: Nudging::Centered, ..case });
                    }
                }
            }
        }
    }
    cases
}

impl Case {
    fn job(&self) -> Job {
        // With tanh and C-VF the weights of a wide network run away at the larger rates, and rounding with them.
        let scale = if self.activation == Activation::Tanh { 0.3 } else { 1.0 };
        let rates = [0.05, 0.02, 0.01][..=self.hidden.len()].iter().rev().map(|eta| eta * scale);
        let learning = Learning {
            sigma_prime: self.sigma_prime,
            nudging: self.nudging,
            ..Learning::new(self.rule, 6, BETA, rates.collect::<Vec<_>>())
        };
        Job { model: Model::discrete(self.activation, self.settle), learning, device: Device::Cpu }
    }

    /// θ before training: numbers that float32 has, so that both engines start with the same.
    fn theta(&self, dtype: DType) -> Parameters {
        let dims = Dims([&[PIXELS], self.hidden, &[CLASSES]].concat());
        let network = Network::layered(dims, self.rule.tied.unwrap());
        let theta =
            Parameters::init(network.clone(), Init::FanIn, 45.0, 7, DType::F32, &Device::Cpu).unwrap();
        let named = theta.named().into_iter().map(|(name, tensor)| (name, tensor.clone())).collect();
        Parameters::from_named(&named, network, dtype, &Device::Cpu).unwrap()
    }

    /// The report of an engine on each minibatch, and its weights after it.
    fn train(&self, engine: &mut dyn Engine) -> Vec<(Report, Parameters)> {
        BATCHES
            .iter()
            .map(|&(images, beta)| {
                let report = engine.train(&batch(images), beta).unwrap();
                (report, engine.parameters().unwrap())
            })
            .collect()
    }

    /// The failures of the fused engine on one instruction set.
    fn failures(
        &self,
        isa: Isa,
        expected: &[(Report, Parameters)],
        got: &[(Report, Parameters)],
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut before = self.theta(DType::F64);
        for (i, ((expected, theta), (report, fused))) in expected.iter().zip(got).enumerate() {
            let place = format!("{isa:?}, minibatch of {}, {self:?}", BATCHES[i].0);
            let same = (expected.images, expected.errors, expected.steps)
                == (report.images, report.errors, report.steps);
            if !same || (report.loss / expected.loss - 1.0).abs() > TOLERANCE {
                wrong.push(format!("{place}: reports {report:?}, not {expected:?}"));
            }
            let tensors = theta.named().into_iter().zip(fused.named()).zip(before.named());
            for (((name, theta), (_, fused)), (_, before)) in tensors {
                let change = norm(&(theta - before).unwrap());
                let off = norm(&(fused.to_dtype(DType::F64).unwrap() - theta).unwrap());
                // Weights are rounded at every step.
                let rounding = 2.0 * f64::from(f32::EPSILON) * norm(theta);
                if off.is_nan() || off > TOLERANCE * change + rounding {
                    wrong.push(format!("{place}: {name} off by {off:.1e}, a change of {change:.1e}"));
                }
            }
            before = theta.clone();
        }
        wrong
    }
}

/// Images in which some pixels are black in all of them.
fn batch(images: usize) -> Batch {
    let pixel = |i: usize| match i % PIXELS % 5 {
        4 => 0,
        _ => ((i * 2_654_435_761) >> 9) as u8,
    };
    Batch {
        images: (0..images * PIXELS).map(pixel).collect(),
        labels: (0..images).map(|i| (i * 7 % CLASSES) as u8).collect(),
    }
}

fn bits(trained: &[(Report, Parameters)]) -> Vec<u32> {
    let tensors = trained.iter().flat_map(|(_, theta)| theta.named());
    tensors
        .flat_map(|(_, tensor)| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .map(f32::to_bits)
        .collect()
}

#[test]
fn minibatches_and_rules_that_do_not_fit_are_refused_by_every_engine() {
    let case = cases().into_iter().find(|case| case.rule == Rule::EP).unwrap();
    let engines = |learning: &Learning| -> [Box<dyn Engine>; 3] {
        let (job, theta) = (Job { learning: learning.clone(), ..case.job() }, case.theta(DType::F32));
        [
            Box::new(Fused::<f32>::new(job.clone(), &theta).unwrap()),
            Box::new(Plain::new(job.clone(), theta.clone()).unwrap()),
            Box::new(Hub::new(job).join(theta)),
        ]
    };
    let fits = case.job().learning;
    let small = Batch { images: vec![0; 3 * (PIXELS - 1)], ..batch(3) };
    let foreign = Batch { labels: vec![0, 1, CLASSES as u8], ..batch(3) };
    for mut engine in engines(&fits) {
        let before = engine.parameters().unwrap();
        for (batch, says) in [(&Batch::default(), "no images"), (&small, "pixels"), (&foreign, "class 10")] {
            for error in [engine.train(batch, BETA), engine.evaluate(batch)].map(Result::unwrap_err) {
                assert!(format!("{error:#}").contains(says), "{error:#}");
            }
        }
        let after = engine.parameters().unwrap();
        for ((_, before), (_, after)) in before.named().into_iter().zip(after.named()) {
            assert_eq!(norm(&(before - after).unwrap().to_dtype(DType::F64).unwrap()), 0.0);
        }
        engine.train(&batch(3), BETA).unwrap();
    }
    let gated = Learning { sigma_prime: SigmaPrime::Partial, ..fits.clone() };
    let short = Learning { learning_rates: vec![0.1], ..fits };
    for (learning, says) in [(gated, "learning.sigma_prime"), (short, "has 1 rates")] {
        for mut engine in engines(&learning) {
            let error = engine.train(&batch(3), BETA).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    } // Without this C-VF on tied weights would be some C-EP.
    let untied = Learning { rule: Rule::CVF, ..case.job().learning };
    let (job, theta) = (Job { learning: untied, ..case.job() }, case.theta(DType::F32));
    assert!(Fused::<f32>::new(job.clone(), &theta).is_err());
    let others: [Box<dyn Engine>; 2] =
        [Box::new(Plain::new(job.clone(), theta.clone()).unwrap()), Box::new(Hub::new(job).join(theta))];
    for mut engine in others {
        let error = engine.train(&batch(3), BETA).unwrap_err();
        assert!(format!("{error:#}").contains("feedback weights of their own"), "{error:#}");
    }
}

#[test]
fn every_instruction_set_learns_what_the_plain_engine_learns() {
    let sets: Vec<(Isa, Simd)> = [Isa::Portable, Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter_map(|isa| Simd::new(isa).map(|simd| (isa, simd)))
        .collect();
    let failures: Vec<String> = (cases().par_iter())
        .flat_map_iter(|case| {
            let mut plain = Plain::new(case.job(), case.theta(DType::F64)).unwrap();
            let expected = case.train(&mut plain);
            let mut failures = Vec::new();
            // Instruction sets with fused multiply-adds give the same bits.
            let mut fused_bits: Option<Vec<u32>> = None;
            for &(isa, simd) in &sets {
                let theta = case.theta(DType::F32);
                let mut fused = Fused::<f32>::with(simd, case.job(), &theta).unwrap();
                let got = case.train(&mut fused);
                failures.extend(case.failures(isa, &expected, &got));
                if isa > Isa::Portable {
                    let bits = bits(&got);
                    if fused_bits.as_ref().is_some_and(|others| *others != bits) {
                        failures.push(format!("{isa:?}, {case:?}: not the bits of AVX2"));
                    }
                    fused_bits = Some(bits);
                }
            }
            failures
        })
        .collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
