//! The patches that the filters of a convolution see, as a matrix, on the CPU: candle's `conv2d` and
//! `conv_transpose2d` take several times as long as the products that they come down to.

use super::Convolution;
use super::convolution::Places;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use std::ops::AddAssign;

/// Maps (B, C, H, W) as patches (B, C·k², H'·W'): a row for each place in a filter, a column for each place of the
/// filter.
struct Patches(Convolution);

/// The transpose: patches (B, C·k², H'·W') added up where they were taken, to maps (B, C, H, W).
struct Assembled(Convolution);

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

impl Convolution {
    /// Calls `visit` for every stretch of a row that filters see side by side: where it begins in the maps, where in
    /// the patches, and how long it is.
    fn stretches(&self, images: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let (source, kernel, padding) = (self.source, self.kernel, self.padding);
        let Some(made) = self.convolved() else { return };
        let places = source.channels * kernel * kernel;
        for image in 0..images {
            for place in 0..places {
                let (channel, y, x) = (place / (kernel * kernel), place / kernel % kernel, place % kernel);
                let first = padding.saturating_sub(x);
                let last = made.width.min((source.width + padding).saturating_sub(x));
                let top = padding.saturating_sub(y);
                let bottom = made.height.min((source.height + padding).saturating_sub(y));
                for row in (top..bottom).filter(|_| first < last) {
                    let from = (image * source.channels + channel) * source.height + row + y - padding;
                    let to = (image * places + place) * made.height + row;
                    visit(from * source.width + first + x - padding, to * made.width + first, last - first);
                }
            }
        }
    }

    /// The sizes of patches.
    fn columns(&self, images: usize) -> [usize; 3] {
        let positions = self.convolved().map_or(0, |maps| maps.positions());
        [images, self.source.channels * self.kernel * self.kernel, positions]
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

/// Applies `work` to the numbers of a contiguous tensor, of either type.
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
        let images = layout.dims()[0];
        let made = of_either_type!(storage, layout, |patches| self.0.assembled(images, patches));
        Ok((made, (images, source.channels, source.height, source.width).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        patches(self.0, gradient).map(Some)
    }
}

/// The places of the first largest values of each window of maps (B, C', H', W').
///
/// # Errors
/// Only those of candle.
pub(super) fn first_largest(pool: usize, maps: &Tensor) -> Result<Places> {
    let (images, channels, height, width) = maps.dims4()?;
    let shape = [channels * (height / pool), width / pool];
    let (storage, layout) = maps.storage_and_layout();
    let Some((begin, end)) = layout.contiguous_offsets() else { bail!("maps that are not contiguous") };
    let (in_maps, windows) = match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => first_of(&values[begin..end], images, shape, pool),
        Storage::Cpu(CpuStorage::F64(values)) => first_of(&values[begin..end], images, shape, pool),
        _ => bail!("states are f32 or f64"),
    };
    let tensor = |places: Vec<u32>| {
        let count = places.len() / images;
        Tensor::from_vec(places, (images, count), maps.device())
    };
    Ok(Places { in_maps: tensor(in_maps)?, windows: tensor(windows)? })
}

/// Both [`Places`] of the first largest values of the windows, `bands` × `columns` of them in an image.
fn first_of<T: WithDType>(
    maps: &[T],
    images: usize,
    [bands, columns]: [usize; 2],
    pool: usize,
) -> (Vec<u32>, Vec<u32>) {
    let (width, per_image) = (columns * pool, maps.len() / images);
    let mut in_maps = Vec::with_capacity(images * bands * columns);
    let mut windows = vec![u32::MAX; maps.len()];
    for (maps, windows) in maps.chunks_exact(per_image).zip(windows.chunks_exact_mut(per_image)) {
        for window in 0..bands * columns {
            let begin = window / columns * pool * width + window % columns * pool;
            let mut best = begin;
            for row in 0..pool {
                for at in begin + row * width..begin + row * width + pool {
                    let is_number = maps[best] == maps[best];
                    if is_number && !(maps[at] <= maps[best]) {
                        best = at;
                    }
                }
            }
            in_maps.push(best as u32);
            windows[best] = window as u32;
        }
    }
    (in_maps, windows)
}
