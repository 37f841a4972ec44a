//! The first (free) phase: the search for the equilibrium s_*, from s_0 = 0 without a nudge.
//!
//! The paper takes T synchronous steps. Two choices of ours find the same fixed points in less arithmetic:
//!
//! - **alternating order**: even layers, then odd ones, half of the network in each step. A layer's neighbours are all
//!   of the other parity, so from s_0 = 0 a synchronous phase is two interleaved chains that never meet; this is one of
//!   them. After 2m half-steps the odd layers are where m synchronous pairs of steps leave them, s_{2m}, and the even
//!   ones at s_{2m−1}.
//! - **[Anderson's acceleration](super::anderson)** between sweeps over all layers.
//!
//! The second phase takes its steps in the same [`Order`]. Why Theorem 1 holds for half-steps, too, with the same K,
//! is in `docs/equilibrium.md`.

use super::anderson::Anderson;
use super::dynamics::Layers;
use super::{Model, Parameters};
use candle_core::{D, DType, Result, Tensor};
use serde::{Deserialize, Serialize};

/// Steps between two checks whether the states have settled.
pub const SETTLE_CHECK: usize = 4;

/// The order in which layers are updated, in both phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// All at once, as in the paper.
    Synchronous,
    /// Even layers in one step, odd ones in the next, beginning with the output. A step is half the arithmetic.
    Alternating,
}

impl Order {
    /// The layers that step t, from 0, of either phase updates.
    pub fn layers(self, t: usize) -> Layers {
        match self {
            Order::Synchronous => Layers::All,
            Order::Alternating if t.is_multiple_of(2) => Layers::Even,
            Order::Alternating => Layers::Odd,
        }
    }

    /// The steps of a sweep, which updates every layer once.
    pub fn sweep(self) -> usize {
        match self {
            Order::Synchronous => 1,
            Order::Alternating => 2,
        }
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Order::Synchronous => "synchronous",
            Order::Alternating => "alternating",
        }
    }
}

/// The operation between sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// None: plain iteration.
    Iterate,
    /// [Anderson's acceleration](super::anderson), image by image.
    Anderson,
}

/// `[settle]`: how the equilibrium is found, and how long the search may take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// The order in which layers are updated; in the second phase too.
    pub order: Order,
    /// The operation between sweeps over all layers in the first phase.
    pub solver: Solver,
    /// The number of differences between sweeps that Anderson's acceleration uses.
    pub window: usize,
    /// d, 0 ≤ d < 1: every step of both phases is s ← d·s + (1 − d)·F(s), the nudge inside F. The fixed points
    /// of the first phase are the same, and a synchronous step can no longer overshoot into a cycle of period 2.
    /// Not in the paper, where d = 0.
    pub damping: f64,
    /// T, the most steps of the first phase; whole sweeps.
    pub steps: usize,
    /// The phase of an image ends where none of its neurons has moved by more than this in a sweep (line 4 of
    /// Algorithms 1 and 2); 0 runs all T steps. Checked every [`SETTLE_CHECK`] steps, and after every sweep that is
    /// not a single step or is accelerated.
    pub tolerance: f64,
}

impl Settle {
    /// The paper's way: `steps` synchronous steps, or fewer where no neuron moves by more than `tolerance`.
    pub fn synchronous(steps: usize, tolerance: f64) -> Self {
        Self { order: Order::Synchronous, solver: Solver::Iterate, window: 3, damping: 0.0, steps, tolerance }
    }

    /// The sweeps of T steps.
    pub fn sweeps(&self) -> usize {
        self.steps / self.order.sweep()
    }

    /// True where the states are checked after this sweep (from 0).
    pub fn looks_after(&self, sweep: usize) -> bool {
        let every = match (self.order, self.solver) {
            (Order::Synchronous, Solver::Iterate) => SETTLE_CHECK,
            _ => 1,
        };
        self.tolerance > 0.0 && (sweep + 1).is_multiple_of(every)
    }

    /// The layers whose states decide the effect of a sweep: all, or with undamped half-steps the odd ones, which the
    /// first half-step reads.
    pub fn read_first(&self) -> Layers {
        match self.order {
            Order::Alternating if self.damping == 0.0 => Layers::Odd,
            _ => Layers::All,
        }
    }

    /// True where the states are mixed after this sweep. The last three are plain ones, so that the final residuals
    /// are those of the dynamics.
    pub fn mixes_after(&self, sweep: usize) -> bool {
        self.solver != Solver::Iterate && sweep + 4 <= self.sweeps()
    }
}

/// The end of the first phase. The order is that of [`Settle`]; a sweep is a step where it is synchronous.
#[derive(Clone, Debug)]
pub struct Settled {
    /// s before the last two sweeps, before the last, and after it, which is s_*, for each image; states are
    /// (B, d_n), output first.
    pub recent: [Vec<Tensor>; 3],
    /// The number of steps for each image.
    pub steps: Vec<usize>,
    /// True for each image that ended because it had settled within the tolerance; never where that is 0.
    pub converged: Vec<bool>,
    /// The first layer that has neurons that move: 1 where the output is a [readout](super::readout), of which
    /// `recent` has z.
    pub nearest: usize,
}

impl Settled {
    /// s_*.
    pub fn state(&self) -> &[Tensor] {
        &self.recent[2]
    }

    /// The largest |s_T − s_{T−1}| of any neuron, for each image; over a sweep.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn residuals(&self) -> Result<Vec<f64>> {
        self.changes_since(1)?.to_vec1()
    }

    /// The largest |s_T − s_{T−2}| of any neuron, for each image, over two sweeps: small beside
    /// [`Settled::residuals`] in a cycle of period 2.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn residuals_over_two_steps(&self) -> Result<Vec<f64>> {
        self.changes_since(0)?.to_vec1()
    }

    /// The largest change of any neuron since this one of the `recent` states, for each image, (B,) in f64.
    fn changes_since(&self, age: usize) -> Result<Tensor> {
        changes(&self.recent[2][self.nearest..], &self.recent[age][self.nearest..])
    }

    /// All that a report needs of each image, left on its device: s⁰ and the two residuals, (B, d_0 + 2) in f64; (R·B,
    /// d_0 + 2) where R replicas have settled together.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn outcome(&self) -> Result<Tensor> {
        let output = &self.state()[0];
        let output = output.to_dtype(DType::F64)?.reshape(((), output.dim(D::Minus1)?))?;
        Tensor::cat(&[output, self.changes_since(1)?.unsqueeze(1)?, self.changes_since(0)?.unsqueeze(1)?], 1)
    }
}

impl Model {
    /// The layers that step t, from 0, of either phase updates: as the [`Order`] has them, which begins with the
    /// layer that the nudge reaches first. Where the output is a readout that is layer 1.
    pub fn layers(&self, t: usize) -> Layers {
        self.settle.order.layers(t + self.dynamics.readout.nearest())
    }

    /// True where the effect of a sweep depends on the state of layer `n`: as in [`Settle::read_first`], counted from
    /// the first layer that has states.
    pub(super) fn reads_first(&self, n: usize) -> bool {
        n.checked_sub(self.dynamics.readout.nearest()).is_some_and(|n| self.settle.read_first().contains(n))
    }

    /// Runs the first phase on the images `x` (B, d_in).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn settle(&self, theta: &Parameters, x: &Tensor) -> Result<Settled> {
        let (settle, nearest) = (&self.settle, self.dynamics.readout.nearest());
        let mut phase = self.follow(theta, x)?;
        // The states and steps of images that have settled.
        let mut settled = phase.recent.clone();
        let mut images = x.dims().to_vec();
        images[x.rank() - 1] = 1;
        let mut steps = vec![0; images.iter().product()];
        let mut converged = vec![false; steps.len()];
        for sweep in 0..settle.sweeps() {
            for _ in 0..settle.order.sweep() {
                phase.step()?;
            }
            let recent = &phase.recent;
            let last = sweep + 1 == settle.sweeps();
            // Nothing to look at: on a GPU, a look waits for all steps so far.
            if last && settle.tolerance == 0.0 {
                steps.fill(settle.sweeps() * settle.order.sweep());
                return Ok(Settled { recent: phase.recent, steps, converged, nearest });
            }
            if last || settle.looks_after(sweep) {
                let changes = largest_changes(&recent[2][nearest..], &recent[1][nearest..])?;
                let mut ends_here = vec![0u8; steps.len()];
                for (i, change) in changes.into_iter().enumerate() {
                    let at_rest = settle.tolerance > 0.0 && change <= settle.tolerance;
                    if steps[i] == 0 && (at_rest || last) {
                        ends_here[i] = 1;
                        steps[i] = (sweep + 1) * settle.order.sweep();
                        converged[i] = at_rest;
                    }
                }
                if !ends_here.contains(&0) {
                    return Ok(Settled { recent: phase.recent, steps, converged, nearest });
                }
                if ends_here.contains(&1) {
                    let ends_here = Tensor::from_vec(ends_here, &images[..], x.device())?;
                    for (settled, recent) in settled.iter_mut().zip(recent) {
                        replace(settled, &ends_here, recent)?;
                    }
                }
                if !steps.contains(&0) {
                    break;
                }
            }
        }
        Ok(Settled { recent: settled, steps, converged, nearest })
    }
}

/// Replaces these layers of `s_next`, the result of a sweep from `s`, by those that each image's mixer gives.
pub(super) fn mix(
    mixers: &mut [Anderson<f64>],
    layers: impl Fn(usize) -> bool,
    s: &[Tensor],
    s_next: &mut [Tensor],
) -> Result<()> {
    let rows = |s: &Tensor| -> Result<Vec<Vec<f64>>> {
        s.to_dtype(DType::F64)?.reshape(((), s.dim(D::Minus1)?))?.to_vec2()
    };
    let chosen: Vec<usize> = (0..s.len()).filter(|&n| layers(n)).collect();
    let before = chosen.iter().map(|&n| rows(&s[n])).collect::<Result<Vec<_>>>()?;
    let mut after = chosen.iter().map(|&n| rows(&s_next[n])).collect::<Result<Vec<_>>>()?;
    for (i, mixer) in mixers.iter_mut().enumerate() {
        let s: Vec<&[f64]> = before.iter().map(|layer| &layer[i][..]).collect();
        let mut s_next: Vec<&mut [f64]> = after.iter_mut().map(|layer| &mut layer[i][..]).collect();
        mixer.mix(&s, &mut s_next);
    }
    for (layer, &n) in after.into_iter().zip(&chosen) {
        let old = &s_next[n];
        let mixed = Tensor::from_vec(layer.concat(), old.shape(), &candle_core::Device::Cpu)?;
        s_next[n] = mixed.to_dtype(old.dtype())?.to_device(old.device())?;
    }
    Ok(())
}

/// The largest |s' − s| of any neuron, for each image; NaN where a state is NaN.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn largest_changes(s_next: &[Tensor], s: &[Tensor]) -> Result<Vec<f64>> {
    changes(s_next, s)?.to_vec1()
}

/// [`largest_changes`], left on the device of the states.
fn changes(s_next: &[Tensor], s: &[Tensor]) -> Result<Tensor> {
    let (mut largest, mut sums) = (Vec::new(), Vec::new());
    for (next, s) in s_next.iter().zip(s) {
        let change = (next - s)?.abs()?;
        largest.push(change.max(D::Minus1)?.flatten_all()?);
        sums.push(change.sum(D::Minus1)?.flatten_all()?);
    }
    // candle's max ignores NaN, a sum does not.
    let not_numbers = (Tensor::stack(&sums, 0)?.sum(0)? * 0.0)?;
    (Tensor::stack(&largest, 0)?.max(0)? + not_numbers)?.to_dtype(DType::F64)
}

/// The percentiles of `values` at these shares, by nearest rank.
///
/// # Panics
/// Where there is no value.
pub fn percentiles<const N: usize>(mut values: Vec<f64>, shares: [f64; N]) -> [f64; N] {
    values.sort_by(f64::total_cmp);
    let rank = |share: f64| ((share * values.len() as f64).ceil() as usize).clamp(1, values.len());
    shares.map(|share| values[rank(share) - 1])
}

/// Replaces the states of `those` images, a mask of shape (…, B, 1), by `new` ones.
fn replace(states: &mut [Tensor], those: &Tensor, new: &[Tensor]) -> Result<()> {
    for (state, new) in states.iter_mut().zip(new) {
        *state = those.broadcast_as(state.shape())?.where_cond(new, state)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_largest_change_is_no_number_where_a_state_is_none() -> Result<()> {
        let state = |values: &[[f64; 3]; 2]| Tensor::new(values, &Device::Cpu);
        let s = [state(&[[0.0; 3]; 2])?];
        let s_next = [state(&[[0.5, -0.75, 0.25], [0.5, f64::NAN, 0.25]])?];
        let changes = largest_changes(&s_next, &s)?;
        assert_eq!(changes[0], 0.75);
        assert!(changes[1].is_nan());
        Ok(())
    }

    #[test]
    fn a_percentile_is_the_least_that_so_many_do_not_exceed() {
        let values = |count: usize| (1..=count).rev().map(|value| value as f64).collect::<Vec<_>>();
        assert_eq!(
            percentiles(values(1000), [0.0, 0.5, 0.99, 0.999, 1.0]),
            [1.0, 500.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!(percentiles(values(160), [0.5, 0.99]), [80.0, 159.0]);
        assert_eq!(percentiles(values(1), [0.5, 1.0]), [1.0, 1.0]);
    }
}
