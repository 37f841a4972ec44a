//! The plain engine: candle tensors, one operation after the other, on any device.

use super::{Batch, Engine, MultiplyAdds, Report, check};
use crate::learning::{Lesson, Protocol, Schedule};
use crate::model::dynamics::Nudge;
use crate::model::{Model, Parameters, Settled};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};

/// Runs [`Protocol`] as it is written.
pub struct Plain {
    model: Model,
    protocol: Protocol,
    theta: Parameters,
    device: Device,
}

impl Plain {
    /// An engine holding `theta`, whose tensors lie on `device`.
    pub fn new(model: Model, protocol: Protocol, theta: Parameters, device: &Device) -> Self {
        let device = device.clone();
        Self { model, protocol, theta, device }
    }

    fn settle(&self, batch: &Batch) -> Result<(Tensor, Settled, Report)> {
        check(&self.model, &self.protocol, batch)?;
        let dtype = self.theta.forward[0].weight.dtype();
        let x = batch.x(dtype, &self.device)?;
        let settled = self.model.settle(&self.theta, &x)?;
        let report = report(&settled, &batch.labels)?;
        Ok((x, settled, report))
    }
}

impl Engine for Plain {
    fn train(&mut self, batch: &Batch, beta: f64) -> Result<Report> {
        let (x, settled, report) = self.settle(batch)?;
        let target = &batch.y(self.model.dims.output(), x.dtype(), &self.device)?;
        let lesson = Lesson::new(
            &self.model,
            &self.protocol,
            &self.theta,
            &x,
            Nudge { target, beta: beta.into() },
            &settled,
        );
        self.theta = self.protocol.rule.learn(&lesson, &mut |_| Ok(()))?;
        Ok(report)
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        Ok(self.settle(batch)?.2)
    }

    fn multiply_adds(&self, report: &Report) -> MultiplyAdds {
        multiply_adds(&self.theta, &self.model, &self.protocol, report)
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.theta.clone())
    }
}

/// See [`Engine::multiply_adds`].
pub(super) fn multiply_adds(
    theta: &Parameters,
    model: &Model,
    protocol: &Protocol,
    report: &Report,
) -> MultiplyAdds {
    let size = |tensor: &Tensor| tensor.elem_count() as f64;
    let (last, hidden) = match theta.forward.split_last() {
        Some((last, hidden)) => (size(&last.weight), hidden.iter().map(|l| size(&l.weight)).sum::<f64>()),
        None => (0.0, 0.0),
    };
    // Each second phase does all of this.
    let branches = protocol.nudging.signs().len() as f64;
    let images = report.images as f64;
    // Both directions in a step, or one of them; as much again for the updates, and the input weights in both.
    let steps = protocol.second_steps as f64;
    let step_share = 1.0 / model.settle.order.sweep() as f64;
    let updates = if protocol.rule.schedule() == Some(Schedule::Whole) { 1.0 } else { steps };
    let drives = if protocol.rule.continual() { steps } else { 0.0 };
    let step = 2.0 * hidden;
    MultiplyAdds {
        first: report.steps as f64 * step_share * step + report.images as f64 * last,
        second: images * branches * (steps * step_share * step + updates * (step + last) + drives * last),
    }
}

/// What the first phase showed of each image.
pub(super) fn report(settled: &Settled, labels: &[u8]) -> candle_core::Result<Report> {
    let (residual, two_steps) = (settled.residuals()?, settled.residuals_over_two_steps()?);
    let output = settled.state()[0].to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let mut report = Report { steps: settled.steps.iter().sum(), ..Report::default() };
    for (i, &label) in labels.iter().enumerate() {
        report.add_image(&output[i], label, residual[i], two_steps[i]);
    }
    Ok(report)
}
