//! The figures of the report, as SVG that takes its ink from the page around it.

use super::results::Spread;
use crate::study::figures::{color, register_fonts};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// A measured or published value with its spread.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How much, percent.
    pub y: f64,
    /// Standard deviation of y; 0 where unknown.
    pub std: f64,
}

impl Point {
    /// A point at x from a spread.
    pub fn new(x: f64, y: Spread) -> Self {
        Self { x, y: y.mean, std: y.std.unwrap_or(0.0) }
    }
}

/// The shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One hidden layer.
    Circle,
    /// Two.
    Square,
}

/// How a series looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its colour.
    pub color: usize,
    /// Its markers.
    pub shape: Shape,
    /// Hollow markers.
    pub hollow: bool,
}

/// Points of one kind.
pub struct Series {
    /// How it looks.
    pub look: Look,
    /// Joins points that are no farther apart in x than this.
    pub joined: Option<f64>,
    /// In the order they are joined.
    pub points: Vec<Point>,
}

/// An error over the epochs.
pub struct Line {
    /// Its colour.
    pub color: usize,
    /// Dashes.
    pub dashed: bool,
    /// What it is; empty where the page says it.
    pub label: String,
    /// In order of x.
    pub points: Vec<Point>,
}

/// An error of 0 cannot be shown on a logarithmic axis; nothing is lower than this.
const LEAST: f64 = 0.01;

/// Draws on a fresh SVG. Within a page it has no background, and its black becomes the text colour of the page;
/// alone it is black on white.
fn svg(
    size: (u32, u32),
    alone: bool,
    draw: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Result<()>,
) -> Result<String> {
    register_fonts()?;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    if alone {
        area.fill(&WHITE).map_err(undrawable)?;
    }
    draw(&area)?;
    area.present().map_err(undrawable)?;
    drop(area);
    Ok(if alone { text } else { text.replace("\"#000000\"", "\"currentColor\"") })
}

fn undrawable<E: std::fmt::Debug>(error: E) -> anyhow::Error {
    anyhow!("a figure cannot be drawn: {error:?}")
}

/// An axis of percentages, without a grid between its steps: logarithmic (1, 2, 5, 10 …) where its values span a
/// decade or more, else linear from 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Percent {
    range: Range<f64>,
    logarithmic: bool,
}

impl Percent {
    /// The axis that has room for these errors.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, LEAST);
        for value in values {
            (low, high) = (low.min(value.max(LEAST)), high.max(value));
        }
        let low = low.min(high);
        let logarithmic = high >= 10.0 * low;
        let up = |value: f64| steps().find(|step| *step >= value).unwrap_or(100.0);
        match logarithmic {
            true => {
                let start = steps().take_while(|step| *step <= low).last().unwrap_or(LEAST);
                Self { range: start..up(high), logarithmic }
            }
            false => {
                let step = up(high / 8.0);
                Self { range: 0.0..step * (high / step).ceil(), logarithmic }
            }
        }
    }

    /// "logarithmic" or "linear".
    pub fn name(&self) -> &'static str {
        if self.logarithmic { "logarithmic" } else { "linear" }
    }

    fn clamp(&self, value: f64) -> f64 {
        value.clamp(self.range.start, self.range.end)
    }
}

/// 1, 2 and 5 of each decade from [`LEAST`] to 100.
fn steps() -> impl Iterator<Item = f64> {
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0].into_iter()
}

impl Ranged for Percent {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let scale = |value: f64| if self.logarithmic { value.max(LEAST).ln() } else { value };
        let (low, high) = (scale(self.range.start), scale(self.range.end));
        let share = (scale(*value) - low) / (high - low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let Range { start, end } = self.range;
        if self.logarithmic {
            return steps().filter(|step| start <= *step && *step <= end).collect();
        }
        let step = steps().find(|step| *step >= end / 8.0).unwrap_or(20.0);
        (0..=(end / step).round() as usize).map(|i| i as f64 * step).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Percent {
    fn format_ext(&self, value: &f64) -> String {
        format!("{}", (value * 100.0).round() / 100.0)
    }
}

/// Test error against an angle in degrees, with an inset of the low errors where `inset` gives its ranges.
pub fn errors_by_angle(
    x_label: &str,
    x: Range<f64>,
    y: &Percent,
    series: &[Series],
    inset: Option<(Range<f64>, Range<f64>)>,
) -> Result<String> {
    svg((640, 420), false, |area| {
        errors_panel(area, x_label, x, y.clone(), series)?;
        if let Some((x, y)) = inset {
            let corner = area.clone().shrink((396, 176), (232, 186));
            errors_panel(&corner, "", x, Percent { range: y, logarithmic: false }, series)?;
        }
        Ok(())
    })
}

fn errors_panel(
    area: &DrawingArea<SVGBackend, Shift>,
    x_label: &str,
    x: Range<f64>,
    y: Percent,
    series: &[Series],
) -> Result<()> {
    let is_inset = x_label.is_empty();
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(if is_inset { 22 } else { 44 })
        .y_label_area_size(if is_inset { 34 } else { 56 })
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(undrawable)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.12)).axis_style(BLACK.mix(0.5));
    mesh.x_labels(if is_inset { 4 } else { 9 }).y_labels(if is_inset { 5 } else { 10 });
    mesh.x_label_formatter(&|x| format!("{x}")).label_style(("sans-serif", if is_inset { 12 } else { 15 }));
    if !is_inset {
        mesh.x_desc(x_label).y_desc("test error, %").axis_desc_style(("sans-serif", 16));
    }
    mesh.draw().map_err(undrawable)?;
    for line in series {
        let color = color(line.look.color);
        let inside: Vec<&Point> = (line.points.iter())
            .filter(|point| x.start <= point.x && point.x <= x.end && point.y <= y.range.end)
            .collect();
        let style = color.mix(if line.look.hollow { 0.45 } else { 1.0 }).stroke_width(2);
        let near = |pair: &&[&Point]| line.joined.is_some_and(|gap| pair[1].x - pair[0].x <= gap);
        for pair in inside.windows(2).filter(near) {
            let ends = pair.iter().map(|point| (point.x, y.clamp(point.y)));
            chart.draw_series([PathElement::new(ends.collect::<Vec<_>>(), style)]).map_err(undrawable)?;
        }
        for point in inside {
            let (low, high) = (y.clamp(point.y - point.std), y.clamp(point.y + point.std));
            let bar = PathElement::new(vec![(point.x, low), (point.x, high)], color.mix(0.6).stroke_width(2));
            chart.draw_series([bar]).map_err(undrawable)?;
            let style = if line.look.hollow { color.stroke_width(2) } else { color.filled() };
            let place = (point.x, y.clamp(point.y));
            let drawn = match line.look.shape {
                Shape::Circle => chart.draw_series([Circle::new(place, 5, style)]).map(drop),
                Shape::Square => {
                    let marker = EmptyElement::at(place) + Rectangle::new([(-4, -4), (5, 5)], style);
                    chart.draw_series([marker]).map(drop)
                }
            };
            drawn.map_err(undrawable)?;
        }
    }
    Ok(())
}

/// How a figure of errors over the epochs is made.
pub struct Frame {
    /// Width and height.
    pub size: (u32, u32),
    /// The last epoch of the axis.
    pub epochs: usize,
    /// The axis of errors.
    pub axis: Percent,
    /// What its errors are.
    pub y_label: &'static str,
    /// Whether it is a file of its own, with a legend in it.
    pub alone: bool,
}

/// Errors over the epochs: means, and bands of one standard deviation.
pub fn curves(frame: &Frame, lines: &[Line]) -> Result<String> {
    svg(frame.size, frame.alone, |area| {
        let labels = if frame.alone {
            lines.iter().map(|line| (line.color, &line.label[..])).collect()
        } else {
            vec![]
        };
        let (top, area) = area.split_vertically(LABEL * labels.len() as i32);
        draw_labels(&top, &labels)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(6)
            .margin_right(14)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(0.0..frame.epochs.max(1) as f64, frame.axis.clone())
            .map_err(undrawable)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .axis_style(BLACK.mix(0.5))
            .x_labels(6)
            .x_label_formatter(&|epoch| if epoch.fract() == 0.0 { format!("{epoch}") } else { String::new() })
            .label_style(("sans-serif", 14))
            .x_desc("epoch")
            .y_desc(frame.y_label)
            .draw()
            .map_err(undrawable)?;
        for Line { color: number, dashed, points, .. } in lines {
            let color = color(*number);
            let upper = points.iter().map(|point| (point.x, frame.axis.clamp(point.y + point.std)));
            let lower = points.iter().rev().map(|point| (point.x, frame.axis.clamp(point.y - point.std)));
            let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), color.mix(0.2));
            if points.iter().any(|point| point.std > 0.0) {
                chart.draw_series([band]).map_err(undrawable)?;
            }
            let means = points.iter().map(|point| (point.x, frame.axis.clamp(point.y)));
            let drawn = match dashed {
                true => {
                    chart.draw_series(DashedLineSeries::new(means, 5, 4, color.stroke_width(2))).map(drop)
                }
                false => chart.draw_series(LineSeries::new(means, color.stroke_width(2))).map(drop),
            };
            drawn.map_err(undrawable)?;
        }
        Ok(())
    })
}

/// Height of a line of a legend, pixels.
const LABEL: i32 = 22;

/// What lines of a colour are, one below the other.
fn draw_labels(area: &DrawingArea<SVGBackend, Shift>, labels: &[(usize, &str)]) -> Result<()> {
    for (i, (number, label)) in labels.iter().enumerate() {
        let y = LABEL * i as i32 + 12;
        let key = PathElement::new(vec![(64, y), (88, y)], color(*number).stroke_width(3));
        area.draw(&key).map_err(undrawable)?;
        let text = Text::new(label.to_string(), (96, y - 8), ("sans-serif", 15).into_font());
        area.draw(&text).map_err(undrawable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_logarithmic_where_errors_span_a_decade() {
        assert_eq!(Percent::of([2.0, 2.5, 90.0]), Percent { range: 2.0..100.0, logarithmic: true });
        assert_eq!(Percent::of([0.2, 1.9, 3.0]), Percent { range: 0.2..5.0, logarithmic: true });
        assert_eq!(Percent::of([2.0, 4.5]), Percent { range: 0.0..5.0, logarithmic: false });
        assert_eq!(Percent::of([0.0, 90.0]).range, 0.01..100.0);
        let none = Percent::of([]);
        assert!(none.range.start < none.range.end);
    }
}
