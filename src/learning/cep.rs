//! Continual EP (Alg. 2): tied weights, an update at every step of the second phase.

use super::{LearningRule, Lesson, Observe, Schedule};
use crate::model::Parameters;
use candle_core::Result;

pub(super) struct Cep;

impl LearningRule for Cep {
    fn name(&self) -> &'static str {
        "cep"
    }

    fn title(&self) -> &'static str {
        "C-EP"
    }

    fn tied(&self) -> Option<bool> {
        Some(true)
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(Schedule::Continual)
    }

    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        learn_continually(lesson, observe)
    }
}

/// θ_{t+1} = θ_t + η·Δ_θ(t) at every step (Eq. 94, 99).
pub(super) fn learn_continually(lesson: &Lesson, observe: Observe) -> Result<Parameters> {
    let mut theta_t = lesson.theta.clone();
    for branch in lesson.branches() {
        let theta = theta_t.clone();
        Lesson { theta: &theta, ..branch }.second_phase(observe, |step| {
            theta_t = branch.applied(&theta_t, &branch.update(step)?)?;
            Ok(Some(theta_t.clone()))
        })?;
    }
    Ok(theta_t)
}
