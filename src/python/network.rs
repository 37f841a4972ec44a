//! A network: its configuration, its weights in an engine, and its answers to images.

use super::arrays::{Given, Images, labels, named, replaced};
use super::hooks::Hooks;
use super::keys::{flags, value_of};
use super::steps::{PyAngle, PyExplanation, PyReport, PySettled, PyStep};
use super::work::work;
use super::{OrRaise, from_json, wrong};
use crate::base::files;
use crate::cli;
use crate::config::{Choices, Config, Resolved};
use crate::engine::{self, Engine, Report, Turn, plain};
use crate::learning::angle::Trace;
use crate::learning::{Lesson, Memory, RULES, Rule};
use crate::model::Parameters;
use crate::run::TEST_BATCH;
use crate::run::checkpoint::{Checkpoint, Progress};
use crate::study::explain::Explanation;
use crate::study::inspect;
use anyhow::{Context, Result};
use candle_core::Device;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rayon::prelude::*;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The number of images that settle together on the plain engine: so few that their states stay in the cache.
const TOGETHER: usize = 50;

/// The state of a network.
pub struct State {
    /// Its configuration.
    pub config: Config,
    engine: Box<dyn Engine>,
    /// Its weights, if they have been read since they last changed.
    theta: Option<Parameters>,
    /// The number of minibatches it has learnt: the next one's number decides the sign of β where that is drawn.
    minibatches: u64,
    /// True where the weights are still those drawn from the seed.
    pub fresh: bool,
}

impl State {
    fn new(config: Config, theta: Parameters, minibatches: u64, fresh: bool) -> Result<Self> {
        let engine = engine::build(config.training.engine, config.job(&Device::Cpu), theta.clone())?;
        Ok(Self { config, engine, theta: Some(theta), minibatches, fresh })
    }

    /// The state of a checkpoint, which `what` names in messages.
    pub fn saved(checkpoint: &Checkpoint, progress: &Progress, what: &str) -> Result<Self> {
        let config = progress.config.clone();
        let (dtype, tensors) = (config.training.dtype.dtype(), &checkpoint.tensors);
        let theta = Parameters::from_named(tensors, config.network(), dtype, &Device::Cpu)
            .with_context(|| format!("{what}: does not fit its own configuration"))?;
        let mut state = Self::new(config, theta, progress.rng.beta_sign, false)?;
        state.engine.recall(tensors)?;
        Ok(state)
    }

    /// Its weights.
    pub fn theta(&mut self) -> Result<Parameters> {
        if self.theta.is_none() {
            self.theta = Some(self.engine.parameters()?);
        }
        self.theta.clone().context("a network without weights")
    }

    /// An engine with its weights and the memory of its synapses, for a run of this configuration.
    pub fn engine(&mut self, config: &Config, device: &Device) -> Result<Box<dyn Engine>> {
        let theta = self.theta()?;
        let tensors = theta.named().into_iter().map(|(name, tensor)| (name, tensor.clone())).collect();
        let dtype = config.training.dtype.dtype();
        let theta = Parameters::from_named(&tensors, config.network(), dtype, device)?;
        let mut engine = engine::build(config.training.engine, config.job(device), theta)?;
        if config.synapse == self.config.synapse {
            engine.recall(&self.engine.memory()?.into_iter().collect())?;
        }
        Ok(engine)
    }

    /// Sets new weights and memory of synapses.
    fn replace(&mut self, theta: Parameters, memory: &Memory) -> Result<()> {
        let job = self.config.job(&Device::Cpu);
        self.engine = engine::build(self.config.training.engine, job, theta.clone())?;
        self.engine.recall(&memory.named().into_iter().collect())?;
        (self.theta, self.fresh) = (Some(theta), false);
        Ok(())
    }

    /// The memory of its synapses.
    fn memory(&mut self) -> Result<Memory> {
        let theta = self.theta()?;
        let mut memory = Memory::new(&self.config.model(), &theta)?;
        memory.recall(&self.engine.memory()?.into_iter().collect(), &theta)?;
        Ok(memory)
    }

    /// Learns a minibatch: on its engine, or with hooks or images of floats on the plain one.
    fn learn(
        &mut self,
        images: &Given,
        labels: &[u8],
        beta: Option<f64>,
        epochs: f64,
        hooks: Hooks,
    ) -> Result<Report> {
        let beta = beta.unwrap_or_else(|| self.config.beta(self.minibatches));
        let report = match images.batch(labels).filter(|_| hooks.are_none()) {
            Some(batch) => {
                let report = self.engine.train_at(&batch, Turn { beta, epochs })?;
                (self.theta, self.fresh) = (None, false);
                report
            }
            None => {
                let (theta, mut memory) = (self.theta()?, self.memory()?);
                let job = self.config.job(&Device::Cpu);
                let (report, changed) =
                    hooks.with((job.model, job.learning), &theta, |model, learning| {
                        let (x, target) = (images.x(&theta)?, one_hot(labels, &theta)?);
                        let settled = model.settle(&theta, &x)?;
                        let report = plain::report(model.loss, &settled, labels)?;
                        let nudge = model.nudge(&target, beta);
                        let lesson = Lesson::new(model, learning, &theta, &x, nudge, &settled).after(epochs);
                        // A Python device keeps its own memory.
                        Ok((report, lesson.learn(&mut memory, &mut |_| Ok(()))?))
                    })?;
                self.replace(changed, &memory)?;
                report
            }
        };
        self.minibatches += 1;
        Ok(report)
    }
}

/// Some images and their classes, for a network of this configuration.
fn minibatch(x: &Bound<PyAny>, y: &Bound<PyAny>, config: &Config) -> PyResult<(Given, Vec<u8>)> {
    let images = Given::read(x, config)?;
    let labels = labels(y, images.count, config.network.dims.output())?;
    Ok((images, labels))
}

/// Checks that a rule has updates of its own.
fn check_comparable(config: &Config) -> PyResult<()> {
    if !config.learning.rule.is_nudged() {
        wrong!("{} has no updates of its own to compare with BPTT", config.learning.rule.title);
    }
    Ok(())
}

/// y of these classes, (B, d_0).
fn one_hot(labels: &[u8], theta: &Parameters) -> candle_core::Result<candle_core::Tensor> {
    crate::Batch { images: Vec::new(), labels: labels.to_vec() }.y_for(theta)
}

/// A network that learns by Equilibrium Propagation.
///
/// Network(dims=None, rule=None, *, config=None, **settings)
///
/// `dims` are layer sizes, input first, for example [784, 512, 10]; `rule` is "ep", "cep", "cep-rescaled", "vf",
/// "cvf", "bptt", "rbp", "asym-ep" or "dyadic-ep", and with the number of hidden layers picks the preset, as `eqprop
/// train --algo` does. `config` is a configuration file or the name of a preset instead. Any key of the configuration
/// is a keyword: `beta=0.1`, `psi=45`, `seed=1`, `learning_decay=1e-4` where two sections have a `decay`. Weights are
/// those of `eqprop train`, bit for bit.
#[pyclass(name = "Network", module = "eqprop", frozen)]
pub struct PyNetwork(Mutex<State>);

impl PyNetwork {
    /// A network in this state.
    pub fn of(state: State) -> Self {
        Self(Mutex::new(state))
    }

    /// Locks the network to change or read it.
    pub fn state(&self) -> PyResult<MutexGuard<'_, State>> {
        match self.0.try_lock() {
            Ok(state) => Ok(state),
            // Work that panicked has changed nothing but scratch space of the engine.
            Err(TryLockError::Poisoned(state)) => Ok(PoisonError::into_inner(state)),
            Err(TryLockError::WouldBlock) => Err(super::Error::new_err(
                "the network is at work: a hook has its weights in step.weights, and another thread takes net.copy()",
            )),
        }
    }
}

#[pymethods]
impl PyNetwork {
    #[new]
    #[pyo3(signature = (dims=None, rule=None, *, config=None, **settings))]
    fn new(
        dims: Option<&Bound<PyAny>>,
        rule: Option<&str>,
        config: Option<PathBuf>,
        settings: Option<&Bound<PyDict>>,
    ) -> PyResult<Self> {
        let names = || RULES.map(|rule| rule.name()).join(", ");
        let algo = match rule {
            None if config.is_none() => {
                wrong!("no rule is named: give rule= ({}) or config=", names())
            }
            None => None,
            Some(name) => match Rule::named(name) {
                None => wrong!("rule = {name:?}: choose {}", names()),
                rule => rule,
            },
        };
        let mut flags = flags(settings)?;
        let mut depth = None;
        if let Some(dims) = dims {
            let sizes = value_of("dims", dims)?;
            depth = algo.and(sizes.as_array()).map(|sizes| sizes.len().saturating_sub(2).max(1));
            flags.push(("dims".into(), "network.dims".into(), sizes));
        }
        let environment = cli::environment().or_raise()?;
        let config =
            Resolved::new(&Choices { config, algo, depth, flags, environment, ..Choices::default() })
                .or_raise()?
                .config;
        // Sizes that are left to the data are not known here.
        config
            .validate()
            .map_err(|problem| super::UsageError::new_err(format!("{}: {}", problem.key, problem.message)))?;
        let theta = config.parameters(&Device::Cpu).or_raise()?;
        Ok(Self::of(State::new(config, theta, 0, true).or_raise()?))
    }

    /// Runs the first (free) phase on the images x, (B, d_in): bytes, or floats from 0 to 1. Returns a `Settled`.
    fn settle(&self, py: Python, x: &Bound<PyAny>) -> PyResult<PySettled> {
        let mut state = self.state()?;
        let theta = state.theta().or_raise()?;
        let (images, model) = (Given::read(x, &state.config)?, state.config.model());
        let done = work(py, None, |interrupt| {
            let x = images.x(&theta)?;
            let starts: Vec<usize> = (0..images.count).step_by(TOGETHER).collect();
            let parts = starts.into_par_iter().map(|first| {
                if interrupt.signal().is_some() {
                    return Ok(None);
                }
                let part = x.narrow(0, first, TOGETHER.min(images.count - first))?;
                model.settle(&theta, &part).map(Some)
            });
            let parts = parts.collect::<candle_core::Result<Option<Vec<_>>>>()?;
            Ok(PySettled::of(parts.unwrap_or_default())?)
        });
        done?.or_raise()
    }

    /// Runs both phases on a minibatch and returns the steps of the second, a list of `Step`; with nudging "centered"
    /// those of both second phases. Weights change during them by the rule, and are restored afterwards.
    #[pyo3(signature = (x, y, *, beta=None))]
    fn second_phase(
        &self,
        py: Python,
        x: &Bound<PyAny>,
        y: &Bound<PyAny>,
        beta: Option<f64>,
    ) -> PyResult<Vec<PyStep>> {
        let mut state = self.state()?;
        let theta = state.theta().or_raise()?;
        let config = &state.config;
        if !config.learning.rule.is_nudged() {
            wrong!("{} follows a gradient, not the steps of a second phase", config.learning.rule.title);
        }
        let (images, labels) = minibatch(x, y, config)?;
        let (model, learning) = (config.model(), &config.learning);
        let beta = beta.unwrap_or(learning.beta);
        let done = work(py, None, |_| {
            let (x, target) = (images.x(&theta)?, one_hot(&labels, &theta)?);
            let settled = model.settle(&theta, &x)?;
            let lesson = Lesson::new(&model, learning, &theta, &x, model.nudge(&target, beta), &settled);
            let mut steps = Vec::new();
            lesson.learn(&mut Memory::new(&model, &theta)?, &mut |step| {
                steps.push(PyStep::of(step, lesson.update(step)?, &theta));
                Ok(())
            })?;
            Ok(steps)
        });
        done?.or_raise()
    }

    /// Learns a minibatch: both phases, and the weights change. Returns the `Report` of the first phase.
    ///
    /// `beta` defaults to that of the configuration, its sign drawn as in a run; `epochs` is the number of epochs
    /// done, where learning rates fall. `rule(step)` is called at every step of the second phase (with EP, which
    /// learns from the whole phase, once). It returns None, for the rule's own update, or a dict with other updates
    /// by name. `synapse(name, weights, wished)` is called at every change, once for each weight and bias, and
    /// returns the new weights where the change η·Δ is wished; float64, whatever the network has. Both run on the
    /// plain engine.
    #[pyo3(signature = (x, y, *, beta=None, epochs=0.0, rule=None, synapse=None))]
    #[allow(clippy::too_many_arguments)] // They are keywords.
    fn learn(
        &self,
        py: Python,
        x: &Bound<PyAny>,
        y: &Bound<PyAny>,
        beta: Option<f64>,
        epochs: f64,
        rule: Option<Py<PyAny>>,
        synapse: Option<Py<PyAny>>,
    ) -> PyResult<PyReport> {
        let mut state = self.state()?;
        let (images, labels) = minibatch(x, y, &state.config)?;
        let hooks = Hooks { rule, synapse };
        if hooks.rule.is_some() && !state.config.learning.rule.is_nudged() {
            wrong!(
                "{} follows a gradient: it has no steps of a second phase, in which rule= would be asked",
                state.config.learning.rule.title
            );
        }
        let state = &mut *state;
        work(py, None, |_| state.learn(&images, &labels, beta, epochs, hooks))?.or_raise().map(PyReport)
    }

    /// The angle Ψ(Δtot, −∇BPTT tot) between the rule's change of the weights in a minibatch and the descent
    /// direction of BPTT, as an `Angle`. `rule` and `synapse` are as in `learn`. The weights of the network do not
    /// change.
    #[pyo3(signature = (x, y, *, beta=None, rule=None, synapse=None))]
    fn angle(
        &self,
        py: Python,
        x: &Bound<PyAny>,
        y: &Bound<PyAny>,
        beta: Option<f64>,
        rule: Option<Py<PyAny>>,
        synapse: Option<Py<PyAny>>,
    ) -> PyResult<PyAngle> {
        let mut state = self.state()?;
        let theta = state.theta().or_raise()?;
        let config = &state.config;
        check_comparable(config)?;
        if config.learning.K > config.settle.steps {
            wrong!(
                "K = {} is more than T = {}: BPTT cannot go back so far",
                config.learning.K,
                config.settle.steps
            );
        }
        let (images, labels) = minibatch(x, y, config)?;
        let beta = beta.unwrap_or(config.learning.beta);
        let (model, learning, hooks) = (config.model(), config.learning.clone(), Hooks { rule, synapse });
        let done = work(py, None, |_| {
            let (x, target) = (images.x(&theta)?, one_hot(&labels, &theta)?);
            hooks.with((model, learning), &theta, |model, learning| {
                let trace = Trace::record(model, learning, &theta, &x, model.nudge(&target, beta))?;
                Ok(trace.compare()?)
            })
        });
        done?.or_raise().map(PyAngle)
    }

    /// The causes of the angle of a minibatch: devices and noise, finite β, finite K, unsettled T, continual η, σ′,
    /// untied weights. The images are bytes. Returns an `Explanation`; weights do not change.
    fn explain(&self, py: Python, x: &Bound<PyAny>, y: &Bound<PyAny>) -> PyResult<PyExplanation> {
        let mut state = self.state()?;
        let theta = state.theta().or_raise()?;
        let config = state.config.clone();
        check_comparable(&config)?;
        let (images, labels) = minibatch(x, y, &config)?;
        let Some(batch) = images.batch(&labels) else {
            wrong!("x holds floats, and angles are taken apart on images of bytes (uint8)")
        };
        let done = work(py, None, |_| Explanation::of_batches(&config, &theta, [batch], |_| ()));
        Ok(PyExplanation::of(done?.or_raise()?, config.clone()))
    }

    /// Classifies images: the first phase alone. Returns a `Report`.
    fn evaluate(&self, py: Python, x: &Bound<PyAny>, y: &Bound<PyAny>) -> PyResult<PyReport> {
        let mut state = self.state()?;
        let theta = state.theta().or_raise()?;
        let (images, labels) = minibatch(x, y, &state.config)?;
        let (model, pixels) = (state.config.model(), theta.network.dims.input());
        let state = &mut *state;
        let done = work(py, None, |interrupt| {
            let mut report = Report::default();
            let size = if matches!(images.images, Images::Bytes(_)) { TEST_BATCH } else { TOGETHER };
            for (i, labels) in labels.chunks(size).enumerate().take_while(|_| interrupt.signal().is_none()) {
                report.add(&match &images.images {
                    Images::Bytes(bytes) => {
                        let images = bytes[i * size * pixels..][..labels.len() * pixels].to_vec();
                        state.engine.evaluate(&crate::Batch { images, labels: labels.to_vec() })?
                    }
                    Images::Floats(x) => {
                        let settled = model.settle(&theta, &x.narrow(0, i * size, labels.len())?)?;
                        plain::report(model.loss, &settled, labels)?
                    }
                });
            }
            Ok(report)
        });
        done?.or_raise().map(PyReport)
    }

    /// A copy of all weights and biases, by name: `weights["forward.0.weight"]`, (d_0, d_1). To change some, assign a
    /// dict with these.
    #[getter]
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let theta = self.state()?.theta().or_raise()?;
        named(py, &theta)
    }

    #[setter]
    fn set_weights(&self, weights: &Bound<PyAny>) -> PyResult<()> {
        let mut state = self.state()?;
        let theta = replaced(&state.theta().or_raise()?, weights, "weights")?;
        let memory = state.memory().or_raise()?;
        state.replace(theta, &memory).or_raise()
    }

    /// Layer sizes, input first.
    #[getter]
    fn dims(&self) -> PyResult<Vec<usize>> {
        Ok(self.state()?.config.network.dims.0.clone())
    }

    /// The configuration, by section and key.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let value = serde_json::to_value(&self.state()?.config).or_raise()?;
        from_json(py, &value)
    }

    /// Copies the network in its present state.
    fn copy(&self) -> PyResult<Self> {
        let mut state = self.state()?;
        let (config, theta) = (state.config.clone(), state.theta().or_raise()?);
        let mut copy = State::new(config, theta, state.minibatches, state.fresh).or_raise()?;
        let memory = state.engine.memory().or_raise()?;
        copy.engine.recall(&memory.into_iter().collect()).or_raise()?;
        Ok(Self::of(copy))
    }

    /// Writes the weights into a safetensors file, from which `eqprop train --init` starts.
    fn save(&self, path: PathBuf) -> PyResult<()> {
        let theta = self.state()?.theta().or_raise()?;
        let bytes = safetensors::serialize(theta.named(), None).or_raise()?;
        files::write_named(&path, &bytes).or_raise()
    }

    fn __repr__(&self) -> PyResult<String> {
        let state = self.state()?;
        let Config { network, learning, training, .. } = &state.config;
        Ok(format!("Network({:?}, rule={:?}, seed={})", network.dims.0, learning.rule.name(), training.seed))
    }

    fn _repr_html_(&self) -> PyResult<String> {
        let state = self.state()?;
        let count = state.config.network().parameter_count();
        Ok(format!("{}<p>{count} weights and biases.</p>", inspect::summary(&state.config).into_string()))
    }
}
