//! Bar charts as SVG that takes its ink from the page around it: the parts that make up a number, step by step.

use super::plot::{css, escaped};

/// Width of a chart, height of a bar with the space around it, and the space for labels at the left, right and below.
const WIDTH: f64 = 460.0;
const ROW: f64 = 26.0;
const MARGIN: (f64, f64, f64) = (118.0, 92.0, 26.0); // left, right, bottom

/// A bar from one value to another.
pub struct Bar {
    /// Its label.
    pub name: String,
    /// Its start; 0 for a whole.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// The number beside it: a mean and, where known, a standard deviation, which is also drawn about its end.
    pub says: (f64, Option<f64>),
    /// The index of its colour.
    pub color: usize,
}

/// The chart, one bar below the other. Values that are not finite are not drawn, and labelled unknown.
pub fn svg(bars: &[Bar], unit: &str) -> String {
    let reach = |bar: &Bar| {
        let std = bar.says.1.unwrap_or(0.0);
        [bar.from, bar.to - std, bar.to + std]
    };
    let ends = || bars.iter().flat_map(reach).filter(|end| end.is_finite());
    let (low, high) = (ends().fold(0.0, f64::min), ends().fold(1.0, f64::max));
    let (left, right, bottom) = MARGIN;
    let (width, foot) = (WIDTH - left - right, ROW * bars.len() as f64);
    let at = |value: f64| left + width * (value - low) / (high - low);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\" font-size=\"13\">",
        foot + bottom,
        escaped(unit)
    );
    svg += &format!(
        "<path d=\"M{:.1} 0V{foot}\" stroke=\"currentColor\" stroke-opacity=\".5\"/>\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"currentColor\">{}</text>",
        at(0.0),
        left + width / 2.0,
        foot + 18.0,
        escaped(unit)
    );
    for (i, bar) in bars.iter().enumerate() {
        let (top, middle) = (ROW * i as f64 + 4.0, ROW * (i as f64 + 0.5));
        svg += &format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"currentColor\">{}</text>",
            left - 8.0,
            middle + 4.5,
            escaped(&bar.name)
        );
        let (mean, spread) = bar.says;
        let std = spread.unwrap_or(0.0);
        let known = [bar.from, bar.to, mean, std].iter().all(|value| value.is_finite());
        let says = if known {
            let spread = spread.map_or(String::new(), |std| format!(" ± {std:.1}"));
            format!("{:.1}{spread}", (10.0 * mean).round() / 10.0 + 0.0).replace('-', "−")
        } else {
            "unknown".into()
        };
        svg += &format!(
            "<text x=\"{}\" y=\"{:.1}\" fill=\"currentColor\">{says}</text>",
            WIDTH - right + 8.0,
            middle + 4.5
        );
        if !known {
            continue;
        }
        svg += &format!(
            "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"currentColor\" stroke-width=\"1.5\"/>",
            at(bar.from.min(bar.to)),
            (at(bar.to) - at(bar.from)).abs().max(1.0),
            ROW - 8.0,
            css(bar.color),
            at(bar.to - std),
            at(bar.to + std)
        );
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_draws_what_is_known_and_says_what_is_not() {
        let bar = |to: f64| Bar { name: "a<b".into(), from: 0.0, to, says: (to, Some(1.0)), color: 0 };
        let svg = svg(&[bar(30.0), bar(f64::NAN), bar(-5.0)], "degrees");
        assert_eq!((svg.matches("<rect").count(), svg.matches("unknown").count()), (2, 1));
        assert!(!svg.contains("NaN") && svg.contains("a&lt;b"), "{svg}");
    }
}
