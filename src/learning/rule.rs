//! The learning rules, as values: when a nudged trajectory changes the weights, and by what.

use super::OwnUpdate;
use crate::base::named::by_name;
use crate::model::Network;
use crate::reference::Asymmetry;

/// All rules, as configurations name them.
pub const RULES: [Rule; 9] = [
    Rule::EP,
    Rule::CEP,
    Rule::CEP_RESCALED,
    Rule::VF,
    Rule::CVF,
    Rule::BPTT,
    Rule::RBP,
    Rule::ASYM_EP,
    Rule::DYADIC_EP,
];

/// A learning rule. Two are the same if they have the same name.
///
/// One of your own is another value: `Rule { name: "my-rule", update: …, ..Rule::EP }`; with a line in [`RULES`]
/// configurations can name it.
#[derive(Clone, Copy)]
pub struct Rule {
    /// The name in configurations.
    pub name: &'static str,
    /// The name in print.
    pub title: &'static str,
    /// Tied weights (`Some(true)`), where the feedback weights are the transposed forward weights, or untied ones
    /// (`Some(false)`); `None` where either will do.
    pub tied: Option<bool>,
    /// Its effect on the weights.
    pub update: Update,
    /// The asymmetry that its second phase corrects, if any: a reference, since the correction is not local.
    pub corrects: Option<Asymmetry>,
    /// The rule whose row of Table 2 this one uses.
    pub preset: &'static str,
}

/// The effect of a rule on the weights.
#[derive(Clone, Copy)]
pub enum Update {
    /// Runs the second (nudged) phase, and applies updates of this form on this schedule.
    Nudged(Schedule, Form),
    /// Runs the second phase, and applies updates that the paper does not have on this schedule.
    Own(Schedule, &'static dyn OwnUpdate),
    /// Descends the gradient of backpropagation through the last K steps of the first phase (Alg. 3).
    Bptt,
    /// Descends the gradient of K steps of recurrent backpropagation from the settled state (Alg. 4).
    Rbp,
    /// Descends the gradient that K steps of Dyadic EP estimate.
    Dyadic,
}

/// The times at which updates are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// Once after the second phase: the update from s_* to s_K, which is the sum of those of all steps (Eq. 5).
    Whole,
    /// Once after the second phase: the sum of the updates of all steps.
    Sum,
    /// At every step (Eq. 94, 99).
    Continual,
    /// At every step, scaled by [`Learning::tiny`](super::Learning::tiny); after the second phase the whole sum once
    /// (F.2).
    Rescaled,
}

/// The form of the [Hebbian update](super::hebbian_update) of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The change of the product of the states on both sides (Eq. 89, 95).
    Correlation,
    /// The change of the state behind a connection times the state before it (Eq. 12, E.4).
    VectorField,
}

by_name!(Rule, "rule", RULES);

impl Rule {
    /// Equilibrium Propagation (Alg. 1): tied weights, one update after the second phase.
    pub const EP: Rule = Rule {
        name: "ep",
        title: "EP",
        tied: Some(true),
        update: Update::Nudged(Schedule::Whole, Form::Correlation),
        corrects: None,
        preset: "ep",
    };
    /// Continual EP (Alg. 2): tied weights, an update at every step of the second phase.
    pub const CEP: Rule = Rule {
        name: "cep",
        title: "C-EP",
        tied: Some(true),
        update: Update::Nudged(Schedule::Continual, Form::Correlation),
        corrects: None,
        preset: "cep",
    };
    /// Algorithm 5 (F.2): C-EP with tiny learning rates, and its total update rescaled afterwards. The paper takes
    /// EP's rows.
    pub const CEP_RESCALED: Rule = Rule {
        name: "cep-rescaled",
        title: "C-EP rescaled",
        tied: Some(true),
        update: Update::Nudged(Schedule::Rescaled, Form::Correlation),
        corrects: None,
        preset: "ep",
    };
    /// Vector field: untied weights; the sum of the updates of Eq. 12 is applied after the second phase, as in EP.
    pub const VF: Rule = Rule {
        name: "vf",
        title: "VF",
        tied: Some(false),
        update: Update::Nudged(Schedule::Sum, Form::VectorField),
        corrects: None,
        preset: "ep",
    };
    /// Continual vector field (Eq. 12, E.4): untied weights, an update at every step of the second phase.
    pub const CVF: Rule = Rule {
        name: "cvf",
        title: "C-VF",
        tied: Some(false),
        update: Update::Nudged(Schedule::Continual, Form::VectorField),
        corrects: None,
        preset: "cvf",
    };
    /// Backpropagation through time (Alg. 3), a baseline.
    pub const BPTT: Rule = Rule { name: "bptt", title: "BPTT", tied: None, update: Update::Bptt, ..Rule::EP };
    /// Recurrent backpropagation (Alg. 4), a baseline.
    pub const RBP: Rule = Rule { name: "rbp", title: "RBP", update: Update::Rbp, ..Rule::BPTT };
    /// AsymEP (Scurria et al. 2026): VF whose second phase corrects the asymmetry of J by −2A(s − s_*), A = (J −
    /// Jᵀ)/2, so that Δs(t) = −∇s(t) to O(β) whatever the feedback weights. With σ′ `full` its updates are the
    /// gradient. Not local.
    pub const ASYM_EP: Rule =
        Rule { name: "asym-ep", title: "AsymEP", corrects: Some(Asymmetry::Jacobian), ..Rule::VF };
    /// Dyadic EP (Scurria et al. 2026), see [`dyadic`](crate::reference::dyadic): the gradient to O(β²). Not local.
    pub const DYADIC_EP: Rule =
        Rule { name: "dyadic-ep", title: "Dyadic EP", update: Update::Dyadic, ..Rule::BPTT };

    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The schedule of its updates, if it has a second phase.
    pub fn schedule(&self) -> Option<Schedule> {
        match self.update {
            Update::Nudged(schedule, _) | Update::Own(schedule, _) => Some(schedule),
            Update::Bptt | Update::Rbp | Update::Dyadic => None,
        }
    }

    /// True for rules with a second phase, whose updates can be compared with gradients.
    pub fn is_nudged(&self) -> bool {
        self.schedule().is_some()
    }

    /// True where weights change during the second phase.
    pub fn is_continual(&self) -> bool {
        matches!(self.schedule(), Some(Schedule::Continual | Schedule::Rescaled))
    }

    /// True for rules that apply the updates of the vector field at every step, as C-VF does.
    pub fn is_continual_vector_field(&self) -> bool {
        matches!(self.update, Update::Nudged(Schedule::Continual, Form::VectorField))
    }

    /// True where the network is tied as the rule needs it.
    pub fn fits(&self, network: &Network) -> bool {
        self.tied.is_none_or(|tied| tied == network.is_tied())
    }

    /// Names of the memory of a rule of one's own, one number for every weight and bias each.
    pub fn own_memory(&self) -> &'static [&'static str] {
        match self.update {
            Update::Own(_, own) => own.memory(),
            _ => &[],
        }
    }

    /// Names and defaults of the parameters of a rule of one's own.
    pub fn own_parameters(&self) -> &'static [(&'static str, f64)] {
        match self.update {
            Update::Own(_, own) => own.parameters(),
            _ => &[],
        }
    }
}
