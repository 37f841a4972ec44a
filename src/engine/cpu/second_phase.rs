//! The second (nudged) phase of all blocks, and how the rule learns from it.

use super::first_phase::drive_last_layer;
use super::gemm::Term;
use super::gram::{Gram, change_grams, input_gram, telescopes};
use super::homeostasis::homeostasis;
use super::packing::{Connection, PackedMatrix, Weights};
use super::panels::PanelsMut;
use super::pulses::{Moment, Pulsing};
use super::sigma::Sigma;
use super::simd::{Lanes, Real, Simd, Vectorized, WIDTH, each};
use super::state::{Block, End, Move, MoveMut, all};
use super::step::{Arriving, Gates, damp, step};
use super::update::{accumulate, add_to_bias, change, change_terms, outer, worth_sharing};
use crate::learning::{Alignment, Form, Learning, Schedule, SigmaPrime};
use crate::model::Model;
use crate::model::dynamics::Layers;
use crate::model::synapse::Wants;
use rayon::prelude::*;
use std::ops::Range;

/// The second phase of a minibatch, from the states its blocks have settled in.
pub struct SecondPhase<'a, T> {
    /// The vectors to compute with.
    pub simd: Simd,
    /// F.
    pub model: &'a Model,
    /// σ.
    pub sigma: Sigma,
    /// The rule, K and η.
    pub learning: &'a Learning,
    /// The schedule of the rule's updates.
    pub schedule: Schedule,
    /// θ.
    pub weights: &'a mut Weights<T>,
    /// The memory of the synapses.
    pub memory: &'a mut [(&'static str, Weights<T>)],
    /// The number of updates of arrays of devices so far.
    pub clock: &'a mut Option<u64>,
    /// Room for the wished change of synapses whose changes do not add up.
    pub wished: &'a mut Option<Weights<T>>,
    /// The images.
    pub blocks: &'a mut [Block<T>],
    /// The output of a step, for each block.
    pub moves: &'a mut [Move<T>],
    /// Class of each image.
    pub labels: &'a [u8],
    /// The number of images in a block; the last may have fewer.
    pub rows: usize,
    /// β.
    pub beta: f64,
    /// Epochs done.
    pub epochs: f64,
}

impl<T: Real> SecondPhase<'_, T> {
    /// Runs all [branches](crate::learning::Lesson::branches) of it, and changes the weights.
    pub fn run(mut self) {
        let signs = self.learning.nudging.signs();
        let size = self.beta;
        // Sums of the updates of the weights between layers, and the end of the first branch.
        let zeros = |c: &Connection<T>| PackedMatrix::zeros(c.matrix.from, c.matrix.to);
        let mut total: Vec<PackedMatrix<T>> = match self.schedule {
            Schedule::Sum => self.weights.between.iter().map(zeros).collect(),
            Schedule::Whole | Schedule::Continual | Schedule::Rescaled => Vec::new(),
        };
        let mut first: Option<Vec<End<T>>> = None;
        for (branch, sign) in signs.iter().enumerate() {
            self.beta = sign * size;
            let c = self.factors();
            for (block, first) in self.blocks.iter_mut().zip(self.moves.iter_mut()) {
                block.begin_second_phase(first, self.learning.sigma_prime);
            }
            match self.schedule {
                Schedule::Whole => self.steps_with_fixed_weights(),
                Schedule::Sum => self.steps_that_add_up(&c, &mut total),
                Schedule::Continual => {
                    if branch > 0 {
                        self.drive_anew();
                    }
                    if !self.adds_up() {
                        match self.model.synapse.wants() {
                            Wants::Factors => self.steps_that_pulse(),
                            Wants::Changes | Wants::Arrays => self.steps_that_change(&c),
                        }
                        continue;
                    }
                    self.steps_that_learn(&c);
                }
                Schedule::Rescaled => self.steps_that_learn_a_little(&c),
            }
            // A continual rule learns in each branch, the others once from all of them.
            if branch + 1 < signs.len() && self.schedule != Schedule::Continual {
                first = Some(self.blocks.iter().map(Block::end).collect());
                continue;
            }
            self.take_the_whole_phase(first.as_deref());
            if first.is_some() {
                // c·(s_K − s_*) with β less the same with −β: c·(s_K − s_K), with the sign of the first.
                self.beta = size;
            }
            let c = self.factors();
            match self.adds_up() {
                true => self.learn_once(&c, &total),
                false => self.change(|phase| phase.learn_once(&c, &total)),
            }
        }
        if self.learning.alignment == Alignment::Homeostasis {
            homeostasis(self.simd, self.sigma, self.weights, self.blocks, self.learning.strength);
        }
        for (all, left) in [(true, self.model.synapse.left()), (false, self.learning.left())] {
            let between = self.weights.between.iter_mut().filter(|c| self.learning.learns(c.from, c.to));
            let between = between.map(|c| &mut c.matrix);
            let input = all.then_some(&mut self.weights.input);
            for w in between.chain(input).filter(|_| left != 1.0).flat_map(|matrix| &mut matrix.panels) {
                *w *= T::from_f64(left);
            }
        }
    }

    /// True where changes of weights may come in any order.
    fn adds_up(&self) -> bool {
        self.model.synapse.adds_up()
    }

    /// Applies the changes that `learn` would add to the weights through the synapses.
    fn change(&mut self, learn: impl FnOnce(&mut Self)) {
        let mut wished = self.wished.take().unwrap_or_else(|| self.weights.zeros());
        wished.parts_mut().into_iter().for_each(|part| part.fill(T::default()));
        std::mem::swap(self.weights, &mut wished);
        learn(self);
        std::mem::swap(self.weights, &mut wished);
        let mut memory: Vec<_> = self.memory.iter_mut().map(|(_, weights)| weights.parts_mut()).collect();
        for (i, (weights, wished)) in self.weights.parts_mut().into_iter().zip(wished.parts_mut()).enumerate()
        {
            let memory = memory.iter_mut().map(|parts| &mut *parts[i]).collect();
            change(&self.model.synapse, weights, wished, memory);
        }
        *self.wished = Some(wished);
    }

    /// C-EP and C-VF with synapses whose changes do not add up: runs all steps, each of which changes all weights and
    /// biases.
    fn steps_that_change(&mut self, c: &[T]) {
        let parts = self.parts();
        let all = vec![true; self.weights.between.len()];
        for t in 0..self.learning.K {
            self.nudged_step(t, &[], &parts);
            self.change(|phase| {
                phase.add_updates(c, &all, 0..c.len());
                phase.add_update_of_input(c);
            });
            self.advance();
            self.drive_anew();
        }
    }

    /// C-EP and C-VF with devices that multiply: runs all steps, each of which pulses all arrays.
    fn steps_that_pulse(&mut self) {
        let parts = self.parts();
        let mut pulsing = Pulsing::new(self.weights, self.blocks);
        let images = self.labels.len() as f64;
        let branches = self.learning.nudging.signs().len() as f64;
        let (beta, epochs) = (self.beta, self.epochs);
        let eta = |n: usize| self.learning.rate(n) * self.model.synapse.rate(epochs) / branches;
        let rates: Vec<f64> = (0..self.weights.widths.len()).map(|n| eta(n) / (beta * images)).collect();
        let (form, frozen) = (self.form(), self.learning.last_bias_frozen());
        for t in 0..self.learning.K {
            self.nudged_step(t, &[], &parts);
            let clock = self.clock.unwrap_or_default();
            let learning = self.learning;
            let step = Moment { law: &self.model.synapse, form, rates: &rates, clock, frozen };
            let learns = |from: usize, to: usize| learning.learns(from, to);
            pulsing.pulse(&step, &learns, self.weights, self.memory, self.blocks, self.moves);
            *self.clock = self.clock.map(|clock| clock + 1);
            self.advance();
            if !pulsing.drive(self.blocks, self.weights) {
                self.drive_anew();
            }
        }
    }

    /// c_n = η_n/(βB), by layer; of two branches each has half of η.
    fn factors(&self) -> Vec<T> {
        let images = self.labels.len() as f64;
        let branches = self.learning.nudging.signs().len() as f64;
        let eta = |n: usize| self.learning.rate(n) * self.model.synapse.rate(self.epochs);
        (0..self.weights.widths.len())
            .map(|n| T::from_f64(eta(n) / branches / (self.beta * images)))
            .collect()
    }

    /// Makes the whole phase of each block one step; with two branches, the step from the end of the second to that
    /// of the first.
    fn take_the_whole_phase(&mut self, first: Option<&[End<T>]>) {
        for (i, (block, step)) in self.blocks.iter_mut().zip(self.moves.iter_mut()).enumerate() {
            block.whole_phase(step, self.learning.sigma_prime, first.map(|ends| &ends[i]));
        }
    }

    /// Computes the drive of every block with the weights as they are now.
    fn drive_anew(&mut self) {
        let (simd, weights) = (self.simd, &*self.weights);
        let run = |block: &mut Block<T>| T::run(simd, Drive { block, weights });
        if self.blocks.len() > 1 && rayon::current_num_threads() > 1 {
            self.blocks.par_iter_mut().for_each(run);
        } else {
            self.blocks.iter_mut().for_each(run);
        }
    }

    /// The factor of the learning rate of the bias of layer N.
    fn last_bias(&self) -> T {
        T::from_f64(if self.learning.last_bias_frozen() { 0.0 } else { 1.0 })
    }

    /// The form of the updates.
    fn form(&self) -> Form {
        self.learning.form().unwrap_or(Form::Correlation)
    }

    /// True where the updates of a matrix are left to [`change_grams`] until the phase is over.
    fn telescopes(&self, connection: &Connection<T>) -> bool {
        self.adds_up()
            && telescopes(
                self.form() == Form::Correlation,
                self.schedule,
                &connection.matrix,
                self.labels.len(),
            )
    }

    /// True where a step is worth sharing among threads.
    fn shared(&self) -> bool {
        let weights: usize = self.weights.between.iter().map(|c| c.matrix.panels.len()).sum();
        worth_sharing(weights * self.labels.len())
    }

    /// The panels of each thread.
    fn parts(&self) -> Vec<Vec<Range<usize>>> {
        self.weights.panels(if self.shared() { rayon::current_num_threads() } else { 1 })
    }

    /// EP: runs all steps, between which no weight changes, each block by itself.
    fn steps_with_fixed_weights(&mut self) {
        let Self { simd, beta, learning, model, sigma, rows, labels, .. } = *self;
        let (weights, order) = (&*self.weights, model.settle.order);
        let (parts, sigma_prime, beta) = (&weights.panels(1), SigmaPrime::Ignored, T::from_f64(beta));
        let run = |((block, step), labels): ((&mut Block<T>, &mut Move<T>), &[u8])| {
            for t in 0..learning.K {
                let layers = order.layers(t);
                step.layers = layers;
                for step in step.split(weights, parts) {
                    let blocks = &mut [Nudged { block, labels, more: &[], step }];
                    T::run(simd, NudgedStep { blocks, weights, model, sigma, layers, sigma_prime, beta });
                }
                block.advance(step, sigma_prime);
            }
        };
        if self.blocks.len() > 1 && rayon::current_num_threads() > 1 {
            let blocks = self.blocks.par_iter_mut().zip(self.moves.par_iter_mut());
            blocks.zip(labels.par_chunks(rows)).for_each(run);
        } else {
            self.blocks.iter_mut().zip(self.moves.iter_mut()).zip(labels.chunks(rows)).for_each(run);
        }
    }

    /// VF: runs all steps, and sums their updates of the weights between layers.
    fn steps_that_add_up(&mut self, c: &[T], total: &mut [PackedMatrix<T>]) {
        let parts = self.parts();
        for t in 0..self.learning.K {
            self.nudged_step(t, &[], &parts);
            let between = total.iter_mut().zip(&self.weights.between);
            for (total, connection) in between.filter(|(_, c)| self.learning.learns(c.from, c.to)) {
                let change =
                    change_terms(self.form(), self.blocks, self.moves, connection.from, connection.to);
                accumulate(self.simd, total, None, &change, c[connection.rate()]);
            }
            self.advance();
        }
    }

    /// Algorithm 5: runs all steps as those of C-EP with tiny learning rates. Then it undoes their changes, for
    /// [`SecondPhase::learn_once`] to learn in full: their updates add up to that of the whole phase.
    fn steps_that_learn_a_little(&mut self, c: &[T]) {
        let tiny = T::from_f64(self.learning.tiny);
        let biases = self.weights.bias.clone();
        let in_place = |of: &Self, i: usize| !of.telescopes(&of.weights.between[i]);
        let changed: Vec<usize> = (0..self.weights.between.len()).filter(|&i| in_place(self, i)).collect();
        let matrices: Vec<_> = changed.iter().map(|&i| self.weights.between[i].matrix.clone()).collect();
        self.steps_that_learn(&c.iter().map(|&c| tiny * c).collect::<Vec<_>>());
        self.weights.bias = biases;
        for (i, matrix) in changed.into_iter().zip(matrices) {
            self.weights.between[i].matrix = matrix;
        }
    }

    /// C-EP and C-VF: runs all steps, each of which changes weights and biases, or the [`Gram`] in place of them.
    fn steps_that_learn(&mut self, c: &[T]) {
        let (parts, last) = (self.parts(), self.weights.last());
        let mut grams = vec![input_gram(self.simd, self.weights, self.blocks, c[last], self.last_bias())];
        let in_place: Vec<bool> = self.weights.between.iter().map(|c| !self.telescopes(c)).collect();
        for t in 0..self.learning.K {
            grams.truncate(1);
            let layers = self.model.settle.order.layers(t);
            let changing: Vec<&Connection<T>> = (self.weights.between.iter())
                .filter(|connection| layers.contains(connection.to) && self.telescopes(connection))
                .collect();
            let (simd, weights, blocks) = (self.simd, &*self.weights, &*self.blocks);
            let change = |connection: &&Connection<T>| {
                change_grams(simd, weights, blocks, connection, c[connection.rate()])
            };
            if self.shared() {
                grams.par_extend(changing.par_iter().flat_map_iter(change));
            } else {
                grams.extend(changing.iter().flat_map(change));
            }
            self.nudged_step(t, &grams, &parts);
            self.add_updates(c, &in_place, 0..last);
            self.advance();
        }
    }

    /// s ← s_{t+1} in all blocks.
    fn advance(&mut self) {
        for (block, step) in self.blocks.iter_mut().zip(self.moves.iter_mut()) {
            block.advance(step, self.learning.sigma_prime);
        }
    }

    /// Applies the updates that wait for the end of the phase: everything for EP, for VF the `total` of all steps and
    /// the biases, telescoping matrices, and all that comes from the input. The moves are those of the whole phase.
    fn learn_once(&mut self, c: &[T], total: &[PackedMatrix<T>]) {
        let last = self.weights.last();
        let once = matches!(self.schedule, Schedule::Whole | Schedule::Rescaled);
        let chosen: Vec<bool> = self.weights.between.iter().map(|c| once || self.telescopes(c)).collect();
        let biases = if self.schedule == Schedule::Continual { last..last + 1 } else { 0..last + 1 };
        self.add_updates(c, &chosen, biases);
        self.add_update_of_input(c);
        for (connection, total) in self.weights.between.iter_mut().zip(total) {
            for (w, &total) in connection.matrix.panels.iter_mut().zip(&total.panels) {
                *w += total;
            }
        }
    }

    /// Adds the updates of a step to the chosen matrices between layers, and to these biases.
    fn add_updates(&mut self, c: &[T], chosen: &[bool], biases: Range<usize>) {
        let (last, last_bias, form) = (self.weights.last(), self.last_bias(), self.form());
        let (weights, blocks, moves) = (&mut *self.weights, &*self.blocks, &*self.moves);
        let learning = weights.between.iter_mut().zip(chosen);
        for (connection, _) in learning.filter(|(c, chosen)| **chosen && self.learning.learns(c.from, c.to)) {
            let change = change_terms(form, blocks, moves, connection.from, connection.to);
            let c = c[connection.rate()];
            accumulate(self.simd, &mut connection.matrix, None, &change, c);
        }
        for n in biases {
            let c = if n == last { c[n] * last_bias } else { c[n] };
            add_to_bias(&mut weights.bias[n], moves, n, c);
        }
    }

    /// Adds the update of a step to the weights from the input.
    fn add_update_of_input(&mut self, c: &[T]) {
        let last = self.weights.last();
        let (blocks, moves) = (&*self.blocks, &*self.moves);
        let change: Vec<Term<T>> = (blocks.iter().zip(moves))
            .filter(|(_, step)| step.layers.contains(last))
            .map(|(block, step)| outer(block.rows, &block.x, block.active_pixels.len(), &step.delta[last]))
            .collect();
        accumulate(self.simd, &mut self.weights.input, Some(&blocks[0].active_pixels), &change, c[last]);
    }

    /// Runs step `t` on every block. Each thread takes some panels of all layers, as in [`accumulate`], so that
    /// weights stay in its cache.
    fn nudged_step(&mut self, t: usize, grams: &[Gram<T>], parts: &[Vec<Range<usize>>]) {
        let layers = self.model.settle.order.layers(t);
        let (simd, beta, sigma_prime) = (self.simd, T::from_f64(self.beta), self.learning.sigma_prime);
        let (weights, model, sigma, blocks) = (&*self.weights, self.model, self.sigma, &*self.blocks);
        let (images, rows) = (self.labels.len(), self.rows);
        let more: Vec<Vec<Vec<Term<T>>>> =
            (0..blocks.len()).map(|i| gram_terms(grams, weights, blocks, i * rows, images, rows)).collect();
        let mut shares: Vec<Vec<Nudged<T>>> =
            parts.iter().map(|_| Vec::with_capacity(blocks.len())).collect();
        let of_blocks = blocks.iter().zip(self.moves.iter_mut()).zip(self.labels.chunks(rows)).zip(&more);
        for (((block, step), labels), more) in of_blocks {
            step.layers = layers;
            for (share, step) in shares.iter_mut().zip(step.split(weights, parts)) {
                share.push(Nudged { block, labels, more, step });
            }
        }
        let run = |blocks: &mut Vec<Nudged<T>>| {
            T::run(simd, NudgedStep { blocks, weights, model, sigma, layers, sigma_prime, beta });
        };
        if shares.len() > 1 {
            shares.par_iter_mut().for_each(run);
        } else {
            shares.iter_mut().for_each(run);
        }
    }
}

/// The contributions of `grams` to the layers of the block that begins with image `first`, by layer.
fn gram_terms<'a, T: Real>(
    grams: &'a [Gram<T>],
    weights: &Weights<T>,
    blocks: &'a [Block<T>],
    first: usize,
    images: usize,
    rows: usize,
) -> Vec<Vec<Term<'a, T>>> {
    let mut terms: Vec<Vec<Term<T>>> = vec![Vec::new(); weights.widths.len()];
    for gram in grams {
        terms[gram.to].extend(blocks.iter().enumerate().map(|(j, other)| Term {
            a: &gram.products[first * images + j * rows..],
            a_row: images,
            a_k: 1,
            b: gram.factor.of(other, gram.to),
            b_panel: WIDTH,
            b_k: weights.stride(gram.to),
            b_only: None,
            depth: other.rows,
        }));
    }
    terms
}

/// u_0 of a block, with the weights as they are.
struct Drive<'a, T> {
    block: &'a mut Block<T>,
    weights: &'a Weights<T>,
}

impl<T: Real> Vectorized<T> for Drive<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Block { active_pixels, x, drive, .. } = self.block;
        drive_last_layer::<L>(self.weights, active_pixels, x, drive);
    }
}

/// Some panels of a block in a step of the second phase.
struct Nudged<'a, T> {
    /// The block, with s_t.
    block: &'a Block<T>,
    /// Class of each image.
    labels: &'a [u8],
    /// Contributions in place of the changes of weights that stay fixed, by layer.
    more: &'a [Vec<Term<'a, T>>],
    /// The output of the step.
    step: MoveMut<'a, T>,
}

/// One step of the second phase of some panels of some blocks, from s_t.
struct NudgedStep<'n, 'a, T> {
    blocks: &'n mut [Nudged<'a, T>],
    /// θ_t, except for weights that stay fixed during the second phase.
    weights: &'n Weights<T>,
    /// F.
    model: &'n Model,
    /// σ.
    sigma: Sigma,
    /// The layers that it updates.
    layers: Layers,
    /// The gating of Δs.
    sigma_prime: SigmaPrime,
    /// β.
    beta: T,
}

impl<T: Real> Vectorized<T> for NudgedStep<'_, '_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { blocks, weights, model, sigma, layers, sigma_prime, beta } = self;
        for Nudged { block, labels, more, step: MoveMut { s_next, delta, delta_feedback } } in blocks {
            let s = &block.s;
            let gates = match sigma_prime {
                SigmaPrime::Ignored => Gates::Ignored,
                SigmaPrime::Full => Gates::Full(delta),
                SigmaPrime::Partial => Gates::Partial(delta, delta_feedback),
            };
            let arriving = Arriving { drive: &block.drive, more, s: &all(s) };
            step::<L>(weights, sigma, arriving, layers, s_next, gates);
            if layers.contains(0) {
                nudge(&mut s_next[0], &s[0], labels, weights.widths[0], beta);
            }
            if model.settle.damping > 0.0 {
                damp::<L>(s_next, s, layers, model.settle.damping);
            }
            let gated = sigma_prime != SigmaPrime::Ignored;
            let moved = s_next.iter().zip(s).enumerate().filter(|(n, _)| layers.contains(*n));
            for (n, (next, s)) in moved {
                store_change::<L>(next, s, gated, &mut delta[n]);
                if let Some(delta) = delta_feedback.get_mut(n).filter(|_| n > 0) {
                    store_change::<L>(next, s, gated, delta);
                }
            }
        }
    }
}

/// s⁰_{t+1} += β(y − s⁰_t), in these panels of the output layer of `classes` neurons.
#[inline(always)]
fn nudge<T: Real>(next: &mut PanelsMut<T>, s: &[T], labels: &[u8], classes: usize, beta: T) {
    let first = next.panels().start * WIDTH;
    for (row, &label) in labels.iter().enumerate() {
        let s = next.row_of(s, row).as_flattened();
        let next = next.row_mut(row).as_flattened_mut();
        for (class, (next, &s)) in (first..classes).zip(next.iter_mut().zip(s)) {
            let y = T::from_f64(if class == usize::from(label) { 1.0 } else { 0.0 });
            *next += beta * (y - s);
        }
    }
}

/// Δs ← s_{t+1} − s_t, times what `delta` held where that is a gate.
#[inline(always)]
fn store_change<L: Lanes>(
    next: &PanelsMut<L::Elem>,
    s: &[L::Elem],
    gated: bool,
    delta: &mut PanelsMut<L::Elem>,
) {
    each!(row < next.rows() => {
        let (next, s, delta) = (next.row(row), next.row_of(s, row), delta.row_mut(row));
        each!(i < next.len() => {
            let change = L::load(&next[i]).sub(L::load(&s[i]));
            match gated {
                true => change.mul_add(L::load(&delta[i]), L::number(0.0)).store(&mut delta[i]),
                false => change.store(&mut delta[i]),
            }
        });
    });
}
