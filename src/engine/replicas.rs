//! Many networks of one shape trained as one: the plain engine with a leading dimension of replicas.
//!
//! Small products leave a GPU idle; R of them at once do not. Each replica is the engine of a run of its own,
//! with its own weights, images and β, on a thread of its own. Whoever asks for a minibatch waits until all
//! replicas have asked; the last one computes for all. What a replica gets depends on nothing that the others
//! ask for, nor on how many they are.

use super::cuda::{Course, Kernel};
use super::plain::report;
use super::{Batch, Engine, Job, MultiplyAdds, Report, Turn, Why, plain};
use crate::base::panic::guard;
use crate::learning::{Lesson, Memory, Update};
use crate::model::dynamics::{Beta, Nudge};
use crate::model::{Network, Parameters, Settled};
use anyhow::{Result, anyhow};
use candle_core::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// The meeting point of the replicas of one shape.
#[derive(Clone)]
pub struct Hub(Arc<Meeting>);

/// The state that all replicas of a hub share.
struct Meeting {
    state: Mutex<State>,
    answered: Condvar,
}

/// One replica's engine.
pub struct Replica {
    hub: Hub,
    id: usize,
    network: Arc<Network>,
}

struct State {
    job: Job,
    /// True where minibatches are learnt in one launch of [`Kernel`].
    kernel: bool,
    /// θ of each replica that is not in `stacked`.
    alone: BTreeMap<usize, Parameters>,
    /// The replicas that were last computed together, and their weights with the dimension of replicas.
    stacked: Option<(Vec<usize>, Parameters)>,
    /// The request of each replica; `None` while it is busy elsewhere.
    asked: BTreeMap<usize, Option<Request>>,
    answers: BTreeMap<usize, Result<Report>>,
    next_id: usize,
}

/// Checks that runs of this kind can be replicas. Synapses with memory, rules that may have one, and convolutions
/// cannot.
///
/// # Errors
/// Why not.
pub fn supports(network: &Network, job: &Job) -> Result<(), Why> {
    if network.has_convolutions() {
        return Err("train together only without convolutions".into());
    }
    let built_in = matches!(job.learning.rule.update, Update::Nudged(..));
    match job.model.synapse.adds_up() && built_in && job.model.noise.is_none() {
        true => Ok(()),
        false => {
            Err("train together only with a built-in rule that nudges, synapses whose changes add up, and no [noise]"
                .into())
        }
    }
}

/// A minibatch to learn at this turn, or to classify where there is no turn.
struct Request {
    batch: Batch,
    turn: Option<Turn>,
}

impl Hub {
    /// Makes a hub without replicas.
    pub fn new(job: Job) -> Self {
        let state = State {
            job,
            kernel: false,
            alone: BTreeMap::new(),
            stacked: None,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_id: 0,
        };
        Self(Arc::new(Meeting { state: Mutex::new(state), answered: Condvar::new() }))
    }

    /// Makes the hub learn every minibatch in one launch of the CUDA kernel, where `kernel` is true.
    pub fn with_kernel(self, kernel: bool) -> Self {
        self.lock().kernel = kernel;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        guard(&self.0.state)
    }

    /// Adds a replica that starts with `theta`. From now on the others wait for it.
    pub fn join(&self, theta: Parameters) -> Replica {
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        let network = theta.network.clone();
        state.alone.insert(id, theta);
        state.asked.insert(id, None);
        Replica { hub: self.clone(), id, network }
    }

    fn ask(&self, id: usize, network: &Network, request: Request) -> Result<Report> {
        let mut state = self.lock();
        state.job.check(network, &request.batch)?;
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
        // The others may have been waiting for this replica alone.
        state.answer_if_all_have_asked();
        self.hub.0.answered.notify_all();
    }
}

impl Engine for Replica {
    fn train_at(&mut self, batch: &Batch, turn: Turn) -> Result<Report> {
        self.hub.ask(self.id, &self.network, Request { batch: batch.clone(), turn: Some(turn) })
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        self.hub.ask(self.id, &self.network, Request { batch: batch.clone(), turn: None })
    }

    fn multiply_adds(&self, report: &Report) -> MultiplyAdds {
        let state = self.hub.lock();
        let work = |theta| plain::multiply_adds(&theta, &state.job, report);
        state.theta(self.id).map_or(MultiplyAdds { first: f64::NAN, second: f64::NAN }, work)
    }

    fn parameters(&self) -> Result<Parameters> {
        self.hub.lock().theta(self.id)
    }

    fn memory(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    fn recall(&mut self, _: &HashMap<String, Tensor>) -> Result<()> {
        Ok(())
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

    /// Answers all requests if no replica is busy, together where kind and size agree.
    fn answer_if_all_have_asked(&mut self) {
        if self.asked.is_empty() || self.asked.values().any(Option::is_none) {
            return;
        }
        let mut kinds: BTreeMap<_, Vec<(usize, Request)>> = BTreeMap::new();
        for (&id, request) in &mut self.asked {
            if let Some(request) = request.take() {
                let rate = request.turn.map(|turn| self.job.model.synapse.rate(turn.epochs).to_bits());
                let kind = (rate, request.batch.labels.len());
                kinds.entry(kind).or_default().push((id, request));
            }
        }
        for requests in kinds.into_values() {
            // Every request gets an answer, even if that is an error.
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
        let betas: Option<Vec<f32>> =
            requests.iter().map(|(_, request)| request.turn.map(|turn| turn.beta as f32)).collect();
        if let Some(betas) = betas.filter(|_| self.kernel) {
            let (theta, reports) = self.learn_with_kernel(&theta, requests, betas)?;
            self.stacked = Some((ids, theta));
            return Ok(reports);
        }
        let (dtype, device) = (theta.dtype(), &self.job.device);
        let batches = || requests.iter().map(|(_, request)| &request.batch);
        let together = |one: &dyn Fn(&Batch) -> candle_core::Result<Tensor>| {
            Tensor::stack(&batches().map(one).collect::<candle_core::Result<Vec<_>>>()?, 0)
        };
        let x = together(&|batch| batch.x(dtype, device))?;
        let classes = theta.network.dims.output();
        let target = &together(&|batch| batch.y(classes, dtype, device))?;
        let turns: Option<Vec<Turn>> = requests.iter().map(|(_, request)| request.turn).collect();
        let betas: Option<Vec<f64>> =
            turns.as_ref().map(|turns| turns.iter().map(|turn| turn.beta).collect());
        let signs = betas.as_deref().map(|betas| Beta::signs(betas, dtype, device)).transpose()?;
        let loss = self.job.model.loss;
        let nudge = (signs.as_ref().zip(turns)).map(|(signs, turns)| {
            let beta = Beta::of_replicas(turns[0].beta.abs(), signs);
            (Nudge { loss, target, beta }, turns[0].epochs)
        });
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
            reports.push(report(
                loss,
                &Settled { recent, steps, converged, nearest: settled.nearest },
                &batch.labels,
            )?);
        }
        self.stacked = Some((ids, theta));
        Ok(reports)
    }

    /// Learns a minibatch of each replica in one launch of the kernel.
    fn learn_with_kernel(
        &self,
        theta: &Parameters,
        requests: &[(usize, Request)],
        betas: Vec<f32>,
    ) -> Result<(Parameters, Vec<Report>)> {
        let device = &self.job.device;
        let (replicas, pixels) = (requests.len(), theta.network.dims.input());
        let batches = || requests.iter().map(|(_, request)| &request.batch);
        let images: Vec<u8> = batches().flat_map(|batch| batch.images.clone()).collect();
        let labels: Vec<u8> = batches().flat_map(|batch| batch.labels.clone()).collect();
        let (count, size) = (labels.len(), labels.len() / replicas);
        let course = Course {
            images: Tensor::from_vec(images, (count, pixels), device)?,
            labels: Tensor::from_vec(labels, count, device)?,
            order: Tensor::arange(0, count as u32, device)?.reshape((replicas, 1, size))?,
            betas: Tensor::from_vec(betas, (replicas, 1), device)?,
        };
        let kernel = Kernel::for_shape(&self.job, theta, size)?;
        let (theta, reports) = kernel.learn_on_gpu(theta, &course)?;
        Ok((theta, reports.into_iter().flatten().collect()))
    }

    /// Runs the first phase and, where there is a nudge, the second; returns where the first ended, and the new θ.
    fn phases(
        &self,
        theta: Parameters,
        x: &Tensor,
        nudge: Option<(Nudge, f64)>,
    ) -> Result<(Settled, Parameters)> {
        let Job { model, learning, .. } = &self.job;
        let settled = model.settle(&theta, x)?;
        let theta = match nudge {
            None => theta,
            Some((nudge, epochs)) => {
                let lesson = Lesson::new(model, learning, &theta, x, nudge, &settled).after(epochs);
                lesson.learn(&mut Memory::new(model, &theta)?, &mut |_| Ok(()))?
            }
        };
        Ok((settled, theta))
    }
}

/// Weights of many replicas with a leading dimension; biases as (R, 1, d_n).
fn stacked(all: &[Parameters]) -> candle_core::Result<Parameters> {
    let stack = |of: fn(&Parameters) -> &Vec<Tensor>| -> candle_core::Result<Vec<Tensor>> {
        let one = |i: usize| Tensor::stack(&all.iter().map(|theta| &of(theta)[i]).collect::<Vec<_>>(), 0);
        (0..of(&all[0]).len()).map(one).collect()
    };
    let biases = stack(|theta| &theta.biases)?;
    let biases = biases.iter().map(|bias| bias.unsqueeze(1)).collect::<candle_core::Result<_>>()?;
    Ok(Parameters { network: all[0].network.clone(), weights: stack(|theta| &theta.weights)?, biases })
}

/// The weights of replica `r`.
fn unstacked(all: &Parameters, r: usize) -> candle_core::Result<Parameters> {
    let mut one = all.map(|tensor| tensor.get(r)?.copy())?;
    for bias in &mut one.biases {
        *bias = bias.squeeze(0)?;
    }
    Ok(one)
}
