//! The fused engine: the fast path for CPUs, in f32 or f64.
//!
//! It computes what [`Protocol`] says, equal to the plain engine up to rounding, with
//! - weights packed in panels, so that a step streams them once ([`synapses`]);
//! - all inputs of a layer summed in registers ([`sweep`]);
//! - the input weights left alone during the second phase: with G = x·xᵀ + 1 (B, B) the drive is
//!   u_t = u_0 + c·G·(sᴺ_t − sᴺ_0), and W_x changes once, at the end, by c·(sᴺ_K − sᴺ_0)ᵀ·x, where
//!   c = η_N/(βB) — exact, since Δ_{W x} is linear in s and x does not change; where σ′ gates Δs, the sum of
//!   the gated Δs so far stands for sᴺ_t − sᴺ_0;
//! - the same for large tied matrices under C-EP, whose updates telescope: W_n(t) = W_n(0) +
//!   c·(sⁿ_tᵀ·sⁿ⁺¹_t − sⁿ_0ᵀ·sⁿ⁺¹_0), so that s·W_n(t) is s·W_n(0) and two products with (B, B) matrices;
//! - pixels that are black in all images of a minibatch left out, which take no part in anything;
//! - images in [blocks](BLOCK), each on a thread of its own for the whole first phase, which ends for every
//!   image as it settles ([`settling`]). A number is computed the same way whichever thread does it, and
//!   whatever images share its block.

mod block;
mod lanes;
mod settling;
mod sweep;
mod synapses;

use super::{Batch, Engine, Report, Work};
use crate::learning::{Protocol, Schedule, SigmaPrime};
use crate::model::network::Forward;
use crate::model::{Model, Parameters};
use anyhow::Result;
use block::{
    Accumulate, BLOCK, Block, Connection, InnerProducts, Move, Nudged, NudgedStep, Weights, pad_bias,
};
use candle_core::{Device, Tensor};
use lanes::WIDTH;
pub use lanes::{Isa, Real};
use rayon::prelude::*;
use settling::FirstPhase;
use std::ops::Range;
use sweep::Term;
use synapses::Synapses;

/// Multiply-adds from which threads are worth waking, for a step of the second phase or an update.
const WORTH_SHARING: usize = 2_000_000;

/// The fast path for CPUs.
pub struct Fused<T: Real> {
    model: Model,
    protocol: Protocol,
    schedule: Schedule,
    weights: Weights<T>,
    /// How many images a block has; the last may have fewer.
    rows: usize,
    /// Σ pixels looked at over the images of the last batch.
    lit: usize,
    blocks: Vec<Block<T>>,
    moves: Vec<Move<T>>,
}

impl<T: Real> Fused<T> {
    /// An engine holding a packed copy of `theta`.
    ///
    /// # Errors
    /// Where the rule is not [`super::fusible`], and those of candle.
    pub fn new(model: Model, protocol: Protocol, theta: &Parameters) -> Result<Self> {
        let Some(schedule) = protocol.rule.schedule().filter(|_| super::fusible(&model, &protocol)) else {
            anyhow::bail!("rule = \"{}\" with these dynamics has no fast path", protocol.rule.name());
        };
        let dims = &model.dims;
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
        let (rows, lit, blocks, moves) = Default::default();
        Ok(Self { model, protocol, schedule, weights, rows, lit, blocks, moves })
    }

    /// Runs the first phase on all images of a batch to be learnt, each block on a thread.
    fn first_phase(&mut self, batch: &Batch) -> Report {
        let images = batch.labels.len();
        self.rows = block_rows(images);
        let (pixels, rows) = (self.weights.input.from, self.rows);
        self.blocks.resize_with(images.div_ceil(rows), Block::default);
        let lit = lit_pixels(&batch.images, pixels);
        self.lit = images * lit.len();
        let mut blocks = std::mem::take(&mut self.blocks);
        let run = |(block, images): (&mut Block<T>, &[u8])| self.settle(block, images, &lit);
        let bytes = rows * pixels;
        if blocks.len() > 1 && rayon::current_num_threads() > 1 {
            blocks.par_iter_mut().zip(batch.images.par_chunks(bytes)).for_each(run);
        } else {
            blocks.iter_mut().zip(batch.images.chunks(bytes)).for_each(run);
        }
        let mut report = Report::default();
        for (block, labels) in blocks.iter().zip(batch.labels.chunks(rows)) {
            block.report(&self.weights, labels, &mut report);
        }
        self.blocks = blocks;
        report
    }

    /// The first phase of a block of images, which have no other than these `lit` pixels.
    fn settle(&self, block: &mut Block<T>, images: &[u8], lit: &[u32]) {
        let (weights, model) = (&self.weights, &self.model);
        T::dispatch(FirstPhase { block, weights, model, images, lit });
    }

    /// The second phase, from the states the blocks have settled in.
    fn second_phase(&mut self, batch: &Batch, beta: f64) {
        let (schedule, tied, sigma_prime) = (self.schedule, self.model.tied, self.protocol.sigma_prime);
        let images = batch.labels.len();
        let last = self.weights.last();
        let rates: Vec<T> = (self.protocol.learning_rates.iter())
            .map(|eta| T::from_f64(eta / (beta * images as f64)))
            .collect();
        let last_bias = if self.protocol.last_bias_frozen() { 0.0 } else { 1.0 };
        let work: usize = self.weights.between.iter().map(|c| c.synapses.panels.len()).sum();
        let share = work * images > WORTH_SHARING && rayon::current_num_threads() > 1;
        let parts = self.weights.panels(if share { rayon::current_num_threads() } else { 1 });

        let telescoping: Vec<bool> =
            self.weights.between.iter().map(|c| self.telescopes(c, images)).collect();
        let mut grams = match schedule == Schedule::Continual {
            true => vec![self.input_gram(rates[last], last_bias)],
            false => Vec::new(),
        };
        // VF: the sum over all steps, applied after the last.
        let mut pending: Vec<Synapses<T>> = Vec::new();
        if schedule == Schedule::Sum {
            let zeros = |c: &Connection<T>| Synapses::zeros(c.synapses.from, c.synapses.to);
            pending = self.weights.between.iter().map(zeros).collect();
        }
        self.moves.resize_with(self.blocks.len(), Move::default);
        for (block, step) in self.blocks.iter_mut().zip(&mut self.moves) {
            block.begin_second_phase(step, sigma_prime);
        }
        let steps = if schedule == Schedule::Whole { 0 } else { self.protocol.second_steps };
        if schedule == Schedule::Whole {
            self.nudged_steps_with_fixed_weights(batch, T::from_f64(beta));
        }
        for _ in 0..steps {
            grams.truncate(1);
            let changing: Vec<&Connection<T>> =
                self.weights.between.iter().zip(&telescoping).filter(|(_, t)| **t).map(|(c, _)| c).collect();
            let change = |c: &&Connection<T>| self.change_grams(c, rates[c.layer()]);
            if share {
                grams.par_extend(changing.par_iter().flat_map_iter(change));
            } else {
                grams.extend(changing.iter().flat_map(change));
            }
            self.nudged_step(batch, T::from_f64(beta), &grams, &parts);
            let (weights, blocks, moves) = (&mut self.weights, &self.blocks, &self.moves);
            for (i, connection) in weights.between.iter_mut().enumerate() {
                let rate = rates[connection.layer()];
                let change = || change_terms(tied, blocks, moves, connection.from, connection.to);
                if let Some(pending) = pending.get_mut(i) {
                    accumulate(pending, None, &change(), rate);
                } else if schedule == Schedule::Continual && !telescoping[i] {
                    let change = change();
                    accumulate(&mut connection.synapses, None, &change, rate);
                }
            }
            if schedule == Schedule::Continual {
                let biases = weights.bias.iter_mut().zip(&rates).enumerate().take(last);
                for (n, (bias, &rate)) in biases {
                    add_to_bias(bias, moves, n, rate);
                }
            }
            for (block, step) in self.blocks.iter_mut().zip(&mut self.moves) {
                block.advance(step, sigma_prime);
            }
        }

        // What is applied once: everything for EP and VF, what telescopes, and all that comes from the input.
        for (block, step) in self.blocks.iter_mut().zip(&mut self.moves) {
            block.whole_phase(step, sigma_prime);
        }
        let (weights, blocks, moves) = (&mut self.weights, &self.blocks, &self.moves);
        for (connection, pending) in weights.between.iter_mut().zip(&pending) {
            for (w, &total) in connection.synapses.panels.iter_mut().zip(&pending.panels) {
                *w += total;
            }
        }
        let once =
            weights.between.iter_mut().zip(&telescoping).filter(|(_, t)| schedule == Schedule::Whole || **t);
        for (connection, _) in once {
            let change = change_terms(tied, blocks, moves, connection.from, connection.to);
            let rate = rates[connection.layer()];
            accumulate(&mut connection.synapses, None, &change, rate);
        }
        for (n, (bias, &rate)) in weights.bias.iter_mut().zip(&rates).enumerate() {
            if n == last {
                add_to_bias(bias, moves, n, rate * T::from_f64(last_bias));
            } else if schedule != Schedule::Continual {
                add_to_bias(bias, moves, n, rate);
            }
        }
        let change: Vec<Term<T>> = (blocks.iter().zip(moves))
            .map(|(block, step)| outer(block.rows, &block.x, block.lit.len(), &step.delta[last]))
            .collect();
        accumulate(&mut weights.input, Some(&blocks[0].lit), &change, rates[last]);
    }

    /// Whether the updates of a matrix are left to [`Fused::change_grams`] until the phase is over: under
    /// C-EP, where that is less work.
    fn telescopes(&self, connection: &Connection<T>, images: usize) -> bool {
        let (from, to) = (connection.synapses.from, connection.synapses.to);
        self.model.tied && self.schedule == Schedule::Continual && from * to > images * (from + to)
    }

    /// What the input weights would have added to the drive: c·(x·xᵀ + 1)·[drift of layer N](Block::drift).
    fn input_gram(&self, c: T, one: f64) -> Gram<T> {
        let x: Vec<&[T]> = self.blocks.iter().map(|b| &b.x[..]).collect();
        let pixels = self.blocks[0].lit.len();
        let products = inner_products(&x, &x, pixels, pixels, c, T::from_f64(one));
        Gram { to: self.weights.last(), products, factor: Factor::Drift }
    }

    /// What the changes of a telescoping matrix add to its destination: c·(s_t·s_tᵀ)·s_t, less
    /// c·(s_t·s_0ᵀ)·s_0, the inner products over the source layer and the factors of the destination.
    fn change_grams(&self, connection: &Connection<T>, c: T) -> [Gram<T>; 2] {
        let (from, to) = (connection.from, connection.to);
        let (stride, width) = (self.weights.stride(from), self.weights.widths[from]);
        let now: Vec<&[T]> = self.blocks.iter().map(|b| &b.s[from][..]).collect();
        let first: Vec<&[T]> = self.blocks.iter().map(|b| &b.settled[2][from][..]).collect();
        let zero = T::default();
        [
            Gram { to, products: inner_products(&now, &now, stride, width, c, zero), factor: Factor::Now },
            Gram {
                to,
                products: inner_products(&now, &first, stride, width, zero - c, zero),
                factor: Factor::First,
            },
        ]
    }

    /// All steps of the second phase, where no weight changes between them: each block for itself.
    fn nudged_steps_with_fixed_weights(&mut self, batch: &Batch, beta: T) {
        let (weights, dynamics) = (&self.weights, &self.model.dynamics);
        let panels = &weights.panels(1)[0];
        let run = |((block, step), labels): ((&mut Block<T>, &mut Move<T>), &[u8])| {
            for _ in 0..self.protocol.second_steps {
                let blocks = &[step.of(block, labels, Vec::new())];
                let sigma_prime = SigmaPrime::Ignored;
                T::dispatch(NudgedStep { blocks, panels, weights, dynamics, sigma_prime, beta });
                block.advance(step, sigma_prime);
            }
        };
        if self.blocks.len() > 1 && rayon::current_num_threads() > 1 {
            let blocks = self.blocks.par_iter_mut().zip(&mut self.moves);
            blocks.zip(batch.labels.par_chunks(self.rows)).for_each(run);
        } else {
            let blocks = self.blocks.iter_mut().zip(&mut self.moves);
            blocks.zip(batch.labels.chunks(self.rows)).for_each(run);
        }
    }

    /// One step of the second phase on every block: each thread some panels of all layers, the same as in
    /// [`accumulate`], so that weights stay in its cache.
    fn nudged_step(&mut self, batch: &Batch, beta: T, grams: &[Gram<T>], parts: &[Vec<Range<usize>>]) {
        let (weights, dynamics, blocks) = (&self.weights, &self.model.dynamics, &self.blocks);
        let images = batch.labels.len();
        let more = |i: usize| {
            let mut more: Vec<Vec<Term<T>>> = vec![Vec::new(); weights.widths.len()];
            for gram in grams {
                more[gram.to].extend(blocks.iter().enumerate().map(|(j, other)| Term {
                    a: &gram.products[i * self.rows * images + j * self.rows..],
                    a_row: images,
                    a_k: 1,
                    b: match gram.factor {
                        Factor::Drift => &other.drift[gram.to],
                        Factor::Now => &other.s[gram.to],
                        Factor::First => &other.settled[2][gram.to],
                    },
                    b_panel: WIDTH,
                    b_k: weights.stride(gram.to),
                    b_only: None,
                    depth: other.rows,
                }));
            }
            more
        };
        let nudged: Vec<Nudged<T>> = (blocks.iter().zip(&mut self.moves))
            .zip(batch.labels.chunks(self.rows))
            .enumerate()
            .map(|(i, ((block, step), labels))| step.of(block, labels, more(i)))
            .collect();
        let run = |panels: &Vec<Range<usize>>| {
            let sigma_prime = self.protocol.sigma_prime;
            T::dispatch(NudgedStep { blocks: &nudged, panels, weights, dynamics, sigma_prime, beta });
        };
        if parts.len() > 1 {
            parts.par_iter().for_each(run);
        } else {
            parts.iter().for_each(run);
        }
    }
}

/// How many of so many images make a block.
fn block_rows(images: usize) -> usize {
    images.div_ceil(rayon::current_num_threads()).clamp(*BLOCK.start(), *BLOCK.end())
}

/// The numbers of the pixels that are not black in all images, ascending; one at least.
fn lit_pixels(images: &[u8], pixels: usize) -> Vec<u32> {
    let mut brightest = vec![0; pixels];
    for image in images.chunks_exact(pixels) {
        for (brightest, &byte) in brightest.iter_mut().zip(image) {
            *brightest |= byte;
        }
    }
    brightest[0] |= u8::from(brightest.iter().all(|&byte| byte == 0));
    (0..pixels as u32).filter(|&pixel| brightest[pixel as usize] != 0).collect()
}

/// A (B, B) matrix of inner products that stands for changes of weights: products·factor is added to what
/// arrives at layer `to`.
struct Gram<T> {
    to: usize,
    products: Vec<T>,
    factor: Factor,
}

/// States of all images.
enum Factor {
    /// [`Block::drift`] of layer N.
    Drift,
    /// s_t of the destination layer.
    Now,
    /// s_0 = s_* of the destination layer.
    First,
}

/// c·(a_i·b_j + one) for the rows of all blocks, (B, B) row-major.
fn inner_products<T: Real>(a: &[&[T]], b: &[&[T]], stride: usize, width: usize, scale: T, one: T) -> Vec<T> {
    let rows = a[0].len() / stride;
    let images: usize = a.iter().map(|rows| rows.len() / stride).sum();
    let mut products = vec![T::default(); images * images];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            let out = &mut products[i * rows * images + j * rows..];
            T::dispatch(InnerProducts { a, b, stride, width, scale, one, out, out_stride: images });
        }
    }
    products
}

/// Σ over the images of a block of source[k]·destination[lane], as a term.
fn outer<'a, T>(rows: usize, source: &'a [T], source_stride: usize, destination: &'a [T]) -> Term<'a, T> {
    Term {
        a: source,
        a_row: 1,
        a_k: source_stride,
        b: destination,
        b_panel: WIDTH,
        b_k: destination.len() / rows,
        b_only: None,
        depth: rows,
    }
}

/// βB·Δ_W(t) for the weights from layer `from` into layer `to`, between s and s' = s_next.
///
/// - untied (E.4): Δ_to·s_fromᵀ, Δ_to gated as [`SigmaPrime`] says
/// - tied (Eq. 95): s'ⁿ·s'ⁿ⁺¹ᵀ − sⁿ·sⁿ⁺¹ᵀ = Δⁿ·s'ⁿ⁺¹ᵀ + sⁿ·Δⁿ⁺¹ᵀ, the same products in the same
///   order in both directions, so that the two packed copies of a tied matrix stay equal to the bit, and
///   image by image, so that it does not matter how many make a block.
fn change_terms<'a, T: Real>(
    tied: bool,
    blocks: &'a [Block<T>],
    moves: &'a [Move<T>],
    from: usize,
    to: usize,
) -> Vec<Term<'a, T>> {
    let (mut terms, mut more) = (Vec::with_capacity(2 * blocks.len()), Vec::new());
    for (block, step) in blocks.iter().zip(moves) {
        let outer = |source: &'a [T], destination: &'a [T]| {
            outer(block.rows, source, source.len() / block.rows, destination)
        };
        match (tied, from > to) {
            (false, _) => terms.push(outer(&block.s[from], step.delta(from, to))),
            (true, true) => {
                terms.push(outer(&step.s_next[from], &step.delta[to]));
                more.push(outer(&step.delta[from], &block.s[to]));
            }
            (true, false) => {
                terms.push(outer(&step.delta[from], &step.s_next[to]));
                more.push(outer(&block.s[from], &step.delta[to]));
            }
        }
    }
    terms.extend(more);
    terms
}

/// w += rate·Σ terms, whose sources are all or `only` these.
fn accumulate<T: Real>(synapses: &mut Synapses<T>, only: Option<&[u32]>, terms: &[Term<T>], rate: T) {
    let from = synapses.from;
    let panel = from * WIDTH;
    let count = synapses.panels.len() / panel;
    let depth: usize = terms.iter().map(|term| term.depth).sum();
    let work = only.map_or(from, <[u32]>::len) * count * WIDTH * depth;
    let share = work > WORTH_SHARING && rayon::current_num_threads() > 1;
    let per_thread = if share { count.div_ceil(rayon::current_num_threads()) } else { count };
    let run = |(i, panels): (usize, &mut [T])| {
        let terms: Vec<Term<T>> =
            (terms.iter()).map(|term| Term { b: &term.b[i * per_thread * WIDTH..], ..*term }).collect();
        T::dispatch(Accumulate { panels, from, only, terms: &terms, rate });
    };
    if share {
        synapses.panels.par_chunks_mut(per_thread * panel).enumerate().for_each(run);
    } else {
        run((0, &mut synapses.panels));
    }
}

/// b_n += rate·Σ Δⁿ over the images.
fn add_to_bias<T: Real>(bias: &mut [T], moves: &[Move<T>], n: usize, rate: T) {
    let mut sum = vec![T::default(); bias.len()];
    for row in moves.iter().flat_map(|step| step.delta[n].chunks_exact(bias.len())) {
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
        let (pixels, rows) = (self.weights.input.from, *BLOCK.end());
        // Each thread takes its share with one block, which stays in the cache. However many they are, losses
        // add up in the same order.
        let threads = rayon::current_num_threads();
        let share = batch.labels.len().div_ceil(threads).next_multiple_of(rows);
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.resize_with(threads.max(blocks.len()), Block::default);
        let shares = batch.images.par_chunks(share * pixels).zip(batch.labels.par_chunks(share));
        let shown: Vec<(Report, usize)> = (blocks.par_iter_mut().zip(shares))
            .flat_map_iter(|(block, (images, labels))| {
                images.chunks(rows * pixels).zip(labels.chunks(rows)).map(|(images, labels)| {
                    let lit = lit_pixels(images, pixels);
                    self.settle(block, images, &lit);
                    let mut report = Report::default();
                    block.report(&self.weights, labels, &mut report);
                    (report, labels.len() * lit.len())
                })
            })
            .collect();
        self.blocks = blocks;
        let mut report = Report::default();
        self.lit = 0;
        for (block, lit) in shown {
            report.add(&block);
            self.lit += lit;
        }
        Ok(report)
    }

    fn multiply_adds(&self, report: &Report) -> Work {
        let weights = |c: &Connection<T>| (c.synapses.from * c.synapses.to) as f64;
        let batch = self.blocks.iter().map(|b| b.rows).sum::<usize>();
        let (images, steps) = (report.images as f64, self.protocol.second_steps as f64);
        let last = self.weights.last();
        let hidden = self.weights.widths[last] as f64;
        let lit = self.lit as f64;
        let (mut first, mut second) = (lit * hidden, lit * hidden);
        if self.schedule == Schedule::Continual {
            // The Gram matrix of the input, and its product with the drift.
            second += batch as f64 * (lit + images * steps * hidden);
        }
        for connection in &self.weights.between {
            let terms = if self.model.tied { 2.0 } else { 1.0 };
            let update = terms * images * weights(connection);
            first += report.steps as f64 * weights(connection);
            second += images * steps * weights(connection);
            second += if self.telescopes(connection, batch) {
                let both = (connection.synapses.from + connection.synapses.to) as f64;
                steps * 2.0 * images * batch as f64 * both + update
            } else if self.schedule == Schedule::Whole {
                update
            } else {
                steps * update
            };
        }
        Work { first, second }
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
        let feedback = (!self.model.tied).then_some(feedback);
        Ok(Parameters { forward, feedback })
    }
}
