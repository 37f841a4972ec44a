//! Checks of a configuration: first each section by itself, then the sections together. Sizes that would never end or
//! fit into no memory are refused before anything is allocated for them.

use super::{Config, DeviceChoice, NetworkConfig, Precision, TrainingConfig};
use crate::base::problem::{Result, need};
use crate::engine::EngineKind;
use crate::learning::{Learning, Nudging, Schedule, Update};
use crate::model::anderson::MOST_WINDOW;
use crate::model::dynamics::Time;
use crate::model::normal::MOST_CHANNELS;
use crate::model::synapse::{Fall, SynapseConfig};
use crate::model::{Order, Settle, Solver};
use candle_core::Device;

/// The most hidden layers a preset is derived for.
pub const MOST_HIDDEN_LAYERS: usize = 100;
/// The most neurons in a layer.
const MOST_NEURONS: usize = 1_000_000;
/// The most weights and biases: 4 GiB of 32-bit floats.
const MOST_PARAMETERS: usize = 1 << 30;

/// Checks that a number is at most `most`.
fn at_most(key: &'static str, value: usize, most: usize, unit: &str) -> Result {
    need(value <= most, key, format!("must be at most {most} {unit}"))
}

impl NetworkConfig {
    fn check(&self) -> Result {
        let dims = &self.dims.0;
        need(
            dims.len() >= 3 && dims.iter().all(|&d| d > 0),
            "network.dims",
            "needs an input, at least one hidden layer and an output, each of at least 1 neuron; only the input and the \
             output can be \"auto\", which the data decides",
        )?;
        need(
            (2..=256).contains(dims.last().unwrap_or(&0)),
            "network.dims",
            "ends with the number of classes, which must be 2 to 256 (labels are bytes)",
        )?;
        at_most("network.dims", dims.len(), MOST_HIDDEN_LAYERS + 2, "layers")?;
        at_most("network.dims", dims.iter().copied().max().unwrap_or(0), MOST_NEURONS, "neurons in a layer")?;
        need((0.0..=180.0).contains(&self.psi), "network.psi", "must be an angle from 0 to 180 degrees")?;
        need(
            self.epsilon > 0.0 && self.epsilon <= 1.0,
            "network.epsilon",
            "must be a step of time above 0 and at most 1",
        )?;
        need(
            self.time == Time::Real || !self.clamp,
            "network.clamp",
            "keeps real-time states in [0, 1]: set time = \"real\", or leave it out",
        )?;
        need(
            self.readout.is_none() || self.loss.is_default(),
            "network.loss",
            format!(
                "is that of output neurons with states: network.readout = \"{}\" has the cross-entropy as its loss: leave \
                 out one of them",
                self.readout.name()
            ),
        )?;
        let (mean, std) = (&self.input_mean, &self.input_std);
        need(
            mean.len() <= MOST_CHANNELS && mean.iter().all(|mean| mean.is_finite()),
            "network.input_mean",
            format!("is the mean of each channel of the images: at most {MOST_CHANNELS} finite numbers"),
        )?;
        need(
            mean.len() == std.len() && std.iter().all(|std| std.is_finite() && *std > 0.0),
            "network.input_std",
            format!(
                "is what each channel is divided by, above 0: as many numbers as input_mean has, {}",
                mean.len()
            ),
        )?;
        need(
            // A size that is left to the data is 1 here.
            mean.is_empty() || dims[0] < mean.len() || dims[0].is_multiple_of(mean.len()),
            "network.input_mean",
            format!("has {} channels, which network.dims[0] = {} pixels do not have", mean.len(), dims[0]),
        )
    }
}

impl Settle {
    fn check(&self) -> Result {
        need(
            (0.0..1.0).contains(&self.damping),
            "settle.damping",
            "is the share of the old state that a step keeps and must be from 0 to below 1",
        )?;
        need(
            self.tolerance >= 0.0 && self.tolerance < 1.0,
            "settle.tolerance",
            "is a change of a state in one sweep and must be from 0 (run all steps) to below 1",
        )?;
        need(self.steps >= 1, "settle.steps", "must be at least 1 step")?;
        at_most("settle.steps", self.steps, 100_000, "steps")?;
        need(
            self.order == Order::Synchronous || self.steps.is_multiple_of(2),
            "settle.steps",
            "must be even where settle.order = \"alternating\": a step updates half of the layers",
        )?;
        need(
            (2..=MOST_WINDOW).contains(&self.window),
            "settle.window",
            format!(
                "is the number of differences between sweeps that solver = \"anderson\" uses and must be \
                 from 2 to \
                 {MOST_WINDOW}"
            ),
        )
    }
}

impl Learning {
    /// Checks its numbers, for weights of this type.
    fn validate(&self, precision: Precision) -> Result {
        let rule = self.rule.name;
        let held = |value: f64| match precision {
            Precision::F32 => f64::from(value as f32),
            Precision::F64 => value,
        };
        need(
            self.tiny > 0.0 && self.tiny <= 1.0,
            "learning.tiny",
            "is η_tiny/η and must be above 0 and at most 1",
        )?;
        need(
            self.nudging != Nudging::Centered || self.rule.is_nudged(),
            "learning.nudging",
            format!(
                "\"centered\" runs the second phase once with each sign of β, and rule = \"{rule}\" has none: \
                 leave it out"
            ),
        )?;
        need(self.K >= 1, "learning.K", "must be at least 1 step")?;
        at_most("learning.K", self.K, 100_000, "steps")?;
        need(
            held(self.beta).is_finite() && held(1.0 / self.beta).is_finite(),
            "learning.beta",
            "must be a finite number other than 0 whose inverse is finite too, in the type of the weights \
             (training.dtype): without a nudge there is no second phase",
        )?;
        need(
            self.learning_rates.iter().all(|eta| held(*eta).is_finite() && *eta >= 0.0),
            "learning.learning_rates",
            "must be finite in the type of the weights, training.dtype, and not negative",
        )
    }
}

impl SynapseConfig {
    fn check(&self) -> Result {
        let law = match self {
            SynapseConfig::Ideal(_) => return Ok(()),
            SynapseConfig::Devices(law) => return law.check(),
            SynapseConfig::Momentum(law) => law,
        };
        need((0.0..1.0).contains(&law.momentum), "synapse.momentum", "must be from 0 to below 1")?;
        need(
            (0.0..1.0).contains(&law.decay),
            "synapse.decay",
            "is the share of a weight that is lost in a minibatch and must be from 0 to below 1",
        )?;
        need(
            law.horizon >= 1 || law.schedule == Fall::Constant,
            "synapse.horizon",
            "is the number of epochs over which learning rates fall and must be at least 1: in most cases \
             training.epochs",
        )
    }
}

impl TrainingConfig {
    fn check(&self) -> Result {
        need(self.epochs >= 1, "training.epochs", "must be at least 1")?;
        at_most("training.epochs", self.epochs, 1_000_000, "epochs")?;
        need(self.batch_size >= 1, "training.batch_size", "must be at least 1 image")?;
        at_most("training.batch_size", self.batch_size, 1 << 16, "images")?;
        need(self.checkpoint_every >= 1, "training.checkpoint_every", "must be at least 1 minibatch")?;
        at_most("training.keep_checkpoints", self.keep_checkpoints, 1_000_000, "files (0 keeps all)")?;
        at_most("training.angle_minibatches", self.angle_minibatches, 10_000, "minibatches")?;
        need(self.limit_train != Some(0), "training.limit_train", "must be at least 1 image")?;
        need(self.limit_test != Some(0), "training.limit_test", "must be at least 1 image")?;
        need(
            self.engine != EngineKind::Fused || self.device != DeviceChoice::Cuda,
            "training.engine",
            "\"fused\" runs on the CPU only: choose device = \"cpu\" or engine = \"auto\"",
        )?;
        need(
            self.engine != EngineKind::Kernel || self.device != DeviceChoice::Cpu,
            "training.engine",
            "\"kernel\" runs on a GPU only: choose device = \"cuda\" or engine = \"auto\"",
        )
    }
}

impl Config {
    /// Keys that have no effect in this configuration, each with the reason.
    pub fn idle(&self) -> Vec<(&'static str, String)> {
        let Config { network, settle, learning, synapse, noise, cost, training } = self;
        let unnudged = !learning.rule.is_nudged();
        let rule = learning.rule.name;
        let a_gradient = || format!("rule = \"{rule}\" follows a gradient, not the steps of a second phase");
        let never_falls = matches!(synapse, SynapseConfig::Momentum(law) if law.schedule == Fall::Constant && law.horizon > 0);
        let never_measured = training.angle_every > 0 && (unnudged || training.angle_minibatches == 0);
        let keys = [
            ("network.epsilon", network.time == Time::Discrete, "it is a step of time = \"real\"".into()),
            (
                "settle.window",
                settle.solver != Solver::Anderson,
                "it is that of solver = \"anderson\"".into(),
            ),
            (
                "learning.tiny",
                learning.rule.schedule() != Some(Schedule::Rescaled),
                "it is that of rule = \"cep-rescaled\"".into(),
            ),
            ("learning.beta", matches!(learning.rule.update, Update::Bptt | Update::Rbp), a_gradient()),
            ("learning.nudging", unnudged, a_gradient()),
            ("training.angle_minibatches", unnudged && training.angle_minibatches > 0, a_gradient()),
            (
                "training.angle_every",
                never_measured,
                match unnudged {
                    true => a_gradient(),
                    false => "training.angle_minibatches = 0 never measures the angle".into(),
                },
            ),
            (
                "synapse.horizon",
                never_falls,
                "learning rates do not fall with schedule = \"constant\"".into(),
            ),
        ];
        let of_devices = match synapse {
            SynapseConfig::Devices(law) => law.idle(),
            SynapseConfig::Ideal(_) | SynapseConfig::Momentum(_) => cost.given(),
        };
        let idle = keys.into_iter().filter(|(_, idle, _)| *idle).map(|(key, _, why)| (key, why));
        idle.chain(of_devices).chain(noise.idle()).collect()
    }

    /// Checks the values and their combination.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> Result {
        let Config { network, settle, learning, synapse, training, .. } = self;
        network.check()?;
        let (wiring, rule) = (self.network(), learning.rule.name);
        let parameters = wiring.parameter_count();
        need(
            parameters <= MOST_PARAMETERS,
            "network.dims",
            format!("has {parameters} weights and biases, of which there must be at most {MOST_PARAMETERS}"),
        )?;
        need(
            network.psi == 0.0 || !wiring.is_tied(),
            "network.psi",
            format!(
                "asks for untied feedback weights, but rule = \"{rule}\" ties them to the forward weights: \
                 leave psi out, or choose rule = \"vf\" or \"cvf\""
            ),
        )?;
        need(
            network.tied.is_none_or(|tied| tied == wiring.is_tied()),
            "network.tied",
            format!("contradicts rule = \"{rule}\", which decides that itself: leave it out"),
        )?;
        settle.check()?;
        let real = network.time == Time::Real;
        need(
            settle.order == Order::Synchronous || !real,
            "settle.order",
            "\"alternating\" is for discrete time: in real time a neuron moves on from its own state, so that \
             half of the layers are not half of the work: set settle.order = \"synchronous\"",
        )?;
        learning.validate(training.dtype)?;
        learning.check(&self.model(), &wiring)?;
        let in_real_time = if real { " in real time" } else { "" };
        need(
            learning.rule.is_nudged() || learning.K <= settle.steps,
            "learning.K",
            format!("must be at most settle.steps = {}, of which these are the last", settle.steps),
        )?;
        need(
            !learning.authors_code || (learning.rule.is_continual_vector_field() && !real),
            "learning.authors_code",
            format!(
                "reproduces a quirk that only rule = \"cvf\" in discrete time has; with rule = \
                 \"{rule}\"{in_real_time} set learning.authors_code = false"
            ),
        )?;
        synapse.check()?;
        self.noise.check()?;
        need(
            self.noise.is_none() || network.readout.is_none(),
            "network.readout",
            "is an output without neurons, which [noise] does not have: set network.readout = \"none\", or no noise",
        )?;
        training.check()?;
        let (engine, job) = (training.engine, self.job(&Device::Cpu));
        let why = engine.supports(&wiring, &job, training.dtype.dtype()).err();
        let name = if engine == EngineKind::Kernel { "kernel" } else { "fused" };
        need(
            why.is_none(),
            "training.engine",
            format!("\"{name}\" {}: choose engine = \"auto\"", why.unwrap_or_default()),
        )
    }
}
