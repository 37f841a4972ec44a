//! The layered network: its sizes, its parameters θ, and how they start.
//!
//! Layers are numbered as in the paper: 0 is the output, N the last hidden layer, and above it the
//! input x. `forward.n` is the weight (d_n, d_{n+1}) from layer n+1 into layer n, with a bias
//! (d_n,); `feedback.n` is the weight (d_{n+1}, d_n) from layer n into layer n+1, without bias,
//! absent where weights are tied.

use crate::rng::{self, Purpose};
use candle_core::{DType, Device, Result, Tensor, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Layer sizes, written input first as people write networks: `[784, 512, 512, 10]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dims(pub Vec<usize>);

impl Dims {
    /// N, the number of hidden layers; also the index of the last hidden layer.
    pub fn depth(&self) -> usize {
        self.0.len() - 2
    }

    /// d_n, the width of layer n; n = N + 1 is the input.
    pub fn width(&self, n: usize) -> usize {
        self.0[self.0.len() - 1 - n]
    }

    /// Width of the input x.
    pub fn input(&self) -> usize {
        self.0[0]
    }

    /// Width of the output layer, the number of classes.
    pub fn output(&self) -> usize {
        self.width(0)
    }

    /// How many weights and biases a network of these sizes has.
    pub fn parameter_count(&self, tied: bool) -> usize {
        (0..=self.depth())
            .map(|n| {
                let weights = self.width(n) * self.width(n + 1);
                let feedback = if tied || n == self.depth() { 0 } else { weights };
                weights + self.width(n) + feedback
            })
            .sum()
    }

    /// Name and shape of every tensor of such a network, in the order of [`Parameters::named`].
    fn shapes(&self, tied: bool) -> Shapes {
        let forward = (0..=self.depth()).flat_map(|n| {
            let (to, from) = (self.width(n), self.width(n + 1));
            [(format!("forward.{n}.weight"), vec![to, from]), (format!("forward.{n}.bias"), vec![to])]
        });
        let feedback = (0..self.depth()).filter(|_| !tied);
        let feedback =
            feedback.map(|n| (format!("feedback.{n}.weight"), vec![self.width(n + 1), self.width(n)]));
        forward.chain(feedback).collect()
    }
}

/// Names of tensors, with their shapes.
type Shapes = Vec<(String, Vec<usize>)>;

/// How weights and biases start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Weights U(±√(6/(fan_in + fan_out))), biases 0: "Glorot-initialized", as the paper says.
    Glorot,
    /// Weights and biases U(±1/√fan_in), as the authors' code does (PyTorch's `Linear`).
    FanIn,
}

/// One forward connection: `weight` (d_n, d_{n+1}) and `bias` (d_n,).
#[derive(Clone, Debug)]
pub struct Forward {
    /// Weight from layer n+1 into layer n, shape (d_n, d_{n+1}).
    pub weight: Tensor,
    /// Bias of layer n, shape (d_n,).
    pub bias: Tensor,
}

/// θ: all weights and biases of a network, or anything of the same shape (updates, gradients).
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `forward[n]`, n = 0…N, output first.
    pub forward: Vec<Forward>,
    /// `feedback[n]` (d_{n+1}, d_n), n = 0…N−1; `None` where weights are tied.
    pub feedback: Option<Vec<Tensor>>,
}

impl Parameters {
    /// Random initial parameters, the same for every dtype and device.
    ///
    /// Feedback weights, where there are any (`psi_degrees` is `Some`), start as the transpose of
    /// the forward weights with each sign flipped with probability p(Ψ) = ½(1 − cos Ψ) (Eq. 103–104).
    ///
    /// # Errors
    /// Only those of candle (no memory, an unsupported dtype).
    pub fn init(
        dims: &Dims,
        init: Init,
        psi_degrees: Option<f64>,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mut forward = Vec::new();
        for n in 0..=dims.depth() {
            let (fan_out, fan_in) = (dims.width(n), dims.width(n + 1));
            let mut rng = rng::stream(seed, Purpose::Weights, n as u64);
            let (weight_bound, bias_bound) = match init {
                Init::Glorot => ((6.0 / (fan_in + fan_out) as f64).sqrt(), 0.0),
                Init::FanIn => ((fan_in as f64).sqrt().recip(), (fan_in as f64).sqrt().recip()),
            };
            let mut draw = |bound, shape: &[usize]| {
                let values = rng::uniform(&mut rng, bound, shape.iter().product());
                Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
            };
            forward.push(Forward {
                weight: draw(weight_bound, &[fan_out, fan_in])?,
                bias: draw(bias_bound, &[fan_out])?,
            });
        }
        let feedback = psi_degrees
            .map(|psi| {
                (0..dims.depth())
                    .map(|n| flip_signs(&forward[n].weight, psi, seed, n))
                    .collect::<Result<Vec<_>>>()
            })
            .transpose()?;
        Ok(Self { forward, feedback })
    }

    /// Whether feedback weights are the transposes of the forward weights.
    pub fn tied(&self) -> bool {
        self.feedback.is_none()
    }

    /// N, the number of hidden layers.
    pub fn depth(&self) -> usize {
        self.forward.len() - 1
    }

    /// The weight from layer n into layer n+1, transposed to (d_n, d_{n+1}) so that `s^n · w`
    /// is its input into layer n+1: W_{nn+1} itself where tied, the transposed feedback otherwise.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn backward_weight(&self, n: usize) -> Result<Tensor> {
        match &self.feedback {
            None => Ok(self.forward[n].weight.clone()),
            Some(feedback) => feedback[n].t(),
        }
    }

    /// Name and tensor of everything, in a fixed order: `forward.0.weight`, `forward.0.bias`, …,
    /// `feedback.0.weight`, ….
    pub fn named(&self) -> Vec<(String, &Tensor)> {
        let mut named = Vec::new();
        for (n, layer) in self.forward.iter().enumerate() {
            named.push((format!("forward.{n}.weight"), &layer.weight));
            named.push((format!("forward.{n}.bias"), &layer.bias));
        }
        for (n, weight) in self.feedback.iter().flatten().enumerate() {
            named.push((format!("feedback.{n}.weight"), weight));
        }
        named
    }

    /// Parameters from tensors named as in [`Parameters::named`], cast and moved as asked.
    /// Other names in the map are ignored.
    ///
    /// # Errors
    /// Names the tensor that is missing, has another shape than `dims` asks for, or does not hold finite floats. Where
    /// some are missing or of another shape it lists those that are needed and those that there are.
    pub fn from_named(
        tensors: &HashMap<String, Tensor>,
        dims: &Dims,
        tied: bool,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let lists = || {
            let there = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
            let mut there: Shapes = there.collect();
            there.sort();
            let (needed, there) = (listed(&dims.shapes(tied)), listed(&there));
            format!("the network {:?} needs {needed}; there are {there}", dims.0)
        };
        let get = |name: String, shape: &[usize]| -> Result<Tensor> {
            let Some(tensor) = tensors.get(&name) else {
                bail!("tensor `{name}` is missing: {}", lists());
            };
            if tensor.dims() != shape {
                bail!("tensor `{name}` has shape {:?} and not {shape:?}: {}", tensor.dims(), lists());
            }
            if !tensor.dtype().is_float() {
                bail!("tensor `{name}` holds {:?}, and weights are floats", tensor.dtype());
            }
            let tensor = tensor.to_dtype(dtype)?;
            if !is_finite(&tensor)? {
                bail!("tensor `{name}` holds values that are not finite numbers of type {dtype:?}");
            }
            tensor.to_device(device)?.contiguous()
        };
        let mut forward = Vec::new();
        let mut feedback = Vec::new();
        for n in 0..=dims.depth() {
            let (to, from) = (dims.width(n), dims.width(n + 1));
            forward.push(Forward {
                weight: get(format!("forward.{n}.weight"), &[to, from])?,
                bias: get(format!("forward.{n}.bias"), &[to])?,
            });
            if !tied && n < dims.depth() {
                feedback.push(get(format!("feedback.{n}.weight"), &[from, to])?);
            }
        }
        let feedback = (!tied).then_some(feedback);
        Ok(Self { forward, feedback })
    }

    /// θ + Σ scale(n)·update, where `scale(n)` is the factor of layer n: it applies to forward.n
    /// (weight and bias) and to feedback.n. Biases keep the shape they have in θ.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn plus(&self, update: &Parameters, scale: impl Fn(usize) -> f64) -> Result<Self> {
        let add = |a: &Tensor, b: &Tensor, n: usize| a + b.affine(scale(n), 0.0)?;
        let forward = (self.forward.iter().zip(&update.forward).enumerate())
            .map(|(n, (a, b))| {
                let bias = b.bias.reshape(a.bias.shape())?;
                Ok(Forward { weight: add(&a.weight, &b.weight, n)?, bias: add(&a.bias, &bias, n)? })
            })
            .collect::<Result<_>>()?;
        let feedback = match (&self.feedback, &update.feedback) {
            (Some(a), Some(b)) => {
                Some((a.iter().zip(b).enumerate()).map(|(n, (a, b))| add(a, b, n)).collect::<Result<_>>()?)
            }
            (None, None) => None,
            _ => bail!("an update of tied weights meets untied weights"),
        };
        Ok(Self { forward, feedback })
    }

    /// θ with each tensor changed so.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let forward = (self.forward.iter())
            .map(|layer| Ok(Forward { weight: change(&layer.weight)?, bias: change(&layer.bias)? }))
            .collect::<Result<_>>()?;
        let feedback = (self.feedback.as_ref())
            .map(|feedback| feedback.iter().map(&change).collect::<Result<_>>())
            .transpose()?;
        Ok(Self { forward, feedback })
    }

    /// The mean of two, of one shape.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn mean(&self, other: &Parameters) -> Result<Self> {
        let difference = other.plus(self, |_| -1.0)?;
        self.plus(&difference, |_| 0.5)
    }

    /// ‖·‖, the Frobenius norm of everything, by name as in [`Parameters::named`].
    ///
    /// # Errors
    /// Only those of candle.
    pub fn norms(&self) -> Result<Vec<(String, f64)>> {
        self.named().into_iter().map(|(name, tensor)| Ok((name, dot(tensor, tensor)?.sqrt()))).collect()
    }

    /// ‖·‖ of each weight matrix, by the name of its connection: `forward.0`, ….
    ///
    /// # Errors
    /// Only those of candle.
    pub fn weight_norms(&self) -> Result<Vec<(String, f64)>> {
        let matrix = |(name, norm): (String, f64)| Some((name.strip_suffix(".weight")?.to_string(), norm));
        Ok(self.norms()?.into_iter().filter_map(matrix).collect())
    }

    /// Ψ(θf, θb) in degrees for each pair of forward.n and the transpose of feedback.n, n = 0…N−1;
    /// empty where weights are tied.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn psi_degrees(&self) -> Result<Vec<f64>> {
        let feedback = self.feedback.iter().flatten();
        (self.forward.iter().zip(feedback)).map(|(f, b)| angle_degrees(&f.weight, &b.t()?)).collect()
    }
}

/// Names of tensors with their shapes, in one line however many there are and whatever they are called.
fn listed(tensors: &[(String, Vec<usize>)]) -> String {
    const MOST: usize = 24;
    let described = tensors.iter().take(MOST);
    let mut all: Vec<String> =
        described.map(|(name, shape)| format!("{} {shape:?}", name.escape_debug())).collect();
    if tensors.len() > MOST {
        all.push(format!("{} others", tensors.len() - MOST));
    }
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// θb = (M(p) ⊙ θf)ᵀ, where M is −1 with probability p(Ψ) = ½(1 − cos Ψ), else +1 (Eq. 103–104).
fn flip_signs(weight: &Tensor, psi_degrees: f64, seed: u64, n: usize) -> Result<Tensor> {
    let p = 0.5 * (1.0 - psi_degrees.to_radians().cos());
    let mut rng = rng::stream(seed, Purpose::SignMask, n as u64);
    let mask: Vec<f64> =
        (0..weight.elem_count()).map(|_| if rng.random::<f64>() < p { -1.0 } else { 1.0 }).collect();
    let mask = Tensor::from_vec(mask, weight.shape(), &Device::Cpu)?
        .to_dtype(weight.dtype())?
        .to_device(weight.device())?;
    (weight * mask)?.t()?.contiguous()
}

/// Whether all values are finite: a product of 0 with any other is not 0.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_dtype(DType::F64)?.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f64>()? == 0.0)
}

/// Σ a⊙b in float64.
fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a.to_dtype(DType::F64)? * b.to_dtype(DType::F64)?)?.sum_all()?.to_scalar()
}

/// The angle κ(a, b) = arccos(Tr(a bᵀ) / (‖a‖ ‖b‖)) between two tensors of one shape, in degrees
/// (F.1). NaN where one of them is zero.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn angle_degrees(a: &Tensor, b: &Tensor) -> Result<f64> {
    let cosine = dot(a, b)? / (dot(a, a)?.sqrt() * dot(b, b)?.sqrt());
    Ok(cosine.clamp(-1.0, 1.0).acos().to_degrees())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_output_first() {
        let dims = Dims(vec![784, 512, 256, 10]);
        assert_eq!(dims.depth(), 2);
        assert_eq!([0, 1, 2, 3].map(|n| dims.width(n)), [10, 256, 512, 784]);
        assert_eq!(dims.parameter_count(true), 784 * 512 + 512 + 512 * 256 + 256 + 2560 + 10);
    }

    #[test]
    fn sign_flips_reach_the_asked_angle() -> Result<()> {
        let dims = Dims(vec![20, 512, 512, 10]);
        for psi in [0.0, 22.5, 45.0, 90.0, 135.0, 180.0] {
            let theta = Parameters::init(&dims, Init::Glorot, Some(psi), 1, DType::F32, &Device::Cpu)?;
            for reached in theta.psi_degrees()? {
                assert!((reached - psi).abs() < 2.0, "asked {psi}, reached {reached}");
            }
        }
        Ok(())
    }

    #[test]
    fn initial_weights_fill_the_bounds() -> Result<()> {
        let dims = Dims(vec![300, 200, 10]);
        for (init, bound, bias) in [
            (Init::Glorot, (6.0f64 / 500.0).sqrt(), 0.0),
            (Init::FanIn, 300f64.sqrt().recip(), 300f64.sqrt().recip()),
        ] {
            let theta = Parameters::init(&dims, init, None, 1, DType::F64, &Device::Cpu)?;
            let largest = |t: &Tensor| t.abs()?.max_all()?.to_scalar::<f64>();
            let weight = largest(&theta.forward[1].weight)?;
            assert!(weight <= bound && weight > 0.99 * bound);
            assert!(largest(&theta.forward[1].bias)? <= bias);
            assert!(theta.tied());
        }
        Ok(())
    }
}
