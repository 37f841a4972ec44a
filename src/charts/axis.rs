//! The axes of charts: their ranges, and the numbers along them.

/// The least percentage on a logarithmic axis, which cannot show an error of 0.
const LEAST: f64 = 0.01;

/// The scale of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    Linear,
    /// Logarithmic; values without a logarithm lie at its foot.
    Log,
    /// For errors in percent: logarithmic where they span a decade or more, else linear from 0.
    Percent,
}

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The quantity, with its unit.
    pub label: String,
    /// Its start and end.
    pub range: (f64, f64),
    /// True where it is logarithmic.
    pub log: bool,
}

impl Axis {
    /// An axis from the least of these values to the greatest.
    pub fn exact(label: &str, values: impl Iterator<Item = f64>) -> Self {
        Self { label: label.into(), range: range(values), log: false }
    }

    /// An axis with room for these values.
    pub fn roomy(label: &str, scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (range, log) = match scale {
            Scale::Linear => (padded(range(values)), false),
            Scale::Log => (log_range(values.filter(|value| *value > 0.0)), true),
            Scale::Percent => percent_range(values),
        };
        Self { label: label.into(), range, log }
    }

    /// "logarithmic" or "linear".
    pub fn name(&self) -> &'static str {
        if self.log { "logarithmic" } else { "linear" }
    }

    /// The position of a value between the start, 0, and the end, 1; values below the start are at 0.
    pub fn share(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log { value.ln() } else { value };
        let (low, high) = self.range;
        (scale(value.max(low)) - scale(low)) / (scale(high) - scale(low))
    }

    /// True where it counts something, so that only whole numbers stand along it.
    fn is_counted(&self) -> bool {
        COUNTED.iter().any(|unit| self.label.ends_with(unit))
    }

    /// About `count` round values, each also as text, all of one format.
    pub fn ticks(&self, count: f64) -> Vec<(f64, String)> {
        let values = match self.log {
            true => log_ticks(self.range),
            false => ticks(self.range, count, self.label.ends_with("degrees")),
        };
        let is_whole = |value: &f64| (value - value.round()).abs() < 1e-9 * value.abs().max(1.0);
        let values: Vec<f64> =
            values.into_iter().filter(|value| !self.is_counted() || is_whole(value)).collect();
        let far = values.iter().any(|value| is_far(*value));
        // On a linear axis all have the power of ten of the least, and as many decimals as one of them needs.
        let least =
            values.iter().map(|value| value.abs()).filter(|size| *size > 0.0).fold(f64::INFINITY, f64::min);
        let exponent = |value: f64| if far { (value.abs().log10() + 1e-9).floor() as i32 } else { 0 };
        let common = exponent(least);
        let longest = values.iter().map(|value| decimals(value / 10f64.powi(common))).max().unwrap_or(0);
        let text = |value: f64| {
            let exponent = if self.log { exponent(value) } else { common };
            let factor = value / 10f64.powi(exponent);
            let decimals = if self.log { decimals(factor) } else { longest };
            match format!("{factor:.decimals$}") {
                _ if far && value == 0.0 => "0".into(),
                factor if !far => factor,
                factor if self.log && factor == "1" => format!("10{}", raised(exponent)),
                factor => format!("{factor}·10{}", raised(exponent)),
            }
        };
        values.into_iter().map(|value| (value, text(value).replace('-', "−"))).collect()
    }
}

/// Labels of axes that count something.
const COUNTED: [&str; 4] = ["epoch", "steps", "step t", "synapses"];

/// From the least to the greatest, never empty.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values = values.filter(|value| value.is_finite());
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match high - low {
        span if span > 0.0 => (low, high),
        _ if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    }
}

fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let margin = 0.05 * (high - low);
    (if low >= 0.0 && low < high / 2.0 { 0.0 } else { low - margin }, high + margin)
}

/// A range of positive values, a little wider than they are and at most twelve decades.
fn log_range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = range(values.map(f64::log10));
    let (low, high) = if high - low < 0.3 { (low - 0.2, high + 0.2) } else { (low - 0.05, high + 0.05) };
    (10f64.powf(low.max(high - 12.0)), 10f64.powf(high))
}

fn percent_range(values: impl Iterator<Item = f64>) -> ((f64, f64), bool) {
    let values = values.filter(|value| value.is_finite());
    let (low, high) =
        values.fold((f64::INFINITY, LEAST), |(low, high), v| (low.min(v.max(LEAST)), high.max(v)));
    let steps = || [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0].into_iter();
    let up = |value: f64| steps().find(|step| *step >= value).unwrap_or(100.0);
    let low = low.min(high);
    if high >= 10.0 * low {
        (((steps().take_while(|step| *step <= low).last().unwrap_or(LEAST)), up(high)), true)
    } else {
        let step = up(high / 8.0);
        ((0.0, step * (high / step).ceil()), false)
    }
}

/// About `count` round numbers in a range; for degrees, parts of a right angle.
fn ticks((low, high): (f64, f64), count: f64, degrees: bool) -> Vec<f64> {
    let raw = (high - low) / count;
    let decade = 10f64.powf(raw.log10().floor());
    let steps = if degrees && (5.0..90.0).contains(&raw) {
        [10.0, 15.0, 30.0, 45.0, 90.0].as_slice()
    } else {
        &[1.0, 2.0, 5.0, 10.0].map(|m| m * decade)
    };
    let step = steps.iter().copied().find(|step| *step >= raw * 0.999).unwrap_or(raw);
    let first = (low / step - 1e-9).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + step * 1e-9).collect()
}

/// Powers of ten in a range, or some multiples of them where there are few.
fn log_ticks((low, high): (f64, f64)) -> Vec<f64> {
    let decades = (high / low).log10();
    let every = (decades / 7.0).ceil().max(1.0) as i32;
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let factors: &[f64] = match decades {
        ..0.9 => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        0.9..3.2 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    (first..=last)
        .filter(|power| every == 1 || power.rem_euclid(every) == 0)
        .flat_map(|power| factors.iter().map(move |factor| factor * 10f64.powi(power)))
        .filter(|tick| (low * 0.999..=high * 1.001).contains(tick))
        .collect()
}

/// True where a number is too large or too small to be written out.
fn is_far(value: f64) -> bool {
    let size = value.abs();
    size > 0.0 && !(0.0009..1e5).contains(&size)
}

/// The number of decimals of a round number, apart from rounding errors.
fn decimals(value: f64) -> usize {
    let rounded = |decimals: i32| (value * 10f64.powi(decimals)).round() / 10f64.powi(decimals);
    (0..9).find(|decimals| (rounded(*decimals) - value).abs() <= 1e-9 * value.abs()).unwrap_or(9) as usize
}

/// An exponent in raised digits.
fn raised(exponent: i32) -> String {
    let sign = if exponent < 0 { "⁻" } else { "" };
    sign.to_string() + &superscript(exponent.unsigned_abs() as usize)
}

/// A number in raised digits.
pub fn superscript(n: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    n.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(range: (f64, f64), log: bool, label: &str) -> Vec<String> {
        let axis = Axis { label: label.into(), range, log };
        axis.ticks(5.0).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_and_inside_and_of_one_format() {
        assert_eq!(texts((0.0, 30.0), false, "epoch"), ["0", "10", "20", "30"]);
        assert_eq!(texts((-0.5, 1.2), false, "s"), ["−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(texts((0.0, 180.0), false, "Ψ, degrees"), ["0", "45", "90", "135", "180"]);
        assert_eq!(texts((0.0, 5e-7), false, "Δ"), ["0", "1·10⁻⁷", "2·10⁻⁷", "3·10⁻⁷", "4·10⁻⁷", "5·10⁻⁷"]);
        assert_eq!(texts((-6e-4, 1.1e-3), false, "Δ"), ["−5·10⁻⁴", "0", "5·10⁻⁴", "10·10⁻⁴"]);
        assert_eq!(texts((0.09, 12.0), true, "error, %"), ["0.1", "0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(
            texts((1e-7, 1.0), true, "Δ"),
            ["10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]
        );
    }

    #[test]
    fn what_is_counted_has_whole_numbers_alone() {
        assert_eq!(texts((0.0, 2.0), false, "epoch"), ["0", "1", "2"]);
        assert_eq!(texts((0.0, 1.0), false, "t, steps"), ["0", "1"]);
        assert_eq!(texts((0.5, 20.0), true, "synapses"), ["1", "2", "5", "10", "20"]);
        assert_eq!(texts((0.0, 1.0), false, "s"), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn an_axis_of_errors_is_logarithmic_where_they_span_a_decade() {
        let of = |values: &[f64]| {
            let axis = Axis::roomy("error, %", Scale::Percent, values.iter().copied());
            (axis.range, axis.log)
        };
        assert_eq!(of(&[2.0, 2.5, 90.0]), ((2.0, 100.0), true));
        assert_eq!(of(&[0.2, 1.9, 3.0]), ((0.2, 5.0), true));
        assert_eq!(of(&[2.0, 4.5]), ((0.0, 5.0), false));
        assert_eq!(of(&[0.0, 90.0, f64::NAN]), ((0.01, 100.0), true));
        let (none, _) = of(&[]);
        assert!(none.0 < none.1);
    }
}
