//! The first phase: every image until it has settled.

use super::block::{Block, Gates, Shared, States, Weights, damp, splat, step};
use super::lanes::{Kernel, Lanes, Real, WIDTH};
use crate::model::Model;

/// The first phase of a block.
pub struct FirstPhase<'a, T> {
    /// The block; its `settled` states and `drive` are computed.
    pub block: &'a mut Block<T>,
    /// θ.
    pub weights: &'a Weights<T>,
    /// F and T.
    pub model: &'a Model,
    /// Pixels, (rows, d_in).
    pub images: &'a [u8],
    /// Which of them to look at: [`Block::lit`].
    pub lit: &'a [u32],
}

impl<T: Real> Kernel<T> for FirstPhase<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { block, weights, model, images, lit } = self;
        let Model { dynamics, settle: first, .. } = model;
        block.begin::<L>(weights, images, lit);
        let Block { moving, settled, drive, steps, .. } = block;
        moving.begin(weights, drive);
        let all = &weights.panels(1)[0];
        for t in 0..first.steps {
            let rows = moving.images.len();
            if rows == 0 {
                break;
            }
            moving.recent.rotate_left(1);
            let [_, s, s_next] = &mut moving.recent;
            // SAFETY: nobody else has them.
            unsafe {
                let s_next = Shared::all(s_next);
                step::<L>(weights, dynamics.activation, &moving.drive, &[], s, &s_next, all, Gates::Ignored);
                if dynamics.damping > 0.0 {
                    damp::<L>(weights, rows, &s_next, s, all, dynamics.damping);
                }
            }
            *steps += rows;
            let last = t + 1 == first.steps;
            if last || first.looks_at(t) {
                for row in (0..rows).rev() {
                    if last || moving.change::<L>(weights, row).to_f64() <= first.tolerance {
                        moving.leave(weights, row, settled);
                    }
                }
            }
        }
    }
}

/// The images of a block that have not settled yet, packed: row i of each is image `images[i]`.
#[derive(Default)]
pub struct Moving<T> {
    images: Vec<usize>,
    /// Their rows of [`Block::drive`].
    drive: Vec<T>,
    /// s_{t−2}, s_{t−1} and s_t.
    recent: [States<T>; 3],
}

impl<T: Real> Moving<T> {
    /// All images, at rest.
    fn begin(&mut self, weights: &Weights<T>, drive: &[T]) {
        let images = drive.len() / weights.stride(weights.last());
        self.images.clear();
        self.images.extend(0..images);
        self.drive.clear();
        self.drive.extend_from_slice(drive);
        for states in &mut self.recent {
            weights.rest(images, states);
        }
    }

    /// The largest |s_t − s_{t−1}| of any neuron of an image.
    #[inline(always)]
    fn change<L: Lanes<Elem = T>>(&self, weights: &Weights<T>, row: usize) -> T {
        let [_, s, s_next] = &self.recent;
        let mut largest = splat::<L>(0.0);
        for (n, (next, s)) in s_next.iter().zip(s).enumerate() {
            let row = row * weights.stride(n)..(row + 1) * weights.stride(n);
            for (next, s) in next[row.clone()].chunks_exact(WIDTH).zip(s[row].chunks_exact(WIDTH)) {
                // SAFETY: each chunk is WIDTH long.
                let change = unsafe { L::load(next.as_ptr()).sub(L::load(s.as_ptr())) };
                largest = largest.max(change).max(splat::<L>(0.0).sub(change));
            }
        }
        let mut lanes = [T::default(); WIDTH];
        unsafe { largest.store(lanes.as_mut_ptr()) };
        lanes.into_iter().fold(T::default(), |a, b| if b > a { b } else { a })
    }

    /// An image is through: its states go to `settled`, and the last row takes its place.
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
