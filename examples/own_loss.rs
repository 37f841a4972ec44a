//! A loss of one's own: ℓ = Σ √(1 + (y − s⁰)²), which pulls no harder at outliers than at others. It exists nowhere in
//! the library.

use candle_core::{Device, Result, Tensor};
use eqprop::data::glyphs;
use eqprop::model::Loss;
use eqprop::model::loss::LossFunction;
use eqprop::{Batch, Config, Rule, rng};

struct Robust;

impl LossFunction for Robust {
    fn name(&self) -> &'static str {
        "robust"
    }

    fn sum(&self, target: &Tensor, output: &Tensor) -> Result<Tensor> {
        (output - target)?.sqr()?.affine(1.0, 1.0)?.sqrt()?.sum_all()
    }

    /// (y − s⁰)/√(1 + (y − s⁰)²).
    fn descent(&self, target: &Tensor, output: &Tensor) -> Result<Tensor> {
        let off = (target - output)?;
        &off / off.sqr()?.affine(1.0, 1.0)?.sqrt()?
    }
}

/// Trains EP on some minibatches of 20 glyphs. Returns the test error, percent, and the deviation of −∂ℓ/∂s⁰ as
/// written here from candle's gradient of ℓ.
pub fn train(minibatches: usize) -> anyhow::Result<(f64, f64)> {
    let rates = vec![0.2, 0.1];
    let mut config = Config::preset(Rule::EP, [784, 64, 10])?.with("learning.learning_rates", rates)?;
    config.network.loss = Loss(&Robust);
    let mut engine = config.engine()?;
    let (dataset, mut batch) = (glyphs::dataset(), Batch::default());
    for indices in rng::permutation(1, 0, dataset.train.len()).chunks(20).take(minibatches) {
        dataset.train.gather(indices, &mut batch);
        engine.train(&batch, 0.2)?;
    }
    dataset.test.gather(&(0..1000).collect::<Vec<u32>>(), &mut batch);
    let y = Tensor::new(&[[0.0, 1.0, 0.5]], &Device::Cpu)?;
    let s = candle_core::Var::new(&[[0.3, 0.9, -2.0]], &Device::Cpu)?;
    let gradients = Robust.sum(&y, s.as_tensor())?.backward()?;
    let gradient = gradients.get(s.as_tensor()).expect("ℓ depends on s⁰");
    let off = (Robust.descent(&y, s.as_tensor())? + gradient)?.abs()?.max_all()?.to_scalar()?;
    Ok((engine.evaluate(&batch)?.error_percent(), off))
}

#[allow(dead_code)] // The test of this file calls `train`.
fn main() -> anyhow::Result<()> {
    let (error, _) = train(2000)?;
    println!("test error {error:.1} % after 2,000 minibatches");
    Ok(())
}
