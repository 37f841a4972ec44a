//! Learning: how a nudged trajectory changes the weights.
//!
//! Rules are values, listed in [`rule`]; [`Lesson::learn`] runs the second (nudged) phase as they say, with the
//! updates of [`hebbian`]. [`angle`] compares what comes of it with the gradients of [`crate::reference`].

mod alignment;
pub mod angle;
pub mod hebbian;
mod lesson;
mod own;
pub mod rule;

pub use alignment::{Alignment, homeostasis};
pub use hebbian::{Product, Products, SigmaPrime, Step, hebbian_products, hebbian_update};
pub(crate) use lesson::CLOCK;
pub use lesson::{Lesson, Memory, Observe};
pub use own::OwnUpdate;
pub(crate) use own::{UPDATES, kept_name};
pub use rule::{Form, RULES, Rule, Schedule, Update};

use crate::base::problem::{self, need};
use crate::model::dynamics::Time;
use crate::model::synapse::Wants;
use crate::model::{Model, Network};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The direction in which the second phase pulls the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nudging {
    /// One phase with β as given.
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

    /// The mark before β in print where it takes both signs.
    pub fn mark(self) -> &'static str {
        match self {
            Nudging::Positive => "",
            Nudging::Random | Nudging::Centered => "±",
        }
    }

    /// The factors of β in the second phases of a minibatch.
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
    /// β, or |β| where both signs are used.
    pub beta: f64,
    /// The direction of the nudge. Where it is drawn, the caller draws it for each minibatch.
    pub nudging: Nudging,
    /// η, input side first as in Table 2; one for each layer. [`Learning::rate`] has η_n.
    pub learning_rates: Vec<f64>,
    /// Treatment of σ′ in the updates of VF and C-VF; `Ignored` with all other rules.
    pub sigma_prime: SigmaPrime,
    /// η_tiny/η of Algorithm 5.
    pub tiny: f64,
    /// Reproduces a quirk of the authors' code: with C-VF the bias of layer N never learns.
    pub authors_code: bool,
    /// Alignment of the feedback weights with the forward weights, where weights are untied.
    #[serde(default, skip_serializing_if = "Alignment::is_none")]
    pub alignment: Alignment,
    /// λ, the share that every weight of a pair, θf and θb, loses after all updates of a minibatch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub decay: f64,
    /// κ, the step of [`Alignment::Homeostasis`] after each minibatch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strength: f64,
    /// Parameters of a rule of one's own, by [name](OwnUpdate::parameters).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub own: BTreeMap<String, f64>,
    /// The seed of the run, from which a rule of one's own [draws](Lesson::draws).
    #[serde(skip)]
    pub seed: u64,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

impl Learning {
    /// Makes a rule with one sign of β and the defaults of everything else.
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
            own: BTreeMap::new(),
            seed: 0,
        }
    }

    /// The form of the rule's updates, where it is one of the paper's. With [`Alignment::KolenPollack`] both weights
    /// of a pair learn one product.
    pub fn form(&self) -> Option<Form> {
        match (self.rule.update, self.alignment) {
            (Update::Nudged(..), Alignment::KolenPollack) => Some(Form::Correlation),
            (Update::Nudged(_, form), _) => Some(form),
            (Update::Own(..) | Update::Bptt | Update::Rbp | Update::Dyadic, _) => None,
        }
    }

    /// True where a connection learns: always, except for [fixed](Alignment::Fixed) feedback weights.
    pub fn learns(&self, from: usize, to: usize) -> bool {
        self.alignment != Alignment::Fixed || from > to
    }

    /// True where weights change by the updates of the rule alone.
    pub fn only_learns(&self) -> bool {
        self.decay == 0.0 && self.alignment != Alignment::Homeostasis
    }

    /// The factor that decay leaves of each weight of a pair after a minibatch.
    pub fn left(&self) -> f64 {
        1.0 - self.decay
    }

    /// η_n, the learning rate of layer n: of forward.n, its bias, and feedback.n.
    pub fn rate(&self, n: usize) -> f64 {
        self.learning_rates[self.learning_rates.len() - 1 - n]
    }

    /// Checks that this fits a network: a learning rate for each layer, weights tied as the rule needs them, and σ′
    /// and alignment only where updates have them.
    ///
    /// # Errors
    /// The first problem found, by the key of the configuration.
    pub fn check(&self, model: &Model, network: &Network) -> problem::Result {
        let (rule, dims) = (self.rule.name, &network.dims.0);
        let (tied, real) = (network.is_tied(), model.dynamics.time == Time::Real);
        need(
            self.learning_rates.len() == network.dims.depth() + 1,
            "learning.learning_rates",
            format!(
                "has {} rates, but dims = {dims:?} has {} layers of weights, each of which needs one \
                 (input side first)",
                self.learning_rates.len(),
                network.dims.depth() + 1
            ),
        )?;
        let own: Vec<&str> = self.rule.own_parameters().iter().map(|(name, _)| *name).collect();
        if let Some(unknown) = self.own.keys().find(|name| !own.contains(&name.as_str())) {
            let has = match own[..] {
                [] => "has none".to_string(),
                _ => format!("has {}", own.join(", ")),
            };
            return need(
                false,
                "learning.own",
                format!("sets {unknown}, a parameter that rule = \"{rule}\" does not have: it {has}"),
            );
        }
        let needed = if tied { "feedback weights of their own" } else { "tied weights" };
        need(self.rule.fits(network), "learning.rule", format!("\"{rule}\" needs {needed}"))?;
        need(
            model.dynamics.readout.is_none()
                || (self.rule.corrects.is_none() && !matches!(self.rule.update, Update::Dyadic)),
            "network.readout",
            format!(
                "\"{}\" sends its error into the network through σ of the last hidden layer, but rule = \"{rule}\" is \
                 exact only where the force of the loss stands outside σ, on neurons of the state: leave the readout out, \
                 or choose \"ep\", \"cep\", \"cep-rescaled\", \"vf\", \"cvf\", \"bptt\" or \"rbp\"",
                model.dynamics.readout.name()
            ),
        )?;
        let ignored = self.sigma_prime == SigmaPrime::Ignored;
        let in_real_time = if real { " in real time" } else { "" };
        need(
            ignored || (!tied && self.rule.is_nudged() && !real),
            "learning.sigma_prime",
            format!(
                "is a choice for rule = \"vf\" and \"cvf\" in discrete time; the updates of rule = \
                 \"{rule}\"{in_real_time} have no σ′: set learning.sigma_prime = \"ignored\""
            ),
        )?;
        need(
            self.alignment.is_none() || (!tied && matches!(self.rule.update, Update::Nudged(..))),
            "learning.alignment",
            format!(
                "aligns untied feedback weights, which rule = \"{rule}\" does not have: choose rule = \
                 \"cvf\" or \"vf\""
            ),
        )?;
        let kolen_pollack = self.alignment == Alignment::KolenPollack;
        need(
            !kolen_pollack || (ignored && !self.authors_code && !real),
            "learning.alignment",
            "\"kolen-pollack\" learns products of states in discrete time: set learning.sigma_prime = \"ignored\" and \
             learning.authors_code = false",
        )?;
        need(
            (0.0..1.0).contains(&self.decay) && (self.decay == 0.0 || kolen_pollack),
            "learning.decay",
            "is λ of learning.alignment = \"kolen-pollack\", the share of a weight lost in a minibatch, from 0 to below 1",
        )?;
        let homeostatic = self.alignment == Alignment::Homeostasis;
        need(
            !homeostatic || !real,
            "learning.alignment",
            "\"homeostasis\" is for the Jacobian of discrete time: set network.time = \"discrete\"",
        )?;
        need(
            !homeostatic || !network.has_convolutions(),
            "learning.alignment",
            "\"homeostasis\" takes each weight to lie between two neurons, and a convolution shares it: choose \
             \"kolen-pollack\"",
        )?;
        need(
            if homeostatic { self.strength > 0.0 && self.strength < 1.0 } else { self.strength == 0.0 },
            "learning.strength",
            "is κ of learning.alignment = \"homeostasis\", the step it takes after a minibatch, above 0 and below 1",
        )?;
        need(
            self.rule.corrects.is_none() || real || self.sigma_prime == SigmaPrime::Full,
            "learning.sigma_prime",
            format!(
                "must be \"full\" with rule = \"{rule}\", whose updates are the gradient with nothing else"
            ),
        )?;
        let wants = if model.synapse.adds_up() { Wants::Changes } else { model.synapse.wants() };
        need(
            wants != Wants::Factors || self.has_products(),
            "learning.rule",
            format!(
                "\"{rule}\" has updates that are not products of two sides, as trains of pulses need: \
                 choose \"ep\", \
                 \"cep\", \"vf\" or \"cvf\", or synapse.pulses = \"deterministic\" or \"exact\""
            ),
        )?;
        need(
            wants != Wants::Factors || !network.has_convolutions(),
            "synapse.pulses",
            "sends trains to the two neurons of a weight, and a convolution shares it among many: choose \
             \"deterministic\" or \"exact\"",
        )?;
        need(
            wants == Wants::Changes || self.only_learns(),
            "learning.alignment",
            "with \"homeostasis\" or learning.decay changes weights without pulses, which devices cannot: \
             leave these out",
        )
    }

    /// True where updates are sums of products of two sides, see [`hebbian_products`].
    pub(crate) fn has_products(&self) -> bool {
        self.form().is_some() && matches!(self.rule.update, Update::Nudged(..))
    }

    /// True where the bias of the last hidden layer never learns (see [`Learning::authors_code`]).
    pub fn last_bias_frozen(&self) -> bool {
        self.authors_code && self.rule.is_continual_vector_field()
    }
}
