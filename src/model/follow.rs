//! The first phase step by step, for studies of how states settle.

use super::anderson::{Anderson, epsilon};
use super::dynamics::Layers;
use super::settle::{largest_changes, mix};
use super::{Dynamics, Model, Parameters, Settled, Solver};
use candle_core::{Result, Tensor};

/// The first phase of some images under way. It stops by itself neither after T steps nor at a tolerance; with
/// acceleration, its last sweeps up to T steps are plain ones.
pub struct Follower<'a> {
    model: &'a Model,
    theta: &'a Parameters,
    drive: Vec<Option<Tensor>>,
    /// One for each image, where the phase is accelerated.
    mixers: Vec<Anderson<f64>>,
    images: usize,
    steps: usize,
    /// s before the last two sweeps, before the last, and now.
    pub(super) recent: [Vec<Tensor>; 3],
    /// s before the last step.
    before: Vec<Tensor>,
}

impl Model {
    /// Begins the first phase on the images `x` (B, d_in), before its first step.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn follow<'a>(&'a self, theta: &'a Parameters, x: &Tensor) -> Result<Follower<'a>> {
        let s_0 = Dynamics::initial_state(theta, x)?;
        let images = x.dims()[..x.rank() - 1].iter().product();
        let mixers = match self.settle.solver {
            Solver::Iterate => Vec::new(),
            Solver::Anderson => vec![Anderson::new(self.settle.window, epsilon(x.dtype())); images],
        };
        let drive = self.drive(theta, x)?;
        let s_0 = self.dynamics.read_out(theta, &drive, s_0)?;
        let recent = [s_0.clone(), s_0.clone(), s_0.clone()];
        Ok(Follower { model: self, theta, drive, mixers, images, steps: 0, recent, before: s_0 })
    }
}

impl Follower<'_> {
    /// Takes a step.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn step(&mut self) -> Result<()> {
        let settle = &self.model.settle;
        let t = self.steps % settle.order.sweep();
        if t == 0 {
            let sweeps = self.steps / settle.order.sweep();
            if sweeps > 0 && settle.mixes_after(sweeps - 1) {
                let [_, s, s_next] = &mut self.recent;
                mix(&mut self.mixers, |n| self.model.reads_first(n), s, s_next)?;
            }
            self.recent.rotate_left(1);
            self.recent[2] = self.recent[1].clone();
        }
        let layers = self.model.layers(t);
        let (_, s_next) = self.model.noisy_step(self.theta, &self.drive, &self.recent[2], layers, None)?;
        self.before = std::mem::replace(&mut self.recent[2], s_next);
        self.steps += 1;
        Ok(())
    }

    /// s_t.
    pub fn state(&self) -> &[Tensor] {
        &self.recent[2]
    }

    /// The largest |s_t − s_{t−1}| of any neuron, for each image.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn residuals(&self) -> Result<Vec<f64>> {
        let nearest = self.model.dynamics.readout.nearest();
        largest_changes(&self.state()[nearest..], &self.before[nearest..])
    }

    /// The largest |F(s_t) − s_t| of any neuron, for each image, with F a step of all layers.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn distances(&self) -> Result<Vec<f64>> {
        let s_next = self.model.step(self.theta, &self.drive, self.state(), Layers::All, None)?;
        let nearest = self.model.dynamics.readout.nearest();
        largest_changes(&s_next[nearest..], &self.state()[nearest..])
    }

    /// The end of the phase, if it ends here.
    pub fn end(self) -> Settled {
        let Self { recent, images, steps, model, .. } = self;
        let nearest = model.dynamics.readout.nearest();
        Settled { recent, steps: vec![steps; images], converged: vec![false; images], nearest }
    }
}
