//! Arrays: numpy's, and others that numpy can read.

use super::{OrRaise, wrong};
use crate::config::Config;
use crate::data::Batch;
use crate::model::Parameters;
use candle_core::{DType, Device, Tensor, WithDType};
use numpy::{Element, PyArray1, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::borrow::Cow;
use std::collections::HashMap;

/// A tensor as an array of its shape and type, owned by Python from then on.
pub fn array<'py>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
    fn of<'py, T: WithDType + Element>(py: Python<'py>, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
        let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<T>()).or_raise()?;
        Ok(PyArray1::from_vec(py, values).reshape(tensor.dims().to_vec())?.into_any())
    }
    match tensor.dtype() {
        DType::F64 => of::<f64>(py, tensor),
        _ => of::<f32>(py, tensor),
    }
}

/// Weights, or other tensors of their shapes, by name.
pub fn named<'py>(py: Python<'py>, parameters: &Parameters) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, tensor) in parameters.named() {
        dict.set_item(name, array(py, tensor)?)?;
    }
    Ok(dict)
}

/// The numpy array of an object: anything with `__array__`, or DLPack on the CPU, or numbers in lists.
fn numpy_of<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let numpy = object.py().import("numpy")?;
    let only_dlpack = object.hasattr("__dlpack__")? && !object.hasattr("__array__")?;
    let array = numpy.call_method1(if only_dlpack { "from_dlpack" } else { "asarray" }, (object,))?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// Calls `look` with the values of an array in row-major order, without a copy where they lie so.
fn values<T: Element + Copy, R>(
    array: &Bound<PyArrayDyn<T>>,
    look: impl FnOnce(Cow<[T]>) -> R,
) -> PyResult<R> {
    let array = array.try_readonly()?;
    // An array in column-major order also has a slice, in its own order.
    Ok(match array.as_slice() {
        Ok(slice) if array.is_c_contiguous() => look(slice.into()),
        _ => look(array.as_array().iter().copied().collect::<Vec<_>>().into()),
    })
}

/// A tensor of floats on the CPU; `None` where the array holds no floats.
fn floats(array: &Bound<PyUntypedArray>) -> PyResult<Option<Tensor>> {
    fn of<T: Element + WithDType>(array: &Bound<PyArrayDyn<T>>) -> PyResult<Tensor> {
        let shape = array.shape().to_vec();
        values(array, |values| Tensor::from_slice(&values, shape, &Device::Cpu))?.or_raise()
    }
    if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
        return of(array).map(Some);
    }
    array.cast::<PyArrayDyn<f64>>().ok().map(of).transpose()
}

/// Some images.
pub enum Images {
    /// As they are in a data set, x = byte/255.
    Bytes(Vec<u8>),
    /// x, (B, d_in).
    Floats(Tensor),
}

/// Some images, and their number.
pub struct Given {
    /// The images.
    pub images: Images,
    /// B.
    pub count: usize,
}

impl Given {
    /// Reads `x`, (B, d_in) or (B, …) with as many pixels: bytes, or floats from 0 to 1.
    pub fn read(x: &Bound<PyAny>, config: &Config) -> PyResult<Self> {
        let (array, pixels) = (numpy_of(x)?, config.network.dims.input());
        let shape = array.shape().to_vec();
        if shape.len() < 2 || shape[1..].iter().product::<usize>() != pixels || shape[0] == 0 {
            wrong!(
                "x has the shape {shape:?}, and the network takes images of {pixels} pixels: (B, {pixels}), or (B, …) with \
                 as many"
            );
        }
        let count = shape[0];
        if let Ok(bytes) = array.cast::<PyArrayDyn<u8>>() {
            let images = Images::Bytes(values(bytes, |values| values.into_owned())?);
            return Ok(Self { images, count });
        }
        let Some(x) = floats(&array)? else {
            wrong!("x holds {}: images are bytes (uint8), or float32 or float64 from 0 to 1", array.dtype())
        };
        let x = x.reshape((count, pixels)).or_raise()?;
        let extreme = |of: candle_core::Result<Tensor>| of?.to_dtype(DType::F64)?.to_scalar::<f64>();
        let flat = x.flatten_all().or_raise()?;
        // A sum is NaN where a value is; a minimum and a maximum may not be.
        let sum = extreme(flat.sum(0)).or_raise()?;
        let (least, most) = (extreme(flat.min(0)).or_raise()?, extreme(flat.max(0)).or_raise()?);
        if !sum.is_finite() || least < 0.0 || most > 1.0 {
            wrong!("x has values from {least} to {most} or NaN: floats are from 0 to 1; divide bytes by 255");
        }
        let x = x.to_dtype(config.training.dtype.dtype()).or_raise()?;
        Ok(Self { images: Images::Floats(x), count })
    }

    /// x in the type and on the device of these weights.
    pub fn x(&self, theta: &Parameters) -> candle_core::Result<Tensor> {
        match &self.images {
            Images::Bytes(images) => {
                Batch { images: images.clone(), labels: vec![0; self.count] }.x_for(theta)
            }
            Images::Floats(x) => Ok(x.clone()),
        }
    }

    /// As a minibatch of a data set with these labels; `None` where the images are floats.
    pub fn batch(&self, labels: &[u8]) -> Option<Batch> {
        match &self.images {
            Images::Bytes(images) => Some(Batch { images: images.clone(), labels: labels.to_vec() }),
            Images::Floats(_) => None,
        }
    }
}

/// Reads the classes of so many images: (B,) whole numbers, or one-hot (B, d_0).
pub fn labels(y: &Bound<PyAny>, count: usize, classes: usize) -> PyResult<Vec<u8>> {
    let array = numpy_of(y)?;
    let shape = array.shape().to_vec();
    let numbers = array.call_method1("astype", ("float64",))?;
    let numbers = values(numbers.cast::<PyArrayDyn<f64>>()?, |values| values.into_owned())?;
    let found: Vec<Option<usize>> = match shape[..] {
        [rows] if rows == count => {
            let class = |&number: &f64| (number.fract() == 0.0 && number >= 0.0).then_some(number as usize);
            numbers.iter().map(class).collect()
        }
        [rows, width] if rows == count && width == classes => {
            let class = |row: &[f64]| {
                let one = row.iter().position(|&number| number == 1.0)?;
                row.iter().enumerate().all(|(i, &number)| i == one || number == 0.0).then_some(one)
            };
            numbers.chunks(width).map(class).collect()
        }
        _ => wrong!(
            "y has the shape {shape:?}: classes of {count} images are ({count},), or one-hot ({count}, {classes})"
        ),
    };
    let label = |(i, class): (usize, Option<usize>)| match class.and_then(|class| u8::try_from(class).ok()) {
        Some(class) if usize::from(class) < classes => Ok(class),
        _ => wrong!(
            "y of image {i} is not a class: give whole numbers from 0 to {}, or a single 1 in a row of 0",
            classes - 1
        ),
    };
    found.into_iter().enumerate().map(label).collect()
}

/// `theta` with the tensors replaced that are given by name. A name may leave out `.weight`.
pub fn replaced(theta: &Parameters, given: &Bound<PyAny>, what: &str) -> PyResult<Parameters> {
    let mut tensors: HashMap<String, Tensor> =
        theta.named().into_iter().map(|(name, tensor)| (name, tensor.clone())).collect();
    for item in given.call_method0("items")?.try_iter()? {
        let (name, value): (String, Bound<PyAny>) = item?.extract()?;
        let whole = format!("{name}.weight");
        let name = if tensors.contains_key(&whole) { whole } else { name };
        if !tensors.contains_key(&name) {
            let names: Vec<String> = theta.named().into_iter().map(|(name, _)| name).collect();
            wrong!("{what} has {name}, and the network has {}", names.join(", "));
        }
        let Some(tensor) = floats(&numpy_of(&value)?)? else {
            wrong!("{what}: {name} is to be an array of float32 or float64")
        };
        tensors.insert(name, tensor);
    }
    Parameters::from_named(&tensors, theta.network.clone(), theta.dtype(), theta.device()).or_raise()
}

/// Reads as many numbers in double precision as there are in `like`, of any shape.
pub fn numbers(given: &Bound<PyAny>, like: usize, what: &str) -> PyResult<Vec<f64>> {
    let array = numpy_of(given)?.call_method1("astype", ("float64",))?;
    let numbers = values(array.cast::<PyArrayDyn<f64>>()?, |values| values.into_owned())?;
    if numbers.len() != like {
        wrong!("{what} has returned {} numbers for {like} weights", numbers.len());
    }
    Ok(numbers)
}
