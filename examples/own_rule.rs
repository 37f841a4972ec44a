//! A learning rule of one's own: EP whose synapses know only the sign of their update, and all change by the same
//! amount η, as one-bit programming pulses on neuromorphic hardware do. `docs/adding-a-rule.md` explains it.

use eqprop::data::{Split, glyphs};
use eqprop::engine::Engine;
use eqprop::learning::{Form, Lesson, OwnUpdate, Rule, Schedule, Step, Update, hebbian_update};
use eqprop::model::Parameters;
use eqprop::{Batch, Config, rng};

struct Sign;

impl OwnUpdate for Sign {
    /// The parameter that `[learning.own]` sets: the least size of an update that counts.
    fn parameters(&self) -> &'static [(&'static str, f64)] {
        &[("threshold", 0.0)]
    }

    /// sign(Δ) of EP's update, where |Δ| reaches the threshold.
    fn update(&self, lesson: &Lesson, step: &Step) -> candle_core::Result<Parameters> {
        let (dynamics, sigma_prime) = (&lesson.model.dynamics, lesson.learning.sigma_prime);
        let update = hebbian_update(dynamics, lesson.theta, Form::Correlation, sigma_prime, lesson.x, step)?;
        let threshold = lesson.parameter("threshold")?;
        update.map(|delta| delta.sign()? * delta.abs()?.ge(threshold)?.to_dtype(delta.dtype())?)
    }
}

/// EP by signs: one update after the second phase, or after both.
const SIGN_EP: Rule =
    Rule { name: "sign-ep", title: "EP by signs", update: Update::Own(Schedule::Whole, &Sign), ..Rule::EP };

/// Trains a 784-64-10 network on some minibatches of 20 glyphs. Returns the test error, percent, before and after.
pub fn train(minibatches: usize) -> anyhow::Result<(f64, f64)> {
    let rates = vec![2e-3, 2e-3];
    let mut config = Config::preset(Rule::EP, [784, 64, 10])?.with("learning.learning_rates", rates)?;
    config.learning.rule = SIGN_EP;
    let mut engine = config.engine()?;
    let dataset = glyphs::dataset();
    let before = test(engine.as_mut(), &dataset.test)?;
    let mut batch = Batch::default();
    for indices in rng::permutation(1, 0, dataset.train.len()).chunks(20).take(minibatches) {
        dataset.train.gather(indices, &mut batch);
        engine.train(&batch, 0.5)?;
    }
    Ok((before, test(engine.as_mut(), &dataset.test)?))
}

fn test(engine: &mut dyn Engine, images: &Split) -> anyhow::Result<f64> {
    let mut batch = Batch::default();
    images.gather(&(0..1000).collect::<Vec<u32>>(), &mut batch);
    Ok(engine.evaluate(&batch)?.error_percent())
}

#[allow(dead_code)] // The test of this file calls `train`.
fn main() -> anyhow::Result<()> {
    let (before, after) = train(2000)?;
    println!("test error {before:.1} % before training, {after:.1} % after 2,000 minibatches");
    Ok(())
}
