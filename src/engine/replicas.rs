//! Many networks of one shape trained as one: the plain engine with a leading dimension of replicas.
//!
//! Small products leave a GPU idle; R of them at once do not. Each replica is the engine of a run of its own,
//! with its own weights, images and β, on a thread of its own. Whoever asks for a minibatch waits until all
//! replicas have asked; the last one computes for all. What a replica gets depends on nothing that the others
//! ask for, nor on how many they are.

use super::cuda::Kernel;
use super::plain::report;
use super::{Batch, Engine, MultiplyAdds, Report, check, plain};
use crate::learning::{Lesson, Protocol};
use crate::model::dynamics::{Beta, Nudge};
use crate::model::network::Forward;
use crate::model::{Model, Parameters, Settled};
use anyhow::{Result, anyhow};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Where the replicas of one shape meet.
#[derive(Clone)]
pub struct Hub(Arc<Meeting>);

/// What all replicas of a hub see.
struct Meeting {
    state: Mutex<State>,
    answered: Condvar,
}

/// One replica's engine.
pub struct Replica {
    hub: Hub,
    id: usize,
}

struct State {
    model: Model,
    protocol: Protocol,
    device: Device,
    /// Whether minibatches are learnt in one launch of [`Kernel`].
    kernel: bool,
    /// θ of each replica that is not part of `stacked`.
    alone: BTreeMap<usize, Parameters>,
    /// The replicas that were last computed together, and their weights with the dimension of replicas.
    stacked: Option<(Vec<usize>, Parameters)>,
    /// What each replica asks for; `None` while it is busy elsewhere.
    asked: BTreeMap<usize, Option<Request>>,
    answers: BTreeMap<usize, Result<Report>>,
    next_id: usize,
}

/// A minibatch to learn with this β, or to classify where there is none.
struct Request {
    batch: Batch,
    beta: Option<f64>,
}

impl Hub {
    /// A hub without replicas yet.
    pub fn new(model: Model, protocol: Protocol, device: Device) -> Self {
        let state = State {
            model,
            protocol,
            device,
            kernel: false,
            alone: BTreeMap::new(),
            stacked: None,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_id: 0,
        };
        Self(Arc::new(Meeting { state: Mutex::new(state), answered: Condvar::new() }))
    }

    /// Learns every minibatch in one launch of the CUDA kernel from now on, where `kernel` says so.
    pub fn with_kernel(self, kernel: bool) -> Self {
        self.lock().kernel = kernel;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new replica that starts with `theta`. From now on the others wait for it.
    pub fn join(&self, theta: Parameters) -> Replica {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.alone.insert(id, theta);
        state.asked.insert(id, None);
        Replica { hub: self.clone(), id }
    }

    fn ask(&self, id: usize, request: Request) -> Result<Report> {
        let mut state = self.lock();
        check(&state.model, &state.protocol, &request.batch)?;
        state.asked.insert(id, Some(request));
        state.answer_if_all_have_asked();
        self.0.answered.notify_all();
        loop {
            if let Some(answer) = state.answers.remove(&id) {
                return answer;
            }
            state = self.0.answered.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.asked.remove(&self.id);
        if state.unstack().is_ok() {
            state.alone.remove(&self.id);
        }
        // The others may have waited for this one only.
        state.answer_if_all_have_asked();
        self.hub.0.answered.notify_all();
    }
}

impl Engine for Replica {
    fn train(&mut self, batch: &Batch, beta: f64) -> Result<Report> {
        self.hub.ask(self.id, Request { batch: batch.clone(), beta: Some(beta) })
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        self.hub.ask(self.id, Request { batch: batch.clone(), beta: None })
    }

    fn multiply_adds(&self, report: &Report) -> MultiplyAdds {
        let state = self.hub.lock();
        let work = |theta| plain::multiply_adds(&theta, &state.model, &state.protocol, report);
        state.theta(self.id).map_or(MultiplyAdds { first: f64::NAN, second: f64::NAN }, work)
    }

    fn parameters(&self) -> Result<Parameters> {
        self.hub.lock().theta(self.id)
    }
}

impl State {
    /// The weights of one replica.
    fn theta(&self, id: usize) -> Result<Parameters> {
        if let Some((ids, stacked)) = &self.stacked
            && let Some(r) = ids.iter().position(|&other| other == id)
        {
            return Ok(unstacked(stacked, r)?);
        }
        self.alone.get(&id).cloned().ok_or_else(|| anyhow!("replica {id} has left"))
    }

    /// Takes the stack apart.
    fn unstack(&mut self) -> Result<()> {
        if let Some((ids, stacked)) = self.stacked.take() {
            for (r, id) in ids.into_iter().enumerate() {
                self.alone.insert(id, unstacked(&stacked, r)?);
            }
        }
        Ok(())
    }

    /// The weights of these replicas together.
    fn stack(&mut self, ids: &[usize]) -> Result<Parameters> {
        if let Some((stacked, theta)) = &self.stacked
            && stacked == ids
        {
            return Ok(theta.clone());
        }
        self.unstack()?;
        let all: Vec<Parameters> = ids.iter().map(|&id| self.theta(id)).collect::<Result<_>>()?;
        Ok(stacked(&all)?)
    }

    /// Computes what has been asked for, all of one kind and size at once, if nobody is still busy.
    fn answer_if_all_have_asked(&mut self) {
        if self.asked.is_empty() || self.asked.values().any(Option::is_none) {
            return;
        }
        let mut kinds: BTreeMap<(bool, usize), Vec<(usize, Request)>> = BTreeMap::new();
        for (&id, request) in &mut self.asked {
            if let Some(request) = request.take() {
                let kind = (request.beta.is_some(), request.batch.labels.len());
                kinds.entry(kind).or_default().push((id, request));
            }
        }
        for requests in kinds.into_values() {
            // Whoever has asked gets an answer, and be it that there is none.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.compute(&requests)))
                .unwrap_or_else(|_| Err(anyhow!("what the replicas compute together has panicked")));
            match outcome {
                Ok(reports) => {
                    let ids = requests.iter().map(|(id, _)| *id);
                    self.answers.extend(ids.zip(reports.into_iter().map(Ok)));
                }
                Err(error) => {
                    let all = requests.iter().map(|(id, _)| (*id, Err(anyhow!("{error:#}"))));
                    self.answers.extend(all);
                }
            }
        }
    }

    fn compute(&mut self, requests: &[(usize, Request)]) -> Result<Vec<Report>> {
        let ids: Vec<usize> = requests.iter().map(|(id, _)| *id).collect();
        let theta = self.stack(&ids)?;
        let dtype = theta.forward[0].weight.dtype();
        let device = &self.device;
        let batches = || requests.iter().map(|(_, request)| &request.batch);
        let together = |one: &dyn Fn(&Batch) -> candle_core::Result<Tensor>| {
            Tensor::stack(&batches().map(one).collect::<candle_core::Result<Vec<_>>>()?, 0)
        };
        let x = together(&|batch| batch.x(dtype, device))?;
        let classes = self.model.dims.output();
        let target = &together(&|batch| batch.y(classes, dtype, device))?;
        let betas: Option<Vec<f64>> = requests.iter().map(|(_, request)| request.beta).collect();
        let signs = betas.as_deref().map(|betas| Beta::signs(betas, dtype, device)).transpose()?;
        let nudge = (signs.as_ref().zip(betas))
            .map(|(signs, betas)| Nudge { target, beta: Beta::of_replicas(betas[0].abs(), signs) });
        let (settled, theta) = self.phases(theta, &x, nudge)?;
        let mut reports = Vec::new();
        for (r, batch) in batches().enumerate() {
            let of = |states: &[Tensor]| -> candle_core::Result<Vec<Tensor>> {
                states.iter().map(|s| s.get(r)).collect()
            };
            let [older, old, s] = &settled.recent;
            let images = batch.labels.len();
            let recent = [of(older)?, of(old)?, of(s)?];
            let steps = settled.steps[r * images..][..images].to_vec();
            let converged = settled.converged[r * images..][..images].to_vec();
            reports.push(report(&Settled { recent, steps, converged }, &batch.labels)?);
        }
        self.stacked = Some((ids, theta));
        Ok(reports)
    }

    /// The first phase and, where there is a nudge, the second: where the first ended, and the new θ. In one kernel
    /// where that was asked for.
    fn phases(&self, theta: Parameters, x: &Tensor, nudge: Option<Nudge>) -> Result<(Settled, Parameters)> {
        let (model, protocol) = (&self.model, &self.protocol);
        if let Some(nudge) = nudge.filter(|_| self.kernel) {
            let kernel = Kernel::for_shape(model, protocol, &theta, x.dim(1)?)?;
            let launch = |given: &Tensor| given.apply_op1_no_bwd(&kernel);
            let (recent, theta) = kernel.run(&model.dynamics, protocol, &theta, x, nudge, launch)?;
            let steps = vec![model.settle.steps; x.dim(0)? * x.dim(1)?];
            let converged = vec![false; steps.len()];
            return Ok((Settled { recent, steps, converged }, theta));
        }
        let settled = model.settle(&theta, x)?;
        let theta = match nudge {
            None => theta,
            Some(nudge) => {
                let lesson = Lesson::new(model, protocol, &theta, x, nudge, &settled);
                protocol.rule.learn(&lesson, &mut |_| Ok(()))?
            }
        };
        Ok((settled, theta))
    }
}

/// Weights of many with a leading dimension of replicas; biases as (R, 1, d_n).
fn stacked(all: &[Parameters]) -> candle_core::Result<Parameters> {
    let first = &all[0];
    let stack =
        |pick: &dyn Fn(&Parameters) -> Tensor| Tensor::stack(&all.iter().map(pick).collect::<Vec<_>>(), 0);
    let forward = (0..first.forward.len())
        .map(|n| {
            Ok(Forward {
                weight: stack(&|theta| theta.forward[n].weight.clone())?,
                bias: stack(&|theta| theta.forward[n].bias.clone())?.unsqueeze(1)?,
            })
        })
        .collect::<candle_core::Result<_>>()?;
    let feedback = match &first.feedback {
        None => None,
        Some(feedback) => {
            let one = |n: usize| stack(&|theta| theta.feedback.as_ref().unwrap_or(feedback)[n].clone());
            Some((0..feedback.len()).map(one).collect::<candle_core::Result<_>>()?)
        }
    };
    Ok(Parameters { forward, feedback })
}

/// The weights of replica `r`.
fn unstacked(all: &Parameters, r: usize) -> candle_core::Result<Parameters> {
    let one = |tensor: &Tensor| tensor.get(r)?.copy();
    let forward = (all.forward.iter())
        .map(|layer| Ok(Forward { weight: one(&layer.weight)?, bias: one(&layer.bias)?.squeeze(0)? }))
        .collect::<candle_core::Result<_>>()?;
    let feedback = match &all.feedback {
        None => None,
        Some(feedback) => Some(feedback.iter().map(one).collect::<candle_core::Result<_>>()?),
    };
    Ok(Parameters { forward, feedback })
}
