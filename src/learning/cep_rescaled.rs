//! Algorithm 5: C-EP with tiny learning rates, its total update rescaled afterwards (F.2).

use super::{LearningRule, Lesson, Observe};
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

    /// The paper takes EP's rows (F.2).
    fn preset(&self) -> &'static str {
        "ep"
    }

    /// θ_{t+1} = θ_0 + η_tiny·Σ Δ_θ during the phase, θ_0 + η·Σ Δ_θ after it. The updates add up beside θ, where
    /// rounding does not swallow them; what it may swallow is only their influence on the next state.
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        let (theta, protocol) = (lesson.theta, lesson.protocol);
        let mut total: Option<Parameters> = None;
        lesson.second_phase(observe, |step| {
            let sum = lesson.added(total.as_ref(), step)?;
            let theta_t = theta.plus(&sum, |n| protocol.tiny * protocol.learning_rates[n])?;
            total = Some(sum);
            Ok(Some(theta_t))
        })?;
        match total {
            Some(total) => lesson.applied(theta, &total),
            None => Ok(theta.clone()),
        }
    }
}
