//! Checks of the settings of devices: impossible ones, and those without effect.

use super::{Devices, Kind, Pulses};
use crate::base::problem::{Result, need};

/// The most slots of a train.
const MOST_SLOTS: usize = 10_000;
/// The most levels.
const MOST_LEVELS: usize = 1 << 24;

impl Devices {
    /// Checks each key, and their combination.
    ///
    /// # Errors
    /// The first problem found, by its key.
    pub fn check(&self) -> Result {
        need(
            (1..=MOST_SLOTS).contains(&self.train_length),
            "synapse.train_length",
            format!("is the most slots of a train of pulses and must be from 1 to {MOST_SLOTS}"),
        )?;
        need(
            self.dw_min > 0.0 && self.dw_min.is_finite(),
            "synapse.dw_min",
            "is the mean step of a pulse, in units of weights, and must be above 0",
        )?;
        need(
            self.levels != 1 && self.levels <= MOST_LEVELS,
            "synapse.levels",
            format!("counts the levels from w_min to w_max and must be 0, which leaves dw_min, or from 2 to \
             {MOST_LEVELS}"),
        )?;
        for (key, value) in [
            ("synapse.dw_min_dtod", self.dw_min_dtod),
            ("synapse.dw_min_std", self.dw_min_std),
            ("synapse.up_down_dtod", self.up_down_dtod),
            ("synapse.w_max_dtod", self.w_max_dtod),
            ("synapse.w_min_dtod", self.w_min_dtod),
            ("synapse.write_noise", self.write_noise),
            ("synapse.lifetime", self.lifetime),
            ("synapse.lifetime_dtod", self.lifetime_dtod),
            ("synapse.diffusion", self.diffusion),
            ("synapse.diffusion_dtod", self.diffusion_dtod),
            ("synapse.reset", self.reset),
            ("synapse.reset_dtod", self.reset_dtod),
            ("synapse.reset_std", self.reset_std),
            ("synapse.stuck_range", self.stuck_range),
            ("synapse.slope_up", self.slope_up),
            ("synapse.slope_up_dtod", self.slope_up_dtod),
            ("synapse.slope_down", self.slope_down),
            ("synapse.slope_down_dtod", self.slope_down_dtod),
            ("synapse.bound_up_dtod", self.bound_up_dtod),
            ("synapse.bound_down_dtod", self.bound_down_dtod),
            ("synapse.reference_dtod", self.reference_dtod),
            ("synapse.exp_noise", self.exp_noise),
            ("synapse.exp_noise_slope", self.exp_noise_slope),
            ("synapse.pow_gamma", self.pow_gamma),
            ("synapse.pow_gamma_dtod", self.pow_gamma_dtod),
            ("synapse.pow_up_down_dtod", self.pow_up_down_dtod),
            ("synapse.refresh_noise", self.refresh_noise),
        ] {
            need(value >= 0.0 && value.is_finite(), key, "must be a finite number, 0 or above")?;
        }
        for (key, value) in [
            ("synapse.stuck_value", self.stuck_value),
            ("synapse.reference", self.reference),
            ("synapse.exp_a_up", self.exp_a_up),
            ("synapse.exp_a_down", self.exp_a_down),
            ("synapse.exp_gamma_up", self.exp_gamma_up),
            ("synapse.exp_gamma_down", self.exp_gamma_down),
            ("synapse.exp_stretch", self.exp_stretch),
            ("synapse.exp_shift", self.exp_shift),
        ] {
            need(value.is_finite(), key, "must be a finite number")?;
        }
        for (key, value) in [("synapse.up_down", self.up_down), ("synapse.pow_up_down", self.pow_up_down)] {
            need(
                value > -1.0 && value < 1.0,
                key,
                "is the share by which one direction is smaller and must be above −1 and below 1",
            )?;
        }
        need((0.0..=1.0).contains(&self.stuck), "synapse.stuck", "is a share of the devices and must be from 0 to 1")?;
        need(
            self.w_max >= 0.0 && self.w_max.is_finite(),
            "synapse.w_max",
            "is the upper bound of weights and must be 0 or above",
        )?;
        need(
            self.w_min <= 0.0 && self.w_min.is_finite() && self.w_min < self.w_max,
            "synapse.w_min",
            "is the lower bound of weights and must be 0 or below, and below synapse.w_max",
        )?;
        let soft = matches!(self.device, Kind::SoftBounds | Kind::SoftBoundsReference);
        need(
            !soft || (self.w_max > 0.0 && self.w_min < 0.0),
            "synapse.device",
            "has steps that fall to 0 at each bound: set synapse.w_min below 0 and synapse.w_max above 0",
        )?;
        for (key, nodes) in
            [("synapse.piecewise_up", &self.piecewise_up), ("synapse.piecewise_down", &self.piecewise_down)]
        {
            need(
                !nodes.is_empty() && nodes.iter().all(|node| *node >= 0.0 && node.is_finite()),
                key,
                "lists steps from w_min to w_max in units of dw_min: at least one, each finite and 0 or above",
            )?;
        }
        need(
            self.device != Kind::Measured || !self.file.is_empty(),
            "synapse.file",
            "must name the CSV file of responses that device = \"measured\" has: pulse, up [uS], down [uS]",
        )?;
        need(
            self.granularity() > 0.0 || self.is_ideal(),
            "synapse.device",
            "makes no step in the middle of its range, by which trains of pulses are computed: see \
             docs/devices.md",
        )?;
        need(
            !self.pair || !self.shows_noise(),
            "synapse.write_noise",
            "is not for pairs, whose weight is a difference of two states: set synapse.write_noise = 0",
        )?;
        need(
            !self.pair || self.w_max > 0.0,
            "synapse.w_max",
            "is the range of each device of a pair, which are pulsed up only, and must be above 0",
        )?;
        need(
            !self.refresh || self.pair,
            "synapse.refresh",
            "rewrites pairs that have run out of range: set synapse.pair = true, or leave it out",
        )?;
        need(
            !self.refresh || self.has_trains(),
            "synapse.refresh",
            "writes with pulses, of which synapse.pulses = \"exact\" and \"mean\" have none: set synapse.refresh = false",
        )
    }

    /// True where devices take single pulses.
    fn has_trains(&self) -> bool {
        matches!(self.pulses, Pulses::Stochastic | Pulses::Deterministic)
    }

    /// Keys without effect, each with the reason.
    pub fn idle(&self) -> Vec<(&'static str, String)> {
        let mut idle: Vec<(&'static str, String)> = Vec::new();
        let mut without = |met: bool, keys: &[&'static str], why: &str| {
            if !met {
                idle.extend(keys.iter().map(|&key| (key, why.to_string())));
            }
        };
        let kind = self.device;
        let slopes = ["synapse.slope_up", "synapse.slope_up_dtod", "synapse.slope_down", "synapse.slope_down_dtod"];
        without(kind == Kind::Linear, &slopes, "it is that of device = \"linear\"");
        without(
            matches!(kind, Kind::Linear | Kind::SoftBounds | Kind::SoftBoundsReference),
            &["synapse.noise"],
            "it is a choice for device = \"linear\" and those with soft bounds",
        );
        without(
            kind == Kind::SoftBoundsReference,
            &[
                "synapse.bound_up_dtod",
                "synapse.bound_down_dtod",
                "synapse.reference",
                "synapse.reference_dtod",
                "synapse.subtract_symmetry_point",
            ],
            "it is that of device = \"soft-bounds-reference\"",
        );
        without(
            kind == Kind::Exponential,
            &[
                "synapse.exp_a_up",
                "synapse.exp_a_down",
                "synapse.exp_gamma_up",
                "synapse.exp_gamma_down",
                "synapse.exp_stretch",
                "synapse.exp_shift",
                "synapse.exp_noise",
                "synapse.exp_noise_slope",
            ],
            "it is that of device = \"exponential\"",
        );
        without(
            kind == Kind::Power,
            &["synapse.pow_gamma", "synapse.pow_gamma_dtod", "synapse.pow_up_down", "synapse.pow_up_down_dtod"],
            "it is that of device = \"power\"",
        );
        without(
            kind == Kind::Piecewise,
            &["synapse.piecewise_up", "synapse.piecewise_down"],
            "it is that of device = \"piecewise\"",
        );
        without(kind == Kind::Measured, &["synapse.file"], "it is that of device = \"measured\"");
        without(
            self.levels == 0 && kind != Kind::Measured,
            &["synapse.dw_min"],
            if self.levels > 0 { "synapse.levels sets the step" } else { "the step is that of synapse.file" },
        );
        without(
            self.pulses == Pulses::Stochastic,
            &["synapse.management"],
            "it adapts the trains of pulses = \"stochastic\"",
        );
        without(
            self.has_trains(),
            &["synapse.train_length"],
            "pulses = \"exact\" and \"mean\" have no trains",
        );
        without(self.lifetime > 0.0, &["synapse.lifetime_dtod"], "nothing leaks with synapse.lifetime = 0");
        without(self.diffusion > 0.0, &["synapse.diffusion_dtod"], "nothing diffuses with synapse.diffusion = 0");
        without(
            self.stuck > 0.0,
            &["synapse.stuck_value", "synapse.stuck_range"],
            "no device is stuck with synapse.stuck = 0",
        );
        without(self.refresh, &["synapse.refresh_noise"], "nothing is written anew without synapse.refresh");
        without(
            self.refresh || self.lifetime > 0.0,
            &["synapse.reset", "synapse.reset_dtod"],
            "nothing is reset, and nothing leaks",
        );
        without(self.refresh, &["synapse.reset_std"], "nothing is reset without synapse.refresh");
        idle
    }
}
