//! Anderson's acceleration of a fixed-point iteration s ← G(s), for one image.
//!
//! With f_k = G(s_k) − s_k and the differences of the last m ≤ window applications, Δf_j and ΔG_j, the next state is
//! s_{k+1} = G(s_k) − Σ_j γ_j·ΔG_j, where γ minimises ‖f_k − Σ_j γ_j·Δf_j‖ (D. G. Anderson, 1965; the "type II" of
//! Walker and Ni, SIAM J. Numer. Anal. 49, 2011). Where ‖f_k‖ has grown, what went before is forgotten and
//! s_{k+1} = G(s_k), a plain step; the next time 3 of them, then 7, ….
//!
//! Sums are float64, over neurons in one order, whatever the threads.

use candle_core::{DType, WithDType};

/// The largest window.
pub const MOST_WINDOW: usize = 5;

/// The relative increase of the diagonal of the normal equations: without it, differences that have become parallel
/// would give unbounded steps.
const RIDGE: f64 = 1e-8;

/// The most plain steps in a row because ‖f‖ has grown.
const LONGEST_PAUSE: usize = 1000;

/// The last applications of G to the states of one image, and their differences.
#[derive(Clone, Debug)]
pub struct Anderson<T> {
    window: usize,
    epsilon: f64,
    /// f_k and G(s_k) of the last application; empty before the first.
    f: Vec<T>,
    g: Vec<T>,
    /// ‖f_k‖² of it.
    norm: f64,
    /// Δf_j and ΔG_j, one row each, `window` rows; the oldest is overwritten.
    delta_f: Vec<T>,
    delta_g: Vec<T>,
    /// Δf_i·Δf_j.
    products: [[f64; MOST_WINDOW]; MOST_WINDOW],
    /// Plain steps still to take since ‖f‖ has grown, and the number the last time.
    pause: usize,
    pause_before: usize,
    /// The number of applications whose differences the rows hold, since the last reset.
    count: usize,
}

impl<T: WithDType> Anderson<T> {
    /// An empty history. `window` is from 1 to [`MOST_WINDOW`], `epsilon` the relative [rounding](epsilon) of the
    /// states.
    pub fn new(window: usize, epsilon: f64) -> Self {
        Self {
            window: window.clamp(1, MOST_WINDOW),
            epsilon,
            pause: 0,
            pause_before: 0,
            f: Vec::new(),
            g: Vec::new(),
            norm: 0.0,
            delta_f: Vec::new(),
            delta_g: Vec::new(),
            products: [[0.0; MOST_WINDOW]; MOST_WINDOW],
            count: 0,
        }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.f.clear();
        (self.count, self.pause, self.pause_before) = (0, 0, 0);
    }

    /// Takes the layers of s_k and of G(s_k) to s_{k+1}, in place of the latter.
    #[inline(always)]
    pub fn mix(&mut self, s: &[&[T]], g: &mut [&mut [T]]) {
        let neurons: usize = s.iter().map(|layer| layer.len()).sum();
        let first = self.f.len() != neurons;
        if first {
            for rows in [&mut self.f, &mut self.g] {
                rows.resize(neurons, T::zero());
            }
            for rows in [&mut self.delta_f, &mut self.delta_g] {
                rows.resize(self.window * neurons, T::zero());
            }
            self.count = 0;
        }
        let newest = self.count % self.window * neurons..(self.count % self.window + 1) * neurons;
        let mut at = 0;
        for (s, g) in s.iter().zip(g.iter()) {
            let delta_f = &mut self.delta_f[newest.clone()][at..at + s.len()];
            let delta_g = &mut self.delta_g[newest.clone()][at..at + s.len()];
            let (old_f, old_g) = (&mut self.f[at..at + s.len()], &mut self.g[at..at + s.len()]);
            for (i, (&s, &g)) in s.iter().zip(g.iter()).enumerate() {
                let f = g - s;
                (delta_f[i], delta_g[i]) = (f - old_f[i], g - old_g[i]);
                (old_f[i], old_g[i]) = (f, g);
            }
            at += s.len();
        }
        let norm = dot(&self.f, &self.f);
        let grown = !first && (norm.is_nan() || norm > self.norm);
        // At rest the differences are rounding, from which nothing can be learnt.
        let at_rest = norm <= neurons as f64 * self.epsilon.powi(2);
        self.norm = norm;
        if grown {
            // So that where it never helps, nearly all steps are plain ones.
            self.pause = (2 * self.pause_before + 1).min(LONGEST_PAUSE);
            self.pause_before = self.pause;
        }
        if first || grown || at_rest || self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            self.count = 0;
            return;
        }
        self.count += 1;
        let Some(gamma) = self.weights(neurons) else {
            self.count = 0;
            return;
        };
        let mut at = 0;
        for g in g {
            let layer = at..at + g.len();
            at = layer.end;
            for (delta_g, gamma) in self.delta_g.chunks_exact(neurons).zip(gamma).take(self.count) {
                let gamma = T::from_f64(gamma);
                for (g, &delta) in g.iter_mut().zip(&delta_g[layer.clone()]) {
                    *g -= gamma * delta;
                }
            }
        }
    }

    /// γ, from the normal equations by Cholesky's decomposition; `None` where they cannot be solved.
    #[inline(always)]
    fn weights(&mut self, neurons: usize) -> Option<[f64; MOST_WINDOW]> {
        let rows = self.count.min(self.window);
        let newest = (self.count - 1) % self.window;
        let row = |j: usize| &self.delta_f[j * neurons..(j + 1) * neurons];
        let mut gamma = [0.0; MOST_WINDOW];
        for (j, gamma) in gamma.iter_mut().enumerate().take(rows) {
            let product = dot(row(newest), row(j));
            (self.products[newest][j], self.products[j][newest]) = (product, product);
            *gamma = dot(row(j), &self.f);
        }
        let mut lower = [[0.0; MOST_WINDOW]; MOST_WINDOW];
        for i in 0..rows {
            for j in 0..=i {
                let mut sum = self.products[i][j];
                if i == j {
                    sum += RIDGE * sum;
                }
                for (a, b) in lower[i].iter().zip(lower[j]).take(j) {
                    sum -= a * b;
                }
                if i > j {
                    lower[i][j] = sum / lower[j][j];
                } else if sum > 0.0 {
                    lower[i][i] = sum.sqrt();
                } else {
                    return None;
                }
            }
        }
        for i in 0..rows {
            for k in 0..i {
                gamma[i] -= lower[i][k] * gamma[k];
            }
            gamma[i] /= lower[i][i];
        }
        for i in (0..rows).rev() {
            for k in i + 1..rows {
                gamma[i] -= lower[k][i] * gamma[k];
            }
            gamma[i] /= lower[i][i];
        }
        Some(gamma)
    }
}

/// The distance from 1 to the next number of a type.
pub fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        _ => f64::from(f32::EPSILON),
    }
}

/// a·b in float64, in eight sums side by side.
#[inline(always)]
fn dot<T: WithDType>(a: &[T], b: &[T]) -> f64 {
    let (a_whole, a_rest) = a.as_chunks::<8>();
    let (b_whole, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in a_whole.iter().zip(b_whole) {
        for lane in 0..8 {
            sums[lane] += a[lane].to_f64() * b[lane].to_f64();
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a.to_f64() * b.to_f64()).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G of a linear problem, s ← A·s + b, whose fixed point is (1, 1, …); A has eigenvalues of either sign.
    fn apply(rates: &[f64], s: &[f64]) -> Vec<f64> {
        rates.iter().zip(s).map(|(rate, s)| rate * s + 1.0 - rate).collect()
    }

    fn error(s: &[f64]) -> f64 {
        s.iter().map(|s| (s - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn a_linear_problem_with_as_many_rates_as_the_window_is_solved_at_once() {
        // Four different rates need four differences, that is five applications.
        let rates = [0.9, -0.8, 0.5, 0.3];
        let mut mixer = Anderson::new(4, f64::EPSILON);
        let mut s = vec![0.0; 4];
        for _ in 0..7 {
            let mut next = apply(&rates, &s);
            mixer.mix(&[&s], &mut [&mut next]);
            s = next;
        }
        let plain = (0..7).fold(vec![0.0; 4], |s, _| apply(&rates, &s));
        assert!(error(&s) < 1e-3 * error(&plain), "{} against {}", error(&s), error(&plain));
    }

    #[test]
    fn where_the_residual_has_grown_it_takes_a_plain_step() {
        let mut mixer = Anderson::new(3, f64::EPSILON);
        let small: [&[f64]; 1] = [&[0.0, 0.0]];
        mixer.mix(&small, &mut [&mut [0.1, 0.2]]);
        mixer.mix(&[&[0.1, 0.2]], &mut [&mut [0.12, 0.21]]);
        let mut g = [5.0, -7.0];
        mixer.mix(&[&[0.125, 0.22]], &mut [&mut g]);
        assert_eq!(g, [5.0, -7.0]);
    }
}
