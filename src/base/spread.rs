//! Mean and spread of some numbers, with their count.

use serde::Serialize;

/// The least count of numbers that has quartiles.
const QUARTILES_OF: usize = 8;

/// Mean and spread of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of a single number (of a sample, n − 1); `None` for one alone.
    pub std: Option<f64>,
    /// The count, n.
    pub count: usize,
    /// The lower and the upper quartile, for n ≥ 8; interpolated between two numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quartiles: Option<[f64; 2]>,
}

impl Spread {
    /// Mean and spread of `values`; `None` where there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (count > 1).then(|| (squares / (count as f64 - 1.0)).sqrt());
        values.sort_by(f64::total_cmp);
        let quantile = |share: f64| {
            let at = share * (count - 1) as f64;
            let below = values[at.floor() as usize];
            below + at.fract() * (values[at.ceil() as usize] - below)
        };
        let quartiles = (count >= QUARTILES_OF).then(|| [quantile(0.25), quantile(0.75)]);
        Some(Self { mean, std, count, quartiles })
    }

    /// True where a value lies within two standard deviations of the mean; `None` for a single number.
    pub fn holds(&self, value: f64) -> Option<bool> {
        Some((value - self.mean).abs() <= 2.0 * self.std?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_has_no_spread() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { mean: 3.0, std: None, count: 1, quartiles: None }));
        let two = Spread::of([1.0, 3.0]).unwrap();
        assert_eq!((two.mean, two.std, two.count), (2.0, Some(2.0_f64.sqrt()), 2));
        assert_eq!((two.holds(4.8), two.holds(4.9)), (Some(true), Some(false)));
    }

    #[test]
    fn quartiles_are_told_of_eight_and_more() {
        assert_eq!(Spread::of((0..7).map(f64::from)).unwrap().quartiles, None);
        // numpy.quantile(range(8), [0.25, 0.75])
        assert_eq!(Spread::of((0..8).rev().map(f64::from)).unwrap().quartiles, Some([1.75, 5.25]));
    }
}
