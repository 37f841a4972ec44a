//! A learning rule of one's own: EP whose synapses know the sign of their update only, and all change by the same amount
//! η, as one-bit programming pulses on neuromorphic hardware do. It exists nowhere in the library.
//! `docs/adding-a-rule.md` explains it.

use candle_core::{DType, Device, Result};
use eqprop::data::{Batch, Split, glyphs};
use eqprop::engine::{Engine, plain::Plain};
use eqprop::learning::{LearningRule, Lesson, Nudging, Observe, Protocol, Rule, SigmaPrime, Step};
use eqprop::model::dynamics::Time;
use eqprop::model::network::Init;
use eqprop::model::{Activation, Dims, Dynamics, Model, Parameters, Settle};
use eqprop::rng;

struct SignEp;

impl LearningRule for SignEp {
    fn name(&self) -> &'static str {
        "sign-ep"
    }

    fn title(&self) -> &'static str {
        "EP by signs"
    }

    fn tied(&self) -> Option<bool> {
        Some(true)
    }

    /// θ + η·sign(Δ(s_* → s_K)).
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        let s_end = lesson.second_phase(observe, |_| Ok(None))?;
        let (s, beta) = (lesson.settled.state(), lesson.nudge.beta);
        let mut update = lesson.update(&Step { t: 0, s, h: &[], s_next: &s_end, beta })?;
        for layer in &mut update.forward {
            (layer.weight, layer.bias) = (layer.weight.sign()?, layer.bias.sign()?);
        }
        lesson.applied(lesson.theta, &update)
    }
}

/// Trains a 784-64-10 network on some minibatches of 20 glyphs. Returns the test error, percent, before and after.
pub fn train(minibatches: usize) -> anyhow::Result<(f64, f64)> {
    let dims = Dims(vec![784, 64, 10]);
    let theta = Parameters::init(&dims, Init::FanIn, None, 1, DType::F32, &Device::Cpu)?;
    let dynamics = Dynamics { time: Time::Discrete, activation: Activation::Sigmoid, damping: 0.0 };
    let model = Model { dims, tied: true, dynamics, settle: Settle::synchronous(20, 1e-4) };
    let protocol = Protocol {
        rule: Rule(&SignEp),
        sigma_prime: SigmaPrime::Ignored,
        nudging: Nudging::Positive,
        second_steps: 8,
        tiny: 1.0, // Algorithm 5's alone.
        learning_rates: vec![2e-3, 2e-3],
        authors_code: false,
    };
    let mut engine = Plain::new(model, protocol, theta, &Device::Cpu);
    let dataset = glyphs::dataset();
    let before = test(&mut engine, &dataset.test)?;
    let mut batch = Batch::default();
    for indices in rng::permutation(1, 0, dataset.train.len()).chunks(20).take(minibatches) {
        dataset.train.gather(indices, &mut batch);
        engine.train(&batch, 0.5)?;
    }
    Ok((before, test(&mut engine, &dataset.test)?))
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
