//! The first (free) phase of a block: every image until it has settled.

use super::packing::Weights;
use super::panels::PanelsMut;
use super::sigma::Sigma;
use super::simd::{Lanes, Real, Vectorized, WIDTH};
use super::state::{Block, States, initial_state, read_and_write};
use super::step::{Arriving, Gates, Start, damp, step, sum};
use crate::model::anderson::{Anderson, epsilon};
use crate::model::dynamics::Layers;
use crate::model::{Model, Settle, Solver};

/// The first phase of a block. Leaves the states in `settled`, the input's contribution in `drive`, the count in
/// `steps`.
pub struct FirstPhase<'a, T> {
    /// The block.
    pub block: &'a mut Block<T>,
    /// Room for the images on the way.
    pub unsettled: &'a mut Unsettled<T>,
    /// θ.
    pub weights: &'a Weights<T>,
    /// F and T.
    pub model: &'a Model,
    /// σ.
    pub sigma: Sigma,
    /// Pixels, (rows, d_in).
    pub images: &'a [u8],
    /// The pixels that are not black: [`Block::active_pixels`].
    pub active_pixels: &'a [u32],
}

impl<T: Real> Vectorized<T> for FirstPhase<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { block, unsettled, weights, model, sigma, images, active_pixels } = self;
        let settle = &model.settle;
        block.load(weights, images, active_pixels);
        let Block { x, drive, settled, steps, .. } = block;
        drive_last_layer::<L>(weights, active_pixels, x, drive);
        unsettled.begin(weights, drive, settle);
        for sweep in 0..settle.sweeps() {
            let rows = unsettled.images.len();
            if rows == 0 {
                break;
            }
            unsettled.recent.rotate_left(1);
            for t in 0..settle.order.sweep() {
                let layers = settle.order.layers(t);
                let [_, s, s_next] = &mut unsettled.recent;
                // In order: the first step of a sweep reads the states that the last sweep left, the second those
                // that the first has written.
                let (read, mut s_next) = read_and_write(weights, (t == 0).then_some(s), s_next, layers);
                let arriving = Arriving { drive: &unsettled.drive, more: &[], s: &read };
                step::<L>(weights, sigma, arriving, layers, &mut s_next, Gates::Ignored);
                if settle.damping > 0.0 {
                    damp::<L>(&mut s_next, s, layers, settle.damping);
                }
            }
            *steps += rows * settle.order.sweep();
            let last = sweep + 1 == settle.sweeps();
            if last || settle.looks_after(sweep) {
                for row in (0..rows).rev() {
                    if last || unsettled.change::<L>(weights, row).to_f64() <= settle.tolerance {
                        unsettled.leave(weights, row, settled);
                    }
                }
            }
            if settle.mixes_after(sweep) {
                unsettled.mix::<L>(weights, settle.read_first());
            }
        }
    }
}

/// u = W_x·x + b_N, the input's contribution to layer N.
#[inline(always)]
pub fn drive_last_layer<L: Lanes>(
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
    /// s before the last two sweeps, before the last, and after it.
    recent: [States<T>; 3],
    /// The mixer of each image of the block, settled or not; empty where sweeps are not accelerated.
    mixers: Vec<Anderson<T>>,
}

impl<T: Real> Unsettled<T> {
    /// All images, in their initial state.
    fn begin(&mut self, weights: &Weights<T>, drive: &[T], settle: &Settle) {
        let images = drive.len() / weights.stride(weights.last());
        if settle.solver == Solver::Anderson {
            self.mixers.resize_with(images, || Anderson::new(settle.window, epsilon(T::DTYPE)));
            self.mixers.iter_mut().for_each(Anderson::reset);
        }
        self.images.clear();
        self.images.extend(0..images);
        self.drive.clear();
        self.drive.extend_from_slice(drive);
        for states in &mut self.recent {
            initial_state(weights, images, states);
        }
    }

    /// Replaces the states of these layers after a sweep by those that each image's mixer gives.
    #[inline(always)]
    fn mix<L: Lanes<Elem = T>>(&mut self, weights: &Weights<T>, layers: Layers) {
        let [_, s, s_next] = &mut self.recent;
        for (row, &image) in self.images.iter().enumerate() {
            let place = |n: usize| row * weights.stride(n)..row * weights.stride(n) + weights.widths[n];
            let chosen = |n: &usize| layers.contains(*n);
            let before: Vec<&[T]> = (0..s.len()).filter(chosen).map(|n| &s[n][place(n)]).collect();
            let mut after: Vec<&mut [T]> = (s_next.iter_mut().enumerate())
                .filter(|(n, _)| layers.contains(*n))
                .map(|(n, layer)| &mut layer[place(n)])
                .collect();
            self.mixers[image].mix(&before, &mut after);
        }
    }

    /// The largest change of any neuron of an image in the last sweep.
    #[inline(always)]
    fn change<L: Lanes<Elem = T>>(&self, weights: &Weights<T>, row: usize) -> T {
        let [_, s, s_next] = &self.recent;
        let mut largest = L::number(0.0);
        for (n, (next, s)) in s_next.iter().zip(s).enumerate() {
            // Lanes past the last neuron settle on their own; with damping later than accelerated ones.
            let row = row * weights.stride(n)..row * weights.stride(n) + weights.widths[n];
            let (next, next_rest) = next[row.clone()].as_chunks::<WIDTH>();
            let (s, s_rest) = s[row].as_chunks::<WIDTH>();
            let mut add = |next: &[T; WIDTH], s: &[T; WIDTH]| {
                let change = L::load(next).sub(L::load(s));
                largest = largest.max(change).max(L::number(0.0).sub(change));
            };
            for (next, s) in next.iter().zip(s) {
                add(next, s);
            }
            let [mut last, mut last_before] = [[T::default(); WIDTH]; 2];
            last[..next_rest.len()].copy_from_slice(next_rest);
            last_before[..s_rest.len()].copy_from_slice(s_rest);
            add(&last, &last_before);
        }
        let mut lanes = [T::default(); WIDTH];
        largest.store(&mut lanes);
        lanes.into_iter().fold(T::default(), |a, b| if b > a { b } else { a })
    }

    /// Takes out an image that has settled: its states move to `settled`, and the last row takes its place.
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
