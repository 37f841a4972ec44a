//! Updates of packed weights: βB·Δ_θ(t), the Hebbian update of a step, added in place.

use super::gemm::{Output, Term, product};
use super::packing::PackedMatrix;
use super::simd::{Lanes, Real, Simd, Vectorized, WIDTH};
use super::state::{Block, Move};
use crate::learning::Form;
use crate::model::Synapse;
use rayon::prelude::*;
use std::ops::Range;

/// True where so many multiply-adds, of a step of the second phase or of an update, are worth sharing among threads.
pub fn worth_sharing(multiply_adds: usize) -> bool {
    multiply_adds > 2_000_000 && rayon::current_num_threads() > 1
}

/// Σ over the images of a block of source[k]·destination[lane], as a term.
pub fn outer<'a, T>(rows: usize, source: &'a [T], source_stride: usize, destination: &'a [T]) -> Term<'a, T> {
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
/// - vector field (E.4): Δ_to·s_fromᵀ, Δ_to gated as [`crate::learning::SigmaPrime`] says
/// - correlation (Eq. 95): s'ⁿ·s'ⁿ⁺¹ᵀ − sⁿ·sⁿ⁺¹ᵀ = Δⁿ·s'ⁿ⁺¹ᵀ + sⁿ·Δⁿ⁺¹ᵀ, the same products in the same
///   order in both directions, so that the two packed copies of a tied matrix stay equal to the bit, and
///   image by image, so that it does not matter how many make a block.
///
/// Layers that the step has not moved have no Δ, and s' = s.
pub fn change_terms<'a, T: Real>(
    form: Form,
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
        let moved = |n: usize| step.layers.contains(n);
        let s_next = |n: usize| if moved(n) { &step.s_next[n] } else { &block.s[n] };
        if form == Form::VectorField {
            if moved(to) {
                terms.push(outer(&block.s[from], step.delta(from, to)));
            }
            continue;
        }
        // Δ of the layer towards the output is multiplied with s' of the other, and Δ of the other with s.
        let (of_to, source, of_from, destination) = match from > to {
            true => (&mut terms, s_next(from), &mut more, &block.s[to]),
            false => (&mut more, &block.s[from], &mut terms, s_next(to)),
        };
        if moved(to) {
            of_to.push(outer(source, &step.delta[to]));
        }
        if moved(from) {
            of_from.push(outer(&step.delta[from], destination));
        }
    }
    terms.extend(more);
    terms
}

/// w += scale·Σ terms, from all source neurons or `only` these.
pub fn accumulate<T: Real>(
    simd: Simd,
    matrix: &mut PackedMatrix<T>,
    only: Option<&[u32]>,
    terms: &[Term<T>],
    scale: T,
) {
    if terms.is_empty() {
        return;
    }
    let from = matrix.from;
    let panel = from * WIDTH;
    let count = matrix.panels.len() / panel;
    let depth: usize = terms.iter().map(|term| term.depth).sum();
    let share = worth_sharing(only.map_or(from, <[u32]>::len) * count * WIDTH * depth);
    let per_thread = if share { count.div_ceil(rayon::current_num_threads()) } else { count };
    let run = |(i, panels): (usize, &mut [T])| {
        let terms: Vec<Term<T>> =
            (terms.iter()).map(|term| Term { b: &term.b[i * per_thread * WIDTH..], ..*term }).collect();
        T::run(simd, Accumulate { panels: panels.as_chunks_mut().0, from, only, terms: &terms, scale });
    };
    if share {
        matrix.panels.par_chunks_mut(per_thread * panel).enumerate().for_each(run);
    } else {
        run((0, &mut matrix.panels));
    }
}

/// w += scale·Σ terms, for the panels of some destination neurons.
struct Accumulate<'a, T> {
    /// `[panel][source]`.
    panels: &'a mut [[T; WIDTH]],
    /// The number of source neurons.
    from: usize,
    /// The source neurons of the terms; all in order where `None`.
    only: Option<&'a [u32]>,
    /// a: source neurons × images, b: images × destination neurons.
    terms: &'a [Term<'a, T>],
    scale: T,
}

impl<T: Real> Vectorized<T> for Accumulate<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { panels, from, only, terms, scale } = self;
        let count = panels.len() / from;
        let rows = only.map_or(from, <[u32]>::len);
        product::<L>(rows, 0..count, terms, &mut AddTo { panels, from, only, scale: L::splat(scale) });
    }
}

/// w[panel][source] += scale·sum.
struct AddTo<'a, L: Lanes> {
    panels: &'a mut [[L::Elem; WIDTH]],
    from: usize,
    only: Option<&'a [u32]>,
    scale: L,
}

// SAFETY: `check` sees that all sources and panels are there.
unsafe impl<L: Lanes> Output<L> for AddTo<'_, L> {
    fn check(&self, sources: usize, panels: &Range<usize>) {
        let listed = match self.only {
            None => sources <= self.from,
            Some(only) => sources <= only.len() && only.iter().all(|&source| (source as usize) < self.from),
        };
        assert!(listed && panels.end * self.from <= self.panels.len(), "a source or panel out of bounds");
    }

    #[inline(always)]
    unsafe fn start(&self, _: usize, _: usize) -> L {
        L::number(0.0)
    }

    #[inline(always)]
    unsafe fn finish(&mut self, source: usize, panel: usize, sum: L) {
        // SAFETY: `check` has seen that the source is listed, that it is below `from`, and that the panel is there.
        let w = unsafe {
            let source = self.only.map_or(source, |only| *only.get_unchecked(source) as usize);
            self.panels.get_unchecked_mut(panel * self.from + source)
        };
        self.scale.mul_add(sum, L::load(w)).store(w);
    }
}

/// b_n += scale·Σ Δⁿ over the images, where layer n has moved.
pub fn add_to_bias<T: Real>(bias: &mut [T], moves: &[Move<T>], n: usize, scale: T) {
    if !moves.iter().any(|step| step.layers.contains(n)) {
        return;
    }
    let mut sum = vec![T::default(); bias.len()];
    for row in moves.iter().flat_map(|step| step.delta[n].chunks_exact(bias.len())) {
        for (sum, &delta) in sum.iter_mut().zip(row) {
            *sum += delta;
        }
    }
    for (b, sum) in bias.iter_mut().zip(sum) {
        *b += scale * sum;
    }
}

/// The count of numbers that a thread hands to a synapse at a time.
const HANDFUL: usize = 1 << 12;

/// Lets a synapse change some weights of one kind, in double precision, handful by handful.
pub fn change<T: Real>(law: &Synapse, weights: &mut [T], wished: &[T], memory: Vec<&mut [T]>) {
    let mut handfuls: Vec<Vec<&mut [T]>> = weights.chunks_mut(HANDFUL).map(|own| vec![own]).collect();
    for memory in memory {
        handfuls.iter_mut().zip(memory.chunks_mut(HANDFUL)).for_each(|(handful, own)| handful.push(own));
    }
    let run = |(mut handful, wished): (Vec<&mut [T]>, &[T])| {
        let doubled = |numbers: &[T]| numbers.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
        let mut doubles: Vec<Vec<f64>> = handful.iter().map(|numbers| doubled(numbers)).collect();
        let [weights, memory @ ..] = &mut doubles[..] else { return };
        let mut memory: Vec<&mut [f64]> = memory.iter_mut().map(Vec::as_mut_slice).collect();
        law.change(weights, &doubled(wished), &mut memory);
        for (numbers, doubles) in handful.iter_mut().zip(&doubles) {
            numbers.iter_mut().zip(doubles).for_each(|(number, &double)| *number = T::from_f64(double));
        }
    };
    let handfuls: Vec<_> = handfuls.into_iter().zip(wished.chunks(HANDFUL)).collect();
    match worth_sharing(HANDFUL * handfuls.len()) {
        true => handfuls.into_par_iter().for_each(run),
        false => handfuls.into_iter().for_each(run),
    }
}
