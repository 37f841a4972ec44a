//! The cost of a minibatch, lowered while the train error of a probe holds, as at the end of F.1.

use super::Tuner;
use super::first_phase::{COARSE, tolerance};
use super::halving::{CERTAIN, counted, describe};
use super::probe::{Candidate, Probed};
use crate::config::Config;
use crate::telemetry::progress::say;
use anyhow::Result;

/// The factor by which an attempt shortens K.
const SHORTER: f64 = 0.75;
/// The train error holds where it rises by at most this part of itself, or within the uncertainty of its count.
const HOLDS: f64 = 0.05;

/// The phase to shorten.
#[derive(Clone, Copy)]
enum Phase {
    First,
    Second,
}

impl Phase {
    /// The next shorter phase: the first with a larger tolerance, the second by a quarter, down to `least` steps.
    /// `None` where there is none.
    fn shortened(self, config: &Config, least: usize) -> Option<Config> {
        let mut shorter = config.clone();
        match self {
            Phase::First => shorter.settle.tolerance = tolerance(config, COARSE),
            Phase::Second => {
                shorter.learning.K = ((SHORTER * config.learning.K as f64) as usize).max(least);
            }
        }
        let saves =
            shorter.settle.tolerance > config.settle.tolerance || shorter.learning.K < config.learning.K;
        saves.then_some(shorter)
    }
}

impl Tuner<'_> {
    /// Shortens the first phase and then the second, which keeps `least` steps, in probes of `epochs` epochs that are
    /// compared with those of the winner. Returns the settings that hold.
    ///
    /// # Errors
    /// Those of the probes.
    pub fn trim(
        &mut self,
        winner: &Candidate,
        probed: &Probed,
        epochs: usize,
        least: usize,
    ) -> Result<Candidate> {
        let mut best = winner.clone();
        let reference = match winner.config.learning.K == probed.second_steps {
            true => probed.train_error(epochs),
            // It has been raised since.
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
            while let Some(config) = phase.shortened(&best.config, least) {
                number += 1;
                let shorter = Candidate { name: format!("t{number:02}"), config };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Choices, Resolved};
    use crate::tune::first_phase::FINE;

    #[test]
    fn images_stop_earlier_once_and_k_falls_by_quarters_to_what_it_must_be() {
        let choices = Choices { config: Some("ep-1h".into()), ..Choices::default() };
        let mut config = Resolved::new(&choices).unwrap().config;
        config.settle.tolerance = tolerance(&config, FINE);
        config.learning.K = 10;
        let coarse = Phase::First.shortened(&config, 1).unwrap();
        assert!((coarse.settle.tolerance / config.settle.tolerance - 10.0).abs() < 1e-9);
        assert_eq!(coarse.learning.K, 10);
        assert!(Phase::First.shortened(&coarse, 1).is_none());
        let mut second_steps = vec![];
        while let Some(shorter) = Phase::Second.shortened(&config, 4) {
            second_steps.push(shorter.learning.K);
            config = shorter;
        }
        assert_eq!(second_steps, [7, 5, 4]);
    }
}
