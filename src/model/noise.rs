//! Noise of a circuit elsewhere than in its synapses: of states, of reads, of updates, and the bits of its converters.
//!
//! A step of either phase sends the states through digital-to-analogue converters, reads every array with noise
//! through an analogue-to-digital converter, and adds noise to the states that it updates. References (BPTT, RBP, …)
//! are computed without any of it.

use crate::base::panic::guard;
use crate::base::problem::{self, need};
use crate::rng::{self, Purpose};
use candle_core::{Device, Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// The most bits of a converter: what 32-bit floats hold.
const MOST_BITS: u32 = 24;

/// `[noise]`: none of it by default. ξ is a fresh N(0, 1) at each mention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// σ_s: every step makes s + σ_s·ξ of the new state s of a neuron, in both phases.
    pub states: f64,
    /// σ_read: an array that is read delivers h + σ_read·ξ to each neuron.
    pub reads: f64,
    /// A constant that is added to every update Δ of each weight and bias.
    pub updates: f64,
    /// Bits of what is sent into arrays; 0 where it has all of its digits.
    pub dac_bits: u32,
    /// Its largest size.
    pub dac_range: f64,
    /// Bits of what arrays deliver; 0 where it has all of its digits.
    pub adc_bits: u32,
    /// Its largest size.
    pub adc_range: f64,
    #[serde(skip)]
    draws: Draws,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            states: 0.0,
            reads: 0.0,
            updates: 0.0,
            dac_bits: 0,
            dac_range: 1.0,
            adc_bits: 0,
            adc_range: 4.0,
            draws: Draws::default(),
        }
    }
}

/// The source of random numbers. It is no part of the identity of noise: all are equal. Copies share it.
#[derive(Clone, Debug, Default)]
struct Draws {
    seed: u64,
    stream: Arc<Mutex<Option<ChaCha8Rng>>>,
}

impl PartialEq for Draws {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Draws {
    fn normal(&self, count: usize) -> Vec<f64> {
        let mut stream = guard(&self.stream);
        let rng = stream.get_or_insert_with(|| rng::stream(self.seed, Purpose::Noise, 0));
        (0..count).map(|_| rng.sample(StandardNormal)).collect()
    }
}

/// Noise with its own random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The minibatch that is learnt when arrays have been asked so often.
    Training(u64),
    /// Images that are classified when they have been.
    Test(u64),
}

impl Noise {
    /// Returns the noise with random numbers of this seed.
    pub fn seeded(&self, seed: u64) -> Self {
        Self { draws: Draws { seed, stream: Arc::default() }, ..self.clone() }
    }

    /// True where there is none.
    pub fn is_none(&self) -> bool {
        !self.is_random() && self.updates == 0.0 && self.dac_bits == 0 && self.adc_bits == 0
    }

    /// True where every setting has its default.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// True where it draws random numbers.
    pub fn is_random(&self) -> bool {
        self.states > 0.0 || self.reads > 0.0
    }

    /// From here on draws the random numbers of this moment, whatever was drawn before.
    pub fn begin(&self, moment: Moment) {
        let index = match moment {
            Moment::Training(clock) => 2 * clock,
            Moment::Test(clock) => 2 * clock + 1,
        };
        *guard(&self.draws.stream) = Some(rng::stream(self.draws.seed, Purpose::Noise, index));
    }

    /// tensor + σ·ξ.
    fn shaken(&self, tensor: &Tensor, sigma: f64) -> Result<Tensor> {
        if sigma == 0.0 {
            return Ok(tensor.clone());
        }
        let noise = Tensor::from_vec(self.draws.normal(tensor.elem_count()), tensor.shape(), &Device::Cpu)?;
        tensor + (noise * sigma)?.to_dtype(tensor.dtype())?.to_device(tensor.device())?
    }

    /// The signals sent into arrays, given ρ of the states.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn sent(&self, rho: &Tensor) -> Result<Tensor> {
        converted(rho, self.dac_bits, self.dac_range)
    }

    /// The reads of arrays, given their exact products.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn read(&self, product: &Tensor) -> Result<Tensor> {
        converted(&self.shaken(product, self.reads)?, self.adc_bits, self.adc_range)
    }

    /// New states with their noise.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn moved(&self, s: &Tensor) -> Result<Tensor> {
        self.shaken(s, self.states)
    }

    /// Checks each key.
    ///
    /// # Errors
    /// The first problem found, by its key.
    pub fn check(&self) -> problem::Result {
        for (key, value) in [("noise.states", self.states), ("noise.reads", self.reads)] {
            need(
                value >= 0.0 && value.is_finite(),
                key,
                "is a standard deviation and must be a finite number, 0 or above",
            )?;
        }
        need(
            self.updates.is_finite(),
            "noise.updates",
            "is added to every update and must be a finite number",
        )?;
        for (key, bits) in [("noise.dac_bits", self.dac_bits), ("noise.adc_bits", self.adc_bits)] {
            need(
                bits == 0 || (2..=MOST_BITS).contains(&bits),
                key,
                format!(
                    "is how many bits a converter has and must be 0, which is none, or from 2 to {MOST_BITS}"
                ),
            )?;
        }
        for (key, range) in [("noise.dac_range", self.dac_range), ("noise.adc_range", self.adc_range)] {
            need(
                range > 0.0 && range.is_finite(),
                key,
                "is the largest number of a converter and must be above 0",
            )?;
        }
        Ok(())
    }

    /// Keys that play no part, each with why.
    pub fn idle(&self) -> Vec<(&'static str, String)> {
        let keys = [("noise.dac_range", self.dac_bits), ("noise.adc_range", self.adc_bits)];
        let idle = keys.into_iter().filter(|(_, bits)| *bits == 0);
        idle.map(|(key, _)| (key, "a converter of 0 bits is none".to_string())).collect()
    }
}

/// Rounds numbers as a converter of so many bits does: to the nearest of 2^bits − 1 levels that are evenly spaced
/// from −range to range, including 0; 0 bits leave all digits.
fn converted(tensor: &Tensor, bits: u32, range: f64) -> Result<Tensor> {
    if bits == 0 {
        return Ok(tensor.clone());
    }
    let step = range / ((1u32 << (bits - 1)) - 1) as f64;
    (tensor.clamp(-range, range)? / step)?.round()? * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn a_converter_has_as_many_levels_as_its_bits_allow() {
        for (bits, range) in [(2, 1.0), (3, 1.0), (5, 4.0), (8, 1.0)] {
            let x: Vec<f64> = (-2000..=2000).map(|i| f64::from(i) * range / 1000.0).collect();
            let x = Tensor::new(x, &Device::Cpu).unwrap();
            let y = numbers(&converted(&x, bits, range).unwrap());
            let mut levels: Vec<i64> = y.iter().map(|y| (y * 1e9).round() as i64).collect();
            levels.dedup();
            assert_eq!(levels.len(), (1 << bits) - 1, "{bits}");
            assert!(levels.contains(&0), "{bits}");
            let step = 2.0 * range / ((1 << bits) - 2) as f64;
            for (x, y) in numbers(&x).into_iter().zip(y) {
                assert!((x.clamp(-range, range) - y).abs() <= 0.5 * step + 1e-12, "{bits}: {x} {y}");
            }
        }
    }

    #[test]
    fn noise_has_its_mean_and_spread_and_depends_on_the_moment_alone() {
        let noise = Noise { states: 0.1, reads: 0.3, ..Noise::default() }.seeded(5);
        let zero = Tensor::zeros((100, 200), DType::F32, &Device::Cpu).unwrap();
        let at = |moment| {
            noise.begin(moment);
            (numbers(&noise.read(&zero).unwrap()), numbers(&noise.moved(&zero).unwrap()))
        };
        let (reads, states) = at(Moment::Training(3));
        let n = reads.len() as f64;
        for (values, sigma) in [(&reads, 0.3), (&states, 0.1)] {
            let mean = values.iter().sum::<f64>() / n;
            let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
            assert!(mean.abs() < 4.0 * sigma / n.sqrt(), "{mean}");
            assert!((std / sigma - 1.0).abs() < 4.0 / (2.0 * n).sqrt(), "{std}");
        }
        assert_eq!(at(Moment::Training(3)), (reads.clone(), states));
        for other in [Moment::Test(3), Moment::Training(4)] {
            assert_ne!(at(other).0, reads, "{other:?}");
        }
    }
}
