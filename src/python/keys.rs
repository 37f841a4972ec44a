//! Settings as keyword arguments.

use super::{OrRaise, wrong};
use crate::config::key_named;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use toml::Value;

/// The settings of keyword arguments: (keyword, key, value), as for flags of the command line.
pub fn flags(keywords: Option<&Bound<PyDict>>) -> PyResult<Vec<(String, String, Value)>> {
    let mut flags = Vec::new();
    for (word, value) in keywords.into_iter().flatten() {
        let word: String = word.extract()?;
        let key = key_named(&word).or_raise()?;
        let value = value_of(&word, &value)?;
        flags.push((word, key, value));
    }
    Ok(flags)
}

/// A value of a configuration.
pub fn value_of(word: &str, value: &Bound<PyAny>) -> PyResult<Value> {
    // A Python bool is also an int.
    if let Ok(value) = value.cast::<PyBool>() {
        return Ok(value.is_true().into());
    }
    if value.is_instance_of::<PyInt>() {
        return Ok(value.extract::<i64>()?.into());
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(value.extract::<f64>()?.into());
    }
    if value.is_instance_of::<PyString>() {
        return Ok(value.extract::<String>()?.into());
    }
    // A number of numpy.
    if value.hasattr("item")? && value.getattr("ndim").is_ok_and(|ndim| ndim.eq(0).unwrap_or(false)) {
        return value_of(word, &value.call_method0("item")?);
    }
    match value.try_iter() {
        Ok(items) => items.map(|item| value_of(word, &item?)).collect::<PyResult<Vec<_>>>().map(Value::from),
        Err(_) => wrong!(
            "{word} = {}: settings are numbers, words, True or False, or lists of those",
            value.repr()?
        ),
    }
}
