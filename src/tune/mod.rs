//! The paper's search for hyperparameters (F.1), done by the machine: `eqprop tune`.
//!
//! [`tune`] reads as the procedure: when images are at rest ([`first_phase`]), K from the gradients that arrive
//! ([`second_phase`]), β from the angle between update and gradient ([`nudge`]), η from their norms and from how far
//! a step may go ([`rates`]), two probes and T and K once more on their networks, a few candidates halved in rounds
//! ([`halving`]), and both phases shortened while the train error holds ([`trim`]). Every step is written down
//! ([`log`]), and a stopped tuning resumes from there. `docs/tuning.md` gives the reasons.

pub mod budget;
pub mod first_phase;
pub mod halving;
pub mod log;
pub mod nudge;
mod outcome;
mod page;
pub mod probe;
pub mod rates;
pub mod sample;
pub mod second_phase;
mod trim;

use crate::base::files;
use crate::base::lock::Lock;
use crate::base::name;
use crate::base::output::{shell_word, usage};
use crate::base::time::duration;
use crate::config::Config;
use crate::data::{Batch, Dataset};
use crate::engine::{self, Job, MultiplyAdds};
use crate::learning::Nudging;
use crate::model::{Parameters, Settle};
use crate::run::{Interrupt, Outcome, Resources, initial_parameters};
use crate::study::bench;
use crate::telemetry::progress::say;
use anyhow::Result;
use budget::Budget;
use candle_core::Device;
use first_phase::Settling;
use halving::Rounds;
use log::Log;
use nudge::AtBeta;
use probe::{Candidate, Probed};
use rates::Steps;
use sample::Sample;
use second_phase::Arrival;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// β before there is one: the middle of what F.1 calls typical, 0.01 to 1.
const FIRST_BETA: f64 = 0.1;
/// K before there is one, in steps a layer.
const FIRST_K: usize = 10;
/// Training images of the first probe, which is one epoch long.
const PILOT_IMAGES: usize = 20_000;
/// The parts of the arithmetic for a second, longer probe and for the rounds; the rest shortens both phases.
const LONGER: f64 = 0.1;
const ROUNDS: f64 = 0.65;
/// The approximate number of probes that shorten the phases.
const TRIMS: f64 = 6.0;
/// The share of training images held out (one of so many), and their largest number.
const HELD_OUT: (usize, usize) = (6, 10_000);
/// The least number of epochs that rounds of eight candidates need. Where there is no time for them, epochs are made
/// of fewer images, down to a bound.
const EPOCHS: f64 = 16.0;
const FEWEST_IMAGES: usize = 6000;
/// The number of times that the step is halved where the first probe is lost.
const MOST_PILOTS: usize = 6;
/// Minibatches that the speed is measured on.
const TIMED: usize = 30;
/// Minibatches that the work is counted on.
const COUNTED: usize = 10;

/// The version of the procedure: a log of another one cannot be resumed.
const PROCEDURE: usize = 2;
/// The configuration that was found, in the folder of a tuning.
pub const TUNED: &str = "tuned.toml";
/// The page that shows how.
const PAGE: &str = "tune.html";

/// A request to tune, with its resources.
pub struct Request<'a> {
    /// The starting point: the tolerance, T, K, β and η are found, the sign of β is drawn, everything else stays.
    pub config: Config,
    /// The budget.
    pub budget: Budget,
    /// The folder for all results.
    pub folder: PathBuf,
    /// Data sets and devices.
    pub resources: &'a Resources,
    /// The signals that may stop it.
    pub interrupt: &'a Interrupt,
}

/// The signal that stopped a tuning.
#[derive(Debug, thiserror::Error)]
#[error("stopped by signal {0}")]
pub struct Stopped(i32);

/// A check that ends long work when a signal has arrived, or when a budget is spent before there is anything to show.
pub struct Stop<'a> {
    interrupt: &'a Interrupt,
    /// The end of the budget, for what is measured before the first candidate.
    ends: Option<Instant>,
    budget: Budget,
}

impl Stop<'_> {
    /// # Errors
    /// [`Stopped`], where a signal has come; and where the budget is spent before the first candidate.
    pub fn check(&self) -> Result<()> {
        if let Some(signal) = self.interrupt.signal() {
            return Err(Stopped(signal).into());
        }
        if self.ends.is_some_and(|ends| Instant::now() > ends) {
            usage!(
                "--budget {}: spent before the first candidate, since such a network takes long to measure here: give more \
                 time, or fewer pixels and layers, with another folder (--out)",
                self.budget
            );
        }
        Ok(())
    }
}

/// The arithmetic available for probes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    /// Multiply-adds a second, as measured.
    speed: f64,
    /// Multiply-adds of all probes together: `--budget` with this number repeats the choice.
    work: f64,
}

/// A tuning under way.
pub struct Tuner<'a> {
    request: &'a Request<'a>,
    folder: PathBuf,
    log: Log,
    /// The settings so far, as for a probe.
    config: Config,
    /// The data, as probes see it.
    dataset: Arc<Dataset>,
    device: Device,
    /// Training images of a probe.
    images: usize,
    plan: Plan,
    /// Multiply-adds of the probes so far, in all and by name.
    spent: f64,
    done: BTreeMap<String, f64>,
    /// A trained network, on which the cost of a minibatch is counted; none at first.
    typical: Option<Parameters>,
    /// Multiply-adds of an image for a first phase and a K.
    image: Vec<(Settle, usize, MultiplyAdds)>,
    _lock: Lock,
}

/// Tunes, or resumes a tuning, until `tuned.toml` and `tune.html` are written.
///
/// # Errors
/// Names what cannot be read or written; and where the network does not settle, or no probe learns.
pub fn tune(request: &Request) -> Result<Outcome> {
    match Tuner::begin(request).and_then(|mut tuner| tuner.run()) {
        Ok(()) => Ok(Outcome::Done),
        Err(error) => match error.downcast_ref::<Stopped>() {
            Some(Stopped(signal)) => {
                say(&format!("stopped by signal {signal}; the same command resumes from there"));
                Ok(Outcome::Interrupted(*signal))
            }
            None => Err(error),
        },
    }
}

impl<'a> Tuner<'a> {
    fn begin(request: &'a Request) -> Result<Self> {
        let base = &request.config;
        if !base.learning.rule.is_nudged() {
            usage!(
                "rule = \"{}\" follows a gradient, not the steps of a second phase, which is what is tuned: choose ep, cep, \
                cep-rescaled, vf or cvf",
                base.learning.rule.name()
            );
        }
        let whole = request.resources.dataset(&base.training)?;
        whole.check(&base.network.dims)?;
        let images = whole.train.len();
        if images < 2 * HELD_OUT.0 {
            usage!("{} has {images} training images, too few to hold some out for probes", whole.name);
        }
        let folder = request.folder.clone();
        files::create_folder(&folder)?;
        let lock = Lock::take(&folder)?;
        files::remove_temporaries(&folder)?;
        let about = json!({
            "configuration": base,
            "data": whole.name,
            "sha256": whole.checksums,
            "budget": request.budget,
            "procedure": PROCEDURE,
        });
        let log = Log::open(&folder, &about)?;
        let mut config = base.clone();
        config.learning.beta = FIRST_BETA;
        config.learning.nudging = Nudging::Random;
        config.learning.K = FIRST_K * (base.network.dims.depth() + 1);
        let device = request.resources.device(base)?;
        let plan = Plan { speed: f64::NAN, work: f64::NAN };
        let mut tuner = Self {
            request,
            folder,
            log,
            config,
            dataset: whole,
            device,
            images,
            plan,
            spent: 0.0,
            done: BTreeMap::new(),
            typical: None,
            image: Vec::new(),
            _lock: lock,
        };
        tuner.probe_on(images)?;
        Ok(tuner)
    }

    /// The whole procedure.
    fn run(&mut self) -> Result<()> {
        let base = self.request.config.clone();
        say(&format!(
            "tuning {}, layers {}, on {}, budget {}: {}",
            base.learning.rule.title,
            base.network.dims,
            self.dataset.name,
            self.request.budget,
            self.folder.display()
        ));
        // On initial weights.
        let theta = initial_parameters(&self.config, None, &self.device)?;
        let settling = self.settling("untrained", &theta)?;
        self.config.settle = first_phase::settle(&self.config, &settling);
        if settling.steps(self.config.settle.tolerance).is_none() {
            anyhow::bail!(
                "the untrained network does not settle within {} steps: its weights are too large, or its \
                 steps too small. Smaller initial weights (network.init) may help, in discrete time damped \
                 steps \
                 (--set settle.damping=0.5), in real time longer ones (network.epsilon)",
                first_phase::MOST_STEPS
            )
        }
        let arrival = self.arrival("untrained", &theta)?;
        self.config.learning.K = arrival.steps();
        let curve = self.nudge(&theta, settling.motionless(), arrival.missing.len())?;
        self.config.learning.beta = nudge::choose(&curve);
        self.config.settle = first_phase::settle(&self.config, &settling);
        let steps = self.rates(&theta, &arrival.forward_norms)?;
        self.say_settings("on untrained weights");

        // Two probes, and T and K once more after each: trained networks settle differently.
        let whole = self.request_images()?;
        self.probe_on(whole.min(PILOT_IMAGES))?;
        let (pilot, step) = self.pilot(steps.step, &arrival.forward_norms)?;
        self.raise_steps("pilot", &pilot)?;
        self.plan = self.measure_speed(&pilot, &theta)?;
        self.probe_on(whole)?;
        let longer = self.longer_pilot(pilot)?;
        self.raise_steps("longer", &longer)?;
        self.say_settings("after two probes");

        // Candidates, in rounds.
        let rounds_work = ROUNDS * (self.plan.work - self.spent);
        let epochs = rounds_work / self.work_of(&self.config.clone(), 1)?;
        if epochs < EPOCHS {
            let fewer = (whole as f64 * epochs / EPOCHS) as usize;
            self.probe_on(fewer.max(FEWEST_IMAGES).min(whole))?;
        }
        let affordable = rounds_work / self.work_of(&self.config.clone(), 1)?;
        let rounds = Rounds::within(affordable, base.training.epochs);
        say(&format!(
            "{} candidates in rounds of {:?} epochs of {} images, {} of which are held out",
            rounds.candidates,
            rounds.epochs,
            self.config.training.limit_train.unwrap_or(0),
            self.config.training.validation
        ));
        let (mut winner, probed) = self.halve(&rounds, step, &arrival.forward_norms)?;

        // T and K once more, on the network that has been trained for longest, and then what can be saved.
        let theta = self.trained(&winner)?;
        let settling = self.settling("winner", &theta)?;
        let arrival = self.arrival("winner", &theta)?;
        let Config { settle, learning, .. } = &mut winner.config;
        settle.steps = settle.steps.max(settling.bound(settle.tolerance));
        learning.K = learning.K.max(arrival.least());
        let affordable = (self.plan.work - self.spent) / TRIMS / self.work_of(&winner.config, 1)?;
        let epochs = (affordable as usize).clamp(1, probed.train.len());
        let best = self.trim(&winner, &probed, epochs, arrival.least())?;

        let tuned = Config { training: base.training.clone(), ..best.config.clone() };
        outcome::write(self, &tuned, &probed)?;
        let page = page::page(self, &tuned, &[&winner.name, &best.name])?;
        files::write_atomically(&self.folder.join(PAGE), page.as_bytes())?;
        let took = duration(self.log.elapsed().as_secs_f64());
        say(&format!(
            "found {} in {took}; {} shows how",
            settings(&tuned, ""),
            self.folder.join(PAGE).display()
        ));
        say(&format!("train with it: {}", self.command()));
        Ok(())
    }

    fn stop(&self) -> Stop<'a> {
        let untrained = self.plan.speed.is_nan();
        let left = self.request.budget.left(self.log.elapsed()).filter(|_| untrained);
        Stop {
            interrupt: self.request.interrupt,
            ends: left.and_then(|left| Instant::now().checked_add(left)),
            budget: self.request.budget,
        }
    }

    fn settling(&mut self, network: &str, theta: &Parameters) -> Result<Settling> {
        let (config, dataset, stop) = (&self.config, &self.dataset, self.stop());
        self.log.step(&format!("settling/{network}"), || {
            say(&format!("how images settle, {network} network"));
            Settling::measure(config, theta, &dataset.train, &stop)
        })
    }

    fn arrival(&mut self, network: &str, theta: &Parameters) -> Result<Arrival> {
        let (config, dataset) = (&self.config, &self.dataset);
        self.log.step(&format!("arrival/{network}"), || {
            say(&format!("how gradients arrive, {network} network"));
            Arrival::measure(config, &Sample::take(config, theta, &dataset.train)?, config.learning.beta)
        })
    }

    /// Measures β, with T and K so large that they do not matter.
    fn nudge(&mut self, theta: &Parameters, first_steps: usize, second_steps: usize) -> Result<Vec<AtBeta>> {
        let (mut config, dataset, stop) = (self.config.clone(), &self.dataset, self.stop());
        (config.settle.steps, config.settle.tolerance, config.learning.K) = (first_steps, 0.0, second_steps);
        let config = &config;
        self.log.step("nudge", || {
            say("angle against β");
            nudge::measure(config, &Sample::take(config, theta, &dataset.train)?, &stop)
        })
    }

    /// Measures rates, with T so large that it does not matter.
    fn rates(&mut self, theta: &Parameters, forward_norms: &[f64]) -> Result<Steps> {
        let (mut config, dataset, stop) = (self.config.clone(), &self.dataset, self.stop());
        config.settle.tolerance = 0.0;
        let config = &config;
        let steps = self.log.step("rates", || {
            say("how far a step may go");
            rates::measure(config, &Sample::take(config, theta, &dataset.train)?, forward_norms, &stop)
        })?;
        self.config.learning.learning_rates = rates::rates(steps.step, forward_norms);
        Ok(steps)
    }

    /// Raises T and K to the needs of the network of a probe. From now on the cost of probes is counted on it.
    fn raise_steps(&mut self, network: &str, probe: &Candidate) -> Result<()> {
        let theta = self.trained(probe)?;
        let settling = self.settling(network, &theta)?;
        let settle = &mut self.config.settle;
        settle.steps = settle.steps.max(settling.bound(settle.tolerance));
        let arrived = self.arrival(network, &theta)?.steps();
        let learning = &mut self.config.learning;
        learning.K = learning.K.max(arrived);
        self.typical = Some(theta);
        self.image.clear();
        Ok(())
    }

    /// Runs a short probe with half of the step; with ever smaller ones where it is lost. Returns its name, and the
    /// step that works.
    fn pilot(&mut self, step: f64, forward_norms: &[f64]) -> Result<(Candidate, f64)> {
        let mut step = step;
        for number in 1..=MOST_PILOTS {
            let mut config = self.config.clone();
            config.learning.learning_rates = rates::rates(step / 2.0, forward_norms);
            let candidate = Candidate { name: format!("pilot{number}"), config };
            let probed = self.probe(&candidate, 1)?;
            say(&format!("{}  {}", halving::describe(&candidate, &probed), self.time_left()));
            if !probed.lost {
                return Ok((candidate, step));
            }
            step /= 4.0;
        }
        anyhow::bail!(
            "no step is short enough: {MOST_PILOTS} first probes have diverged, the last with η = {:?}. Damped steps may \
             help (--set settle.damping=0.5)",
            rates::rates(2.0 * step, forward_norms)
        )
    }

    /// Runs the pilot's settings for as many epochs as its part of the arithmetic allows, at most a quarter of all.
    /// Returns the pilot itself where that is none, or where the longer one is lost.
    fn longer_pilot(&mut self, pilot: Candidate) -> Result<Candidate> {
        let mut config = self.config.clone();
        config.learning.learning_rates = pilot.config.learning.learning_rates.clone();
        let affordable = (LONGER * self.plan.work / self.work_of(&config, 1)?) as usize;
        let epochs = affordable.min(self.request.config.training.epochs / 4);
        let longer = Candidate { name: "longer".into(), config };
        if epochs == 0 || !self.may(&longer, epochs)? {
            return Ok(pilot);
        }
        let probed = self.probe(&longer, epochs)?;
        say(&format!("{}  {}", halving::describe(&longer, &probed), self.time_left()));
        Ok(if probed.lost { pilot } else { longer })
    }

    /// The weights that a probe ended with.
    fn trained(&self, candidate: &Candidate) -> Result<Parameters> {
        Ok(initial_parameters(&candidate.config, Some(&self.weights_of(&candidate.name)?), &self.device)?)
    }

    /// Makes runs of this configuration probes on the first `images` training images, some of them held out.
    fn probe_on(&mut self, images: usize) -> Result<()> {
        let training = &mut self.config.training;
        training.limit_train = Some(images);
        training.limit_test = Some(1); // Nothing is decided by test images, so none is looked at but one.
        training.validation = (images / HELD_OUT.0).min(HELD_OUT.1);
        training.angle_minibatches = 0;
        training.angle_every = 0;
        training.keep_checkpoints = 1;
        self.dataset = self.request.resources.dataset(training)?;
        self.images = self.dataset.train.len();
        Ok(())
    }

    /// The number of training images of the configuration.
    fn request_images(&self) -> Result<usize> {
        Ok(self.request.resources.dataset(&self.request.config.training)?.train.len())
    }

    /// Measures the speed of minibatches, or of the first probe where that was slower, with all that a run does
    /// beside them.
    fn measure_speed(&mut self, pilot: &Candidate, theta: &Parameters) -> Result<Plan> {
        let work = self.work_of(&pilot.config, 1)?;
        let Self { log, config, dataset, device, request, .. } = self;
        let (elapsed, took) = (log.elapsed(), log.seconds(&format!("probe/{}/1", pilot.name)));
        log.step("plan", || {
            let kind = config.training.engine;
            let mut engine = engine::build(kind, config.job(device), theta.clone())?;
            let timing = bench::time(config, engine.as_mut(), dataset, TIMED)?;
            let speed = (timing.multiply_adds / (timing.whole * TIMED as f64)).min(work / took);
            Ok(Plan { speed, work: request.budget.work(elapsed, speed) })
        })
    }

    /// The multiply-adds of so many epochs of a probe, its validation included.
    fn work_of(&mut self, config: &Config, epochs: usize) -> Result<f64> {
        let known = self
            .image
            .iter()
            .find(|(settle, second_steps, _)| (settle, *second_steps) == (&config.settle, config.learning.K));
        let image = match known {
            Some((.., work)) => *work,
            None => {
                let work = self.work_of_an_image(config)?;
                self.image.push((config.settle, config.learning.K, work));
                work
            }
        };
        let (learnt, judged) = (self.images as f64, config.training.validation as f64);
        Ok(epochs as f64 * (learnt * (image.first + image.second) + judged * image.first))
    }

    /// The mean multiply-adds of an image, in the engine and on a network in about that state.
    fn work_of_an_image(&self, config: &Config) -> Result<MultiplyAdds> {
        let theta = match &self.typical {
            Some(theta) => theta.clone(),
            None => initial_parameters(config, None, &self.device)?,
        };
        let (kind, size) = (config.training.engine, config.training.batch_size);
        let learning = sample::with_fixed_weights(&config.learning);
        let mut engine = engine::build(kind, Job { learning, ..config.job(&self.device) }, theta)?;
        let indices: Vec<u32> = (0..self.images.min(COUNTED * size) as u32).collect();
        let part = 1.0 / indices.len() as f64;
        let (mut mean, mut batch) = (MultiplyAdds::default(), Batch::default());
        for indices in indices.chunks(size) {
            self.dataset.train.gather(indices, &mut batch);
            let report = engine.train(&batch, config.learning.beta)?;
            let work = engine.multiply_adds(&report);
            mean.first += part * work.first;
            mean.second += part * work.second;
        }
        Ok(mean)
    }

    /// True where the budget allows training a candidate up to so many epochs.
    fn may(&mut self, candidate: &Candidate, epochs: usize) -> Result<bool> {
        self.stop().check()?;
        let done = self.done.get(&candidate.name).copied().unwrap_or(0.0);
        let need = self.work_of(&candidate.config, epochs)? - done;
        if self.spent + need > self.plan.work {
            return Ok(false);
        }
        if self.log.find(&format!("probe/{}/{epochs}", candidate.name)).is_some() {
            return Ok(true);
        }
        if self.log.find("cut").is_some() {
            return Ok(false);
        }
        let time = Duration::from_secs_f64((need / self.plan.speed).clamp(0.0, 1e9));
        let late = self.request.budget.left(self.log.elapsed()).is_some_and(|left| left < time);
        if late {
            let name = candidate.name.clone();
            self.log.step("cut", || Ok(json!({ "before": name, "epochs": epochs })))?;
            say("the budget is used up: probes took longer than planned");
        }
        Ok(!late)
    }

    /// The time left, in words; empty where that is not known yet.
    fn time_left(&self) -> String {
        let planned = (self.plan.work - self.spent).max(0.0) / self.plan.speed;
        let planned = planned.is_finite().then(|| Duration::from_secs_f64(planned.min(1e9)));
        let left = [planned, self.request.budget.left(self.log.elapsed())].into_iter().flatten().min();
        left.map_or(String::new(), |left| format!("at most {} left", duration(left.as_secs_f64())))
    }

    /// The command that trains with the result.
    fn command(&self) -> String {
        format!("eqprop train --config {}", shell_word(self.folder.join(TUNED).display()))
    }

    fn say_settings(&self, when: &str) {
        say(&format!("{when}: {}", settings(&self.config, "at most ")));
    }

    /// The name of the run of a probe.
    fn run_name(&self, name: &str) -> Result<String> {
        Ok(name::on_data(name, &self.dataset.name)?)
    }
}

/// The tuned settings, in words; `bound` stands before the rates.
fn settings(config: &Config, bound: &str) -> String {
    let Config { settle, learning, .. } = config;
    format!(
        "tolerance {} T {} K {} β {}{} η {bound}{:?}",
        settle.tolerance,
        settle.steps,
        learning.K,
        learning.nudging.mark(),
        learning.beta,
        learning.learning_rates
    )
}

/// The results of a probe for the page and the file.
fn probes(log: &Log) -> Vec<(String, Probed)> {
    (log.all("probe/"))
        .filter_map(|(step, result)| {
            let name = step.split('/').nth(1)?.to_string();
            Some((name, serde_json::from_value(result.clone()).ok()?))
        })
        .collect()
}
