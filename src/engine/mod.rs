//! Engines run the two phases on minibatches. All compute the same; they differ in speed.
//!
//! [`plain`] is candle, step by step, on any device, and [`replicas`] the same for many networks at once;
//! [`cpu`] is the fast path for CPUs, [`cuda`] a kernel for GPUs.

pub mod cpu;
pub mod cuda;
pub mod plain;
pub mod replicas;

use crate::data::{Batch, Dataset};
use crate::learning::Learning;
use crate::model::synapse::Ledger;
use crate::model::{Loss, Model, Network, Parameters};
use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// The outcome of the first phase for some images, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The count of images.
    pub images: usize,
    /// The count of wrongly classified images (argmax s⁰ ≠ label).
    pub errors: usize,
    /// Σ ℓ over the images.
    pub loss: f64,
    /// The largest |s_T − s_{T−1}| of any neuron.
    pub residual: f64,
    /// The largest |s_T − s_{T−2}| of any neuron: small beside `residual` in a cycle of period 2.
    pub residual_two_steps: f64,
    /// Σ steps of the first phase over the images.
    pub steps: usize,
    /// The count of images that have a neuron with |s_T − s_{T−1}| > [`SETTLED`].
    pub unsettled: usize,
}

/// The bound for settled images: every neuron has moved by at most this much in the last step.
pub const SETTLED: f64 = 1e-2;

/// True for a cycle of period 2, judged by the largest changes of the states over the last one and two steps.
pub fn is_cycle(one_step: f64, two_steps: f64) -> bool {
    one_step > SETTLED && two_steps < 0.2 * one_step
}

impl Report {
    /// Adds the outcome of other images. NaN residuals stay NaN.
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
    ///
    /// # Errors
    /// Those of the loss.
    pub fn add_image(
        &mut self,
        loss: Loss,
        output: &[f64],
        label: u8,
        residual: f64,
        two_steps: f64,
    ) -> candle_core::Result<()> {
        self.add(&Report {
            images: 1,
            errors: usize::from(loss.answer(output) != usize::from(label)),
            loss: loss.of_image(output, label)?,
            residual,
            residual_two_steps: two_steps,
            steps: 0,
            unsettled: usize::from(residual > SETTLED || residual.is_nan()),
        });
        Ok(())
    }

    /// Error rate in percent.
    pub fn error_percent(&self) -> f64 {
        100.0 * self.errors as f64 / self.images as f64
    }

    /// Mean loss ℓ of an image.
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

    /// True where losses and residuals are finite.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.residual.is_finite()
    }
}

/// The larger of two numbers, or NaN where either is.
pub fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a >= b { a } else { b }
}

/// The multiply-adds of the two phases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MultiplyAdds {
    /// Of the first phase.
    pub first: f64,
    /// Of the second, updates of the weights included.
    pub second: f64,
}

/// The job of an engine.
#[derive(Clone, Debug)]
pub struct Job {
    /// Dynamics, first phase, loss and synapses.
    pub model: Model,
    /// The rule and its settings.
    pub learning: Learning,
    /// The device to compute on.
    pub device: Device,
}

impl Job {
    /// Checks that the rule and the minibatch fit the network.
    ///
    /// # Errors
    /// As [`Batch::check`] and [`Learning::check`].
    fn check(&self, network: &Network, batch: &Batch) -> Result<()> {
        self.learning.check(&self.model, network)?;
        Ok(batch.check(&network.dims)?)
    }
}

/// The reason why an engine cannot run a job: the end of a sentence that begins with the engine's name.
pub type Why = String;

/// The moment of training at which a minibatch is learnt.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// β.
    pub beta: f64,
    /// Epochs done; may be fractional.
    pub epochs: f64,
}

/// Something that runs minibatches through a network it holds.
pub trait Engine: Send {
    /// Runs both phases on one minibatch: changes the weights, reports the first phase.
    ///
    /// # Errors
    /// As [`Batch::check`] and [`Learning::check`], and what the device reports (no memory, a lost GPU).
    fn train_at(&mut self, batch: &Batch, turn: Turn) -> Result<Report>;

    /// Learns a minibatch with this β, at epoch 0.
    ///
    /// # Errors
    /// As [`Engine::train_at`].
    fn train(&mut self, batch: &Batch, beta: f64) -> Result<Report> {
        self.train_at(batch, Turn { beta, epochs: 0.0 })
    }

    /// The number of minibatches that [`Engine::train_ahead`] is best given at once: 1 unless the engine would wait
    /// for each.
    fn stride(&self) -> usize {
        1
    }

    /// Learns minibatches of the training set one after another: the numbers of their images, and their turns. The
    /// result does not depend on how many there are at once. Returns a report for each.
    ///
    /// # Errors
    /// As [`Engine::train_at`].
    fn train_ahead(&mut self, dataset: &Arc<Dataset>, ahead: &[(&[u32], Turn)]) -> Result<Vec<Report>> {
        let mut batch = Batch::default();
        let mut learn = |&(indices, turn): &(&[u32], Turn)| {
            dataset.train.gather(indices, &mut batch);
            self.train_at(&batch, turn)
        };
        ahead.iter().map(&mut learn).collect()
    }

    /// Runs the first phase alone; the weights stay.
    ///
    /// # Errors
    /// As [`Engine::train_at`].
    fn evaluate(&mut self, batch: &Batch) -> Result<Report>;

    /// The multiply-adds of [`Engine::train`] on the last minibatch, given its `report`; [`Engine::evaluate`] does
    /// those of the first phase only.
    fn multiply_adds(&self, report: &Report) -> MultiplyAdds;

    /// A copy of the weights as they are now.
    ///
    /// # Errors
    /// What the device reports.
    fn parameters(&self) -> Result<Parameters>;

    /// The memory of the synapses, by name; empty where they are ideal.
    ///
    /// # Errors
    /// What the device reports.
    fn memory(&self) -> Result<Vec<(String, Tensor)>>;

    /// Restores the memory that [`Engine::memory`] has returned.
    ///
    /// # Errors
    /// Names the tensor that is missing or of another shape.
    fn recall(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()>;

    /// Totals of the changes of each array of synapses since [`Engine::clear_ledger`], by the number of the tensor;
    /// `None` where they are not counted. They are part of [`Engine::memory`].
    fn ledger(&self) -> Option<Vec<Ledger>> {
        None
    }

    /// Sets the totals of [`Engine::ledger`] to zero.
    fn clear_ledger(&mut self) {}
}

/// The kinds of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// The fused engine on a CPU, and the kernel on a GPU, where they have all that is asked for; else the plain one.
    Auto,
    /// candle, step by step.
    Plain,
    /// The fast path for CPUs.
    Fused,
    /// Both phases of many minibatches in one CUDA kernel ([`cuda`]).
    Kernel,
}

impl EngineKind {
    /// This engine where `device` has it, else the best one there: for looking at a network on another device than it
    /// was trained on.
    pub fn available_on(self, device: &Device) -> Self {
        match self {
            EngineKind::Fused if !device.is_cpu() => EngineKind::Auto,
            EngineKind::Kernel if !device.is_cuda() => EngineKind::Auto,
            kind => kind,
        }
    }

    /// Checks that this engine can run the job on the device that it needs.
    ///
    /// # Errors
    /// Why not.
    pub fn supports(self, network: &Network, job: &Job, dtype: DType) -> Result<(), Why> {
        match self {
            EngineKind::Auto | EngineKind::Plain => Ok(()),
            EngineKind::Fused => cpu::supports(network, job),
            EngineKind::Kernel => cuda::supports(network, job, dtype),
        }
    }

    /// The engine to use: this one, or the best for `Auto`.
    ///
    /// # Errors
    /// Where an engine is asked for that cannot run it, and why not.
    pub fn chosen(self, network: &Network, job: &Job, dtype: DType) -> Result<Self, Why> {
        match self {
            EngineKind::Auto => {
                let fast = if job.device.is_cuda() { EngineKind::Kernel } else { EngineKind::Fused };
                Ok(fast.chosen(network, job, dtype).unwrap_or(EngineKind::Plain))
            }
            EngineKind::Fused if !job.device.is_cpu() => Err("runs on the CPU only".into()),
            EngineKind::Kernel if !job.device.is_cuda() => Err("runs on a GPU only".into()),
            kind => kind.supports(network, job, dtype).map(|()| kind),
        }
    }
}

/// The error for an engine of this kind that cannot run the job.
pub fn refused(kind: EngineKind, why: &Why) -> anyhow::Error {
    anyhow!("training.engine = {} {why}: choose engine = \"auto\"", serde_json::json!(kind))
}

/// Builds the engine of this kind, holding `theta`.
///
/// # Errors
/// Where it cannot run what is asked for.
pub fn build(kind: EngineKind, job: Job, theta: Parameters) -> Result<Box<dyn Engine>> {
    let dtype = theta.dtype();
    Ok(match kind.chosen(&theta.network, &job, dtype) {
        Err(why) => return Err(refused(kind, &why)),
        // On a GPU a run alone is a replica alone.
        Ok(_) if job.device.is_cuda() && replicas::supports(&theta.network, &job).is_ok() => {
            Box::new(replicas::Hub::new(job).with_engine(kind).join(theta))
        }
        Ok(EngineKind::Fused) if dtype == DType::F64 => Box::new(cpu::Fused::<f64>::new(job, &theta)?),
        Ok(EngineKind::Fused) => Box::new(cpu::Fused::<f32>::new(job, &theta)?),
        Ok(_) => Box::new(plain::Plain::new(job, theta)?),
    })
}
