//! Numeric cases computed in float64 by an independent program: first phase, every step of the
//! second, every update, and the final weights must agree.
//!
//! `EQPROP_GOLDEN` names the folder that holds them; `tests/golden` is the default.

use candle_core::{DType, Device, Result, Tensor};
use eqprop::data::Batch;
use eqprop::engine::{self, EngineKind, Job};
use eqprop::learning::angle::Trace;
use eqprop::learning::{Learning, Lesson, Memory, Rule, SigmaPrime, Step};
use eqprop::model::dynamics::Time;
use eqprop::model::{Dims, Model, Network, Parameters, Settle};
use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;

const CASES: [&str; 7] =
    ["ep-1h", "cep-1h", "cvf-2h", "cvf-1h-partial", "cvf-2h-full", "rt-cep-1h", "rt-cvf-1h"];

struct Case {
    tensors: HashMap<String, Tensor>,
    network: Network,
    model: Model,
    learning: Learning,
    beta: f64,
    batch: Batch,
    settings: serde_json::Value,
}

impl Case {
    fn load(name: &str) -> Case {
        let folder = std::env::var_os("EQPROP_GOLDEN")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let case = &header.metadata().as_ref().unwrap()["case"];
        let case: serde_json::Value = serde_json::from_str(case).unwrap();
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let numbers = |key: &str| -> Option<Vec<f64>> {
            Some(case[key].as_array()?.iter().map(|v| v.as_f64().unwrap()).collect())
        };
        let mut dims: Vec<usize> =
            numbers("dims_output_first").unwrap().iter().map(|&d| d as usize).collect();
        dims.reverse();
        let tied = case["tied"].as_bool().unwrap();
        let rule = match (tied, case["continual"].as_bool().unwrap()) {
            (true, false) => Rule::EP,
            (true, true) => Rule::CEP,
            (false, false) => Rule::VF,
            (false, true) => Rule::CVF,
        };
        let activation = serde_json::from_value(case["activation"].clone()).unwrap();
        let steps = case["T"].as_u64().unwrap() as usize;
        let mut model = Model::discrete(activation, Settle::synchronous(steps, 0.0));
        if case["time"] == "real" {
            (model.dynamics.time, model.dynamics.epsilon) = (Time::Real, case["epsilon"].as_f64().unwrap());
        }
        let mut rates = numbers("learning_rates_output_first").unwrap_or_else(|| vec![0.05; dims.len() - 1]);
        rates.reverse();
        let beta = case["beta"].as_f64().unwrap();
        Case {
            network: Network::layered(Dims(dims), tied),
            model,
            learning: Learning {
                sigma_prime: serde_json::from_value(case["gate"].clone()).unwrap_or(SigmaPrime::Ignored),
                authors_code: case["authors_code"].as_bool().unwrap_or(false),
                ..Learning::new(rule, case["K"].as_u64().unwrap() as usize, beta, rates)
            },
            beta,
            batch: Batch {
                images: tensors["input.bytes"].flatten_all().unwrap().to_vec1().unwrap(),
                labels: tensors["input.labels"].to_vec1().unwrap(),
            },
            settings: case.clone(),
            tensors,
        }
    }

    fn theta(&self, prefix: &str, dtype: DType) -> Parameters {
        let tensors = (self.tensors.iter())
            .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t.clone())))
            .collect();
        Parameters::from_named(&tensors, self.network.clone(), dtype, &Device::Cpu).unwrap()
    }

    /// Compares with the expected tensor: the largest difference, relative to the largest number in it (or, in
    /// float32, for a step of the second phase, in any of its steps: late updates are too small for that type).
    /// Rounding of this tensor is allowed beside `tolerance`.
    fn assert_close(&self, name: &str, got: &Tensor, tolerance: f64, rounding: f64) {
        let expected = &self.tensors[name];
        assert_eq!(expected.dims(), got.dims(), "{name}");
        let difference = largest(&(expected - got.to_dtype(DType::F64).unwrap()).unwrap());
        let suffix = name.strip_prefix("second.").and_then(|name| Some(name.split_once('.')?.1));
        let scale = match suffix.filter(|_| got.dtype() == DType::F32) {
            None => largest(expected),
            Some(suffix) => (0..self.learning.K)
                .map(|t| largest(&self.tensors[&format!("second.{t}.{suffix}")]))
                .fold(0.0, f64::max),
        };
        // States near 1 are rounded, and updates are their differences divided by β.
        let allowed = tolerance * scale + rounding + 4.0 * epsilon(got.dtype()) / self.beta;
        // A test that allows more would say little.
        let most = 2e-2 * scale + 4.0 * epsilon(got.dtype()) / self.beta;
        assert!(rounding <= most, "{} {name}: {rounding:.2e} of {scale:.2e}", self.settings["name"]);
        assert!(
            difference <= allowed,
            "{} {name}: off by {difference:.2e} of {scale:.2e}, where {allowed:.2e} is allowed, {rounding:.2e} for rounding",
            self.settings["name"]
        );
    }

    /// Both phases in the plain engine from these weights: every state and update by its name in the case, and the
    /// final weights of a continual second phase.
    fn replay(&self, theta: &Parameters, dtype: DType) -> Result<Vec<(String, Tensor)>> {
        let x = self.batch.x(dtype, &Device::Cpu)?;
        let target = &self.batch.y(self.network.dims.output(), dtype, &Device::Cpu)?;
        let settled = &self.model.settle(theta, &x)?;
        let mut found: Vec<(String, Tensor)> = settled
            .state()
            .iter()
            .enumerate()
            .map(|(n, s)| (format!("first.state.{n}"), s.clone()))
            .collect();
        let nudge = self.model.nudge(target, self.beta);
        let mut steps = 0;
        let lesson = Lesson::new(&self.model, &self.learning, theta, &x, nudge, settled);
        let theta = lesson.learn(&mut Memory::new(&self.model, theta)?, &mut |step| {
            let (t, s, s_next) = (step.t, step.s, step.s_next);
            assert_eq!(t, steps);
            steps += 1;
            for (name, update) in lesson.update(step)?.named() {
                found.push((format!("second.{t}.update.{name}"), update.clone()));
            }
            for n in 0..s.len() {
                let delta_s = ((&s_next[n] - &s[n])? / self.beta)?;
                found.push((format!("second.{t}.update.state.{n}"), delta_s));
                found.push((format!("second.{t}.state.{n}"), s_next[n].clone()));
            }
            Ok(())
        })?;
        assert_eq!(steps, self.learning.K);
        if self.learning.rule.is_continual() {
            found.extend(theta.named().into_iter().map(|(name, w)| (format!("final.{name}"), w.clone())));
        }
        Ok(found)
    }

    /// The effect that rounding in float32 can have on each tensor of [`Case::replay`], on any CPU: three times its
    /// deviation in any of eight computations in float64 whose numbers are off as those of float32 may be, each in
    /// its own way.
    ///
    /// With u = 2⁻²⁴: however a product of n terms is summed, its result in float32 is the exact one of weights that
    /// are off by some √n·u, relatively (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis,
    /// 2019; at the very worst it would be nu), of which half is usual, since partial sums are smaller than the
    /// whole. So the weights of the first phase, and those of every step of the second, are off by √n·u/2, and the
    /// states and weights that they leave by u, each up or down at random.
    fn rounding(&self) -> Result<HashMap<String, f64>> {
        let exact = self.rounded(0.0, 0)?;
        let mut worst: HashMap<String, f64> = HashMap::new();
        for seed in 1..=8 {
            for (name, got) in self.rounded(epsilon(DType::F32) / 2.0, seed)? {
                let deviation = largest(&(got - &exact[&name])?);
                let known = worst.entry(name).or_default();
                *known = known.max(3.0 * deviation);
            }
        }
        Ok(worst)
    }

    /// The tensors of [`Case::replay`] in float64, by the same steps, with every number off by rounding of the unit
    /// `u`.
    fn rounded(&self, u: f64, seed: u64) -> Result<HashMap<String, Tensor>> {
        let dice = Cell::new(seed);
        let off = |w: &Tensor, by: f64| -> Result<Tensor> {
            let factor = |_| {
                dice.set(
                    dice.get()
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407),
                );
                if dice.get() >> 63 == 0 { 1.0 + by } else { 1.0 - by }
            };
            w * Tensor::from_vec(
                (0..w.elem_count()).map(factor).collect::<Vec<f64>>(),
                w.dims(),
                &Device::Cpu,
            )?
        };
        // A bias is one term.
        let terms = |w: &Tensor| if w.rank() == 1 { 1.0 } else { w.dims()[1] as f64 };
        let multiplied = |theta: &Parameters| theta.map(|w| off(w, 0.5 * terms(w).sqrt() * u));
        let left = |states: &[Tensor]| states.iter().map(|s| off(s, u)).collect::<Result<Vec<_>>>();

        let Model { dynamics, settle, .. } = &self.model;
        let mut theta = self.theta("", DType::F64).map(|w| off(w, u))?;
        let x = self.batch.x(DType::F64, &Device::Cpu)?;
        let target = &self.batch.y(self.network.dims.output(), DType::F64, &Device::Cpu)?;
        let nudge = self.model.nudge(target, self.beta);
        let settled = self.model.settle(&multiplied(&theta)?, &x)?;
        let mut s = left(settled.state())?;
        let mut found = HashMap::new();
        found.extend(s.iter().enumerate().map(|(n, s)| (format!("first.state.{n}"), s.clone())));
        for t in 0..self.learning.K {
            let by = multiplied(&theta)?;
            let drive = dynamics.drive(&by, &x)?;
            let h = dynamics.pre_activations(&by, &drive, &s, settle.order.layers(t))?;
            let s_next = left(&self.model.advance(&by, &h, &s, Some(nudge))?)?;
            let step = Step { t, s: &s, h: &h, s_next: &s_next, beta: nudge.beta };
            let lesson = Lesson::new(&self.model, &self.learning, &theta, &x, nudge, &settled);
            let update = lesson.update(&step)?;
            for (name, update) in update.named() {
                found.insert(format!("second.{t}.update.{name}"), update.clone());
            }
            for n in 0..s.len() {
                let delta_s = ((&s_next[n] - &s[n])? / self.beta)?;
                found.insert(format!("second.{t}.update.state.{n}"), delta_s);
                found.insert(format!("second.{t}.state.{n}"), s_next[n].clone());
            }
            if self.learning.rule.is_continual() {
                theta = lesson
                    .applied(&theta, &update, &mut Memory::new(&self.model, &theta)?)?
                    .map(|w| off(w, u))?;
            }
            s = s_next;
        }
        if self.learning.rule.is_continual() {
            found.extend(theta.named().into_iter().map(|(name, w)| (format!("final.{name}"), w.clone())));
        }
        Ok(found)
    }
}

/// The largest absolute value.
fn largest(t: &Tensor) -> f64 {
    t.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The relative rounding error of a type.
fn epsilon(dtype: DType) -> f64 {
    if dtype == DType::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON }
}

fn check_plain(name: &str, dtype: DType, tolerance: f64) -> Result<()> {
    let case = Case::load(name);
    let rounding = if dtype == DType::F32 { case.rounding()? } else { HashMap::new() };
    for (name, got) in case.replay(&case.theta("", dtype), dtype)? {
        let rounding = if dtype == DType::F32 { rounding[&name] } else { 0.0 };
        case.assert_close(&name, &got, tolerance, rounding);
    }
    Ok(())
}

/// Final weights and the first phase's report of an engine, beside the plain engine's in float64.
fn check_engine(name: &str, rule: Option<Rule>, damping: f64, dtype: DType, tolerance: f64) {
    let mut case = Case::load(name);
    case.model.settle.damping = damping;
    case.learning.rule = rule.unwrap_or(case.learning.rule);
    case.learning.authors_code &= case.learning.rule == Rule::CVF;
    case.network = Network::layered(case.network.dims, case.learning.rule.tied.unwrap());
    let run = |kind, dtype| {
        let theta = case.theta("", dtype);
        let job = Job { model: case.model.clone(), learning: case.learning.clone(), device: Device::Cpu };
        let mut engine = engine::build(kind, job, theta).unwrap();
        let report = engine.train(&case.batch, case.beta).unwrap();
        (report, engine.parameters().unwrap())
    };
    let (expected, plain) = run(EngineKind::Plain, DType::F64);
    let (report, fused) = run(EngineKind::Fused, dtype);
    assert_eq!((report.images, report.errors), (expected.images, expected.errors));
    assert!((report.loss / expected.loss - 1.0).abs() < tolerance);
    let start = case.theta("", DType::F64);
    let moved = |theta: &Parameters| -> Vec<(String, Tensor)> {
        (theta.named().into_iter().zip(start.named()))
            .map(|((name, w), (_, w_0))| (name, (w.to_dtype(DType::F64).unwrap() - w_0).unwrap()))
            .collect()
    };
    let norm = |t: &Tensor| -> f64 { t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt() };
    for (i, ((name, got), (_, expected))) in moved(&fused).iter().zip(moved(&plain)).enumerate() {
        // The weights themselves are rounded at every step, too.
        let rounding = 2.0 * epsilon(dtype) * norm(start.named()[i].1);
        let off = norm(&(got - &expected).unwrap());
        let change = norm(&expected);
        assert!(off < tolerance * change + rounding, "{name}: {change:.2e} off by {off:.2e}");
    }
}

/// BPTT, and how the updates compare with it: angles, signs and loss.
#[test]
fn reference_gradients_and_angles() -> Result<()> {
    for name in CASES {
        let case = Case::load(name);
        let theta = case.theta("", DType::F64);
        let x = case.batch.x(DType::F64, &Device::Cpu)?;
        let target = &case.batch.y(case.network.dims.output(), DType::F64, &Device::Cpu)?;
        let nudge = case.model.nudge(target, case.beta);
        let trace = Trace::record(&case.model, &case.learning, &theta, &x, nudge)?;
        for t in 0..case.learning.K {
            for (name, gradient) in trace.gradients.parameters[t].named() {
                case.assert_close(&format!("bptt.{t}.{name}"), gradient, 1e-9, 0.0);
            }
            for (n, gradient) in trace.gradients.states[t].iter().enumerate() {
                case.assert_close(&format!("bptt.{t}.state.{n}"), gradient, 1e-9, 0.0);
            }
        }
        let comparison = trace.compare()?;
        let close = |got: f64, expected: &serde_json::Value| {
            let expected = expected.as_f64().unwrap();
            assert!((got / expected - 1.0).abs() < 1e-9, "{name}: {got}, not {expected}");
        };
        close(trace.loss, &case.settings["loss"]);
        close(comparison.total_degrees, &case.settings["angle_total_degrees"]);
        close(comparison.sign_match, &case.settings["sign_match_total"]);
        for (matrix, angle) in &comparison.per_matrix_degrees {
            close(*angle, &case.settings["angle_per_matrix_degrees"][matrix]);
        }
        for (n, psi) in theta.psi_degrees()?.into_iter().enumerate() {
            close(psi, &case.settings["psi_per_pair_degrees"][n]);
        }
    }
    Ok(())
}

#[test]
fn plain_engine_in_float64() -> Result<()> {
    for name in CASES {
        check_plain(name, DType::F64, 1e-9)?;
    }
    Ok(())
}

#[test]
fn plain_engine_in_float32() -> Result<()> {
    for name in CASES {
        check_plain(name, DType::F32, 1e-4)?;
    }
    Ok(())
}

#[test]
fn fused_engine_equals_the_plain_one() {
    for (name, rule) in [
        ("ep-1h", None),
        ("cep-1h", None),
        ("cvf-2h", None),
        ("cvf-1h-partial", None),
        ("cvf-2h-full", None),
        ("cvf-2h", Some(Rule::VF)),
        ("cvf-1h-partial", Some(Rule::VF)),
        ("cvf-2h-full", Some(Rule::VF)),
        ("cvf-2h", Some(Rule::CEP)),
        ("cvf-2h", Some(Rule::EP)),
    ] {
        for damping in [0.0, 0.5, 0.8] {
            check_engine(name, rule, damping, DType::F64, 1e-9);
            check_engine(name, rule, damping, DType::F32, 1e-4);
        }
    }
}
