//! One minibatch to learn: the second (nudged) phase, and what the rules make of it.

use super::{Alignment, Learning, Schedule, Step, Update, hebbian_update, homeostasis};
use crate::model::dynamics::Nudge;
use crate::model::{Model, Parameters, Settled, synapse};
use crate::reference::Gradients;
use crate::reference::transition::Transition;
use crate::reference::{bptt::bptt, dyadic::dyadic, rbp::rbp};
use candle_core::{Result, Tensor, bail};
use std::collections::HashMap;

/// Sees the steps of the second phases; t begins at 0 in each of them.
pub type Observe<'a> = &'a mut dyn FnMut(&Step) -> Result<()>;

/// What synapses remember from one change to the next: for each of their
/// [numbers](crate::model::synapse::SynapseLaw::memory), one for every weight and bias.
#[derive(Clone, Debug)]
pub struct Memory(pub(crate) Vec<(&'static str, Parameters)>);

impl Memory {
    /// What synapses remember that have never changed.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn new(model: &Model, theta: &Parameters) -> Result<Self> {
        let zeros = |&name: &&'static str| Ok((name, theta.map(Tensor::zeros_like)?));
        model.synapse.memory().iter().map(zeros).collect::<Result<_>>().map(Self)
    }

    /// What is called so that the synapses of a weight or bias remember.
    pub(crate) fn name(memory: &str, weight: &str) -> String {
        format!("synapse.{memory}.{weight}")
    }

    /// What is saved of it, by name.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let of = |(name, values): &(&str, Parameters)| -> Vec<(String, Tensor)> {
            let named = values.named().into_iter();
            named.map(|(weight, value)| (Self::name(name, &weight), value.clone())).collect()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The same as these tensors have it.
    ///
    /// # Errors
    /// Names the tensor that is missing or of another shape.
    pub fn recall(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        for (name, values) in &mut self.0 {
            let prefix = Self::name(name, "");
            let own = tensors.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(&prefix)?, tensor)));
            let own = own.map(|(weight, tensor)| (weight.to_string(), tensor.clone())).collect();
            let (dtype, device) = (values.dtype(), values.device().clone());
            *values = Parameters::from_named(&own, values.network.clone(), dtype, &device)?;
        }
        Ok(())
    }
}

/// One minibatch to learn, settled in s_*.
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    /// The model.
    pub model: &'a Model,
    /// How to learn.
    pub learning: &'a Learning,
    /// θ.
    pub theta: &'a Parameters,
    /// The images, (B, d_in).
    pub x: &'a Tensor,
    /// What pulls at the output in the second phase.
    pub nudge: Nudge<'a>,
    /// s_*, where the second phase begins.
    pub settled: &'a Settled,
    /// What part of η this second phase learns with: all of it or what synapses
    /// [leave](crate::model::synapse::SynapseLaw::rate) of it, or of two [`Lesson::branches`] each half.
    share: f64,
}

impl<'a> Lesson<'a> {
    /// A minibatch `x` (B, d_in) that has settled, to be learnt with the whole learning rate.
    pub fn new(
        model: &'a Model,
        learning: &'a Learning,
        theta: &'a Parameters,
        x: &'a Tensor,
        nudge: Nudge<'a>,
        settled: &'a Settled,
    ) -> Self {
        Self { model, learning, theta, x, nudge, settled, share: 1.0 }
    }

    /// The same after so many epochs, when learning rates may have fallen.
    pub fn after(self, epochs: f64) -> Self {
        Self { share: self.model.synapse.rate(epochs), ..self }
    }

    /// The second phases of the minibatch, each from s_* with a β of its own: one, or two where the nudging is
    /// [`Nudging::Centered`](super::Nudging::Centered), each with half of η. EP, VF and Algorithm 5 run both at θ; C-EP
    /// and C-VF one after the other, the second with the weights that the first has left (`docs/equilibrium.md` says why).
    pub fn branches(&self) -> impl Iterator<Item = Lesson<'a>> + use<'a> {
        let lesson = *self;
        let signs = lesson.learning.nudging.signs();
        signs.iter().map(move |&sign| {
            let beta = lesson.nudge.beta.times(sign);
            Lesson {
                nudge: Nudge { beta, ..lesson.nudge },
                share: lesson.share / signs.len() as f64,
                ..lesson
            }
        })
    }

    /// What part of η_n this second phase learns with.
    pub fn rate(&self, n: usize) -> f64 {
        self.share * self.learning.rate(n)
    }

    /// The second (nudged) phase: K steps of F with the nudge, from s_* (Eq. 94 and 99), of the layers that
    /// [`Order::layers`](crate::model::Order::layers) says. Where the rule [corrects](super::Rule::corrects) the asymmetry of
    /// F, a step goes to F(s) − (J − Jᵀ)(s − s_*), J = ∂F/∂s at s_* and the weights that the phase begins with. `learn` sees every step, after `observe`; what it returns
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
        let s_star = self.settled.state();
        let at_rest =
            |of| Ok::<_, candle_core::Error>((of, Transition::at(self.model, self.theta, self.x, s_star)?));
        let corrected = self.learning.rule.corrects.map(at_rest).transpose()?;
        let mut s = s_star.to_vec();
        for t in 0..self.learning.K {
            let h = dynamics.pre_activations(&theta_t, &drive, &s, settle.order.layers(t))?;
            let mut s_next = self.model.advance(&theta_t, &h, &s, Some(self.nudge))?;
            if let Some((of, transition)) = &corrected {
                let changes: Vec<Tensor> =
                    s.iter().zip(s_star).map(|(s, rest)| s - rest).collect::<Result<_>>()?;
                let asymmetry = transition.asymmetry(*of, &changes)?;
                for n in (0..s.len()).filter(|&n| h[n].is_some()) {
                    s_next[n] = (&s_next[n] - &asymmetry[n])?;
                }
            }
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

    /// Learns the minibatch as its [rule](super::Rule) says: the new θ. `observe` sees every step of the second phases
    /// before weights change.
    ///
    /// # Errors
    /// Those of candle and of `observe`.
    pub fn learn(&self, memory: &mut Memory, observe: Observe) -> Result<Parameters> {
        let Lesson { model, learning, theta, x, nudge, settled, .. } = *self;
        let mut theta = match learning.rule.update {
            Update::Nudged(schedule, _) | Update::Own(schedule, _) => {
                self.nudged(schedule, memory, observe)?
            }
            Update::Bptt => self.descended(&bptt(model, theta, x, nudge.target, learning.K)?, memory)?,
            Update::Rbp => {
                let gradients = rbp(model, theta, x, nudge.target, settled.state(), learning.K)?;
                self.descended(&gradients, memory)?
            }
            Update::Dyadic => {
                let gradients = dyadic(model, theta, x, nudge, settled.state(), learning.K)?;
                self.descended(&gradients, memory)?
            }
        };
        if learning.alignment == Alignment::Homeostasis {
            theta = homeostasis(model, &theta, settled.state(), learning.strength)?;
        }
        for (all, left) in [(true, model.synapse.left()), (false, learning.left())] {
            let network = theta.network.clone();
            let lost = network.weights().filter(|c| left != 1.0 && (all || network.is_paired(c)));
            let lost = lost.filter(|c| learning.learns(c.from, c.to));
            for c in lost {
                theta.weights[c.weight] = theta.weights[c.weight].affine(left, 0.0)?;
            }
        }
        Ok(theta)
    }

    /// What the second phases make of θ on this schedule.
    fn nudged(&self, schedule: Schedule, memory: &mut Memory, observe: Observe) -> Result<Parameters> {
        let mut theta = self.theta.clone();
        for branch in self.branches() {
            let mut total: Option<Parameters> = None;
            match schedule {
                // θ + η·Δ(s_* → s_K): the updates of the steps telescope (Eq. 5).
                Schedule::Whole => {
                    let s_end = branch.second_phase(observe, |_| Ok(None))?;
                    let (s, beta) = (self.settled.state(), branch.nudge.beta);
                    total = Some(branch.update(&Step { t: 0, s, h: &[], s_next: &s_end, beta })?);
                }
                // θ + η·Σ_t Δ_θ(t).
                Schedule::Sum => {
                    branch.second_phase(observe, |step| {
                        total = Some(branch.added(total.as_ref(), step)?);
                        Ok(None)
                    })?;
                }
                // θ_{t+1} = θ_t + η·Δ_θ(t) (Eq. 94, 99).
                Schedule::Continual => {
                    let begun = theta.clone();
                    Lesson { theta: &begun, ..branch }.second_phase(observe, |step| {
                        let update = Lesson { theta: &theta, ..branch }.update(step)?;
                        theta = branch.applied(&theta, &update, memory)?;
                        Ok(Some(theta.clone()))
                    })?;
                }
                // θ_{t+1} = θ_0 + η_tiny·Σ Δ_θ during the phase, θ_0 + η·Σ Δ_θ after it. The updates add up beside θ, where
                // rounding does not swallow them; what it may swallow is only their influence on the next state.
                Schedule::Rescaled => {
                    branch.second_phase(observe, |step| {
                        let sum = branch.added(total.as_ref(), step)?;
                        let theta_t = self.theta.plus(&sum, |n| self.learning.tiny * branch.rate(n))?;
                        total = Some(sum);
                        Ok(Some(theta_t))
                    })?;
                }
            }
            if let Some(total) = total {
                theta = branch.applied(&theta, &total, memory)?;
            }
        }
        Ok(theta)
    }

    /// Δ_θ(t) of a step, as the rule has it, less what [`Learning::authors_code`] leaves out.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn update(&self, step: &Step) -> Result<Parameters> {
        let Self { model, learning, x, .. } = *self;
        if let Update::Own(_, update) = learning.rule.update {
            return update.update(self, step);
        }
        let Some(form) = learning.form() else { bail!("{} has no second phase", learning.rule.title) };
        let mut update = hebbian_update(&model.dynamics, self.theta, form, learning.sigma_prime, x, step)?;
        if learning.last_bias_frozen()
            && let Some(last) = update.biases.last_mut()
        {
            *last = last.zeros_like()?;
        }
        for c in self.theta.network.weights().filter(|c| !learning.learns(c.from, c.to)) {
            update.weights[c.weight] = update.weights[c.weight].zeros_like()?;
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

    /// What synapses make of θ where η·update is wished, η by layer.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn applied(
        &self,
        theta: &Parameters,
        update: &Parameters,
        Memory(memory): &mut Memory,
    ) -> Result<Parameters> {
        let law = &self.model.synapse;
        if law.adds_up() {
            return theta.plus(update, |n| self.rate(n));
        }
        let wished = update.zip(update, |update, _, n| update.affine(self.rate(n), 0.0))?;
        let mut changed = theta.clone();
        let wished = wished.weights.iter().chain(&wished.biases);
        for (i, (tensor, wished)) in changed.tensors_mut().zip(wished).enumerate() {
            let mut own: Vec<_> =
                memory.iter_mut().filter_map(|(_, values)| values.tensors_mut().nth(i)).collect();
            *tensor = synapse::change(law, i, tensor, wished, &mut own)?;
        }
        Ok(changed)
    }

    /// What synapses make of θ where −η·∇θ(tot) is wished.
    fn descended(&self, gradients: &Gradients, memory: &mut Memory) -> Result<Parameters> {
        self.applied(self.theta, &gradients.total()?.map(Tensor::neg)?, memory)
    }
}
