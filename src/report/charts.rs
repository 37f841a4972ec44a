//! The figures of the report, as SVG that takes its ink from the page around it.

use super::Spread;
use crate::study::figures::{COLORS, register_fonts};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// A colour by number; a figure has no more series than there are.
pub fn color(number: usize) -> RGBColor {
    COLORS[number % COLORS.len()]
}

/// A colour as CSS.
pub fn css(number: usize) -> String {
    let RGBColor(r, g, b) = color(number);
    format!("rgb({r} {g} {b})")
}

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

/// Points of one kind.
pub struct Series {
    /// Its colour.
    pub color: usize,
    /// Hollow markers, for what was published.
    pub hollow: bool,
    /// Whether to join the points.
    pub joined: bool,
    /// In the order they are joined.
    pub points: Vec<Point>,
}

/// A test error that is 0 cannot be shown on a logarithmic axis; nothing is lower than this.
const LEAST: f64 = 0.01;

/// Draws on a fresh SVG without background, whose black becomes the text colour of the page.
fn svg(size: (u32, u32), draw: impl FnOnce(&DrawingArea<SVGBackend, Shift>) -> Result<()>) -> Result<String> {
    register_fonts()?;
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&area)?;
    area.present().map_err(undrawable)?;
    drop(area);
    Ok(text.replace("\"#000000\"", "\"currentColor\""))
}

fn undrawable<E: std::fmt::Debug>(error: E) -> anyhow::Error {
    anyhow!("a figure cannot be drawn: {error:?}")
}

/// An axis of percentages: 1, 2, 5, 10 … without a grid between.
struct Percent(Range<f64>);

impl Ranged for Percent {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (low, high) = (self.0.start.ln(), self.0.end.ln());
        let share = (value.max(LEAST).ln() - low) / (high - low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        steps.into_iter().filter(|step| self.0.contains(step)).collect()
    }

    fn range(&self) -> Range<f64> {
        self.0.clone()
    }
}

impl ValueFormatter<f64> for Percent {
    fn format_ext(&self, value: &f64) -> String {
        format!("{value}")
    }
}

/// Test error on a logarithmic axis against an angle in degrees, with an inset of the low errors where
/// `inset` gives its ranges.
pub fn errors_by_angle(
    x_label: &str,
    x: Range<f64>,
    series: &[Series],
    inset: Option<(Range<f64>, Range<f64>)>,
) -> Result<String> {
    svg((640, 420), |area| {
        errors_panel(area, x_label, x, Percent(1.5..100.0), series)?;
        if let Some((x, y)) = inset {
            let corner = area.clone().shrink((396, 176), (232, 186));
            errors_panel(&corner, "", x, y, series)?;
        }
        Ok(())
    })
}

fn errors_panel<Y>(
    area: &DrawingArea<SVGBackend, Shift>,
    x_label: &str,
    x: Range<f64>,
    y: Y,
    series: &[Series],
) -> Result<()>
where
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let is_inset = x_label.is_empty();
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .x_label_area_size(if is_inset { 22 } else { 44 })
        .y_label_area_size(if is_inset { 34 } else { 56 })
        .build_cartesian_2d(x.clone(), y)
        .map_err(undrawable)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.12)).axis_style(BLACK.mix(0.5));
    mesh.x_labels(if is_inset { 4 } else { 9 }).y_labels(if is_inset { 5 } else { 10 });
    mesh.x_label_formatter(&|x| format!("{x}")).label_style(("sans-serif", if is_inset { 12 } else { 15 }));
    if !is_inset {
        mesh.x_desc(x_label).y_desc("test error, %").axis_desc_style(("sans-serif", 16));
    }
    mesh.draw().map_err(undrawable)?;
    let range = chart.y_range();
    for line in series {
        let color = color(line.color);
        let inside: Vec<&Point> = (line.points.iter())
            .filter(|point| x.start <= point.x && point.x <= x.end && point.y <= range.end.max(range.start))
            .collect();
        if line.joined {
            let points = inside.iter().map(|point| (point.x, point.y.max(LEAST)));
            let style = color.mix(if line.hollow { 0.45 } else { 1.0 }).stroke_width(2);
            chart.draw_series(LineSeries::new(points, style)).map_err(undrawable)?;
        }
        for point in inside {
            let (low, high) = ((point.y - point.std).max(range.start), (point.y + point.std).min(range.end));
            let bar = PathElement::new(vec![(point.x, low), (point.x, high)], color.mix(0.6).stroke_width(2));
            chart.draw_series([bar]).map_err(undrawable)?;
            let style = if line.hollow { color.stroke_width(2) } else { color.filled() };
            chart.draw_series([Circle::new((point.x, point.y.max(LEAST)), 5, style)]).map_err(undrawable)?;
        }
    }
    Ok(())
}

/// Train (dashed) and test (solid) error over the epochs on a logarithmic axis: means, and bands of one
/// standard deviation.
pub fn curves(epochs: usize, train: &[Point], test: &[Point]) -> Result<String> {
    svg((360, 260), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(12)
            .x_label_area_size(34)
            .y_label_area_size(40)
            .build_cartesian_2d(0.0..epochs.max(1) as f64, Percent(0.1..100.0))
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
            .draw()
            .map_err(undrawable)?;
        for (points, color, dashed) in [(train, color(1), true), (test, color(0), false)] {
            let clamped = |y: f64| y.clamp(0.1, 100.0);
            let upper = points.iter().map(|point| (point.x, clamped(point.y + point.std)));
            let lower = points.iter().rev().map(|point| (point.x, clamped(point.y - point.std)));
            let band = Polygon::new(upper.chain(lower).collect::<Vec<_>>(), color.mix(0.2));
            if points.iter().any(|point| point.std > 0.0) {
                chart.draw_series([band]).map_err(undrawable)?;
            }
            let means = points.iter().map(|point| (point.x, clamped(point.y)));
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
