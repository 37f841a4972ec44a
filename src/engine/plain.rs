//! The plain engine: candle tensors, one operation after the other, on any device.

use super::{Batch, Engine, Job, MultiplyAdds, Report, Turn};
use crate::learning::{Lesson, Memory, Schedule};
use crate::model::noise::Moment;
use crate::model::synapse::{self, Ledger};
use crate::model::{Connection, Loss, Parameters, Settled};
use anyhow::Result;
use candle_core::Tensor;
use std::collections::HashMap;

/// The reference engine, which computes everything as the equations are written.
pub struct Plain {
    job: Job,
    theta: Parameters,
    memory: Memory,
}

impl Plain {
    /// An engine holding `theta`, whose tensors lie on the device of the job.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn new(job: Job, theta: Parameters) -> Result<Self> {
        let memory = Memory::new(&job.model, &theta)?;
        Ok(Self { job, theta, memory })
    }

    fn settle(&self, batch: &Batch) -> Result<(Tensor, Settled, Report)> {
        let Self { job, theta, .. } = self;
        job.check(&theta.network, batch)?;
        let x = batch.x_for(theta)?;
        let settled = job.model.settle(theta, &x)?;
        let report = report(job.model.loss, &settled, &batch.labels)?;
        Ok((x, settled, report))
    }
}

impl Engine for Plain {
    fn train_at(&mut self, batch: &Batch, Turn { beta, epochs }: Turn) -> Result<Report> {
        self.memory.program(&self.job.model.synapse, &mut self.theta)?;
        self.job.model.noise.begin(Moment::Training(self.memory.now()));
        let (x, settled, report) = self.settle(batch)?;
        let Self { job: Job { model, learning, .. }, theta, memory } = self;
        let target = batch.y_for(theta)?;
        let nudge = model.nudge(&target, beta);
        let lesson = Lesson::new(model, learning, theta, &x, nudge, &settled).after(epochs);
        let learnt = lesson.learn(memory, &mut |_| Ok(()))?;
        if model.noise.is_random() {
            memory.tick();
        }
        synapse::book_minibatch(&model.synapse, theta, &learnt)?;
        *theta = learnt;
        Ok(report)
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        self.job.model.noise.begin(Moment::Test(self.memory.now()));
        Ok(self.settle(batch)?.2)
    }

    fn multiply_adds(&self, report: &Report) -> MultiplyAdds {
        multiply_adds(&self.theta, &self.job, report)
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.theta.clone())
    }

    fn memory(&self) -> Result<Vec<(String, Tensor)>> {
        let ledger = synapse::saved_ledger(&self.job.model.synapse)?;
        Ok(self.memory.named().into_iter().chain(ledger).collect())
    }

    fn recall(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.memory.recall(tensors, &self.theta)?;
        Ok(synapse::recall_ledger(&self.job.model.synapse, tensors)?)
    }

    fn ledger(&self) -> Option<Vec<Ledger>> {
        self.job.model.synapse.ledger().map(|book| book.clone())
    }

    fn clear_ledger(&mut self) {
        if let Some(mut book) = self.job.model.synapse.ledger() {
            book.clear();
        }
    }
}

/// See [`Engine::multiply_adds`].
pub(super) fn multiply_adds(theta: &Parameters, job: &Job, report: &Report) -> MultiplyAdds {
    let Job { model, learning, .. } = job;
    let network = &theta.network;
    let size = |c: &Connection| match c.convolution {
        Some(convolution) => convolution.multiply_adds() as f64,
        None => (network.dims.width(c.from) * network.dims.width(c.to)) as f64,
    };
    let of_input = |c: &&Connection| c.from > theta.depth();
    // What the input delivers once, and what all others do in a step.
    let input: f64 = network.connections().iter().filter(of_input).map(size).sum();
    let step: f64 = network.connections().iter().filter(|c| !of_input(c)).map(size).sum();
    // Each second phase does all of this.
    let branches = learning.nudging.signs().len() as f64;
    let images = report.images as f64;
    // As much again as a step for the updates, and the input weights in both.
    let steps = learning.K as f64;
    let step_share = 1.0 / model.settle.order.sweep() as f64;
    let updates = if learning.rule.schedule() == Some(Schedule::Whole) { 1.0 } else { steps };
    let drives = if learning.rule.is_continual() { steps } else { 0.0 };
    MultiplyAdds {
        first: report.steps as f64 * step_share * step + images * input,
        second: images * branches * (steps * step_share * step + updates * (step + input) + drives * input),
    }
}

/// The report of a first phase.
///
/// # Errors
/// Those of the loss, and of candle.
pub(crate) fn report(loss: Loss, settled: &Settled, labels: &[u8]) -> candle_core::Result<Report> {
    report_of(loss, &settled.outcome()?.to_vec2()?, &settled.steps, labels)
}

/// The report of images with these rows of [`Settled::outcome`], after so many steps each.
///
/// # Errors
/// Those of the loss.
pub(super) fn report_of(
    loss: Loss,
    outcome: &[Vec<f64>],
    steps: &[usize],
    labels: &[u8],
) -> candle_core::Result<Report> {
    let mut report = Report { steps: steps.iter().sum(), ..Report::default() };
    for (row, &label) in outcome.iter().zip(labels) {
        let [output @ .., residual, two_steps] = &row[..] else { continue };
        report.add_image(loss, output, label, *residual, *two_steps)?;
    }
    Ok(report)
}
