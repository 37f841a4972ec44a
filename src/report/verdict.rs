//! Verdicts on comparisons with a published number.

use super::paper::{Published, TRIALS};
use crate::base::spread::Spread;
use serde::Serialize;

/// The verdict on a measured mean test error m, with standard deviation s over n ≥ 2 runs, beside the published p ±
/// s_p (over 5).
///
/// 1. *better*: m < p − s_p and p > m + 2 s. However wide the published spread is, a mean below all of it does not
///    agree with it.
/// 2. *agrees*: else, |m − p| ≤ 2 √(s²/n + s_p²/5), two standard errors of the difference.
/// 3. *disagrees*: else.
///
/// Of a single run s is not known, and there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Below the published value, by more than either spread.
    Better,
    /// Within two standard errors of the difference.
    Agrees,
    /// More than two standard errors from it.
    Disagrees,
    /// A single finished run, which is too few.
    SingleRun,
    /// Some runs have begun, and none is finished.
    Unfinished,
    /// No run has begun.
    NotRun,
}

impl Verdict {
    /// Applies the rule above.
    pub fn on(test: Spread, published: Published) -> Self {
        let Spread { mean, std, count, .. } = test;
        let Some(std) = std else { return Verdict::SingleRun };
        if mean < published.mean - published.std && published.mean > mean + 2.0 * std {
            return Verdict::Better;
        }
        let variance = |std: f64, count: f64| std.powi(2) / count;
        let of_the_difference = variance(std, count as f64) + variance(published.std, TRIALS);
        match (mean - published.mean).abs() <= 2.0 * of_the_difference.sqrt() {
            true => Verdict::Agrees,
            false => Verdict::Disagrees,
        }
    }

    /// The verdict in words.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Agrees => "agrees",
            Verdict::Disagrees => "disagrees",
            Verdict::SingleRun => "n = 1, no verdict",
            Verdict::Unfinished => "unfinished",
            Verdict::NotRun => "not run",
        }
    }

    /// Its class in a page.
    pub fn class(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Agrees => "agrees",
            Verdict::Disagrees => "disagrees",
            Verdict::SingleRun | Verdict::Unfinished | Verdict::NotRun => "not-run",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_far_below_is_better_however_wide_the_published_spread() {
        let published = Published { mean: 3.78, std: 0.78 };
        let on = |mean, std, count| Verdict::on(Spread { mean, std, count, quartiles: None }, published);
        // Far below, as published, far above: a single run decides nothing.
        assert_eq!([0.5, 3.78, 90.0].map(|mean| on(mean, None, 1)), [Verdict::SingleRun; 3]);
        // p − s_p is 3.00; m + 2 s is 2.70, and 3.92: the published mean is above the first and not above the second.
        assert_eq!(on(2.50, Some(0.10), 3), Verdict::Better);
        assert_eq!(on(2.90, Some(0.51), 3), Verdict::Agrees);
        assert_eq!(on(6.00, Some(0.10), 3), Verdict::Disagrees);
    }
}
