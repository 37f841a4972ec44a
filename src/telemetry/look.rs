//! A closer look at a network's answers than its error: every answer, and the states of hidden layers.

use crate::config::Config;
use crate::data::Split;
use crate::model::{Loss, Parameters};
use anyhow::Result;
use candle_core::DType;

/// Images settled together: so few that their states stay in the cache.
const BATCH: usize = 50;

/// The number of images whose hidden states are kept.
pub const WITH_STATES: usize = 100;

/// An image that was classified wrongly.
pub struct Wrong<'a> {
    /// Its number in its split.
    pub number: usize,
    /// Its pixels.
    pub pixels: &'a [u8],
    /// Its class.
    pub truth: usize,
    /// The class that the network gave it.
    pub answer: usize,
    /// s⁰ of the answer less that of the truth.
    pub margin: f64,
}

impl<'a> Wrong<'a> {
    /// The pixels, the true class and the given one.
    pub fn answered(&self) -> (&'a [u8], [usize; 2]) {
        (self.pixels, [self.truth, self.answer])
    }
}

/// The outputs and states of a network for some images.
pub struct Look {
    /// The loss by which the output is judged.
    loss: Loss,
    /// s⁰ of each image at the end of the first phase.
    pub outputs: Vec<Vec<f64>>,
    /// The states of each hidden layer, from layer 1 on, of the first images.
    pub hidden: Vec<Vec<f32>>,
}

/// Settles the first `count` images of `split`; `None` where `stop` turns true meanwhile.
///
/// # Errors
/// Only those of candle.
pub fn look(
    config: &Config,
    theta: &Parameters,
    split: &Split,
    count: usize,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Look>> {
    let model = config.model();
    let mut look = Look { loss: model.loss, outputs: Vec::new(), hidden: vec![Vec::new(); theta.depth()] };
    for (i, batch) in split.batches(count, BATCH).enumerate() {
        if stop() {
            return Ok(None);
        }
        let settled = model.settle(theta, &batch.x_for(theta)?)?;
        look.outputs.extend(settled.state()[0].to_dtype(DType::F64)?.to_vec2::<f64>()?);
        if i * BATCH < WITH_STATES {
            for (kept, s) in look.hidden.iter_mut().zip(&settled.state()[1..]) {
                kept.extend(s.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
            }
        }
    }
    Ok(Some(look))
}

impl Look {
    /// The class given to each image.
    pub fn answers(&self) -> Vec<usize> {
        self.outputs.iter().map(|output| self.loss.answer(output)).collect()
    }

    /// Numbers of images, by true class (rows) and answer (columns).
    pub fn confusion(&self, split: &Split) -> Vec<Vec<usize>> {
        let classes = self.outputs.first().map_or(0, Vec::len);
        let mut counts = vec![vec![0; classes]; classes];
        for (answer, &label) in self.answers().into_iter().zip(&split.labels) {
            counts[usize::from(label)][answer] += 1;
        }
        counts
    }

    /// The wrongly classified images, the farthest from the truth first, at most `most`.
    pub fn most_wrong<'a>(&self, split: &'a Split, most: usize) -> Vec<Wrong<'a>> {
        let mut wrong: Vec<Wrong> = (self.answers().into_iter().zip(&split.labels).enumerate())
            .map(|(number, (answer, &label))| {
                let (truth, s) = (usize::from(label), &self.outputs[number]);
                let pixels = &split.images[number * split.pixels..][..split.pixels];
                Wrong { number, pixels, truth, answer, margin: s[answer] - s[truth] }
            })
            .filter(|image| image.truth != image.answer)
            .collect();
        wrong.sort_by(|a, b| b.margin.total_cmp(&a.margin));
        wrong.truncate(most);
        wrong
    }
}

/// The number of the image, among the first `count`, that moves most in the last step of the first phase.
///
/// # Errors
/// Only those of candle.
pub fn least_settled(config: &Config, theta: &Parameters, split: &Split, count: usize) -> Result<usize> {
    let mut model = config.model();
    model.settle.tolerance = 0.0;
    let mut worst = (0, f64::NEG_INFINITY);
    for (i, batch) in split.batches(count, BATCH).enumerate() {
        let settled = model.settle(theta, &batch.x_for(theta)?)?;
        for (number, residual) in (BATCH * i..).zip(settled.residuals()?) {
            if residual > worst.1 {
                worst = (number, residual);
            }
        }
    }
    Ok(worst.0)
}
