//! The configuration of a run: what it holds, and what of it is possible.

mod check;
mod error;
mod keys;
mod layers;
mod older;
mod presets;
mod resolve;

pub use crate::base::problem::Problem;
pub use error::{Error, Result};
pub use keys::reference;
pub use layers::Layers;
pub use older::{current_name, of_any_version};
pub use presets::{FIGURES, PRESETS, Preset, SYNCHRONOUS, file_or_built_in};
pub use resolve::{
    Choices, OTHER_VARIABLES, Origin, Resolved, by_key, given_value, key_named, parse_value, variable_of,
};

use crate::data::DataChoice;
use crate::engine::{self, Engine, EngineKind, Job};
use crate::learning::{self, Learning, Memory, Nudging, SigmaPrime};
use crate::model::activation::Activation;
use crate::model::dynamics::{Dynamics, Time};
use crate::model::network::{Init, Network, Shapes};
use crate::model::synapse::{self, SynapseConfig};
use crate::model::{Loss, Model, Order, Parameters, Settle, Solver};
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
    /// `[training]`
    pub training: TrainingConfig,
}

/// `[network]`: sizes, activation, and how weights start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Layers, input first.
    pub dims: Layers,
    /// σ.
    pub activation: Activation,
    /// How weights and biases start.
    pub init: Init,
    /// Ψ(θf, θb) of the initial weights, degrees; 0 where weights are tied.
    pub psi: f64,
    /// Whether feedback weights are the transposed forward weights. Most rules decide that themselves;
    /// for bptt and rbp it is a choice, tied where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied: Option<bool>,
    /// How time passes.
    pub time: Time,
    /// ε of real time.
    pub epsilon: f64,
    /// Whether real-time states are kept in [0, 1].
    pub clamp: bool,
    /// ℓ.
    #[serde(default, skip_serializing_if = "Loss::is_default")]
    pub loss: Loss,
}

/// `[training]`: how long, on what, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Epochs in all, those before a resume included.
    pub epochs: usize,
    /// Images a minibatch.
    pub batch_size: usize,
    /// Fixes everything that is drawn.
    pub seed: u64,
    /// Minibatches between checkpoints.
    pub checkpoint_every: u64,
    /// How many numbered checkpoints to keep; 0 keeps all.
    pub keep_checkpoints: usize,
    /// The data set.
    pub data: DataChoice,
    /// Train on the first so many images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_train: Option<usize>,
    /// Test on the first so many images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_test: Option<usize>,
    /// How many training images to hold out, drawn by the seed: the best epoch is chosen on them, and no longer on
    /// the test images.
    #[serde(default, skip_serializing_if = "is_none_held_out")]
    pub validation: usize,
    /// Element type of states and weights.
    pub dtype: Precision,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Which engine computes.
    pub engine: EngineKind,
    /// Over how many minibatches Ψ(Δtot, −∇BPTT tot) is measured before training, and later over a quarter of them; 0
    /// never measures it.
    pub angle_minibatches: usize,
    /// Measure it before training (always) and then every so many epochs; 0 only before.
    pub angle_every: usize,
}

/// Nothing is held out in the paper, and in checkpoints from before anything could be.
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
    /// As candle calls it.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }
}

/// Where to compute.
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

/// Keys that may differ between a run and its resumption: they change how far and how often it
/// saves, not what it computes.
pub const NOT_SCIENCE: [&str; 3] =
    ["training.epochs", "training.checkpoint_every", "training.keep_checkpoints"];

impl Config {
    /// Layers and connections.
    pub fn network(&self) -> Network {
        let tied = self.learning.rule.tied.or(self.network.tied).unwrap_or(true);
        self.network.dims.network(tied)
    }

    /// How neurons move and settle, what the output is judged by, and how weights change.
    pub fn model(&self) -> Model {
        let NetworkConfig { activation, time, epsilon, clamp, loss, .. } = self.network;
        Model {
            dynamics: Dynamics { activation, time, epsilon, clamp },
            settle: self.settle,
            loss,
            synapse: self.synapse.seeded(self.training.seed),
        }
    }

    /// How many numbers a checkpoint holds, but for the two of a clock: weights and biases, and what their synapses
    /// remember.
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
        // As many arrays as have taken pulses.
        let ledgers = (1..=shapes.len()).map(|arrays| (synapse::LEDGER.to_string(), vec![arrays, 3]));
        [shapes.clone(), remembered, kept, counts.to_vec(), ledgers.collect()].concat()
    }

    /// What is asked of an engine.
    pub fn job(&self, device: &Device) -> Job {
        let learning = Learning { seed: self.training.seed, ..self.learning.clone() };
        Job { model: self.model(), learning, device: device.clone() }
    }

    /// Random initial weights and biases, as the seed has them.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn parameters(&self, device: &Device) -> candle_core::Result<Parameters> {
        let NetworkConfig { init, psi, .. } = self.network;
        let TrainingConfig { seed, dtype, .. } = self.training;
        Parameters::init(self.network(), init, psi, seed, dtype.dtype(), device)
    }

    /// An engine with these weights on the CPU, the fastest that has all of this.
    ///
    /// # Errors
    /// Where an engine is asked for that has not, and those of candle.
    pub fn engine(&self) -> anyhow::Result<Box<dyn Engine>> {
        engine::build(self.training.engine, self.job(&Device::Cpu), self.parameters(&Device::Cpu)?)
    }

    /// β of a minibatch, counted from the beginning of the run; where both signs are used, that which comes first.
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

    /// A name for a run of this configuration on the data set `data`, of which it may see a part only. `marks` tell it
    /// from others of a sweep.
    pub fn run_name(&self, data: &str, marks: &str) -> String {
        let [parts @ .., (_, seed)] = self.parts_of_name(data);
        parts.map(|(_, part)| part).concat() + marks + &seed
    }

    /// Whether the name of a run shows the value of this key without a mark.
    pub fn is_in_name(&self, key: &str) -> bool {
        self.parts_of_name("").iter().any(|(shown, _)| *shown == older::current_name(key))
    }

    /// What makes a run's name, each part with the key that it shows, if it is one. What is not said is as in most rows
    /// of Table 3: β > 0 with tied weights, of random sign without.
    fn parts_of_name(&self, data: &str) -> [(&'static str, String); 15] {
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
            ("", given(data != DataChoice::MNIST, format!("-{data}"))),
            ("training.limit_train", limit("train", training.limit_train)),
            ("training.limit_test", limit("test", training.limit_test)),
            ("training.seed", format!("-seed{}", training.seed)),
        ]
    }
}
