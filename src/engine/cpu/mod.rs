//! The fused engine: the fast path for CPUs, in f32 or f64.
//!
//! It computes what [`Learning`](crate::learning::Learning) says, equal to the plain engine up to rounding, with
//! - weights packed in panels, so that a step streams them once ([`packing`]);
//! - all inputs of a layer summed in registers ([`gemm`]);
//! - the input weights left alone during the second (nudged) phase: with G = x·xᵀ + 1 (B, B) the drive is
//!   u_t = u_0 + c·G·(sᴺ_t − sᴺ_0), and W_x changes once, at the end, by c·(sᴺ_K − sᴺ_0)ᵀ·x, where
//!   c = η_N/(βB). This is exact, since Δ_{W x} is linear in s and x does not change. Where σ′ gates Δs, the sum of
//!   the gated Δs so far stands for sᴺ_t − sᴺ_0 ([`gram`]);
//! - the same for large tied matrices under C-EP, whose updates telescope: W_n(t) = W_n(0) +
//!   c·(sⁿ_tᵀ·sⁿ⁺¹_t − sⁿ_0ᵀ·sⁿ⁺¹_0), so that s·W_n(t) is s·W_n(0) and two products with (B, B) matrices. Under
//!   Algorithm 5 c is tiny until the phase is over;
//! - pixels left out that are black in all images of a minibatch, which take no part in anything;
//! - images in [blocks](BLOCK), each on a thread of its own for the whole first (free) phase, which ends for every
//!   image as it settles ([`first_phase`]). A number is computed the same way whichever thread does it, and
//!   whatever images share its block.
//!
//! Modules, each of which knows only those before it: [`simd`], [`sigma`], [`gemm`] and [`panels`], [`packing`],
//! [`state`], [`step`], [`first_phase`], [`gram`] and [`update`], [`homeostasis`], [`pulses`], [`second_phase`].

mod first_phase;
mod gemm;
mod gram;
mod homeostasis;
mod packing;
mod panels;
mod pulses;
mod second_phase;
mod sigma;
mod simd;
mod state;
mod step;
mod update;

use super::{Batch, Engine, Job, MultiplyAdds, Report, Turn, Why};
use crate::learning::{Form, Memory, Nudging, Schedule};
use crate::model::dynamics::Time;
use crate::model::synapse::{self, Ledger, Wants};
use crate::model::{Loss, Network, Parameters};
use anyhow::{Result, bail};
use candle_core::Tensor;
use first_phase::{FirstPhase, Unsettled};
use packing::{Connection, Weights};
use pulses::Before;
use rayon::prelude::*;
use second_phase::SecondPhase;
use sigma::Sigma;
pub use simd::{Isa, Real, Simd};
use state::{BLOCK, Block, Move};
use std::collections::HashMap;

/// True where fast engines have the rule: the updates of the paper in discrete time.
pub(super) fn runs(network: &Network, Job { model, learning, .. }: &Job) -> bool {
    let rule = match (learning.rule.schedule(), learning.form()) {
        (Some(Schedule::Whole), Some(Form::VectorField)) | (_, None) => false,
        (_, Some(form)) => form == Form::Correlation || !network.is_tied(),
    };
    rule && learning.rule.corrects.is_none() && model.dynamics.time == Time::Discrete
}

/// Checks that the fused engine can run this.
///
/// # Errors
/// Why not.
pub fn supports(network: &Network, job: &Job) -> Result<(), Why> {
    let Job { model, learning, .. } = job;
    let needs = [
        (runs(network, job), "runs ep, cep, cep-rescaled, vf and cvf in discrete time"),
        (!network.has_convolutions(), "has no convolutions, which run on the plain engine"),
        (network.is_layered(), "runs chains of layers"),
        (Sigma::of(model.dynamics.activation).is_some(), "has the sigmoid, tanh and the hard sigmoid only"),
        (model.dynamics.readout.is_none(), "has no softmax readout, only output neurons with states"),
        (model.dynamics.normal.is_none(), "takes pixels as they are, from 0 to 1, and normalises none"),
        (model.loss == Loss::SQUARED_ERROR, "has the squared error only"),
        (model.noise.is_none(), "computes without the noise and converters of [noise]"),
        (
            model.synapse.adds_up() || model.synapse.wants() != Wants::Arrays,
            "has no devices that are asked array by array, as with synapse.pulses = \"deterministic\" and \"exact\"",
        ),
        (
            model.synapse.adds_up()
                || model.synapse.wants() != Wants::Factors
                || learning.rule.schedule() == Some(Schedule::Continual),
            "pulses devices at every step only, with cep and cvf",
        ),
        (
            model.synapse.adds_up()
                || learning.rule.schedule() == Some(Schedule::Continual)
                || learning.nudging != Nudging::Centered,
            "nudges from both sides at once: it needs synapses whose changes add up",
        ),
    ];
    match needs.into_iter().find(|(met, _)| !met) {
        Some((_, why)) => Err(why.into()),
        None => Ok(()),
    }
}

/// The fast path for CPUs.
pub struct Fused<T: Real> {
    job: Job,
    schedule: Schedule,
    sigma: Sigma,
    simd: Simd,
    weights: Weights<T>,
    /// The memory of the synapses, by name.
    memory: Vec<(&'static str, Weights<T>)>,
    /// As [`SecondPhase::wished`].
    wished: Option<Weights<T>>,
    /// As [`SecondPhase::clock`].
    clock: Option<u64>,
    /// Σ pixels looked at over the images of the last batch.
    pixels_seen: usize,
    blocks: Vec<Block<T>>,
    /// Room for the unsettled images of each block.
    unsettled: Vec<Unsettled<T>>,
    moves: Vec<Move<T>>,
}

impl<T: Real> Fused<T> {
    /// An engine that holds a packed copy of `theta` and computes with the best vectors there are.
    ///
    /// # Errors
    /// Where it cannot run the job, and those of candle.
    pub fn new(job: Job, theta: &Parameters) -> Result<Self> {
        Self::with(Simd::detect(), job, theta)
    }

    /// An engine that computes with these vectors.
    ///
    /// # Errors
    /// As [`Fused::new`].
    pub fn with(simd: Simd, job: Job, theta: &Parameters) -> Result<Self> {
        let sigma = Sigma::of(job.model.dynamics.activation);
        let (schedule, sigma) = match (job.learning.rule.schedule(), sigma, supports(&theta.network, &job)) {
            (Some(schedule), Some(sigma), Ok(())) => (schedule, sigma),
            (.., why) => bail!("the fused engine {}", why.err().unwrap_or_default()),
        };
        let weights = Weights::pack(theta)?;
        let Memory { values, clock, .. } = Memory::new(&job.model, theta)?;
        let memory = values.iter().map(|(name, values)| Ok((*name, Weights::pack(values)?)));
        let memory = memory.collect::<Result<_>>()?;
        let (wished, pixels_seen, blocks, unsettled, moves) = Default::default();
        Ok(Self {
            job,
            schedule,
            sigma,
            simd,
            weights,
            memory,
            wished,
            clock,
            pixels_seen,
            blocks,
            unsettled,
            moves,
        })
    }

    /// The memory of the synapses, as tensors.
    fn unpacked_memory(&self) -> Result<Memory> {
        let unpacked = self.memory.iter().map(|(name, packed)| Ok((*name, packed.unpack()?)));
        Ok(Memory { values: unpacked.collect::<Result<_>>()?, clock: self.clock, own: Default::default() })
    }

    /// Lets arrays of devices change as `work` says.
    fn each_array(
        &mut self,
        work: impl FnOnce(&mut Memory, &mut Parameters) -> candle_core::Result<()>,
    ) -> Result<()> {
        let (mut memory, mut theta) = (self.unpacked_memory()?, self.weights.unpack()?);
        work(&mut memory, &mut theta)?;
        self.weights = Weights::pack(&theta)?;
        self.remember(&memory)
    }

    /// Packs the memory of the synapses.
    fn remember(&mut self, memory: &Memory) -> Result<()> {
        for ((_, packed), (_, remembered)) in self.memory.iter_mut().zip(&memory.values) {
            *packed = Weights::pack(remembered)?;
        }
        self.clock = memory.clock;
        Ok(())
    }

    /// Makes `blocks` blocks.
    fn resize(&mut self, blocks: usize) {
        self.blocks.resize_with(blocks, Block::default);
        self.unsettled.resize_with(blocks, Unsettled::default);
    }

    /// Runs the first phase on all images of a batch to be learnt, each block on a thread.
    fn first_phase(&mut self, batch: &Batch, rows: usize) -> Result<Report> {
        let images = batch.labels.len();
        self.resize(images.div_ceil(rows));
        let pixels = self.weights.input.from;
        let active_pixels = active_pixels(&batch.images, pixels);
        self.pixels_seen = images * active_pixels.len();
        let Self { job: Job { model, .. }, sigma, simd, weights, blocks, unsettled, .. } = self;
        let run = |((block, unsettled), images): ((&mut Block<T>, &mut Unsettled<T>), &[u8])| {
            let active_pixels = &active_pixels;
            T::run(
                *simd,
                FirstPhase { block, unsettled, weights, model, sigma: *sigma, images, active_pixels },
            );
        };
        let bytes = rows * pixels;
        if blocks.len() > 1 && rayon::current_num_threads() > 1 {
            let blocks = blocks.par_iter_mut().zip(unsettled.par_iter_mut());
            blocks.zip(batch.images.par_chunks(bytes)).for_each(run);
        } else {
            blocks.iter_mut().zip(unsettled).zip(batch.images.chunks(bytes)).for_each(run);
        }
        let mut report = Report::default();
        for (block, labels) in blocks.iter().zip(batch.labels.chunks(rows)) {
            block.report(weights, model.loss, labels, &mut report)?;
        }
        Ok(report)
    }
}

/// The number of images in a block, for so many images in all.
fn block_rows(images: usize) -> usize {
    images.div_ceil(rayon::current_num_threads()).clamp(*BLOCK.start(), *BLOCK.end())
}

/// The numbers of the pixels that are not black in all images, ascending; one at least.
fn active_pixels(images: &[u8], pixels: usize) -> Vec<u32> {
    let mut brightest = vec![0; pixels];
    for image in images.chunks_exact(pixels) {
        for (brightest, &byte) in brightest.iter_mut().zip(image) {
            *brightest |= byte;
        }
    }
    brightest[0] |= u8::from(brightest.iter().all(|&byte| byte == 0));
    (0..pixels as u32).filter(|&pixel| brightest[pixel as usize] != 0).collect()
}

impl<T: Real> Engine for Fused<T> {
    fn train_at(&mut self, batch: &Batch, Turn { beta, epochs }: Turn) -> Result<Report> {
        self.job.check(&self.weights.network, batch)?;
        let law = self.job.model.synapse.clone();
        if self.clock == Some(0) {
            self.each_array(|memory, theta| memory.program(&law, theta))?;
        }
        let before = law.ledger().is_some().then(|| Before::of(&mut self.weights));
        let rows = block_rows(batch.labels.len());
        let report = self.first_phase(batch, rows)?;
        self.moves.resize_with(self.blocks.len(), Move::default);
        let Self {
            job: Job { model, learning, .. },
            schedule,
            sigma,
            simd,
            weights,
            memory,
            wished,
            clock,
            blocks,
            moves,
            ..
        } = self;
        let (simd, schedule, labels) = (*simd, *schedule, &batch.labels);
        let phase = SecondPhase {
            simd,
            model,
            sigma: *sigma,
            learning,
            schedule,
            weights,
            memory,
            wished,
            clock,
            blocks,
            moves,
            labels,
            rows,
            beta,
            epochs,
        };
        phase.run();
        if self.clock.is_some() && law.rests() {
            self.each_array(|memory, theta| memory.rest(&law, theta))?;
        }
        if let Some(before) = before {
            before.book(&law, &mut self.weights);
        }
        Ok(report)
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        self.job.check(&self.weights.network, batch)?;
        let (pixels, rows) = (self.weights.input.from, *BLOCK.end());
        // Each thread takes its share of the images with one block, which stays in the cache. Losses add up in one
        // order, whatever the number of threads.
        let threads = rayon::current_num_threads();
        let share = batch.labels.len().div_ceil(threads).next_multiple_of(rows);
        self.resize(threads.max(self.blocks.len()));
        let Self { job: Job { model, .. }, sigma, simd, weights, blocks, unsettled, .. } = self;
        let shares = batch.images.par_chunks(share * pixels).zip(batch.labels.par_chunks(share));
        let shown: Vec<Result<(Report, usize)>> = (blocks
            .par_iter_mut()
            .zip(unsettled.par_iter_mut())
            .zip(shares))
        .flat_map_iter(|((block, unsettled), (images, labels))| {
            let (model, sigma, simd, weights) = (&*model, *sigma, *simd, &*weights);
            images.chunks(rows * pixels).zip(labels.chunks(rows)).map(move |(images, labels)| {
                let active_pixels = &active_pixels(images, pixels);
                let unsettled = &mut *unsettled;
                T::run(simd, FirstPhase { block, unsettled, weights, model, sigma, images, active_pixels });
                let mut report = Report::default();
                block.report(weights, model.loss, labels, &mut report)?;
                Ok((report, labels.len() * active_pixels.len()))
            })
        })
        .collect();
        let mut report = Report::default();
        self.pixels_seen = 0;
        for shown in shown {
            let (block, pixels_seen) = shown?;
            report.add(&block);
            self.pixels_seen += pixels_seen;
        }
        Ok(report)
    }

    fn multiply_adds(&self, report: &Report) -> MultiplyAdds {
        let Job { model, learning, .. } = &self.job;
        let correlation = learning.form() == Some(Form::Correlation);
        let weights = |c: &Connection<T>| (c.matrix.from * c.matrix.to) as f64;
        let batch = self.blocks.iter().map(|b| b.rows).sum::<usize>();
        let (images, steps) = (report.images as f64, learning.K as f64);
        let (order, branches) = (model.settle.order, learning.nudging.signs().len() as f64);
        let last = self.weights.last();
        let hidden = self.weights.widths[last] as f64;
        let pixels_seen = self.pixels_seen as f64;
        let (mut first, mut second) = (pixels_seen * hidden, pixels_seen * hidden);
        // The work of the second phase that two branches share.
        let mut once = second;
        if matches!(self.schedule, Schedule::Continual | Schedule::Rescaled) {
            // The Gram matrix of the input, and its product with the drift.
            second += batch as f64 * (pixels_seen + images * steps * hidden);
        }
        for connection in &self.weights.between {
            let terms = if correlation { 2.0 } else { 1.0 };
            let update = terms * images * weights(connection);
            let moves = |t: &usize| order.layers(*t).contains(connection.to);
            let steps = (0..learning.K).filter(moves).count() as f64;
            first += report.steps as f64 / order.sweep() as f64 * weights(connection);
            second += images * steps * weights(connection);
            let learnt = if gram::telescopes(correlation, self.schedule, &connection.matrix, batch) {
                let both = (connection.matrix.from + connection.matrix.to) as f64;
                steps * 2.0 * images * batch as f64 * both + update
            } else if self.schedule == Schedule::Whole {
                update
            } else if self.schedule == Schedule::Rescaled {
                steps * update + update
            } else {
                steps * update
            };
            second += learnt;
            if matches!(self.schedule, Schedule::Whole | Schedule::Rescaled) {
                once += update;
            }
        }
        // Each of two branches takes its steps; C-EP and C-VF compute the drive of the second anew, the others learn
        // once from both.
        let again = match self.schedule {
            Schedule::Continual => second + pixels_seen * hidden,
            Schedule::Whole | Schedule::Sum | Schedule::Rescaled => second - once,
        };
        MultiplyAdds { first, second: second + (branches - 1.0) * again }
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.weights.unpack()?)
    }

    fn memory(&self) -> Result<Vec<(String, Tensor)>> {
        let ledger = synapse::saved_ledger(&self.job.model.synapse)?;
        Ok(self.unpacked_memory()?.named().into_iter().chain(ledger).collect())
    }

    fn recall(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let mut memory = self.unpacked_memory()?;
        memory.recall(tensors, &self.weights.unpack()?)?;
        self.remember(&memory)?;
        Ok(synapse::recall_ledger(&self.job.model.synapse, tensors)?)
    }

    fn ledger(&self) -> Option<Vec<Ledger>> {
        self.job.model.synapse.ledger().map(|book| book.clone())
    }

    fn clear_ledger(&mut self) {
        if let Some(mut book) = self.job.model.synapse.ledger() {
            book.clear();
        }
    }
}
