//! The two phases and what the second does to the weights: EP, C-EP, VF and C-VF.

use crate::dynamics::{Dynamics, Nudge};
use crate::network::{Forward, Parameters};
use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

/// A learning rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Equilibrium Propagation (Alg. 1): tied weights, one update after the second phase.
    Ep,
    /// Continual EP (Alg. 2): tied weights, an update at every step of the second phase.
    Cep,
    /// Vector field: untied weights, the sum of the updates of Eq. 12 applied after the second phase.
    Vf,
    /// Continual vector field (Eq. 12, E.4): untied weights, an update at every step.
    Cvf,
}

impl Rule {
    /// Whether the rule is for networks whose feedback weights are the transposed forward weights.
    pub fn tied(self) -> bool {
        matches!(self, Rule::Ep | Rule::Cep)
    }

    /// Whether weights change at every step of the second phase.
    pub fn continual(self) -> bool {
        matches!(self, Rule::Cep | Rule::Cvf)
    }

    /// Δ_θ(t), the normalised update between two consecutive states s_t (`s`) and s_{t+1} (`s_next`),
    /// a mean over the batch. `x` is (B, d_in), states are (B, d_n), output first.
    ///
    /// - tied (Eq. 89, 95): Δ_{W nn+1} = (s'ⁿ·s'ⁿ⁺¹ᵀ − sⁿ·sⁿ⁺¹ᵀ)/β
    /// - untied (E.4): Δ_{W nn+1} = (s'ⁿ − sⁿ)·sⁿ⁺¹ᵀ/β, Δ_{W n+1n} = (s'ⁿ⁺¹ − sⁿ⁺¹)·sⁿᵀ/β
    /// - both: Δ_{W x} = (s'ᴺ − sᴺ)·xᵀ/β, and biases as if their input were 1.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn update(self, x: &Tensor, s: &[Tensor], s_next: &[Tensor], beta: f64) -> Result<Parameters> {
        let last = s.len() - 1;
        let scale = 1.0 / (beta * x.dim(0)? as f64);
        let outer = |a: &Tensor, b: &Tensor| a.t()?.matmul(b);
        let delta: Vec<Tensor> = (s_next.iter().zip(s)).map(|(next, s)| next - s).collect::<Result<_>>()?;
        let mut forward = Vec::new();
        let mut feedback = Vec::new();
        for n in 0..=last {
            let weight = if n == last {
                outer(&delta[n], x)?
            } else if self.tied() {
                (outer(&s_next[n], &s_next[n + 1])? - outer(&s[n], &s[n + 1])?)?
            } else {
                feedback.push((outer(&delta[n + 1], &s[n])? * scale)?);
                outer(&delta[n], &s[n + 1])?
            };
            forward.push(Forward { weight: (weight * scale)?, bias: (delta[n].sum(0)? * scale)? });
        }
        let feedback = (!self.tied()).then_some(feedback);
        Ok(Parameters { forward, feedback })
    }
}

/// How the two phases are run (Table 2).
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The learning rule.
    pub rule: Rule,
    /// T, steps of the first phase.
    pub first_steps: usize,
    /// K, steps of the second phase.
    pub second_steps: usize,
    /// η_n, learning rate of layer n (forward.n and feedback.n), output first.
    pub learning_rates: Vec<f64>,
    /// Every step of both phases goes half the way, s ← (s + F(s))/2: the fixed points are the same,
    /// and a synchronous step can no longer overshoot into a cycle of period 2. Not in the paper.
    pub damped: bool,
    /// Reproduce a quirk of the authors' code: with C-VF the bias of layer N never learns.
    pub authors_code: bool,
}

impl Protocol {
    /// Whether the bias of the last hidden layer never learns (see [`Protocol::authors_code`]).
    pub fn last_bias_frozen(&self) -> bool {
        self.authors_code && self.rule == Rule::Cvf
    }

    /// The first phase from s_0 = 0: the last three states s_{T−2}, s_{T−1}, s_T, oldest first.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn first_phase(
        &self,
        dynamics: &Dynamics,
        theta: &Parameters,
        x: &Tensor,
    ) -> Result<[Vec<Tensor>; 3]> {
        let drive = dynamics.drive(theta, x)?;
        let s_0 = dynamics.rest(theta, x.dim(0)?)?;
        let mut recent = [s_0.clone(), s_0.clone(), s_0];
        for _ in 0..self.first_steps {
            let mut s_next = dynamics.step(theta, &drive, &recent[2], None)?;
            if self.damped {
                halfway(&mut s_next, &recent[2])?;
            }
            recent.rotate_left(1);
            recent[2] = s_next;
        }
        Ok(recent)
    }

    /// The second phase from the settled state `s_star`: K nudged steps, the weights changing at
    /// each (continual rules, Eq. 94 and 99) or after all (Alg. 1). Returns the new θ.
    ///
    /// `observe(t, s_t, s_{t+1}, θ_{t+1})` sees every step.
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
        mut observe: impl FnMut(usize, &[Tensor], &[Tensor], &Parameters) -> Result<()>,
    ) -> Result<Parameters> {
        let rate = |n: usize| self.learning_rates[n];
        let mut theta = theta.clone();
        let mut s = s_star.to_vec();
        let mut drive = dynamics.drive(&theta, x)?;
        let mut total: Option<Parameters> = None;
        for t in 0..self.second_steps {
            let mut s_next = dynamics.step(&theta, &drive, &s, Some(nudge))?;
            if self.damped {
                halfway(&mut s_next, &s)?;
            }
            if self.rule.continual() {
                let update = self.update(x, &s, &s_next, nudge.beta)?;
                theta = theta.plus(&update, rate)?;
                drive = dynamics.drive(&theta, x)?;
            } else if !self.rule.tied() {
                let update = self.update(x, &s, &s_next, nudge.beta)?;
                total = Some(match total {
                    Some(total) => total.plus(&update, |_| 1.0)?,
                    None => update,
                });
            }
            observe(t, &s, &s_next, &theta)?;
            s = s_next;
        }
        if !self.rule.continual() {
            // With tied weights the sum over the steps telescopes (Eq. 5).
            let total = match total {
                Some(total) => total,
                None => self.update(x, s_star, &s, nudge.beta)?,
            };
            theta = theta.plus(&total, rate)?;
        }
        Ok(theta)
    }

    /// [`Rule::update`], less what [`Protocol::authors_code`] leaves out.
    fn update(&self, x: &Tensor, s: &[Tensor], s_next: &[Tensor], beta: f64) -> Result<Parameters> {
        let mut update = self.rule.update(x, s, s_next, beta)?;
        if self.last_bias_frozen()
            && let Some(last) = update.forward.last_mut()
        {
            last.bias = last.bias.zeros_like()?;
        }
        Ok(update)
    }
}

/// s' ← (s + s')/2.
fn halfway(s_next: &mut [Tensor], s: &[Tensor]) -> Result<()> {
    for (next, s) in s_next.iter_mut().zip(s) {
        *next = ((&*next + s)? * 0.5)?;
    }
    Ok(())
}
