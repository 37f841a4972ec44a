//! The plain engine: candle tensors, one operation after the other, on any device.

use super::{Batch, Engine, Report, Work};
use crate::dynamics::{Dynamics, Nudge};
use crate::learning::{Protocol, Rule};
use crate::network::Parameters;
use crate::reference::{bptt, rbp};
use anyhow::Result;
use candle_core::{D, DType, Device, Tensor};

/// Runs [`Protocol`] as it is written.
pub struct Plain {
    dynamics: Dynamics,
    protocol: Protocol,
    theta: Parameters,
    device: Device,
}

impl Plain {
    /// An engine holding `theta`, whose tensors lie on `device`.
    pub fn new(dynamics: Dynamics, protocol: Protocol, theta: Parameters, device: &Device) -> Self {
        let device = device.clone();
        Self { dynamics, protocol, theta, device }
    }

    fn first_phase(&self, batch: &Batch) -> Result<(Tensor, Vec<Tensor>, Report)> {
        let dtype = self.theta.forward[0].weight.dtype();
        let x = images(batch, dtype, &self.device)?;
        let ([older, old, s], steps) = self.protocol.first_phase(&self.dynamics, &self.theta, &x)?;
        let mut report = report(&s, &old, &older, &batch.labels)?;
        report.steps = steps.iter().sum();
        Ok((x, s, report))
    }
}

impl Engine for Plain {
    fn train(&mut self, batch: &Batch, beta: f64) -> Result<Report> {
        let (x, s_star, report) = self.first_phase(batch)?;
        let target = &one_hot(batch, s_star[0].dim(1)?, x.dtype(), &self.device)?;
        let (dynamics, protocol, theta) = (&self.dynamics, &self.protocol, &self.theta);
        let gradients = match protocol.rule {
            Rule::Bptt => Some(bptt::bptt(dynamics, protocol, theta, &x, target)?),
            Rule::Rbp => Some(rbp::rbp(dynamics, protocol, theta, &x, target, &s_star)?),
            _ => None,
        };
        if let Some(gradients) = gradients {
            self.theta = theta.plus(&gradients.total()?, |n| -protocol.learning_rates[n])?;
            return Ok(report);
        }
        self.theta = self.protocol.second_phase(
            &self.dynamics,
            &self.theta,
            &x,
            Nudge { target, beta: beta.into() },
            &s_star,
            |_| Ok(()),
        )?;
        Ok(report)
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        Ok(self.first_phase(batch)?.2)
    }

    fn multiply_adds(&self, report: &Report) -> Work {
        multiply_adds(&self.theta, &self.protocol, report)
    }

    fn parameters(&self) -> Result<Parameters> {
        Ok(self.theta.clone())
    }
}

/// See [`Engine::multiply_adds`].
pub(super) fn multiply_adds(theta: &Parameters, protocol: &Protocol, report: &Report) -> Work {
    let size = |tensor: &Tensor| tensor.elem_count() as f64;
    let (last, hidden) = match theta.forward.split_last() {
        Some((last, hidden)) => (size(&last.weight), hidden.iter().map(|l| size(&l.weight)).sum::<f64>()),
        None => (0.0, 0.0),
    };
    let (images, steps) = (report.images as f64, protocol.second_steps as f64);
    // Both directions in a step; as much again for the updates, and the input weights in both.
    let updates = if protocol.rule == Rule::Ep { 1.0 } else { steps };
    let drives = if protocol.rule.continual() { steps } else { 0.0 };
    let step = 2.0 * hidden;
    Work {
        first: report.steps as f64 * step + images * last,
        second: images * (steps * step + updates * (step + last) + drives * last),
    }
}

/// x = byte/255 as (B, d_in).
///
/// # Errors
/// Only those of candle.
pub fn images(batch: &Batch, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
    let rows = batch.labels.len();
    let shape = (rows, batch.images.len() / rows.max(1));
    Tensor::from_slice(&batch.images, shape, device)?.to_dtype(dtype)?.affine(1.0 / 255.0, 0.0)
}

/// y, one-hot (B, classes).
///
/// # Errors
/// Only those of candle.
pub fn one_hot(batch: &Batch, classes: usize, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
    let mut y = vec![0u8; batch.labels.len() * classes];
    for (row, &label) in y.chunks_mut(classes).zip(&batch.labels) {
        row[usize::from(label)] = 1;
    }
    Tensor::from_vec(y, (batch.labels.len(), classes), device)?.to_dtype(dtype)
}

/// What s_T, s_{T−1} and s_{T−2} say of each image.
pub(super) fn report(
    s: &[Tensor],
    old: &[Tensor],
    older: &[Tensor],
    labels: &[u8],
) -> candle_core::Result<Report> {
    let change = |before: &[Tensor]| -> candle_core::Result<Vec<f64>> {
        let layers: Vec<Tensor> = (s.iter().zip(before))
            .map(|(s, b)| (s - b)?.abs()?.max(D::Minus1))
            .collect::<candle_core::Result<_>>()?;
        let layers = Tensor::stack(&layers, 1)?;
        layers.max(D::Minus1)?.to_dtype(DType::F64)?.to_vec1()
    };
    let (residual, two_steps) = (change(old)?, change(older)?);
    let output = s[0].to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let mut report = Report::default();
    for (i, &label) in labels.iter().enumerate() {
        report.add_image(&output[i], label, residual[i], two_steps[i]);
    }
    Ok(report)
}
