//! Trains of pulses: an outer product of two vectors as coincidences of random pulses on rows and columns.
//!
//! Every line has BL slots and a pulse in each with a probability of its own; all devices of a line share its pulses.
//! Where a row and a column have one in the same slot, the device between them takes one. Gokmen and Vlasov (2016) is
//! where this is from, with the management of updates of Gokmen, Onen and Haensch (2017).

use super::{Factors, Place};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// The adaptation of a train to the two vectors that it multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Management {
    /// None.
    None,
    /// Update management: probabilities are scaled so that the largest of rows and columns are equal.
    Um,
    /// Update management, and trains no longer than necessary (update BL management).
    Ublm,
}

/// A train: its number of slots, and the factors from the size of a line's number to the probability of a pulse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Train {
    /// BL; 0 where there is nothing to do.
    pub length: usize,
    /// A, of rows.
    pub row: f64,
    /// B, of columns.
    pub column: f64,
}

impl Train {
    /// The train for `rate`·d·xᵀ, where x is at most `x` and d at most `d` in size, of devices with steps of
    /// `granularity` and at most `longest` slots: E N = rate·|d|·|x|/granularity pulses, as long as no probability is
    /// above 1.
    pub fn of(rate: f64, x: f64, d: f64, granularity: f64, longest: usize, management: Management) -> Self {
        let idle = Self { length: 0, row: 0.0, column: 0.0 };
        // Even where one of them is NaN, as in a network that has diverged.
        if !(rate > 0.0 && x > 0.0 && d > 0.0 && granularity > 0.0) {
            return idle;
        }
        let (wished, most) = (rate * x * d / granularity, longest as f64);
        let length = match management {
            Management::Ublm => wished.ceil().clamp(1.0, most),
            Management::None | Management::Um => most,
        };
        let even = (rate / (granularity * length)).sqrt();
        let share = match management {
            Management::None => 1.0,
            // Where the wished change exceeds what a train can carry, the largest line has a pulse in every slot.
            Management::Um | Management::Ublm => (x / (d * (most / wished).min(1.0))).sqrt(),
        };
        Self { length: length as usize, row: even * share, column: even / share }
    }
}

/// The lines of one side that are not 0.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Number, size, and whether it is positive.
    lines: Vec<(u32, f64, bool)>,
    /// The largest size.
    pub largest: f64,
}

impl Lines {
    /// The lines of a vector.
    pub fn of(vector: &[f64]) -> Self {
        let set = vector.iter().enumerate().filter(|(_, x)| **x != 0.0);
        let lines: Vec<_> = set.map(|(i, x)| (i as u32, x.abs(), *x > 0.0)).collect();
        let largest = lines.iter().fold(0.0, |largest: f64, (_, size, _)| largest.max(*size));
        Self { lines, largest }
    }

    /// The lines that have a pulse in a slot, each with its sign. Where all are improbable, the distance to the next
    /// one is drawn.
    fn pulsed(&self, factor: f64, into: &mut Vec<(u32, bool)>, rng: &mut impl Rng) {
        into.clear();
        let most = (factor * self.largest).min(1.0);
        if most > 0.25 {
            let drawn = self.lines.iter().filter(|(_, size, _)| rng.random::<f64>() < factor * size);
            into.extend(drawn.map(|&(number, _, positive)| (number, positive)));
            return;
        }
        let without = (-most).ln_1p();
        let mut at = 0;
        loop {
            // 1 − U is above 0.
            let skipped = ((1.0 - rng.random::<f64>()).ln() / without).floor();
            if skipped >= (self.lines.len() - at) as f64 {
                return;
            }
            at += skipped as usize;
            let (number, size, positive) = self.lines[at];
            if rng.random::<f64>() * most < factor * size {
                into.push((number, positive));
            }
            at += 1;
            if at == self.lines.len() {
                return;
            }
        }
    }
}

/// One slot of a train: the lines that have a pulse in it.
#[derive(Debug, Default)]
pub struct Slots {
    /// Rows, each with its sign.
    pub rows: Vec<(u32, bool)>,
    /// Columns, each with its sign.
    pub columns: Vec<(u32, bool)>,
}

impl Slots {
    /// Draws the next slot. Columns are not drawn where no row has a pulse.
    pub fn draw(&mut self, train: &Train, rows: &Lines, columns: &Lines, rng: &mut impl Rng) {
        self.columns.clear();
        rows.pulsed(train.row, &mut self.rows, rng);
        if !self.rows.is_empty() {
            columns.pulsed(train.column, &mut self.columns, rng);
        }
    }
}

/// The wished change of one weight.
pub fn product(wished: &Factors, place: &Place, row: usize, column: usize) -> f64 {
    let of_image = |image: usize| -> f64 {
        let products = wished.products.iter();
        products
            .map(|p| p.sign * p.rows[image * place.rows + row] * p.columns[image * place.columns + column])
            .sum()
    };
    wished.rate * (0..wished.images).map(of_image).sum::<f64>()
}
