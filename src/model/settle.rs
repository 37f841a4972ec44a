//! The first (free) phase: steps of F without a nudge, from s_0 = 0 until the states have settled in s_*.

use super::{Dynamics, Model, Parameters};
use candle_core::{D, DType, Result, Tensor};

/// Steps between two looks at whether the states have settled.
pub const SETTLE_CHECK: usize = 4;

/// How long the first phase is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settle {
    /// T, the most steps.
    pub steps: usize,
    /// The phase of an image ends where none of its neurons moves by more than this (line 4 of Algorithms 1 and
    /// 2); 0 runs all T steps. Looked at every [`SETTLE_CHECK`] steps.
    pub tolerance: f64,
}

impl Settle {
    /// Whether to look, after step `t` (from 0), if the states have settled.
    pub fn looks_at(&self, t: usize) -> bool {
        self.tolerance > 0.0 && (t + 1).is_multiple_of(SETTLE_CHECK)
    }
}

/// Where the first phase ended.
#[derive(Clone, Debug)]
pub struct Settled {
    /// s_{T−2}, s_{T−1} and s_T = s_* of each image, oldest first; states are (B, d_n), output first.
    pub recent: [Vec<Tensor>; 3],
    /// The steps it took each image.
    pub steps: Vec<usize>,
}

impl Settled {
    /// s_*.
    pub fn state(&self) -> &[Tensor] {
        &self.recent[2]
    }

    /// The largest |s_T − s_{T−1}| of any neuron, for each image.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn residuals(&self) -> Result<Vec<f64>> {
        largest_changes(&self.recent[2], &self.recent[1])
    }

    /// The largest |s_T − s_{T−2}| of any neuron, for each image: small beside [`Settled::residuals`] in a cycle
    /// of period 2.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn residuals_over_two_steps(&self) -> Result<Vec<f64>> {
        largest_changes(&self.recent[2], &self.recent[0])
    }
}

impl Model {
    /// Runs the first phase on the images `x` (B, d_in).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn settle(&self, theta: &Parameters, x: &Tensor) -> Result<Settled> {
        let Self { dynamics, settle, .. } = self;
        let drive = dynamics.drive(theta, x)?;
        let s_0 = Dynamics::initial_state(theta, x)?;
        let mut recent = [s_0.clone(), s_0.clone(), s_0];
        // What images were left with that have settled, after so many steps.
        let mut settled = recent.clone();
        let mut images = x.dims().to_vec();
        images[x.rank() - 1] = 1;
        let mut steps = vec![0; images.iter().product()];
        for t in 0..settle.steps {
            let s_next = dynamics.step(theta, &drive, &recent[2], None)?;
            recent.rotate_left(1);
            recent[2] = s_next;
            let at_rest: Vec<bool> = if t + 1 == settle.steps {
                vec![true; steps.len()]
            } else if settle.looks_at(t) {
                let changes = largest_changes(&recent[2], &recent[1])?;
                changes.iter().map(|&change| change <= settle.tolerance).collect()
            } else {
                continue;
            };
            let mut ends_here = vec![0u8; steps.len()];
            for (i, steps) in steps.iter_mut().enumerate().filter(|(i, steps)| at_rest[*i] && **steps == 0) {
                (ends_here[i], *steps) = (1, t + 1);
            }
            if !ends_here.contains(&0) {
                return Ok(Settled { recent, steps });
            }
            if ends_here.contains(&1) {
                let ends_here = Tensor::from_vec(ends_here, &images[..], x.device())?;
                for (settled, recent) in settled.iter_mut().zip(&recent) {
                    replace(settled, &ends_here, recent)?;
                }
            }
            if !steps.contains(&0) {
                break;
            }
        }
        Ok(Settled { recent: settled, steps })
    }
}

/// The largest |s' − s| of any neuron, for each image.
fn largest_changes(s_next: &[Tensor], s: &[Tensor]) -> Result<Vec<f64>> {
    let layers: Vec<Tensor> = (s_next.iter().zip(s))
        .map(|(next, s)| (next - s)?.abs()?.max(D::Minus1)?.flatten_all())
        .collect::<Result<_>>()?;
    Tensor::stack(&layers, 0)?.max(0)?.to_dtype(DType::F64)?.to_vec1()
}

/// Replaces the states of `those` images, a mask of shape (…, B, 1), by `new` ones.
fn replace(states: &mut [Tensor], those: &Tensor, new: &[Tensor]) -> Result<()> {
    for (state, new) in states.iter_mut().zip(new) {
        *state = those.broadcast_as(state.shape())?.where_cond(new, state)?;
    }
    Ok(())
}
