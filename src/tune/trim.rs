//! T and K lowered while the train error of a probe holds, as F.1 ends.

use super::Tuner;
use super::halving::{CERTAIN, counted, describe};
use super::probe::{Candidate, Probed};
use crate::telemetry::progress::say;
use anyhow::Result;

/// What a try leaves of T or K.
const SHORTER: f64 = 0.75;
/// The train error holds where it rises by no more than this part of itself, or than the images it is counted on make
/// certain.
const HOLDS: f64 = 0.05;

/// Which of the two is lowered.
#[derive(Clone, Copy)]
enum Phase {
    First,
    Second,
}

impl Tuner<'_> {
    /// Lowers T and then K, but neither below its `floor`, in probes of `epochs` epochs that are compared with those of the
    /// winner. Returns the settings that hold.
    ///
    /// # Errors
    /// Those of the probes.
    pub fn trim(
        &mut self,
        winner: &Candidate,
        probed: &Probed,
        epochs: usize,
        floor: (usize, usize),
    ) -> Result<Candidate> {
        let mut best = winner.clone();
        let steps = (winner.config.settle.steps, winner.config.learning.K);
        let reference = match steps == (probed.first_steps, probed.second_steps) {
            true => probed.train_error(epochs),
            // They have been raised since.
            false => {
                best.name = "raised".into();
                if !self.may(&best, epochs)? {
                    return Ok(best);
                }
                self.probe(&best, epochs)?.train_error(epochs)
            }
        };
        let allowed = reference + (HOLDS * reference).max(CERTAIN * counted(reference, self.images));
        let mut number = 0;
        for phase in [Phase::First, Phase::Second] {
            let least = match phase {
                Phase::First => floor.0,
                Phase::Second => floor.1,
            };
            loop {
                let mut shorter = best.clone();
                let steps = match phase {
                    Phase::First => &mut shorter.config.settle.steps,
                    Phase::Second => &mut shorter.config.learning.K,
                };
                let fewer = ((SHORTER * *steps as f64) as usize).max(least);
                if fewer >= *steps {
                    break;
                }
                *steps = fewer;
                number += 1;
                shorter.name = format!("t{number:02}");
                if !self.may(&shorter, epochs)? {
                    break;
                }
                let now = self.probe(&shorter, epochs)?;
                let holds = now.train_error(epochs) <= allowed;
                let verdict = if holds { "holds" } else { "rises" };
                say(&format!("{}  {verdict}  {}", describe(&shorter, &now), self.time_left()));
                if !holds {
                    break;
                }
                best = shorter;
            }
        }
        Ok(best)
    }
}
