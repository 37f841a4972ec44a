//! Labelled images, and minibatches of them.

use super::error::{Error, Result};
use crate::model::{Dims, Parameters};
use candle_core::{DType, Device, Tensor};

/// A minibatch, as stored in the data set.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Pixels, row-major (B, d_in); x = byte/255.
    pub images: Vec<u8>,
    /// Class of each image, below d_0.
    pub labels: Vec<u8>,
}

impl Batch {
    /// Checks that there are images, of the size that a network of these sizes takes, and classes that it has.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn check(&self, dims: &Dims) -> Result<()> {
        let problem = if self.labels.is_empty() {
            "holds no images".to_string()
        } else if self.images.len() != self.labels.len() * dims.input() {
            format!(
                "holds {} pixels for {} images of {} pixels",
                self.images.len(),
                self.labels.len(),
                dims.input()
            )
        } else if let Some(label) = self.labels.iter().find(|&&label| usize::from(label) >= dims.output()) {
            format!("holds an image of class {label}, and the network has {} outputs", dims.output())
        } else {
            return Ok(());
        };
        Err(Error::Misfit { place: "the minibatch".into(), problem })
    }

    /// x in the type and on the device of these weights.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn x_for(&self, theta: &Parameters) -> candle_core::Result<Tensor> {
        self.x(theta.dtype(), theta.device())
    }

    /// y for a network with these weights, in their type and on their device.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn y_for(&self, theta: &Parameters) -> candle_core::Result<Tensor> {
        self.y(theta.network.dims.output(), theta.dtype(), theta.device())
    }

    /// x = byte/255, (B, d_in).
    ///
    /// # Errors
    /// Only those of candle.
    pub fn x(&self, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let rows = self.labels.len();
        let shape = (rows, self.images.len() / rows.max(1));
        pixels(&Tensor::from_slice(&self.images, shape, device)?, dtype)
    }

    /// y, one-hot (B, classes).
    ///
    /// # Errors
    /// Only those of candle.
    pub fn y(&self, classes: usize, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let y = one_hot(&self.labels, classes);
        Tensor::from_vec(y, (self.labels.len(), classes), device)?.to_dtype(dtype)
    }
}

/// x = byte/255.
///
/// # Errors
/// Only those of candle.
pub fn pixels(bytes: &Tensor, dtype: DType) -> candle_core::Result<Tensor> {
    bytes.to_dtype(dtype)?.affine(1.0 / 255.0, 0.0)
}

/// y of these labels, one row of `classes` after the other.
pub fn one_hot(labels: &[u8], classes: usize) -> Vec<u8> {
    let mut y = vec![0; labels.len() * classes];
    for (row, &label) in y.chunks_mut(classes).zip(labels) {
        row[usize::from(label)] = 1;
    }
    y
}

/// Some labelled images.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// The source of the images, for error messages.
    pub images_origin: String,
    /// The source of the labels, for error messages.
    pub origin: String,
    /// Pixels per image.
    pub pixels: usize,
    /// Height, width and channels of an image, in the order of its pixels, if its source has them.
    pub shape: Option<[usize; 3]>,
    /// Row-major (count, pixels).
    pub images: Vec<u8>,
    /// The class of each.
    pub labels: Vec<u8>,
}

impl Split {
    /// Noise images of this shape with as much ink as handwriting has, and of every class: the cost of a step may
    /// depend on both.
    pub(super) fn of_noise(origin: &str, count: usize, shape: [usize; 3], classes: usize) -> Self {
        let pixels = shape.iter().product();
        let ink = |i: usize| if (i as u32).wrapping_mul(0x9e37_79b1) < u32::MAX / 5 { 255 } else { 0 };
        Self {
            images_origin: origin.into(),
            origin: origin.into(),
            pixels,
            shape: Some(shape),
            images: (0..count * pixels).map(ink).collect(),
            labels: (0..count).map(|i| (i % classes) as u8).collect(),
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The images with these numbers as a minibatch.
    pub fn batch(&self, indices: &[u32]) -> Batch {
        let mut batch = Batch::default();
        self.gather(indices, &mut batch);
        batch
    }

    /// Gathers the images with these numbers into an existing minibatch.
    pub fn gather(&self, indices: &[u32], batch: &mut Batch) {
        batch.images.clear();
        batch.labels.clear();
        for &i in indices {
            let i = i as usize;
            batch.images.extend_from_slice(&self.images[i * self.pixels..][..self.pixels]);
            batch.labels.push(self.labels[i]);
        }
    }

    /// The first `count` images, or all where there are fewer, in order, `size` at a time.
    pub fn batches(&self, count: usize, size: usize) -> impl Iterator<Item = Batch> {
        let count = count.min(self.len());
        (0..count).step_by(size).map(move |first| {
            let end = (first + size).min(count);
            let images = self.images[first * self.pixels..end * self.pixels].to_vec();
            Batch { images, labels: self.labels[first..end].to_vec() }
        })
    }

    /// The images with these numbers, as a split of their own.
    pub(super) fn part(&self, indices: &[u32]) -> Self {
        let batch = self.batch(indices);
        let (images_origin, origin) = (self.images_origin.clone(), self.origin.clone());
        Self { images_origin, origin, images: batch.images, labels: batch.labels, ..*self }
    }

    pub(super) fn truncate(&mut self, limit: Option<usize>) {
        if let Some(limit) = limit.filter(|limit| *limit < self.len()) {
            self.labels.truncate(limit);
            self.images.truncate(limit * self.pixels);
        }
    }

    /// Checks sizes and labels against a network's input and output.
    pub(super) fn check(&self, dims: &Dims) -> Result<()> {
        let misfit = |place: &str, problem| Err(Error::Misfit { place: place.into(), problem });
        if self.pixels != dims.input() {
            return misfit(
                &self.images_origin,
                format!(
                    "images have {} pixels, but network.dims = {:?} begins with {}: set network.dims[0] to {}, or to \
                 \"auto\"",
                    self.pixels,
                    dims.0,
                    dims.input(),
                    self.pixels
                ),
            );
        }
        let outside = self.labels.iter().position(|&l| usize::from(l) >= dims.output());
        if let Some(i) = outside {
            return misfit(
                &self.origin,
                format!(
                    "image {i} has label {}, but network.dims = {:?} ends with {} outputs (classes 0 to {}): \
                 raise the last number of network.dims, set it to \"auto\", or mend the file",
                    self.labels[i],
                    dims.0,
                    dims.output(),
                    dims.output() - 1
                ),
            );
        }
        Ok(())
    }
}
