//! The configuration of a run: what it holds, and what of it is possible.

mod bounds;
mod error;
mod older;
mod open;
mod presets;
mod resolve;

pub use error::{Error, Result};
pub use older::of_any_version;
pub use presets::{PRESETS, Preset, SYNCHRONOUS};
pub use resolve::{Choices, OTHER_VARIABLES, Origin, Resolved, by_key, given_value, parse_value};

use crate::data::DataChoice;
use crate::engine::{self, EngineKind};
use crate::learning::{Nudging, Protocol, Rule, Schedule, SigmaPrime};
use crate::model::activation::Activation;
use crate::model::anderson::MOST_WINDOW;
use crate::model::dynamics::{Dynamics, Time};
use crate::model::network::{Dims, Init};
use crate::model::{Model, Order, Settle, Solver};
use crate::rng;
use candle_core::DType;
use serde::{Deserialize, Serialize};

/// Everything that decides what a run computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[network]`
    pub network: NetworkConfig,
    /// `[settle]`
    pub settle: SettleConfig,
    /// `[learning]`
    pub learning: LearningConfig,
    /// `[training]`
    pub training: TrainingConfig,
}

/// `[network]`: sizes, activation, and how weights start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Layer sizes, input first; those of input and output are 0 until the data is known that they are left to.
    #[serde(with = "open")]
    pub dims: Dims,
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
    pub time: TimeChoice,
    /// ε of real time.
    pub epsilon: f64,
    /// Whether real-time states are kept in [0, 1].
    pub clamp: bool,
}

/// `[settle]`: how the equilibrium is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleConfig {
    /// In which order layers are updated, in both phases.
    pub order: Order,
    /// What happens between sweeps over all layers in the first phase.
    pub solver: SolverChoice,
    /// How many differences between sweeps Anderson's acceleration looks back on.
    pub window: usize,
    /// d of damped steps s ← d·s + (1 − d)·F(s) in both phases; 0 is the paper's.
    pub damping: f64,
    /// T, the most steps of the first phase.
    pub steps: usize,
    /// End the first phase where no neuron moves by more than this in a sweep; 0 runs all T steps.
    pub tolerance: f64,
}

/// What happens between sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SolverChoice {
    /// Nothing.
    Iterate,
    /// Anderson's acceleration.
    Anderson,
}

/// `[learning]`: the rule and its second phase (Table 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(non_snake_case)]
pub struct LearningConfig {
    /// The learning rule.
    pub rule: Rule,
    /// Steps of the second phase.
    pub K: usize,
    /// β, or its size where both signs are used.
    pub beta: f64,
    /// Whether β has one sign, a random one for every minibatch, or both in each.
    pub nudging: Nudging,
    /// η, input side first as in Table 2; one for each layer.
    pub learning_rates: Vec<f64>,
    /// What the updates of VF and C-VF make of σ′.
    pub sigma_prime: SigmaPrime,
    /// η_tiny/η of Algorithm 5 (rule = "cep-rescaled").
    pub tiny: f64,
    /// Reproduce a quirk of the authors' code: with C-VF the bias of layer N never learns.
    pub authors_code: bool,
}

/// How time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeChoice {
    /// Every step replaces the states.
    Discrete,
    /// Leaky integration with steps of ε.
    Real,
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

/// What is wrong with a configuration: a key, and what to do about it.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Problem {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Config {
    /// Checks values and how they go together.
    ///
    /// # Errors
    /// The first problem found.
    pub fn validate(&self) -> std::result::Result<(), Problem> {
        let Config { network, settle, learning, training } = self;
        let dims = &network.dims.0;
        let tied = self.tied();
        let rule = learning.rule.name();
        let real = network.time == TimeChoice::Real;
        let baseline = !learning.rule.hebbian();
        let held = |value: f64| match training.dtype {
            Precision::F32 => f64::from(value as f32),
            Precision::F64 => value,
        };
        let no_kernel = match training.engine {
            EngineKind::Kernel if dims.len() >= 3 => {
                engine::cuda::obstacle(&self.model(), &self.protocol(), training.dtype.dtype())
            }
            _ => None,
        };
        let checks: [(bool, &'static str, String); 31] = [
            (
                dims.len() >= 3 && dims.iter().all(|&d| d > 0),
                "network.dims",
                "needs an input, at least one hidden layer and an output, each of at least 1 neuron; only the input and the \
                 output can be \"auto\", which the data decides"
                    .into(),
            ),
            (
                (2..=256).contains(dims.last().unwrap_or(&0)),
                "network.dims",
                "ends with the number of classes, which must be 2 to 256 (labels are bytes)".into(),
            ),
            (
                (0.0..=180.0).contains(&network.psi),
                "network.psi",
                "must be an angle from 0 to 180 degrees".into(),
            ),
            (
                network.psi == 0.0 || !tied,
                "network.psi",
                format!(
                    "asks for feedback weights of their own, but rule = \"{rule}\" ties them to the forward \
                     weights: leave psi out, or choose rule = \"vf\" or \"cvf\""
                ),
            ),
            (
                network.tied.is_none_or(|tied| learning.rule.tied().is_none_or(|needed| needed == tied)),
                "network.tied",
                format!("contradicts rule = \"{rule}\", which decides that itself: leave it out"),
            ),
            (
                network.epsilon > 0.0 && network.epsilon <= 1.0,
                "network.epsilon",
                "must be a step of time above 0 and at most 1".into(),
            ),
            (
                real || !network.clamp,
                "network.clamp",
                "keeps real-time states in [0, 1]: set time = \"real\", or leave it out".into(),
            ),
            (
                learning.tiny > 0.0 && learning.tiny <= 1.0,
                "learning.tiny",
                "is η_tiny/η and must be above 0 and at most 1".into(),
            ),
            (
                (0.0..1.0).contains(&settle.damping),
                "settle.damping",
                "is the share of the old state that a step keeps and must be from 0 to below 1".into(),
            ),
            (
                learning.sigma_prime == SigmaPrime::Ignored || (!tied && !baseline && !real),
                "learning.sigma_prime",
                format!(
                    "is a choice for rule = \"vf\" and \"cvf\" in discrete time; the updates of rule = \"{rule}\"{} \
                     have no σ′: set learning.sigma_prime = \"ignored\"",
                    if real { " in real time" } else { "" },
                ),
            ),
            (
                !baseline || learning.K <= settle.steps,
                "learning.K",
                format!(
                    "steps back from the last of settle.steps = {} steps must not be more than those",
                    settle.steps
                ),
            ),
            (
                settle.tolerance >= 0.0 && settle.tolerance < 1.0,
                "settle.tolerance",
                "is a change of a state in one sweep and must be from 0 (run all steps) to below 1".into(),
            ),
            (settle.steps >= 1, "settle.steps", "must be at least 1 step".into()),
            (
                settle.order == Order::Synchronous || settle.steps.is_multiple_of(2),
                "settle.steps",
                "must be even where settle.order = \"alternating\": a step updates half of the layers".into(),
            ),
            (
                settle.order == Order::Synchronous || !real,
                "settle.order",
                "\"alternating\" is for discrete time: in real time a neuron moves on from its own state, so that \
                 half of the layers are not half of the work: set settle.order = \"synchronous\""
                    .into(),
            ),
            (
                (2..=MOST_WINDOW).contains(&settle.window),
                "settle.window",
                format!("is how many differences between sweeps solver = \"anderson\" looks back on and must be from 2 to {MOST_WINDOW}"),
            ),
            (
                learning.nudging != Nudging::Centered || learning.rule.hebbian(),
                "learning.nudging",
                format!(
                    "\"centered\" runs the second phase once with each sign of β, and rule = \"{rule}\" has none: \
                     leave it out"
                ),
            ),
            (learning.K >= 1, "learning.K", "must be at least 1 step".into()),
            (
                held(learning.beta).is_finite() && held(1.0 / learning.beta).is_finite(),
                "learning.beta",
                "must be a finite number other than 0 whose inverse is finite too, in the type of the weights \
                 (training.dtype): without a nudge there is no second phase"
                    .into(),
            ),
            (
                learning.learning_rates.len() + 1 == dims.len(),
                "learning.learning_rates",
                format!(
                    "has {} rates, but dims = {dims:?} has {} layers of weights, each of which needs one \
                     (input side first)",
                    learning.learning_rates.len(),
                    dims.len().saturating_sub(1)
                ),
            ),
            (
                learning.learning_rates.iter().all(|eta| held(*eta).is_finite() && *eta >= 0.0),
                "learning.learning_rates",
                "must be finite in the type of the weights, training.dtype, and not negative".into(),
            ),
            (
                !learning.authors_code || (learning.rule.is(false, Schedule::Continual) && !real),
                "learning.authors_code",
                format!(
                    "reproduces a quirk that only rule = \"cvf\" in discrete time has; with rule = \"{rule}\"{} set learning.authors_code = false",
                    if real { " in real time" } else { "" }
                ),
            ),
            (training.epochs >= 1, "training.epochs", "must be at least 1".into()),
            (training.batch_size >= 1, "training.batch_size", "must be at least 1 image".into()),
            (
                training.checkpoint_every >= 1,
                "training.checkpoint_every",
                "must be at least 1 minibatch".into(),
            ),
            (training.limit_train != Some(0), "training.limit_train", "must be at least 1 image".into()),
            (training.limit_test != Some(0), "training.limit_test", "must be at least 1 image".into()),
            (
                training.engine != EngineKind::Fused || engine::fusible(&self.model(), &self.protocol()),
                "training.engine",
                "\"fused\" runs ep, cep, vf and cvf in discrete time: choose engine = \"auto\"".into(),
            ),
            (
                training.engine != EngineKind::Fused || training.device != DeviceChoice::Cuda,
                "training.engine",
                "\"fused\" runs on the CPU only: choose device = \"cpu\" or engine = \"auto\"".into(),
            ),
            (
                training.engine != EngineKind::Kernel || training.device != DeviceChoice::Cpu,
                "training.engine",
                "\"kernel\" runs on a GPU only: choose device = \"cuda\" or engine = \"auto\"".into(),
            ),
            (
                training.engine != EngineKind::Kernel || no_kernel.is_none(),
                "training.engine",
                format!("\"kernel\" {}: choose engine = \"auto\"", no_kernel.unwrap_or_default()),
            ),
        ];
        match checks.into_iter().find(|(possible, ..)| !possible) {
            Some((_, key, message)) => Err(Problem { key, message }),
            None => bounds::check(self),
        }
    }

    /// The model, as the engines take it.
    pub fn model(&self) -> Model {
        let time = match self.network.time {
            TimeChoice::Discrete => Time::Discrete,
            TimeChoice::Real => Time::Real { epsilon: self.network.epsilon, clamp: self.network.clamp },
        };
        Model {
            dims: self.network.dims.clone(),
            tied: self.tied(),
            dynamics: Dynamics { time, activation: self.network.activation, damping: self.settle.damping },
            settle: Settle {
                order: self.settle.order,
                solver: match self.settle.solver {
                    SolverChoice::Iterate => Solver::Iterate,
                    SolverChoice::Anderson => Solver::Anderson { window: self.settle.window },
                },
                steps: self.settle.steps,
                tolerance: self.settle.tolerance,
            },
        }
    }

    /// How to learn, as the engines take it.
    pub fn protocol(&self) -> Protocol {
        Protocol {
            rule: self.learning.rule,
            sigma_prime: self.learning.sigma_prime,
            nudging: self.learning.nudging,
            tiny: self.learning.tiny,
            second_steps: self.learning.K,
            learning_rates: self.learning.learning_rates.iter().rev().copied().collect(),
            authors_code: self.learning.authors_code,
        }
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
        (!self.tied()).then_some(self.network.psi)
    }

    /// Whether feedback weights are the transposed forward weights.
    pub fn tied(&self) -> bool {
        self.learning.rule.tied().or(self.network.tied).unwrap_or(true)
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
    fn parts_of_name(&self, data: &str) -> [(&'static str, String); 13] {
        let Config { network, settle, learning, training } = self;
        let nudging = match learning.nudging {
            Nudging::Random if self.tied() => "-random-beta",
            Nudging::Positive if !self.tied() => "-positive",
            Nudging::Centered => "-centered",
            _ => "",
        };
        let sigma_prime = learning.sigma_prime;
        let given = |said: bool, part: String| if said { part } else { String::new() };
        let limit = |of: &str, limit: Option<usize>| limit.map_or(String::new(), |n| format!("-{of}{n}"));
        [
            ("learning.rule", learning.rule.name().into()),
            ("", format!("-{}h", network.dims.depth())),
            ("learning.nudging", nudging.into()),
            ("network.psi", given(!self.tied(), format!("-psi{}", network.psi))),
            ("network.time", given(network.time == TimeChoice::Real, "-real".into())),
            (
                "learning.sigma_prime",
                given(sigma_prime != SigmaPrime::Ignored, format!("-{}", sigma_prime.name())),
            ),
            ("settle.damping", given(settle.damping > 0.0, format!("-damping{}", settle.damping))),
            ("settle.order", given(settle.order == Order::Alternating, "-alternating".into())),
            ("settle.solver", given(settle.solver == SolverChoice::Anderson, "-anderson".into())),
            ("", given(data != DataChoice::MNIST, format!("-{data}"))),
            ("training.limit_train", limit("train", training.limit_train)),
            ("training.limit_test", limit("test", training.limit_test)),
            ("training.seed", format!("-seed{}", training.seed)),
        ]
    }
}
