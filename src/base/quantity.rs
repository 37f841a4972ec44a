//! Quantities as people write them: a number and an SI unit, `1 pJ`.

use serde::{Deserialize, Serialize};

/// Prefixes of units, and their factors.
const PREFIXES: [(&str, f64); 9] = [
    ("", 1.0),
    ("m", 1e-3),
    ("u", 1e-6),
    ("µ", 1e-6),
    ("μ", 1e-6),
    ("n", 1e-9),
    ("p", 1e-12),
    ("f", 1e-15),
    ("a", 1e-18),
];

/// The size of `unit` in the SI unit `of`: 1e-12 for `pJ` of `J`; `None` where it is no such unit.
pub fn factor(unit: &str, of: char) -> Option<f64> {
    let prefix = unit.strip_suffix(of)?;
    PREFIXES.iter().find(|(known, _)| *known == prefix).map(|(_, factor)| *factor)
}

/// The units that [`factor`] knows, for a message.
pub fn units(of: char) -> String {
    ["", "m", "u", "n", "p", "f"].map(|prefix| format!("{prefix}{of}")).join(", ")
}

/// A quantity that is 0 or more in units of `UNIT`: `Quantity<'J'>` is an energy, `Quantity<'s'>` a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity<const UNIT: char> {
    text: String,
    si: f64,
}

impl<const UNIT: char> Quantity<UNIT> {
    /// Its value in the unit without a prefix.
    pub fn si(&self) -> f64 {
        self.si
    }
}

impl<const UNIT: char> TryFrom<String> for Quantity<UNIT> {
    type Error = String;

    /// Reads a number and a unit.
    fn try_from(text: String) -> Result<Self, String> {
        let (number, unit) =
            text.split_at(text.find(|c: char| c.is_alphabetic() && c != 'e').unwrap_or(text.len()));
        let number = number.trim().parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
        match number.zip(factor(unit.trim(), UNIT)) {
            Some((number, factor)) => Ok(Self { si: number * factor, text }),
            None => Err(format!(
                "`{text}` is not a number of 0 or more and a unit, as in \"1 p{UNIT}\"; units are {}",
                units(UNIT)
            )),
        }
    }
}

impl<const UNIT: char> From<Quantity<UNIT>> for String {
    fn from(quantity: Quantity<UNIT>) -> Self {
        quantity.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_a_number_with_its_unit() {
        let energy = |text: &str| Quantity::<'J'>::try_from(text.to_string());
        for (text, joules) in
            [("1 pJ", 1e-12), ("2.5fJ", 2.5e-15), ("3e2 aJ", 3e-16), ("0 J", 0.0), ("7 µJ", 7e-6)]
        {
            assert!((energy(text).unwrap().si() - joules).abs() <= 1e-15 * joules, "{text}");
        }
        assert!((Quantity::<'s'>::try_from("10 ns".to_string()).unwrap().si() - 1e-8).abs() < 1e-22);
        for text in ["1", "pJ", "1 pW", "-1 pJ", "1 kJ", "1e999 pJ", "NaN pJ", "", "1 ns", "1 p J"] {
            let message = energy(text).unwrap_err();
            assert!(message.contains(&format!("`{text}`")) && message.contains("\"1 pJ\""), "{message}");
        }
    }
}
