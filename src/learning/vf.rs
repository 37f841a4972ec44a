//! Vector field: feedback weights of their own, the sum of the updates of Eq. 12 applied after the second phase.

use super::{LearningRule, Lesson, Observe, Schedule};
use crate::model::Parameters;
use candle_core::Result;

pub(super) struct Vf;

impl LearningRule for Vf {
    fn name(&self) -> &'static str {
        "vf"
    }

    fn title(&self) -> &'static str {
        "VF"
    }

    fn tied(&self) -> Option<bool> {
        Some(false)
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(Schedule::Sum)
    }

    /// Its updates come after the second phase, as EP's.
    fn preset(&self) -> &'static str {
        "ep"
    }

    /// θ + η·Σ_t Δ_θ(t).
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        let mut theta = lesson.theta.clone();
        for branch in lesson.branches() {
            let mut total: Option<Parameters> = None;
            branch.second_phase(observe, |step| {
                total = Some(branch.added(total.as_ref(), step)?);
                Ok(None)
            })?;
            if let Some(total) = total {
                theta = branch.applied(&theta, &total)?;
            }
        }
        Ok(theta)
    }
}
