//! The devices of an array: their differences are drawn once, from the seed.

use super::{Devices, Kind};
use crate::rng::{self, Purpose};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::sync::OnceLock;

/// One device: seven numbers, in units of weights unless stated otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// The upper bound.
    pub hi: f32,
    /// The lower bound.
    pub lo: f32,
    /// The step up; of a measured device, a factor of it.
    pub up: f32,
    /// The step down, as a size; likewise.
    pub down: f32,
    /// The other parameters of its law: slopes up and down (linear, soft bounds), the reference (soft bounds with
    /// one), exponents up and down (power), the number of its curve (measured).
    pub extra: [f32; 2],
    /// The value after a reset, towards which the weight leaks.
    pub reset: f32,
}

/// The devices of an array, row-major; of pairs, both of a weight one after the other.
#[derive(Debug)]
pub struct Tile {
    /// The devices.
    pub cells: Vec<Cell>,
    /// The share that each loses in a minibatch, 1/t; one for all where they do not differ. Drawn on first use.
    lost: OnceLock<Vec<f32>>,
}

/// The leak and the diffusion of each device in a minibatch.
pub struct Rests<'a> {
    lost: &'a [f32],
    /// ρ; drawn anew each time, so that it takes no memory.
    rates: Vec<f64>,
}

impl Rests<'_> {
    /// The factor of the leak, and ρ.
    pub fn of(&self, device: usize) -> (f64, f64) {
        // Where no device differs, one stands for all.
        let lost = self.lost.get(device).or(self.lost.first()).copied().unwrap_or_default();
        let rate = self.rates.get(device).or(self.rates.first()).copied().unwrap_or_default();
        (1.0 - f64::from(lost), rate)
    }
}

fn normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

impl Tile {
    /// Makes `count` devices of the array of this number.
    pub fn made(law: &Devices, seed: u64, number: usize, count: usize) -> Self {
        let mut rng = rng::stream(seed, Purpose::Devices, 3 * number as u64);
        Self { cells: (0..count).map(|_| law.made(&mut rng)).collect(), lost: OnceLock::new() }
    }

    /// The leak and the diffusion of each device.
    pub fn rests(&self, law: &Devices, seed: u64, number: usize) -> Rests<'_> {
        let stream = |of: u64| rng::stream(seed, Purpose::Devices, 3 * number as u64 + of);
        let count = |dtod: f64| if dtod > 0.0 { self.cells.len() } else { 1 };
        let lost = self.lost.get_or_init(|| {
            let mut rng = stream(1);
            (0..count(law.lifetime_dtod)).map(|_| law.lost_by_one(&mut rng) as f32).collect()
        });
        let mut rng = stream(2);
        let rate = |_| (law.diffusion * (1.0 + law.diffusion_dtod * normal(&mut rng))).abs();
        Rests { lost, rates: (0..count(law.diffusion_dtod)).map(rate).collect() }
    }
}

impl Devices {
    /// Draws one device. Steps and bounds that come out with the wrong sign are folded back.
    fn made(&self, rng: &mut ChaCha8Rng) -> Cell {
        let (mut hi, mut lo) = (
            self.w_max * (1.0 + self.w_max_dtod * normal(rng)),
            self.w_min * (1.0 + self.w_min_dtod * normal(rng)),
        );
        let spread = self.dw_min_dtod * normal(rng);
        let general = if self.dw_min_log_normal { spread.exp() } else { 1.0 + spread };
        let r = self.up_down_dtod * normal(rng);
        // A measured response has its steps in weights already.
        let step = if self.device == Kind::Measured { 1.0 } else { self.nominal_step() };
        let mut up = ((self.up_down.min(0.0) + general + r) * step).abs();
        let mut down = ((-self.up_down.max(0.0) + general - r) * step).abs();
        if lo > hi {
            (hi, lo) = (lo, hi);
        }
        (hi, lo) = (hi.abs(), -lo.abs());
        let mut reset = self.reset.max(0.0) + self.reset_dtod * normal(rng);
        if self.device == Kind::SoftBoundsReference {
            hi /= (1.0 + self.bound_up_dtod * normal(rng)).abs();
            lo /= (1.0 + self.bound_down_dtod * normal(rng)).abs();
        }
        if self.stuck > 0.0 && rng.random::<f64>() < self.stuck {
            let from = lo.max(self.stuck_value - self.stuck_range);
            let to = hi.min(self.stuck_value + self.stuck_range);
            // Where its bounds leave no range, it is stuck at the nearer of them.
            let value = if to > from { from + (to - from) * rng.random::<f64>() } else { from.min(hi) };
            (hi, lo, up, down) = (value, value, 0.0, 0.0);
        }
        let extra = match self.device {
            Kind::Linear => {
                let mut slope = |of: f64, dtod: f64, step: f64, bound: f64| match bound {
                    0.0 => 0.0,
                    bound => -(of + dtod * normal(rng)).abs() * step / bound,
                };
                let up = slope(self.slope_up, self.slope_up_dtod, up, self.w_max);
                [up, slope(self.slope_down, self.slope_down_dtod, down, self.w_min)]
            }
            Kind::SoftBounds => {
                [(up, hi), (down, lo)].map(|(step, bound)| if bound == 0.0 { 0.0 } else { -step / bound })
            }
            Kind::SoftBoundsReference => {
                let mut reference = self.reference + self.reference_dtod * normal(rng);
                if self.subtract_symmetry_point {
                    let pull = up / hi - down / lo;
                    let symmetry_point = if pull == 0.0 || !pull.is_finite() { 0.0 } else { (up - down) / pull };
                    reference += symmetry_point;
                    reset += symmetry_point;
                }
                [reference, 0.0]
            }
            Kind::Power => {
                let general = 1.0 + self.pow_gamma_dtod * normal(rng);
                let r = self.pow_up_down_dtod * normal(rng);
                [self.pow_up_down.min(0.0) + general + r, -self.pow_up_down.max(0.0) + general - r]
                    .map(|factor| (factor * self.pow_gamma).abs())
            }
            Kind::Measured => [rng.random_range(0..self.file.len().max(1)) as f64, 0.0],
            Kind::Ideal | Kind::Constant | Kind::Exponential | Kind::Piecewise => [0.0; 2],
        };
        let [hi, lo, up, down, reset] = [hi, lo, up, down, reset].map(|number| number as f32);
        Cell { hi, lo, up, down, extra: extra.map(|number| number as f32), reset }
    }

    /// The share of its weight that one device loses in a minibatch, 1/t of its own lifetime t.
    fn lost_by_one(&self, rng: &mut ChaCha8Rng) -> f64 {
        let lifetime = self.lifetime * (1.0 + self.lifetime_dtod * normal(rng));
        if lifetime > 1.0 { 1.0 / lifetime } else { 1.0 }
    }
}
