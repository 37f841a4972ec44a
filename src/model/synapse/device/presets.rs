//! The values of published devices, as data.

use serde::{Deserialize, Serialize};
use toml::Table;

/// A published device, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The defaults of the keys.
    None,
    /// Constant steps, ten thousand of them over the range, symmetric.
    Idealized,
    /// The device of Gokmen and Vlasov (2016).
    GokmenVlasov,
    /// Electrochemical RAM.
    Ecram,
    /// Electrochemical RAM of metal oxides.
    EcramMo,
    /// Capacitors, which leak.
    Capacitor,
    /// Resistive RAM, as soft bounds.
    #[serde(rename = "reram-sb")]
    ReramSb,
    /// Resistive RAM, as exponential steps.
    #[serde(rename = "reram-es")]
    ReramEs,
    /// An array of optimised resistive RAM.
    ReramArrayOm,
    /// An array of resistive RAM of hafnium oxide.
    #[serde(rename = "reram-array-hfo2")]
    ReramArrayHfo2,
    /// Pairs of phase-change memories.
    Pcm,
}

impl Preset {
    /// All published devices.
    pub const ALL: [Preset; 10] = [
        Preset::Idealized,
        Preset::GokmenVlasov,
        Preset::Ecram,
        Preset::EcramMo,
        Preset::Capacitor,
        Preset::ReramSb,
        Preset::ReramEs,
        Preset::ReramArrayOm,
        Preset::ReramArrayHfo2,
        Preset::Pcm,
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Preset::None => "none",
            Preset::Idealized => "idealized",
            Preset::GokmenVlasov => "gokmen-vlasov",
            Preset::Ecram => "ecram",
            Preset::EcramMo => "ecram-mo",
            Preset::Capacitor => "capacitor",
            Preset::ReramSb => "reram-sb",
            Preset::ReramEs => "reram-es",
            Preset::ReramArrayOm => "reram-array-om",
            Preset::ReramArrayHfo2 => "reram-array-hfo2",
            Preset::Pcm => "pcm",
        }
    }
}

/// The keys of `[synapse]` that the preset of this name sets; empty where there is no such preset.
///
/// # Errors
/// Only those of the built-in table.
pub fn settings(name: &str) -> Result<Table, toml::de::Error> {
    let mut all: Table = toml::from_str(include_str!("presets.toml"))?;
    Ok(match all.remove(name) {
        Some(toml::Value::Table(table)) => table,
        _ => Table::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Devices;
    use super::*;

    #[test]
    fn every_preset_is_a_device_under_its_name() {
        for preset in Preset::ALL {
            let mut table = settings(preset.name()).unwrap();
            assert!(!table.is_empty(), "{preset:?}");
            table.insert("preset".into(), preset.name().into());
            let law: Devices = table.try_into().unwrap();
            assert_eq!(law.preset, preset);
            assert_eq!(law.check(), Ok(()));
        }
        assert!(settings("none").unwrap().is_empty());
    }
}
