//! Learning: what a nudged trajectory does to the weights.
//!
//! Rules are values, listed in [`rule`]; [`Lesson::learn`] runs the second (nudged) phase as they say, with the updates of
//! [`hebbian`]. [`angle`] compares what comes of it with the gradients of [`crate::reference`].

mod alignment;
pub mod angle;
pub mod hebbian;
mod lesson;
pub mod rule;

pub use alignment::{Alignment, homeostasis};
pub use hebbian::{SigmaPrime, Step, hebbian_update};
pub use lesson::{Lesson, Memory, Observe};
pub use rule::{Form, OwnUpdate, RULES, Rule, Schedule, Update};

use crate::model::dynamics::Time;
use crate::model::{Model, Network};
use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

/// From which side the second phase pulls at the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nudging {
    /// One phase with β as it is given.
    Positive,
    /// One phase with ±β, the sign drawn anew for every minibatch.
    Random,
    /// Two phases from s_*, one with each sign of β, each of which learns with half the learning rate: Δ is
    /// (Δ₊ + Δ₋)/2, and what is linear in β cancels. Which sign comes first is drawn anew for every minibatch. See
    /// [`Lesson::branches`].
    Centered,
}

impl Nudging {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Nudging::Positive => "positive",
            Nudging::Random => "random",
            Nudging::Centered => "centered",
        }
    }

    /// What stands before β in print where it takes both signs.
    pub fn mark(self) -> &'static str {
        match self {
            Nudging::Positive => "",
            Nudging::Random | Nudging::Centered => "±",
        }
    }

    /// What the β of each second phase of a minibatch is multiplied with.
    pub fn signs(self) -> &'static [f64] {
        match self {
            Nudging::Positive | Nudging::Random => &[1.0],
            Nudging::Centered => &[1.0, -1.0],
        }
    }
}

/// `[learning]`: the rule and its second phase (Table 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(non_snake_case)]
pub struct Learning {
    /// The learning rule.
    pub rule: Rule,
    /// K, steps of the second phase.
    pub K: usize,
    /// β, or its size where both signs are used.
    pub beta: f64,
    /// From which side the second phase pulls. Where that is drawn, whoever asks for a minibatch draws it.
    pub nudging: Nudging,
    /// η, input side first as in Table 2; one for each layer. [`Learning::rate`] has η_n.
    pub learning_rates: Vec<f64>,
    /// What the updates of VF and C-VF make of σ′; `Ignored` with all other rules.
    pub sigma_prime: SigmaPrime,
    /// η_tiny/η of Algorithm 5.
    pub tiny: f64,
    /// Reproduce a quirk of the authors' code: with C-VF the bias of layer N never learns.
    pub authors_code: bool,
    /// What aligns the feedback weights with the forward ones, where they are of their own.
    #[serde(default, skip_serializing_if = "Alignment::is_none")]
    pub alignment: Alignment,
    /// λ, the share of each weight of a pair, θf and θb, that is lost in a minibatch, after all its updates.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub decay: f64,
    /// κ, the step that [`Alignment::Homeostasis`] takes after each minibatch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strength: f64,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Learning {
    /// A rule with one sign of β, and without what only some rules have.
    #[allow(non_snake_case)]
    pub fn new(rule: Rule, K: usize, beta: f64, learning_rates: impl Into<Vec<f64>>) -> Self {
        Self {
            rule,
            K,
            beta,
            nudging: Nudging::Positive,
            learning_rates: learning_rates.into(),
            sigma_prime: SigmaPrime::Ignored,
            tiny: 1e-5,
            authors_code: false,
            alignment: Alignment::None,
            decay: 0.0,
            strength: 0.0,
        }
    }

    /// The form of the rule's updates, if it has one of the paper's: with [`Alignment::KolenPollack`] both weights of a
    /// pair learn the same product.
    pub fn form(&self) -> Option<Form> {
        match (self.rule.update, self.alignment) {
            (Update::Nudged(..), Alignment::KolenPollack) => Some(Form::Correlation),
            (Update::Nudged(_, form), _) => Some(form),
            (Update::Own(..) | Update::Bptt | Update::Rbp | Update::Dyadic, _) => None,
        }
    }

    /// Whether a connection learns: all do, but for the way back where that is [fixed](Alignment::Fixed).
    pub fn learns(&self, from: usize, to: usize) -> bool {
        self.alignment != Alignment::Fixed || from > to
    }

    /// Whether weights change by nothing but the updates of the rule.
    pub fn only_learns(&self) -> bool {
        self.decay == 0.0 && self.alignment != Alignment::Homeostasis
    }

    /// What is left of each weight of a pair after a minibatch, as a factor.
    pub fn left(&self) -> f64 {
        1.0 - self.decay
    }

    /// η_n, the learning rate of layer n: of forward.n, its bias, and feedback.n.
    pub fn rate(&self, n: usize) -> f64 {
        self.learning_rates[self.learning_rates.len() - 1 - n]
    }

    /// Checks what the configuration of a run checks of it, for those who make one themselves: a learning rate for each
    /// layer, weights that are tied as the rule needs it, and σ′ in the updates only where they are those of the vector
    /// field in discrete time.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, model: &Model, network: &Network) -> Result<()> {
        let (rates, layers) = (self.learning_rates.len(), network.dims.depth() + 1);
        if rates != layers {
            bail!("{rates} learning rates for {layers} layers of weights");
        }
        if !self.rule.fits(network) {
            let needed = if network.is_tied() { "feedback weights of their own" } else { "tied weights" };
            bail!("{} needs {needed}", self.rule.title);
        }
        let ignored = self.sigma_prime == SigmaPrime::Ignored;
        let nudged = matches!(self.rule.update, Update::Nudged(..));
        if self.alignment != Alignment::None && (network.is_tied() || !nudged) {
            bail!(
                "alignment {} needs feedback weights of their own, and updates of the paper",
                self.alignment.name()
            );
        }
        if self.decay != 0.0 && self.alignment != Alignment::KolenPollack {
            bail!("a decay of {} needs alignment {}", self.decay, Alignment::KolenPollack.name());
        }
        let homeostatic = self.alignment == Alignment::Homeostasis;
        if homeostatic != (self.strength != 0.0) || (homeostatic && model.dynamics.time != Time::Discrete) {
            bail!("alignment homeostasis and a strength above 0 need each other, and discrete time");
        }
        if self.rule.corrects.is_some() && ignored != (model.dynamics.time == Time::Real) {
            bail!("{} needs σ′ full in discrete time", self.rule.title);
        }
        if !ignored && self.form() == Some(Form::Correlation) && !network.is_tied() {
            bail!("alignment {} has no σ′ in its updates", self.alignment.name());
        }
        if !ignored && (network.is_tied() || model.dynamics.time != Time::Discrete) {
            bail!("σ′ {} in the updates needs untied weights and discrete time", self.sigma_prime.name());
        }
        Ok(())
    }

    /// Whether the bias of the last hidden layer never learns (see [`Learning::authors_code`]).
    pub fn last_bias_frozen(&self) -> bool {
        self.authors_code && self.rule.is_continual_vector_field()
    }
}
