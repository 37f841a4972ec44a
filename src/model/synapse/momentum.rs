//! v ← μ·v + η·Δ, θ ← θ + v, and after each minibatch θ ← (1 − λ)·θ.

use super::SynapseLaw;
use serde::{Deserialize, Serialize};

/// The law of optimisers: momentum, weight decay, and learning rates that fall over the epochs.
///
/// A rule that learns once a minibatch has one change a minibatch, and μ is that of stochastic gradient descent. One
/// that learns continually has a change at every step of its second phase, and v decays by μ at every step of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Momentum {
    /// μ, from 0 to below 1.
    pub momentum: f64,
    /// λ, the share that every weight loses in a minibatch. Biases do not decay.
    pub decay: f64,
    /// The fall of learning rates.
    pub schedule: Fall,
    /// The epoch at which they have fallen; 0 where they do not fall.
    pub horizon: usize,
}

/// The fall of learning rates, from η to 0 over [`Momentum::horizon`] epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fall {
    /// None.
    Constant,
    /// η·½(1 + cos πt).
    Cosine,
    /// η/10 after one half, η/100 after three quarters.
    Step,
}

impl Default for Momentum {
    fn default() -> Self {
        Self { momentum: 0.9, decay: 0.0, schedule: Fall::Constant, horizon: 0 }
    }
}

impl SynapseLaw for Momentum {
    fn name(&self) -> &'static str {
        "momentum"
    }

    fn memory(&self) -> &'static [&'static str] {
        if self.adds_up() { &[] } else { &["velocity"] }
    }

    fn adds_up(&self) -> bool {
        self.momentum == 0.0
    }

    fn change(&self, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]) {
        for ((w, wished), v) in weights.iter_mut().zip(wished).zip(memory[0].iter_mut()) {
            *v = self.momentum * *v + wished;
            *w += *v;
        }
    }

    fn left(&self) -> f64 {
        1.0 - self.decay
    }

    fn rate(&self, epochs: f64) -> f64 {
        let t = (epochs / self.horizon as f64).min(1.0);
        match self.schedule {
            Fall::Constant => 1.0,
            Fall::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            Fall::Step if t < 0.5 => 1.0,
            Fall::Step if t < 0.75 => 0.1,
            Fall::Step => 0.01,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn momentum_goes_on_where_nothing_is_wished() {
        let law = Momentum { momentum: 0.5, ..Momentum::default() };
        let (mut w, mut v) = ([1.0], [0.0]);
        law.change(&mut w, &[0.5], &mut [&mut v]);
        law.change(&mut w, &[0.0], &mut [&mut v]);
        assert_eq!((w, v), ([1.75], [0.25]));
    }

    #[test]
    fn learning_rates_fall_to_nothing_at_the_horizon_and_stay_there() {
        let law = |schedule| Momentum { schedule, horizon: 10, ..Momentum::default() };
        let cosine = law(Fall::Cosine);
        assert_eq!([0.0, 10.0, 20.0].map(|epochs| cosine.rate(epochs)), [1.0, 0.0, 0.0]);
        assert!((cosine.rate(5.0) - 0.5).abs() < 1e-15);
        assert_eq!([0.0, 4.9, 5.0, 7.5, 30.0].map(|e| law(Fall::Step).rate(e)), [1.0, 1.0, 0.1, 0.01, 0.01]);
    }
}
