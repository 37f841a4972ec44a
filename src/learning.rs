//! The two phases and what the second does to the weights: EP, C-EP, VF, C-VF and Algorithm 5.

use crate::dynamics::{Beta, Dynamics, Nudge, PreActivation};
use crate::network::{Forward, Parameters};
use candle_core::{D, DType, Result, Tensor};
use serde::{Deserialize, Serialize};

/// A learning rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Equilibrium Propagation (Alg. 1): tied weights, one update after the second phase.
    Ep,
    /// Continual EP (Alg. 2): tied weights, an update at every step of the second phase.
    Cep,
    /// Algorithm 5: C-EP with tiny learning rates, its total update rescaled afterwards.
    CepRescaled,
    /// Vector field: untied weights, the sum of the updates of Eq. 12 applied after the second phase.
    Vf,
    /// Continual vector field (Eq. 12, E.4): untied weights, an update at every step.
    Cvf,
    /// Backpropagation through the last K steps of the first phase (Alg. 3), a baseline.
    Bptt,
    /// K steps of recurrent backpropagation from the settled state (Alg. 4), a baseline.
    Rbp,
}

impl Rule {
    /// Whether the rule needs feedback weights that are the transposed forward weights (`Some(true)`),
    /// or of their own (`Some(false)`); `None` where either will do.
    pub fn tied(self) -> Option<bool> {
        match self {
            Rule::Ep | Rule::Cep | Rule::CepRescaled => Some(true),
            Rule::Vf | Rule::Cvf => Some(false),
            Rule::Bptt | Rule::Rbp => None,
        }
    }

    /// Whether weights change at every step of the second phase.
    pub fn continual(self) -> bool {
        matches!(self, Rule::Cep | Rule::CepRescaled | Rule::Cvf)
    }

    /// Whether the rule has a second phase with Hebbian updates at all.
    pub fn hebbian(self) -> bool {
        self.tied().is_some()
    }

    /// The name in print.
    pub fn title(self) -> &'static str {
        match self {
            Rule::Ep => "EP",
            Rule::Cep => "C-EP",
            Rule::CepRescaled => "C-EP rescaled",
            Rule::Vf => "VF",
            Rule::Cvf => "C-VF",
            Rule::Bptt => "BPTT",
            Rule::Rbp => "RBP",
        }
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Ep => "ep",
            Rule::Cep => "cep",
            Rule::CepRescaled => "cep-rescaled",
            Rule::Vf => "vf",
            Rule::Cvf => "cvf",
            Rule::Bptt => "bptt",
            Rule::Rbp => "rbp",
        }
    }
}

/// How ∂F/∂W of the vector-field rules treats σ′ (discrete time; in real time ∂F/∂W has none).
///
/// With h_fⁿ = W_nn+1·sⁿ⁺¹ + b_n and h_bⁿ = W_nn−1·sⁿ⁻¹ at the old state s_t and the weights θ_t of the step:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigmaPrime {
    /// Left out, as Eq. 12 prints the rule.
    Ignored,
    /// Every connection into layer n is gated by σ′ of what it alone delivers: forward.n and the bias by
    /// σ′(h_fⁿ), feedback.(n−1) by σ′(h_bⁿ). Not in the paper's text; the published rows of Table 3 were very
    /// probably made with it.
    Partial,
    /// Every connection into layer n, its bias too, is gated by σ′(h_fⁿ + h_bⁿ): ∂F/∂W of Eq. 67.
    Full,
}

impl SigmaPrime {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            SigmaPrime::Ignored => "ignored",
            SigmaPrime::Partial => "partial",
            SigmaPrime::Full => "full",
        }
    }

    /// Δs of one layer, (B, d_n), as the forward and as the feedback connections into it learn from it.
    fn gate(self, dynamics: &Dynamics, h: &PreActivation, delta: &Tensor) -> Result<(Tensor, Tensor)> {
        let gated = |h: &Tensor| delta * dynamics.activation.derivative(h)?;
        match (self, &h.feedback) {
            (SigmaPrime::Ignored, _) => Ok((delta.clone(), delta.clone())),
            (SigmaPrime::Partial, Some(feedback)) => Ok((gated(&h.forward)?, gated(feedback)?)),
            (SigmaPrime::Full, _) | (SigmaPrime::Partial, None) => {
                let gated = gated(&h.total()?)?;
                Ok((gated.clone(), gated))
            }
        }
    }
}

/// One step of the second phase. States are (B, d_n), output first.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// t, from 0.
    pub t: usize,
    /// s_t.
    pub s: &'a [Tensor],
    /// hⁿ at s_t and θ_t.
    pub h: &'a [PreActivation],
    /// s_{t+1}.
    pub s_next: &'a [Tensor],
}

/// Δ_θ(t), the normalised update of one `step` from s to s', a mean over the batch. `x` is (B, d_in); ρ is
/// [`Dynamics::rate`].
///
/// - tied (Eq. 89, 95, E.3): Δ_{W nn+1} = (ρ(s'ⁿ)·ρ(s'ⁿ⁺¹)ᵀ − ρ(sⁿ)·ρ(sⁿ⁺¹)ᵀ)/β
/// - untied (E.4, E.5): Δ_{W nn+1} = (s'ⁿ − sⁿ)·ρ(sⁿ⁺¹)ᵀ/β, Δ_{W n+1n} = (s'ⁿ⁺¹ − sⁿ⁺¹)·ρ(sⁿ)ᵀ/β, with
///   s'ⁿ − sⁿ gated as [`SigmaPrime`] says
/// - weights from the input as the others, with ρ(x) on both sides; biases as if their input were 1.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn hebbian_update(
    dynamics: &Dynamics,
    tied: bool,
    sigma_prime: SigmaPrime,
    x: &Tensor,
    step: &Step,
    beta: Beta,
) -> Result<Parameters> {
    let &Step { s, h, s_next, .. } = step;
    let last = s.len() - 1;
    let scaled = |sum: &Tensor| beta.signed(sum, 1.0 / (beta.size * x.dim(D::Minus2)? as f64));
    let outer = |a: &Tensor, b: &Tensor| a.t()?.matmul(b);
    let rates = |s: &[Tensor]| -> Result<Vec<Tensor>> { s.iter().map(|s| dynamics.rate(s)).collect() };
    let (rate, rate_next) = (rates(s)?, rates(s_next)?);
    let (before, after) = if tied { (&rate[..], &rate_next[..]) } else { (s, s_next) };
    let delta: Vec<Tensor> = (after.iter().zip(before)).map(|(a, b)| a - b).collect::<Result<_>>()?;
    let (delta, delta_feedback) = match sigma_prime {
        SigmaPrime::Ignored => (delta.clone(), delta),
        _ => {
            let gated = h.iter().zip(&delta).map(|(h, delta)| sigma_prime.gate(dynamics, h, delta));
            gated.collect::<Result<Vec<_>>>()?.into_iter().unzip()
        }
    };
    let mut forward = Vec::new();
    let mut feedback = Vec::new();
    for n in 0..=last {
        let weight = if n == last {
            outer(&delta[n], &dynamics.rate(x)?)?
        } else if tied {
            (outer(&rate_next[n], &rate_next[n + 1])? - outer(&rate[n], &rate[n + 1])?)?
        } else {
            feedback.push(scaled(&outer(&delta_feedback[n + 1], &rate[n])?)?);
            outer(&delta[n], &rate[n + 1])?
        };
        let over_batch = match delta[n].rank() {
            2 => delta[n].sum(0)?,
            _ => delta[n].sum_keepdim(D::Minus2)?,
        };
        forward.push(Forward { weight: scaled(&weight)?, bias: scaled(&over_batch)? });
    }
    let feedback = (!tied).then_some(feedback);
    Ok(Parameters { forward, feedback })
}

/// The largest |s' − s| of any neuron, for each image.
fn largest_changes(s_next: &[Tensor], s: &[Tensor]) -> Result<Vec<f64>> {
    let layers: Vec<Tensor> = (s_next.iter().zip(s))
        .map(|(next, s)| (next - s)?.abs()?.max(D::Minus1)?.flatten_all())
        .collect::<Result<_>>()?;
    Tensor::stack(&layers, 0)?.max(0)?.to_dtype(DType::F64)?.to_vec1()
}

/// Replaces the states of `those` images, a mask of shape (…, B, 1), by `new` ones.
fn replace(states: &mut [Tensor], those: &Tensor, new: &[Tensor]) -> Result<()> {
    for (state, new) in states.iter_mut().zip(new) {
        *state = those.broadcast_as(state.shape())?.where_cond(new, state)?;
    }
    Ok(())
}

/// Steps between two looks at whether the first phase has settled.
pub const SETTLE_CHECK: usize = 4;

/// How the two phases are run (Table 2).
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The learning rule.
    pub rule: Rule,
    /// Whether feedback weights are the transposed forward weights.
    pub tied: bool,
    /// What the updates of VF and C-VF make of σ′; `Ignored` with all other rules.
    pub sigma_prime: SigmaPrime,
    /// T, steps of the first phase.
    pub first_steps: usize,
    /// The first phase of an image ends where none of its neurons moves by more than this (line 4 of
    /// Algorithms 1 and 2), at the latest after T steps; 0 runs all T. Looked at every [`SETTLE_CHECK`] steps.
    pub settle_tolerance: f64,
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
    /// Whether the bias of the last hidden layer never learns (see [`Protocol::authors_code`]).
    pub fn last_bias_frozen(&self) -> bool {
        self.authors_code && self.rule == Rule::Cvf
    }

    /// Whether to look, after step `t` (from 0), if the states have settled.
    pub fn looks_settled_at(&self, t: usize) -> bool {
        self.settle_tolerance > 0.0 && (t + 1).is_multiple_of(SETTLE_CHECK)
    }

    /// The first phase from s_0 = 0: the last three states s_{T−2}, s_{T−1}, s_T, oldest first, and how many
    /// steps it took each image.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn first_phase(
        &self,
        dynamics: &Dynamics,
        theta: &Parameters,
        x: &Tensor,
    ) -> Result<([Vec<Tensor>; 3], Vec<usize>)> {
        let drive = dynamics.drive(theta, x)?;
        let s_0 = dynamics.rest(theta, x)?;
        let mut recent = [s_0.clone(), s_0.clone(), s_0];
        // What images were left with that are through, after so many steps.
        let mut settled = recent.clone();
        let mut images = x.dims().to_vec();
        images[x.rank() - 1] = 1;
        let mut steps = vec![0; images.iter().product()];
        for t in 0..self.first_steps {
            let s_next = dynamics.step(theta, &drive, &recent[2], None)?;
            recent.rotate_left(1);
            recent[2] = s_next;
            let rest: Vec<bool> = if t + 1 == self.first_steps {
                vec![true; steps.len()]
            } else if self.looks_settled_at(t) {
                let changes = largest_changes(&recent[2], &recent[1])?;
                changes.iter().map(|&change| change <= self.settle_tolerance).collect()
            } else {
                continue;
            };
            let mut through = vec![0u8; steps.len()];
            for (i, steps) in steps.iter_mut().enumerate().filter(|(i, steps)| rest[*i] && **steps == 0) {
                (through[i], *steps) = (1, t + 1);
            }
            if !through.contains(&0) {
                return Ok((recent, steps));
            }
            if through.contains(&1) {
                let through = Tensor::from_vec(through, &images[..], x.device())?;
                for (settled, recent) in settled.iter_mut().zip(&recent) {
                    replace(settled, &through, recent)?;
                }
            }
            if !steps.contains(&0) {
                break;
            }
        }
        Ok((settled, steps))
    }

    /// The second phase from the settled state `s_star`: K nudged steps, the weights changing at
    /// each (continual rules, Eq. 94 and 99) or after all (Alg. 1). Returns the new θ.
    ///
    /// `observe` sees every step, before the weights change.
    ///
    /// # Errors
    /// Those of candle and of `observe`.
    pub fn second_phase(
        &self,
        dynamics: &Dynamics,
        theta: &Parameters,
        x: &Tensor,
        nudge: Nudge,
        s_star: &[Tensor],
        mut observe: impl FnMut(&Step) -> Result<()>,
    ) -> Result<Parameters> {
        let rate = |n: usize| self.learning_rates[n];
        let mut theta_t = theta.clone();
        let mut s = s_star.to_vec();
        let mut drive = dynamics.drive(theta, x)?;
        let mut total: Option<Parameters> = None;
        for t in 0..self.second_steps {
            let h = dynamics.pre_activations(&theta_t, &drive, &s)?;
            let s_next = dynamics.advance(&theta_t, &h, &s, Some(nudge))?;
            let step = Step { t, s: &s, h: &h, s_next: &s_next };
            observe(&step)?;
            if !self.telescopes() {
                let update = self.update(dynamics, x, &step, nudge.beta)?;
                if self.rule == Rule::Cep || self.rule == Rule::Cvf {
                    theta_t = theta_t.plus(&update, rate)?;
                } else {
                    let sum = match total {
                        Some(total) => total.plus(&update, |_| 1.0)?,
                        None => update,
                    };
                    if self.rule == Rule::CepRescaled {
                        // The tiny updates add up beside θ, where rounding does not swallow them;
                        // what it may swallow is only their influence on the next state.
                        theta_t = theta.plus(&sum, |n| self.tiny * rate(n))?;
                    }
                    total = Some(sum);
                }
                if self.rule.continual() {
                    drive = dynamics.drive(&theta_t, x)?;
                }
            }
            s = s_next;
        }
        match total {
            // VF, and the rescaled total of Algorithm 5.
            Some(total) => theta.plus(&total, rate),
            None if self.telescopes() => {
                let whole = Step { t: 0, s: s_star, h: &[], s_next: &s };
                theta.plus(&self.update(dynamics, x, &whole, nudge.beta)?, rate)
            }
            None => Ok(theta_t),
        }
    }

    /// Whether the sum of the updates over the steps is the update from the first state to the last
    /// (Eq. 5), so that it need not be computed step by step.
    fn telescopes(&self) -> bool {
        self.rule == Rule::Ep
    }

    /// [`hebbian_update`], less what [`Protocol::authors_code`] leaves out.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn update(&self, dynamics: &Dynamics, x: &Tensor, step: &Step, beta: Beta) -> Result<Parameters> {
        let mut update = hebbian_update(dynamics, self.tied, self.sigma_prime, x, step, beta)?;
        if self.last_bias_frozen()
            && let Some(last) = update.forward.last_mut()
        {
            last.bias = last.bias.zeros_like()?;
        }
        Ok(update)
    }
}
