//! A referee between an update and the gradient: what turns Δtot away from −∇, switched off one cause at a time.
//!
//! The gradient is that of BPTT with T and K so large that nothing changes any more: [`rbp::whole`] at the
//! stationary state, in float64. In discrete time an update without any of the causes *is* the gradient. With
//! D = diag σ′(h_*) and symmetric W the steps are s ← σ(Ws), with the Jacobian DW, and the nudge e = y − s⁰ makes
//!
//! ```text
//! what the second phase does     Δs(t) = (DW)ᵗ e        the nudge stands outside σ (Eq. 86)
//! with σ′ on the nudge           Δs(t) = (DW)ᵗ De
//! what the gradient is       −D∇s(t)  = D(WD)ᵗ e  =  (DW)ᵗ De
//! ```
//!
//! so the σ′ that theory misses is one on the nudge, and none in the update, which is Eq. 12 or 89 as printed. Where
//! W is not symmetric the gradient has Wᵀ, D(WᵀD)ᵗe = (DWᵀ)ᵗDe, and a second phase that is rid of the asymmetry of
//! the weights, with − D(W − Wᵀ)(s − s_*) at every step, has exactly that: what the angle then falls by is what
//! asymmetry costs.

use crate::data::Batch;
use crate::engine::larger;
use crate::learning::angle::moved;
use crate::learning::{Learning, Lesson, Memory, Schedule, SigmaPrime, Update};
use crate::model::dynamics::{Layers, Nudge, Time};
use crate::model::noise::{Moment, Noise};
use crate::model::synapse::device::Fault;
use crate::model::{Model, Parameters, Settled, Synapse};
use crate::reference::{Asymmetry, rbp};
use anyhow::{Result, bail};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// The causes that turn an update away from the gradient, in the order in which they are switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Noise and converters of `[noise]`; off: none.
    Noise,
    /// A fault of devices; off: [`Devices::without`](crate::model::synapse::Devices::without).
    Device(Fault),
    /// Rounding to 32 bits; off: 64 bits.
    Rounding,
    /// States that have not settled after T steps; off: they move by at most [`STATIONARY`], if necessary with damped
    /// steps in both phases.
    Unsettled,
    /// Weights that change during the second phase; off: they stay, η = 0, or devices take all changes after it.
    Continual,
    /// β is not infinitesimal; off: β/1000, the mean of both signs.
    Beta,
    /// K steps; off: as many as it takes until a step adds at most [`ARRIVED`] of any gradient.
    Truncated,
    /// The nudge lacks the σ′ of the output, and the update may have one; off: σ′(h⁰)⊙(y − s⁰) as the nudge, updates
    /// without σ′. In discrete time only.
    SigmaPrime,
    /// Untied feedback weights; off: the second phase corrects the asymmetry of the weights, as AsymEP corrects that
    /// of the Jacobian, of which σ′ is a part. In real time, where σ′ is no cause of its own, it corrects that of the
    /// Jacobian.
    Untied,
}

/// All causes, in the order in which they are switched off.
pub const CAUSES: [Cause; 13] = [
    Cause::Noise,
    Cause::Device(Fault::CycleToCycle),
    Cause::Device(Fault::Granularity),
    Cause::Device(Fault::DeviceToDevice),
    Cause::Device(Fault::Asymmetry),
    Cause::Device(Fault::Bounds),
    Cause::Rounding,
    Cause::Unsettled,
    Cause::Continual,
    Cause::Beta,
    Cause::Truncated,
    Cause::SigmaPrime,
    Cause::Untied,
];

/// The bound on the change of a stationary state in a step.
pub const STATIONARY: f64 = 1e-12;
/// The bound on the last step's part of a gradient that counts as complete.
pub const ARRIVED: f64 = 1e-6;
/// The most steps to settle, and to wait for gradients.
const MOST_STEPS: usize = 3000;
/// The divisor that makes β infinitesimal: truncation falls with its square, and float64 leaves eight digits of an
/// update.
const BETA_DIVISOR: f64 = 1000.0;
/// The damping for networks that do not settle otherwise; their stationary states are the same.
const CALM: f64 = 0.5;

impl Cause {
    /// The name in JSON, and that in print.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Cause::Noise => ("noise", "noise elsewhere"),
            Cause::Device(Fault::CycleToCycle) => ("cycle_to_cycle", "cycle to cycle"),
            Cause::Device(Fault::Granularity) => ("granularity", "granularity"),
            Cause::Device(Fault::DeviceToDevice) => ("device_to_device", "device to device"),
            Cause::Device(Fault::Asymmetry) => ("asymmetry", "asymmetry"),
            Cause::Device(Fault::Bounds) => ("bounds", "bounds"),
            Cause::Rounding => ("rounding", "float32"),
            Cause::Unsettled => ("T", "unsettled T"),
            Cause::Continual => ("eta", "continual η"),
            Cause::Beta => ("beta", "finite β"),
            Cause::Truncated => ("K", "finite K"),
            Cause::SigmaPrime => ("sigma_prime", "missing σ′"),
            Cause::Untied => ("untied", "untied weights"),
        }
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        self.names().0
    }

    /// The name in print.
    pub fn title(self) -> &'static str {
        self.names().1
    }

    /// True where a network of this kind can have the cause.
    pub fn applies(self, model: &Model, learning: &Learning, theta: &Parameters) -> bool {
        match self {
            Cause::Noise => !model.noise.is_none(),
            Cause::Device(_) => model.synapse.devices().is_some_and(|law| !law.is_ideal()),
            Cause::Rounding => theta.dtype() != DType::F64,
            Cause::Unsettled | Cause::Beta | Cause::Truncated => true,
            Cause::Continual => learning.rule.is_continual(),
            // AsymEP has neither.
            _ if learning.rule.corrects.is_some() => false,
            // A readout is nudged inside σ.
            Cause::SigmaPrime if !model.dynamics.readout.is_none() => {
                learning.sigma_prime != SigmaPrime::Ignored
            }
            Cause::SigmaPrime => model.dynamics.time == Time::Discrete,
            Cause::Untied => !theta.network.is_tied(),
        }
    }
}

/// A network and a minibatch, the state it settles in, and the gradient there.
pub struct Case {
    /// With its noise and devices.
    model: Model,
    /// The model without noise, damped where it does not settle otherwise.
    calm: Model,
    /// In the type that it is given in.
    given: Problem,
    /// In float64.
    exact: Problem,
    settled: Settled,
    /// The choice of random numbers for devices and noise.
    moment: u64,
    /// ∇θ(tot).
    pub gradient: Parameters,
    /// The number of steps until the gradient was complete.
    pub arrival: usize,
}

/// Weights with a minibatch in their type.
struct Problem {
    theta: Parameters,
    x: Tensor,
    y: Tensor,
}

impl Problem {
    fn new(theta: Parameters, batch: &Batch) -> Result<Self> {
        Ok(Self { x: batch.x_for(&theta)?, y: batch.y_for(&theta)?, theta })
    }
}

impl Case {
    /// Writes the weights into the arrays of devices, where there are any, settles the network and takes the
    /// gradient. `theta` may be of any float type.
    ///
    /// # Errors
    /// Where the network settles in no stationary state, not with damped steps either, and those of candle.
    pub fn new(model: &Model, theta: &Parameters, batch: &Batch) -> Result<Self> {
        let given = Problem::new(programmed(model, theta)?.0, batch)?;
        let exact = Problem::new(given.theta.map(|tensor| tensor.to_dtype(DType::F64))?, batch)?;
        let Problem { theta, x, y } = &exact;
        let (calm, settled) = stationary(&without_noise(model), theta, x)?;
        let (gradient, arrival) = rbp::whole(&calm, theta, x, y, settled.state(), ARRIVED, MOST_STEPS)?;
        Ok(Self { model: model.clone(), calm, given, exact, settled, moment: 0, gradient, arrival })
    }

    /// Returns the case with other random numbers for devices and noise.
    pub fn at_moment(self, moment: u64) -> Self {
        Self { moment, ..self }
    }

    /// Δtot at `beta` with the causes in `off` switched off.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn update(&self, learning: &Learning, beta: f64, off: &[Cause]) -> Result<Parameters> {
        let is_off = |cause| off.contains(&cause);
        // States that have settled are in float64.
        let is_exact = is_off(Cause::Rounding) || is_off(Cause::Unsettled);
        let Problem { theta, x, y } = if is_exact { &self.exact } else { &self.given };
        let mut model = if is_off(Cause::Unsettled) { self.calm.clone() } else { self.model.clone() };
        model.noise = if is_off(Cause::Noise) { Noise::default() } else { self.model.noise.clone() };
        model.noise.begin(Moment::Training(self.moment));
        let faults: Vec<Fault> =
            Fault::ALL.into_iter().filter(|&fault| is_off(Cause::Device(fault))).collect();
        let devices = self.model.synapse.devices().map(|law| law.without(&faults));
        let has_faults = devices.as_ref().is_some_and(|law| !law.is_ideal());
        if let Some(law) = devices {
            model.synapse = Synapse(Arc::new(law));
        }
        let settled = if is_off(Cause::Unsettled) { self.settled.clone() } else { model.settle(theta, x)? };
        // What the rule wishes is its update, unless something else is made of it.
        let as_wished = !has_faults && model.noise.updates == 0.0;
        let mut learning = learning.clone();
        if is_off(Cause::Continual) {
            match learning.rule.update {
                Update::Nudged(Schedule::Continual, form) if !as_wished => {
                    learning.rule.update = Update::Nudged(Schedule::Sum, form);
                }
                _ => learning.learning_rates.fill(0.0),
            }
        }
        if is_off(Cause::Truncated) {
            learning.K = self.arrival;
        }
        if is_off(Cause::Untied) {
            learning.rule.corrects = Some(match model.dynamics.time {
                Time::Discrete => Asymmetry::Weights,
                Time::Real => Asymmetry::Jacobian,
            });
        }
        let mut target = y.clone();
        if is_off(Cause::SigmaPrime) {
            learning.sigma_prime = SigmaPrime::Ignored;
            if model.dynamics.readout.is_none() {
                target = gated_target(&model, theta, x, y, settled.state())?;
            }
        }
        let at = |beta: f64| -> Result<Parameters> {
            let nudge = model.nudge(&target, beta);
            Ok(match as_wished {
                true => total(&model, &learning, theta, x, nudge, &settled)?,
                false => self.made(&model, &learning, theta, x, nudge, &settled)?,
            })
        };
        match is_off(Cause::Beta) {
            false => at(beta),
            true => {
                let small = beta / BETA_DIVISOR;
                let both = at(small)?.plus(&at(-small)?, |_| 1.0)?;
                Ok(both.map(|tensor| tensor * 0.5)?)
            }
        }
    }

    /// The effect of devices, and of constants in updates, in a second phase: (θ′ − θ)/η.
    fn made(
        &self,
        model: &Model,
        learning: &Learning,
        theta: &Parameters,
        x: &Tensor,
        nudge: Nudge,
        settled: &Settled,
    ) -> candle_core::Result<Parameters> {
        let (theta, mut memory) = programmed(model, theta)?;
        memory.clock = memory.clock.map(|_| self.moment);
        let theta_end =
            Lesson::new(model, learning, &theta, x, nudge, settled).learn(&mut memory, &mut |_| Ok(()))?;
        moved(learning, &theta, &theta_end)
    }
}

/// The weights as arrays of devices have them when they are written, and what these remember.
fn programmed(model: &Model, theta: &Parameters) -> candle_core::Result<(Parameters, Memory)> {
    let (mut theta, mut memory) = (theta.clone(), Memory::new(model, theta)?);
    memory.program(&model.synapse, &mut theta)?;
    Ok((theta, memory))
}

fn without_noise(model: &Model) -> Model {
    Model { noise: Noise::default(), ..model.clone() }
}

/// Δtot = Σ Δθ(t), t = 0…K−1, of a second phase from `settled`. `theta` is not changed.
///
/// # Errors
/// Only those of candle.
pub fn total(
    model: &Model,
    learning: &Learning,
    theta: &Parameters,
    x: &Tensor,
    nudge: Nudge,
    settled: &Settled,
) -> candle_core::Result<Parameters> {
    let lesson = Lesson::new(model, learning, theta, x, nudge, settled);
    let mut total = None;
    lesson.learn(&mut Memory::new(model, theta)?, &mut |step| {
        total = Some(lesson.added(total.as_ref(), step)?);
        Ok(())
    })?;
    match total {
        // The mean of two second phases.
        Some(total) => total.plus(&total, |_| 1.0 / learning.nudging.signs().len() as f64 - 1.0),
        None => theta.plus(theta, |_| -1.0),
    }
}

/// s⁰ + σ′(h⁰)⊙(y − s⁰), the target that puts σ′ on the nudge: as if this stood inside σ, to first order in β.
fn gated_target(
    model: &Model,
    theta: &Parameters,
    x: &Tensor,
    y: &Tensor,
    s: &[Tensor],
) -> candle_core::Result<Tensor> {
    let h = model.dynamics.pre_activations(theta, &model.dynamics.drive(theta, x)?, s, Layers::Even)?;
    let Some(h) = &h[0] else { candle_core::bail!("layer 0 is even") };
    let h = h.total()?;
    let gate = model.dynamics.activation.derivative(&h)?;
    &s[0] + (gate * (y - &s[0])?)?
}

/// The state in which no neuron moves by more than [`STATIONARY`], and the model that settles there, damped if
/// necessary.
fn stationary(model: &Model, theta: &Parameters, x: &Tensor) -> Result<(Model, Settled)> {
    let mut left = f64::NAN;
    for damping in [model.settle.damping, model.settle.damping.max(CALM)] {
        let mut calm = model.clone();
        calm.settle.damping = damping;
        calm.settle.steps = MOST_STEPS;
        calm.settle.tolerance = STATIONARY;
        let settled = calm.settle(theta, x)?;
        left = settled.residuals()?.into_iter().fold(0.0, larger);
        if left <= STATIONARY {
            return Ok((calm, settled));
        }
    }
    bail!(
        "the network settles in no stationary state: after {MOST_STEPS} steps, damped by {CALM}, a state still moves by \
         {left:.1e}. So there is no gradient at a stationary state to compare with; weights that are less \
         trained, or smaller, may have one"
    )
}
