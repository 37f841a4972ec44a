//! Many networks of one shape trained as one: the plain engine with a leading dimension of replicas, or one launch of
//! the [kernel](super::cuda).
//!
//! Small products leave a GPU idle; R of them at once do not. Each replica is the engine of a run of its own,
//! with its own weights, images and β. Whoever asks for minibatches waits until all replicas have asked; the last one
//! computes for all, from images that lie on the device, and reads the reports of all minibatches at once. What a
//! replica gets depends on nothing that the others ask for, nor on how many they are, nor on how many minibatches it
//! asks for at once.

use super::cuda::{Course, Kernel};
use super::plain::report_of;
use super::{Batch, Engine, EngineKind, Job, MultiplyAdds, Report, Turn, Why, plain};
use crate::base::panic::guard;
use crate::data::{Dataset, one_hot, pixels};
use crate::learning::{Lesson, Memory, Update};
use crate::model::dynamics::{Beta, Nudge};
use crate::model::{Network, Parameters, Settled};
use anyhow::{Result, anyhow, bail};
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use tracing::info;

/// Minibatches that are asked for at once: enough for what surrounds their arithmetic not to count, and few enough to
/// stop within a second or so.
const STRIDE: usize = 100;

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
    /// Kernel: every minibatch is learnt by [`Kernel`]; auto: those that it can run; plain: none.
    kind: EngineKind,
    /// θ of each replica that is not in `stacked`.
    alone: BTreeMap<usize, Parameters>,
    /// The replicas that were last computed together, and their weights with the dimension of replicas.
    stacked: Option<(Vec<usize>, Parameters)>,
    /// The request of each replica; `None` while it is busy elsewhere.
    asked: BTreeMap<usize, Option<Request>>,
    answers: BTreeMap<usize, Result<Vec<Report>>>,
    next_id: usize,
    /// Why the kernel is not used has been said.
    told: bool,
    /// Training sets that lie on the device: images (n, d_in) and labels (n,), as bytes.
    sets: Vec<(Weak<Dataset>, Tensor, Tensor)>,
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

/// A replica's wish.
enum Request {
    /// Classify these images.
    Classify(Batch),
    /// Learn minibatches of one size, one after another, at these turns.
    Learn(Images, Vec<Turn>),
}

/// The images of some minibatches.
enum Images {
    /// Numbers in a training set.
    Of(Arc<Dataset>, Vec<u32>),
    /// One minibatch.
    Given(Batch),
}

impl Images {
    fn len(&self) -> usize {
        match self {
            Images::Of(_, numbers) => numbers.len(),
            Images::Given(batch) => batch.labels.len(),
        }
    }

    /// Adds them to a minibatch.
    fn append_to(&self, all: &mut Batch) {
        let gathered;
        let batch = match self {
            Images::Of(dataset, numbers) => {
                gathered = dataset.train.batch(numbers);
                &gathered
            }
            Images::Given(batch) => batch,
        };
        all.images.extend_from_slice(&batch.images);
        all.labels.extend_from_slice(&batch.labels);
    }

    fn labels(&self) -> Vec<u8> {
        match self {
            Images::Of(dataset, numbers) => {
                numbers.iter().map(|&i| dataset.train.labels[i as usize]).collect()
            }
            Images::Given(batch) => batch.labels.clone(),
        }
    }
}

impl Hub {
    /// Makes a hub without replicas.
    pub fn new(job: Job) -> Self {
        let state = State {
            job,
            kind: EngineKind::Plain,
            alone: BTreeMap::new(),
            stacked: None,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_id: 0,
            told: false,
            sets: Vec::new(),
        };
        Self(Arc::new(Meeting { state: Mutex::new(state), answered: Condvar::new() }))
    }

    /// Makes the hub learn by the CUDA kernel: every minibatch with [`EngineKind::Kernel`], those that it can run with
    /// [`EngineKind::Auto`].
    pub fn with_engine(self, kind: EngineKind) -> Self {
        self.lock().kind = kind;
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

    fn ask(&self, id: usize, request: Request) -> Result<Vec<Report>> {
        let mut state = self.lock();
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

    fn check(&self, network: &Network, batch: &Batch) -> Result<()> {
        self.lock().job.check(network, batch)
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
        self.hub.check(&self.network, batch)?;
        only(self.hub.ask(self.id, Request::Learn(Images::Given(batch.clone()), vec![turn]))?)
    }

    fn stride(&self) -> usize {
        STRIDE
    }

    fn train_ahead(&mut self, dataset: &Arc<Dataset>, ahead: &[(&[u32], Turn)]) -> Result<Vec<Report>> {
        let Some((first, _)) = ahead.first() else { return Ok(Vec::new()) };
        self.hub.check(&self.network, &dataset.train.batch(first))?;
        let mut reports = Vec::new();
        // The last minibatch of an epoch may be smaller.
        for same in ahead.chunk_by(|a, b| a.0.len() == b.0.len()) {
            let (numbers, turns): (Vec<&[u32]>, Vec<Turn>) = same.iter().copied().unzip();
            let images = Images::Of(dataset.clone(), numbers.concat());
            reports.extend(self.hub.ask(self.id, Request::Learn(images, turns))?);
        }
        Ok(reports)
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<Report> {
        self.hub.check(&self.network, batch)?;
        only(self.hub.ask(self.id, Request::Classify(batch.clone()))?)
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
                // Minibatches with the share of η that each is learnt with, and images.
                let kind = match &request {
                    Request::Classify(batch) => (Vec::new(), batch.labels.len()),
                    Request::Learn(images, turns) => {
                        let rate = |turn: &Turn| self.job.model.synapse.rate(turn.epochs).to_bits();
                        (turns.iter().map(rate).collect(), images.len())
                    }
                };
                kinds.entry(kind).or_default().push((id, request));
            }
        }
        for requests in kinds.into_values() {
            let (ids, requests): (Vec<usize>, Vec<Request>) = requests.into_iter().unzip();
            // Every request gets an answer, even if that is an error.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.compute(&ids, &requests)))
                .unwrap_or_else(|_| Err(anyhow!("what the replicas compute together has panicked")));
            match outcome {
                Ok(reports) => self.answers.extend(ids.into_iter().zip(reports.into_iter().map(Ok))),
                Err(error) => {
                    self.answers.extend(ids.into_iter().map(|id| (id, Err(anyhow!("{error:#}")))));
                }
            }
        }
    }

    /// The reports of each of these replicas, whose requests are of one kind and size.
    fn compute(&mut self, ids: &[usize], requests: &[Request]) -> Result<Vec<Vec<Report>>> {
        let theta = self.stack(ids)?;
        let (mut batches, mut lessons) = (Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Classify(batch) => batches.push(batch),
                Request::Learn(images, turns) => lessons.push((images, &turns[..])),
            }
        }
        let (reports, theta) = match lessons.is_empty() {
            true => (self.classify(&theta, &batches)?, theta),
            false => self.learn(theta, &lessons)?,
        };
        self.stacked = Some((ids.to_vec(), theta));
        Ok(reports)
    }

    /// Classifies a minibatch of each replica.
    fn classify(&self, theta: &Parameters, batches: &[&Batch]) -> Result<Vec<Vec<Report>>> {
        let images = batches[0].labels.len();
        let bytes: Vec<u8> = batches.iter().flat_map(|batch| &batch.images).copied().collect();
        let bytes = Tensor::from_vec(bytes, (batches.len(), images, ()), &self.job.device)?;
        let settled = self.job.model.settle(theta, &pixels(&bytes, theta.dtype())?)?;
        let outcome = settled.outcome()?.to_vec2::<f64>()?;
        let each = batches.iter().zip(outcome.chunks(images)).zip(settled.steps.chunks(images));
        each.map(|((batch, outcome), steps)| {
            Ok(vec![report_of(self.job.model.loss, outcome, steps, &batch.labels)?])
        })
        .collect()
    }

    /// Learns as many minibatches of each replica.
    fn learn(
        &mut self,
        theta: Parameters,
        lessons: &[(&Images, &[Turn])],
    ) -> Result<(Vec<Vec<Report>>, Parameters)> {
        let course = self.course(lessons)?;
        let (replicas, minibatches, images) = course.order.dims3()?;
        if let Some(kernel) = self.kernel(&theta, images)? {
            let (theta, reports) = kernel.learn_on_gpu(&theta, &course)?;
            return Ok((reports, theta));
        }
        let Job { model, device, .. } = &self.job;
        let (dtype, classes) = (theta.dtype(), theta.network.dims.output());
        let labels: Vec<Vec<u8>> = lessons.iter().map(|(images, _)| images.labels()).collect();
        let of = |r: usize, m: usize| &labels[r][m * images..][..images];
        let (mut theta, mut outcomes, mut steps) = (theta, Vec::new(), Vec::new());
        for m in 0..minibatches {
            let numbers = course.order.narrow(1, m, 1)?.flatten_all()?;
            let bytes = course.images.index_select(&numbers, 0)?.reshape((replicas, images, ()))?;
            let one_hot = |r: usize| one_hot(of(r, m), classes);
            let target: Vec<u8> = (0..replicas).flat_map(one_hot).collect();
            let target = &Tensor::from_vec(target, (replicas, images, classes), device)?.to_dtype(dtype)?;
            let turns: Vec<Turn> = lessons.iter().map(|(_, turns)| turns[m]).collect();
            let betas: Vec<f64> = turns.iter().map(|turn| turn.beta).collect();
            let signs = Beta::signs(&betas, dtype, device)?;
            let beta = Beta::of_replicas(betas[0].abs(), &signs);
            let nudge = Nudge { loss: model.loss, target, beta };
            let settled;
            (settled, theta) = self.phases(&theta, &pixels(&bytes, dtype)?, nudge, turns[0].epochs)?;
            outcomes.push(settled.outcome()?);
            steps.push(settled.steps);
        }
        // All that is read of these minibatches.
        let outcomes = Tensor::stack(&outcomes, 0)?.to_vec3::<f64>()?;
        let report = |r: usize, m: usize| {
            let rows = r * images..(r + 1) * images;
            report_of(model.loss, &outcomes[m][rows.clone()], &steps[m][rows], of(r, m))
        };
        let reports = (0..replicas).map(|r| (0..minibatches).map(|m| report(r, m)).collect());
        Ok((reports.collect::<candle_core::Result<_>>()?, theta))
    }

    /// Runs both phases of a minibatch with the operations of the plain engine: the end of the first, and the new θ.
    fn phases(
        &self,
        theta: &Parameters,
        x: &Tensor,
        nudge: Nudge,
        epochs: f64,
    ) -> candle_core::Result<(Settled, Parameters)> {
        let Job { model, learning, .. } = &self.job;
        let settled = model.settle(theta, x)?;
        let lesson = Lesson::new(model, learning, theta, x, nudge, &settled).after(epochs);
        let learnt = lesson.learn(&mut Memory::new(model, theta)?, &mut |_| Ok(()))?;
        Ok((settled, learnt))
    }

    /// The kernel for minibatches of so many images, where it is to be used.
    fn kernel(&mut self, theta: &Parameters, images: usize) -> Result<Option<Kernel>> {
        let applies = match self.kind {
            EngineKind::Kernel => true,
            EngineKind::Auto => self.job.device.is_cuda(),
            EngineKind::Plain | EngineKind::Fused => false,
        };
        match applies.then(|| Kernel::for_shape(&self.job, theta, images)) {
            None => Ok(None),
            Some(Err(why)) if self.kind == EngineKind::Auto => {
                if !std::mem::replace(&mut self.told, true) {
                    info!("computing step by step: {why}");
                }
                Ok(None)
            }
            Some(kernel) => Ok(Some(kernel?)),
        }
    }

    /// These minibatches, their images on the device.
    fn course(&mut self, lessons: &[(&Images, &[Turn])]) -> Result<Course> {
        let device = self.job.device.clone();
        let (replicas, minibatches) = (lessons.len(), lessons[0].1.len());
        let shape = (replicas, minibatches, lessons[0].0.len() / minibatches);
        let betas: Vec<f32> =
            lessons.iter().flat_map(|(_, turns)| turns.iter().map(|turn| turn.beta as f32)).collect();
        let betas = Tensor::from_vec(betas, (replicas, minibatches), &device)?;
        if let (Images::Of(dataset, _), _) = lessons[0] {
            let numbers = lessons.iter().map(|(images, _)| match images {
                Images::Of(other, numbers) if Arc::ptr_eq(other, dataset) => Some(&numbers[..]),
                _ => None,
            });
            if let Some(numbers) = numbers.collect::<Option<Vec<_>>>() {
                let order = Tensor::from_vec(numbers.concat(), shape, &device)?;
                let (images, labels) = self.set(dataset, &device)?;
                return Ok(Course { images, labels, order, betas });
            }
        }
        let mut all = Batch::default();
        lessons.iter().for_each(|(images, _)| images.append_to(&mut all));
        let count = all.labels.len();
        Ok(Course {
            images: Tensor::from_vec(all.images, (count, ()), &device)?,
            labels: Tensor::from_vec(all.labels, count, &device)?,
            order: Tensor::arange(0, count as u32, &device)?.reshape(shape)?,
            betas,
        })
    }

    /// A training set on the device.
    fn set(&mut self, dataset: &Arc<Dataset>, device: &Device) -> Result<(Tensor, Tensor)> {
        self.sets.retain(|(known, ..)| known.strong_count() > 0);
        let known = self.sets.iter().find(|(known, ..)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(dataset)));
        if let Some((_, images, labels)) = known {
            return Ok((images.clone(), labels.clone()));
        }
        let train = &dataset.train;
        let images = Tensor::from_slice(&train.images, (train.len(), train.pixels), device)?;
        let labels = Tensor::from_slice(&train.labels, train.len(), device)?;
        self.sets.push((Arc::downgrade(dataset), images.clone(), labels.clone()));
        Ok((images, labels))
    }
}

/// The only one of these reports.
fn only(reports: Vec<Report>) -> Result<Report> {
    match reports[..] {
        [report] => Ok(report),
        _ => bail!("{} reports of one minibatch", reports.len()),
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
