//! A learning rule of one's own: centred EP, which nudges once with +β and once with −β, and learns from the
//! difference of the two ends. The bias of the one-sided update, linear in β, cancels. It exists nowhere in the library.
//! `docs/adding-a-rule.md` explains it.

use candle_core::{DType, Device, Result};
use eqprop::data::{Batch, Split, glyphs};
use eqprop::engine::{Engine, plain::Plain};
use eqprop::learning::{LearningRule, Lesson, Observe, Protocol, Rule, SigmaPrime, Step};
use eqprop::model::dynamics::{Nudge, Time};
use eqprop::model::network::Init;
use eqprop::model::{Activation, Dims, Dynamics, Model, Parameters, Settle};
use eqprop::rng;

struct CentredEp;

impl LearningRule for CentredEp {
    fn name(&self) -> &'static str {
        "centred-ep"
    }

    fn title(&self) -> &'static str {
        "centred EP"
    }

    fn tied(&self) -> Option<bool> {
        Some(true)
    }

    /// θ + η·(ρ(s⁺)·ρ(s⁺)ᵀ − ρ(s⁻)·ρ(s⁻)ᵀ)/(2β), where s^± is s_K of a second phase with ±β.
    fn learn(&self, lesson: &Lesson, observe: Observe) -> Result<Parameters> {
        let beta = lesson.nudge.beta.size();
        let with = |beta: f64| Lesson { nudge: Nudge { beta: beta.into(), ..lesson.nudge }, ..*lesson };
        let s_plus = with(beta).second_phase(observe, |_| Ok(None))?;
        let s_minus = with(-beta).second_phase(&mut |_| Ok(()), |_| Ok(None))?;
        let across = Step { t: 0, s: &s_minus, h: &[], s_next: &s_plus };
        lesson.applied(lesson.theta, &with(2.0 * beta).update(&across)?)
    }
}

/// Trains a 784-64-10 network on some minibatches of 20 glyphs. Returns the test error, percent, before and after.
pub fn train(minibatches: usize) -> anyhow::Result<(f64, f64)> {
    let dims = Dims(vec![784, 64, 10]);
    let theta = Parameters::init(&dims, Init::FanIn, None, 1, DType::F32, &Device::Cpu)?;
    let dynamics = Dynamics { time: Time::Discrete, activation: Activation::Sigmoid, damping: 0.0 };
    let model = Model { dims, tied: true, dynamics, settle: Settle { steps: 20, tolerance: 1e-4 } };
    let protocol = Protocol {
        rule: Rule(&CentredEp),
        sigma_prime: SigmaPrime::Ignored,
        second_steps: 8,
        tiny: 1.0, // Algorithm 5's alone.
        learning_rates: vec![0.1, 0.2],
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
