//! Synapses: how a wished change η·Δ becomes a change of a weight.
//!
//! The rules of [`crate::learning`] say what they wish; a synapse does with it what it can. [`Ideal`] ones do as they are
//! told, [`Momentum`] is what optimisers do. A synapse is a file here that implements [`SynapseLaw`] and reads its keys of
//! `[synapse]`, and a line in the list below. Where its changes add up, engines may apply those of all steps together;
//! elsewhere they take every step in full.

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

macro_rules! synapses {
    ($($(#[$doc:meta])* $name:ident in $file:ident,)*) => {
        $(mod $file; pub use $file::$name;)*

        /// `[synapse]`: which law synapses obey, and the keys it has.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "law", rename_all = "kebab-case")]
        pub enum SynapseConfig {
            $($(#[$doc])* $name($name),)*
        }

        impl SynapseConfig {
            /// Those with the defaults of each law.
            pub fn all() -> Vec<Self> {
                vec![$(SynapseConfig::$name($name::default()),)*]
            }

            /// The synapse.
            pub fn synapse(&self) -> Synapse {
                match self.clone() {
                    $(SynapseConfig::$name(law) => Synapse(Arc::new(law)),)*
                }
            }
        }
    };
}

synapses! {
    /// θ ← θ + η·Δ.
    Ideal in ideal,
    /// Momentum, weight decay, and learning rates that fall.
    Momentum in momentum,
}

pub use momentum::Fall;

impl Default for SynapseConfig {
    fn default() -> Self {
        SynapseConfig::Ideal(Ideal {})
    }
}

impl SynapseConfig {
    /// Whether it is the synapse of the paper.
    pub fn is_ideal(&self) -> bool {
        matches!(self, SynapseConfig::Ideal(_))
    }
}

/// What synapses do.
#[derive(Clone)]
pub struct Synapse(pub Arc<dyn SynapseLaw>);

impl Synapse {
    /// θ ← θ + η·Δ.
    pub fn ideal() -> Self {
        Self(Arc::new(Ideal {}))
    }
}

impl std::ops::Deref for Synapse {
    type Target = dyn SynapseLaw;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for Synapse {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The law of a synapse. It is the same for all weights and biases; each has numbers of its own to remember.
pub trait SynapseLaw: Send + Sync {
    /// The name in configurations.
    fn name(&self) -> &'static str;

    /// Names of the numbers that each weight remembers, 0 in the beginning. They are saved and resumed.
    fn memory(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether changes add up, θ ← θ + Σ η·Δ, so that it does not matter whether they come one by one. Then [`change`] is
    /// not asked.
    ///
    /// [`change`]: SynapseLaw::change
    fn adds_up(&self) -> bool;

    /// One change of some `weights`, all of one kind: what they become, and what they remember, where `wished` is η·Δ.
    /// `memory` has a slice for each of [`SynapseLaw::memory`].
    fn change(&self, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]);

    /// The same of the tensor of this number among those of θ, all weights first and then all biases, for those to whom it
    /// matters.
    fn change_tensor(&self, number: usize, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]) {
        let _ = number;
        self.change(weights, wished, memory);
    }

    /// What is left of a weight (not of a bias) after a minibatch, as a factor. Asked once, after all its changes.
    fn left(&self) -> f64 {
        1.0
    }

    /// What all learning rates are multiplied with after so many epochs.
    fn rate(&self, epochs: f64) -> f64 {
        let _ = epochs;
        1.0
    }
}

/// One change of the weights in the tensor of this number: what they become. `memory` is theirs.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn change(
    law: &Synapse,
    number: usize,
    weights: &Tensor,
    wished: &Tensor,
    memory: &mut [&mut Tensor],
) -> Result<Tensor> {
    let numbers = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let tensor = |numbers: Vec<f64>| {
        let tensor = Tensor::from_vec(numbers, weights.shape(), &Device::Cpu)?;
        tensor.to_dtype(weights.dtype())?.to_device(weights.device())
    };
    let mut changed = numbers(weights)?;
    let mut remembered = memory.iter().map(|tensor| numbers(tensor)).collect::<Result<Vec<_>>>()?;
    let mut slices: Vec<&mut [f64]> = remembered.iter_mut().map(Vec::as_mut_slice).collect();
    law.change_tensor(number, &mut changed, &numbers(wished)?, &mut slices);
    for (memory, remembered) in memory.iter_mut().zip(remembered) {
        **memory = tensor(remembered)?;
    }
    tensor(changed)
}
