//! Δ_θ(t), the normalised Hebbian update of one step, and its treatment of σ′.

use super::Form;
use crate::model::dynamics::{Beta, Dynamics, PreActivation};
use crate::model::{Connection, Largest, Parameters};
use candle_core::{D, Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use std::rc::Rc;

/// Treatment of σ′ in ∂F/∂W of the vector-field rules (discrete time; in real time ∂F/∂W has none).
///
/// With h_fⁿ = W_nn+1·sⁿ⁺¹ + b_n and h_bⁿ = W_nn−1·sⁿ⁻¹ at the old state s_t and the weights θ_t of the step:
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SigmaPrime {
    /// Left out, as Eq. 12 prints the rule.
    Ignored,
    /// Every connection into layer n is gated by σ′ of its own contribution: forward.n and the bias by σ′(h_fⁿ),
    /// feedback.(n−1) by σ′(h_bⁿ). This is not in the paper's text; the published rows of Table 3 were very probably
    /// made with it.
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

    /// Δs of each layer, (B, d_n), gated for the forward and for the feedback connections into it. `h` is not read
    /// where σ′ is ignored.
    fn gate(
        self,
        dynamics: &Dynamics,
        h: &[Option<PreActivation>],
        delta: Vec<Tensor>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        if self == SigmaPrime::Ignored {
            return Ok((delta.clone(), delta));
        }
        if h.len() != delta.len() {
            bail!("σ′ {} gates single steps, and not a whole phase", self.name());
        }
        let gated = |delta: &Tensor, h: &Tensor| delta * dynamics.activation.derivative(h)?;
        let layers = delta.iter().zip(h).enumerate().map(|(n, (delta, h))| {
            // A layer that the step does not update, whose Δs is 0; and a readout, which has no σ.
            let h = h.as_ref().filter(|_| n >= dynamics.readout.nearest());
            let Some(h) = h else { return Ok((delta.clone(), delta.clone())) };
            if let (SigmaPrime::Partial, Some(feedback)) = (self, &h.feedback) {
                return Ok((gated(delta, &h.forward)?, gated(delta, feedback)?));
            }
            let gated = gated(delta, &h.total()?)?;
            Ok((gated.clone(), gated))
        });
        Ok(layers.collect::<Result<Vec<_>>>()?.into_iter().unzip())
    }
}

/// One step of the second phase. States are (B, d_n), output first.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// t, from 0.
    pub t: usize,
    /// s_t.
    pub s: &'a [Tensor],
    /// hⁿ at s_t and θ_t of the layers that the step updates.
    pub h: &'a [Option<PreActivation>],
    /// s_{t+1}.
    pub s_next: &'a [Tensor],
    /// β of the phase.
    pub beta: Beta<'a>,
}

/// The outer products that make up an update, image by image: Δ_θ = 1/(βB)·Σ_b Σ_p sign_p·rows_p(b)·columns_p(b)ᵀ.
/// Of a convolution [`Connection::outer`] takes the place of the outer product.
#[derive(Clone, Debug)]
pub struct Products {
    /// Products of each weight. None where it does not learn.
    pub weights: Vec<Vec<Product>>,
    /// Factor of each bias, (B, d_n); the other factor is 1. None where it does not learn.
    pub biases: Vec<Option<Tensor>>,
}

/// An outer product for each image.
#[derive(Clone, Debug)]
pub struct Product {
    /// The places of the largest values in the windows of convolutions.
    pub largest: Rc<Largest>,
    /// 1 or −1.
    pub sign: f64,
    /// The factor at the destination neurons, (B, d_n).
    pub rows: Tensor,
    /// The factor at the source neurons, (B, d_m).
    pub columns: Tensor,
}

/// The products of which Δ_θ(t) is made, the normalised update of one `step` from s to s'. `x` is (B, d_in); ρ is
/// [`Dynamics::rho`]. For the weight from layer m into layer n:
///
/// - correlation (Eq. 89, 95, E.3): Δ = (ρ(s'ⁿ)·ρ(s'ᵐ)ᵀ − ρ(sⁿ)·ρ(sᵐ)ᵀ)/β, two products
/// - vector field (E.4, E.5): Δ = (s'ⁿ − sⁿ)·ρ(sᵐ)ᵀ/β, with s'ⁿ − sⁿ gated as [`SigmaPrime`] says, one product
/// - weights from the input as the others, with ρ(x) on both sides, one product; biases as if their input were 1.
///
/// A convolution pools each product where the states of that product, s or s', have it: Δ = (∂Φ/∂w(s') − ∂Φ/∂w(s))/β
/// with ∂Φ/∂w = P⁻¹(ρ(sⁿ)) ⋆ ρ(sⁿ⁺¹), both at the weights of the step; and P⁻¹(s'ⁿ − sⁿ) ⋆ ρ(sⁿ⁺¹)/β at s.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn hebbian_products(
    dynamics: &Dynamics,
    theta: &Parameters,
    form: Form,
    sigma_prime: SigmaPrime,
    x: &Tensor,
    step: &Step,
) -> Result<Products> {
    let &Step { s, h, s_next, .. } = step;
    let (rho_s, rho_next, rho_x) =
        (dynamics.rho_of_all(s)?, dynamics.rho_of_all(s_next)?, dynamics.rho_of_input(x)?);
    let (before, after) = match form {
        Form::Correlation => (&rho_s[..], &rho_next[..]),
        Form::VectorField => (s, s_next),
    };
    let delta = (after.iter().zip(before)).map(|(a, b)| a - b).collect::<Result<_>>()?;
    let (delta, delta_feedback) = sigma_prime.gate(dynamics, h, delta)?;
    let largest = |rho: &[Tensor]| -> Result<Rc<Largest>> {
        let known: Vec<Tensor> = rho.iter().chain([&rho_x]).cloned().collect();
        Ok(Rc::new(theta.largest(&known)?))
    };
    let at_s = largest(&rho_s)?;
    let at_next = if form == Form::Correlation { largest(&rho_next)? } else { at_s.clone() };
    let made = |sign: f64, rows: &Tensor, columns: &Tensor, largest: &Rc<Largest>| Product {
        largest: largest.clone(),
        sign,
        rows: rows.clone(),
        columns: columns.clone(),
    };
    let product = |sign, rows, columns| made(sign, rows, columns, &at_s);
    let weight = |&Connection { from, to, .. }: &Connection| match (rho_s.get(from), form) {
        (None, _) => vec![product(1.0, &delta[to], &rho_x)],
        (Some(source), Form::Correlation) => {
            vec![made(1.0, &rho_next[to], &rho_next[from], &at_next), product(-1.0, &rho_s[to], source)]
        }
        (Some(source), Form::VectorField) if from > to => vec![product(1.0, &delta[to], source)],
        (Some(source), Form::VectorField) => vec![product(1.0, &delta_feedback[to], source)],
    };
    let weights = theta.network.weights().map(weight).collect();
    Ok(Products { weights, biases: delta.into_iter().map(Some).collect() })
}

/// Δ_θ(t), the normalised update of one `step` from s to s', a mean over the batch: the sums of [`hebbian_products`],
/// times 1/(βB).
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn hebbian_update(
    dynamics: &Dynamics,
    theta: &Parameters,
    form: Form,
    sigma_prime: SigmaPrime,
    x: &Tensor,
    step: &Step,
) -> Result<Parameters> {
    let images = x.dim(D::Minus2)? as f64;
    let scaled = |sum: &Tensor| step.beta.scale(sum, |beta| 1.0 / (beta * images));
    let products = hebbian_products(dynamics, theta, form, sigma_prime, x, step)?;
    let weight = |(connection, products): (&Connection, &Vec<Product>)| {
        let mut sum: Option<Tensor> = None;
        for Product { largest, sign, rows, columns } in products {
            let outer = connection.outer(rows, columns, largest)?;
            sum = Some(match sum {
                None => outer,
                Some(sum) if *sign > 0.0 => (sum + outer)?,
                Some(sum) => (sum - outer)?,
            });
        }
        match sum {
            Some(sum) => scaled(&sum),
            None => bail!("a weight without an update"),
        }
    };
    let bias = |(n, delta): (usize, &Option<Tensor>)| match delta {
        Some(delta) => theta.bias_of(n, scaled(&delta.sum_keepdim(D::Minus2)?)?.squeeze(D::Minus2)?),
        None => bail!("a bias without an update"),
    };
    let weights = theta.network.weights().zip(&products.weights).map(weight).collect::<Result<_>>()?;
    let biases = products.biases.iter().enumerate().map(bias).collect::<Result<_>>()?;
    Ok(Parameters { network: theta.network.clone(), weights, biases })
}
