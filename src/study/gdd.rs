//! The gradient-descending dynamics of one batch (Appendix E.6): a trace, a summary, and figures.

use super::figures;
use crate::base::made::Made;
use crate::base::output::usage;
use crate::charts::plot::Style;
use crate::charts::saved;
use crate::config::Config;
use crate::data::{Batch, Split};
use crate::learning::angle::Trace;
use crate::model::Parameters;
use crate::model::dynamics::Time;
use crate::run::angles;
use crate::telemetry::tensorboard::EventFile;
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// Runs both phases and BPTT on the `count` training images from number `index`, in file order.
///
/// # Errors
/// Where there are not so many images, the rule has no Hebbian updates, or K > T.
pub fn record(
    config: &Config,
    theta: &Parameters,
    split: &Split,
    index: usize,
    count: usize,
) -> Result<(Batch, Trace)> {
    if count == 0 || index.checked_add(count).is_none_or(|end| end > split.len()) {
        usage!("--index {index} and --batch-size {count} go beyond the {} training images", split.len());
    }
    if !config.learning.rule.is_nudged() {
        bail!(
            "rule = \"{}\" follows a gradient: it has no steps of a second phase that could be compared",
            config.learning.rule.name()
        );
    }
    let indices: Vec<u32> = (index..index + count).map(|i| i as u32).collect();
    angles::record(config, theta, split, &indices)
}

/// `loss`, `angle_total_degrees`, `angle_per_matrix_degrees`, `sign_match_total`, `psi_per_pair_degrees`.
///
/// # Errors
/// Only those of candle.
pub fn summary(theta: &Parameters, trace: &Trace) -> Result<Value> {
    let comparison = trace.compare()?;
    let per_matrix: serde_json::Map<String, Value> =
        comparison.per_matrix_degrees.into_iter().map(|(name, angle)| (name, json!(angle))).collect();
    Ok(json!({
        "loss": trace.loss,
        "angle_total_degrees": comparison.total_degrees,
        "angle_per_matrix_degrees": per_matrix,
        "sign_match_total": comparison.sign_match,
        "psi_per_pair_degrees": theta.psi_degrees()?,
    }))
}

/// Writes `summary.json`, the figures of neurons and synapses, and the same pictures for TensorBoard, into `folder`;
/// and, given the trace's `batch`, `trace.safetensors` with every state, update and gradient, step by step.
///
/// # Errors
/// Names what cannot be written, and what is there and somebody else's.
pub fn write(
    config: &Config,
    theta: &Parameters,
    trace: &Trace,
    batch: Option<&Batch>,
    folder: &Path,
    style: Style,
) -> Result<()> {
    let mut made = Made::default();
    let text = serde_json::to_string_pretty(&summary(theta, trace)?)? + "\n";
    made.add(folder.join("summary.json"), text);
    let rate = |eta: &f64| if *eta == 0.0 { "0".into() } else { format!("{eta:e}") };
    let mut rates: Vec<String> = config.learning.learning_rates.iter().map(rate).collect();
    rates.dedup();
    let rule = format!("{} (η = {})", config.learning.rule.title, rates.join(", "));
    let scale = if config.network.time == Time::Real { config.network.epsilon } else { 1.0 };
    let figures =
        [("neurons", figures::neurons(trace, &rule, scale)?), ("synapses", figures::synapses(trace, &rule)?)];
    for (name, charts) in &figures {
        saved::save(&mut made, folder, name, charts, style)?;
    }
    if let Some(batch) = batch {
        made.add(folder.join("trace.safetensors"), trace_file(config, theta, batch, trace)?);
    }
    made.write()?;
    let mut events = EventFile::create(folder, None)?;
    for (name, charts) in &figures {
        events.image(&format!("gdd/{name}"), &saved::picture(charts)?, 0)?;
    }
    events.flush()
}

/// All of it as a safetensors file.
fn trace_file(config: &Config, theta: &Parameters, batch: &Batch, trace: &Trace) -> Result<Vec<u8>> {
    let mut case = summary(theta, trace)?;
    case["config"] = serde_json::to_value(config)?;
    let metadata = HashMap::from([("case".to_string(), case.to_string())]);
    let tensors = tensors(config, theta, batch, trace)?;
    Ok(safetensors::serialize(tensors.iter().map(|(name, tensor)| (name, tensor)), Some(metadata))?)
}

/// Everything, named as in the golden cases.
fn tensors(
    config: &Config,
    theta: &Parameters,
    batch: &Batch,
    trace: &Trace,
) -> Result<Vec<(String, Tensor)>> {
    let rows = batch.labels.len();
    let shape = (rows, batch.images.len() / rows);
    let mut all = vec![
        ("input.bytes".to_string(), Tensor::from_slice(&batch.images, shape, &Device::Cpu)?),
        ("input.labels".to_string(), Tensor::from_slice(&batch.labels, rows, &Device::Cpu)?),
    ];
    let mut add = |prefix: String, parameters: Option<&Parameters>, states: &[Tensor], state: &str| {
        for (name, tensor) in parameters.iter().flat_map(|p| p.named()) {
            all.push((format!("{prefix}{name}"), tensor.clone()));
        }
        for (n, s) in states.iter().enumerate() {
            all.push((format!("{prefix}{state}{n}"), s.clone()));
        }
    };
    add(String::new(), Some(theta), &[], "");
    add("first.".into(), None, &trace.first, "state.");
    for t in 0..trace.states.len() {
        add(format!("second.{t}."), None, &trace.states[t], "state.");
        add(format!("second.{t}.update."), Some(&trace.delta_theta[t]), &trace.delta_s[t], "state.");
        let gradients = &trace.gradients;
        add(format!("bptt.{t}."), Some(&gradients.parameters[t]), &gradients.states[t], "state.");
    }
    if config.learning.rule.is_continual() {
        add("final.".into(), Some(&trace.theta), &[], "");
    }
    Ok(all)
}
