//! The effect of one pulse: m(v) and s(v) of v ← clip(v + m(v) + s(v)·ξ, lo, hi), by the kind of device.
//!
//! The models are those of Gokmen and Vlasov (2016), of Rasch et al. (2021, 2024) and of the simulator that these
//! describe; `docs/devices.md` names the papers of the devices.

use super::{Cell, Devices, Noise};
use serde::{Deserialize, Serialize};

/// The kinds of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Makes the wished change, without pulses.
    Ideal,
    /// A step of one size.
    Constant,
    /// A step that falls linearly with the weight.
    Linear,
    /// A step that falls to 0 at the device's own bounds.
    SoftBounds,
    /// Soft bounds beside a reference device.
    SoftBoundsReference,
    /// A step that falls exponentially.
    Exponential,
    /// A step that falls as a power of the distance to the bound.
    Power,
    /// A step read from a table, linear between its entries.
    Piecewise,
    /// A step read from measured responses.
    Measured,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] = [
        Kind::Ideal,
        Kind::Constant,
        Kind::Linear,
        Kind::SoftBounds,
        Kind::SoftBoundsReference,
        Kind::Exponential,
        Kind::Power,
        Kind::Piecewise,
        Kind::Measured,
    ];
}

/// The change of a weight by a pulse: its mean m, with its sign, and its standard deviation s, before bounds clip it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// m.
    pub mean: f64,
    /// s.
    pub std: f64,
}

impl Devices {
    /// The configured step: from `dw_min`, or from `levels`.
    pub fn nominal_step(&self) -> f64 {
        match self.levels {
            0 => self.dw_min,
            levels => (self.w_max - self.w_min) / (levels.max(2) - 1) as f64,
        }
    }

    /// One pulse of the device `cell` at weight `w`.
    pub fn step(&self, cell: &Cell, w: f64, up: bool) -> Step {
        let [lo, hi, extra_up, extra_down] =
            [cell.lo, cell.hi, cell.extra[0], cell.extra[1]].map(f64::from);
        let size = f64::from(if up { cell.up } else { cell.down });
        let extra = if up { extra_up } else { extra_down };
        let sigma = self.dw_min_std;
        // A factor of the step, and noise that is a share of the step.
        let scaled = |factor: f64| (factor * size, sigma * (factor * size).abs());
        let (mean, std) = match self.device {
            Kind::Ideal => (0.0, 0.0),
            // m = ±Δ, s = σΔ
            Kind::Constant => scaled(1.0),
            // m = ±(Δ + k·w), s = σ|m| or σΔ
            Kind::Linear | Kind::SoftBounds => {
                let mean = size + extra * w;
                (mean, sigma * if self.noise == Noise::Additive { size } else { mean.abs() })
            }
            // m = ±Δ(1 − (w + r)/bound), s = σΔ or σ|m|
            Kind::SoftBoundsReference => {
                let v = w + extra_up;
                let ratio = match up {
                    true if hi > 0.0 => v / hi,
                    false if lo < 0.0 => v / lo,
                    _ => 0.0,
                };
                let mean = size * (1.0 - ratio);
                (mean, sigma * if self.noise == Noise::Additive { size } else { mean.abs() })
            }
            // m = ±Δ·max(1 − A·exp(±γz), 0), z = 2a·w/(hi − lo) + b
            Kind::Exponential if hi > lo => {
                let z = 2.0 * self.exp_stretch * w / (hi - lo) + self.exp_shift;
                let (mean, std) = scaled(self.exponential(z, up));
                match sigma > 0.0 && (self.exp_noise != 0.0 || self.exp_noise_slope != 0.0) {
                    true => (mean, sigma * (mean.abs() + self.exp_noise + self.exp_noise_slope * w.abs())),
                    false => (mean, std),
                }
            }
            // m = ±Δ·ω^g, ω the distance to the bound as a share of the range
            Kind::Power if hi > lo => {
                let omega = ((hi - w) / (hi - lo)).clamp(0.0, 1.0);
                scaled(if up { omega } else { 1.0 - omega }.powf(extra))
            }
            // m = ±Δ·y(w), y linear between nodes that are evenly spaced from lo to hi
            Kind::Piecewise => {
                let nodes = if up { &self.piecewise_up } else { &self.piecewise_down };
                let at = if hi > lo { (w - lo) / (hi - lo) } else { 0.0 };
                scaled(interpolated(nodes, at))
            }
            Kind::Measured => match self.file.curve(cell.extra[0]) {
                Some(curve) => scaled(curve.step(w, self.w_min, self.w_max, up)),
                None => (0.0, 0.0),
            },
            // Bounds that leave no room.
            Kind::Exponential | Kind::Power => (0.0, 0.0),
        };
        Step { mean: if up { mean } else { -mean }, std }
    }

    /// y = max(1 − A·exp(±γz), 0).
    fn exponential(&self, z: f64, up: bool) -> f64 {
        match up {
            true => 1.0 - self.exp_a_up * (self.exp_gamma_up * z).exp(),
            false => 1.0 - self.exp_a_down * (-self.exp_gamma_down * z).exp(),
        }
        .max(0.0)
    }

    /// g, the step by which trains of pulses are computed: nominal, one for all devices. For the exponential law it
    /// is the step down at weight 0; for a measured one the mean over both directions in the middle of the range.
    pub fn granularity(&self) -> f64 {
        let step = self.nominal_step();
        match self.device {
            Kind::Ideal | Kind::Constant | Kind::Linear | Kind::SoftBounds | Kind::SoftBoundsReference => step,
            Kind::Exponential => {
                let down = self.exponential(self.exp_shift, false);
                step * (1.0 - self.up_down.max(0.0)) * if down > 0.0 { down } else { 1.0 }
            }
            Kind::Power => step * 0.5f64.powf(self.pow_gamma),
            Kind::Piecewise => {
                step * self.piecewise_up.get(self.piecewise_up.len() / 2).copied().unwrap_or(1.0)
            }
            Kind::Measured => self.file.granularity(self.w_min, self.w_max),
        }
    }

    /// The offset that is added to a weight before the bounds of its device clip it.
    pub(super) fn reference_of(&self, cell: &Cell) -> f64 {
        if self.device == Kind::SoftBoundsReference { f64::from(cell.extra[0]) } else { 0.0 }
    }
}

/// The value at `share` of a table that is linear between nodes evenly spaced from 0 to 1; constant beyond its ends.
fn interpolated(nodes: &[f64], share: f64) -> f64 {
    let (Some(&first), last) = (nodes.first(), nodes.len().saturating_sub(1)) else { return 0.0 };
    if last == 0 {
        return first;
    }
    let at = (share * last as f64).max(0.0);
    let below = (at as usize).min(last - 1);
    let part = (at - below as f64).min(1.0);
    (1.0 - part) * nodes[below] + part * nodes[below + 1]
}
