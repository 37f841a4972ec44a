//! Blocks of images, the step that both phases take, and the second phase.

use super::lanes::{Kernel, Lanes, Real, WIDTH};
use super::settling::Moving;
use super::sweep::{Output, Term, sweep};
use super::synapses::{Synapses, panel_count};
use crate::engine::{Report, larger};
use crate::learning::SigmaPrime;
use crate::model::activation::Activation;
use crate::model::dynamics::Dynamics;
use candle_core::{Tensor, WithDType};
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};

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

    /// The panels of every layer, in so many parts, each for a thread.
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
    /// Σ over the steps so far of what the forward connections into each layer learn from: s_t − s_* where σ′
    /// is ignored (of layer N only, which is all that is asked for), Σ σ′⊙Δs where it gates Δs (of all layers).
    pub drift: States<T>,
}

/// What a step of the second phase writes.
#[derive(Default)]
pub struct Move<T> {
    /// s_{t+1}.
    pub s_next: States<T>,
    /// Δs = s_{t+1} − s_t as the forward connections into each layer learn from it, gated as
    /// [`SigmaPrime`] says.
    pub delta: States<T>,
    /// The same for the feedback connections into each layer; empty where it is `delta`.
    pub delta_feedback: States<T>,
}

impl<T> Move<T> {
    /// Δs of layer `to` as the connections from layer `from` learn from it.
    pub fn delta(&self, from: usize, to: usize) -> &[T] {
        match from > to || self.delta_feedback.is_empty() {
            true => &self.delta[to],
            false => &self.delta_feedback[to],
        }
    }

    /// For a step of `block`.
    pub fn of<'a>(
        &'a mut self,
        block: &'a Block<T>,
        labels: &'a [u8],
        more: Vec<Vec<Term<'a, T>>>,
    ) -> Nudged<'a, T> {
        let Self { s_next, delta, delta_feedback } = self;
        let [s_next, delta, delta_feedback] = [s_next, delta, delta_feedback].map(Shared::all);
        Nudged { block, labels, more, s_next, delta, delta_feedback }
    }
}

/// States of a layer that several threads write, each panels of its own.
#[derive(Clone, Copy)]
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    states: PhantomData<&'a mut [T]>,
}

// SAFETY: what writes through it, [`step`] and [`NudgedStep`], asks for panels that nobody else has.
unsafe impl<T: Send> Send for Shared<'_, T> {}
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// All layers.
    pub fn all(states: &'a mut States<T>) -> Vec<Self> {
        states.iter_mut().map(Self::one).collect()
    }

    fn one(layer: &'a mut Vec<T>) -> Self {
        Self { start: layer.as_mut_ptr(), len: layer.len(), states: PhantomData }
    }
}

/// out = start + Σ terms: some panels of a layer, whose rows are `stride` apart.
struct Layer<'a, T> {
    rows: usize,
    stride: usize,
    panels: Range<usize>,
    terms: &'a [Term<'a, T>],
}

/// Rows that begin as `start` says: one row for all (0 between rows), one each, or zeros (`None`).
struct Rows<'a, T> {
    start: Option<(&'a [T], usize)>,
    out: *mut T,
    stride: usize,
}

impl<L: Lanes> Output<L> for Rows<'_, L::Elem> {
    #[inline(always)]
    fn start(&self, row: usize, panel: usize) -> L {
        match self.start {
            // SAFETY: `Layer::run` has checked that every row lies within it.
            Some((start, between)) => unsafe { L::load(start.as_ptr().add(row * between + panel * WIDTH)) },
            None => splat(0.0),
        }
    }

    #[inline(always)]
    fn finish(&self, row: usize, panel: usize, sum: L) {
        // SAFETY: as above.
        unsafe { sum.store(self.out.add(row * self.stride + panel * WIDTH)) }
    }
}

impl<T: Real> Layer<'_, T> {
    /// # Safety
    /// Nobody else may touch these panels of `out` meanwhile.
    #[inline(always)]
    unsafe fn run<L: Lanes<Elem = T>>(&self, start: Option<(&[T], usize)>, out: Shared<T>) {
        let Self { rows, stride, ref panels, terms } = *self;
        assert!(panels.end * WIDTH <= stride && out.len >= rows * stride);
        assert!(start.is_none_or(|(start, between)| start.len() >= (rows - 1) * between + stride));
        sweep::<L>(rows, panels.clone(), terms, &Rows { start, out: out.start, stride });
    }
}

/// Where the lanes of these panels begin, in rows `stride` apart.
#[inline(always)]
fn lanes_of(rows: usize, stride: usize, panels: &Range<usize>) -> impl Iterator<Item = usize> {
    (0..rows).flat_map(move |row| panels.clone().map(move |panel| row * stride + panel * WIDTH))
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

/// σ′ at x, where `s` = σ(x); see [`Activation::derivative`].
#[inline(always)]
fn derivative<L: Lanes>(activation: Activation, x: L, s: L) -> L {
    let (zero, one) = (splat::<L>(0.0), splat::<L>(1.0));
    match activation {
        Activation::Sigmoid => s.mul_add(s.mul_add(splat(-4.0), splat(4.0)), zero),
        Activation::Tanh => zero.sub(s).mul_add(s, one),
        Activation::HardSigmoid => zero.le(x).mul_add(x.le(one), zero),
    }
}

/// Where a step leaves σ′ of what arrives, by layer: see [`SigmaPrime`].
#[derive(Clone, Copy)]
pub enum Gates<'a, T> {
    /// Nowhere.
    Ignored,
    /// σ′(hⁿ).
    Full(&'a [Shared<'a, T>]),
    /// σ′ of what the forward, and of what the feedback connections deliver. The latter is left as it is at the
    /// output, which has none.
    Partial(&'a [Shared<'a, T>], &'a [Shared<'a, T>]),
}

/// F(x, s, θ) for a block: every layer from the one before, all at once; of each layer these `panels`.
/// `drive` is what the input contributes to layer N; `more` are further terms, by layer, which count as forward.
///
/// # Safety
/// Nobody else may touch these panels of `s_next` and of the gates meanwhile.
#[inline(always)]
pub unsafe fn step<L: Lanes>(
    weights: &Weights<L::Elem>,
    activation: Activation,
    drive: &[L::Elem],
    more: &[Vec<Term<L::Elem>>],
    s: &States<L::Elem>,
    s_next: &[Shared<L::Elem>],
    panels: &[Range<usize>],
    gates: Gates<L::Elem>,
) {
    let last = weights.last();
    let rows = drive.len() / weights.stride(last);
    let mut connections = weights.between.iter().peekable();
    for (n, (&out, panels)) in s_next.iter().zip(panels).enumerate() {
        let mut terms = more.get(n).cloned().unwrap_or_default();
        let mut feedback = None;
        while let Some(c) = connections.next_if(|c| c.to == n) {
            let term = c.synapses.input(&s[c.from], weights.stride(c.from));
            match gates {
                Gates::Partial(..) if c.from < n => feedback = Some(term),
                _ => terms.push(term),
            }
        }
        let stride = weights.stride(n);
        let layer = |terms| Layer { rows, stride, panels: panels.clone(), terms };
        let start = if n == last { (drive, stride) } else { (&weights.bias[n][..], 0) };
        unsafe { layer(&terms).run::<L>(Some(start), out) };
        if let Gates::Full(gate) | Gates::Partial(gate, _) = gates {
            assert!(gate[n].len >= rows * stride);
        }
        let alone = match (&feedback, gates) {
            (Some(term), Gates::Partial(_, gate)) => {
                unsafe { layer(std::slice::from_ref(term)).run::<L>(None, gate[n]) };
                Some(gate[n])
            }
            _ => None,
        };
        for at in lanes_of(rows, stride, panels) {
            // SAFETY: `Layer::run` has checked that every row lies within `out`, and the gates are as long.
            unsafe {
                let out = out.start.add(at);
                let mut h = L::load(out);
                if let Gates::Partial(gate, _) = gates {
                    derivative::<L>(activation, h, apply(activation, h)).store(gate[n].start.add(at));
                    if let Some(alone) = alone {
                        let alone = alone.start.add(at);
                        let below = L::load(alone);
                        h = h.add(below);
                        derivative::<L>(activation, below, apply(activation, below)).store(alone);
                    }
                }
                let s = apply::<L>(activation, h);
                if let Gates::Full(gate) = gates {
                    derivative::<L>(activation, h, s).store(gate[n].start.add(at));
                }
                s.store(out);
            }
        }
    }
}

/// s' ← damping·s + (1 − damping)·s', in these panels of every layer.
///
/// # Safety
/// Nobody else may touch them meanwhile, and both must have so many rows.
#[inline(always)]
pub unsafe fn damp<L: Lanes>(
    weights: &Weights<L::Elem>,
    rows: usize,
    s_next: &[Shared<L::Elem>],
    s: &States<L::Elem>,
    panels: &[Range<usize>],
    damping: f64,
) {
    for (n, panels) in panels.iter().enumerate() {
        for at in lanes_of(rows, weights.stride(n), panels) {
            unsafe {
                let next = s_next[n].start.add(at);
                let stays = L::load(s[n].as_ptr().add(at)).mul_add(splat(damping), splat(0.0));
                L::load(next).mul_add(splat(1.0 - damping), stays).store(next);
            }
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
        let stride = weights.stride(last);
        let layer = Layer { rows, stride, panels: 0..stride / WIDTH, terms: &terms };
        let drive = Shared::one(&mut self.drive);
        // SAFETY: it is ours alone.
        unsafe { layer.run::<L>(Some((&weights.bias[last], 0)), drive) };
    }

    /// Sizes everything for `rows` images.
    fn prepare(&mut self, weights: &Weights<T>, rows: usize, lit: &[u32]) {
        self.rows = rows;
        self.lit.clear();
        self.lit.extend_from_slice(lit);
        self.x.resize(rows * lit.len(), T::default());
        self.drive.resize(rows * weights.stride(weights.last()), T::default());
        weights.rest(rows, &mut self.drift);
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
    pub fn begin_second_phase(&mut self, first: &mut Move<T>, sigma_prime: SigmaPrime) {
        self.s.clone_from(&self.settled[2]);
        first.s_next.clone_from(&self.s);
        first.delta.clone_from(&self.s);
        first.delta_feedback.clear();
        if sigma_prime == SigmaPrime::Partial {
            first.delta_feedback.clone_from(&self.s);
        }
        self.drift.iter_mut().for_each(|layer| layer.fill(T::default()));
    }

    /// s ← s_{t+1}, and what has become of the drift.
    pub fn advance(&mut self, step: &mut Move<T>, sigma_prime: SigmaPrime) {
        std::mem::swap(&mut self.s, &mut step.s_next);
        if sigma_prime == SigmaPrime::Ignored {
            let last = self.s.len() - 1;
            subtract(&mut self.drift[last], &self.s[last], &self.settled[2][last]);
        } else {
            for (drift, delta) in self.drift.iter_mut().zip(&step.delta) {
                for (drift, &delta) in drift.iter_mut().zip(delta) {
                    *drift += delta;
                }
            }
        }
    }

    /// Makes the whole second phase, from s_* to s_K, one step; its gates are those of all its steps.
    pub fn whole_phase(&mut self, step: &mut Move<T>, sigma_prime: SigmaPrime) {
        std::mem::swap(&mut self.s, &mut step.s_next);
        self.s.clone_from(&self.settled[2]);
        if sigma_prime != SigmaPrime::Ignored {
            step.delta.clone_from(&self.drift);
            return;
        }
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

/// A block in a step of the second phase.
pub struct Nudged<'a, T> {
    /// It, with s_t.
    pub block: &'a Block<T>,
    /// Class of each image.
    pub labels: &'a [u8],
    /// What weights left as they began would have added since, by layer.
    pub more: Vec<Vec<Term<'a, T>>>,
    /// s_{t+1}.
    pub s_next: Vec<Shared<'a, T>>,
    /// Of [`Move`].
    pub delta: Vec<Shared<'a, T>>,
    /// Of [`Move`].
    pub delta_feedback: Vec<Shared<'a, T>>,
}

/// One step of the second phase of some blocks, from s_t; of each layer these panels, which no other thread
/// may have.
pub struct NudgedStep<'a, T> {
    /// The blocks.
    pub blocks: &'a [Nudged<'a, T>],
    /// Of each layer.
    pub panels: &'a [Range<usize>],
    /// θ_t, but for what the second phase leaves as it began.
    pub weights: &'a Weights<T>,
    /// F.
    pub dynamics: &'a Dynamics,
    /// How Δs is gated.
    pub sigma_prime: SigmaPrime,
    /// β.
    pub beta: T,
}

impl<T: Real> Kernel<T> for NudgedStep<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { blocks, panels, weights, dynamics, sigma_prime, beta } = self;
        for Nudged { block, labels, more, s_next, delta, delta_feedback } in blocks {
            let (rows, s) = (block.rows, &block.s);
            let gates = match sigma_prime {
                SigmaPrime::Ignored => Gates::Ignored,
                SigmaPrime::Full => Gates::Full(delta),
                SigmaPrime::Partial => Gates::Partial(delta, delta_feedback),
            };
            // SAFETY (all): these panels are this thread's, and `step` has checked that the rows are there.
            unsafe {
                step::<L>(weights, dynamics.activation, &block.drive, more, s, s_next, panels, gates);
            }
            let stride = weights.stride(0);
            let classes = panels[0].start * WIDTH..weights.widths[0].min(panels[0].end * WIDTH);
            for (row, &label) in labels.iter().enumerate() {
                for class in classes.clone() {
                    let y = T::from_f64(if class == usize::from(label) { 1.0 } else { 0.0 });
                    let at = row * stride + class;
                    unsafe { *s_next[0].start.add(at) += beta * (y - s[0][at]) };
                }
            }
            if dynamics.damping > 0.0 {
                unsafe { damp::<L>(weights, rows, s_next, s, panels, dynamics.damping) };
            }
            for (n, panels) in panels.iter().enumerate() {
                let stride = weights.stride(n);
                assert!(delta[n].len >= rows * stride && s[n].len() >= rows * stride);
                let feedback = delta_feedback.get(n).filter(|_| n > 0);
                assert!(feedback.is_none_or(|delta| delta.len >= rows * stride));
                for at in lanes_of(rows, stride, panels) {
                    unsafe {
                        let (next, s) = (L::load(s_next[n].start.add(at)), L::load(s[n].as_ptr().add(at)));
                        let change = next.sub(s);
                        let gate = |delta: &Shared<T>| {
                            let delta = delta.start.add(at);
                            change.mul_add(L::load(delta), splat(0.0)).store(delta);
                        };
                        if sigma_prime == SigmaPrime::Ignored {
                            change.store(delta[n].start.add(at));
                        } else {
                            gate(&delta[n]);
                            if let Some(delta) = feedback {
                                gate(delta);
                            }
                        }
                    }
                }
            }
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
        let rows = b.len() / stride;
        for (a, out) in a.chunks_exact(stride).zip(out.chunks_mut(out_stride)) {
            let mut store = |first: usize, products: &[T]| {
                for (out, &product) in out[first..].iter_mut().zip(products) {
                    *out = scale * (one + product);
                }
            };
            let mut j = 0;
            while j + 5 <= rows {
                store(j, &products::<L, 5>(&a[..width], &b[j * stride..], stride));
                j += 5;
            }
            for j in j..rows {
                store(j, &products::<L, 1>(&a[..width], &b[j * stride..], stride));
            }
        }
    }
}

/// a·b_j for `M` rows b_j, side by side, so that no sum waits for another.
#[inline(always)]
fn products<L: Lanes, const M: usize>(a: &[L::Elem], b: &[L::Elem], stride: usize) -> [L::Elem; M] {
    assert!(a.len() <= stride && b.len() >= (M - 1) * stride + a.len());
    let mut sums = [splat::<L>(0.0); M];
    for k in (0..a.len() / WIDTH).map(|k| k * WIDTH) {
        // SAFETY: k + WIDTH ≤ a.len(), and every row of b is as long.
        unsafe {
            let a = L::load(a.as_ptr().add(k));
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = a.mul_add(L::load(b.as_ptr().add(j * stride + k)), *sum);
            }
        }
    }
    let mut products = [L::Elem::default(); M];
    for (j, (product, lanes)) in products.iter_mut().zip(sums).enumerate() {
        let mut of_lanes = [L::Elem::default(); WIDTH];
        // SAFETY: as long as it must be.
        unsafe { lanes.store(of_lanes.as_mut_ptr()) };
        for lane in of_lanes {
            *product += lane;
        }
        for k in a.len() / WIDTH * WIDTH..a.len() {
            *product += a[k] * b[j * stride + k];
        }
    }
    products
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
        sweep::<L>(rows, 0..count, terms, &output);
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
