//! Weight matrices packed in panels of destination neurons.

use super::lanes::{Real, WIDTH};
use super::sweep::Term;
use candle_core::{Device, Result, Tensor};

/// All weights from one layer into another: for each panel of [`WIDTH`] destination neurons, one row
/// of [`WIDTH`] weights for each source neuron. Lanes past the last destination neuron hold zeros.
#[derive(Clone)]
pub struct Synapses<T> {
    /// How many source neurons.
    pub from: usize,
    /// How many destination neurons.
    pub to: usize,
    /// `[panel][source][lane]`.
    pub panels: Vec<T>,
}

/// How many panels hold `width` numbers.
pub fn panel_count(width: usize) -> usize {
    width.div_ceil(WIDTH)
}

impl<T: Real> Synapses<T> {
    /// No connection at all.
    pub fn zeros(from: usize, to: usize) -> Self {
        let panels = vec![T::default(); panel_count(to) * from * WIDTH];
        Self { from, to, panels }
    }

    /// Packs a weight matrix of shape (to, from), as `Linear` layers have it.
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
    pub fn unpack(&self) -> Result<Tensor> {
        let mut rows = Vec::with_capacity(self.to * self.from);
        for to in 0..self.to {
            let panel = &self.panels[to / WIDTH * self.from * WIDTH..];
            rows.extend(panel.chunks_exact(WIDTH).take(self.from).map(|lanes| lanes[to % WIDTH]));
        }
        Tensor::from_vec(rows, (self.to, self.from), &Device::Cpu)
    }

    /// The input of the destination layer from source states, row-major with `a_row` between rows.
    pub fn input<'a>(&'a self, states: &'a [T], a_row: usize) -> Term<'a, T> {
        Term {
            a: states,
            a_row,
            a_k: 1,
            b: &self.panels,
            b_panel: self.from * WIDTH,
            b_k: WIDTH,
            b_only: None,
            depth: self.from,
        }
    }

    /// The same where only the source neurons `only` are not 0, and `states` holds no others.
    pub fn input_of<'a>(&'a self, only: &'a [u32], states: &'a [T]) -> Term<'a, T> {
        Term { b_only: Some(only), depth: only.len(), ..self.input(states, only.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_undoes_packing() -> Result<()> {
        for (to, from) in [(10, 37), (16, 5), (33, 17)] {
            let weight = Tensor::rand(-1f32, 1f32, (to, from), &Device::Cpu)?;
            let unpacked = Synapses::<f32>::pack(&weight)?.unpack()?;
            assert_eq!(weight.to_vec2::<f32>()?, unpacked.to_vec2::<f32>()?);
        }
        Ok(())
    }
}
