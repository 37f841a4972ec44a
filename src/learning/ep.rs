//! Equilibrium Propagation (Alg. 1): tied weights, one update after the second phase.

use super::{LearningRule, Lesson, Observe, Schedule, Step};
use crate::model::Parameters;
use candle_core::Result;

pub(super) struct Ep;

impl LearningRule for Ep {
    fn name(&self) -> &'static str {
        "ep"
    }

    fn title(&self) -> &'static str {
        "EP"
    }

    fn tied(&self) -> Option<bool> {
        Some(true)
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(Schedule::Whole)
    }

    /// θ + η·Δ(s_* → s_K): the updates of the steps telescope (Eq. 5).
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        let mut theta = lesson.theta.clone();
        for branch in lesson.branches() {
            let s_end = branch.second_phase(observe, |_| Ok(None))?;
            let (s, beta) = (lesson.settled.state(), branch.nudge.beta);
            let whole = Step { t: 0, s, h: &[], s_next: &s_end, beta };
            theta = branch.applied(&theta, &branch.update(&whole)?)?;
        }
        Ok(theta)
    }
}
