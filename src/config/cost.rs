//! `[cost]`: what devices take for what they are asked to do.

use crate::base::quantity::Quantity;
use serde::{Deserialize, Serialize};

/// Energies and times, as far as they are known. They change what is told of a run, not what it computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Energy of a pulse of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulse_energy: Option<Quantity<'J'>>,
    /// Time of a slot of a train.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulse_time: Option<Quantity<'s'>>,
    /// Energy of reading a device once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_energy: Option<Quantity<'J'>>,
    /// Time of a step of a phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_time: Option<Quantity<'s'>>,
}

/// The work of devices for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asked {
    /// Pulses that devices took.
    pub pulses: f64,
    /// Slots of trains, one after the other, of the array that had most: arrays take their trains at the same time.
    pub slots: f64,
    /// Reads of devices.
    pub reads: f64,
    /// Steps of both phases.
    pub steps: f64,
}

/// a·b + c·d, where what is not known counts as nothing; `None` where neither is known.
fn sum<const UNIT: char>(terms: [(f64, &Option<Quantity<UNIT>>); 2]) -> Option<f64> {
    let known = terms.iter().filter_map(|(count, cost)| Some(count * cost.as_ref()?.si()));
    known.reduce(|a, b| a + b)
}

impl Cost {
    /// True where no cost is known.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// The keys that are given, each with why it plays no part where synapses are no devices.
    pub fn given(&self) -> Vec<(&'static str, String)> {
        let keys = [
            ("cost.pulse_energy", self.pulse_energy.is_some()),
            ("cost.pulse_time", self.pulse_time.is_some()),
            ("cost.read_energy", self.read_energy.is_some()),
            ("cost.step_time", self.step_time.is_some()),
        ];
        let given = keys.into_iter().filter(|(_, given)| *given);
        given
            .map(|(key, _)| {
                (key, "it is what devices cost, of which there are none: set synapse.law = \"device\"".into())
            })
            .collect()
    }

    /// The energy of all that was asked, joules: pulses·`pulse_energy` + reads·`read_energy`.
    pub fn energy(&self, asked: &Asked) -> Option<f64> {
        sum([(asked.pulses, &self.pulse_energy), (asked.reads, &self.read_energy)])
    }

    /// The time that it took, seconds: slots·`pulse_time` + steps·`step_time`.
    pub fn latency(&self, asked: &Asked) -> Option<f64> {
        sum([(asked.slots, &self.pulse_time), (asked.steps, &self.step_time)])
    }
}
