//! What the filters of a convolution see, as a matrix, on the CPU: candle's `conv2d` and `conv_transpose2d` take several times
//! as long as the products that they come down to.

use super::Convolution;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};
use std::ops::AddAssign;

/// Maps (B, C, H, W) as patches (C·k², B·H'·W'): a row for each place in a filter, a column for each place of the filter.
struct Patches(Convolution);

/// The transpose: patches (C·k², B·H'·W') added up where they were taken, to maps (B, C, H, W).
struct Assembled(Convolution);

/// Whether a window of (…, H', W') has its first largest value here: 1 or 0, in the same shape.
struct FirstLargest(usize);

/// See [`Patches`].
///
/// # Errors
/// Only those of candle.
pub(super) fn patches(convolution: Convolution, maps: &Tensor) -> Result<Tensor> {
    maps.contiguous()?.apply_op1(Patches(convolution))
}

/// See [`Assembled`].
///
/// # Errors
/// Only those of candle.
pub(super) fn assembled(convolution: Convolution, patches: &Tensor) -> Result<Tensor> {
    patches.contiguous()?.apply_op1(Assembled(convolution))
}

/// See [`FirstLargest`].
///
/// # Errors
/// Only those of candle.
pub(super) fn first_largest(pool: usize, maps: &Tensor) -> Result<Tensor> {
    maps.contiguous()?.apply_op1_no_bwd(&FirstLargest(pool))
}

impl Convolution {
    /// Calls `visit` for every stretch of a row that filters see side by side: where it begins in the maps, where in the
    /// patches, and how long it is.
    fn stretches(&self, images: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let (source, kernel, padding) = (self.source, self.kernel, self.padding);
        let Some(made) = self.convolved() else { return };
        for place in 0..source.channels * kernel * kernel {
            let (channel, y, x) = (place / (kernel * kernel), place / kernel % kernel, place % kernel);
            let first = padding.saturating_sub(x);
            let last = made.width.min((source.width + padding).saturating_sub(x));
            for image in (0..images).filter(|_| first < last) {
                let rows =
                    (0..made.height).filter(|row| (padding..source.height + padding).contains(&(row + y)));
                for row in rows {
                    let from = (image * source.channels + channel) * source.height + row + y - padding;
                    let to = (place * images + image) * made.height + row;
                    visit(from * source.width + first + x - padding, to * made.width + first, last - first);
                }
            }
        }
    }

    /// The sizes of patches.
    fn columns(&self, images: usize) -> [usize; 2] {
        let places = self.convolved().map_or(0, |maps| maps.positions());
        [self.source.channels * self.kernel * self.kernel, images * places]
    }

    fn patches<T: WithDType>(&self, images: usize, maps: &[T]) -> Vec<T> {
        let mut patches = vec![T::zero(); self.columns(images).iter().product()];
        self.stretches(images, |from, to, length| {
            patches[to..to + length].copy_from_slice(&maps[from..from + length]);
        });
        patches
    }

    fn assembled<T: WithDType + AddAssign>(&self, images: usize, patches: &[T]) -> Vec<T> {
        let mut maps = vec![T::zero(); images * self.source.neurons()];
        self.stretches(images, |to, from, length| {
            maps[to..to + length]
                .iter_mut()
                .zip(&patches[from..from + length])
                .for_each(|(sum, value)| *sum += *value);
        });
        maps
    }
}

/// What `work` makes of the numbers of a contiguous tensor, of either type.
macro_rules! of_either_type {
    ($storage:expr, $layout:expr, $work:expr) => {{
        let Some((begin, end)) = $layout.contiguous_offsets() else {
            bail!("a tensor that is not contiguous")
        };
        match $storage {
            CpuStorage::F32(values) => CpuStorage::F32($work(&values[begin..end])),
            CpuStorage::F64(values) => CpuStorage::F64($work(&values[begin..end])),
            _ => bail!("states are f32 or f64"),
        }
    }};
}

impl CustomOp1 for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let images = layout.dims()[0];
        let made = of_either_type!(storage, layout, |maps| self.0.patches(images, maps));
        Ok((made, Shape::from(self.0.columns(images).to_vec())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        assembled(self.0, gradient).map(Some)
    }
}

impl CustomOp1 for Assembled {
    fn name(&self) -> &'static str {
        "assembled"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let source = self.0.source;
        let images = layout.dims()[1] / self.0.columns(1)[1];
        let made = of_either_type!(storage, layout, |patches| self.0.assembled(images, patches));
        Ok((made, (images, source.channels, source.height, source.width).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        patches(self.0, gradient).map(Some)
    }
}

impl CustomOp1 for FirstLargest {
    fn name(&self) -> &'static str {
        "first-largest"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (width, pool) = (layout.dims()[layout.dims().len() - 1], self.0);
        let made = of_either_type!(storage, layout, |maps| first_of(maps, width, pool));
        Ok((made, layout.shape().clone()))
    }
}

/// See [`FirstLargest`]; `maps` are rows of `width` values. A window that holds no number has no largest.
fn first_of<T: WithDType>(maps: &[T], width: usize, pool: usize) -> Vec<T> {
    let mut first = vec![T::zero(); maps.len()];
    for window in 0..maps.len() / (pool * pool) {
        let (band, column) = (window / (width / pool), window % (width / pool));
        let begin = band * pool * width + column * pool;
        let mut best = begin;
        let mut is_number = true;
        for row in 0..pool {
            for at in begin + row * width..begin + row * width + pool {
                is_number &= maps[at].partial_cmp(&maps[at]).is_some();
                if maps[at] > maps[best] {
                    best = at;
                }
            }
        }
        if is_number {
            first[best] = T::one();
        }
    }
    first
}
