//! Continual vector field (Eq. 12, E.4): feedback weights of their own, an update at every step of the second phase.

use super::cep::learn_continually;
use super::{LearningRule, Lesson, Observe, Schedule};
use crate::model::Parameters;
use candle_core::Result;

pub(super) struct Cvf;

impl LearningRule for Cvf {
    fn name(&self) -> &'static str {
        "cvf"
    }

    fn title(&self) -> &'static str {
        "C-VF"
    }

    fn tied(&self) -> Option<bool> {
        Some(false)
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(Schedule::Continual)
    }

    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        learn_continually(lesson, observe)
    }
}
