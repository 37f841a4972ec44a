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
    lesson.second_phase(observe, |step| {
        theta_t = lesson.applied(&theta_t, &lesson.update(step)?)?;
        Ok(Some(theta_t.clone()))
    })?;
    Ok(theta_t)
}
