//! Arrays of devices that take pulses: v ← clip(v + m(v) + s(v)·ξ, lo, hi) at each of them.
//!
//! [`laws`] states m and s of each kind of device, [`made`] how the devices of an array differ, [`pulses`] what
//! trains of pulses a wished change becomes, [`presets`] what published devices are set to, [`measured`] reads
//! responses from a file, and [`response`] gives some devices so many pulses. `docs/devices.md` has the equations and
//! where they are from.

mod check;
mod faults;
mod laws;
mod made;
mod measured;
mod presets;
mod pulses;
mod response;
mod state;

pub use faults::Fault;
pub use laws::Kind;
pub use made::{Cell, Tile};
pub use measured::{Curve, Measured};
pub use presets::{Preset, settings};
pub use pulses::{Lines, Management, Train};
pub use response::{Response, Stretch, responses, stretches};

use super::{Array, Book, Factors, Ledger, Place, SynapseLaw, Wants};
use crate::rng::{self, Purpose};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use state::State;
use std::sync::Arc;

/// The way in which a wished change becomes changes of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pulses {
    /// Trains of random pulses on rows and columns; where two meet, the device takes one.
    Stochastic,
    /// As many whole pulses as the wished change has steps; the remainder is kept beside the weight. Not local: a
    /// product of rows and columns is formed, and a number of full precision is kept for each weight.
    Deterministic,
    /// The average change of pulses, as if trains carried the whole wished change: m(v)/g of the wished change, image
    /// by image.
    Mean,
    /// The wished change itself, clipped at the bounds, whatever the device's law.
    Exact,
}

/// The kinds of biases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Biases {
    /// Devices, in a column whose input is always 1.
    Device,
    /// Ideal numbers.
    Ideal,
}

/// The growth of a spread or noise with the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// It is a share of the step at this weight.
    Multiplicative,
    /// It is a share of the step at weight 0.
    Additive,
}

/// Arrays of devices. Weights, bounds and steps are in units of weights; a key that ends in `dtod` is a spread from
/// device to device, ξ is a fresh N(0, 1) at each mention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    /// The published device whose values all other keys take by default.
    pub preset: Preset,
    /// The law of a pulse.
    pub device: Kind,
    /// The way in which a wished change becomes pulses.
    pub pulses: Pulses,
    /// The adaptation of trains to the wished change.
    pub management: Management,
    /// The most slots of a train.
    pub train_length: usize,
    /// The kind of biases.
    pub biases: Biases,
    /// The mean step of a pulse at weight 0.
    pub dw_min: f64,
    /// Its spread, as a share.
    pub dw_min_dtod: f64,
    /// True where that spread is log-normal.
    pub dw_min_log_normal: bool,
    /// Noise of a pulse (cycle to cycle), as a share of its step.
    pub dw_min_std: f64,
    /// The number of levels between the bounds, which sets the step to (w_max − w_min)/(levels − 1); 0 leaves the
    /// step.
    pub levels: usize,
    /// The reduction of steps down, as a share; of steps up where negative.
    pub up_down: f64,
    /// Its spread.
    pub up_down_dtod: f64,
    /// The upper bound, at least 0.
    pub w_max: f64,
    /// Its spread, as a share.
    pub w_max_dtod: f64,
    /// The lower bound, at most 0.
    pub w_min: f64,
    /// Its spread, as a share.
    pub w_min_dtod: f64,
    /// Noise of the visible weight around a device's state after a pulse, in steps.
    pub write_noise: f64,
    /// The growth of a pulse's noise, with the linear and the soft-bounds laws.
    pub noise: Noise,
    /// Minibatches in which a weight leaks to 1/e; 0 where it does not leak.
    pub lifetime: f64,
    /// Its spread, as a share.
    pub lifetime_dtod: f64,
    /// Diffusion of a weight in a minibatch.
    pub diffusion: f64,
    /// Its spread, as a share.
    pub diffusion_dtod: f64,
    /// The value after a reset, towards which a weight leaks.
    pub reset: f64,
    /// Its spread, in units of weights.
    pub reset_dtod: f64,
    /// Noise of a reset.
    pub reset_std: f64,
    /// The share of devices that are stuck.
    pub stuck: f64,
    /// The weight at which they are stuck.
    pub stuck_value: f64,
    /// The largest distance from it.
    pub stuck_range: f64,
    /// Linear: the share of the step up that is lost at `w_max`.
    pub slope_up: f64,
    /// Its spread.
    pub slope_up_dtod: f64,
    /// Linear: the share of the step down that is lost at `w_min`.
    pub slope_down: f64,
    /// Its spread.
    pub slope_down_dtod: f64,
    /// Soft bounds with a reference: spread of the step's dependence on the weight, up.
    pub bound_up_dtod: f64,
    /// Soft bounds with a reference: spread of the step's dependence on the weight, down.
    pub bound_down_dtod: f64,
    /// Soft bounds with a reference: the mean of the reference.
    pub reference: f64,
    /// Its spread, in units of weights.
    pub reference_dtod: f64,
    /// True where the point at which a step up and one down cancel is subtracted too.
    pub subtract_symmetry_point: bool,
    /// Exponential: A of steps up.
    pub exp_a_up: f64,
    /// Exponential: A of steps down.
    pub exp_a_down: f64,
    /// Exponential: γ of steps up.
    pub exp_gamma_up: f64,
    /// Exponential: γ of steps down.
    pub exp_gamma_down: f64,
    /// Exponential: a, the factor that stretches the weight.
    pub exp_stretch: f64,
    /// Exponential: b, its shift.
    pub exp_shift: f64,
    /// Exponential: noise beside that which is a share of the step.
    pub exp_noise: f64,
    /// Exponential: noise that grows with |w|.
    pub exp_noise_slope: f64,
    /// Power: the exponent.
    pub pow_gamma: f64,
    /// Its spread, as a share.
    pub pow_gamma_dtod: f64,
    /// The reduction of the exponent down, as a share; of the one up where negative.
    pub pow_up_down: f64,
    /// Its spread.
    pub pow_up_down_dtod: f64,
    /// Piecewise: steps up from `w_min` to `w_max`, evenly, in units of `dw_min`.
    pub piecewise_up: Vec<f64>,
    /// Piecewise: steps down from `w_min` to `w_max`, evenly, in units of `dw_min`.
    pub piecewise_down: Vec<f64>,
    /// Measured: the file of responses.
    pub file: Measured,
    /// True where a weight is the difference of two devices that are pulsed up only.
    pub pair: bool,
    /// True where pairs that run out of range are written anew.
    pub refresh: bool,
    /// Noise of the reading before that.
    pub refresh_noise: f64,
    /// True where the mean of pulses is that of the summed change of a minibatch, as with deterministic pulses.
    #[serde(skip)]
    summed: bool,
    #[serde(skip)]
    state: State,
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            preset: Preset::None,
            device: Kind::Constant,
            pulses: Pulses::Stochastic,
            management: Management::Ublm,
            train_length: 31,
            biases: Biases::Device,
            dw_min: 1e-3,
            dw_min_dtod: 0.3,
            dw_min_log_normal: false,
            dw_min_std: 0.3,
            levels: 0,
            up_down: 0.0,
            up_down_dtod: 0.01,
            w_max: 0.6,
            w_max_dtod: 0.3,
            w_min: -0.6,
            w_min_dtod: 0.3,
            write_noise: 0.0,
            noise: Noise::Multiplicative,
            lifetime: 0.0,
            lifetime_dtod: 0.0,
            diffusion: 0.0,
            diffusion_dtod: 0.0,
            reset: 0.0,
            reset_dtod: 0.0,
            reset_std: 0.01,
            stuck: 0.0,
            stuck_value: 0.0,
            stuck_range: 0.1,
            slope_up: 0.0,
            slope_up_dtod: 0.05,
            slope_down: 0.0,
            slope_down_dtod: 0.05,
            bound_up_dtod: 0.0,
            bound_down_dtod: 0.0,
            reference: 0.0,
            reference_dtod: 0.05,
            subtract_symmetry_point: false,
            exp_a_up: 0.00081,
            exp_a_down: 0.36833,
            exp_gamma_up: 12.44625,
            exp_gamma_down: 12.78785,
            exp_stretch: 0.244,
            exp_shift: 0.2425,
            exp_noise: 0.0,
            exp_noise_slope: 0.0,
            pow_gamma: 1.0,
            pow_gamma_dtod: 0.1,
            pow_up_down: 0.0,
            pow_up_down_dtod: 0.0,
            piecewise_up: vec![1.0],
            piecewise_down: vec![1.0],
            file: Measured::default(),
            pair: false,
            refresh: false,
            refresh_noise: 0.1,
            summed: false,
            state: State::default(),
        }
    }
}

/// The bounds beyond which a pair is written anew: one device above the first share of `w_max`, the other above the
/// second.
const OUT_OF_RANGE: [f64; 2] = [0.75, 0.25];

/// The numbers that an array keeps for a weight: the visible weight, then its memory.
type Kept = [f64; 4];

impl Devices {
    /// Returns the law with devices and pulses drawn from this seed.
    pub fn seeded(mut self, seed: u64) -> Self {
        self.state = State::seeded(seed);
        self
    }

    /// True for the ideal device, which makes the wished changes.
    pub fn is_ideal(&self) -> bool {
        self.device == Kind::Ideal
    }

    /// The number of devices of a weight.
    pub fn devices_per_weight(&self) -> usize {
        if self.pair { 2 } else { 1 }
    }

    /// True where the visible weight differs from a device's state.
    fn shows_noise(&self) -> bool {
        self.write_noise > 0.0
    }

    /// True where the tensor at `place` makes the wished changes.
    fn obeys(&self, place: &Place) -> bool {
        place.is_bias && self.biases == Biases::Ideal
    }

    /// Random numbers for the event at `place` now.
    fn draws(&self, place: &Place, of: u64) -> ChaCha8Rng {
        // Three draws a moment: a change, a rest, and a programming.
        let index = ((3 * place.clock + of) << 10) | place.number as u64;
        rng::stream(self.state.seed(), Purpose::Pulses, index)
    }

    /// The devices of the array at `place`.
    fn tile(&self, place: &Place) -> Arc<Tile> {
        let count = place.rows * place.columns * self.devices_per_weight();
        self.state.tile(place.number, count, || Tile::made(self, self.state.seed(), place.number, count))
    }

    /// The state v of a device after one pulse.
    pub fn pulsed(&self, cell: &Cell, v: f64, up: bool, rng: &mut impl Rng) -> f64 {
        let step = self.step(cell, v, up);
        let noise = if step.std == 0.0 { 0.0 } else { step.std * rng.sample::<f64, _>(StandardNormal) };
        let shift = self.reference_of(cell);
        let (lo, hi) = (f64::from(cell.lo), f64::from(cell.hi));
        clip(v + shift + step.mean + noise, lo, hi) - shift
    }

    /// The state v of a device after so many pulses, not all of them whole, that each make the mean step.
    fn pulsed_on_average(&self, cell: &Cell, mut v: f64, up: bool, mut pulses: f64) -> f64 {
        let shift = self.reference_of(cell);
        let (lo, hi) = (f64::from(cell.lo), f64::from(cell.hi));
        while pulses > 0.0 {
            let share = pulses.min(1.0);
            v = clip(v + shift + share * self.step(cell, v, up).mean, lo, hi) - shift;
            pulses -= share;
        }
        v
    }

    /// The visible weight of a device in state v.
    fn shown(&self, v: f64, rng: &mut impl Rng) -> f64 {
        v + self.write_noise * self.nominal_step() * rng.sample::<f64, _>(StandardNormal)
    }

    /// One pulse of the device of a weight at `at`, or of the one of a pair that this direction is for.
    fn pulse_weight(&self, tile: &Tile, at: usize, kept: &mut Kept, up: bool, rng: &mut ChaCha8Rng) {
        self.drive_weight(tile, at, kept, up, rng, |cell, v, up, rng| self.pulsed(cell, v, up, rng));
    }

    /// Applies the average of so many pulses.
    fn drive_on_average(&self, tile: &Tile, at: usize, kept: &mut Kept, pulses: f64, rng: &mut ChaCha8Rng) {
        self.drive_weight(tile, at, kept, pulses > 0.0, rng, |cell, v, up, _| {
            self.pulsed_on_average(cell, v, up, pulses.abs())
        });
    }

    /// Lets `change` make a new state of that of the device of a weight at `at`, or of the one of a pair that this
    /// direction is for.
    fn drive_weight(
        &self,
        tile: &Tile,
        at: usize,
        kept: &mut Kept,
        up: bool,
        rng: &mut ChaCha8Rng,
        change: impl FnOnce(&Cell, f64, bool, &mut ChaCha8Rng) -> f64,
    ) {
        if self.pair {
            let side = usize::from(!up);
            kept[1 + side] = change(&tile.cells[2 * at + side], kept[1 + side], true, rng);
            kept[0] = kept[1] - kept[2];
        } else if self.shows_noise() {
            kept[1] = change(&tile.cells[at], kept[1], up, rng);
            kept[0] = self.shown(kept[1], rng);
        } else {
            kept[0] = change(&tile.cells[at], kept[0], up, rng);
        }
    }

    /// The wished change of an array as the mean of pulses, image by image and product by product.
    fn pulse_on_average(&self, place: &Place, array: &mut dyn Array, wished: &Factors) {
        let (tile, mut rng, size) = (self.tile(place), self.draws(place, 0), 1 + self.memory().len());
        let mut ledger = Ledger::default();
        for image in 0..wished.images {
            for product in &wished.products {
                let of = |all: &[f64], width: usize| -> Vec<(usize, f64)> {
                    let line = all[image * width..][..width].iter().copied().enumerate();
                    line.filter(|(_, number)| *number != 0.0).collect()
                };
                let rate = product.sign * wished.rate / self.granularity();
                let (rows, columns) = (of(&product.rows, place.rows), of(&product.columns, place.columns));
                for &(row, d) in &rows {
                    for &(column, x) in &columns {
                        let mut kept = Kept::default();
                        array.read(row, column, &mut kept[..size]);
                        let before = kept[0];
                        let at = row * place.columns + column;
                        self.drive_on_average(&tile, at, &mut kept, rate * d * x, &mut rng);
                        ledger.moved += (kept[0] - before).abs();
                        array.write(row, column, &kept[..size]);
                    }
                }
            }
        }
        self.state.count(place.number, ledger);
    }

    /// Writes a pair anew that has run out of range: both devices are reset, and the one that the reading asks for
    /// takes a train of pulses, which is not checked. Returns whether it has.
    fn refreshed(&self, tile: &Tile, at: usize, kept: &mut Kept, rng: &mut ChaCha8Rng) -> bool {
        let [larger, smaller] = [kept[1].max(kept[2]), kept[1].min(kept[2])].map(|g| g / self.w_max);
        if larger <= OUT_OF_RANGE[0] || smaller <= OUT_OF_RANGE[1] {
            return false;
        }
        let read = kept[1] - kept[2] + self.refresh_noise * rng.sample::<f64, _>(StandardNormal);
        for side in 0..2 {
            kept[1 + side] = self.reset_once(&tile.cells[2 * at + side], rng);
        }
        // The train is not managed.
        let (longest, size) = (self.train_length, read.abs());
        let train = Train::of(1.0, 1.0, size, self.granularity(), longest, Management::None);
        let probability = train.column.min(1.0) * (train.row * size).min(1.0);
        for _ in 0..train.length {
            if rng.random::<f64>() < probability {
                self.pulse_weight(tile, at, kept, read > 0.0, rng);
            }
        }
        kept[0] = kept[1] - kept[2];
        true
    }

    /// The state of a device after a reset.
    fn reset_once(&self, cell: &Cell, rng: &mut impl Rng) -> f64 {
        let noise = self.reset_std * rng.sample::<f64, _>(StandardNormal);
        clip(f64::from(cell.reset) + noise, f64::from(cell.lo), f64::from(cell.hi))
    }

    /// Changes the states at `at`: of the weight, of the state behind a visible weight, or of both devices of a pair.
    fn each_state(&self, at: usize, kept: &mut Kept, mut change: impl FnMut(usize, f64) -> f64) {
        if self.pair {
            kept[1] = change(2 * at, kept[1]);
            kept[2] = change(2 * at + 1, kept[2]);
            kept[0] = kept[1] - kept[2];
        } else if self.shows_noise() {
            kept[1] = change(at, kept[1]);
        } else {
            kept[0] = change(at, kept[0]);
        }
    }
}

/// v where it is between the bounds, else the nearer of them.
fn clip(v: f64, lo: f64, hi: f64) -> f64 {
    v.max(lo).min(hi)
}

/// Changes the numbers kept for each weight of slices, one after the other, by `change`.
fn for_each_kept(
    weights: &mut [f64],
    memory: &mut [&mut [f64]],
    mut change: impl FnMut(usize, &mut Kept),
) {
    for (at, weight) in weights.iter_mut().enumerate() {
        let mut kept = [*weight, 0.0, 0.0, 0.0];
        kept[1..].iter_mut().zip(memory.iter()).for_each(|(kept, memory)| *kept = memory[at]);
        change(at, &mut kept);
        *weight = kept[0];
        memory.iter_mut().zip(&kept[1..]).for_each(|(memory, kept)| memory[at] = *kept);
    }
}

impl SynapseLaw for Devices {
    fn name(&self) -> &'static str {
        "device"
    }

    fn memory(&self) -> &'static [&'static str] {
        let waits = self.pulses == Pulses::Deterministic;
        match (self.is_ideal(), self.pair, self.shows_noise(), waits) {
            (true, ..) | (_, false, false, false) => &[],
            (_, true, _, false) => &["plus", "minus"],
            (_, true, _, true) => &["plus", "minus", "waiting"],
            (_, false, true, false) => &["hidden"],
            (_, false, true, true) => &["hidden", "waiting"],
            (_, false, false, true) => &["waiting"],
        }
    }

    fn adds_up(&self) -> bool {
        self.is_ideal()
    }

    fn wants(&self) -> Wants {
        match (self.is_ideal(), self.pulses) {
            (true, _) => Wants::Changes,
            (_, Pulses::Mean) if self.summed => Wants::Arrays,
            (_, Pulses::Stochastic | Pulses::Mean) => Wants::Factors,
            (_, Pulses::Deterministic | Pulses::Exact) => Wants::Arrays,
        }
    }

    fn change(&self, weights: &mut [f64], wished: &[f64], _: &mut [&mut [f64]]) {
        for (w, wished) in weights.iter_mut().zip(wished) {
            *w += wished;
        }
    }

    fn change_array(&self, place: &Place, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]) {
        if self.is_ideal() || self.obeys(place) {
            return self.change(weights, wished, memory);
        }
        let (tile, mut rng) = (self.tile(place), self.draws(place, 0));
        let (step, waits) = (self.granularity(), memory.len());
        let mut ledger = Ledger::default();
        for_each_kept(weights, memory, |at, kept| {
            let before = kept[0];
            match self.pulses {
                Pulses::Deterministic => {
                    kept[waits] += wished[at];
                    let most = self.train_length as f64;
                    let count = (kept[waits] / step).trunc().clamp(-most, most);
                    kept[waits] -= count * step;
                    ledger.slots = ledger.slots.max(count.abs() as u64);
                    for _ in 0..count.abs() as usize {
                        self.pulse_weight(&tile, at, kept, count > 0.0, &mut rng);
                        ledger.pulses += 1;
                    }
                    if self.refresh && count != 0.0 {
                        self.refreshed(&tile, at, kept, &mut rng);
                    }
                }
                Pulses::Mean if wished[at] != 0.0 => {
                    self.drive_on_average(&tile, at, kept, wished[at] / step, &mut rng);
                }
                Pulses::Mean => {}
                Pulses::Stochastic | Pulses::Exact => {
                    // A wished change down of a pair is one up of its other device.
                    let up = wished[at] > 0.0;
                    self.each_state(at, kept, |i, v| {
                        let share = match (self.pair, (i % 2 == 0) == up) {
                            (false, _) => wished[at],
                            (true, true) => wished[at].abs(),
                            (true, false) => 0.0,
                        };
                        clip(v + share, f64::from(tile.cells[i].lo), f64::from(tile.cells[i].hi))
                    });
                    if !self.pair && self.shows_noise() && wished[at] != 0.0 {
                        kept[0] = self.shown(kept[1], &mut rng);
                    }
                    ledger.pulses += u64::from(wished[at] != 0.0);
                    ledger.slots = ledger.slots.max(u64::from(wished[at] != 0.0));
                }
            }
            ledger.moved += (kept[0] - before).abs();
        });
        self.state.count(place.number, ledger);
    }

    fn pulse(&self, place: &Place, array: &mut dyn Array, wished: &Factors) {
        let kept = 1 + self.memory().len();
        if self.obeys(place) {
            for row in 0..place.rows {
                let mut numbers = Kept::default();
                array.read(row, 0, &mut numbers[..kept]);
                numbers[0] += pulses::product(wished, place, row, 0);
                array.write(row, 0, &numbers[..kept]);
            }
            return;
        }
        if self.pulses == Pulses::Mean {
            return self.pulse_on_average(place, array, wished);
        }
        let (tile, mut rng) = (self.tile(place), self.draws(place, 0));
        let (mut ledger, mut touched) = (Ledger::default(), Vec::new());
        let mut slots = pulses::Slots::default();
        for image in 0..wished.images {
            for product in &wished.products {
                let rate = product.sign * wished.rate;
                let lines = |all: &[f64], width: usize| Lines::of(&all[image * width..][..width]);
                let (rows, columns) =
                    (lines(&product.rows, place.rows), lines(&product.columns, place.columns));
                let train = Train::of(
                    rate.abs(),
                    columns.largest,
                    rows.largest,
                    self.granularity(),
                    self.train_length,
                    self.management,
                );
                ledger.slots += train.length as u64;
                for _ in 0..train.length {
                    slots.draw(&train, &rows, &columns, &mut rng);
                    for &(row, positive) in &slots.rows {
                        for &(column, other) in &slots.columns {
                            let (row, column) = (row as usize, column as usize);
                            let up = (rate > 0.0) == (positive == other);
                            let mut numbers = Kept::default();
                            array.read(row, column, &mut numbers[..kept]);
                            let before = numbers[0];
                            self.pulse_weight(&tile, row * place.columns + column, &mut numbers, up, &mut rng);
                            ledger.pulses += 1;
                            ledger.moved += (numbers[0] - before).abs();
                            array.write(row, column, &numbers[..kept]);
                            if self.refresh {
                                touched.push((row, column));
                            }
                        }
                    }
                }
            }
            for (row, column) in touched.drain(..) {
                let mut numbers = Kept::default();
                array.read(row, column, &mut numbers[..kept]);
                if self.refreshed(&tile, row * place.columns + column, &mut numbers, &mut rng) {
                    array.write(row, column, &numbers[..kept]);
                }
            }
        }
        self.state.count(place.number, ledger);
    }

    fn start(&self, _: &Place, weights: &[f64], memory: &mut [&mut [f64]]) {
        match memory {
            [plus, minus, ..] if self.pair => {
                plus.iter_mut().zip(weights).for_each(|(g, w)| *g = w.max(0.0));
                minus.iter_mut().zip(weights).for_each(|(g, w)| *g = (-w).max(0.0));
            }
            [hidden, ..] if self.shows_noise() => hidden.copy_from_slice(weights),
            _ => {}
        }
    }

    fn program(&self, place: &Place, weights: &mut [f64], memory: &mut [&mut [f64]]) {
        if self.is_ideal() || self.obeys(place) {
            return;
        }
        let tile = self.tile(place);
        for_each_kept(weights, memory, |at, kept| {
            let before = kept[1];
            self.each_state(at, kept, |i, v| {
                clip(v, f64::from(tile.cells[i].lo), f64::from(tile.cells[i].hi))
            });
            if self.shows_noise() && !self.pair {
                kept[0] += kept[1] - before;
            }
        });
    }

    fn rests(&self) -> bool {
        !self.is_ideal() && (self.diffusion > 0.0 || self.lifetime > 0.0)
    }

    fn rest(&self, place: &Place, weights: &mut [f64], memory: &mut [&mut [f64]]) {
        if self.obeys(place) {
            return;
        }
        let (tile, mut rng) = (self.tile(place), self.draws(place, 1));
        let rests = tile.rests(self, self.state.seed(), place.number);
        for_each_kept(weights, memory, |at, kept| {
            self.each_state(at, kept, |i, v| {
                let (cell, (left, rate)) = (&tile.cells[i], rests.of(i));
                let (lo, hi, reset) = (f64::from(cell.lo), f64::from(cell.hi), f64::from(cell.reset));
                let noise = if rate > 0.0 { rate * rng.sample::<f64, _>(StandardNormal) } else { 0.0 };
                let diffused = if rate > 0.0 { clip(v + noise, lo, hi) } else { v };
                if self.lifetime > 0.0 { clip((diffused - reset) * left + reset, lo, hi) } else { diffused }
            });
            if self.shows_noise() && !self.pair {
                kept[0] = self.shown(kept[1], &mut rng);
            }
        });
    }

    fn devices(&self) -> Option<&Devices> {
        Some(self)
    }

    fn ledger(&self) -> Option<Book<'_>> {
        (!self.is_ideal()).then(|| self.state.book())
    }

    fn bytes(&self) -> usize {
        let leak = if self.lifetime > 0.0 && self.lifetime_dtod > 0.0 { size_of::<f32>() } else { 0 };
        if self.is_ideal() { 0 } else { self.devices_per_weight() * (size_of::<Cell>() + leak) }
    }
}
