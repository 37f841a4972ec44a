//! Successive halving: the better half of a few candidates is trained about twice as long, until one is left.
//!
//! Candidates lie around what the measurements found: steps from a quarter of s to twice s, and β and its half.
//! Longer steps are not tried: they lead after a few epochs, whatever they cost after many. The sign of β is drawn
//! for all: what is linear in β then cancels in the mean, which with one sign ends long runs and does not show in
//! short ones. What leads after a short time need not be what is best after a long one: the last rounds are as long
//! as the budget allows, up to the epochs that are to be trained.

use super::first_phase::{FINE, tolerance};
use super::probe::{Candidate, Probed};
use super::{Tuner, rates};
use crate::telemetry::progress::say;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// Factors of s that are tried, in the order in which a small budget leaves them out.
const STEPS: [f64; 4] = [1.0, 2.0, 0.5, 0.25];
/// Factors of β.
const BETAS: [f64; 2] = [1.0, 0.5];
/// The share of unsettled images, percent, from which a run no longer counts as settling.
const UNSETTLED: f64 = 1.0;
/// The number of standard deviations from which a difference of two counts is certain.
pub const CERTAIN: f64 = 2.0;

/// The number of candidates, and the length of each round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rounds {
    /// Candidates of the first round, a power of two.
    pub candidates: usize,
    /// Epochs after each round; every round has half the candidates of the one before.
    pub epochs: Vec<usize>,
}

impl Rounds {
    /// The rounds that a budget of `epochs` epochs allows, the last of at most `most`. Prefers fewer candidates to
    /// rounds of less than an epoch, but has at least four.
    pub fn within(epochs: f64, most: usize) -> Self {
        let rounds = |candidates: usize| candidates.ilog2() as usize;
        // n·e in the first round, n/2ⁱ·(2ⁱ − 2ⁱ⁻¹)e = n·e/2 in each other.
        let cost = |candidates: usize| candidates as f64 * (1.0 + 0.5 * (rounds(candidates) - 1) as f64);
        let candidates = if epochs >= cost(8) { 8 } else { 4 };
        // As short as the longest possible last round allows.
        let enough = most as f64 / f64::from(1 << (rounds(candidates) - 1));
        let first = (epochs / cost(candidates)).max(1.0).min(enough);
        let longest =
            (0..rounds(candidates)).map(|round| ((first * f64::from(1 << round)) as usize).max(1)).collect();
        Self { candidates, epochs: longest }
    }
}

impl Tuner<'_> {
    /// The candidates, the likeliest first.
    fn candidates(&self, step: f64, forward_norms: &[f64], count: usize) -> Vec<Candidate> {
        let mut all = Vec::new();
        // So that four candidates are all steps at the β that was found.
        for beta in BETAS {
            for factor in STEPS {
                let mut config = self.config.clone();
                config.learning.beta = rates::tidy(beta * config.learning.beta);
                config.settle.tolerance = tolerance(&config, FINE);
                config.learning.learning_rates = rates::rates(factor * step, forward_norms);
                all.push(Candidate { name: format!("c{:02}", all.len() + 1), config });
            }
        }
        all.truncate(count);
        all
    }

    /// The best candidate and its results; the best so far where the clock has cut the rounds short.
    ///
    /// # Errors
    /// Those of the probes, and where all candidates are lost.
    pub fn halve(
        &mut self,
        rounds: &Rounds,
        step: f64,
        forward_norms: &[f64],
    ) -> Result<(Candidate, Probed)> {
        let mut left: Vec<Tried> =
            self.candidates(step, forward_norms, rounds.candidates).into_iter().map(|c| (c, None)).collect();
        for (round, &epochs) in rounds.epochs.iter().enumerate() {
            let mut shown = Vec::new();
            for (candidate, _) in &left {
                if !self.may(candidate, epochs)? {
                    break;
                }
                let now = self.probe(candidate, epochs)?;
                say(&format!("{}  {}", describe(candidate, &now), self.time_left()));
                shown.push(now);
            }
            // A round that the clock has cut short decides nothing, unless it is the first.
            if shown.len() < left.len() && round > 0 {
                break;
            }
            for ((_, probed), now) in left.iter_mut().zip(shown) {
                *probed = Some(now);
            }
            left.sort_by(|a, b| by_error(&a.1, &b.1));
            left.truncate(left.len().div_ceil(2));
        }
        match left.into_iter().next() {
            Some((candidate, Some(probed))) if probed.error().is_finite() => Ok((candidate, probed)),
            _ => anyhow::bail!(
                "every probe has diverged or collapsed, or the budget was used up before the first ended: \
                 {} has the attempts. A larger --budget, or --set settle.damping=0.5, may help",
                self.folder.join(super::log::FILE).display()
            ),
        }
    }
}

/// A candidate and its results, if any.
type Tried = (Candidate, Option<Probed>);

/// The error of a trained candidate; infinite for an untrained one.
fn error(probed: &Option<Probed>) -> f64 {
    probed.as_ref().map_or(f64::INFINITY, Probed::error)
}

/// Orders the lower error first; then those whose first phase no longer settles, which is how a collapse begins
/// (docs/collapse.md), and lost ones last.
fn by_error(a: &Option<Probed>, b: &Option<Probed>) -> Ordering {
    let lost = |probed: &Option<Probed>| error(probed).is_infinite();
    let unsettled =
        |probed: &Option<Probed>| probed.as_ref().is_some_and(|p| p.unsettled_percent > UNSETTLED);
    (lost(a).cmp(&lost(b))).then(unsettled(a).cmp(&unsettled(b))).then(error(a).total_cmp(&error(b)))
}

/// One standard deviation of an error counted on so many images; both in percent.
pub fn counted(error: f64, images: usize) -> f64 {
    let share = error / 100.0;
    100.0 * (share * (1.0 - share) / images.max(1) as f64).max(0.0).sqrt()
}

/// A probe in a line.
pub fn describe(candidate: &Candidate, probed: &Probed) -> String {
    let learning = &candidate.config.learning;
    let rates: Vec<String> = learning.learning_rates.iter().map(f64::to_string).collect();
    format!(
        "probe {:<6} tolerance {} K {} β {}{} η {}  epoch {:>3}  {:.1} steps  train error {:6.2} %  validation error {:6.2} \
         %{}",
        candidate.name,
        candidate.config.settle.tolerance,
        learning.K,
        learning.nudging.mark(),
        learning.beta,
        rates.join(", "),
        probed.train.len(),
        probed.steps,
        probed.train.last().copied().unwrap_or(f64::NAN),
        probed.validation.last().copied().unwrap_or(f64::NAN),
        if probed.lost { "  lost" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_cost_no_more_than_there_is_and_grow_twofold() {
        for epochs in [12.0, 20.0, 47.0, 160.0, 1000.0] {
            let rounds = Rounds::within(epochs, 1000);
            let (mut cost, mut before) = (0, 0);
            for (i, &until) in rounds.epochs.iter().enumerate() {
                cost += (rounds.candidates >> i) * (until - before);
                before = until;
            }
            assert!(cost as f64 <= epochs, "{epochs}: {rounds:?} costs {cost}");
            assert!(rounds.epochs.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{rounds:?}");
        }
        assert_eq!(Rounds::within(1000.0, 30).epochs, [7, 15, 30]);
        assert_eq!(Rounds::within(30.0, 30).epochs, [1, 3, 7]);
        assert_eq!(Rounds::within(1000.0, 1).epochs, [1, 1, 1]);
        assert_eq!(Rounds::within(1.0, 30), Rounds { candidates: 4, epochs: vec![1, 2] });
    }

    #[test]
    fn what_no_longer_settles_comes_last_but_for_what_is_lost() {
        let probed = |error: f64, unsettled_percent: f64, lost: bool| {
            Some(Probed {
                tolerance: 1e-4,
                second_steps: 1,
                beta: 0.1,
                learning_rates: vec![],
                train: vec![error],
                validation: vec![error],
                steps: 1.0,
                unsettled_percent,
                lost,
            })
        };
        let mut all = [
            None,
            probed(1.0, 15.0, false),
            probed(3.0, 0.1, false),
            probed(2.0, 0.0, false),
            probed(0.5, 0.0, true),
        ];
        all.sort_by(by_error);
        let errors: Vec<f64> = all.iter().map(error).collect();
        assert_eq!(errors, [2.0, 3.0, 1.0, f64::INFINITY, f64::INFINITY]);
    }

    #[test]
    fn a_count_of_n_has_the_deviation_of_a_binomial() {
        assert!((counted(10.0, 900) - 1.0).abs() < 1e-12);
    }
}
