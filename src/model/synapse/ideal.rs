//! θ ← θ + η·Δ.

use super::SynapseLaw;
use serde::{Deserialize, Serialize};

/// A synapse that makes the wished change, as in the paper.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ideal {}

impl SynapseLaw for Ideal {
    fn name(&self) -> &'static str {
        "ideal"
    }

    fn adds_up(&self) -> bool {
        true
    }

    fn change(&self, weights: &mut [f64], wished: &[f64], _: &mut [&mut [f64]]) {
        for (w, wished) in weights.iter_mut().zip(wished) {
            *w += wished;
        }
    }
}
