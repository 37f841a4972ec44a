//! The neural dynamics s_{t+1} = F(x, s_t, θ): the effect of one step on the states.
//!
//! States are one tensor (B, d_n) a layer, output first. Everything here also works on R replicas at once, networks of
//! one shape with a leading dimension of R: states (R, B, d_n), weights (R, d_n, d_{n+1}), biases (R, 1, d_n).

use super::Model;
use super::activation::Activation;
use super::delivery::Largest;
use super::loss::Loss;
use super::network::Parameters;
use super::noise::Noise;
use super::normal::Normal;
use super::readout::Readout;
use candle_core::{DType, Device, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// The force of the second phase on the output layer, −β ∂ℓ/∂s⁰.
#[derive(Clone, Copy, Debug)]
pub struct Nudge<'a> {
    /// ℓ.
    pub loss: Loss,
    /// y, one-hot targets (B, d_0).
    pub target: &'a Tensor,
    /// β.
    pub beta: Beta<'a>,
}

/// β, of either sign; replicas may differ in the sign.
#[derive(Clone, Copy, Debug)]
pub struct Beta<'a> {
    /// Its value, or |β| where there are `signs`.
    size: f64,
    /// ±1 for each replica, (R, 1, 1).
    signs: Option<&'a Tensor>,
}

impl From<f64> for Beta<'_> {
    fn from(size: f64) -> Self {
        Self { size, signs: None }
    }
}

impl<'a> Beta<'a> {
    /// ±`size` with the [`Beta::signs`] of R replicas.
    pub fn of_replicas(size: f64, signs: &'a Tensor) -> Self {
        Self { size, signs: Some(signs) }
    }

    /// Its value; for replicas, |β|.
    pub fn value(self) -> f64 {
        self.size
    }

    /// factor·β.
    pub fn times(self, factor: f64) -> Self {
        Self { size: factor * self.size, ..self }
    }

    /// The signs of the β of R replicas, (R, 1, 1).
    ///
    /// # Errors
    /// Only those of candle.
    pub fn signs(betas: &[f64], dtype: DType, device: &Device) -> Result<Tensor> {
        let signs: Vec<f64> = betas.iter().map(|beta| beta.signum()).collect();
        Tensor::new(signs, device)?.to_dtype(dtype)?.reshape((betas.len(), 1, 1))
    }

    /// factor(β)·`tensor`, where factor(−β) = −factor(β); `tensor` is (R, …, …) for replicas.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn scale(&self, tensor: &Tensor, factor: impl Fn(f64) -> f64) -> Result<Tensor> {
        let scaled = (tensor * factor(self.size))?;
        match self.signs {
            None => Ok(scaled),
            Some(signs) => scaled.broadcast_mul(signs),
        }
    }
}

/// Discrete or real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Time {
    /// Every step replaces the states (E.1, E.2, E.4).
    Discrete,
    /// Leaky integration of a differential equation with steps of ε (E.3, E.5).
    Real,
}

/// hⁿ, the input of a layer before σ, in its forward and its feedback part; (B, d_n) each.
#[derive(Clone, Debug)]
pub struct PreActivation {
    /// W_nn+1·ρ(sⁿ⁺¹) + b_n: the contribution of forward.n and the bias.
    pub forward: Tensor,
    /// W_nn−1·ρ(sⁿ⁻¹): the contribution of feedback.(n−1), or of the transposed forward.(n−1) where weights are tied;
    /// `None` at the output, which has no layer before it.
    pub feedback: Option<Tensor>,
}

impl PreActivation {
    /// hⁿ.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn total(&self) -> Result<Tensor> {
        match &self.feedback {
            None => Ok(self.forward.clone()),
            Some(feedback) => &self.forward + feedback,
        }
    }
}

/// The layers that a step updates; the others stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layers {
    /// All of them at once.
    All,
    /// The output and every second layer from it: 0, 2, ….
    Even,
    /// Layers 1, 3, ….
    Odd,
}

impl Layers {
    /// True where layer `n` is one of them.
    pub fn contains(self, n: usize) -> bool {
        match self {
            Layers::All => true,
            Layers::Even => n.is_multiple_of(2),
            Layers::Odd => !n.is_multiple_of(2),
        }
    }
}

/// The dynamics of the neurons.
#[derive(Clone, Copy, Debug)]
pub struct Dynamics {
    /// σ.
    pub activation: Activation,
    /// Discrete or real time.
    pub time: Time,
    /// ε, the length of a step in real time.
    pub epsilon: f64,
    /// True where states are kept in [0, 1] in real time.
    pub clamp: bool,
    /// The kind of output layer.
    pub readout: Readout,
    /// The normalisation of the input, if any.
    pub normal: Option<Normal>,
}

impl Dynamics {
    /// Discrete time, as in most of the paper.
    pub fn discrete(activation: Activation) -> Self {
        Self {
            activation,
            time: Time::Discrete,
            epsilon: 1.0,
            clamp: false,
            readout: Readout::None,
            normal: None,
        }
    }

    /// s_0 = 0 for every layer and every image of `x`.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn initial_state(theta: &Parameters, x: &Tensor) -> Result<Vec<Tensor>> {
        let state = |n: usize| {
            let mut shape = x.dims().to_vec();
            shape.pop();
            shape.push(theta.network.dims.width(n));
            Tensor::zeros(shape, theta.dtype(), theta.device())
        };
        (0..=theta.depth()).map(state).collect()
    }

    /// ρ(s), the output of neurons in state s: s itself in discrete time, σ(s) in real time.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn rho(&self, s: &Tensor) -> Result<Tensor> {
        match self.time {
            Time::Discrete => Ok(s.clone()),
            Time::Real => self.activation.apply(s),
        }
    }

    /// ρ(x), or ρ of x normalised.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn rho_of_input(&self, x: &Tensor) -> Result<Tensor> {
        match self.normal {
            Some(normal) => self.rho(&normal.apply(x)?),
            None => self.rho(x),
        }
    }

    /// [ρ](Dynamics::rho) of each layer, output first; layer 0 of a readout as it is, which is no neuron's state.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn rho_of_all(&self, s: &[Tensor]) -> Result<Vec<Tensor>> {
        let nearest = self.readout.nearest();
        s.iter().enumerate().map(|(n, s)| if n < nearest { Ok(s.clone()) } else { self.rho(s) }).collect()
    }

    /// W_x·ρ(x) + b_n, or P(w ⋆ ρ(x)) + b_n for a convolution: the contribution of the input x (B, d_in) to each layer
    /// that it is connected with, (B, d_n), in a layered network to the last hidden one.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn drive(&self, theta: &Parameters, x: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.drive_of(theta, &self.rho_of_input(x)?)
    }

    /// The drive of an input that sends `rho_x`.
    fn drive_of(&self, theta: &Parameters, rho_x: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let input = theta.depth() + 1;
        let drive = |n: usize| {
            let connection = theta.network.into_layer(n).find(|c| c.from == input);
            let drive =
                |c| theta.delivered(c, rho_x, &mut Largest::default())?.broadcast_add(&theta.bias(n)?);
            connection.map(drive).transpose()
        };
        (0..input).map(drive).collect()
    }

    /// hⁿ = Σ W_nm·ρ(sᵐ) + b_n over the layers m that are connected with n, for each of these layers, in its two
    /// parts; `None` for the others. The input's contribution is `drive`, that is [`Dynamics::drive`]. For a readout
    /// h⁰ is z at s, whatever `layers` are, and no hⁿ depends on it. For a convolution W_nm·ρ is P(w ⋆ ρ) from above
    /// and w̃ ⋆ P⁻¹(ρ) from below.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn pre_activations(
        &self,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        s: &[Tensor],
        layers: Layers,
    ) -> Result<Vec<Option<PreActivation>>> {
        self.delivered(theta, drive, &self.rho_of_all(s)?, layers)
    }

    /// The inputs of the layers where these send `rho_s`.
    fn delivered(
        &self,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        rho_s: &[Tensor],
        layers: Layers,
    ) -> Result<Vec<Option<PreActivation>>> {
        let mut largest = Largest::default();
        let mut of_layer = |n: usize| self.pre_activation(theta, drive, rho_s, n, &mut largest);
        let asked = |n: usize| layers.contains(n) || n < self.readout.nearest();
        (0..rho_s.len()).map(|n| asked(n).then(|| of_layer(n)).transpose()).collect()
    }

    /// hⁿ where the layers pass on `rho_s`, whose windows have their `largest` values as far as they are known.
    fn pre_activation(
        &self,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        rho_s: &[Tensor],
        n: usize,
        largest: &mut Largest,
    ) -> Result<PreActivation> {
        let (mut forward, mut feedback) = (drive[n].clone(), None);
        let sends = |from: usize| (self.readout.nearest()..rho_s.len()).contains(&from);
        for connection in theta.network.into_layer(n).filter(|c| sends(c.from)) {
            if !connection.is_forward() {
                theta.find_largest(connection.from, rho_s, largest)?;
            }
            let mut delivered = theta.delivered(connection, &rho_s[connection.from], largest)?;
            let part = if connection.is_forward() { &mut forward } else { &mut feedback };
            if connection.is_forward() && part.is_none() {
                delivered = delivered.broadcast_add(&theta.bias(n)?)?;
            }
            *part = Some(match part.take() {
                Some(before) => (before + delivered)?,
                None => delivered,
            });
        }
        let Some(forward) = forward else { bail!("nothing leads into layer {n} from above") };
        Ok(PreActivation { forward, feedback })
    }

    /// s with layer 0 as the readout of the others, z = W_out·ρ(s¹) + b; s itself where there is no readout.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn read_out(
        &self,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        mut s: Vec<Tensor>,
    ) -> Result<Vec<Tensor>> {
        if !self.readout.is_none() {
            s[0] = self
                .pre_activation(theta, drive, &self.rho_of_all(&s)?, 0, &mut Largest::default())?
                .total()?;
        }
        Ok(s)
    }

    /// e = −β ∂ℓ/∂z of each image, (B, d_0), what a readout sends back where it is nudged, from z as `h` has it; `None`
    /// where nothing is sent.
    fn sent_back(&self, h: &[Option<PreActivation>], nudge: Option<Nudge>) -> Result<Option<Tensor>> {
        match (self.readout, &h[0], nudge) {
            (Readout::Softmax, Some(z), Some(Nudge { loss, target, beta })) => {
                Ok(Some(beta.scale(&loss.descent(target, &z.total()?)?, |beta| beta)?))
            }
            _ => Ok(None),
        }
    }

    /// True where hⁿ is multiplied by σ′(sⁿ): in real time with tied weights, where F derives from Φ (Eq. 96), on the
    /// hidden layers. The printed equations omit σ′; the authors' code has it. The output layer is linear there, and
    /// so it is here.
    pub fn gated(&self, theta: &Parameters, n: usize) -> bool {
        self.time == Time::Real && theta.network.is_tied() && n > 0
    }

    /// The factor of −∂ℓ/∂s⁰ in F: β, or εβ in real time.
    pub fn nudge_strength(&self, beta: f64) -> f64 {
        match self.time {
            Time::Discrete => beta,
            Time::Real => self.epsilon * beta,
        }
    }
}

impl Model {
    /// F(x, s, θ), these layers at once. `drive` is [`Dynamics::drive`] for the same θ and x.
    ///
    /// - Discrete time, Eq. 85 (tied), Eq. 98 (untied): sⁿ ← σ(hⁿ)
    /// - real time, E.3 and E.5: sⁿ ← (1 − ε)sⁿ + ε·hⁿ, with tied weights ε·σ′(sⁿ)⊙hⁿ on the hidden layers
    ///
    /// and with a nudge (Eq. 86, 97, 99, 101), added to the new s⁰: −β ∂ℓ/∂s⁰, or −εβ ∂ℓ/∂s⁰ in real time. A damped
    /// step is d·s + (1 − d)·F(s), the nudge inside F, with d = [`Settle::damping`](super::Settle::damping). A
    /// [readout](super::readout) is z of the new state, and with a nudge what it has sent, which is part of hⁿ.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn step(
        &self,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        s: &[Tensor],
        layers: Layers,
        nudge: Option<Nudge>,
    ) -> Result<Vec<Tensor>> {
        Ok(self.step_with(&Noise::default(), theta, drive, s, layers, nudge)?.1)
    }

    /// [`Dynamics::drive`] as a circuit with this [`noise`](Model::noise) has it.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn drive(&self, theta: &Parameters, x: &Tensor) -> Result<Vec<Option<Tensor>>> {
        self.dynamics.drive_of(theta, &self.noise.sent(&self.dynamics.rho_of_input(x)?)?)
    }

    /// [`Model::step`] as a circuit with this [`noise`](Model::noise) takes it: the inputs that it delivers to the
    /// layers, and the new states. `drive` is [`Model::drive`].
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn noisy_step(
        &self,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        s: &[Tensor],
        layers: Layers,
        nudge: Option<Nudge>,
    ) -> Result<(Vec<Option<PreActivation>>, Vec<Tensor>)> {
        self.step_with(&self.noise, theta, drive, s, layers, nudge)
    }

    /// The step of a circuit with this `noise`, for both of the above.
    fn step_with(
        &self,
        noise: &Noise,
        theta: &Parameters,
        drive: &[Option<Tensor>],
        s: &[Tensor],
        layers: Layers,
        nudge: Option<Nudge>,
    ) -> Result<(Vec<Option<PreActivation>>, Vec<Tensor>)> {
        let dynamics = &self.dynamics;
        let rho_s = dynamics.rho_of_all(s)?;
        let rho_s = rho_s.iter().map(|rho| noise.sent(rho)).collect::<Result<Vec<_>>>()?;
        let mut h = dynamics.delivered(theta, drive, &rho_s, layers)?;
        for PreActivation { forward, feedback } in h.iter_mut().flatten() {
            *forward = noise.read(forward)?;
            *feedback = feedback.as_ref().map(|feedback| noise.read(feedback)).transpose()?;
        }
        let mut s_next = self.advance(theta, &h, s, nudge)?;
        if nudge.is_none() {
            s_next = dynamics.read_out(theta, drive, s_next)?;
        }
        for (s_next, _) in s_next.iter_mut().zip(&h).filter(|(_, h)| h.is_some()) {
            *s_next = noise.moved(s_next)?;
        }
        Ok((h, s_next))
    }

    /// Completes F(x, s, θ) from the inputs of the layers, `h`, that [`Dynamics::pre_activations`] gives for s and θ;
    /// a layer without one stays as it is, and so does a readout without a nudge.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn advance(
        &self,
        theta: &Parameters,
        h: &[Option<PreActivation>],
        s: &[Tensor],
        nudge: Option<Nudge>,
    ) -> Result<Vec<Tensor>> {
        let Self { dynamics, settle, .. } = self;
        let sent = dynamics.sent_back(h, nudge)?;
        let next = |n: usize| -> Result<Tensor> {
            if n < dynamics.readout.nearest() {
                return Ok(sent.as_ref().unwrap_or(&s[n]).clone());
            }
            let Some(h) = &h[n] else { return Ok(s[n].clone()) };
            let mut h = h.total()?;
            if let Some(sent) = &sent {
                for connection in theta.network.into_layer(n).filter(|c| c.from == 0) {
                    h = (h + sent.matmul(&theta.transposed(connection)?)?)?;
                }
            }
            let mut next = match dynamics.time {
                Time::Discrete => dynamics.activation.apply(&h)?,
                Time::Real => {
                    let h = match dynamics.gated(theta, n) {
                        true => (h * dynamics.activation.derivative(&s[n])?)?,
                        false => h,
                    };
                    ((&s[n] * (1.0 - dynamics.epsilon))? + (h * dynamics.epsilon)?)?
                }
            };
            if let Some(Nudge { loss, target, beta }) = nudge
                && n == 0
            {
                let strength = |beta| dynamics.nudge_strength(beta);
                next = (next + beta.scale(&loss.descent(target, &s[0])?, strength)?)?;
            }
            if dynamics.time == Time::Real && dynamics.clamp {
                next = next.clamp(0.0, 1.0)?;
            }
            match settle.damping {
                0.0 => Ok(next),
                damping => (&s[n] * damping)? + (next * (1.0 - damping))?,
            }
        };
        (0..s.len()).map(next).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settle;
    use crate::model::network::{Init, Network};
    use candle_core::{DType, Device};

    #[test]
    fn a_damped_step_is_the_weighted_mean_of_where_it_was_and_where_it_went() -> Result<()> {
        let theta = Parameters::init(
            Network::layered([3, 4, 2], true),
            Init::FanIn,
            0.0,
            1,
            DType::F64,
            &Device::Cpu,
        )?;
        let x = Tensor::new(&[[0.1, 0.5, 0.9]], &Device::Cpu)?;
        let s =
            [Tensor::new(&[[0.3, 0.6]], &Device::Cpu)?, Tensor::new(&[[0.2, 0.4, 0.7, 0.9]], &Device::Cpu)?];
        let step = |damping: f64| -> Result<Vec<f64>> {
            let mut model = Model::discrete(Activation::Sigmoid, Settle::synchronous(1, 0.0));
            model.settle.damping = damping;
            let s_next = model.step(&theta, &model.dynamics.drive(&theta, &x)?, &s, Layers::All, None)?;
            Tensor::cat(&s_next, 1)?.flatten_all()?.to_vec1()
        };
        let (whole, damped) = (step(0.0)?, step(0.8)?);
        for ((s, whole), damped) in [0.3, 0.6, 0.2, 0.4, 0.7, 0.9].into_iter().zip(whole).zip(damped) {
            assert!((damped - (0.8 * s + 0.2 * whole)).abs() < 1e-12);
        }
        Ok(())
    }
}
