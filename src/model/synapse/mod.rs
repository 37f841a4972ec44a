//! Synapses: the law by which a wished change η·Δ becomes a change of a weight.
//!
//! The rules of [`crate::learning`] say what they wish; a synapse does with it what it can. [`Ideal`] ones do as they
//! are told, [`Momentum`] is what optimisers do. A synapse is a file here that implements [`SynapseLaw`] and reads
//! its keys of `[synapse]`, and a line in the list below. Where its changes add up, engines may apply those of all
//! steps together; elsewhere they take every step in full. [`Devices`] are arrays of devices that take pulses: they
//! are asked with their [`Place`], and may ask for the two [`Factors`] of a wished change instead of their product.

use super::Parameters;
use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, MutexGuard};

macro_rules! synapses {
    ($($(#[$doc:meta])* $name:ident in $file:ident,)*) => {
        $(pub mod $file; pub use $file::$name;)*

        /// `[synapse]`: the law of synapses, and its keys.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "law", rename_all = "kebab-case")]
        // A configuration has one.
        #[allow(clippy::large_enum_variant)]
        pub enum SynapseConfig {
            $($(#[$doc])* $name($name),)*
        }

        impl SynapseConfig {
            /// The laws with their defaults.
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
    /// Arrays of devices that take pulses.
    #[serde(rename = "device")]
    Devices in device,
}

pub use momentum::Fall;

impl Default for SynapseConfig {
    fn default() -> Self {
        SynapseConfig::Ideal(Ideal {})
    }
}

impl SynapseConfig {
    /// The synapse of a run with this seed.
    pub fn seeded(&self, seed: u64) -> Synapse {
        match self {
            SynapseConfig::Devices(law) => Synapse(Arc::new(law.clone().seeded(seed))),
            _ => self.synapse(),
        }
    }

    /// True for the synapse of the paper.
    pub fn is_ideal(&self) -> bool {
        matches!(self, SynapseConfig::Ideal(_))
    }
}

/// A law of synapses.
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

/// The form in which a law takes wished changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Changes of some weights of one kind, in pieces of any size: [`SynapseLaw::change`].
    Changes,
    /// Changes of whole arrays: [`SynapseLaw::change_array`].
    Arrays,
    /// The factors of the changes of whole arrays: [`SynapseLaw::pulse`]; where a change has none, the change.
    Factors,
}

/// An array of synapses, and the moment of its change.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The number of its tensor among those of θ, all weights first and then all biases.
    pub number: usize,
    /// Destination neurons.
    pub rows: usize,
    /// Source neurons; 1 for a bias, whose input is always 1.
    pub columns: usize,
    /// True for a bias.
    pub is_bias: bool,
    /// The number of updates of arrays since training began.
    pub clock: u64,
}

/// The weights of an array, one at a time, wherever an engine keeps them.
pub trait Array {
    /// Reads the weight from source `column` into destination `row`, and its memory after it, as many numbers as
    /// `into` has room for.
    fn read(&self, row: usize, column: usize, into: &mut [f64]);

    /// Replaces the numbers that [`Array::read`] has given.
    fn write(&mut self, row: usize, column: usize, from: &[f64]);
}

/// A wished change of an array as a sum of outer products: rate·Σ_b Σ_p sign_p·rows_p(b)·columns_p(b)ᵀ.
#[derive(Clone, Debug)]
pub struct Factors<'a> {
    /// The factor of every product, η/(βB); of either sign.
    pub rate: f64,
    /// B, the number of images.
    pub images: usize,
    /// The products, in the order of their trains.
    pub products: Vec<Factor<'a>>,
}

/// One outer product for each image.
#[derive(Clone, Debug)]
pub struct Factor<'a> {
    /// 1 or −1.
    pub sign: f64,
    /// The signals of the destination neurons, (B, rows), row-major.
    pub rows: Cow<'a, [f64]>,
    /// The signals of the source neurons, (B, columns), row-major.
    pub columns: Cow<'a, [f64]>,
}

/// The law of a synapse. There is one for all weights and biases; each has its own memory.
pub trait SynapseLaw: Send + Sync {
    /// The name in configurations.
    fn name(&self) -> &'static str;

    /// Names of the numbers that each weight remembers, 0 in the beginning. They are saved and resumed.
    fn memory(&self) -> &'static [&'static str] {
        &[]
    }

    /// True where changes add up, θ ← θ + Σ η·Δ, so that they need not come one by one. Then [`change`] is not
    /// called.
    ///
    /// [`change`]: SynapseLaw::change
    fn adds_up(&self) -> bool;

    /// Makes one change of some `weights`, all of one kind, and updates their `memory`, where `wished` is η·Δ.
    /// `memory` has a slice for each of [`SynapseLaw::memory`].
    fn change(&self, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]);

    /// Makes one change of the tensor of this number among those of θ, all weights first and then all biases, for
    /// laws that depend on it.
    fn change_tensor(&self, number: usize, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]) {
        let _ = number;
        self.change(weights, wished, memory);
    }

    /// The form in which it takes changes, where changes do not add up.
    fn wants(&self) -> Wants {
        Wants::Changes
    }

    /// Makes one change of a whole array, row-major.
    fn change_array(&self, place: &Place, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]) {
        self.change_tensor(place.number, weights, wished, memory);
    }

    /// Makes one change of a whole array, given by its factors; called only for [`Wants::Factors`].
    fn pulse(&self, place: &Place, array: &mut dyn Array, wished: &Factors) {
        let _ = (place, array, wished);
    }

    /// Initialises the memory of an array with these weights, where it is not 0.
    fn start(&self, place: &Place, weights: &[f64], memory: &mut [&mut [f64]]) {
        let _ = (place, weights, memory);
    }

    /// Writes weights into an array before training begins, and replaces them by what it holds. A second call changes
    /// nothing.
    fn program(&self, place: &Place, weights: &mut [f64], memory: &mut [&mut [f64]]) {
        let _ = (place, weights, memory);
    }

    /// True where arrays change by themselves from minibatch to minibatch, so that [`SynapseLaw::rest`] is called.
    fn rests(&self) -> bool {
        false
    }

    /// Changes an array after the last change of a minibatch.
    fn rest(&self, place: &Place, weights: &mut [f64], memory: &mut [&mut [f64]]) {
        let _ = (place, weights, memory);
    }

    /// The law as that of devices, where it is.
    fn devices(&self) -> Option<&Devices> {
        None
    }

    /// The ledgers of arrays, by the number of the tensor, if the law keeps them.
    fn ledger(&self) -> Option<Book<'_>> {
        None
    }

    /// The bytes that the law itself takes for each weight, beside the weight's memory.
    fn bytes(&self) -> usize {
        0
    }

    /// The factor of decay of a weight (not of a bias) after a minibatch. Called once, after all its changes.
    fn left(&self) -> f64 {
        1.0
    }

    /// The factor of all learning rates after so many epochs.
    fn rate(&self, epochs: f64) -> f64 {
        let _ = epochs;
        1.0
    }
}

/// The totals of an array's changes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Pulses that devices have taken; for exact changes, changes.
    pub pulses: u64,
    /// Slots of the trains that brought them, one train after the other, each for all devices at once; of deterministic
    /// changes the pulses of the device that took most, of exact ones 1.
    pub slots: u64,
    /// Σ |Δw| over all of them.
    pub moved: f64,
    /// Σ |w − w'| over the minibatches, from beginning to end of each.
    pub net: f64,
}

impl Ledger {
    /// Adds another total.
    pub fn add(&mut self, other: &Ledger) {
        self.pulses += other.pulses;
        self.slots += other.slots;
        self.moved += other.moved;
        self.net += other.net;
    }
}

/// The ledgers of all arrays, locked for writing.
pub type Book<'a> = MutexGuard<'a, Vec<Ledger>>;

/// The name under which ledgers are saved, (arrays, 4): pulses, moved, net, slots; without slots in runs from before
/// these were counted.
pub(crate) const LEDGER: &str = "synapse.ledger";

/// The count of numbers of a saved ledger, now and in earlier versions.
pub(crate) const LEDGER_NUMBERS: [usize; 2] = [4, 3];

/// The ledgers of a law as a tensor; `None` where it has none.
///
/// # Errors
/// Only those of candle.
pub fn saved_ledger(law: &Synapse) -> Result<Option<(String, Tensor)>> {
    let Some(book) = law.ledger() else { return Ok(None) };
    let numbers: Vec<f64> =
        book.iter().flat_map(|own| [own.pulses as f64, own.moved, own.net, own.slots as f64]).collect();
    let tensor = Tensor::from_vec(numbers, (book.len(), LEDGER_NUMBERS[0]), &Device::Cpu)?;
    Ok((!book.is_empty()).then(|| (LEDGER.to_string(), tensor)))
}

/// Restores the ledgers from the tensor of [`saved_ledger`]; where that is missing, counting begins anew.
///
/// # Errors
/// Only those of candle.
pub fn recall_ledger(law: &Synapse, tensors: &HashMap<String, Tensor>) -> Result<()> {
    let Some(mut book) = law.ledger() else { return Ok(()) };
    book.clear();
    if let Some(saved) = tensors.get(LEDGER) {
        let numbers = doubles(saved)?;
        let own = |row: &[f64]| {
            let slots = row.get(3).copied().unwrap_or_default() as u64;
            Ledger { pulses: row[0] as u64, slots, moved: row[1], net: row[2] }
        };
        book.extend(numbers.chunks_exact(saved.dim(1)?).map(own));
    }
    Ok(())
}

/// Adds the change of each array in a minibatch, from `before` to `after`, to the ledgers.
///
/// # Errors
/// Only those of candle.
pub fn book_minibatch(law: &Synapse, before: &Parameters, after: &Parameters) -> Result<()> {
    let Some(mut book) = law.ledger() else { return Ok(()) };
    let tensors = |theta: &Parameters| theta.weights.iter().chain(&theta.biases).cloned().collect::<Vec<_>>();
    for (i, (before, after)) in tensors(before).into_iter().zip(tensors(after)).enumerate() {
        let net = (after - before)?.abs()?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        if book.len() <= i {
            book.resize(i + 1, Ledger::default());
        }
        book[i].net += net;
    }
    Ok(())
}

/// The tensors of an array in double precision, for [`change`] and its like.
struct Doubles {
    weights: Vec<f64>,
    memory: Vec<Vec<f64>>,
}

impl Doubles {
    fn of(weights: &Tensor, memory: &[&mut Tensor]) -> Result<Self> {
        let memory = memory.iter().map(|tensor| doubles(tensor)).collect::<Result<_>>()?;
        Ok(Self { weights: doubles(weights)?, memory })
    }

    /// Lets a law work on them.
    fn with(&mut self, work: impl FnOnce(&mut [f64], &mut [&mut [f64]])) {
        let mut memory: Vec<&mut [f64]> = self.memory.iter_mut().map(Vec::as_mut_slice).collect();
        work(&mut self.weights, &mut memory);
    }

    /// Writes the memory back, and returns the weights in the type of `like`.
    fn back(self, like: &Tensor, memory: &mut [&mut Tensor]) -> Result<Tensor> {
        let tensor = |numbers: Vec<f64>| {
            let tensor = Tensor::from_vec(numbers, like.shape(), &Device::Cpu)?;
            tensor.to_dtype(like.dtype())?.to_device(like.device())
        };
        for (memory, remembered) in memory.iter_mut().zip(self.memory) {
            **memory = tensor(remembered)?;
        }
        tensor(self.weights)
    }
}

/// The numbers of a tensor, row-major.
fn doubles(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()
}

impl Place {
    /// The array of the tensor of this number, (rows, columns), or (rows,) for a bias; a filter of a convolution is a row.
    ///
    /// # Errors
    /// Only those of candle (no dimension).
    pub fn of(number: usize, tensor: &Tensor, clock: u64) -> Result<Self> {
        let (is_bias, rows) = (tensor.rank() == 1, tensor.dim(0)?);
        let columns = tensor.dims()[1..].iter().product();
        Ok(Self { number, rows, columns, is_bias, clock })
    }
}

/// Makes one change of the array at `place`, and returns its weights. `memory` is theirs.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub fn change(
    law: &Synapse,
    place: &Place,
    weights: &Tensor,
    wished: &Tensor,
    memory: &mut [&mut Tensor],
) -> Result<Tensor> {
    let (mut numbers, wished) = (Doubles::of(weights, memory)?, doubles(wished)?);
    numbers.with(|weights, memory| law.change_array(place, weights, &wished, memory));
    numbers.back(weights, memory)
}

/// Makes one change that is given by its factors, and returns the weights.
///
/// # Errors
/// As [`change`].
pub fn pulse(
    law: &Synapse,
    place: &Place,
    weights: &Tensor,
    wished: &Factors,
    memory: &mut [&mut Tensor],
) -> Result<Tensor> {
    let mut numbers = Doubles::of(weights, memory)?;
    numbers.with(|weights, memory| law.pulse(place, &mut RowMajor::new(place, weights, memory), wished));
    numbers.back(weights, memory)
}

/// Lets the law act on an array by itself: [`SynapseLaw::start`], [`SynapseLaw::program`] or [`SynapseLaw::rest`].
///
/// # Errors
/// As [`change`].
pub fn alone(
    weights: &Tensor,
    memory: &mut [&mut Tensor],
    work: impl FnOnce(&mut [f64], &mut [&mut [f64]]),
) -> Result<Tensor> {
    let mut numbers = Doubles::of(weights, memory)?;
    numbers.with(work);
    numbers.back(weights, memory)
}

/// An array in slices, row-major.
pub struct RowMajor<'a, 'b> {
    columns: usize,
    weights: &'a mut [f64],
    memory: &'a mut [&'b mut [f64]],
}

impl<'a, 'b> RowMajor<'a, 'b> {
    /// The array at `place`, with these weights and memory.
    pub fn new(place: &Place, weights: &'a mut [f64], memory: &'a mut [&'b mut [f64]]) -> Self {
        Self { columns: place.columns, weights, memory }
    }
}

impl Array for RowMajor<'_, '_> {
    fn read(&self, row: usize, column: usize, into: &mut [f64]) {
        let at = row * self.columns + column;
        let numbers = [self.weights[at]].into_iter().chain(self.memory.iter().map(|memory| memory[at]));
        into.iter_mut().zip(numbers).for_each(|(into, number)| *into = number);
    }

    fn write(&mut self, row: usize, column: usize, from: &[f64]) {
        let at = row * self.columns + column;
        let [weight, remembered @ ..] = from else { return };
        self.weights[at] = *weight;
        for (memory, number) in self.memory.iter_mut().zip(remembered) {
            memory[at] = *number;
        }
    }
}
