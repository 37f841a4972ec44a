//! β from the angle between update and gradient: between float noise, where it is small, and truncation, where it is
//! large.

use super::Stop;
use super::sample::{Sample, with_fixed_weights};
use crate::config::Config;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The β that are tried, with both signs: the range of F.1, and one decade below it.
const TRIED: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0];
/// The bound on the excess of an angle over the smallest, degrees; beyond it truncation has set in.
pub const BEND: f64 = 2.0;
/// β where no angle is finite.
const FALLBACK: f64 = 0.1;

/// The angle at one β.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AtBeta {
    /// |β|.
    pub beta: f64,
    /// Ψ(Δtot, −∇) with β > 0 and with β < 0, η = 0, degrees; `None` where it is not finite.
    pub degrees: [Option<f64>; 2],
    /// The share of synapses that agree in sign, likewise.
    pub sign_match: [f64; 2],
}

/// Measures all β with both signs.
///
/// # Errors
/// Only those of candle, and where `stop` says so.
pub fn measure(config: &Config, sample: &Sample, stop: &Stop) -> Result<Vec<AtBeta>> {
    let fixed = with_fixed_weights(&config.learning);
    let mut all = Vec::new();
    for beta in TRIED {
        stop.check()?;
        let both = [sample.follows(&fixed, beta)?, sample.follows(&fixed, -beta)?];
        all.push(AtBeta {
            beta,
            degrees: both.each_ref().map(|of| Some(of.total_degrees.mean).filter(|angle| angle.is_finite())),
            sign_match: both.each_ref().map(|of| of.sign_match.mean),
        });
    }
    Ok(all)
}

/// The largest β before the bend: no angle up to it, of either sign, exceeds the smallest of that sign by more than 2°,
/// unless noise makes it, which goes down with β.
pub fn choose(all: &[AtBeta]) -> f64 {
    let smallest = |sign: usize| all.iter().filter_map(|at| at.degrees[sign]).fold(f64::INFINITY, f64::min);
    let floor = [smallest(0), smallest(1)];
    let before =
        |at: &&AtBeta| (0..2).all(|sign| at.degrees[sign].is_some_and(|angle| angle <= floor[sign] + BEND));
    all.iter().rfind(before).map_or(FALLBACK, |at| at.beta)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beta_is_the_largest_before_the_bend_of_either_sign() {
        let of = |betas: &[(f64, f64, f64)]| {
            let at = |&(beta, plus, minus): &(f64, f64, f64)| AtBeta {
                beta,
                degrees: [Some(plus), Some(minus)],
                sign_match: [1.0; 2],
            };
            choose(&betas.iter().map(at).collect::<Vec<_>>())
        };
        // Noise below, truncation above.
        assert_eq!(of(&[(0.01, 40.0, 40.0), (0.1, 16.0, 16.0), (0.5, 17.0, 15.0), (1.0, 50.0, 16.0)]), 0.5);
        // The other sign bends first.
        assert_eq!(of(&[(0.1, 16.0, 16.0), (0.5, 17.0, 20.0)]), 0.1);
        assert_eq!(choose(&[]), FALLBACK);
    }
}
