//! Blocks of images, the step that both phases take, and the second phase.

use super::lanes::{Kernel, Lanes, Real, WIDTH};
use super::settling::Moving;
use super::sweep::{Output, Term, sweep};
use super::synapses::{Synapses, panel_count};
use crate::activation::Activation;
use crate::engine::{Report, larger};
use candle_core::{Tensor, WithDType};
use std::ops::RangeInclusive;

/// How many images make a block, at the least and at the most. Fewer would wait for the weights to stream by.
pub const BLOCK: RangeInclusive<usize> = 5..=10;

/// All weights from layer `from` into layer `to`.
pub struct Connection<T> {
    /// Source layer.
    pub from: usize,
    /// Destination layer.
    pub to: usize,
    /// The weights.
    pub synapses: Synapses<T>,
}

impl<T> Connection<T> {
    /// n of forward.n or feedback.n, which names the learning rate.
    pub fn layer(&self) -> usize {
        self.from.min(self.to)
    }
}

/// All weights and biases, packed.
pub struct Weights<T> {
    /// d_n, output first, without the input.
    pub widths: Vec<usize>,
    /// W_x.
    pub input: Synapses<T>,
    /// Everything between layers, in both directions, by destination and then source from above first.
    pub between: Vec<Connection<T>>,
    /// b_n, padded with zeros to whole panels.
    pub bias: Vec<Vec<T>>,
}

impl<T: Real> Weights<T> {
    /// N, the last hidden layer.
    pub fn last(&self) -> usize {
        self.widths.len() - 1
    }

    /// Distance between the rows of states of layer n.
    pub fn stride(&self, n: usize) -> usize {
        panel_count(self.widths[n]) * WIDTH
    }

    /// Puts the states of so many images to rest: s_0 = 0.
    pub fn rest(&self, rows: usize, states: &mut States<T>) {
        states.resize_with(self.widths.len(), Vec::new);
        for (n, layer) in states.iter_mut().enumerate() {
            layer.clear();
            layer.resize(rows * self.stride(n), T::default());
        }
    }
}

/// States of all layers of a block: layer n is row-major (images, stride(n)).
pub type States<T> = Vec<Vec<T>>;

/// A block of images: what a step reads.
#[derive(Default)]
pub struct Block<T> {
    /// How many images.
    pub rows: usize,
    /// The numbers of the pixels that are not black in all images of the block, and perhaps others.
    pub lit: Vec<u32>,
    /// x = byte/255 of those pixels, (rows, lit.len()).
    pub x: Vec<T>,
    /// u_0 = W_x·x + b_N as the second phase begins, (rows, stride(N)).
    pub drive: Vec<T>,
    /// s_{T−2}, s_{T−1} and s_T = s_* of the first phase.
    pub settled: [States<T>; 3],
    /// Σ steps of the first phase over the images.
    pub steps: usize,
    /// Those still on their way there.
    pub moving: Moving<T>,
    /// s_t of the second phase.
    pub s: States<T>,
    /// s_t − s_* of layer N.
    pub drift: Vec<T>,
}

/// What a step of the second phase writes.
#[derive(Default)]
pub struct Move<T> {
    /// s_{t+1}.
    pub s_next: States<T>,
    /// s_{t+1} − s_t.
    pub delta: States<T>,
}

/// out = σ(start + Σ terms), `rows` × `stride` numbers, whole panels.
struct Layer<'a, T> {
    rows: usize,
    stride: usize,
    terms: &'a [Term<'a, T>],
    activation: Option<Activation>,
}

/// Rows that begin as `start` says: one row for all (`start_stride` 0), or one each.
struct Rows<'a, T> {
    start: &'a [T],
    start_stride: usize,
    out: *mut T,
    stride: usize,
}

impl<L: Lanes> Output<L> for Rows<'_, L::Elem> {
    #[inline(always)]
    fn start(&self, row: usize, panel: usize) -> L {
        // SAFETY: `Layer::run` has checked that every row lies within both.
        unsafe { L::load(self.start.as_ptr().add(row * self.start_stride + panel * WIDTH)) }
    }

    #[inline(always)]
    fn finish(&self, row: usize, panel: usize, sum: L) {
        unsafe { sum.store(self.out.add(row * self.stride + panel * WIDTH)) }
    }
}

impl<T: Real> Layer<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(&self, start: &[T], start_stride: usize, out: &mut [T]) {
        let (rows, stride) = (self.rows, self.stride);
        assert!(start.len() >= (rows - 1) * start_stride + stride && out.len() >= rows * stride);
        let output = Rows { start, start_stride, out: out.as_mut_ptr(), stride };
        sweep::<L>(rows, stride / WIDTH, self.terms, &output);
        if let Some(activation) = self.activation {
            for lanes in out.chunks_exact_mut(WIDTH) {
                // SAFETY: each chunk is WIDTH long.
                unsafe { apply::<L>(activation, L::load(lanes.as_ptr())).store(lanes.as_mut_ptr()) }
            }
        }
    }
}

#[inline(always)]
pub fn splat<L: Lanes>(value: f64) -> L {
    L::splat(L::Elem::from_f64(value))
}

/// σ, see [`Activation::apply`].
#[inline(always)]
fn apply<L: Lanes>(activation: Activation, x: L) -> L {
    let one = splat::<L>(1.0);
    match activation {
        Activation::Sigmoid => one.div(x.mul_add(splat(-4.0), splat(2.0)).exp().add(one)),
        // tanh x = 1 − 2/(exp(2x) + 1)
        Activation::Tanh => one.sub(splat::<L>(2.0).div(x.add(x).exp().add(one))),
        Activation::HardSigmoid => one.min(splat::<L>(0.0).max(x)),
    }
}

/// F(x, s, θ) for a block: every layer from the one before, all at once.
/// `drive` is what the input contributes to layer N; `more` are further terms, by layer.
#[inline(always)]
pub fn step<L: Lanes>(
    weights: &Weights<L::Elem>,
    activation: Activation,
    rows: usize,
    drive: &[L::Elem],
    more: &[Vec<Term<L::Elem>>],
    s: &States<L::Elem>,
    s_next: &mut States<L::Elem>,
) {
    let last = weights.last();
    let mut connections = weights.between.iter().peekable();
    for (n, out) in s_next.iter_mut().enumerate() {
        let mut terms = more.get(n).cloned().unwrap_or_default();
        while let Some(c) = connections.next_if(|c| c.to == n) {
            terms.push(c.synapses.input(&s[c.from], weights.stride(c.from)));
        }
        let stride = weights.stride(n);
        let layer = Layer { rows, stride, terms: &terms, activation: Some(activation) };
        if n == last {
            layer.run::<L>(drive, stride, out);
        } else {
            layer.run::<L>(&weights.bias[n], 0, out);
        }
    }
}

/// s' ← (s + s')/2.
#[inline(always)]
pub fn halfway<T: Real>(s_next: &mut States<T>, s: &States<T>) {
    for (next, s) in s_next.iter_mut().zip(s) {
        for (next, &s) in next.iter_mut().zip(s) {
            *next = (*next + s) * T::from_f64(0.5);
        }
    }
}

impl<T: Real> Block<T> {
    /// x of these images and what it drives layer N with; all else is made ready for so many.
    #[inline(always)]
    pub fn begin<L: Lanes<Elem = T>>(&mut self, weights: &Weights<T>, images: &[u8], lit: &[u32]) {
        let (last, width) = (weights.last(), weights.input.from);
        let rows = images.len() / width;
        self.prepare(weights, rows, lit);
        for (x, image) in self.x.chunks_exact_mut(lit.len()).zip(images.chunks_exact(width)) {
            for (x, &pixel) in x.iter_mut().zip(lit) {
                *x = T::from_f64(f64::from(image[pixel as usize]) / 255.0);
            }
        }
        let terms = [weights.input.input_of(lit, &self.x)];
        let layer = Layer { rows, stride: weights.stride(last), terms: &terms, activation: None };
        layer.run::<L>(&weights.bias[last], 0, &mut self.drive);
    }

    /// Sizes everything for `rows` images.
    fn prepare(&mut self, weights: &Weights<T>, rows: usize, lit: &[u32]) {
        self.rows = rows;
        self.lit.clear();
        self.lit.extend_from_slice(lit);
        let fit = |values: &mut Vec<T>, stride: usize| {
            values.clear();
            values.resize(rows * stride, T::default());
        };
        self.x.resize(rows * lit.len(), T::default());
        self.drive.resize(rows * weights.stride(weights.last()), T::default());
        fit(&mut self.drift, weights.stride(weights.last()));
        self.steps = 0;
        for states in &mut self.settled {
            weights.rest(rows, states);
        }
    }

    /// Adds what the first phase showed of each image to `report`.
    pub fn report(&self, weights: &Weights<T>, labels: &[u8], report: &mut Report) {
        let [older, old, s] = &self.settled;
        let largest_change = |before: &States<T>, row: usize| {
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
                // A comparison passes over a NaN, a sum does not.
                let layer = layer.to_f64();
                largest = larger(largest, if sum.to_f64().is_nan() { f64::NAN } else { layer });
            }
            largest
        };
        report.steps += self.steps;
        for (row, &label) in labels.iter().enumerate() {
            let output: Vec<f64> =
                (s[0][row * weights.stride(0)..][..weights.widths[0]].iter()).map(|s| s.to_f64()).collect();
            let (one, two) = (largest_change(old, row), largest_change(older, row));
            report.add_image(&output, label, one, two);
        }
    }

    /// s_0 = s_* of the second phase.
    pub fn begin_second_phase(&mut self, first: &mut Move<T>) {
        self.s.clone_from(&self.settled[2]);
        first.s_next.clone_from(&self.s);
        first.delta.clone_from(&self.s);
        self.drift.fill(T::default());
    }

    /// s ← s_{t+1}, and what has become of layer N since s_*.
    pub fn advance(&mut self, step: &mut Move<T>) {
        std::mem::swap(&mut self.s, &mut step.s_next);
        let last = self.s.len() - 1;
        subtract(&mut self.drift, &self.s[last], &self.settled[2][last]);
    }

    /// Makes the whole second phase, from s_* to s_K, one step.
    pub fn whole_phase(&mut self, step: &mut Move<T>) {
        std::mem::swap(&mut self.s, &mut step.s_next);
        self.s.clone_from(&self.settled[2]);
        for ((delta, next), s) in step.delta.iter_mut().zip(&step.s_next).zip(&self.s) {
            subtract(delta, next, s);
        }
    }
}

/// out = a − b.
#[inline(always)]
fn subtract<T: Real>(out: &mut [T], a: &[T], b: &[T]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = a - b;
    }
}

/// One nudged step of a block: s_{t+1} and s_{t+1} − s_t from s_t.
pub struct NudgedStep<'a, T> {
    /// The block.
    pub block: &'a Block<T>,
    /// Where it moves.
    pub step: &'a mut Move<T>,
    /// θ_t, but for what the second phase leaves as it began.
    pub weights: &'a Weights<T>,
    /// σ.
    pub activation: Activation,
    /// What weights left as they began would have added since, by layer.
    pub more: &'a [Vec<Term<'a, T>>],
    /// Class of each image.
    pub labels: &'a [u8],
    /// β.
    pub beta: T,
    /// Whether to go only half the way.
    pub damped: bool,
}

impl<T: Real> Kernel<T> for NudgedStep<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { block, step: Move { s_next, delta }, weights, activation, more, labels, beta, damped } =
            self;
        let s = &block.s;
        step::<L>(weights, activation, block.rows, &block.drive, more, s, s_next);
        let (width, stride) = (weights.widths[0], weights.stride(0));
        for (row, &label) in labels.iter().enumerate() {
            let row = row * stride..row * stride + width;
            let states = s_next[0][row.clone()].iter_mut().zip(&s[0][row]);
            for (class, (next, &s)) in states.enumerate() {
                let y = T::from_f64(if class == usize::from(label) { 1.0 } else { 0.0 });
                *next += beta * (y - s);
            }
        }
        if damped {
            halfway(s_next, s);
        }
        for ((delta, next), s) in delta.iter_mut().zip(s_next.iter()).zip(s) {
            subtract(delta, next, s);
        }
    }
}

/// out[i, j] = scale·(a_i·b_j + one): inner products of rows.
pub struct InnerProducts<'a, T> {
    /// Rows `a_i`, `a_stride` apart.
    pub a: &'a [T],
    /// Rows `b_j`, as far apart.
    pub b: &'a [T],
    /// Distance between rows.
    pub stride: usize,
    /// How much of a row counts.
    pub width: usize,
    /// The factor.
    pub scale: T,
    /// What is added to every product.
    pub one: T,
    /// Row-major, `out_stride` between rows, beginning at the first product.
    pub out: &'a mut [T],
    /// Distance between rows of `out`.
    pub out_stride: usize,
}

impl<T: Real> Kernel<T> for InnerProducts<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { a, b, stride, width, scale, one, out, out_stride } = self;
        for (a, out) in a.chunks_exact(stride).zip(out.chunks_mut(out_stride)) {
            for (b, out) in b.chunks_exact(stride).zip(out) {
                let (a_lanes, a_rest) = a[..width].as_chunks::<WIDTH>();
                let (b_lanes, b_rest) = b[..width].as_chunks::<WIDTH>();
                let mut sums = splat::<L>(0.0);
                for (a, b) in a_lanes.iter().zip(b_lanes) {
                    // SAFETY: both are WIDTH long.
                    sums = unsafe { L::load(a.as_ptr()).mul_add(L::load(b.as_ptr()), sums) };
                }
                let mut lanes = [T::default(); WIDTH];
                unsafe { sums.store(lanes.as_mut_ptr()) };
                let mut sum = one;
                for lane in lanes {
                    sum += lane;
                }
                for (&a, &b) in a_rest.iter().zip(b_rest) {
                    sum += a * b;
                }
                *out = scale * sum;
            }
        }
    }
}

/// w += rate·Σ terms, for the panels of some destination neurons.
pub struct Accumulate<'a, T> {
    /// `[panel][source][lane]`.
    pub panels: &'a mut [T],
    /// How many source neurons.
    pub from: usize,
    /// Which of them the terms have; all in order where `None`.
    pub only: Option<&'a [u32]>,
    /// a: source neurons × images, b: images × destination neurons.
    pub terms: &'a [Term<'a, T>],
    /// The factor.
    pub rate: T,
}

/// w[panel][source] += rate·sum.
struct AddTo<'a, L: Lanes> {
    w: *mut L::Elem,
    from: usize,
    only: Option<&'a [u32]>,
    rate: L,
}

impl<L: Lanes> Output<L> for AddTo<'_, L> {
    #[inline(always)]
    fn start(&self, _: usize, _: usize) -> L {
        splat(0.0)
    }

    #[inline(always)]
    fn finish(&self, source: usize, panel: usize, sum: L) {
        let source = self.only.map_or(source, |only| only[source] as usize);
        // SAFETY: source < from and panel is one of those in the slice `w` points to.
        unsafe {
            let w = self.w.add((panel * self.from + source) * WIDTH);
            self.rate.mul_add(sum, L::load(w)).store(w);
        }
    }
}

impl<T: Real> Kernel<T> for Accumulate<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { panels, from, only, terms, rate } = self;
        let count = panels.len() / (from * WIDTH);
        let rows = only.map_or(from, |only| {
            assert!(only.iter().all(|&source| (source as usize) < from), "a source out of bounds");
            only.len()
        });
        let output = AddTo::<L> { w: panels.as_mut_ptr(), from, only, rate: L::splat(rate) };
        sweep::<L>(rows, count, terms, &output);
    }
}

/// A bias vector, padded with zeros to whole panels.
///
/// # Errors
/// Only those of candle.
pub fn pad_bias<T: Real>(bias: &Tensor) -> candle_core::Result<Vec<T>> {
    let mut bias = bias.to_dtype(T::DTYPE)?.to_vec1::<T>()?;
    bias.resize(panel_count(bias.len()) * WIDTH, T::default());
    Ok(bias)
}
