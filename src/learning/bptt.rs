//! Backpropagation through the last K steps of the first phase (Alg. 3), a baseline.

use super::{LearningRule, Lesson, Observe};
use crate::model::Parameters;
use crate::reference::bptt::bptt;
use candle_core::Result;

pub(super) struct Bptt;

impl LearningRule for Bptt {
    fn name(&self) -> &'static str {
        "bptt"
    }

    fn title(&self) -> &'static str {
        "BPTT"
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
        let Lesson { model, protocol, theta, x, nudge, .. } = *lesson;
        lesson.descended(&bptt(model, theta, x, nudge.target, protocol.second_steps)?)
    }
}
