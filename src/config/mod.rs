//! The configuration of a run: its sections, and its checks.

mod check;
mod cost;
mod error;
mod keys;
mod layers;
mod older;
mod presets;
mod resolve;

pub use crate::base::problem::Problem;
pub use cost::{Asked, Cost};
pub use error::{Error, Result};
pub use keys::reference;
pub use layers::Layers;
pub use older::{current_name, of_any_version};
pub use presets::{FIGURES, PRESETS, Preset, SYNCHRONOUS, file_or_built_in};
pub use resolve::{
    Choices, OTHER_VARIABLES, Origin, Resolved, by_key, given_value, key_named, parse_value, variable_of,
};

use crate::data::{Augment, DataChoice};
use crate::engine::{self, Engine, EngineKind, Job};
use crate::learning::{self, Learning, Memory, Nudging, SigmaPrime};
use crate::model::activation::Activation;
use crate::model::dynamics::{Dynamics, Time};
use crate::model::network::{Init, Network, Shapes};
use crate::model::synapse::{self, SynapseConfig};
use crate::model::{Loss, Model, Noise, Normal, Order, Parameters, Readout, Settle, Solver};
use crate::rng;
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

/// Everything that decides what a run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[network]`
    pub network: NetworkConfig,
    /// `[settle]`
    pub settle: Settle,
    /// `[learning]`
    pub learning: Learning,
    /// `[synapse]`
    #[serde(default, skip_serializing_if = "SynapseConfig::is_ideal")]
    pub synapse: SynapseConfig,
    /// `[noise]`
    #[serde(default, skip_serializing_if = "Noise::is_default")]
    pub noise: Noise,
    /// `[cost]`
    #[serde(default, skip_serializing_if = "Cost::is_unknown")]
    pub cost: Cost,
    /// `[training]`
    pub training: TrainingConfig,
}

/// `[network]`: sizes, activation, and initial weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Layers, input first.
    pub dims: Layers,
    /// σ.
    pub activation: Activation,
    /// The initialisation of weights and biases.
    pub init: Init,
    /// Ψ(θf, θb) of the initial weights, degrees; 0 where weights are tied.
    pub psi: f64,
    /// True where feedback weights are the transposed forward weights. Most rules decide that themselves; for bptt
    /// and rbp it is a choice, tied by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// Discrete or real time.
    pub time: Time,
    /// ε of real time.
    pub epsilon: f64,
    /// True where real-time states are kept in [0, 1].
    pub clamp: bool,
    /// ℓ, where the output is a layer like the others.
    #[serde(default, skip_serializing_if = "Loss::is_default")]
    pub loss: Loss,
    /// The kind of output layer.
    #[serde(default, skip_serializing_if = "Readout::is_none")]
    pub readout: Readout,
    /// The mean of each channel of the input, which is taken off; nothing where input is not normalised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_mean: Vec<f64>,
    /// The divisor after that, the standard deviation of each channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub input_std: Vec<f64>,
}

/// `[training]`: duration, data and computation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Epochs in all, those before a resume included.
    pub epochs: usize,
    /// Images a minibatch.
    pub batch_size: usize,
    /// The seed of everything random.
    pub seed: u64,
    /// Minibatches between checkpoints.
    pub checkpoint_every: u64,
    /// The number of numbered checkpoints to keep; 0 keeps all.
    pub keep_checkpoints: usize,
    /// The data set.
    pub data: DataChoice,
    /// Trains on the first `limit_train` images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Tests on the first `limit_test` images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,
    /// The number of training images to hold out, drawn by the seed. The best epoch is then chosen on them instead of
    /// on the test images.
    #[serde(default, skip_serializing_if = "is_none_held_out")]
    pub validation: usize,
    /// True where every second training image, drawn, is mirrored.
    #[serde(default, skip_serializing_if = "is_not")]
    pub flips: bool,
    /// By how many pixels training images are shifted at most.
    #[serde(default, skip_serializing_if = "is_none_held_out")]
    pub crops: usize,
    /// Element type of states and weights.
    pub dtype: Precision,
    /// The device to compute on.
    pub device: DeviceChoice,
    /// The engine to compute with.
    pub engine: EngineKind,
    /// The number of minibatches over which Ψ(Δtot, −∇BPTT tot) is measured before training, and a quarter of which
    /// later; 0 never measures it.
    pub angle_minibatches: usize,
    /// The interval of these measurements, epochs; 0 measures before training only. The one before training always
    /// takes place.
    pub angle_every: usize,
}

impl TrainingConfig {
    /// The augmentation of training images before they are learnt.
    pub fn augment(&self) -> Augment {
        Augment { flips: self.flips, crops: self.crops }
    }
}

fn is_not(said: &bool) -> bool {
    !said
}

/// True for none held out or no shift, as in the paper and in checkpoints written before the keys existed.
fn is_none_held_out(validation: &usize) -> bool {
    *validation == 0
}

/// Element type of states and weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
}

impl Precision {
    /// The type as candle calls it.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }
}

/// A device to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// CUDA where this binary was built with it and a GPU answers, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU.
    Cuda,
}

/// Keys that may differ between a run and its resumption: they change how long it trains, how often it saves and what
/// devices cost, not what it computes.
pub const NOT_SCIENCE: [&str; 7] = [
    "training.epochs",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "cost.pulse_energy",
    "cost.pulse_time",
    "cost.read_energy",
    "cost.step_time",
];

impl Config {
    /// Layers and connections.
    pub fn network(&self) -> Network {
        let tied = self.learning.rule.tied.or(self.network.tied).unwrap_or(true);
        self.network.dims.network(tied)
    }

    /// The model: dynamics, first phase, loss and synapses.
    pub fn model(&self) -> Model {
        let NetworkConfig {
            activation,
            time,
            epsilon,
            clamp,
            loss,
            readout,
            ref input_mean,
            ref input_std,
            ..
        } = self.network;
        let normal = Normal::new(input_mean, input_std);
        Model {
            dynamics: Dynamics { activation, time, epsilon, clamp, readout, normal },
            settle: self.settle,
            loss: if readout.is_none() { loss } else { Loss::CROSS_ENTROPY },
            synapse: self.synapse.seeded(self.training.seed),
            noise: self.noise.seeded(self.training.seed),
        }
    }

    /// The count of numbers in a checkpoint: weights, biases, and the memory of their synapses; without the two
    /// numbers of a clock.
    pub fn remembered(&self) -> usize {
        self.network().parameter_count() * (1 + self.synapse.synapse().memory().len())
    }

    /// Name and shape of every tensor that a checkpoint holds.
    pub fn saved(&self) -> Shapes {
        let shapes = self.network().shapes();
        let remembered = |memory: &&'static str| {
            let named = shapes.iter().map(|(name, shape)| (Memory::name(memory, name), shape.clone()));
            named.collect::<Shapes>()
        };
        let remembered: Shapes = self.synapse.synapse().memory().iter().flat_map(remembered).collect();
        let kept = |name: &&'static str| {
            let named =
                shapes.iter().map(|(weight, shape)| (learning::kept_name(name, weight), shape.clone()));
            named.collect::<Shapes>()
        };
        let kept: Shapes = self.learning.rule.own_memory().iter().flat_map(kept).collect();
        let counts = [learning::CLOCK, learning::UPDATES].map(|name| (name.to_string(), vec![2]));
        // One row for each array that has taken pulses.
        let ledger = |arrays| {
            synapse::LEDGER_NUMBERS.map(|numbers| (synapse::LEDGER.to_string(), vec![arrays, numbers]))
        };
        let ledgers = (1..=shapes.len()).flat_map(ledger);
        [shapes.clone(), remembered, kept, counts.to_vec(), ledgers.collect()].concat()
    }

    /// The job of an engine.
    pub fn job(&self, device: &Device) -> Job {
        let learning = Learning { seed: self.training.seed, ..self.learning.clone() };
        Job { model: self.model(), learning, device: device.clone() }
    }

    /// Random initial weights and biases, drawn from the seed.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn parameters(&self, device: &Device) -> candle_core::Result<Parameters> {
        let NetworkConfig { init, psi, .. } = self.network;
        let TrainingConfig { seed, dtype, .. } = self.training;
        Parameters::init(self.network(), init, psi, seed, dtype.dtype(), device)
    }

    /// An engine with these weights on the CPU: the fastest that supports the configuration.
    ///
    /// # Errors
    /// Where an engine is asked for that has not, and those of candle.
    pub fn engine(&self) -> anyhow::Result<Box<dyn Engine>> {
        engine::build(self.training.engine, self.job(&Device::Cpu), self.parameters(&Device::Cpu)?)
    }

    /// β of a minibatch, counted from the beginning of the run; where both signs are used, the β of the first phase.
    pub fn beta(&self, minibatch: u64) -> f64 {
        let sign = match self.learning.nudging {
            Nudging::Random | Nudging::Centered => rng::beta_sign(self.training.seed, minibatch),
            Nudging::Positive => 1.0,
        };
        sign * self.learning.beta
    }

    /// Ψ of the feedback weights; `None` where there are none.
    pub fn psi_degrees(&self) -> Option<f64> {
        (!self.network().is_tied()).then_some(self.network.psi)
    }

    /// A name for a run of this configuration on (perhaps a part of) the data set `data`. `marks` distinguish it from
    /// other runs of a sweep.
    pub fn run_name(&self, data: &str, marks: &str) -> String {
        let [parts @ .., (_, seed)] = self.parts_of_name(data);
        parts.map(|(_, part)| part).concat() + marks + &seed
    }

    /// True where the name of a run shows the value of this key without a mark.
    pub fn is_in_name(&self, key: &str) -> bool {
        self.parts_of_name("").iter().any(|(shown, _)| *shown == older::current_name(key))
    }

    /// The parts of a run's name, each with the key that it shows, if any. A name leaves out what most rows of Table
    /// 3 have: β > 0 with tied weights, a random sign without.
    fn parts_of_name(&self, data: &str) -> [(&'static str, String); 17] {
        let Config { network, settle, learning, training, .. } = self;
        let tied = self.network().is_tied();
        let nudging = match learning.nudging {
            Nudging::Random if tied => "-random-beta",
            Nudging::Positive if !tied => "-positive",
            Nudging::Centered => "-centered",
            _ => "",
        };
        let sigma_prime = learning.sigma_prime;
        let given = |said: bool, part: String| if said { part } else { String::new() };
        let limit = |of: &str, limit: Option<usize>| limit.map_or(String::new(), |n| format!("-{of}{n}"));
        [
            ("learning.rule", learning.rule.name().into()),
            ("", network.dims.kind()),
            ("learning.nudging", nudging.into()),
            ("network.psi", given(!tied, format!("-psi{}", network.psi))),
            ("network.readout", given(!network.readout.is_none(), format!("-{}", network.readout.name()))),
            ("network.time", given(network.time == Time::Real, "-real".into())),
            (
                "learning.sigma_prime",
                given(sigma_prime != SigmaPrime::Ignored, format!("-{}", sigma_prime.name())),
            ),
            (
                "learning.alignment",
                given(!learning.alignment.is_none(), format!("-{}", learning.alignment.name())),
            ),
            ("settle.damping", given(settle.damping > 0.0, format!("-damping{}", settle.damping))),
            ("settle.order", given(settle.order == Order::Alternating, "-alternating".into())),
            ("settle.solver", given(settle.solver == Solver::Anderson, "-anderson".into())),
            ("synapse.law", given(!self.synapse.is_ideal(), format!("-{}", self.synapse.synapse().name()))),
            ("", given(!self.noise.is_none(), "-noise".into())),
            ("", given(data != DataChoice::MNIST, format!("-{data}"))),
            ("training.limit_train", limit("train", training.limit_train)),
            ("training.limit_test", limit("test", training.limit_test)),
            ("training.seed", format!("-seed{}", training.seed)),
        ]
    }
}
