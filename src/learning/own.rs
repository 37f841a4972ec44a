//! A rule of one's own: its update, and the parameters, memory and random numbers that it may need.

use super::{Lesson, Step, Update};
use crate::model::Parameters;
use crate::rng::{self, Purpose};
use candle_core::{DType, Device, Result, Tensor, bail};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An update that the paper does not have.
pub trait OwnUpdate: Send + Sync {
    /// Δ_θ(t) of a step, a mean over the batch.
    ///
    /// # Errors
    /// Only those of candle.
    fn update(&self, lesson: &Lesson, step: &Step) -> Result<Parameters>;

    /// Names and defaults of the parameters that `[learning.own]` sets; [`Lesson::parameter`] has their values.
    fn parameters(&self) -> &'static [(&'static str, f64)] {
        &[]
    }

    /// Names of the rule's memory from one update to the next: for each name, one number for every weight and bias, 0
    /// in the beginning. [`Lesson::kept`] and [`Lesson::keep`] read and write it; checkpoints save it.
    fn memory(&self) -> &'static [&'static str] {
        &[]
    }
}

/// The memory of the rule of a run, and the count of its updates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    values: BTreeMap<String, Parameters>,
    /// Updates so far, each of which draws from a stream of its own.
    updates: u64,
}

/// The name of [`Kept::updates`] in checkpoints.
pub(crate) const UPDATES: &str = "rule.updates";
/// The bound of the lower part of a count that is saved as two numbers; even 32-bit floats hold it exactly.
const PART: u64 = 1 << 24;

/// A count as a tensor that holds it exactly in any floating-point type.
pub(crate) fn count_tensor(count: u64) -> Result<Tensor> {
    Tensor::new(&[(count / PART) as f64, (count % PART) as f64], &Device::Cpu)
}

/// The count that was saved as `tensor`, called `name`.
pub(crate) fn count_of(name: &str, tensor: &Tensor) -> Result<u64> {
    let parts = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let [high, low] = parts[..] else { bail!("{name} has {} numbers instead of 2", parts.len()) };
    Ok(high as u64 * PART + low as u64)
}

/// The name in checkpoints of a rule's memory `name` of a weight or bias.
pub(crate) fn kept_name(name: &str, weight: &str) -> String {
    format!("rule.{name}.{weight}")
}

impl Kept {
    /// The tensors that a checkpoint saves of it, by name.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let of = |(name, values): (&String, &Parameters)| -> Vec<(String, Tensor)> {
            let named = values.named().into_iter();
            named.map(|(weight, value)| (kept_name(name, &weight), value.clone())).collect()
        };
        let updates = Some(self.updates).filter(|updates| *updates > 0).and_then(|n| count_tensor(n).ok());
        let updates = updates.map(|updates| (UPDATES.to_string(), updates));
        self.values.iter().flat_map(of).chain(updates).collect()
    }

    /// Restores the memory from tensors, for weights like those of `theta`.
    pub fn recall(&mut self, tensors: &HashMap<String, Tensor>, theta: &Parameters) -> Result<()> {
        self.updates = tensors.get(UPDATES).map_or(Ok(0), |tensor| count_of(UPDATES, tensor))?;
        let names = tensors.keys().filter(|key| *key != UPDATES);
        let names = names.filter_map(|key| key.strip_prefix("rule.")?.split_once('.'));
        let names: BTreeSet<String> = names.map(|(name, _)| name.to_string()).collect();
        for name in names {
            let mut values = theta.clone();
            values.recall(&kept_name(&name, ""), tensors)?;
            self.values.insert(name, values);
        }
        Ok(())
    }
}

impl Lesson<'_> {
    /// A parameter of the rule, as `[learning.own]` sets it.
    ///
    /// # Errors
    /// Where the rule has none of this name.
    pub fn parameter(&self, name: &str) -> Result<f64> {
        let own = self.learning.rule.own_parameters();
        let default = own.iter().find(|(known, _)| *known == name).map(|(_, default)| *default);
        match self.learning.own.get(name).copied().or(default) {
            Some(value) => Ok(value),
            None => bail!("{} has no parameter {name}", self.learning.rule.title),
        }
    }

    /// The values of a rule's [memory](OwnUpdate::memory) `name`: zeros in the beginning, and outside training.
    ///
    /// # Errors
    /// Where it keeps nothing of this name.
    pub fn kept(&self, name: &str) -> Result<Parameters> {
        self.check_kept(name)?;
        let kept = self.own.and_then(|kept| kept.borrow().values.get(name).cloned());
        kept.map_or_else(|| self.theta.map(Tensor::zeros_like), Ok)
    }

    /// Keeps `values` under a name of the rule's memory until its next update.
    ///
    /// # Errors
    /// As [`Lesson::kept`].
    pub fn keep(&self, name: &str, values: Parameters) -> Result<()> {
        self.check_kept(name)?;
        if let Some(kept) = self.own {
            kept.borrow_mut().values.insert(name.into(), values);
        }
        Ok(())
    }

    fn check_kept(&self, name: &str) -> Result<()> {
        match self.learning.rule.update {
            Update::Own(_, own) if own.memory().contains(&name) => Ok(()),
            _ => bail!("{} keeps nothing called {name}", self.learning.rule.title),
        }
    }

    /// Random numbers for this update: a stream that depends on the run's seed and on the number of updates so far,
    /// so that a resumed run draws the same numbers.
    pub fn draws(&self) -> ChaCha8Rng {
        let updates = self.own.map_or(0, |kept| kept.borrow().updates);
        rng::stream(self.learning.seed, Purpose::OwnRule, updates)
    }

    /// The update of a rule of one's own.
    pub(super) fn own_update(&self, own: &dyn OwnUpdate, step: &Step) -> Result<Parameters> {
        let update = own.update(self, step)?;
        if let Some(kept) = self.own {
            kept.borrow_mut().updates += 1;
        }
        Ok(update)
    }
}
