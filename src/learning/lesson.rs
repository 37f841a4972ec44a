//! One minibatch to learn: the second (nudged) phase, and how each rule learns from it.

use super::own::{Kept, count_of, count_tensor};
use super::{Alignment, Learning, Product, Products, Schedule, Step, Update};
use super::{hebbian_products, hebbian_update, homeostasis};
use crate::model::dynamics::Nudge;
use crate::model::synapse::{Factor, Factors, Place, Wants};
use crate::model::{Model, Parameters, Settled, Synapse, synapse};
use crate::reference::Gradients;
use crate::reference::transition::Transition;
use crate::reference::{bptt::bptt, dyadic::dyadic, rbp::rbp};
use candle_core::{DType, Result, Tensor, bail};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

/// A callback for the steps of the second phases; t begins at 0 in each of them.
pub type Observe<'a> = &'a mut dyn FnMut(&Step) -> Result<()>;

/// The state that lasts from one minibatch to the next beside the weights. Synapses remember their
/// [numbers](crate::model::synapse::SynapseLaw::memory), one for every weight and bias, and how often arrays have
/// been updated, where that matters. A rule of one's own has its [memory](super::OwnUpdate::memory).
#[derive(Clone, Debug)]
pub struct Memory {
    pub(crate) values: Vec<(&'static str, Parameters)>,
    /// Updates of arrays so far; absent where synapses are not [arrays](Wants::Arrays) and there is no noise.
    pub(crate) clock: Option<u64>,
    /// The memory of a rule of one's own.
    pub(crate) own: Kept,
}

/// The name of [`Memory::clock`] in checkpoints.
pub(crate) const CLOCK: &str = "synapse.clock";

impl Memory {
    /// The memory of synapses that have never changed.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn new(model: &Model, theta: &Parameters) -> Result<Self> {
        let law = &model.synapse;
        let zeros = |&name: &&'static str| Ok((name, theta.map(Tensor::zeros_like)?));
        let values = law.memory().iter().map(zeros).collect::<Result<_>>()?;
        let are_arrays = !law.adds_up() && law.wants() != Wants::Changes;
        let counts = are_arrays || model.noise.is_random();
        let mut memory = Self { values, clock: counts.then_some(0), own: Kept::default() };
        if are_arrays {
            let mut theta = theta.clone();
            memory.each_array(&mut theta, |place, weights, memory| law.start(place, weights, memory))?;
        }
        Ok(memory)
    }

    /// The clock; 0 where there is none.
    pub(crate) fn now(&self) -> u64 {
        self.clock.unwrap_or_default()
    }

    /// Advances the clock by one.
    pub(crate) fn tick(&mut self) {
        if let Some(clock) = &mut self.clock {
            *clock += 1;
        }
    }

    /// The memory of tensor `number`.
    fn own(&mut self, number: usize) -> Vec<&mut Tensor> {
        self.values.iter_mut().filter_map(|(_, values)| values.tensors_mut().nth(number)).collect()
    }

    /// Lets `work` change each array of θ and its memory.
    pub(crate) fn each_array(
        &mut self,
        theta: &mut Parameters,
        mut work: impl FnMut(&Place, &mut [f64], &mut [&mut [f64]]),
    ) -> Result<()> {
        let clock = self.now();
        for (number, tensor) in theta.tensors_mut().enumerate() {
            let place = Place::of(number, tensor, clock)?;
            *tensor = synapse::alone(tensor, &mut self.own(number), |w, memory| work(&place, w, memory))?;
        }
        Ok(())
    }

    /// Writes θ into arrays that have never learnt; θ becomes what they hold.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn program(&mut self, law: &Synapse, theta: &mut Parameters) -> Result<()> {
        match self.clock {
            Some(0) => self.each_array(theta, |place, weights, memory| law.program(place, weights, memory)),
            _ => Ok(()),
        }
    }

    /// Lets arrays rest after a minibatch, which may change θ.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn rest(&mut self, law: &Synapse, theta: &mut Parameters) -> Result<()> {
        if self.clock.is_some() && law.rests() {
            self.each_array(theta, |place, weights, memory| law.rest(place, weights, memory))?;
            self.tick();
        }
        Ok(())
    }

    /// The name in checkpoints of a memory of the synapses of a weight or bias.
    pub(crate) fn name(memory: &str, weight: &str) -> String {
        format!("synapse.{memory}.{weight}")
    }

    /// The tensors that a checkpoint saves of it, by name.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let of = |(name, values): &(&str, Parameters)| -> Vec<(String, Tensor)> {
            let named = values.named().into_iter();
            named.map(|(weight, value)| (Self::name(name, &weight), value.clone())).collect()
        };
        // Two numbers on the CPU always are a tensor.
        let clock = self.clock.and_then(|clock| count_tensor(clock).ok());
        let clock = clock.map(|clock| (CLOCK.to_string(), clock));
        self.values.iter().flat_map(of).chain(clock).chain(self.own.named()).collect()
    }

    /// Restores the memory from tensors, for weights like those of `theta`.
    ///
    /// # Errors
    /// Names the tensor that is missing or of another shape.
    pub fn recall(&mut self, tensors: &HashMap<String, Tensor>, theta: &Parameters) -> Result<()> {
        self.own.recall(tensors, theta)?;
        for (name, values) in &mut self.values {
            values.recall(&Self::name(name, ""), tensors)?;
        }
        if self.clock.is_some() {
            let Some(saved) = tensors.get(CLOCK) else {
                bail!(
                    "{CLOCK} is missing: how often arrays have been asked, which their pulses and noise depend on"
                )
            };
            self.clock = Some(count_of(CLOCK, saved)?);
        }
        Ok(())
    }
}

/// One minibatch to learn, settled in s_*.
#[derive(Clone, Copy)]
pub struct Lesson<'a> {
    /// The model.
    pub model: &'a Model,
    /// The rule and its settings.
    pub learning: &'a Learning,
    /// θ.
    pub theta: &'a Parameters,
    /// The images, (B, d_in).
    pub x: &'a Tensor,
    /// The pull on the output in the second phase.
    pub nudge: Nudge<'a>,
    /// s_*, where the second phase begins.
    pub settled: &'a Settled,
    /// The share of η that this second phase learns with: what synapses
    /// [leave](crate::model::synapse::SynapseLaw::rate) of it, or half of that in each of two [`Lesson::branches`].
    share: f64,
    /// The memory of a rule of one's own, in training.
    pub(super) own: Option<&'a RefCell<Kept>>,
}

impl<'a> Lesson<'a> {
    /// Makes a lesson of a minibatch `x` (B, d_in) that has settled, with the whole learning rate.
    pub fn new(
        model: &'a Model,
        learning: &'a Learning,
        theta: &'a Parameters,
        x: &'a Tensor,
        nudge: Nudge<'a>,
        settled: &'a Settled,
    ) -> Self {
        Self { model, learning, theta, x, nudge, settled, share: 1.0, own: None }
    }

    /// Returns this lesson after `epochs` epochs, when learning rates may have fallen.
    pub fn after(self, epochs: f64) -> Self {
        Self { share: self.model.synapse.rate(epochs), ..self }
    }

    /// The second phases of the minibatch, each from s_* with a β of its own: one, or two for
    /// [`Nudging::Centered`](super::Nudging::Centered), each with half of η. EP, VF and Algorithm 5 run both at θ;
    /// C-EP and C-VF run one after the other, the second with the weights that the first has left
    /// (`docs/equilibrium.md` says why).
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

    /// The share of η_n that this second phase learns with.
    pub fn rate(&self, n: usize) -> f64 {
        self.share * self.learning.rate(n)
    }

    /// Runs the second (nudged) phase: K steps of F with the nudge, from s_* (Eq. 94 and 99), of the layers that
    /// [`Order::layers`](crate::model::Order::layers) gives. Where the rule [corrects](super::Rule::corrects) the
    /// asymmetry of F, a step goes to F(s) − (J − Jᵀ)(s − s_*), with J = ∂F/∂s at s_* and at the weights that the
    /// phase begins with. `learn` sees every step, after `observe`, and returns θ for the next step. Returns s_K.
    ///
    /// # Errors
    /// Those of candle, of `observe` and of `learn`.
    pub fn second_phase(
        &self,
        observe: Observe,
        mut learn: impl FnMut(&Step) -> Result<Option<Parameters>>,
    ) -> Result<Vec<Tensor>> {
        let dynamics = &self.model.dynamics;
        let mut theta_t = self.theta.clone();
        let mut drive = self.model.drive(&theta_t, self.x)?;
        let s_star = self.settled.state();
        let at_rest =
            |of| Ok::<_, candle_core::Error>((of, Transition::at(self.model, self.theta, self.x, s_star)?));
        let corrected = self.learning.rule.corrects.map(at_rest).transpose()?;
        let mut s = self.begun()?;
        for t in 0..self.learning.K {
            let layers = self.model.layers(t);
            let (h, mut s_next) = self.model.noisy_step(&theta_t, &drive, &s, layers, Some(self.nudge))?;
            if let Some((of, transition)) = &corrected {
                let nearest = dynamics.readout.nearest();
                let mut changes: Vec<Tensor> =
                    s.iter().zip(s_star).map(|(s, rest)| s - rest).collect::<Result<_>>()?;
                changes[..nearest].clone_from_slice(&s_next[..nearest]);
                let asymmetry = transition.asymmetry(*of, &changes)?;
                for n in (nearest..s.len()).filter(|&n| h[n].is_some()) {
                    s_next[n] = (&s_next[n] - &asymmetry[n])?;
                }
            }
            let step = Step { t, s: &s, h: &h, s_next: &s_next, beta: self.nudge.beta };
            observe(&step)?;
            if let Some(theta_next) = learn(&step)? {
                theta_t = theta_next;
                drive = self.model.drive(&theta_t, self.x)?;
            }
            s = s_next;
        }
        Ok(s)
    }

    /// The start of the second phase: s_*, and for a readout the error that it has sent so far, which is none.
    fn begun(&self) -> Result<Vec<Tensor>> {
        let mut s = self.settled.state().to_vec();
        for s in &mut s[..self.model.dynamics.readout.nearest()] {
            *s = s.zeros_like()?;
        }
        Ok(s)
    }

    /// Learns the minibatch as its [rule](super::Rule) says and returns the new θ. `observe` sees every step of the
    /// second phases before weights change.
    ///
    /// # Errors
    /// Those of candle and of `observe`.
    pub fn learn(&self, memory: &mut Memory, observe: Observe) -> Result<Parameters> {
        let Lesson { model, learning, theta, x, nudge, settled, .. } = *self;
        let mut theta = match learning.rule.update {
            Update::Nudged(schedule, _) => self.nudged(schedule, memory, observe)?,
            Update::Own(schedule, _) => {
                let kept = RefCell::new(memory.own.clone());
                let theta = Lesson { own: Some(&kept), ..*self }.nudged(schedule, memory, observe)?;
                memory.own = kept.into_inner();
                theta
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
        if memory.clock.is_some() && model.synapse.rests() {
            memory.each_array(&mut theta, |place, weights, memory| {
                model.synapse.rest(place, weights, memory)
            })?;
            memory.tick();
        }
        Ok(theta)
    }

    /// Runs the second phases with updates on this schedule and returns the new θ.
    fn nudged(&self, schedule: Schedule, memory: &mut Memory, observe: Observe) -> Result<Parameters> {
        let mut theta = self.theta.clone();
        let law = &self.model.synapse;
        let by_factors = !law.adds_up() && law.wants() == Wants::Factors && self.learning.has_products();
        for branch in self.branches() {
            let mut total: Option<Parameters> = None;
            // Products to be applied after the phase, by synapses that multiply.
            let mut products: Vec<Products> = Vec::new();
            match schedule {
                // θ + η·Δ(s_* → s_K): the updates of the steps telescope (Eq. 5).
                Schedule::Whole => {
                    let s_end = branch.second_phase(observe, |_| Ok(None))?;
                    let (s, beta) = (self.begun()?, branch.nudge.beta);
                    let whole = Step { t: 0, s: &s, h: &[], s_next: &s_end, beta };
                    match by_factors {
                        true => products.push(branch.offset(branch.products(&whole)?)?),
                        false => total = Some(branch.update(&whole)?),
                    }
                }
                // θ + η·Σ_t Δ_θ(t).
                Schedule::Sum => {
                    branch.second_phase(observe, |step| {
                        match by_factors {
                            true => products.push(branch.products_to_add(step)?),
                            false => total = Some(branch.added(total.as_ref(), step)?),
                        }
                        Ok(None)
                    })?;
                }
                // θ_{t+1} = θ_t + η·Δ_θ(t) (Eq. 94, 99).
                Schedule::Continual => {
                    let begun = theta.clone();
                    Lesson { theta: &begun, ..branch }.second_phase(observe, |step| {
                        let lesson = Lesson { theta: &theta, ..branch };
                        let changed = match by_factors {
                            true => branch.pulsed(&theta, &branch.offset(lesson.products(step)?)?, memory)?,
                            false => branch.applied(&theta, &lesson.update(step)?, memory)?,
                        };
                        theta = changed;
                        Ok(Some(theta.clone()))
                    })?;
                }
                // θ_{t+1} = θ_0 + η_tiny·Σ Δ_θ during the phase, θ_0 + η·Σ Δ_θ after it. The sum is kept beside θ,
                // where rounding does not swallow it; only its effect on the next state may be lost to rounding.
                Schedule::Rescaled => {
                    let mut sum: Option<Parameters> = None;
                    branch.second_phase(observe, |step| {
                        let so_far = branch.added(sum.as_ref(), step)?;
                        if by_factors {
                            products.push(branch.products_to_add(step)?);
                        }
                        let theta_t = self.theta.plus(&so_far, |n| self.learning.tiny * branch.rate(n))?;
                        sum = Some(so_far);
                        Ok(Some(theta_t))
                    })?;
                    total = sum.filter(|_| !by_factors);
                }
            }
            if let Some(total) = total {
                theta = branch.applied(&theta, &total, memory)?;
            }
            for products in products {
                theta = branch.pulsed(&theta, &products, memory)?;
            }
        }
        Ok(theta)
    }

    /// Δ_θ(t) of a step by the rule, without what [`Learning::authors_code`] leaves out.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn update(&self, step: &Step) -> Result<Parameters> {
        let Self { model, learning, x, .. } = *self;
        if let Update::Own(_, own) = learning.rule.update {
            return self.own_update(own, step);
        }
        let Some(form) = learning.form() else {
            bail!("{} follows a gradient, not the steps of a second phase", learning.rule.title)
        };
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

    /// The products whose sums are Δ_θ(t), see [`Lesson::update`].
    ///
    /// # Errors
    /// Where the rule has none, and those of candle (shapes that differ).
    fn products(&self, step: &Step) -> Result<Products> {
        let Self { model, learning, x, .. } = *self;
        let Some(form) = learning.form() else { bail!("{} has no products", learning.rule.title) };
        let mut products =
            hebbian_products(&model.dynamics, self.theta, form, learning.sigma_prime, x, step)?;
        if learning.last_bias_frozen()
            && let Some(last) = products.biases.last_mut()
        {
            *last = None;
        }
        for c in self.theta.network.weights().filter(|c| !learning.learns(c.from, c.to)) {
            products.weights[c.weight].clear();
        }
        Ok(products)
    }

    /// Applies a wished change η·update through the synapses, η by layer, and returns the new θ.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn applied(
        &self,
        theta: &Parameters,
        update: &Parameters,
        memory: &mut Memory,
    ) -> Result<Parameters> {
        let law = &self.model.synapse;
        let update = &self.offset_update(update)?;
        if law.adds_up() {
            return theta.plus(update, |n| self.rate(n));
        }
        let wished = update.zip(update, |update, _, n| update.affine(self.rate(n), 0.0))?;
        let mut changed = theta.clone();
        let (wished, clock) = (wished.weights.iter().chain(&wished.biases), memory.now());
        for (i, (tensor, wished)) in changed.tensors_mut().zip(wished).enumerate() {
            let place = Place::of(i, tensor, clock)?;
            *tensor = synapse::change(law, &place, tensor, wished, &mut memory.own(i))?;
        }
        memory.tick();
        Ok(changed)
    }

    /// An update with the constant that [`noise`](crate::model::Noise::updates) adds to it, where weights learn.
    fn offset_update(&self, update: &Parameters) -> Result<Parameters> {
        let offset = self.model.noise.updates;
        if offset == 0.0 {
            return Ok(update.clone());
        }
        let mut update = update.clone();
        for c in update.network.clone().weights().filter(|c| self.learning.learns(c.from, c.to)) {
            update.weights[c.weight] = (&update.weights[c.weight] + offset)?;
        }
        let learning = update.biases.len() - usize::from(self.learning.last_bias_frozen());
        for bias in &mut update.biases[..learning] {
            *bias = (&*bias + offset)?;
        }
        Ok(update)
    }

    /// Adds the constant to an update given as products: one more product of each image, β times the constant.
    fn offset(&self, mut products: Products) -> Result<Products> {
        let offset = self.model.noise.updates * self.nudge.beta.value();
        if offset == 0.0 {
            return Ok(products);
        }
        for own in products.weights.iter_mut().filter(|own| !own.is_empty()) {
            let (rows, columns) = ((own[0].rows.ones_like()? * offset)?, own[0].columns.ones_like()?);
            own.push(Product { largest: own[0].largest.clone(), sign: 1.0, rows, columns });
        }
        for bias in products.biases.iter_mut().flatten() {
            *bias = (&*bias + offset)?;
        }
        Ok(products)
    }

    /// The products of a step, of which all are one update.
    fn products_to_add(&self, step: &Step) -> Result<Products> {
        let products = self.products(step)?;
        if step.t == 0 { self.offset(products) } else { Ok(products) }
    }

    /// Applies η times the sum of these products through synapses that multiply, and returns the new θ.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    fn pulsed(&self, theta: &Parameters, products: &Products, memory: &mut Memory) -> Result<Parameters> {
        let (images, clock) = (self.x.dim(0)?, memory.now());
        let numbers = |tensor: &Tensor| -> Result<Cow<'static, [f64]>> {
            Ok(Cow::Owned(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?))
        };
        let factor = |Product { sign, rows, columns, .. }: &Product| {
            Ok(Factor { sign: *sign, rows: numbers(rows)?, columns: numbers(columns)? })
        };
        let one: Cow<[f64]> = Cow::Owned(vec![1.0; images]);
        let of_bias = |delta: &Option<Tensor>| -> Result<Vec<Factor>> {
            let factor = |rows| Ok(Factor { sign: 1.0, rows: numbers(rows)?, columns: one.clone() });
            delta.iter().map(factor).collect()
        };
        let network = &theta.network;
        let weights = network
            .weights()
            .zip(&products.weights)
            .map(|(c, own)| Ok((c.rate(), own.iter().map(factor).collect::<Result<Vec<_>>>()?)));
        let biases = products.biases.iter().enumerate().map(|(n, delta)| Ok((n, of_bias(delta)?)));
        let all = weights.chain(biases).collect::<Result<Vec<_>>>()?;
        let mut changed = theta.clone();
        for (i, (tensor, (n, products))) in changed.tensors_mut().zip(all).enumerate() {
            if products.is_empty() {
                continue;
            }
            let rate = self.rate(n) / (self.nudge.beta.value() * images as f64);
            let (place, wished) = (Place::of(i, tensor, clock)?, Factors { rate, images, products });
            *tensor = synapse::pulse(&self.model.synapse, &place, tensor, &wished, &mut memory.own(i))?;
        }
        memory.tick();
        Ok(changed)
    }

    /// Applies the wished change −η·∇θ(tot) through the synapses, and returns the new θ.
    fn descended(&self, gradients: &Gradients, memory: &mut Memory) -> Result<Parameters> {
        self.applied(self.theta, &gradients.total()?.map(Tensor::neg)?, memory)
    }
}
