//! Line charts as SVG that takes its ink from the page around it.

use super::figures::css;

/// Size of a chart, and what its labels need at the left and below.
const SIZE: (f64, f64) = (460.0, 300.0);
const MARGIN: (f64, f64, f64, f64) = (76.0, 14.0, 14.0, 46.0); // left, top, right, bottom

/// One curve.
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Which colour; dashes tell further curves of one colour apart.
    pub color: usize,
    /// Dashed, solid otherwise.
    pub dashed: bool,
    /// In the order they are joined.
    pub points: Vec<(f64, f64)>,
}

/// A chart: its axes.
#[derive(Clone, Copy)]
pub struct Plot<'a> {
    /// What goes to the right, with its unit.
    pub x_label: &'a str,
    /// What goes up, with its unit.
    pub y_label: &'a str,
    /// Whether the latter is on a logarithmic scale.
    pub log: bool,
    /// A vertical line, and what it is.
    pub mark: Option<(f64, &'a str)>,
}

impl Plot<'_> {
    /// The chart. What is not finite is left out, and what a logarithmic axis cannot show lies at its foot.
    pub fn svg(&self, lines: &[Line]) -> String {
        let points =
            || lines.iter().flat_map(|line| &line.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let shown = || points().filter(|(_, y)| !self.log || *y > 0.0);
        let x = range(points().map(|point| point.0).chain(self.mark.map(|mark| mark.0)));
        let y = if self.log {
            log_range(shown().map(|point| point.1))
        } else {
            padded(range(shown().map(|p| p.1)))
        };
        let (left, top, right, bottom) = MARGIN;
        let (width, height) = (SIZE.0 - left - right, SIZE.1 - top - bottom);
        let scale = |value: f64| if self.log { value.max(y.0).ln() } else { value };
        let at_x = |value: f64| left + width * (value - x.0) / (x.1 - x.0);
        let at_y =
            |value: f64| top + height * (1.0 - (scale(value) - scale(y.0)) / (scale(y.1) - scale(y.0)));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{} against {}\" font-size=\"13\">",
            SIZE.0,
            SIZE.1,
            escaped(self.y_label),
            escaped(self.x_label)
        );
        let mut put = |text: String| svg += &text;
        let y_ticks = if self.log { log_ticks(y) } else { ticks(y) };
        // One format an axis.
        let powers = self.log && y_ticks.iter().any(|tick| is_far(*tick));
        for value in y_ticks {
            let at = at_y(value);
            put(format!(
                "<path d=\"M{left} {at:.1}h{width}\" stroke=\"currentColor\" stroke-opacity=\".13\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"currentColor\">{}</text>",
                left - 6.0,
                at + 4.5,
                if powers { power(value) } else { number(value) }
            ));
        }
        let foot = top + height;
        for value in ticks(x) {
            let at = at_x(value);
            put(format!(
                "<path d=\"M{at:.1} {foot}v4\" stroke=\"currentColor\" stroke-opacity=\".5\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"currentColor\">{}</text>",
                foot + 18.0,
                number(value)
            ));
        }
        put(format!(
            "<path d=\"M{left} {top}V{foot}h{width}\" fill=\"none\" stroke=\"currentColor\" stroke-opacity=\".5\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"currentColor\">{}</text>\
             <text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\" fill=\"currentColor\">{}</text>",
            left + width / 2.0,
            SIZE.1 - 8.0,
            escaped(self.x_label),
            top + height / 2.0,
            escaped(self.y_label)
        ));
        if let Some((at, what)) = self.mark {
            let at = at_x(at);
            put(format!(
                "<path d=\"M{at:.1} {top}V{foot}\" stroke=\"currentColor\" stroke-opacity=\".6\" stroke-dasharray=\"2 3\"/>\
                 <text x=\"{:.1}\" y=\"{}\" text-anchor=\"end\" fill=\"currentColor\" font-size=\"12\">{}</text>",
                at - 4.0,
                top + 11.0,
                escaped(what)
            ));
        }
        for line in lines {
            let points: Vec<_> = line.points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
            let color = css(line.color);
            let dashes = if line.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
            let path: String = (points.iter().enumerate())
                .map(|(i, (x, y))| {
                    format!("{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, at_x(*x), at_y(*y))
                })
                .collect();
            put(format!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\" stroke-linejoin=\"round\"{dashes}/>"
            ));
            if let [(x, y)] = points[..] {
                put(format!(
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{color}\"/>",
                    at_x(*x),
                    at_y(*y)
                ));
            }
        }
        svg + "</svg>"
    }
}

/// Text as part of SVG.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// From the least to the greatest, and never nothing.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
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

/// Some five round numbers in a range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let decade = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|step| *step >= raw).unwrap_or(raw);
    let first = (low / step).ceil() as i64;
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
        .filter(|tick| (low..=high).contains(tick))
        .collect()
}

/// Whether a number is too large or too small to be written out.
fn is_far(value: f64) -> bool {
    let size = value.abs();
    size > 0.0 && !(0.001..1e5).contains(&size)
}

/// A number on an axis.
fn number(value: f64) -> String {
    if value.abs() < 1e-300 {
        return "0".into();
    }
    match is_far(value) {
        true => power(value),
        // What rounding has left of the steps is not shown.
        false => format!("{}", (value * 1e9).round() / 1e9).replace('-', "−"),
    }
}

/// A number as a multiple of a power of ten.
fn power(value: f64) -> String {
    const POWERS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let power = (value.abs().log10() + 1e-9).floor() as i32;
    let digits: String =
        power.abs().to_string().bytes().map(|digit| POWERS[usize::from(digit - b'0')]).collect();
    let sign = if power < 0 { "⁻" } else { "" };
    let factor = (value / 10f64.powi(power) * 100.0).round() / 100.0;
    if factor == 1.0 {
        format!("10{sign}{digits}")
    } else {
        format!("{factor}·10{sign}{digits}").replace('-', "−")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 30.0)), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(log_ticks((0.9, 110.0)), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!([0.0, 0.3, -2.0, 1e-7, 2e5].map(number), ["0", "0.3", "−2", "10⁻⁷", "2·10⁵"]);
    }

    #[test]
    fn a_chart_has_a_path_for_every_line_whatever_the_values() {
        let plot = Plot { x_label: "epoch", y_label: "error, %", log: true, mark: Some((1.0, "here")) };
        let line = |points| Line { name: "a".into(), color: 0, dashed: true, points };
        let svg = plot.svg(&[line(vec![(0.0, 0.0), (1.0, f64::NAN), (2.0, 5.0)]), line(vec![(0.0, 1.0)])]);
        assert_eq!(svg.matches("stroke-linejoin").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
