//! The scalar model of Appendix C, on which the four algorithms can be solved by hand.
//!
//! s_0 = 0, s_{t+1} = ½(s_t + θ), ℓ = ½s² (Eq. 51), so that s_* = θ; Φ = ¼(s + θ)².

/// The model's only numbers.
#[derive(Clone, Copy, Debug)]
pub struct Toy {
    /// θ.
    pub theta: f64,
    /// β.
    pub beta: f64,
    /// η.
    pub eta: f64,
    /// T, steps of the first phase.
    pub first_steps: usize,
    /// K, steps of the second phase, and of the gradients.
    pub second_steps: usize,
}

/// One step of an algorithm: ∇ or Δ of s and of θ, each iterated and by its closed form.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// ∇s(t) or Δs(t).
    pub s: [f64; 2],
    /// ∇θ(t) or Δθ(t).
    pub theta: [f64; 2],
}

impl Toy {
    fn first_phase(&self) -> f64 {
        (0..self.first_steps).fold(0.0, |s, _| 0.5 * (s + self.theta))
    }

    /// Gradients from the state `s`, by Eq. 30 with ∂F/∂s = ∂F/∂θ = ½, beside s/2ᵗ and s/2ᵗ⁺¹.
    fn gradients(&self, s: f64) -> Vec<Step> {
        let mut grad_s = s;
        (0..self.second_steps)
            .map(|t| {
                let halves = 0.5f64.powi(t as i32);
                let step = Step { s: [grad_s, s * halves], theta: [0.5 * grad_s, 0.5 * s * halves] };
                grad_s *= 0.5;
                step
            })
            .collect()
    }

    /// ∇BPTT (Eq. 52).
    pub fn bptt(&self) -> Vec<Step> {
        self.gradients(self.first_phase())
    }

    /// ∇RBP (Eq. 53), at s_* = θ.
    pub fn rbp(&self) -> Vec<Step> {
        self.gradients(self.theta)
    }

    /// Δ of a second phase whose θ learns at rate `eta` (Eq. 57), beside −θ/2ᵗ·(1 − 2β + η/2β)ᵗ and half
    /// of it (Eq. 59, 63).
    fn second_phase(&self, eta: f64) -> Vec<Step> {
        let (mut s, mut theta) = (self.theta, self.theta);
        let base = 0.5 * (1.0 - 2.0 * self.beta + eta / (2.0 * self.beta));
        (0..self.second_steps)
            .map(|t| {
                let s_next = 0.5 * (s + theta) - self.beta * s;
                let delta_s = (s_next - s) / self.beta;
                // ∂Φ/∂θ = ½(s + θ), at the θ of this step on both sides.
                let delta_theta = (0.5 * (s_next + theta) - 0.5 * (s + theta)) / self.beta;
                s = s_next;
                theta += eta * delta_theta;
                let closed = -self.theta * base.powi(t as i32);
                Step { s: [delta_s, closed], theta: [delta_theta, 0.5 * closed] }
            })
            .collect()
    }

    /// Δ of EP (Eq. 54, 56).
    pub fn ep(&self) -> Vec<Step> {
        self.second_phase(0.0)
    }

    /// Δ of C-EP (Eq. 57, 59, 63).
    pub fn cep(&self) -> Vec<Step> {
        self.second_phase(self.eta)
    }

    /// All four algorithms, by name.
    pub fn algorithms(&self) -> [(&'static str, Vec<Step>); 4] {
        [
            ("−∇BPTT", negative(self.bptt())),
            ("−∇RBP", negative(self.rbp())),
            ("ΔEP", self.ep()),
            ("ΔC-EP", self.cep()),
        ]
    }

    /// A table of all four, step by step, each beside its closed form.
    pub fn table(&self) -> String {
        let mut text = format!(
            "s_t+1 = (s_t + θ)/2, ℓ = s²/2, θ = {}, β = {}, η = {}, T = {}; in brackets the closed forms, Eq. 52–63\n",
            self.theta, self.beta, self.eta, self.first_steps
        );
        let algorithms = self.algorithms();
        let mut furthest: f64 = 0.0;
        let of_s = |step: &Step| step.s;
        for (of, pick) in [("s", of_s as fn(&Step) -> [f64; 2]), ("θ", |step| step.theta)] {
            text += &format!("\n{of}, t");
            for (name, _) in &algorithms {
                text += &format!("{name:>28}");
            }
            text.push('\n');
            for t in 0..self.second_steps {
                text += &format!("{t:>4}");
                for (_, steps) in &algorithms {
                    let [iterated, closed] = pick(&steps[t]);
                    furthest = furthest.max((iterated - closed).abs());
                    text += &format!("{:>28}", format!("{iterated:.8} [{closed:.8}]"));
                }
                text.push('\n');
            }
        }
        text + &format!(
            "\nLargest difference from a closed form: {furthest:.1e}. All of them hold exactly, not only to first \
             order:\nEq. 62 and 63 solve Eq. 61 for every β and η. Δ and −∇ agree to first order in β and η/β.\n"
        )
    }
}

fn negative(steps: Vec<Step>) -> Vec<Step> {
    let negative = |values: [f64; 2]| values.map(|value| -value);
    steps.into_iter().map(|Step { s, theta }| Step { s: negative(s), theta: negative(theta) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_closed_form_is_exact() {
        for (beta, eta) in [(0.1, 0.01), (0.3, 0.2), (-0.2, 0.05), (0.01, 1e-4)] {
            let toy = Toy { theta: 1.7, beta, eta, first_steps: 60, second_steps: 12 };
            for (name, steps) in toy.algorithms() {
                for (t, step) in steps.iter().enumerate() {
                    // The rounding of differences of states near 1, divided by β.
                    let rounding = 1e-14 / beta.abs();
                    for (of, [iterated, closed]) in [("s", step.s), ("θ", step.theta)] {
                        assert!((iterated - closed).abs() < rounding, "{name} {of} at {t}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_closed_state_solves_the_recurrence() {
        // Eq. 62, against the states that Eq. 57 gives.
        let (theta, beta, eta) = (0.9, 0.15, 0.03);
        let (mut s, mut theta_t) = (theta, theta);
        for t in 0..20 {
            let d = eta / (2.0 * beta);
            let closed = theta / (1.0 - d + 2.0 * beta)
                * (1.0 - d + 2.0 * beta * 0.5f64.powi(t) * (1.0 - 2.0 * beta + d).powi(t));
            assert!((s - closed).abs() < 1e-14, "t = {t}: {s} {closed}");
            let s_next = (0.5 - beta) * s + 0.5 * theta_t;
            theta_t += eta / (2.0 * beta) * (s_next - s);
            s = s_next;
        }
    }
}
