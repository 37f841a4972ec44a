//! Measured responses of devices, from a CSV file.
//!
//! The header names the columns: `pulse`, `up [unit]` and `down [unit]`, and where there are several devices `device`
//! before them. `up` is the conductance after so many pulses up from the lowest state, `down` that after so many
//! pulses down from the highest. Units are S, mS, uS (or µS), nS, pS and fS.

use crate::base::{files, quantity};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::Path;
use std::sync::Arc;

/// The responses of a file, or none. In a configuration it is the path of the file, which is read as soon as the
/// configuration is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    path: String,
    curves: Arc<Vec<Curve>>,
}

/// The response of one device: conductances as shares of the range of all, 0 the lowest of the file and 1 the highest.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// After 0, 1, … pulses up; never falls.
    up: Vec<f64>,
    /// After pulses down, from the last to the first; never falls.
    down: Vec<f64>,
}

/// The largest conductance of a device between two wires of a chip, siemens.
const MOST_SIEMENS: f64 = 1.0;

impl Measured {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file and the line, and says what it should have.
    pub fn read(path: &str) -> Result<Self, String> {
        let text = files::read_text(Path::new(path)).map_err(|error| format!("{path}: cannot be read: {error}"))?;
        Ok(Self { path: path.into(), curves: Arc::new(parse(&text).map_err(|problem| format!("{path}: {problem}"))?) })
    }

    /// The number of devices.
    pub fn len(&self) -> usize {
        self.curves.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.curves.is_empty()
    }

    /// The response of the device of this number.
    pub fn curve(&self, number: f32) -> Option<&Curve> {
        self.curves.get(number as usize)
    }

    /// The mean step in the middle between two weights.
    pub fn granularity(&self, w_min: f64, w_max: f64) -> f64 {
        let middle = 0.5 * (w_min + w_max);
        let steps = self.curves.iter().flat_map(|curve| [true, false].map(|up| curve.step(middle, w_min, w_max, up)));
        steps.sum::<f64>() / (2 * self.len()).max(1) as f64
    }
}

impl Curve {
    /// The size of the step of a pulse at weight `w`, where the range of the file corresponds to `w_min` to `w_max`:
    /// the step to the curve's value one pulse later.
    pub fn step(&self, w: f64, w_min: f64, w_max: f64, up: bool) -> f64 {
        let range = w_max - w_min;
        let g = (w - w_min) / range;
        match up {
            true => range * (moved(&self.up, g, 1.0) - g).max(0.0),
            false => range * (g - moved(&self.down, g, -1.0)).max(0.0),
        }
    }
}

/// The value of a curve that never falls, `by` pulses after it was at g.
fn moved(curve: &[f64], g: f64, by: f64) -> f64 {
    let last = curve.len() - 1;
    // On a plateau, the last pulse for a step up, and the first for a step down.
    let at = match by > 0.0 {
        true => curve.partition_point(|&value| value <= g).saturating_sub(1).min(last - 1),
        false => curve.partition_point(|&value| value < g).saturating_sub(1).min(last - 1),
    };
    let width = curve[at + 1] - curve[at];
    let part = if width > 0.0 { ((g - curve[at]) / width).clamp(0.0, 1.0) } else { 0.0 };
    let next = (at as f64 + part + by).clamp(0.0, last as f64);
    let below = (next as usize).min(last - 1);
    let part = next - below as f64;
    (1.0 - part) * curve[below] + part * curve[below + 1]
}

/// One device as in the file: its name, the line where it begins, and pulses with conductances in siemens.
struct Raw {
    name: String,
    line: u64,
    rows: Vec<(u64, f64, f64, f64)>,
}

/// The responses of a text, as shares of the range of all.
fn parse(text: &str) -> Result<Vec<Curve>, String> {
    let mut reader = csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        format!("line {line}: not CSV with as many fields in each line as in the first: {error}")
    };
    let header = reader.headers().map_err(wrong)?.clone();
    let columns = Columns::of(&header)?;
    let mut devices: Vec<Raw> = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, csv::Position::line);
        let number = |column: usize, what: &str| {
            let text = &record[column];
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            number.ok_or_else(|| format!("line {line}: {what} is {text:?} and should be a number"))
        };
        let name = columns.device.map_or("", |column| &record[column]);
        let pulse = number(columns.pulse, "pulse")?;
        let siemens = |(column, unit): (usize, f64), what: &str| {
            let value = unit * number(column, what)?;
            if !(0.0..=MOST_SIEMENS).contains(&value) {
                return Err(format!(
                    "line {line}: {what} is {value:e} S, which no device has: a conductance is from 0 to \
                     {MOST_SIEMENS} S; \
                     correct the unit in the header"
                ));
            }
            Ok(value)
        };
        let row = (line, pulse, siemens(columns.up, "up")?, siemens(columns.down, "down")?);
        match devices.iter_mut().find(|device| device.name == name) {
            Some(device) => device.rows.push(row),
            None => devices.push(Raw { name: name.into(), line, rows: vec![row] }),
        }
    }
    if devices.is_empty() {
        return Err("line 1: a header without a response after it: each line after it is one pulse".into());
    }
    devices.iter().try_for_each(Raw::check)?;
    let all = || devices.iter().flat_map(|device| device.rows.iter()).flat_map(|&(_, _, up, down)| [up, down]);
    let (lowest, highest) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    if highest <= lowest {
        return Err(format!("line {}: the conductance is {highest:e} S throughout: nothing responds", devices[0].line));
    }
    let share = |siemens: f64| (siemens - lowest) / (highest - lowest);
    let curve = |device: &Raw| Curve {
        up: device.rows.iter().map(|row| share(row.2)).collect(),
        down: device.rows.iter().rev().map(|row| share(row.3)).collect(),
    };
    Ok(devices.iter().map(curve).collect())
}

/// The columns of a file, and their units.
struct Columns {
    device: Option<usize>,
    pulse: usize,
    up: (usize, f64),
    down: (usize, f64),
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Result<Self, String> {
        const SHAPE: &str = "the header is `pulse,up [uS],down [uS]`, with `device` before it where there are several";
        let find = |name: &str| header.iter().position(|field| field.split(['[', '(', ' ']).next() == Some(name));
        let needed = |name: &str| find(name).ok_or_else(|| format!("line 1: there is no column {name}: {SHAPE}"));
        let conductance = |name: &str| {
            let column = needed(name)?;
            let unit = header[column].trim_start_matches(name).trim_matches(['[', ']', '(', ')', ' ']);
            match quantity::factor(unit, 'S') {
                Some(siemens) => Ok((column, siemens)),
                None => Err(format!(
                    "line 1: column {:?} has no unit of conductance: write one of {}, as in `{name} [uS]`",
                    &header[column],
                    quantity::units('S')
                )),
            }
        };
        Ok(Self {
            device: find("device"),
            pulse: needed("pulse")?,
            up: conductance("up")?,
            down: conductance("down")?,
        })
    }
}

impl Raw {
    /// Checks that it is a response.
    fn check(&self) -> Result<(), String> {
        let of = if self.name.is_empty() { String::new() } else { format!(" of device {}", self.name) };
        if self.rows.len() < 2 {
            let line = self.line;
            return Err(format!("line {line}: the response{of} has a single point: it needs two pulses at least"));
        }
        for pair in self.rows.windows(2) {
            let [(_, pulse, up, down), (line, next, next_up, next_down)] = [pair[0], pair[1]];
            if next != pulse + 1.0 {
                return Err(format!(
                    "line {line}: pulse {next} comes after {pulse}{of}: pulses count up by one; fill gaps in before"
                ));
            }
            let turns = [("up", next_up < up, "falls"), ("down", next_down > down, "rises")];
            if let Some((name, _, turns)) = turns.into_iter().find(|(_, turns, _)| *turns) {
                return Err(format!(
                    "line {line}: the response {name}{of} turns back: it {turns}; average over cycles, or \
                     smooth it, and give the noise as synapse.dw_min_std"
                ));
            }
        }
        Ok(())
    }
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.path)
    }
}

impl<'de> Deserialize<'de> for Measured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        if path.is_empty() {
            return Ok(Self::default());
        }
        Self::read(&path).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "device,pulse,up [uS],down [uS]\na,0,10,30\na,1,20,15\na,2,30,10\nb,0,12,28\nb,1,28,12\n";

    #[test]
    fn a_device_follows_its_curve() {
        let curves = parse(GOOD).unwrap();
        assert_eq!(curves.len(), 2);
        let (mut w, mut seen) = (-1.0, Vec::new());
        for up in [true, true, true, false, false, false] {
            w += if up { 1.0 } else { -1.0 } * curves[0].step(w, -1.0, 1.0, up);
            seen.push((1e9 * w).round() / 1e9);
        }
        assert_eq!(seen, [0.0, 1.0, 1.0, -0.5, -1.0, -1.0]);
        // Between two points of the curve it goes as far between the next two.
        assert!((curves[0].step(-0.5, -1.0, 1.0, true) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_response_is_refused_with_its_line() {
        for (text, line, what) in [
            ("pulse,up [uS],down [uS]\n", 1, "without a response"),
            ("pulse,up,down [uS]\n0,1,2\n1,2,1\n", 1, "no unit of conductance"),
            ("pulse,up [kOhm],down [uS]\n0,1,2\n1,2,1\n", 1, "write one of S, mS"),
            ("pulse,up [uS]\n0,1\n", 1, "no column down"),
            ("pulse,up [uS],down [uS]\n0,1,2\n", 2, "single point"),
            ("pulse,up [uS],down [uS]\n0,1,3\n1,2,2\n2,1.5,1\n", 4, "up turns back: it falls"),
            ("pulse,up [uS],down [uS]\n0,1,2\n1,2,3\n", 3, "down turns back: it rises"),
            ("pulse,up [uS],down [uS]\n0,1,2\n2,2,1\n", 3, "pulse 2 comes after 0"),
            ("pulse,up [S],down [S]\n0,10,20\n1,20,10\n", 2, "no device has"),
            ("pulse,up [uS],down [uS]\n0,-1,2\n1,2,1\n", 2, "from 0 to"),
            ("pulse,up [uS],down [uS]\n0,x,2\n1,2,1\n", 2, "should be a number"),
            ("pulse,up [uS],down [uS]\n0,5,5\n1,5,5\n", 2, "nothing responds"),
            ("pulse,up [uS],down [uS]\n0,5\n", 2, "as many fields"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.starts_with(&format!("line {line}: ")) && problem.contains(what), "{text:?}: {problem}");
        }
    }
}
