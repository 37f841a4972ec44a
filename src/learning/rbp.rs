//! K steps of recurrent backpropagation from the settled state (Alg. 4), a baseline.

use super::{LearningRule, Lesson, Observe};
use crate::model::Parameters;
use crate::reference::rbp::rbp;
use candle_core::Result;

pub(super) struct Rbp;

impl LearningRule for Rbp {
    fn name(&self) -> &'static str {
        "rbp"
    }

    fn title(&self) -> &'static str {
        "RBP"
    }

    fn tied(&self) -> Option<bool> {
        None
    }

    fn hebbian(&self) -> bool {
        false
    }

    fn preset(&self) -> &'static str {
        "ep"
    }

    /// θ − η·∇θ(tot).
    fn learn(&self, lesson: &Lesson, _: Observe) -> Result<Parameters> {
        let Lesson { model, protocol, theta, x, nudge, settled, .. } = *lesson;
        let steps = protocol.second_steps;
        lesson.descended(&rbp(&model.dynamics, theta, x, nudge.target, settled.state(), steps)?)
    }
}
