//! F near a state: products with its Jacobians ∂F/∂s and ∂F/∂θ, by hand.

use crate::model::dynamics::{Dynamics, Layers, PreActivation, Time};
use crate::model::{Connection, Largest, Model, Parameters};
use candle_core::{Result, Tensor};

/// The asymmetry that a second phase [corrects](Transition::asymmetry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asymmetry {
    /// The asymmetry of J = ∂F/∂s, including σ′: 2A = J − Jᵀ.
    Jacobian,
    /// The asymmetry of the weights alone, in discrete time, where J = DW with D = diag σ′(h_*): D(W − Wᵀ).
    Weights,
}

/// F near a state: the factors of its Jacobians.
pub(crate) struct Transition<'a> {
    model: &'a Model,
    theta: &'a Parameters,
    s: &'a [Tensor],
    /// ρ(sⁿ), and ρ(x) as that of layer N + 1; 0 of a readout, of which no layer hears.
    rho: Vec<Tensor>,
    /// hⁿ.
    h: Vec<Tensor>,
    /// Where the windows of convolutions have their largest values at s.
    largest: Largest,
    /// 1 where a state is free to move, 0 where a clamp holds it; `None` without clamp.
    free: Option<Vec<Tensor>>,
}

impl<'a> Transition<'a> {
    pub(crate) fn at(model: &'a Model, theta: &'a Parameters, x: &Tensor, s: &'a [Tensor]) -> Result<Self> {
        let dynamics = &model.dynamics;
        let drive = dynamics.drive(theta, x)?;
        let free = match dynamics.time {
            Time::Real if dynamics.clamp => {
                let mut free = model.clone();
                (free.dynamics.clamp, free.settle.damping) = (false, 0.0);
                let s_next = free.step(theta, &drive, s, Layers::All, None)?;
                let inside = |s: &Tensor| (s.gt(0.0)? * s.lt(1.0)?)?.to_dtype(s.dtype());
                Some(s_next.iter().map(inside).collect::<Result<_>>()?)
            }
            _ => None,
        };
        let mut rho = dynamics.rho_of_all(s)?;
        if !dynamics.readout.is_none() {
            rho[0] = rho[0].zeros_like()?;
        }
        rho.push(dynamics.rho_of_input(x)?);
        let largest = theta.largest(&rho)?;
        Ok(Self {
            model,
            theta,
            s,
            rho,
            largest,
            h: (dynamics.pre_activations(theta, &drive, s, Layers::All)?.iter().flatten())
                .map(PreActivation::total)
                .collect::<Result<_>>()?,
            free,
        })
    }

    /// (J − Jᵀ)·`changes` for changes of the states, J = ∂F/∂s, or the same product with the asymmetry of the weights
    /// alone.
    pub(crate) fn asymmetry(&self, of: Asymmetry, changes: &[Tensor]) -> Result<Vec<Tensor>> {
        let (there, back) = match of {
            Asymmetry::Jacobian => (self.jvp(changes)?, self.back(changes)?.0),
            Asymmetry::Weights => {
                let moved = 1.0 - self.model.settle.damping;
                let gated = |(sum, h): (&Tensor, &Tensor)| {
                    sum * (self.model.dynamics.activation.derivative(h)? * moved)?
                };
                let gate = |sums: Vec<Tensor>| sums.iter().zip(&self.h).map(gated).collect::<Result<_>>();
                (gate(self.delivered(changes)?)?, gate(self.delivered_back(changes)?)?)
            }
        };
        there.iter().zip(&back).map(|(there, back)| there - back).collect()
    }

    /// W·v: the input that v delivers to the layers above and below.
    fn delivered(&self, v: &[Tensor]) -> Result<Vec<Tensor>> {
        self.sums(v, |c| Ok((c.to, self.theta.through(c, &v[c.from], &self.largest)?)))
    }

    /// Wᵀ·v.
    fn delivered_back(&self, v: &[Tensor]) -> Result<Vec<Tensor>> {
        self.sums(v, |c| Ok((c.from, self.theta.back_through(c, &v[c.to], &self.largest)?)))
    }

    /// The sums over the connections between layers of what each adds to a layer; of the shapes of `v`.
    fn sums(
        &self,
        v: &[Tensor],
        term: impl Fn(&Connection) -> Result<(usize, Tensor)>,
    ) -> Result<Vec<Tensor>> {
        let mut sums: Vec<Tensor> = v.iter().map(|v| v.zeros_like()).collect::<Result<_>>()?;
        for c in self.theta.network.connections().iter().filter(|c| c.from < v.len()) {
            let (layer, added) = term(c)?;
            sums[layer] = (&sums[layer] + added)?;
        }
        Ok(sums)
    }

    /// v of the layers that are states, and 0 of a readout, on whose z no step depends.
    fn of_states(&self, mut v: Vec<Tensor>) -> Result<Vec<Tensor>> {
        for v in &mut v[..self.model.dynamics.readout.nearest()] {
            *v = v.zeros_like()?;
        }
        Ok(v)
    }

    /// ∂ℓ/∂sⁿ of all layers where v⁰ is ∂ℓ/∂z of a readout and nothing else of v depends on ℓ; v itself without one.
    pub(crate) fn read_out(&self, mut v: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if self.model.dynamics.readout.is_none() {
            return Ok(v);
        }
        let mut of_rho: Vec<Tensor> = v.iter().map(Tensor::zeros_like).collect::<Result<_>>()?;
        for c in self.theta.network.into_layer(0).filter(|c| c.from < v.len()) {
            of_rho[c.from] = v[0].matmul(&self.theta.transposed(c)?.t()?)?;
        }
        for (v, through) in v.iter_mut().zip(self.through_rho(of_rho)?) {
            *v = (&*v + through)?;
        }
        Ok(v)
    }

    /// ρ′(sⁿ)·v, layer by layer.
    fn through_rho(&self, v: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let Dynamics { activation, time, .. } = self.model.dynamics;
        match time {
            Time::Discrete => Ok(v),
            Time::Real => v.iter().zip(self.s).map(|(v, s)| v * activation.derivative(s)?).collect(),
        }
    }

    /// (∂F/∂s)·u.
    fn jvp(&self, u: &[Tensor]) -> Result<Vec<Tensor>> {
        let Model { dynamics, settle, .. } = self.model;
        let Dynamics { activation, time, epsilon, .. } = *dynamics;
        let arriving = self.delivered(&self.through_rho(self.of_states(u.to_vec())?)?)?;
        let next = |n: usize| -> Result<Tensor> {
            if n < dynamics.readout.nearest() {
                return u[n].zeros_like();
            }
            let mut next = match time {
                Time::Discrete => (&arriving[n] * activation.derivative(&self.h[n])?)?,
                Time::Real => {
                    let mut pull = arriving[n].clone();
                    if dynamics.gated(self.theta, n) {
                        let bend = (activation.second_derivative(&self.s[n])? * &self.h[n])?;
                        pull = ((pull * activation.derivative(&self.s[n])?)? + (&u[n] * bend)?)?;
                    }
                    ((&u[n] * (1.0 - epsilon))? + (pull * epsilon)?)?
                }
            };
            if let Some(free) = &self.free {
                next = (next * &free[n])?;
            }
            (&u[n] * settle.damping)? + (next * (1.0 - settle.damping))?
        };
        (0..u.len()).map(next).collect()
    }

    /// (∂F/∂s)ᵀ·v and (∂F/∂θ)ᵀ·v, the latter a mean over the batch.
    pub(crate) fn vjp(&self, v: &[Tensor]) -> Result<(Vec<Tensor>, Parameters)> {
        let (grad_s, grad_h) = self.back(v)?;
        Ok((grad_s, self.parameters(&grad_h)?))
    }

    /// (∂F/∂s)ᵀ·v, and (∂F/∂h)ᵀ·v on the way.
    fn back(&self, v: &[Tensor]) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let Model { dynamics, settle, .. } = self.model;
        let Dynamics { activation, time, epsilon, .. } = *dynamics;
        let mut grad_s: Vec<Tensor> = v.iter().map(|v| v.zeros_like()).collect::<Result<_>>()?;
        // Through F up to hⁿ.
        let mut grad_h = Vec::with_capacity(v.len());
        for n in 0..v.len() {
            let mut v = v[n].clone();
            if n < dynamics.readout.nearest() {
                grad_h.push(v);
                continue;
            }
            if settle.damping > 0.0 {
                grad_s[n] = (&v * settle.damping)?;
                v = (v * (1.0 - settle.damping))?;
            }
            if let Some(free) = &self.free {
                v = (v * &free[n])?;
            }
            grad_h.push(match time {
                Time::Discrete => (v * activation.derivative(&self.h[n])?)?,
                Time::Real => {
                    grad_s[n] = (&grad_s[n] + (&v * (1.0 - epsilon))?)?;
                    let v = (v * epsilon)?;
                    if dynamics.gated(self.theta, n) {
                        let bend = (activation.second_derivative(&self.s[n])? * &self.h[n])?;
                        grad_s[n] = (&grad_s[n] + (&v * bend)?)?;
                        (v * activation.derivative(&self.s[n])?)?
                    } else {
                        v
                    }
                }
            });
        }
        // Through hⁿ to the ρ(s) that made it.
        let grad_rho = self.of_states(self.delivered_back(&self.of_states(grad_h.clone())?)?)?;
        for (grad_s, through) in grad_s.iter_mut().zip(self.through_rho(grad_rho)?) {
            *grad_s = (&*grad_s + through)?;
        }
        Ok((grad_s, grad_h))
    }

    /// (∂h/∂θ)ᵀ·grad_h, a mean over the batch. A tied weight works in both directions.
    fn parameters(&self, grad_h: &[Tensor]) -> Result<Parameters> {
        let network = &self.theta.network;
        let mean = 1.0 / grad_h[0].dim(0)? as f64;
        let outer = |own: &Connection, rows: &Tensor, columns: &Tensor| {
            own.outer(rows, columns, &self.largest)? * mean
        };
        let weight = |own: &Connection| {
            let mut uses = network.connections().iter().filter(|c| c.weight == own.weight);
            let first = outer(own, &grad_h[own.to], &self.rho[own.from])?;
            match uses.find(|c| c.transposed) {
                Some(back) => first + outer(own, &self.rho[back.from], &grad_h[back.to])?,
                None => Ok(first),
            }
        };
        let weights = network.weights().map(weight).collect::<Result<_>>()?;
        let bias = |(n, grad): (usize, &Tensor)| self.theta.bias_of(n, (grad.sum(0)? * mean)?);
        let biases = grad_h.iter().enumerate().map(bias).collect::<Result<_>>()?;
        Ok(Parameters { network: network.clone(), weights, biases })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::network::{Init, Network};
    use crate::model::{Activation, Settle};
    use candle_core::{DType, Device};

    #[test]
    fn both_products_are_of_one_jacobian() -> Result<()> {
        for (time, tied, damping) in [
            (Time::Discrete, false, 0.0),
            (Time::Discrete, true, 0.3),
            (Time::Real, false, 0.0),
            (Time::Real, true, 0.3),
        ] {
            let network = Network::layered([3, 5, 4, 2], tied);
            let theta = Parameters::init(network, Init::FanIn, 70.0, 1, DType::F64, &Device::Cpu)?;
            let mut model = Model::discrete(Activation::Tanh, Settle::synchronous(1, 0.0));
            (model.dynamics.time, model.dynamics.epsilon, model.settle.damping) = (time, 0.3, damping);
            let x = Tensor::new(&[[0.1, 0.5, 0.9], [0.7, 0.2, 0.4]], &Device::Cpu)?;
            let some = |phase: f64| -> Result<Vec<Tensor>> {
                let of = |width: usize| {
                    let values = (0..2 * width).map(|i| (phase + 1.3 * i as f64).sin()).collect::<Vec<_>>();
                    Tensor::from_vec(values, (2, width), &Device::Cpu)
                };
                [2, 4, 5].map(of).into_iter().collect()
            };
            let (s, u, v) = (some(0.1)?, some(0.7)?, some(1.9)?);
            let transition = Transition::at(&model, &theta, &x, &s)?;
            let product = |a: &[Tensor], b: &[Tensor]| -> Result<f64> {
                a.iter().zip(b).map(|(a, b)| (a * b)?.sum_all()?.to_scalar::<f64>()).sum()
            };
            let (one, other) = (product(&v, &transition.jvp(&u)?)?, product(&transition.vjp(&v)?.0, &u)?);
            assert!((one - other).abs() < 1e-12, "{time:?}, tied: {tied}: {one} and {other}");
            let asymmetry = transition.asymmetry(Asymmetry::Jacobian, &u)?;
            assert!(product(&u, &asymmetry)?.abs() < 1e-12 && product(&v, &asymmetry)?.abs() > 1e-3);
        }
        Ok(())
    }
}
