//! The network: its layers, the connections between them, its parameters θ, and their initialisation.
//!
//! Layers are numbered as in the paper: 0 is the output, N the last hidden layer, and N + 1 the input x. In a layered
//! network `forward.n` is the weight (d_n, d_{n+1}) from layer n+1 into layer n, and `feedback.n` the weight
//! (d_{n+1}, d_n) from layer n into layer n+1; where weights are tied, that is the transpose of `forward.n` and no
//! weight of its own. Every layer has a bias (d_n,), called `forward.n.bias`. A [convolution](super::convolution) has
//! weights (C_n, C_{n+1}, k, k) in both directions, and the layer that it leads to one bias a map, (C_n,).

use super::convolution::Convolution;
use crate::rng::{self, Purpose};
use candle_core::{DType, Device, Result, Tensor, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

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
}

/// All weights from one layer into another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Source layer; N + 1 is the input.
    pub from: usize,
    /// Destination layer.
    pub to: usize,
    /// Number of its weight in [`Parameters::weights`].
    pub weight: usize,
    /// True where it uses the transpose of another connection's weight.
    pub transposed: bool,
    /// The convolution that it is, or of which it is the way back; `None` where every neuron is connected with every
    /// other.
    pub convolution: Option<Convolution>,
}

impl Connection {
    /// True where it leads from above, towards the output.
    pub fn is_forward(&self) -> bool {
        self.from > self.to
    }

    /// The weight of the way back that is the transposed way there: of a convolution, the same tensor.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn turned(&self, weight: &Tensor) -> Result<Tensor> {
        match self.convolution {
            Some(_) => Ok(weight.clone()),
            None => weight.t()?.contiguous(),
        }
    }

    /// n of η_n, its learning rate: that of the layer nearer to the output.
    pub fn rate(&self) -> usize {
        self.from.min(self.to)
    }

    /// The name of its weight: `forward.n` into layer n from that above it, `feedback.n` from layer n into that above
    /// it, and `skip.m-n` from layer m into any other.
    pub fn name(&self) -> String {
        match (self.from, self.to) {
            (from, to) if from == to + 1 => format!("forward.{to}"),
            (from, to) if to == from + 1 => format!("feedback.{from}"),
            (from, to) => format!("skip.{from}-{to}"),
        }
    }
}

/// Layers and connections. Whether weights are tied is a property of the connections, and of nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Layer sizes.
    pub dims: Dims,
    /// By destination, and into each layer from above first.
    connections: Vec<Connection>,
}

impl Network {
    /// A chain of layers, each connected with the next in both directions; nothing leads into the input.
    pub fn layered(dims: impl Into<Dims>, tied: bool) -> Self {
        let dims = dims.into();
        let last = dims.depth();
        let mut connections = Vec::new();
        for to in 0..=last {
            connections.push(dense(to + 1, to, to, false));
            if let Some(from) = to.checked_sub(1) {
                let weight = if tied { from } else { last + to };
                connections.push(dense(from, to, weight, tied));
            }
        }
        Self { dims, connections }
    }

    /// Adds a connection from layer `from` into layer `to`, and where `from` is not the input, one the other way by
    /// the transposed weight or one of its own.
    ///
    /// # Panics
    /// Where there are no such layers, `from` is not above `to`, or they are connected already.
    pub fn with_connection(mut self, from: usize, to: usize, tied: bool) -> Self {
        let last = self.dims.depth();
        assert!(to < from && from <= last + 1, "no connection from layer {from} into layer {to}");
        assert!(
            !self.connections.iter().any(|c| (c.from, c.to) == (from, to)),
            "layer {from} leads into {to} already"
        );
        let weight = self.weights().count();
        self.connections.push(dense(from, to, weight, false));
        if from <= last {
            let weight = if tied { weight } else { weight + 1 };
            self.connections.push(dense(to, from, weight, tied));
        }
        self.connections.sort_by_key(|c| (c.to, std::cmp::Reverse(c.from)));
        self
    }

    /// Connects layer n + 1 with layer n by a convolution, and the other way round by its transpose.
    ///
    /// # Panics
    /// Where the convolution does not lead from so many neurons to so many.
    pub fn with_convolution(mut self, n: usize, convolution: Convolution) -> Self {
        let sizes = (convolution.source.neurons(), convolution.made().map(|maps| maps.neurons()));
        let (above, below) = (self.dims.width(n + 1), self.dims.width(n));
        assert!(
            sizes == (above, Some(below)),
            "{convolution:?} does not lead from {above} neurons to {below}"
        );
        let both = self.connections.iter_mut().filter(|c| [(n + 1, n), (n, n + 1)].contains(&(c.from, c.to)));
        both.for_each(|c| c.convolution = Some(convolution));
        self
    }

    /// The convolution that leads to layer `n` from above, if one does.
    pub fn convolution_into(&self, n: usize) -> Option<&Convolution> {
        self.into_layer(n).find(|c| c.from == n + 1)?.convolution.as_ref()
    }

    /// True where it has convolutions.
    pub fn has_convolutions(&self) -> bool {
        self.connections.iter().any(|c| c.convolution.is_some())
    }

    /// All connections, by destination, and into each layer from above first.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// The connections into layer `n`.
    pub fn into_layer(&self, n: usize) -> impl Iterator<Item = &Connection> {
        self.connections.iter().filter(move |c| c.to == n)
    }

    /// The connections that have a weight of their own, by its number.
    pub fn weights(&self) -> impl Iterator<Item = &Connection> {
        let mut own: Vec<&Connection> = self.connections.iter().filter(|c| !c.transposed).collect();
        own.sort_by_key(|c| c.weight);
        own.into_iter()
    }

    /// True where feedback weights are the transposed forward weights: where no weight leads upwards.
    pub fn is_tied(&self) -> bool {
        self.connections.iter().all(|c| c.transposed || c.from > c.to)
    }

    /// True where it is a chain of layers and nothing else.
    pub fn is_layered(&self) -> bool {
        *self == Network::layered(self.dims.clone(), self.is_tied())
    }

    /// Pairs of a weight and the one that leads the other way, where that is one of its own: (θf, θb).
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&Connection, &Connection)> {
        let back = |there: &Connection| self.weights().find(|c| (c.from, c.to) == (there.to, there.from));
        self.weights().filter(|c| c.from > c.to).filter_map(move |there| Some((there, back(there)?)))
    }

    /// True where another weight of its own leads the other way.
    pub fn is_paired(&self, connection: &Connection) -> bool {
        self.pairs().any(|(there, back)| there == connection || back == connection)
    }

    /// The number of weights and biases.
    pub fn parameter_count(&self) -> usize {
        self.shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Name and shape of every tensor of θ: each layer's weight from above and its bias, and then all other weights.
    pub fn shapes(&self) -> Shapes {
        let weights = self.weights().map(|c| (format!("{}.weight", c.name()), self.shape_of(c)));
        let mut shapes: Shapes = weights.collect();
        for n in 0..=self.dims.depth() {
            shapes.insert(2 * n + 1, (format!("forward.{n}.bias"), vec![self.biases(n)]));
        }
        shapes
    }

    /// The shape of the weight of a connection: (d_to, d_from), or that of its filters.
    fn shape_of(&self, c: &Connection) -> Vec<usize> {
        match c.convolution {
            Some(convolution) => convolution.shape().to_vec(),
            None => vec![self.dims.width(c.to), self.dims.width(c.from)],
        }
    }

    /// The number of biases of layer `n`: one per neuron, or one per map.
    fn biases(&self, n: usize) -> usize {
        self.convolution_into(n).map_or(self.dims.width(n), |convolution| convolution.channels)
    }
}

/// A connection of every neuron with every other.
fn dense(from: usize, to: usize, weight: usize, transposed: bool) -> Connection {
    Connection { from, to, weight, transposed, convolution: None }
}

impl<const N: usize> From<[usize; N]> for Dims {
    fn from(sizes: [usize; N]) -> Self {
        Self(sizes.into())
    }
}

/// Names of tensors, with their shapes.
pub type Shapes = Vec<(String, Vec<usize>)>;

/// The initialisation of weights and biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// Weights U(±√(6/(fan_in + fan_out))), biases 0: "Glorot-initialized", as the paper says.
    Glorot,
    /// Weights and biases U(±1/√fan_in), as the authors' code does (PyTorch's `Linear`).
    FanIn,
}

/// θ: all weights and biases of a network, or anything of the same shape (updates, gradients).
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The network that they belong to.
    pub network: Arc<Network>,
    /// W of each of [`Network::weights`], (d_to, d_from); of a convolution (C', C, k, k), whichever way it leads.
    pub weights: Vec<Tensor>,
    /// b_n of each layer, (d_n,), output first; one for each map where a convolution leads to it, (C_n,).
    pub biases: Vec<Tensor>,
}

impl Parameters {
    /// Random initial parameters, the same for every dtype and device.
    ///
    /// Feedback weights of their own start as the transpose of the forward weights with each sign flipped with
    /// probability p(Ψ) = ½(1 − cos Ψ) (Eq. 103–104), Ψ = `psi_degrees`.
    ///
    /// # Errors
    /// Only those of candle (no memory, an unsupported dtype).
    pub fn init(
        network: impl Into<Arc<Network>>,
        init: Init,
        psi_degrees: f64,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let network = network.into();
        let dims = &network.dims;
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for connection in network.weights() {
            let weight = connection.weight;
            if let Some((there, _)) = network.pairs().find(|(_, back)| *back == connection) {
                weights.push(flip_signs(there, &weights[there.weight], psi_degrees, seed)?);
                continue;
            }
            let shape = network.shape_of(connection);
            // (C', C, k, k): k² neurons of each map.
            let field: usize = shape[2..].iter().product();
            let (fan_out, fan_in) = (shape[0] * field, shape[1] * field);
            let mut rng = rng::stream(seed, Purpose::Weights, weight as u64);
            let (weight_bound, bias_bound) = match init {
                Init::Glorot => ((6.0 / (fan_in + fan_out) as f64).sqrt(), 0.0),
                Init::FanIn => ((fan_in as f64).sqrt().recip(), (fan_in as f64).sqrt().recip()),
            };
            let mut draw = |bound, shape: &[usize]| {
                let values = rng::uniform(&mut rng, bound, shape.iter().product());
                Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
            };
            weights.push(draw(weight_bound, &shape)?);
            if weight <= dims.depth() {
                biases.push(draw(bias_bound, &shape[..1])?);
            }
        }
        Ok(Self { network, weights, biases })
    }

    /// N, the number of hidden layers.
    pub fn depth(&self) -> usize {
        self.biases.len() - 1
    }

    /// Element type of its tensors.
    pub fn dtype(&self) -> DType {
        self.biases[0].dtype()
    }

    /// The device of its tensors.
    pub fn device(&self) -> &Device {
        self.biases[0].device()
    }

    /// Wᵀ of a connection of every neuron with every other, (d_from, d_to): `s_from · Wᵀ` is its input into its
    /// destination.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn transposed(&self, connection: &Connection) -> Result<Tensor> {
        match (&self.weights[connection.weight], connection.transposed) {
            (weight, true) => Ok(weight.clone()),
            (weight, false) => weight.t(),
        }
    }

    /// The weights that look at images, a row for each neuron next to them or each filter: pixel after pixel, with the
    /// channels of each together.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn that_look_at_images(&self) -> Result<Vec<Vec<f32>>> {
        let last = self.depth();
        let weight = self.weights[last].to_dtype(DType::F32)?;
        match self.network.convolution_into(last) {
            Some(convolution) => weight.permute((0, 2, 3, 1))?.reshape((convolution.channels, ()))?.to_vec2(),
            None => weight.to_vec2(),
        }
    }

    /// All weights, and then all biases.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.weights.iter_mut().chain(&mut self.biases)
    }

    /// Name and tensor of everything, in the order of [`Network::shapes`].
    pub fn named(&self) -> Vec<(String, &Tensor)> {
        let biased = self.biases.len();
        let first = self.weights[..biased].iter().zip(&self.biases).flat_map(|(weight, bias)| [weight, bias]);
        let names = self.network.shapes().into_iter().map(|(name, _)| name);
        names.zip(first.chain(&self.weights[biased..])).collect()
    }

    /// Takes the tensors whose names are those of [`Parameters::named`] after `prefix`.
    ///
    /// # Errors
    /// As [`Parameters::from_named`].
    pub fn recall(&mut self, prefix: &str, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let own = tensors.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(prefix)?, tensor)));
        let own = own.map(|(weight, tensor)| (weight.to_string(), tensor.clone())).collect();
        let (dtype, device) = (self.dtype(), self.device().clone());
        *self = Self::from_named(&own, self.network.clone(), dtype, &device)?;
        Ok(())
    }

    /// Parameters from tensors named as in [`Parameters::named`], cast and moved as asked.
    /// Other names in the map are ignored.
    ///
    /// # Errors
    /// Names the tensor that is missing, has another shape than the network asks for, or does not hold finite floats.
    /// Where some are missing or of another shape it lists those that are needed and those that there are.
    pub fn from_named(
        tensors: &HashMap<String, Tensor>,
        network: impl Into<Arc<Network>>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let network = network.into();
        let shapes = network.shapes();
        let lists = || {
            let there = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()));
            let mut there: Shapes = there.collect();
            there.sort();
            let (needed, there) = (listed(&shapes), listed(&there));
            format!("the network {:?} needs {needed}; there are {there}", network.dims.0)
        };
        let get = |(name, shape): &(String, Vec<usize>)| -> Result<Tensor> {
            let Some(tensor) = tensors.get(name) else {
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
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for shape in &shapes {
            let of = if shape.1.len() == 1 { &mut biases } else { &mut weights };
            of.push(get(shape)?);
        }
        Ok(Self { network, weights, biases })
    }

    /// Combines each weight and bias with that of `other` by `change`, which also gets n of its learning rate η_n.
    ///
    /// # Errors
    /// Those of `change`, and where the two are of other networks.
    pub fn zip(
        &self,
        other: &Parameters,
        change: impl Fn(&Tensor, &Tensor, usize) -> Result<Tensor>,
    ) -> Result<Self> {
        if self.network != other.network {
            bail!("parameters of one network meet those of another");
        }
        let weights = (self.network.weights().zip(&self.weights).zip(&other.weights))
            .map(|((c, a), b)| change(a, b, c.rate()))
            .collect::<Result<_>>()?;
        let biases = (self.biases.iter().zip(&other.biases).enumerate())
            .map(|(n, (a, b))| change(a, b, n))
            .collect::<Result<_>>()?;
        Ok(Self { network: self.network.clone(), weights, biases })
    }

    /// θ + Σ scale(n)·update, where `scale(n)` is the factor of η_n. Biases keep the shape they have in θ.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn plus(&self, update: &Parameters, scale: impl Fn(usize) -> f64) -> Result<Self> {
        self.zip(update, |a, b, n| a + b.reshape(a.shape())?.affine(scale(n), 0.0)?)
    }

    /// Applies `change` to each tensor of θ.
    ///
    /// # Errors
    /// Those of `change`.
    pub fn map(&self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        self.zip(self, |tensor, _, _| change(tensor))
    }

    /// θ with untied feedback weights replaced by the transposed forward weights.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn symmetric(&self) -> Result<Self> {
        let mut symmetric = self.clone();
        for (there, back) in self.network.pairs() {
            symmetric.weights[back.weight] = there.turned(&self.weights[there.weight])?;
        }
        Ok(symmetric)
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
        let norm = |(c, weight): (&Connection, &Tensor)| Ok((c.name(), dot(weight, weight)?.sqrt()));
        self.network.weights().zip(&self.weights).map(norm).collect()
    }

    /// Ψ(θf, θb) in degrees for each pair of forward.n and the transpose of feedback.n, n = 0…N−1;
    /// empty where weights are tied.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn psi_degrees(&self) -> Result<Vec<f64>> {
        let angle = |(there, back): (&Connection, &Connection)| {
            angle_degrees(&self.weights[there.weight], &back.turned(&self.weights[back.weight])?)
        };
        self.network.pairs().map(angle).collect()
    }
}

/// Names of tensors with their shapes, in one line, however many there are and whatever their names.
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
fn flip_signs(there: &Connection, weight: &Tensor, psi_degrees: f64, seed: u64) -> Result<Tensor> {
    let p = 0.5 * (1.0 - psi_degrees.to_radians().cos());
    let mut rng = rng::stream(seed, Purpose::SignMask, there.weight as u64);
    let mask: Vec<f64> =
        (0..weight.elem_count()).map(|_| if rng.random::<f64>() < p { -1.0 } else { 1.0 }).collect();
    let mask = Tensor::from_vec(mask, weight.shape(), &Device::Cpu)?
        .to_dtype(weight.dtype())?
        .to_device(weight.device())?;
    there.turned(&(weight * mask)?)
}

/// True where all values are finite: a product of 0 with any other is not 0.
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
        let count = |tied| Network::layered(dims.clone(), tied).parameter_count();
        assert_eq!(count(true), 784 * 512 + 512 + 512 * 256 + 256 + 2560 + 10);
        assert_eq!(count(false), count(true) + 512 * 256 + 2560);
    }

    #[test]
    fn sign_flips_reach_the_asked_angle() -> Result<()> {
        for psi in [0.0, 22.5, 45.0, 90.0, 135.0, 180.0] {
            let network = Network::layered([20, 512, 512, 10], false);
            let theta = Parameters::init(network, Init::Glorot, psi, 1, DType::F32, &Device::Cpu)?;
            assert_eq!(theta.psi_degrees()?.len(), 2);
            for reached in theta.psi_degrees()? {
                assert!((reached - psi).abs() < 2.0, "asked {psi}, reached {reached}");
            }
        }
        Ok(())
    }

    #[test]
    fn initial_weights_fill_the_bounds() -> Result<()> {
        for (init, bound, bias) in [
            (Init::Glorot, (6.0f64 / 500.0).sqrt(), 0.0),
            (Init::FanIn, 300f64.sqrt().recip(), 300f64.sqrt().recip()),
        ] {
            let network = Network::layered([300, 200, 10], true);
            let theta = Parameters::init(network, init, 0.0, 1, DType::F64, &Device::Cpu)?;
            let largest = |t: &Tensor| t.abs()?.max_all()?.to_scalar::<f64>();
            let weight = largest(&theta.weights[1])?;
            assert!(weight <= bound && weight > 0.99 * bound);
            assert!(largest(&theta.biases[1])? <= bias);
        }
        Ok(())
    }
}
