//! A synapse of one's own: conductances that only go up by a step or down by a step, and only between two bounds. It
//! exists nowhere in the library.

use candle_core::Device;
use eqprop::engine::{self, EngineKind};
use eqprop::model::synapse::{Synapse, SynapseLaw};
use eqprop::{Batch, Config, Rule, rng};
use std::sync::Arc;

const STEP: f64 = 1e-3;
const BOUND: f64 = 0.15;
struct Stepwise;

impl SynapseLaw for Stepwise {
    fn name(&self) -> &'static str {
        "stepwise"
    }

    /// Changes of less than a step wait for more.
    fn memory(&self) -> &'static [&'static str] {
        &["waiting"]
    }

    fn adds_up(&self) -> bool {
        false
    }

    fn change(&self, weights: &mut [f64], wished: &[f64], memory: &mut [&mut [f64]]) {
        for ((w, wished), waiting) in weights.iter_mut().zip(wished).zip(memory[0].iter_mut()) {
            *waiting += wished;
            let steps = (*waiting / STEP).trunc();
            *waiting -= steps * STEP;
            *w = (*w + steps * STEP).clamp(-BOUND, BOUND);
        }
    }
}

/// Trains C-EP on some minibatches of 20 glyphs. Returns the test error, percent, and the largest output weight.
pub fn train(minibatches: usize) -> anyhow::Result<(f64, f64)> {
    let config =
        Config::preset(Rule::CEP, [784, 64, 10])?.with("learning.learning_rates", vec![0.01, 0.005])?;
    let mut job = config.job(&Device::Cpu);
    job.model.synapse = Synapse(Arc::new(Stepwise));
    let mut engine = engine::build(EngineKind::Auto, job, config.parameters(&Device::Cpu)?)?;
    let (dataset, mut batch) = (eqprop::data::glyphs::dataset(), Batch::default());
    for indices in rng::permutation(1, 0, dataset.train.len()).chunks(20).take(minibatches) {
        dataset.train.gather(indices, &mut batch);
        engine.train(&batch, 0.2)?;
    }
    dataset.test.gather(&(0..1000).collect::<Vec<u32>>(), &mut batch);
    let largest = engine.parameters()?.weights[0].abs()?.max_all()?.to_scalar::<f32>()?;
    Ok((engine.evaluate(&batch)?.error_percent(), largest.into()))
}

#[allow(dead_code)] // The test of this file calls `train`.
fn main() -> anyhow::Result<()> {
    println!("test error, percent, and the largest output weight: {:?}", train(2000)?);
    Ok(())
}
