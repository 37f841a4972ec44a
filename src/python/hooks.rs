//! Python functions in the place of a rule or a synapse, on the plain engine.

use super::arrays::{numbers, replaced};
use super::steps::PyStep;
use crate::base::panic::guard;
use crate::learning::{Learning, Lesson, OwnUpdate, Rule, Step, Update};
use crate::model::synapse::{Synapse, SynapseLaw};
use crate::model::{Model, Parameters};
use candle_core::{Error, Result};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex};

/// The exception that a function has raised, until it can be raised again.
type Raised = Arc<Mutex<Option<PyErr>>>;

/// Python functions that take part in learning.
#[derive(Default)]
pub struct Hooks {
    /// The function called for the update of every step.
    pub rule: Option<Py<PyAny>>,
    /// The function called for every change of weights.
    pub synapse: Option<Py<PyAny>>,
}

impl Hooks {
    /// True where there are none.
    pub fn are_none(&self) -> bool {
        self.rule.is_none() && self.synapse.is_none()
    }

    /// Calls `learn` with the model and the rule in which these functions take part. `theta` has the names.
    ///
    /// # Errors
    /// What a function has raised, and those of `learn`.
    pub fn with<R>(
        self,
        (model, learning): (Model, Learning),
        theta: &Parameters,
        learn: impl FnOnce(&Model, &Learning) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let raised = Raised::default();
        let (mut model, mut own) = (model, learning.clone());
        if let Some(synapse) = self.synapse {
            let shapes = theta.weights.iter().chain(&theta.biases).map(|tensor| tensor.dims().to_vec());
            let names = theta.network.weights().map(|c| format!("{}.weight", c.name()));
            let biases = (0..theta.biases.len()).map(|n| format!("forward.{n}.bias"));
            let tensors = names.chain(biases).zip(shapes).collect();
            let law = Device { function: synapse, before: model.synapse, tensors, raised: raised.clone() };
            model.synapse = Synapse(Arc::new(law));
        }
        let borrowed = match (self.rule, learning.rule.schedule()) {
            (Some(function), Some(schedule)) => {
                let slot = Slot::take(Hooked { function, learning, raised: raised.clone() });
                own.rule = Rule { update: Update::Own(schedule, slot.0), ..own.rule };
                Some(slot)
            }
            _ => None,
        };
        let outcome = learn(&model, &own);
        drop(borrowed);
        match guard(&raised).take() {
            Some(error) => Err(error.into()),
            None => outcome,
        }
    }
}

/// A rule whose updates a function may replace.
struct Hooked {
    function: Py<PyAny>,
    /// The rule without it.
    learning: Learning,
    raised: Raised,
}

impl Hooked {
    fn update(&self, lesson: &Lesson, step: &Step) -> Result<Parameters> {
        let mut built_in = *lesson;
        built_in.learning = &self.learning;
        let update = built_in.update(step)?;
        let answer = Python::attach(|py| -> PyResult<Parameters> {
            let shown = PyStep::of(step, update.clone(), lesson.theta);
            let answer = self.function.bind(py).call1((shown,))?;
            if answer.is_none() { Ok(update) } else { replaced(&update, &answer, "the update") }
        });
        answer.map_err(|error| {
            let text = error.to_string();
            *guard(&self.raised) = Some(error);
            Error::Msg(text)
        })
    }
}

/// A place for a hooked rule that lives for ever, as a [`Rule`] requires; there are as many as have been in use at
/// once.
struct Slot(&'static Place);

struct Place(Mutex<Option<Hooked>>);

/// Free places.
static FREE: Mutex<Vec<&'static Place>> = Mutex::new(Vec::new());

impl Slot {
    fn take(hooked: Hooked) -> Self {
        let free = guard(&FREE).pop();
        let place = free.unwrap_or_else(|| Box::leak(Box::new(Place(Mutex::new(None)))));
        *guard(&place.0) = Some(hooked);
        Self(place)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *guard(&self.0.0) = None;
        guard(&FREE).push(self.0);
    }
}

impl OwnUpdate for Place {
    fn update(&self, lesson: &Lesson, step: &Step) -> Result<Parameters> {
        match &*guard(&self.0) {
            Some(hooked) => hooked.update(lesson, step),
            None => Err(Error::Msg("a rule is asked that is no longer there".into())),
        }
    }
}

/// A function in the place of all synapses.
struct Device {
    function: Py<PyAny>,
    /// The law that it replaces: decay after a minibatch, and the fall of learning rates, stay as there.
    before: Synapse,
    /// Name and shape of each tensor, weights first and then biases.
    tensors: Vec<(String, Vec<usize>)>,
    raised: Raised,
}

impl SynapseLaw for Device {
    fn name(&self) -> &'static str {
        "a function of Python"
    }

    fn adds_up(&self) -> bool {
        false
    }

    fn change(&self, _: &mut [f64], _: &[f64], _: &mut [&mut [f64]]) {
        unreachable!("a device is told which weights it changes");
    }

    fn change_tensor(&self, number: usize, weights: &mut [f64], wished: &[f64], _: &mut [&mut [f64]]) {
        let mut raised = guard(&self.raised);
        if raised.is_some() {
            return;
        }
        let (name, shape) = &self.tensors[number];
        let changed = Python::attach(|py| -> PyResult<Vec<f64>> {
            let array = |values: &[f64]| PyArray1::from_slice(py, values).reshape(shape.clone());
            let answer = self.function.bind(py).call1((name, array(weights)?, array(wished)?))?;
            numbers(&answer, weights.len(), "the synapse")
        });
        match changed {
            Ok(changed) => weights.copy_from_slice(&changed),
            Err(error) => *raised = Some(error),
        }
    }

    fn left(&self) -> f64 {
        self.before.left()
    }

    fn rate(&self, epochs: f64) -> f64 {
        self.before.rate(epochs)
    }
}
