//! The figures of Appendix E.6: −∇BPTT (solid) and Δ (dashed) over the second phase.

use crate::charts::axis::{Scale, superscript};
use crate::charts::plot::{Chart, Look, Series};
use crate::learning::angle::Trace;
use crate::model::Parameters;
use crate::rng::{Purpose, stream};
use anyhow::Result;
use candle_core::{DType, Tensor};
use rand::seq::SliceRandom;

/// The number of neurons or synapses in a panel.
const LINES: usize = 5;

/// Δ_s(t) and −∇_s(t) of a few neurons of each layer, output first, of the batch's first sample. `scale` is ε in real
/// time, where the nudge has that factor and Δ_s follows −ε∇_s; 1 in discrete time.
///
/// # Errors
/// Only those of candle.
pub fn neurons(trace: &Trace, rule: &str, scale: f64) -> Result<Vec<Chart>> {
    let gradient = if scale == 1.0 { "−∇s BPTT".into() } else { format!("−{scale}·∇s BPTT") };
    let keys = [gradient, format!("Δs {rule}")];
    (0..trace.first.len())
        .map(|n| {
            let row = |s: &Tensor| values(&s.narrow(0, 0, 1)?);
            let title =
                if n == 0 { "output, s⁰".into() } else { format!("hidden layer, s{}", superscript(n)) };
            let delta = trace.delta_s.iter().map(|s| row(&s[n])).collect::<Result<Vec<_>>>()?;
            let gradient = trace.gradients.states.iter().map(|s| row(&s[n])).collect::<Result<Vec<_>>>()?;
            Ok(panel(&title, "change of s in a step", &keys, lines(&delta, &gradient, scale, n)))
        })
        .collect()
}

/// Δ_θ(t) and −∇_θ(t) of a few synapses of each weight matrix.
///
/// # Errors
/// Only those of candle.
pub fn synapses(trace: &Trace, rule: &str) -> Result<Vec<Chart>> {
    let keys = ["−∇θ BPTT".to_string(), format!("Δθ {rule}")];
    let names: Vec<String> = trace.delta_theta[0].named().into_iter().map(|(name, _)| name).collect();
    let mut panels = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let Some(matrix) = name.strip_suffix(".weight") else { continue };
        let of = |all: &[Parameters]| {
            all.iter().map(|theta| values(theta.named()[i].1)).collect::<Result<Vec<_>>>()
        };
        let (delta, gradient) = (of(&trace.delta_theta)?, of(&trace.gradients.parameters)?);
        panels.push(panel(matrix, "change of θ in a step", &keys, lines(&delta, &gradient, 1.0, 100 + i)));
    }
    Ok(panels)
}

/// A panel of such lines, around 0.
fn panel(title: &str, y_label: &str, keys: &[String; 2], lines: Vec<[Vec<f64>; 2]>) -> Chart {
    let over_time = |values: Vec<f64>| values.into_iter().enumerate().map(|(t, value)| (t as f64, value));
    let series = (lines.into_iter().enumerate())
        .flat_map(|(i, pair)| {
            let looks = [Look::line(i, 0), Look::line(i, 1)];
            pair.into_iter().zip(looks).map(|(values, look)| Series::line("", look, over_time(values)))
        })
        .collect();
    let mut chart = Chart::new((title, title), "t, steps", (y_label, Scale::Linear), series);
    let (low, high) = chart.y.range;
    chart.y.range = (low.min(0.0), high.max(0.0));
    let looks = [0, 1].map(|dash| Look { dash, ..Look::default() });
    chart.keys = keys.iter().cloned().zip(looks).collect();
    chart
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// −∇ and Δ of a few, picked at random, always the same for a layer, among those whose gradient is not in the smaller
/// half (most input synapses see a black pixel and have none).
fn lines(delta: &[Vec<f64>], gradient: &[Vec<f64>], scale: f64, salt: usize) -> Vec<[Vec<f64>; 2]> {
    let count = gradient.first().map_or(0, Vec::len);
    let size = |i: usize| gradient.iter().map(|g| g[i].abs()).fold(0.0, f64::max);
    let mut candidates: Vec<usize> = (0..count).filter(|&i| size(i) > 0.0).collect();
    candidates.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    candidates.truncate((candidates.len() / 2).max(LINES));
    candidates.shuffle(&mut stream(0, Purpose::Figure, salt as u64));
    (candidates.into_iter().take(LINES))
        .map(|i| [gradient.iter().map(|g| -scale * g[i]).collect(), delta.iter().map(|d| d[i]).collect()])
        .collect()
}
