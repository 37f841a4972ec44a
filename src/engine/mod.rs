//! Engines run the two phases on minibatches. All state the same science; they differ in speed.
//!
//! [`plain`] is candle, step by step, on any device, and [`replicas`] the same for many networks at once;
//! [`cpu`] is the fast path for CPUs, [`cuda`] a kernel for GPUs.

pub mod cpu;
pub mod cuda;
pub mod plain;
pub mod replicas;

use crate::data::Batch;
use crate::learning::Protocol;
use crate::model::dynamics::Time;
use crate::model::{Model, Parameters, loss};
use anyhow::Result;
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

/// What the first phase of some images showed, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many images.
    pub images: usize,
    /// How many of them were classified wrongly (argmax s⁰ ≠ label).
    pub errors: usize,
    /// Σ ½‖y − s⁰‖² over the images.
    pub loss: f64,
    /// The largest |s_T − s_{T−1}| of any neuron.
    pub residual: f64,
    /// The largest |s_T − s_{T−2}| of any neuron: small beside `residual` in a cycle of period 2.
    pub residual_two_steps: f64,
    /// Σ steps of the first phase over the images.
    pub steps: usize,
    /// How many images have a neuron with |s_T − s_{T−1}| > [`SETTLED`].
    pub unsettled: usize,
}

/// A sample whose every neuron moved by no more than this in the last step counts as settled.
pub const SETTLED: f64 = 1e-2;

/// Whether states whose largest changes over the last one and two steps are these run in a cycle of period 2.
pub fn is_cycle(one_step: f64, two_steps: f64) -> bool {
    one_step > SETTLED && two_steps < 0.2 * one_step
}

impl Report {
    /// Adds what other images showed. NaN residuals stay NaN.
    pub fn add(&mut self, other: &Report) {
        self.images += other.images;
        self.errors += other.errors;
        self.loss += other.loss;
        self.residual = larger(self.residual, other.residual);
        self.residual_two_steps = larger(self.residual_two_steps, other.residual_two_steps);
        self.unsettled += other.unsettled;
        self.steps += other.steps;
    }

    /// Counts one image: its output s⁰, label, and largest last change over one and two steps.
    pub fn add_image(&mut self, output: &[f64], label: u8, residual: f64, two_steps: f64) {
        self.add(&Report {
            images: 1,
            errors: usize::from(loss::answer(output) != usize::from(label)),
            loss: loss::of_image(output, label),
            residual,
            residual_two_steps: two_steps,
            steps: 0,
            unsettled: usize::from(residual > SETTLED || residual.is_nan()),
        });
    }

    /// Error rate in percent.
    pub fn error_percent(&self) -> f64 {
        100.0 * self.errors as f64 / self.images as f64
    }

    /// Mean loss ½‖y − s⁰‖² an image.
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    /// Share of images that have not settled, in percent.
    pub fn unsettled_percent(&self) -> f64 {
        100.0 * self.unsettled as f64 / self.images as f64
    }

    /// Mean steps of the first phase.
    pub fn mean_steps(&self) -> f64 {
        self.steps as f64 / self.images as f64
    }

    /// Whether losses and residuals are numbers.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.residual.is_finite()
    }
}

/// The larger of two numbers, or NaN where one of them is.
pub fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

/// How many multiply-adds the two phases took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MultiplyAdds {
    /// Of the first phase.
    pub first: f64,
    /// Of the second, updates of the weights included.
    pub second: f64,
}

/// Checks that a minibatch and a protocol fit the model.
///
/// # Errors
/// As [`Batch::check`] and [`Protocol::check`].
fn check(model: &Model, protocol: &Protocol, batch: &Batch) -> Result<()> {
    protocol.check(model)?;
    Ok(batch.check(&model.dims)?)
}

/// Something that runs minibatches through a network it holds.
pub trait Engine: Send {
    /// Both phases on one minibatch with the given β: changes the weights, reports the first phase.
    ///
    /// # Errors
    /// As [`Batch::check`] and [`Protocol::check`], and what the device reports (no memory, a lost GPU).
    fn train(&mut self, batch: &Batch, beta: f64) -> Result<Report>;

    /// The first phase alone, weights untouched.
    ///
    /// # Errors
    /// As [`Batch::check`] and [`Protocol::check`], and what the device reports.
    fn evaluate(&mut self, batch: &Batch) -> Result<Report>;

    /// How many multiply-adds [`Engine::train`] did on the last minibatch, whose `report` this is; of these,
    /// [`Engine::evaluate`] does those of the first phase.
    fn multiply_adds(&self, report: &Report) -> MultiplyAdds;

    /// A copy of the weights as they are now.
    ///
    /// # Errors
    /// What the device reports.
    fn parameters(&self) -> Result<Parameters>;
}

/// Which engine runs the phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// The fused engine on a CPU where it has the rule, the plain one elsewhere.
    Auto,
    /// candle, step by step.
    Plain,
    /// The fast path for CPUs.
    Fused,
    /// Both phases in one CUDA kernel ([`cuda`]), which has never run on a GPU.
    Kernel,
}

/// Whether the fused engine has this: discrete time, and a rule that applies [`crate::learning::hebbian_update`] and
/// nothing else.
pub fn fusible(model: &Model, protocol: &Protocol) -> bool {
    model.dynamics.time == Time::Discrete && protocol.rule.schedule().is_some()
}

impl EngineKind {
    /// This where `device` has it, else the best that there is: for looking at a network on another device than it was
    /// trained on.
    pub fn available_on(self, device: &Device) -> Self {
        match self {
            EngineKind::Fused if !device.is_cpu() => EngineKind::Auto,
            EngineKind::Kernel if !device.is_cuda() => EngineKind::Auto,
            kind => kind,
        }
    }

    /// Whether the fused engine is meant: asked for, or the best there is.
    pub fn is_fused(self, model: &Model, protocol: &Protocol, device: &Device) -> bool {
        match self {
            EngineKind::Auto => device.is_cpu() && fusible(model, protocol),
            EngineKind::Plain | EngineKind::Kernel => false,
            EngineKind::Fused => true,
        }
    }
}

/// The engine for `kind` on `device`, holding `theta`.
///
/// # Errors
/// Where the fused engine is asked for on a device that is not a CPU, or the kernel on one that is not a GPU or for what
/// it cannot run.
pub fn build(
    kind: EngineKind,
    model: Model,
    protocol: Protocol,
    theta: Parameters,
    device: &Device,
) -> Result<Box<dyn Engine>> {
    if kind == EngineKind::Kernel {
        if !device.is_cuda() {
            anyhow::bail!(
                "training.engine = \"kernel\" runs on a GPU only: choose --device cuda, or engine = \"auto\""
            );
        }
        if let Some(why) = cuda::obstacle(&model, &protocol, theta.forward[0].weight.dtype()) {
            anyhow::bail!("training.engine = \"kernel\" {why}: choose engine = \"auto\"");
        }
        let hub = replicas::Hub::new(model, protocol, device.clone()).with_kernel(true);
        return Ok(Box::new(hub.join(theta)));
    }
    if !kind.is_fused(&model, &protocol, device) {
        return Ok(Box::new(plain::Plain::new(model, protocol, theta, device)));
    }
    if !device.is_cpu() {
        anyhow::bail!(
            "training.engine = \"fused\" runs on the CPU only: choose --device cpu, or engine = \"auto\""
        );
    }
    Ok(match theta.forward[0].weight.dtype() {
        DType::F64 => Box::new(cpu::Fused::<f64>::new(model, protocol, &theta)?),
        _ => Box::new(cpu::Fused::<f32>::new(model, protocol, &theta)?),
    })
}
