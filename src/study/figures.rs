//! The figures of Appendix E.6: −∇BPTT (solid) and Δ (dashed) over the second phase, as SVG and PNG.

use crate::learning::angle::Trace;
use crate::rng::{Purpose, stream};
use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Tensor};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use rand::seq::SliceRandom;
use std::sync::OnceLock;

/// How many neurons or synapses a panel shows.
const LINES: usize = 5;

/// Size of a panel, pixels.
const PANEL: (u32, u32) = (520, 400);

/// Colours that are told apart in print and by the colour-blind (mostly Okabe and Ito's).
pub const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(136, 96, 64),
    RGBColor(120, 120, 120),
];

/// A colour by number; a figure has no more series than there are.
pub fn color(number: usize) -> RGBColor {
    COLORS[number % COLORS.len()]
}

/// The same as CSS.
pub fn css(number: usize) -> String {
    let RGBColor(r, g, b) = color(number);
    format!("rgb({r} {g} {b})")
}

/// One neuron or synapse over time.
struct Line {
    descent: Vec<f64>,
    delta: Vec<f64>,
}

/// One layer.
struct Panel {
    title: String,
    lines: Vec<Line>,
}

/// A figure: one panel a layer, output first.
pub struct Figure {
    caption: String,
    panels: Vec<Panel>,
}

impl Figure {
    /// Δ_s(t) and −∇_s(t) of a few neurons of each layer, of the batch's first sample. `scale` is ε in real
    /// time, where the nudge has that factor and Δ_s follows −ε∇_s; 1 in discrete time.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn neurons(trace: &Trace, rule: &str, scale: f64) -> Result<Self> {
        let last = trace.first.len() - 1;
        let panels = (0..=last)
            .map(|n| {
                let row = |s: &Tensor| values(&s.narrow(0, 0, 1)?);
                let title =
                    if n == 0 { "output, s⁰".into() } else { format!("hidden layer s{}", superscript(n)) };
                let delta = trace.delta_s.iter().map(|s| row(&s[n])).collect::<Result<Vec<_>>>()?;
                let gradient =
                    trace.gradients.states.iter().map(|s| row(&s[n])).collect::<Result<Vec<_>>>()?;
                Ok(Panel { title, lines: lines(&delta, &gradient, scale, n) })
            })
            .collect::<Result<_>>()?;
        let gradient = if scale == 1.0 { "−∇s BPTT".into() } else { format!("−{scale}·∇s BPTT") };
        Ok(Self { caption: format!("neurons: {gradient} solid, Δs {rule} dashed"), panels })
    }

    /// Δ_θ(t) and −∇_θ(t) of a few synapses of each weight matrix.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn synapses(trace: &Trace, rule: &str) -> Result<Self> {
        let names: Vec<String> = trace.delta_theta[0].named().into_iter().map(|(name, _)| name).collect();
        let mut panels = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let Some(matrix) = name.strip_suffix(".weight") else { continue };
            let of = |all: &[crate::model::network::Parameters]| {
                all.iter().map(|theta| values(theta.named()[i].1)).collect::<Result<Vec<_>>>()
            };
            let (delta, gradient) = (of(&trace.delta_theta)?, of(&trace.gradients.parameters)?);
            panels.push(Panel { title: matrix.to_string(), lines: lines(&delta, &gradient, 1.0, 100 + i) });
        }
        Ok(Self { caption: format!("synapses: −∇θ BPTT solid, Δθ {rule} dashed"), panels })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (PANEL.0 * self.panels.len() as u32, PANEL.1 + 40)
    }

    /// The figure as SVG.
    ///
    /// # Errors
    /// Where it cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, self.size()).into_drawing_area())?;
        Ok(text)
    }

    /// The figure as PNG.
    ///
    /// # Errors
    /// Where it cannot be drawn.
    pub fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = self.size();
        let mut pixels = vec![255; (width * height * 3) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area())?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(bytes)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, plotters::coord::Shift>) -> Result<()> {
        register_fonts()?;
        self.draw_on(area).map_err(|error| anyhow!("a figure cannot be drawn: {error}"))
    }

    fn draw_on<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        area.fill(&WHITE)?;
        let area = area.titled(&self.caption, ("sans-serif", 20))?;
        for (panel, area) in self.panels.iter().zip(area.split_evenly((1, self.panels.len()))) {
            let all = panel.lines.iter().flat_map(|line| line.descent.iter().chain(&line.delta));
            let (low, high) = all.fold((0.0f64, 0.0f64), |(low, high), &v| (low.min(v), high.max(v)));
            let margin = 0.06 * (high - low).max(1e-12);
            let steps = panel.lines.first().map_or(1, |line| line.delta.len()).max(2);
            let mut chart = ChartBuilder::on(&area)
                .caption(&panel.title, ("sans-serif", 17))
                .margin(10)
                .x_label_area_size(40)
                .y_label_area_size(70)
                .build_cartesian_2d(0.0..(steps - 1) as f64, low - margin..high + margin)?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(BLACK.mix(0.08))
                .x_desc("t, steps")
                .x_labels(6)
                .y_labels(6)
                .x_label_formatter(&|t| format!("{t:.0}"))
                .y_label_formatter(&|v| short(if v.abs() < 1e-9 * (high - low) { 0.0 } else { *v }))
                .label_style(("sans-serif", 13))
                .draw()?;
            for (line, color) in panel.lines.iter().zip(COLORS) {
                let points = |values: &[f64]| -> Vec<(f64, f64)> {
                    values.iter().enumerate().map(|(t, &v)| (t as f64, v)).collect()
                };
                chart.draw_series(LineSeries::new(points(&line.descent), color.mix(0.55).stroke_width(2)))?;
                let dashes = DashedLineSeries::new(points(&line.delta), 7, 5, color.stroke_width(2));
                chart.draw_series(dashes)?;
            }
        }
        area.present()
    }
}

/// A number in few characters.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (0.01..1000.0).contains(&size) => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

fn superscript(n: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    n.to_string().bytes().map(|digit| DIGITS[usize::from(digit - b'0')]).collect()
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// Picks a few at random, the same for the same layer, among those whose gradient is not among the
/// smaller half (most input synapses see a black pixel and have none).
fn lines(delta: &[Vec<f64>], gradient: &[Vec<f64>], scale: f64, salt: usize) -> Vec<Line> {
    let count = gradient.first().map_or(0, Vec::len);
    let size = |i: usize| gradient.iter().map(|g| g[i].abs()).fold(0.0, f64::max);
    let mut candidates: Vec<usize> = (0..count).filter(|&i| size(i) > 0.0).collect();
    candidates.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    candidates.truncate((candidates.len() / 2).max(LINES));
    candidates.shuffle(&mut stream(0, Purpose::Figure, salt as u64));
    (candidates.into_iter().take(LINES))
        .map(|i| Line {
            descent: gradient.iter().map(|g| -scale * g[i]).collect(),
            delta: delta.iter().map(|d| d[i]).collect(),
        })
        .collect()
}

/// Text is drawn in DejaVu Sans, which has the Greek and the superscripts, wherever the program runs.
///
/// # Errors
/// Where the built-in font cannot be read.
pub fn register_fonts() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let registered = REGISTERED
        .get_or_init(|| register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()).is_ok());
    registered.then_some(()).context("the built-in font cannot be read")
}
