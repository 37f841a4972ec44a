//! One step s_{t+1} = F(x, s_t, θ) of a block, for both phases.

use super::gemm::{Output, Term, product};
use super::packing::Weights;
use super::panels::PanelsMut;
use super::sigma::Sigma;
use super::simd::{Lanes, WIDTH, each};
use super::state::States;
use crate::model::dynamics::Layers;
use std::ops::Range;

/// Initial values of the rows of a sum.
#[derive(Clone, Copy)]
pub enum Start<'a, T> {
    /// Zeros.
    Zero,
    /// These panels, the same in every row.
    Same(&'a [[T; WIDTH]]),
    /// Panels of every row, so many in a row.
    Rows(&'a [[T; WIDTH]], usize),
}

/// Panels that begin as `start` says.
struct Layer<'s, 'p, 'a, T> {
    start: Start<'s, T>,
    out: &'p mut PanelsMut<'a, T>,
}

// SAFETY: `check` sees that `out` has these rows and panels, and `start` their initial values.
unsafe impl<L: Lanes> Output<L> for Layer<'_, '_, '_, L::Elem> {
    fn check(&self, rows: usize, panels: &Range<usize>) {
        let ours = self.out.panels();
        let there = ours.start <= panels.start && panels.end <= ours.end && rows <= self.out.rows();
        let begun = match self.start {
            Start::Zero => true,
            Start::Same(start) => panels.end <= start.len(),
            Start::Rows(start, in_a_row) => rows == 0 || (rows - 1) * in_a_row + panels.end <= start.len(),
        };
        assert!(there && begun, "panels {panels:?} of {rows} rows are not there");
    }

    #[inline(always)]
    unsafe fn start(&self, row: usize, panel: usize) -> L {
        match self.start {
            Start::Zero => L::number(0.0),
            // SAFETY: `check` has seen that it is there.
            Start::Same(panels) => unsafe { L::load(panels.get_unchecked(panel)) },
            // SAFETY: as above.
            Start::Rows(panels, in_a_row) => unsafe { L::load(panels.get_unchecked(row * in_a_row + panel)) },
        }
    }

    #[inline(always)]
    unsafe fn finish(&mut self, row: usize, panel: usize, sum: L) {
        // SAFETY: `check` has seen that it is there.
        sum.store(unsafe { self.out.lanes_unchecked(row, panel) });
    }
}

/// out = start + Σ terms.
#[inline(always)]
pub fn sum<L: Lanes>(start: Start<L::Elem>, terms: &[Term<L::Elem>], out: &mut PanelsMut<L::Elem>) {
    product::<L>(out.rows(), out.panels(), terms, &mut Layer { start, out });
}

/// The places for σ′ of the summed inputs, by layer: see [`crate::learning::SigmaPrime`].
pub enum Gates<'p, 'a, T> {
    /// Nowhere.
    Ignored,
    /// σ′(hⁿ).
    Full(&'p mut [PanelsMut<'a, T>]),
    /// σ′ of the forward, and of the feedback contribution. The latter stays unwritten at the output, which has none.
    Partial(&'p mut [PanelsMut<'a, T>], &'p mut [PanelsMut<'a, T>]),
}

/// The inputs of a step, beside the weights.
pub struct Arriving<'a, T> {
    /// The input's contribution to layer N.
    pub drive: &'a [T],
    /// Further terms, by layer, which count as forward.
    pub more: &'a [Vec<Term<'a, T>>],
    /// The states of the layers next to those that it updates.
    pub s: &'a [&'a [T]],
}

/// Computes F(x, s, θ) for a block: these layers, all at once, in the panels of `s_next`, which are also those of the
/// gates. The panels of other layers stay.
#[inline(always)]
pub fn step<L: Lanes>(
    weights: &Weights<L::Elem>,
    sigma: Sigma,
    Arriving { drive, more, s }: Arriving<L::Elem>,
    layers: Layers,
    s_next: &mut [PanelsMut<L::Elem>],
    mut gates: Gates<L::Elem>,
) {
    let last = weights.last();
    let mut connections = weights.between.iter().peekable();
    for (n, out) in s_next.iter_mut().enumerate() {
        if !layers.contains(n) {
            while connections.next_if(|c| c.to == n).is_some() {}
            continue;
        }
        let mut terms = more.get(n).cloned().unwrap_or_default();
        let mut feedback = None;
        while let Some(c) = connections.next_if(|c| c.to == n) {
            let term = c.matrix.times(s[c.from], weights.stride(c.from));
            match gates {
                Gates::Partial(..) if c.from < n => feedback = Some(term),
                _ => terms.push(term),
            }
        }
        let start = match n == last {
            true => Start::Rows(drive.as_chunks().0, weights.stride(n) / WIDTH),
            false => Start::Same(weights.bias[n].as_chunks().0),
        };
        sum::<L>(start, &terms, out);
        match &mut gates {
            Gates::Ignored => activate::<L>(sigma, out),
            Gates::Full(gates) => activate_and_gate::<L>(sigma, out, &mut gates[n]),
            Gates::Partial(forward, backward) => match feedback {
                None => activate_and_gate::<L>(sigma, out, &mut forward[n]),
                Some(feedback) => {
                    sum::<L>(Start::Zero, &[feedback], &mut backward[n]);
                    activate_and_gate_both::<L>(sigma, out, &mut forward[n], &mut backward[n]);
                }
            },
        }
    }
}

/// s ← σ(h), where the panels held h.
#[inline(always)]
fn activate<L: Lanes>(sigma: Sigma, s: &mut PanelsMut<L::Elem>) {
    each!(row < s.rows() => {
        let s = s.row_mut(row);
        each!(i < s.len() => sigma.apply(L::load(&s[i])).store(&mut s[i]));
    });
}

/// s ← σ(h) and gate ← σ′(h), where `s` held h.
#[inline(always)]
fn activate_and_gate<L: Lanes>(sigma: Sigma, s: &mut PanelsMut<L::Elem>, gate: &mut PanelsMut<L::Elem>) {
    each!(row < s.rows() => {
        let (s, gate) = (s.row_mut(row), gate.row_mut(row));
        each!(i < s.len() => {
            let pre_activation = L::load(&s[i]);
            let activated = sigma.apply(pre_activation);
            sigma.derivative(pre_activation, activated).store(&mut gate[i]);
            activated.store(&mut s[i]);
        });
    });
}

/// s ← σ(h_f + h_b), and each gate ← σ′ of its part, where `s` held h_f and `backward` h_b.
#[inline(always)]
fn activate_and_gate_both<L: Lanes>(
    sigma: Sigma,
    s: &mut PanelsMut<L::Elem>,
    forward: &mut PanelsMut<L::Elem>,
    backward: &mut PanelsMut<L::Elem>,
) {
    each!(row < s.rows() => {
        let (s, forward, backward) = (s.row_mut(row), forward.row_mut(row), backward.row_mut(row));
        each!(i < s.len() => {
            let (from_above, from_below) = (L::load(&s[i]), L::load(&backward[i]));
            sigma.derivative(from_above, sigma.apply(from_above)).store(&mut forward[i]);
            sigma.derivative(from_below, sigma.apply(from_below)).store(&mut backward[i]);
            sigma.apply(from_above.add(from_below)).store(&mut s[i]);
        });
    });
}

/// s' ← damping·s + (1 − damping)·s', in these panels of these layers.
#[inline(always)]
pub fn damp<L: Lanes>(s_next: &mut [PanelsMut<L::Elem>], s: &States<L::Elem>, layers: Layers, damping: f64) {
    for (_, (next, s)) in s_next.iter_mut().zip(s).enumerate().filter(|(n, _)| layers.contains(*n)) {
        each!(row < next.rows() => {
            let s = next.row_of(s, row);
            let next = next.row_mut(row);
            each!(i < next.len() => {
                let stays = L::load(&s[i]).mul_add(L::number(damping), L::number(0.0));
                L::load(&next[i]).mul_add(L::number(1.0 - damping), stays).store(&mut next[i]);
            });
        });
    }
}
