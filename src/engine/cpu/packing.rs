//! Weights packed in panels of destination neurons.

use super::gemm::Term;
use super::simd::{Real, WIDTH};
use crate::model::{Network, Parameters};
use candle_core::{Device, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// All weights from one layer into another: for each panel of [`WIDTH`] destination neurons, one row
/// of [`WIDTH`] weights for each source neuron. Lanes past the last destination neuron hold zeros.
#[derive(Clone)]
pub struct PackedMatrix<T> {
    /// The number of source neurons.
    pub from: usize,
    /// The number of destination neurons.
    pub to: usize,
    /// `[panel][source][lane]`.
    pub panels: Vec<T>,
}

/// The number of panels that hold `width` numbers.
fn panel_count(width: usize) -> usize {
    width.div_ceil(WIDTH)
}

impl<T: Real> PackedMatrix<T> {
    /// A matrix of zeros.
    pub fn zeros(from: usize, to: usize) -> Self {
        let panels = vec![T::default(); panel_count(to) * from * WIDTH];
        Self { from, to, panels }
    }

    /// Packs a weight matrix of shape (to, from), as `Linear` layers have it.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn pack(weight: &Tensor) -> Result<Self> {
        let (to, from) = weight.dims2()?;
        let rows = weight.to_dtype(T::DTYPE)?.flatten_all()?.to_vec1::<T>()?;
        let mut packed = Self::zeros(from, to);
        for (to, row) in rows.chunks_exact(from).enumerate() {
            let panel = &mut packed.panels[to / WIDTH * from * WIDTH..];
            for (lanes, &w) in panel.chunks_exact_mut(WIDTH).zip(row) {
                lanes[to % WIDTH] = w;
            }
        }
        Ok(packed)
    }

    /// The weight matrix of shape (to, from).
    ///
    /// # Errors
    /// Only those of candle.
    pub fn unpack(&self) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(self.to * self.from);
        for to in 0..self.to {
            let panel = &self.panels[to / WIDTH * self.from * WIDTH..];
            rows.extend(panel.chunks_exact(WIDTH).take(self.from).map(|lanes| lanes[to % WIDTH]));
        }
        Tensor::from_vec(rows, (self.to, self.from), &Device::Cpu)
    }

    /// W·s: the contributions of states of the source layer, row-major with `stride` between rows, to the
    /// destination.
    pub fn times<'a>(&'a self, states: &'a [T], stride: usize) -> Term<'a, T> {
        Term {
            a: states,
            a_row: stride,
            a_k: 1,
            b: &self.panels,
            b_panel: self.from * WIDTH,
            b_k: WIDTH,
            b_only: None,
            depth: self.from,
        }
    }

    /// W·s where only the `active` source neurons are not 0, and `states` holds no others.
    pub fn times_active<'a>(&'a self, active: &'a [u32], states: &'a [T]) -> Term<'a, T> {
        Term { b_only: Some(active), depth: active.len(), ..self.times(states, active.len()) }
    }
}

/// All weights from layer `from` into layer `to`.
pub struct Connection<T> {
    /// Source layer.
    pub from: usize,
    /// Destination layer.
    pub to: usize,
    /// The weights.
    pub matrix: PackedMatrix<T>,
}

impl<T> Connection<T> {
    /// n of its learning rate, as [`crate::model::Connection::rate`].
    pub fn rate(&self) -> usize {
        self.from.min(self.to)
    }
}

/// All weights and biases, packed.
pub struct Weights<T> {
    /// The network that the weights belong to.
    pub network: Arc<Network>,
    /// d_n, output first, without the input.
    pub widths: Vec<usize>,
    /// W_x.
    pub input: PackedMatrix<T>,
    /// Everything between layers, in both directions, by destination and then source from above first.
    pub between: Vec<Connection<T>>,
    /// b_n, padded with zeros to whole panels.
    pub bias: Vec<Vec<T>>,
}

impl<T: Real> Weights<T> {
    /// Packs θ.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn pack(theta: &Parameters) -> Result<Self> {
        let network = theta.network.clone();
        let last = theta.depth();
        let mut between = Vec::new();
        for connection in network.connections().iter().filter(|c| c.from <= last) {
            let weight = theta.transposed(connection)?.t()?.contiguous()?;
            let (from, to) = (connection.from, connection.to);
            between.push(Connection { from, to, matrix: PackedMatrix::pack(&weight)? });
        }
        Ok(Self {
            widths: (0..=last).map(|n| network.dims.width(n)).collect(),
            input: PackedMatrix::pack(&theta.weights[last])?,
            between,
            bias: theta.biases.iter().map(pad).collect::<Result<_>>()?,
            network,
        })
    }

    /// θ.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn unpack(&self) -> Result<Parameters> {
        let of = |from: usize, to: usize| self.between.iter().find(|c| (c.from, c.to) == (from, to));
        let weight =
            |c: &crate::model::Connection| of(c.from, c.to).map_or(&self.input, |c| &c.matrix).unpack();
        let bias =
            |(bias, width): (&Vec<T>, &usize)| Tensor::from_slice(&bias[..*width], *width, &Device::Cpu);
        Ok(Parameters {
            network: self.network.clone(),
            weights: self.network.weights().map(weight).collect::<Result<_>>()?,
            biases: self.bias.iter().zip(&self.widths).map(bias).collect::<Result<_>>()?,
        })
    }

    /// Weights of the network that are all zero.
    pub fn zeros(&self) -> Self {
        let zeros = |matrix: &PackedMatrix<T>| PackedMatrix::zeros(matrix.from, matrix.to);
        let between = self.between.iter().map(|c| Connection { matrix: zeros(&c.matrix), ..*c });
        Self {
            network: self.network.clone(),
            widths: self.widths.clone(),
            input: zeros(&self.input),
            between: between.collect(),
            bias: self.bias.iter().map(|bias| vec![T::default(); bias.len()]).collect(),
        }
    }

    /// All numbers of each matrix and each bias.
    pub fn parts_mut(&mut self) -> Vec<&mut [T]> {
        let matrices = self.between.iter_mut().map(|c| &mut c.matrix).chain([&mut self.input]);
        let matrices = matrices.map(|matrix| &mut matrix.panels[..]);
        matrices.chain(self.bias.iter_mut().map(|bias| &mut bias[..])).collect()
    }

    /// N, the last hidden layer.
    pub fn last(&self) -> usize {
        self.widths.len() - 1
    }

    /// Distance between the rows of states of layer n.
    pub fn stride(&self, n: usize) -> usize {
        panel_count(self.widths[n]) * WIDTH
    }

    /// The panels of every layer in `parts` parts, one for each thread.
    pub fn panels(&self, parts: usize) -> Vec<Vec<Range<usize>>> {
        let part = |i: usize| {
            let some = |n: usize| {
                let (count, share) =
                    (panel_count(self.widths[n]), panel_count(self.widths[n]).div_ceil(parts));
                count.min(i * share)..count.min((i + 1) * share)
            };
            (0..self.widths.len()).map(some).collect()
        };
        (0..parts).map(part).collect()
    }
}

/// A bias vector, padded with zeros to whole panels.
fn pad<T: Real>(bias: &Tensor) -> Result<Vec<T>> {
    let mut bias = bias.to_dtype(T::DTYPE)?.to_vec1::<T>()?;
    bias.resize(panel_count(bias.len()) * WIDTH, T::default());
    Ok(bias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_undoes_packing() -> Result<()> {
        for (to, from) in [(10, 37), (16, 5), (33, 17)] {
            let weight = Tensor::rand(-1f32, 1f32, (to, from), &Device::Cpu)?;
            let unpacked = PackedMatrix::<f32>::pack(&weight)?.unpack()?;
            assert_eq!(weight.to_vec2::<f32>()?, unpacked.to_vec2::<f32>()?);
        }
        Ok(())
    }
}
