//! The observable results of a network: states, steps, errors, angles.

use super::arrays::array;
use super::{OrRaise, framed, from_json};
use crate::config::Config;
use crate::engine::Report;
use crate::learning::Step;
use crate::learning::angle::Comparison;
use crate::model::{Parameters, Settled};
use crate::study::explain::{self, Explanation};
use candle_core::Tensor;
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// Each tensor as an array.
fn arrays<'py>(py: Python<'py>, tensors: &[Tensor]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, tensors.iter().map(|tensor| array(py, tensor)).collect::<PyResult<Vec<_>>>()?)
}

/// The end of the first (free) phase.
#[pyclass(name = "Settled", module = "eqprop", frozen)]
pub struct PySettled {
    states: Vec<Tensor>,
    residual: Vec<f64>,
    two_steps: Vec<f64>,
    steps: Vec<usize>,
    converged: Vec<bool>,
}

impl PySettled {
    /// Joins some parts of a batch, in order.
    pub fn of(parts: Vec<Settled>) -> candle_core::Result<Self> {
        let layers = parts.first().map_or(0, |part| part.state().len());
        let layer = |n: usize| Tensor::cat(&parts.iter().map(|part| &part.state()[n]).collect::<Vec<_>>(), 0);
        let (mut residual, mut two_steps) = (Vec::new(), Vec::new());
        for part in &parts {
            residual.extend(part.residuals()?);
            two_steps.extend(part.residuals_over_two_steps()?);
        }
        Ok(Self {
            states: (0..layers).map(layer).collect::<Result<_, _>>()?,
            residual,
            two_steps,
            steps: parts.iter().flat_map(|part| part.steps.iter().copied()).collect(),
            converged: parts.iter().flat_map(|part| part.converged.iter().copied()).collect(),
        })
    }
}

#[pymethods]
impl PySettled {
    /// s_*, a list of (B, d_n): `states[0]` is the output, `states[n]` layer n, the last the layer next to the input.
    /// Of a softmax readout `states[0]` is z, whose softmax are the probabilities of the classes.
    #[getter]
    fn states<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        arrays(py, &self.states)
    }

    /// s⁰, (B, d_0); of a softmax readout z.
    #[getter]
    fn output<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        array(py, &self.states[0])
    }

    /// The largest |s_T − s_{T−1}| of any neuron, (B,).
    #[getter]
    fn residual<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_slice(py, &self.residual)
    }

    /// The largest |s_T − s_{T−2}| of any neuron, (B,): small beside `residual` in a cycle of period 2.
    #[getter]
    fn residual_two_steps<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_slice(py, &self.two_steps)
    }

    /// The steps that each image took, (B,).
    #[getter]
    fn steps<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<usize>> {
        PyArray1::from_slice(py, &self.steps)
    }

    /// True for each image that has settled within `settle.tolerance`, (B,).
    #[getter]
    fn converged<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        PyArray1::from_slice(py, &self.converged)
    }

    fn __repr__(&self) -> String {
        let worst = self.residual.iter().copied().fold(0.0, f64::max);
        let most = self.steps.iter().max().copied().unwrap_or(0);
        let settled = self.converged.iter().filter(|converged| **converged).count();
        format!(
            "Settled({settled} of {} images within tolerance, at most {most} steps, residual {worst:.1e})",
            self.steps.len()
        )
    }
}

/// One step of the second (nudged) phase, from s_t to s_{t+1}.
#[pyclass(name = "Step", module = "eqprop", frozen)]
pub struct PyStep {
    /// t, from 0.
    #[pyo3(get)]
    t: usize,
    /// β of the phase.
    #[pyo3(get)]
    beta: f64,
    s: Vec<Tensor>,
    s_next: Vec<Tensor>,
    delta: Parameters,
    theta: Parameters,
}

impl PyStep {
    /// A step at which the rule has the update `delta`.
    pub fn of(step: &Step, delta: Parameters, theta: &Parameters) -> Self {
        let (s, s_next, beta) = (step.s.to_vec(), step.s_next.to_vec(), step.beta.value());
        Self { t: step.t, beta, s, s_next, delta, theta: theta.clone() }
    }
}

#[pymethods]
impl PyStep {
    /// s_{t+1}, a list of (B, d_n), the output first.
    #[getter]
    fn states<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        arrays(py, &self.s_next)
    }

    /// s_t, a list of (B, d_n), the output first.
    #[getter]
    fn before<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        arrays(py, &self.s)
    }

    /// Δ_θ(t), the normalised update of the step, a mean over the batch, without η: `delta["forward.0"]` (d_0, d_1),
    /// and `delta["forward.0.bias"]` (d_0,).
    #[getter]
    fn delta<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, tensor) in self.delta.named() {
            dict.set_item(name.strip_suffix(".weight").unwrap_or(&name), array(py, tensor)?)?;
        }
        Ok(dict)
    }

    /// The weights: in a hook those at which the update is made, θ_t with a continual rule; elsewhere those before the
    /// phase.
    #[getter]
    fn weights<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        super::arrays::named(py, &self.theta)
    }

    fn __repr__(&self) -> String {
        format!("Step(t={}, beta={})", self.t, self.beta)
    }
}

/// The results of the first phase for some images.
#[pyclass(name = "Report", module = "eqprop", frozen)]
pub struct PyReport(pub Report);

#[pymethods]
impl PyReport {
    /// The number of images.
    #[getter]
    fn images(&self) -> usize {
        self.0.images
    }

    /// The number of wrongly classified images.
    #[getter]
    fn errors(&self) -> usize {
        self.0.errors
    }

    /// The share of wrongly classified images, percent.
    #[getter]
    fn error_percent(&self) -> f64 {
        self.0.error_percent()
    }

    /// Mean loss ℓ of an image.
    #[getter]
    fn loss(&self) -> f64 {
        self.0.mean_loss()
    }

    /// The largest |s_T − s_{T−1}| of any neuron.
    #[getter]
    fn residual(&self) -> f64 {
        self.0.residual
    }

    /// Mean steps of the first phase.
    #[getter]
    fn steps(&self) -> f64 {
        self.0.mean_steps()
    }

    /// The number of images that have not settled.
    #[getter]
    fn unsettled(&self) -> usize {
        self.0.unsettled
    }

    fn __repr__(&self) -> String {
        let Report { images, errors, .. } = self.0;
        format!(
            "Report({errors} of {images} images wrong, {:.2} %, loss {:.5}, {:.1} steps)",
            self.0.error_percent(),
            self.0.mean_loss(),
            self.0.mean_steps()
        )
    }
}

/// Ψ(Δtot, −∇BPTT tot), the angle between a rule's change of the weights and the descent direction of BPTT.
#[pyclass(name = "Angle", module = "eqprop", frozen)]
pub struct PyAngle(pub Comparison);

fn by_name<'py>(py: Python<'py>, values: &[(String, f64)]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    values.iter().try_for_each(|(name, value)| dict.set_item(name, value))?;
    Ok(dict)
}

#[pymethods]
impl PyAngle {
    /// Over all weight matrices, degrees.
    #[getter]
    fn degrees(&self) -> f64 {
        self.0.total_degrees
    }

    /// The angle of each matrix, by name, degrees.
    #[getter]
    fn by_matrix<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        by_name(py, &self.0.per_matrix_degrees)
    }

    /// The share of synapses whose Δtot and −∇tot have the same sign.
    #[getter]
    fn sign_match(&self) -> f64 {
        self.0.sign_match
    }

    /// The share for each matrix, by name.
    #[getter]
    fn sign_match_by_matrix<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        by_name(py, &self.0.per_matrix_sign_match)
    }

    fn __float__(&self) -> f64 {
        self.0.total_degrees
    }

    fn __repr__(&self) -> String {
        let each: Vec<String> =
            self.0.per_matrix_degrees.iter().map(|(name, degrees)| format!("{name} {degrees:.1}°")).collect();
        format!(
            "Angle({:.1}°: {}; {:.1} % of signs agree)",
            self.0.total_degrees,
            each.join(", "),
            100.0 * self.0.sign_match
        )
    }
}

/// The causes of the angle of a minibatch.
#[pyclass(name = "Explanation", module = "eqprop", frozen)]
pub struct PyExplanation {
    explanation: Explanation,
    config: Config,
}

/// The name of the data in messages.
const DATA: &str = "the minibatch given";

impl PyExplanation {
    /// The explanation for a network of this configuration.
    pub fn of(explanation: Explanation, config: Config) -> Self {
        Self { explanation, config }
    }
}

#[pymethods]
impl PyExplanation {
    /// `start_degrees`, `in_order`, `alone` and `rest_degrees`, as `eqprop angle --explain --json` has them.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &self.explanation.json(DATA))
    }

    fn __repr__(&self) -> String {
        self.explanation.table(DATA)
    }

    fn _repr_html_(&self) -> PyResult<String> {
        explain::page(&self.explanation, &self.config, DATA).map(|page| framed(&page)).or_raise()
    }
}
