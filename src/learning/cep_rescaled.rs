//! Algorithm 5: C-EP with tiny learning rates, its total update rescaled afterwards (F.2).

use super::{LearningRule, Lesson, Observe, Schedule};
use crate::model::Parameters;
use candle_core::Result;

pub(super) struct CepRescaled;

impl LearningRule for CepRescaled {
    fn name(&self) -> &'static str {
        "cep-rescaled"
    }

    fn title(&self) -> &'static str {
        "C-EP rescaled"
    }

    fn tied(&self) -> Option<bool> {
        Some(true)
    }

    fn continual(&self) -> bool {
        true
    }

    fn schedule(&self) -> Option<Schedule> {
        Some(Schedule::Rescaled)
    }

    /// The paper takes EP's rows (F.2).
    fn preset(&self) -> &'static str {
        "ep"
    }

    /// θ_{t+1} = θ_0 + η_tiny·Σ Δ_θ during the phase, θ_0 + η·Σ Δ_θ after it. The updates add up beside θ, where
    /// rounding does not swallow them; what it may swallow is only their influence on the next state.
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        let mut theta = lesson.theta.clone();
        for branch in lesson.branches() {
            let mut total: Option<Parameters> = None;
            branch.second_phase(observe, |step| {
                let sum = branch.added(total.as_ref(), step)?;
                let tiny = |n: usize| lesson.protocol.tiny * branch.rate(n);
                let theta_t = lesson.theta.plus(&sum, tiny)?;
                total = Some(sum);
                Ok(Some(theta_t))
            })?;
            if let Some(total) = total {
                theta = branch.applied(&theta, &total)?;
            }
        }
        Ok(theta)
    }
}
