//! The first (free) phase of a block: every image until it has settled.

use super::packing::Weights;
use super::panels::PanelsMut;
use super::simd::{Lanes, Real, Vectorized, WIDTH};
use super::state::{Block, States, all_panels, initial_state};
use super::step::{Gates, Start, damp, step, sum};
use crate::model::Model;

/// The first phase of a block. Leaves its `settled` states, its `drive` and its `steps`.
pub struct FirstPhase<'a, T> {
    /// The block.
    pub block: &'a mut Block<T>,
    /// Room for the images on the way.
    pub unsettled: &'a mut Unsettled<T>,
    /// θ.
    pub weights: &'a Weights<T>,
    /// F and T.
    pub model: &'a Model,
    /// Pixels, (rows, d_in).
    pub images: &'a [u8],
    /// Which of them to look at: [`Block::active_pixels`].
    pub active_pixels: &'a [u32],
}

impl<T: Real> Vectorized<T> for FirstPhase<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { block, unsettled, weights, model, images, active_pixels } = self;
        let Model { dynamics, settle, .. } = model;
        block.load(weights, images, active_pixels);
        let Block { x, drive, settled, steps, .. } = block;
        drive_last_layer::<L>(weights, active_pixels, x, drive);
        unsettled.begin(weights, drive);
        for t in 0..settle.steps {
            let rows = unsettled.images.len();
            if rows == 0 {
                break;
            }
            unsettled.recent.rotate_left(1);
            let [_, s, s_next] = &mut unsettled.recent;
            let s_next = &mut all_panels(weights, s_next);
            step::<L>(weights, dynamics.activation, &unsettled.drive, &[], s, s_next, Gates::Ignored);
            if dynamics.damping > 0.0 {
                damp::<L>(s_next, s, dynamics.damping);
            }
            *steps += rows;
            let last = t + 1 == settle.steps;
            if last || settle.looks_at(t) {
                for row in (0..rows).rev() {
                    if last || unsettled.change::<L>(weights, row).to_f64() <= settle.tolerance {
                        unsettled.leave(weights, row, settled);
                    }
                }
            }
        }
    }
}

/// u = W_x·x + b_N, what the input contributes to layer N.
#[inline(always)]
fn drive_last_layer<L: Lanes>(
    weights: &Weights<L::Elem>,
    active_pixels: &[u32],
    x: &[L::Elem],
    drive: &mut [L::Elem],
) {
    let last = weights.last();
    let bias = Start::Same(weights.bias[last].as_chunks().0);
    let term = weights.input.times_active(active_pixels, x);
    sum::<L>(bias, &[term], &mut PanelsMut::whole(drive, weights.stride(last)));
}

/// The images of a block that have not settled yet, packed: row i of each is image `images[i]`.
#[derive(Default)]
pub struct Unsettled<T> {
    images: Vec<usize>,
    /// Their rows of [`Block::drive`].
    drive: Vec<T>,
    /// s_{t−2}, s_{t−1} and s_t.
    recent: [States<T>; 3],
}

impl<T: Real> Unsettled<T> {
    /// All images, in their initial state.
    fn begin(&mut self, weights: &Weights<T>, drive: &[T]) {
        let images = drive.len() / weights.stride(weights.last());
        self.images.clear();
        self.images.extend(0..images);
        self.drive.clear();
        self.drive.extend_from_slice(drive);
        for states in &mut self.recent {
            initial_state(weights, images, states);
        }
    }

    /// The largest |s_t − s_{t−1}| of any neuron of an image.
    #[inline(always)]
    fn change<L: Lanes<Elem = T>>(&self, weights: &Weights<T>, row: usize) -> T {
        let [_, s, s_next] = &self.recent;
        let mut largest = L::number(0.0);
        for (n, (next, s)) in s_next.iter().zip(s).enumerate() {
            let row = row * weights.stride(n)..(row + 1) * weights.stride(n);
            let (next, s): (&[[T; WIDTH]], _) = (next[row.clone()].as_chunks().0, s[row].as_chunks().0);
            for (next, s) in next.iter().zip(s) {
                let change = L::load(next).sub(L::load(s));
                largest = largest.max(change).max(L::number(0.0).sub(change));
            }
        }
        let mut lanes = [T::default(); WIDTH];
        largest.store(&mut lanes);
        lanes.into_iter().fold(T::default(), |a, b| if b > a { b } else { a })
    }

    /// Takes out an image that has settled: its states go to `settled`, and the last row takes its place.
    fn leave(&mut self, weights: &Weights<T>, row: usize, settled: &mut [States<T>; 3]) {
        let image = self.images.swap_remove(row);
        for (recent, settled) in self.recent.iter_mut().zip(settled) {
            for (n, (recent, settled)) in recent.iter_mut().zip(settled).enumerate() {
                let stride = weights.stride(n);
                settled[image * stride..][..stride].copy_from_slice(&recent[row * stride..][..stride]);
                swap_remove_row(recent, stride, row);
            }
        }
        swap_remove_row(&mut self.drive, weights.stride(weights.last()), row);
    }
}

/// [`Vec::swap_remove`] of a row of `stride` numbers.
fn swap_remove_row<T: Copy>(rows: &mut Vec<T>, stride: usize, row: usize) {
    let last = rows.len() - stride;
    rows.copy_within(last.., row * stride);
    rows.truncate(last);
}
