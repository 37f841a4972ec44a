//! Convolutions with pooling on the CPU: the patches that the filters see in each image, as a matrix, since candle's
//! `conv2d` and `conv_transpose2d` take several times as long as the products that they come down to; and the largest
//! values of windows.

use super::Convolution;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
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
    #[inline(always)]
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
                if first >= last {
                    continue;
                }
                for row in top..bottom {
                    let from = (image * source.channels + channel) * source.height + row + y - padding;
                    let to = (image * places + place) * made.height + row;
                    visit(from * source.width + first + x - padding, to * made.width + first, last - first);
                }
            }
        }
    }

    /// The shape of patches.
    fn patches_shape(&self, images: usize) -> [usize; 3] {
        let positions = self.convolved().map_or(0, |maps| maps.positions());
        [images, self.source.channels * self.kernel * self.kernel, positions]
    }

    fn patches<T: WithDType>(&self, images: usize, maps: &[T]) -> Vec<T> {
        let mut patches = vec![T::zero(); self.patches_shape(images).iter().product()];
        self.stretches(images, |from, to, length| {
            in_eights(&mut patches[to..to + length], &maps[from..from + length], |place, value| {
                *place = value
            });
        });
        patches
    }

    fn assembled<T: WithDType + AddAssign>(&self, images: usize, patches: &[T]) -> Vec<T> {
        let mut maps = vec![T::zero(); images * self.source.neurons()];
        self.stretches(images, |to, from, length| {
            in_eights(&mut maps[to..to + length], &patches[from..from + length], |sum, value| *sum += value);
        });
        maps
    }
}

/// Calls `each` with the numbers of two stretches of one length. They are short: a call of `memcpy` for each would take
/// longer than the copying.
#[inline(always)]
fn in_eights<T: Copy>(to: &mut [T], from: &[T], each: impl Fn(&mut T, T)) {
    let ((to_8, to_rest), (from_8, from_rest)) = (to.as_chunks_mut::<8>(), from.as_chunks::<8>());
    for i in 0..to_8.len().min(from_8.len()) {
        for lane in 0..8 {
            each(&mut to_8[i][lane], from_8[i][lane]);
        }
    }
    for i in 0..to_rest.len().min(from_rest.len()) {
        each(&mut to_rest[i], from_rest[i]);
    }
}

/// Applies `work` to the numbers of a contiguous tensor, of either type, which makes numbers of this type.
macro_rules! of_either_type {
    ($storage:expr, $layout:expr, $work:expr) => {
        of_either_type!($storage, $layout, $work, F32, F64)
    };
    ($storage:expr, $layout:expr, $work:expr, $made_of_f32:ident, $made_of_f64:ident) => {{
        let Some((begin, end)) = $layout.contiguous_offsets() else {
            bail!("a tensor that is not contiguous")
        };
        match $storage {
            CpuStorage::F32(values) => CpuStorage::$made_of_f32($work(&values[begin..end])),
            CpuStorage::F64(values) => CpuStorage::$made_of_f64($work(&values[begin..end])),
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
        Ok((made, Shape::from(self.0.patches_shape(images).to_vec())))
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

/// Values (B, d') put back at their places in images of `per_image` values; the others are 0.
struct PutBack {
    per_image: usize,
}

/// See [`PutBack`]; `places` are (B, d') in u32.
///
/// # Errors
/// Only those of candle (shapes that differ).
pub(super) fn put_back(values: &Tensor, places: &Tensor, per_image: usize) -> Result<Tensor> {
    values.contiguous()?.apply_op2(&places.contiguous()?, PutBack { per_image })
}

impl CustomOp2 for PutBack {
    fn name(&self) -> &'static str {
        "put-back"
    }

    fn cpu_fwd(
        &self,
        values: &CpuStorage,
        layout: &Layout,
        places: &CpuStorage,
        places_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let images = layout.dims()[0];
        let (CpuStorage::U32(places), Some((begin, end))) = (places, places_layout.contiguous_offsets())
        else {
            bail!("places are u32, side by side")
        };
        let places = &places[begin..end];
        let made = of_either_type!(values, layout, |values| back_at(values, places, images, self.per_image));
        Ok((made, (images, self.per_image).into()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        places: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(gradient.contiguous()?.gather(places, 1)?), None))
    }
}

/// See [`PutBack`].
fn back_at<T: WithDType>(values: &[T], places: &[u32], images: usize, per_image: usize) -> Vec<T> {
    let mut back = vec![T::zero(); images * per_image];
    let windows = places.len() / images.max(1);
    for image in 0..images {
        let back = &mut back[image * per_image..][..per_image];
        let (values, places) = (&values[image * windows..][..windows], &places[image * windows..][..windows]);
        for window in 0..windows {
            back[places[window] as usize] = values[window];
        }
    }
    back
}

/// The places of the first largest values of the windows of this side in maps (B, C', H', W'), (B, d') in u32.
struct FirstLargest(usize);

/// See [`FirstLargest`].
///
/// # Errors
/// Where windows do not divide the maps, and those of candle.
pub(super) fn first_largest(pool: usize, maps: &Tensor) -> Result<Tensor> {
    maps.contiguous()?.apply_op1_no_bwd(&FirstLargest(pool))
}

impl CustomOp1 for FirstLargest {
    fn name(&self) -> &'static str {
        "first-largest"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, channels, height, width) = layout.shape().dims4()?;
        let pool = self.0;
        if !height.is_multiple_of(pool) || !width.is_multiple_of(pool) {
            bail!("windows of {pool}x{pool} in maps of {height}x{width}");
        }
        let [rows, columns] = [channels * height / pool, width / pool];
        let made = of_either_type!(
            storage,
            layout,
            |maps| first_in_windows(maps, images, [rows, columns], pool),
            U32,
            U32
        );
        Ok((made, (images, rows * columns).into()))
    }
}

/// See [`FirstLargest`]. The loops over the windows that everybody has are unrolled.
fn first_in_windows<T: WithDType>(maps: &[T], images: usize, of_image: [usize; 2], pool: usize) -> Vec<u32> {
    match pool {
        2 => first_of(maps, images, of_image, 2),
        _ => first_of(maps, images, of_image, pool),
    }
}

/// See [`FirstLargest`], with `rows` × `columns` windows in an image.
#[expect(
    clippy::eq_op,
    clippy::neg_cmp_op_on_partial_ord,
    clippy::needless_range_loop,
    reason = "what is no number is not equal to itself, and places are wanted"
)]
#[inline(always)]
fn first_of<T: WithDType>(maps: &[T], images: usize, [rows, columns]: [usize; 2], pool: usize) -> Vec<u32> {
    let (width, per_image) = (columns * pool, rows * pool * columns * pool);
    let mut first = vec![0; images * rows * columns];
    for band in 0..images * rows {
        // The rows of values that the windows side by side cover.
        let values = &maps[band * pool * width..][..pool * width];
        let first = &mut first[band * columns..][..columns];
        for column in 0..columns {
            let (mut best, mut value) = (column * pool, values[column * pool]);
            for row in 0..pool {
                for at in row * width + column * pool..row * width + (column + 1) * pool {
                    // Nothing is larger than what is no number. Selected, not branched: nobody can guess which it is.
                    let larger = (value == value) & !(values[at] <= value);
                    best = if larger { at } else { best };
                    value = if larger { values[at] } else { value };
                }
            }
            first[column] = (band * pool * width % per_image + best) as u32;
        }
    }
    first
}
