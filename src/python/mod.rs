//! The Python module `eqprop` (feature `python`): numpy arrays in and out of the modules below, and the program
//! itself.
//!
//! It computes nothing. [`network`] holds a network and its engine, [`steps`] what it shows, [`runs`] trains and
//! reads records, [`hooks`] lets a function of Python be a rule or a synapse, [`arrays`] and [`keys`] convert, and
//! [`work`] waits for what is computed without holding Python up.

mod arrays;
mod hooks;
mod keys;
mod network;
mod runs;
mod steps;
mod work;

use crate::base::program;
use crate::cli;
use crate::run;
use pyo3::create_exception;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::ffi::OsString;

create_exception!(
    eqprop,
    Error,
    PyRuntimeError,
    "An operation that cannot be done; the message says what to do."
);
create_exception!(eqprop, UsageError, PyValueError, "A wrong request: a setting, a shape, a name.");
create_exception!(eqprop, Diverged, Error, "A run that has diverged. `run` is its `Run`.");
create_exception!(
    eqprop,
    Interrupted,
    PyKeyboardInterrupt,
    "A run that Ctrl-C has stopped. It has been saved: `run` is its `Run`, and `run.resume()` resumes it."
);

/// An error of any module as a Python exception.
fn raised(error: anyhow::Error) -> PyErr {
    let of_python = match error.downcast_ref() {
        Some(run::Error::Other(error)) => error.downcast_ref::<PyErr>(),
        _ => error.downcast_ref::<PyErr>(),
    };
    if let Some(of_python) = of_python {
        return Python::attach(|py| of_python.clone_ref(py));
    }
    let text = format!("{error:#}");
    if cli::is_usage(&error) { UsageError::new_err(text) } else { Error::new_err(text) }
}

/// Raises an error of any module.
trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Into<anyhow::Error>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| raised(error.into()))
    }
}

/// Raises a [`UsageError`] with a formatted message.
macro_rules! wrong {
    ($($message:tt)*) => { return Err($crate::python::UsageError::new_err(format!($($message)*))) };
}
use wrong;

/// A page as part of a notebook.
fn framed(page: &str) -> String {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    format!("<iframe srcdoc=\"{page}\" style=\"width: 100%; height: 36em; border: 0\"></iframe>")
}

/// JSON as Python values.
fn from_json<'py>(py: Python<'py>, value: &serde_json::Value) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (value.to_string(),))
}

/// Runs a command line, its first word the path of the script; returns the exit status.
#[pyfunction]
fn main(py: Python, words: Vec<String>) -> u8 {
    program::started_as(words.clone());
    py.detach(|| cli::main(words.into_iter().map(OsString::from)))
}

/// The module.
#[pymodule]
fn _eqprop(module: &Bound<PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("Error", py.get_type::<Error>())?;
    module.add("UsageError", py.get_type::<UsageError>())?;
    module.add("Diverged", py.get_type::<Diverged>())?;
    module.add("Interrupted", py.get_type::<Interrupted>())?;
    module.add_class::<network::PyNetwork>()?;
    module.add_class::<runs::PyRun>()?;
    module.add_class::<steps::PySettled>()?;
    module.add_class::<steps::PyStep>()?;
    module.add_class::<steps::PyReport>()?;
    module.add_class::<steps::PyAngle>()?;
    module.add_class::<steps::PyExplanation>()?;
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_function(wrap_pyfunction!(runs::train, module)?)?;
    module.add_function(wrap_pyfunction!(runs::runs, module)?)?;
    module.add_function(wrap_pyfunction!(runs::load, module)?)?;
    module.add_function(wrap_pyfunction!(runs::load_data, module)?)
}
