//! The data of a block of images: its input, its states, and the output of a step of the second phase.

use super::packing::Weights;
use super::panels::PanelsMut;
use super::simd::Real;
use crate::engine::{Report, larger};
use crate::learning::SigmaPrime;
use crate::model::Loss;
use crate::model::dynamics::Layers;
use std::ops::{Range, RangeInclusive};

/// The smallest and the largest number of images in a block. Smaller blocks would wait for the weights from memory.
pub const BLOCK: RangeInclusive<usize> = 5..=10;

/// States of all layers of a block: layer n is row-major (images, stride(n)).
pub type States<T> = Vec<Vec<T>>;

/// Makes `states` s_0 = 0 for so many images.
pub fn initial_state<T: Real>(weights: &Weights<T>, rows: usize, states: &mut States<T>) {
    states.resize_with(weights.widths.len(), Vec::new);
    for (n, layer) in states.iter_mut().enumerate() {
        layer.clear();
        layer.resize(rows * weights.stride(n), T::default());
    }
}

/// All panels of these layers of `s_next`, to be written, and the states to be read for that: `s`, or the other
/// layers of `s_next` itself where `s` is `None`. Layers that are not to be read or written are empty.
pub fn read_and_write<'a, T: Real>(
    weights: &Weights<T>,
    s: Option<&'a States<T>>,
    s_next: &'a mut States<T>,
    layers: Layers,
) -> (Vec<&'a [T]>, Vec<PanelsMut<'a, T>>) {
    let split = s_next.iter_mut().enumerate().map(|(n, layer)| -> (&[T], &mut [T]) {
        match (s, layers.contains(n)) {
            (Some(s), true) => (&s[n], layer),
            (Some(s), false) => (&s[n], &mut []),
            (None, true) => (&[], layer),
            (None, false) => (layer, &mut []),
        }
    });
    let (read, write): (Vec<&[T]>, Vec<&mut [T]>) = split.unzip();
    let panels = write.into_iter().enumerate().map(|(n, layer)| PanelsMut::whole(layer, weights.stride(n)));
    (read, panels.collect())
}

/// All layers, to be read.
pub fn all<T>(states: &States<T>) -> Vec<&[T]> {
    states.iter().map(|layer| &layer[..]).collect()
}

/// The panels of all layers for each part, given its range of panels in every layer; empty for states of no layers.
fn split_panels<'a, T: Real>(
    weights: &Weights<T>,
    states: &'a mut States<T>,
    parts: &[Vec<Range<usize>>],
) -> Vec<Vec<PanelsMut<'a, T>>> {
    let mut split: Vec<Vec<PanelsMut<T>>> = parts.iter().map(|_| Vec::with_capacity(states.len())).collect();
    for (n, layer) in states.iter_mut().enumerate() {
        let panels = PanelsMut::split(layer, weights.stride(n), parts.iter().map(|part| part[n].clone()));
        for (part, panels) in split.iter_mut().zip(panels) {
            part.push(panels);
        }
    }
    split
}

/// A block of images: the input of a step.
#[derive(Default)]
pub struct Block<T> {
    /// The number of images.
    pub rows: usize,
    /// The numbers of the pixels that are not black in all images of the block, and perhaps others.
    pub active_pixels: Vec<u32>,
    /// x = byte/255 of those pixels, (rows, active_pixels.len()).
    pub x: Vec<T>,
    /// u_0 = W_x·x + b_N as the second phase begins, (rows, stride(N)).
    pub drive: Vec<T>,
    /// s before the last two sweeps of the first phase, before the last, and after it, which is s_*.
    pub settled: [States<T>; 3],
    /// Σ steps of the first phase over the images.
    pub steps: usize,
    /// s_t of the second phase.
    pub s: States<T>,
    /// The sum over the steps so far of what the forward connections into each layer learn from: s_t − s_* where σ′
    /// is ignored (of layer N only, the only one needed), Σ σ′⊙Δs where it gates Δs (of all layers).
    pub drift: States<T>,
}

impl<T: Real> Block<T> {
    /// The end of the second phase.
    pub fn end(&self) -> End<T> {
        End { s: self.s.clone(), drift: self.drift.clone() }
    }

    /// Loads images that have no other pixels than these, and sizes everything for them.
    pub fn load(&mut self, weights: &Weights<T>, images: &[u8], active_pixels: &[u32]) {
        let width = weights.input.from;
        self.rows = images.len() / width;
        self.active_pixels.clear();
        self.active_pixels.extend_from_slice(active_pixels);
        self.x.resize(self.rows * active_pixels.len(), T::default());
        self.drive.resize(self.rows * weights.stride(weights.last()), T::default());
        initial_state(weights, self.rows, &mut self.drift);
        self.steps = 0;
        for states in &mut self.settled {
            initial_state(weights, self.rows, states);
        }
        for (x, image) in self.x.chunks_exact_mut(active_pixels.len()).zip(images.chunks_exact(width)) {
            for (x, &pixel) in x.iter_mut().zip(active_pixels) {
                *x = T::from_f64(f64::from(image[pixel as usize]) / 255.0);
            }
        }
    }

    /// Adds the outcome of the first phase to `report`.
    ///
    /// # Errors
    /// Those of the loss.
    pub fn report(
        &self,
        weights: &Weights<T>,
        loss: Loss,
        labels: &[u8],
        report: &mut Report,
    ) -> candle_core::Result<()> {
        let [older, old, s] = &self.settled;
        report.steps += self.steps;
        for (row, &label) in labels.iter().enumerate() {
            let output: Vec<f64> =
                (s[0][row * weights.stride(0)..][..weights.widths[0]].iter()).map(|s| s.to_f64()).collect();
            let [residual, two_steps] = [old, older].map(|before| largest_change(weights, s, before, row));
            report.add_image(loss, &output, label, residual, two_steps)?;
        }
        Ok(())
    }

    /// Begins the second (nudged) phase at s_0 = s_*.
    pub fn begin_second_phase(&mut self, first: &mut Move<T>, sigma_prime: SigmaPrime) {
        self.s.clone_from(&self.settled[2]);
        first.layers = Layers::All;
        first.s_next.clone_from(&self.s);
        first.delta.clone_from(&self.s);
        first.delta_feedback.clear();
        if sigma_prime == SigmaPrime::Partial {
            first.delta_feedback.clone_from(&self.s);
        }
        self.drift.iter_mut().for_each(|layer| layer.fill(T::default()));
    }

    /// Makes s_{t+1} the state, and adds the step to the drift.
    pub fn advance(&mut self, step: &mut Move<T>, sigma_prime: SigmaPrime) {
        let last = self.s.len() - 1;
        for n in (0..=last).filter(|&n| step.layers.contains(n)) {
            std::mem::swap(&mut self.s[n], &mut step.s_next[n]);
            if sigma_prime == SigmaPrime::Ignored {
                if n == last {
                    subtract(&mut self.drift[last], &self.s[last], &self.settled[2][last]);
                }
            } else {
                for (drift, &delta) in self.drift[n].iter_mut().zip(&step.delta[n]) {
                    *drift += delta;
                }
            }
        }
    }

    /// Makes the whole second phase, from s_* to s_K, one step; its gates are those of all its steps. Given `other`,
    /// the end of a first phase, it is the step from s_K of this second one to s_K of the first.
    pub fn whole_phase(&mut self, step: &mut Move<T>, sigma_prime: SigmaPrime, other: Option<&End<T>>) {
        step.layers = Layers::All;
        match other {
            None => {
                std::mem::swap(&mut self.s, &mut step.s_next);
                self.s.clone_from(&self.settled[2]);
            }
            Some(other) => step.s_next.clone_from(&other.s),
        }
        if sigma_prime != SigmaPrime::Ignored {
            step.delta.clone_from(&self.drift);
            for (delta, other) in
                step.delta.iter_mut().flatten().zip(other.iter().flat_map(|o| o.drift.iter().flatten()))
            {
                *delta = *other - *delta;
            }
            return;
        }
        for ((delta, next), s) in step.delta.iter_mut().zip(&step.s_next).zip(&self.s) {
            subtract(delta, next, s);
        }
    }
}

/// The end of a second phase of a block.
#[derive(Default)]
pub struct End<T> {
    /// s_K.
    s: States<T>,
    /// [`Block::drift`].
    drift: States<T>,
}

/// The largest |s − before| of any neuron of an image, or NaN where one of them is.
fn largest_change<T: Real>(weights: &Weights<T>, s: &States<T>, before: &States<T>, row: usize) -> f64 {
    let mut largest = 0.0;
    for (n, &width) in weights.widths.iter().enumerate() {
        let row = row * weights.stride(n)..row * weights.stride(n) + width;
        let mut layer = T::default();
        let mut sum = T::default();
        for (&a, &b) in s[n][row.clone()].iter().zip(&before[n][row]) {
            let change = if a > b { a - b } else { b - a };
            layer = if change > layer { change } else { layer };
            sum += change;
        }
        // A comparison ignores a NaN; a sum does not.
        let layer = layer.to_f64();
        largest = larger(largest, if sum.to_f64().is_nan() { f64::NAN } else { layer });
    }
    largest
}

/// out = a − b.
#[inline(always)]
fn subtract<T: Real>(out: &mut [T], a: &[T], b: &[T]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = a - b;
    }
}

/// The output of a step of the second phase.
pub struct Move<T> {
    /// The layers that it moves. The fields below mean nothing for other layers.
    pub layers: Layers,
    /// s_{t+1}.
    pub s_next: States<T>,
    /// Δs = s_{t+1} − s_t for the forward connections into each layer, gated as [`SigmaPrime`] says.
    pub delta: States<T>,
    /// Δs for the feedback connections into each layer; empty where it is `delta`.
    pub delta_feedback: States<T>,
}

impl<T> Default for Move<T> {
    fn default() -> Self {
        let (s_next, delta, delta_feedback) = Default::default();
        Self { layers: Layers::All, s_next, delta, delta_feedback }
    }
}

/// Some panels of every layer of a [`Move`], for one thread to write.
pub struct MoveMut<'a, T> {
    /// s_{t+1}.
    pub s_next: Vec<PanelsMut<'a, T>>,
    /// As in [`Move`].
    pub delta: Vec<PanelsMut<'a, T>>,
    /// As in [`Move`].
    pub delta_feedback: Vec<PanelsMut<'a, T>>,
}

impl<T: Real> Move<T> {
    /// Δs of layer `to`, as gated for the connections from layer `from`.
    pub fn delta(&self, from: usize, to: usize) -> &[T] {
        match from > to || self.delta_feedback.is_empty() {
            true => &self.delta[to],
            false => &self.delta_feedback[to],
        }
    }

    /// Splits the move into parts of [`Weights::panels`].
    pub fn split<'a>(
        &'a mut self,
        weights: &Weights<T>,
        parts: &[Vec<Range<usize>>],
    ) -> impl Iterator<Item = MoveMut<'a, T>> + use<'a, T> {
        let Self { s_next, delta, delta_feedback, .. } = self;
        let [s_next, delta, delta_feedback] =
            [s_next, delta, delta_feedback].map(|states| split_panels(weights, states, parts));
        (s_next.into_iter().zip(delta).zip(delta_feedback)).map(|((s_next, delta), delta_feedback)| MoveMut {
            s_next,
            delta,
            delta_feedback,
        })
    }
}
