//! The fused engine: the fast path for CPUs, in f32 or f64.
//!
//! It computes what [`Protocol`] says, equal to the plain engine up to rounding, with
//! - weights packed in panels, so that a step streams them once ([`synapses`]);
//! - all inputs of a layer summed in registers ([`sweep`]);
//! - the input weights left alone during the second phase: with G = x·xᵀ + 1 (B, B) the drive is
//!   u_t = u_0 + c·G·(sᴺ_t − sᴺ_0), and W_x changes once, at the end, by c·(sᴺ_K − sᴺ_0)ᵀ·x, where
//!   c = η_N/(βB) — exact, since Δ_{W x} is linear in s and x does not change;
//! - images in blocks of [`BLOCK`], each on a thread of its own for the whole first phase. Every
//!   number is computed the same way whichever thread does it.

mod block;
mod lanes;
mod sweep;
mod synapses;

use super::{Batch, Engine, Report};
use crate::dynamics::Dynamics;
use crate::learning::{Protocol, Rule};
use crate::network::{Dims, Forward, Parameters};
use anyhow::Result;
use block::{Accumulate, BLOCK, Block, Connection, FirstPhase, NudgedStep, Weights, pad_bias};
use candle_core::{Device, Tensor};
use lanes::WIDTH;
pub use lanes::{Isa, Real};
use rayon::prelude::*;
use sweep::Term;
use synapses::Synapses;

/// Multiply-adds from which threads are worth waking for one step of the second phase.
const WORTH_SHARING: usize = 2_000_000;

/// The fast path for CPUs.
pub struct Fused<T: Real> {
    dynamics: Dynamics,
    protocol: Protocol,
    weights: Weights<T>,
    blocks: Vec<Block<T>>,
    /// c·(x·xᵀ + 1), (B, B) row-major.
    gram: Vec<T>,
}

impl<T: Real> Fused<T> {
    /// An engine holding a packed copy of `theta`.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn new(dims: &Dims, dynamics: Dynamics, protocol: Protocol, theta: &Parameters) -> Result<Self> {
        let last = dims.depth();
        let mut between = Vec::new();
        for to in 0..=last {
            if to < last {
                let synapses = Synapses::pack(&theta.forward[to].weight)?;
                between.push(Connection { from: to + 1, to, synapses });
            }
            if to > 0 {
                let weight = theta.backward_weight(to - 1)?.t()?.contiguous()?;
                between.push(Connection { from: to - 1, to, synapses: Synapses::pack(&weight)? });
            }
        }
        let weights = Weights {
            widths: (0..=last).map(|n| dims.width(n)).collect(),
            input: Synapses::pack(&theta.forward[last].weight)?,
            between,
            bias: (theta.forward.iter())
                .map(|layer| pad_bias(&layer.bias))
                .collect::<candle_core::Result<_>>()?,
        };
        let (blocks, gram) = (Vec::new(), Vec::new());
        Ok(Self { dynamics, protocol, weights, blocks, gram })
    }

    /// Runs the first phase on every block of the batch.
    fn first_phase(&mut self, batch: &Batch) -> Report {
        let (weights, protocol) = (&self.weights, &self.protocol);
        let Dynamics { activation, damped, .. } = self.dynamics;
        let block_bytes = BLOCK * weights.input.from;
        let count = batch.labels.len().div_ceil(BLOCK);
        self.blocks.resize_with(count, Block::default);
        let run = |(block, images): (&mut Block<T>, &[u8])| {
            T::dispatch(FirstPhase { block, weights, protocol, activation, damped, images });
        };
        if count > 1 && rayon::current_num_threads() > 1 {
            (self.blocks.par_iter_mut().zip(batch.images.par_chunks(block_bytes))).for_each(run);
        } else {
            (self.blocks.iter_mut().zip(batch.images.chunks(block_bytes))).for_each(run);
        }
        let mut report = Report::default();
        for (block, labels) in self.blocks.iter().zip(batch.labels.chunks(BLOCK)) {
            block.report(weights, labels, &mut report);
        }
        report
    }

    /// The second phase, from the states the blocks have settled in.
    fn second_phase(&mut self, batch: &Batch, beta: f64) {
        let (rule, tied) = (self.protocol.rule, self.protocol.tied);
        let images = batch.labels.len();
        let last = self.weights.last();
        let rates: Vec<T> = (self.protocol.learning_rates.iter())
            .map(|eta| T::from_f64(eta / (beta * images as f64)))
            .collect();
        let last_bias = if self.protocol.last_bias_frozen() { 0.0 } else { 1.0 };
        let work: usize = self.weights.between.iter().map(|c| c.synapses.panels.len()).sum();
        let share = work * images > WORTH_SHARING && rayon::current_num_threads() > 1;

        if rule.continual() {
            self.gram = gram(&self.blocks, self.weights.input.from, rates[last], last_bias);
        }
        // VF: the sum over all steps, applied after the last.
        let mut pending: Vec<Synapses<T>> = Vec::new();
        if rule == Rule::Vf {
            let zeros = |c: &Connection<T>| Synapses::zeros(c.synapses.from, c.synapses.to);
            pending = self.weights.between.iter().map(zeros).collect();
        }
        for block in &mut self.blocks {
            block.begin_second_phase();
        }
        for _ in 0..self.protocol.second_steps {
            self.nudged_step(batch, T::from_f64(beta), share);
            let (weights, blocks) = (&mut self.weights, &self.blocks);
            for (i, connection) in weights.between.iter_mut().enumerate() {
                let (from, to) = (connection.from, connection.to);
                let rate = rates[connection.layer()];
                if rule.continual() {
                    let change = change_terms(tied, blocks, from, to, &weights.widths);
                    accumulate(&mut connection.synapses, &change, rate, share);
                } else if let Some(pending) = pending.get_mut(i) {
                    let change = change_terms(tied, blocks, from, to, &weights.widths);
                    accumulate(pending, &change, rate, share);
                }
            }
            if rule.continual() {
                let biases = weights.bias.iter_mut().zip(&rates).enumerate().take(last);
                for (n, (bias, &rate)) in biases {
                    add_to_bias(bias, blocks, n, rate);
                }
            }
            for block in &mut self.blocks {
                block.advance();
            }
        }
        self.apply_totals(&rates, last_bias, &pending, share);
    }

    /// One step of the second phase on every block.
    fn nudged_step(&mut self, batch: &Batch, beta: T, share: bool) {
        let (weights, activation) = (&self.weights, self.dynamics.activation);
        let images = batch.labels.len();
        let stride = weights.stride(weights.last());
        let (gram, damped) = (&self.gram, self.dynamics.damped);
        // Blocks need each other's drift while their own states change.
        let drifts: Vec<Vec<T>> = self.blocks.iter_mut().map(|b| std::mem::take(&mut b.drift)).collect();
        let run = |(i, (block, labels)): (usize, (&mut Block<T>, &[u8]))| {
            let drive_terms: Vec<Term<T>> = (drifts.iter().enumerate())
                .filter(|_| !gram.is_empty())
                .map(|(j, drift)| Term {
                    a: &gram[i * BLOCK * images + j * BLOCK..],
                    a_row: images,
                    a_k: 1,
                    b: drift,
                    b_panel: WIDTH,
                    b_k: stride,
                    depth: drift.len() / stride,
                })
                .collect();
            let drive_terms = &drive_terms;
            T::dispatch(NudgedStep { block, weights, activation, drive_terms, labels, beta, damped });
        };
        if share {
            (self.blocks.par_iter_mut().zip(batch.labels.par_chunks(BLOCK)).enumerate()).for_each(run);
        } else {
            (self.blocks.iter_mut().zip(batch.labels.chunks(BLOCK)).enumerate()).for_each(run);
        }
        for (block, drift) in self.blocks.iter_mut().zip(drifts) {
            block.drift = drift;
        }
    }

    /// What is applied once, after the second phase: everything for EP and VF, and for all rules
    /// what leads into layer N from the input.
    fn apply_totals(&mut self, rates: &[T], last_bias: f64, pending: &[Synapses<T>], share: bool) {
        let rule = self.protocol.rule;
        let last = self.weights.last();
        let weights = &mut self.weights;
        for block in &mut self.blocks {
            // From s_* to s_K as one step.
            std::mem::swap(&mut block.s, &mut block.s_next);
            block.s.clone_from(&block.settled[2]);
            for ((delta, next), s) in block.delta.iter_mut().zip(&block.s_next).zip(&block.s) {
                for ((delta, &next), &s) in delta.iter_mut().zip(next).zip(s) {
                    *delta = next - s;
                }
            }
        }
        let blocks = &self.blocks;
        for (connection, pending) in weights.between.iter_mut().zip(pending) {
            for (w, &total) in connection.synapses.panels.iter_mut().zip(&pending.panels) {
                *w += total;
            }
        }
        if rule == Rule::Ep {
            for connection in &mut weights.between {
                let rate = rates[connection.layer()];
                let terms =
                    change_terms(self.protocol.tied, blocks, connection.from, connection.to, &weights.widths);
                accumulate(&mut connection.synapses, &terms, rate, share);
            }
        }
        for (n, (bias, &rate)) in weights.bias.iter_mut().zip(rates).enumerate() {
            if n == last {
                add_to_bias(bias, blocks, n, rate * T::from_f64(last_bias));
            } else if !rule.continual() {
                add_to_bias(bias, blocks, n, rate);
            }
        }
        let pixels = weights.input.from;
        let terms: Vec<Term<T>> = blocks.iter().map(|b| outer(b, &b.x, pixels, &b.delta[last])).collect();
        accumulate(&mut weights.input, &terms, rates[last], share);
    }
}

/// c·(x·xᵀ + one), (B, B) row-major.
fn gram<T: Real>(blocks: &[Block<T>], pixels: usize, c: T, one: f64) -> Vec<T> {
    let rows: Vec<&[T]> = blocks.iter().flat_map(|b| b.x.chunks_exact(pixels)).collect();
    let mut gram = vec![T::default(); rows.len() * rows.len()];
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate().take(i + 1) {
            // Sixteen sums side by side, so that the compiler can use vectors.
            let mut sums = [T::default(); WIDTH];
            for (a, b) in a.chunks(WIDTH).zip(b.chunks(WIDTH)) {
                for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                    *sum += a * b;
                }
            }
            let value = c * (sums.into_iter().sum::<T>() + T::from_f64(one));
            gram[i * rows.len() + j] = value;
            gram[j * rows.len() + i] = value;
        }
    }
    gram
}

/// Σ over the images of a block of source[k]·destination[lane], as a term.
fn outer<'a, T: Real>(
    block: &Block<T>,
    source: &'a [T],
    source_stride: usize,
    destination: &'a [T],
) -> Term<'a, T> {
    Term {
        a: source,
        a_row: 1,
        a_k: source_stride,
        b: destination,
        b_panel: WIDTH,
        b_k: destination.len() / block.rows,
        depth: block.rows,
    }
}

/// βB·Δ_W(t) for the weights from layer `from` into layer `to`, between s and s' = s_next.
///
/// - untied (E.4): Δ_to·s_fromᵀ
/// - tied (Eq. 95): s'ⁿ·s'ⁿ⁺¹ᵀ − sⁿ·sⁿ⁺¹ᵀ = Δⁿ·s'ⁿ⁺¹ᵀ + sⁿ·Δⁿ⁺¹ᵀ, the same products in the same
///   order in both directions, so that the two packed copies of a tied matrix stay equal to the bit.
fn change_terms<'a, T: Real>(
    tied: bool,
    blocks: &'a [Block<T>],
    from: usize,
    to: usize,
    widths: &[usize],
) -> Vec<Term<'a, T>> {
    let stride = widths[from].div_ceil(WIDTH) * WIDTH;
    let mut terms = Vec::with_capacity(2 * blocks.len());
    for b in blocks {
        let mut push = |source: &'a [T], destination: &'a [T]| {
            terms.push(outer(b, source, stride, destination));
        };
        match (tied, from > to) {
            (false, _) => push(&b.s[from], &b.delta[to]),
            (true, true) => {
                push(&b.s_next[from], &b.delta[to]);
                push(&b.delta[from], &b.s[to]);
            }
            (true, false) => {
                push(&b.delta[from], &b.s_next[to]);
                push(&b.s[from], &b.delta[to]);
            }
        }
    }
    terms
}

/// w += rate·Σ terms.
fn accumulate<T: Real>(synapses: &mut Synapses<T>, terms: &[Term<T>], rate: T, share: bool) {
    let from = synapses.from;
    let panel = from * WIDTH;
    let count = synapses.panels.len() / panel;
    let per_thread = if share { count.div_ceil(rayon::current_num_threads()) } else { count };
    let run = |(i, panels): (usize, &mut [T])| {
        let terms: Vec<Term<T>> =
            (terms.iter()).map(|term| Term { b: &term.b[i * per_thread * WIDTH..], ..*term }).collect();
        T::dispatch(Accumulate { panels, from, terms: &terms, rate });
    };
    if share {
        synapses.panels.par_chunks_mut(per_thread * panel).enumerate().for_each(run);
    } else {
        run((0, &mut synapses.panels));
    }
}

/// b_n += rate·Σ Δⁿ over the images.
fn add_to_bias<T: Real>(bias: &mut [T], blocks: &[Block<T>], n: usize, rate: T) {
    let mut sum = vec![T::default(); bias.len()];
    for row in blocks.iter().flat_map(|b| b.delta[n].chunks_exact(bias.len())) {
        for (sum, &delta) in sum.iter_mut().zip(row) {
            *sum += delta;
        }
    }
    for (b, sum) in bias.iter_mut().zip(sum) {
        *b += rate * sum;
    }
}

impl<T: Real> Engine for Fused<T> {
    fn train(&mut self, batch: &Batch, beta: f64) -> Result<Report> {
        let report = self.first_phase(batch);
        self.second_phase(batch, beta);
        Ok(report)
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        Ok(self.first_phase(batch))
    }

    fn parameters(&self) -> Result<Parameters> {
        let Weights { widths, input, between, bias } = &self.weights;
        let unpack = |from: usize, to: usize| -> Result<Tensor> {
            match between.iter().find(|c| (c.from, c.to) == (from, to)) {
                Some(connection) => Ok(connection.synapses.unpack()?),
                None => Ok(input.unpack()?),
            }
        };
        let mut forward = Vec::new();
        let mut feedback = Vec::new();
        for (n, &width) in widths.iter().enumerate() {
            forward.push(Forward {
                weight: unpack(n + 1, n)?,
                bias: Tensor::from_slice(&bias[n][..width], width, &Device::Cpu)?,
            });
            if n > 0 {
                feedback.push(unpack(n - 1, n)?);
            }
        }
        let feedback = (!self.protocol.tied).then_some(feedback);
        Ok(Parameters { forward, feedback })
    }
}
