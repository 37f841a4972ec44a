//! The learning rules: what a nudged trajectory does to the weights.
//!
//! A rule is a file here that implements [`LearningRule`], and a line in [`RULES`]. Most rules run the second
//! (nudged) phase, [`Lesson::second_phase`], and differ in when they apply the update of [`hebbian`]. [`angle`]
//! compares what they do with the gradients of [`crate::reference`].

pub mod angle;
mod bptt;
mod cep;
mod cep_rescaled;
mod cvf;
mod ep;
pub mod hebbian;
mod rbp;
mod vf;

pub use hebbian::{SigmaPrime, Step, hebbian_update};

use crate::model::dynamics::{Nudge, Time};
use crate::model::{Model, Parameters, Settled};
use crate::reference::Gradients;
use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};

/// All rules, as configurations name them.
pub const RULES: [Rule; 7] =
    [Rule::EP, Rule::CEP, Rule::CEP_RESCALED, Rule::VF, Rule::CVF, Rule::BPTT, Rule::RBP];

/// A learning rule. Two are the same if they have the same name.
#[derive(Clone, Copy)]
pub struct Rule(pub &'static dyn LearningRule);

impl Rule {
    /// Equilibrium Propagation (Alg. 1).
    pub const EP: Rule = Rule(&ep::Ep);
    /// Continual EP (Alg. 2).
    pub const CEP: Rule = Rule(&cep::Cep);
    /// Algorithm 5: C-EP with tiny learning rates, its total update rescaled afterwards.
    pub const CEP_RESCALED: Rule = Rule(&cep_rescaled::CepRescaled);
    /// Vector field: the sum of the updates of Eq. 12, applied after the second phase.
    pub const VF: Rule = Rule(&vf::Vf);
    /// Continual vector field (Eq. 12, E.4).
    pub const CVF: Rule = Rule(&cvf::Cvf);
    /// Backpropagation through time (Alg. 3), a baseline.
    pub const BPTT: Rule = Rule(&bptt::Bptt);
    /// Recurrent backpropagation (Alg. 4), a baseline.
    pub const RBP: Rule = Rule(&rbp::Rbp);

    /// The rule of this name.
    pub fn named(name: &str) -> Option<Rule> {
        RULES.into_iter().find(|rule| rule.name() == name)
    }

    /// The rule that applies [`hebbian_update`] on this schedule to weights so tied, if this is one.
    pub fn is(self, tied: bool, schedule: Schedule) -> bool {
        self.tied() == Some(tied) && self.schedule() == Some(schedule)
    }
}

impl std::ops::Deref for Rule {
    type Target = dyn LearningRule;
    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Rule {}

impl Hash for Rule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Rule::named(&name).ok_or_else(|| {
            let names: Vec<&str> = RULES.iter().map(|rule| rule.name()).collect();
            serde::de::Error::custom(format!("there is no rule `{name}`; there are {}", names.join(", ")))
        })
    }
}

/// When [`hebbian_update`] is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// Once after the second phase: the update from s_* to s_K, which is the sum of those of all steps (Eq. 5).
    Whole,
    /// Once after the second phase: the sum of the updates of all steps.
    Sum,
    /// At every step.
    Continual,
    /// At every step, but [`Protocol::tiny`] times as much of it; once after the second phase the sum in full (F.2).
    Rescaled,
}

/// What a rule is, and what it does.
pub trait LearningRule: Send + Sync {
    /// The name in configurations.
    fn name(&self) -> &'static str;

    /// The name in print.
    fn title(&self) -> &'static str;

    /// Whether feedback weights are the transposed forward weights (`Some(true)`) or of their own
    /// (`Some(false)`); `None` where either will do.
    fn tied(&self) -> Option<bool>;

    /// Whether the rule has a second phase whose updates can be compared with gradients.
    fn hebbian(&self) -> bool {
        true
    }

    /// Whether weights change during the second phase.
    fn continual(&self) -> bool {
        self.schedule() == Some(Schedule::Continual)
    }

    /// When the rule applies [`hebbian_update`], if it does that and nothing else: then faster engines can run it
    /// without [`LearningRule::learn`].
    fn schedule(&self) -> Option<Schedule> {
        None
    }

    /// The rule whose row of Table 2 it borrows, where it has none of its own.
    fn preset(&self) -> &'static str {
        self.name()
    }

    /// Learns one minibatch: the new θ. `observe` sees every step of the second phase before weights change.
    ///
    /// # Errors
    /// Those of candle and of `observe`.
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters>;
}

/// Sees the steps of the second phases; t begins at 0 in each of them.
pub type Observe<'a> = &'a mut dyn FnMut(&Step) -> Result<()>;

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

/// How a rule learns (Table 2).
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The learning rule.
    pub rule: Rule,
    /// What the updates of VF and C-VF make of σ′; `Ignored` with all other rules.
    pub sigma_prime: SigmaPrime,
    /// From which side the second phase pulls. Where that is drawn, whoever asks for a minibatch draws it.
    pub nudging: Nudging,
    /// K, steps of the second phase.
    pub second_steps: usize,
    /// η_tiny/η of Algorithm 5.
    pub tiny: f64,
    /// η_n, learning rate of layer n (forward.n and feedback.n), output first.
    pub learning_rates: Vec<f64>,
    /// Reproduce a quirk of the authors' code: with C-VF the bias of layer N never learns.
    pub authors_code: bool,
}

impl Protocol {
    /// Checks what the configuration of a run checks of it, for those who make one themselves: a learning rate for each
    /// layer, and σ′ in the updates only where they are those of the vector field in discrete time.
    ///
    /// # Errors
    /// Says what does not fit the model.
    pub fn check(&self, model: &Model) -> Result<()> {
        let (rates, layers) = (self.learning_rates.len(), model.dims.depth() + 1);
        if rates != layers {
            bail!("{rates} learning rates for {layers} layers of weights");
        }
        let ignored = self.sigma_prime == SigmaPrime::Ignored;
        if !ignored && (model.tied || model.dynamics.time != Time::Discrete) {
            bail!("σ′ {} in the updates needs untied weights and discrete time", self.sigma_prime.name());
        }
        Ok(())
    }

    /// Whether the bias of the last hidden layer never learns (see [`Protocol::authors_code`]).
    pub fn last_bias_frozen(&self) -> bool {
        self.authors_code && self.rule.is(false, Schedule::Continual)
    }
}

/// One minibatch to learn, settled in s_*.
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    /// The model.
    pub model: &'a Model,
    /// How to learn.
    pub protocol: &'a Protocol,
    /// θ.
    pub theta: &'a Parameters,
    /// The images, (B, d_in).
    pub x: &'a Tensor,
    /// What pulls at the output in the second phase.
    pub nudge: Nudge<'a>,
    /// s_*, where the second phase begins.
    pub settled: &'a Settled,
    /// What part of η this second phase learns with: all of it, or of two [`Lesson::branches`] each half.
    share: f64,
}

impl<'a> Lesson<'a> {
    /// A minibatch `x` (B, d_in) that has settled, to be learnt with the whole learning rate.
    pub fn new(
        model: &'a Model,
        protocol: &'a Protocol,
        theta: &'a Parameters,
        x: &'a Tensor,
        nudge: Nudge<'a>,
        settled: &'a Settled,
    ) -> Self {
        Self { model, protocol, theta, x, nudge, settled, share: 1.0 }
    }

    /// The second phases of the minibatch, each from s_* with a β of its own: one, or two where the nudging is
    /// [`Nudging::Centered`], each with half of η. EP, VF and Algorithm 5 run both at θ; C-EP and C-VF one after the
    /// other, the second with the weights that the first has left (`docs/equilibrium.md` says why).
    pub fn branches(&self) -> impl Iterator<Item = Lesson<'a>> + use<'a> {
        let lesson = *self;
        let signs = lesson.protocol.nudging.signs();
        signs.iter().map(move |&sign| {
            let beta = lesson.nudge.beta.times(sign);
            Lesson { nudge: Nudge { beta, ..lesson.nudge }, share: 1.0 / signs.len() as f64, ..lesson }
        })
    }

    /// What part of η_n this second phase learns with.
    pub fn rate(&self, n: usize) -> f64 {
        self.share * self.protocol.learning_rates[n]
    }

    /// The second (nudged) phase: K steps of F with the nudge, from s_* (Eq. 94 and 99), of the layers that
    /// [`Order::layers`](crate::model::Order::layers) says. `learn` sees every step, after `observe`; what it returns
    /// is θ from the next step on. Returns s_K.
    ///
    /// # Errors
    /// Those of candle, of `observe` and of `learn`.
    pub fn second_phase(
        &self,
        observe: Observe,
        mut learn: impl FnMut(&Step) -> Result<Option<Parameters>>,
    ) -> Result<Vec<Tensor>> {
        let Model { dynamics, settle, .. } = self.model;
        let mut theta_t = self.theta.clone();
        let mut drive = dynamics.drive(&theta_t, self.x)?;
        let mut s = self.settled.state().to_vec();
        for t in 0..self.protocol.second_steps {
            let h = dynamics.pre_activations(&theta_t, &drive, &s, settle.order.layers(t))?;
            let s_next = dynamics.advance(&theta_t, &h, &s, Some(self.nudge))?;
            let step = Step { t, s: &s, h: &h, s_next: &s_next, beta: self.nudge.beta };
            observe(&step)?;
            if let Some(theta_next) = learn(&step)? {
                theta_t = theta_next;
                drive = dynamics.drive(&theta_t, self.x)?;
            }
            s = s_next;
        }
        Ok(s)
    }

    /// Δ_θ(t) of a step, [`hebbian_update`], less what [`Protocol::authors_code`] leaves out.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn update(&self, step: &Step) -> Result<Parameters> {
        let Self { model, protocol, x, .. } = *self;
        let mut update = hebbian_update(&model.dynamics, model.tied, protocol.sigma_prime, x, step)?;
        if protocol.last_bias_frozen()
            && let Some(last) = update.forward.last_mut()
        {
            last.bias = last.bias.zeros_like()?;
        }
        Ok(update)
    }

    /// `total` + the update of a step; that update itself where there is no total yet.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn added(&self, total: Option<&Parameters>, step: &Step) -> Result<Parameters> {
        let update = self.update(step)?;
        match total {
            Some(total) => total.plus(&update, |_| 1.0),
            None => Ok(update),
        }
    }

    /// θ + η·update, η by layer; half of it where there are two [`Lesson::branches`].
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn applied(&self, theta: &Parameters, update: &Parameters) -> Result<Parameters> {
        theta.plus(update, |n| self.rate(n))
    }

    /// θ − η·∇θ(tot), η by layer.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn descended(&self, gradients: &Gradients) -> Result<Parameters> {
        self.theta.plus(&gradients.total()?, |n| -self.protocol.learning_rates[n])
    }
}
