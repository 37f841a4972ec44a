//! Faults of devices, which distinguish them from ideal synapses, and devices without some of them.

use super::{Devices, Kind, Pulses};

/// A fault that can be taken away from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Noise of a pulse, of the visible weight after it, of a reset, and diffusion.
    CycleToCycle,
    /// Pulses are few and random; without this, devices make the average change of pulses ([`Pulses::Mean`]).
    Granularity,
    /// Devices differ, and some are stuck.
    DeviceToDevice,
    /// Steps depend on the direction and on the weight, which leaks; without this, all have the size by which trains
    /// are computed.
    Asymmetry,
    /// Weights end at bounds.
    Bounds,
}

/// A bound that no weight comes to.
const FAR: f64 = 1e6;

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 5] = [
        Fault::CycleToCycle,
        Fault::Granularity,
        Fault::DeviceToDevice,
        Fault::Asymmetry,
        Fault::Bounds,
    ];
}

impl Devices {
    /// Returns the devices without these faults; without all of them, ideal ones.
    pub fn without(&self, faults: &[Fault]) -> Self {
        let mut law = self.clone();
        if Fault::ALL.iter().all(|fault| faults.contains(fault)) {
            law.device = Kind::Ideal;
            return law;
        }
        for fault in faults {
            match fault {
                Fault::CycleToCycle => {
                    for noise in [
                        &mut law.dw_min_std,
                        &mut law.write_noise,
                        &mut law.reset_std,
                        &mut law.refresh_noise,
                        &mut law.diffusion,
                    ] {
                        *noise = 0.0;
                    }
                }
                // Deterministic pulses are those of the sum over a minibatch, and exact changes have none.
                Fault::Granularity if law.pulses != Pulses::Exact => {
                    law.summed = law.pulses == Pulses::Deterministic;
                    (law.pulses, law.refresh) = (Pulses::Mean, false);
                }
                Fault::Granularity => {}
                Fault::DeviceToDevice => {
                    for spread in [
                        &mut law.dw_min_dtod,
                        &mut law.up_down_dtod,
                        &mut law.w_max_dtod,
                        &mut law.w_min_dtod,
                        &mut law.lifetime_dtod,
                        &mut law.diffusion_dtod,
                        &mut law.reset_dtod,
                        &mut law.slope_up_dtod,
                        &mut law.slope_down_dtod,
                        &mut law.bound_up_dtod,
                        &mut law.bound_down_dtod,
                        &mut law.reference_dtod,
                        &mut law.pow_gamma_dtod,
                        &mut law.pow_up_down_dtod,
                        &mut law.stuck,
                    ] {
                        *spread = 0.0;
                    }
                }
                Fault::Asymmetry => {
                    (law.dw_min, law.levels) = (law.granularity(), 0);
                    (law.device, law.up_down, law.lifetime) = (Kind::Constant, 0.0, 0.0);
                }
                // A measured response has no other range than its own.
                Fault::Bounds if law.device == Kind::Measured => {}
                Fault::Bounds => {
                    (law.dw_min, law.levels, law.refresh) = (law.nominal_step(), 0, false);
                    law.w_max = FAR;
                    // A pair has no device below 0.
                    law.w_min = if law.pair { 0.0 } else { -FAR };
                }
            }
        }
        law
    }
}
