//! A convolution with max pooling: what leads from the maps of one layer to those of the next, P(w ⋆ s).
//!
//! After Ernoult et al. (2019), where Φ = Σ sⁿ·P(w ⋆ sⁿ⁺¹) + …: from above a layer receives ∂Φ/∂sⁿ = P(w ⋆ sⁿ⁺¹), and
//! from below ∂Φ/∂sⁿ⁺¹ = w̃ ⋆ P⁻¹(sⁿ). P takes the largest value of each window, and P⁻¹ puts a value back where that
//! was: both are linear once the [largest](Convolution::largest) are known. w̃ ⋆ is the transposed convolution.
//!
//! States stay flat, (B, d_n), map after map and row after row. Windows do not overlap, and convolutions go in steps
//! of 1. On a CPU the products are made of [patches](super::patches), elsewhere by candle.

use super::patches::{assembled, first_largest, patches};
use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

/// The shape of a convolution and its pooling. Weights are (C', C, k, k), as PyTorch's `Conv2d` has them; those of
/// the way back have the same shape, as `ConvTranspose2d` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// The maps that it reads.
    pub source: Maps,
    /// True where it reads images, whose values come row after row and pixel after pixel, instead of maps.
    pub reads_images: bool,
    /// C', the number of its maps.
    pub channels: usize,
    /// k, the side of its filters.
    pub kernel: usize,
    /// The number of zeros around each map.
    pub padding: usize,
    /// The side of the windows of which the largest value is taken; 1 takes all.
    pub pool: usize,
}

/// The size of a layer of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// The number of maps.
    pub channels: usize,
    /// Rows of a map.
    pub height: usize,
    /// Columns of a map.
    pub width: usize,
}

impl Maps {
    /// The number of neurons.
    pub fn neurons(&self) -> usize {
        self.channels * self.positions()
    }

    /// The number of neurons in a map.
    pub fn positions(&self) -> usize {
        self.height * self.width
    }

    /// Flat states (B, d) as maps (B, C, H, W).
    fn of(&self, s: &Tensor) -> Result<Tensor> {
        s.reshape((s.dim(0)?, self.channels, self.height, self.width))
    }
}

impl Convolution {
    /// The maps before pooling; `None` where the filters are larger than what they read.
    pub fn convolved(&self) -> Option<Maps> {
        let side =
            |side: usize| (side + 2 * self.padding + 1).checked_sub(self.kernel).filter(|&side| side > 0);
        let (height, width) = (side(self.source.height)?, side(self.source.width)?);
        Some(Maps { channels: self.channels, height, width })
    }

    /// The maps that it makes; `None` where the filters do not fit, or the windows do not divide the maps.
    pub fn made(&self) -> Option<Maps> {
        let Maps { channels, height, width } = self.convolved()?;
        let whole = self.pool > 0 && height.is_multiple_of(self.pool) && width.is_multiple_of(self.pool);
        whole.then(|| Maps { channels, height: height / self.pool, width: width / self.pool })
    }

    /// The shape of its weights, (C', C, k, k).
    pub fn shape(&self) -> [usize; 4] {
        [self.channels, self.source.channels, self.kernel, self.kernel]
    }

    /// The number of multiply-adds per image.
    pub fn multiply_adds(&self) -> usize {
        self.convolved().map_or(0, |maps| maps.positions()) * self.shape().iter().product::<usize>()
    }

    /// Flat states as the maps that it reads, (B, C, H, W).
    fn read(&self, s: &Tensor) -> Result<Tensor> {
        let Maps { channels, height, width } = self.source;
        match self.reads_images && channels > 1 {
            true => s.reshape((s.dim(0)?, height, width, channels))?.permute((0, 3, 1, 2))?.contiguous(),
            false => self.source.of(s),
        }
    }

    /// w ⋆ s, (B, C', H', W'), of flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn convolve(&self, w: &Tensor, s: &Tensor) -> Result<Tensor> {
        let maps = self.read(s)?;
        if !maps.device().is_cpu() {
            return maps.conv2d(w, self.padding, 1, 1, 1);
        }
        let [height, width] = self.convolved_sides()?;
        in_groups(&maps, |maps| {
            let convolved = self.filters(w)?.matmul(&patches(*self, maps)?)?;
            convolved.reshape((self.channels, maps.dim(0)?, height, width))?.transpose(0, 1)?.contiguous()
        })
    }

    /// The weights as a matrix, (C', C·k²).
    fn filters(&self, w: &Tensor) -> Result<Tensor> {
        w.reshape((self.channels, ()))
    }

    /// H' and W'.
    fn convolved_sides(&self) -> Result<[usize; 2]> {
        match self.convolved() {
            Some(Maps { height, width, .. }) => Ok([height, width]),
            None => bail!("{self:?}: the filters are larger than what they read"),
        }
    }

    /// 1 where `convolved` is the largest of its window, and 0 elsewhere, in the shape of [`Convolution::windows`].
    /// Of equals it is the first, row after row. `None` where there are no windows. No gradient flows through it.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn largest(&self, convolved: &Tensor) -> Result<Option<Tensor>> {
        if self.pool == 1 {
            return Ok(None);
        }
        let convolved = convolved.detach();
        match convolved.device().is_cpu() {
            true => self.windows(&first_largest(self.pool, &convolved)?).map(Some),
            false => self.first_of_equals(&convolved).map(Some),
        }
    }

    /// Finds the largest values by operations of candle.
    fn first_of_equals(&self, convolved: &Tensor) -> Result<Tensor> {
        let windows = self.windows(convolved)?;
        let max = |tensor: &Tensor| tensor.max_keepdim(4)?.max_keepdim(2);
        let is_largest = windows.broadcast_eq(&max(&windows)?)?.to_dtype(DType::F32)?;
        // Numbers that fall along the window: the first of equals has the largest.
        let side = self.pool;
        let order: Vec<f32> = (0..side * side).rev().map(|rank| 1.0 + rank as f32).collect();
        let order = Tensor::from_vec(order, (1, 1, side, 1, side), windows.device())?;
        let marked = is_largest.broadcast_mul(&order)?;
        // Where a window holds no number, nothing is its largest.
        let first = (marked.broadcast_eq(&max(&marked)?)?.to_dtype(DType::F32)? * is_largest)?;
        first.to_dtype(convolved.dtype())
    }

    /// (B, C', H', W') as (B·C', H'/p, p, W'/p, p).
    fn windows(&self, convolved: &Tensor) -> Result<Tensor> {
        let (images, channels, height, width) = convolved.dims4()?;
        let side = self.pool;
        convolved.reshape((images * channels, height / side, side, width / side, side))
    }

    /// P of maps (B, C', H', W') with these [largest](Convolution::largest): flat states (B, d').
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn pool(&self, convolved: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let images = convolved.dim(0)?;
        match largest {
            None => convolved.reshape((images, ())),
            Some(largest) => (self.windows(convolved)? * largest)?.sum(4)?.sum(2)?.reshape((images, ())),
        }
    }

    /// P⁻¹ of flat states (B, d'): maps (B, C', H', W') that are 0 but where the [largest](Convolution::largest) are.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn unpool(&self, s: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let images = s.dim(0)?;
        let Some(largest) = largest else {
            let [height, width] = self.convolved_sides()?;
            return s.reshape((images, self.channels, height, width));
        };
        let (maps, rows, _, columns, _) = largest.dims5()?;
        let back = largest.broadcast_mul(&s.reshape((maps, rows, 1, columns, 1))?)?;
        back.reshape((images, self.channels, rows * self.pool, columns * self.pool))
    }

    /// w̃ ⋆ maps, the transpose of [`Convolution::convolve`]: maps (B, C', H', W') to flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn convolve_back(&self, w: &Tensor, maps: &Tensor) -> Result<Tensor> {
        let images = maps.dim(0)?;
        let read = match maps.device().is_cpu() {
            true => in_groups(maps, |maps| {
                assembled(*self, &self.filters(w)?.t()?.matmul(&self.of_places(maps)?)?)
            })?,
            false => maps.conv_transpose2d(w, self.padding, 0, 1, 1)?,
        };
        let read = match self.reads_images && self.source.channels > 1 {
            true => read.permute((0, 2, 3, 1))?.contiguous()?,
            false => read,
        };
        read.reshape((images, ()))
    }

    /// Maps (B, C', H', W') as a matrix, (C', B·H'·W').
    fn of_places(&self, maps: &Tensor) -> Result<Tensor> {
        maps.transpose(0, 1)?.reshape((self.channels, ()))
    }

    /// ∂(maps·(w ⋆ s))/∂w summed over the images, (C', C, k, k), of maps (B, C', H', W') and flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn correlate(&self, maps: &Tensor, s: &Tensor) -> Result<Tensor> {
        let read = self.read(s)?;
        if read.device().is_cpu() {
            let patches = patches(*self, &read)?;
            return self.of_places(maps)?.matmul(&patches.t()?)?.reshape(&self.shape()[..]);
        }
        let read = read.transpose(0, 1)?.contiguous()?;
        read.conv2d(&maps.transpose(0, 1)?.contiguous()?, self.padding, 1, 1, 1)?
            .transpose(0, 1)?
            .contiguous()
    }
}

/// The number of images whose patches are made at once, so that they stay in the cache.
const TOGETHER: usize = 5;

/// Applies `work` to groups of images, (B, …), which the threads share. The groups, and with them the bits, are the
/// same for any number of threads.
fn in_groups(images: &Tensor, work: impl Fn(&Tensor) -> Result<Tensor> + Sync) -> Result<Tensor> {
    let count = images.dim(0)?;
    if count <= TOGETHER {
        return work(images);
    }
    let group = |g: usize| work(&images.narrow(0, g * TOGETHER, TOGETHER.min(count - g * TOGETHER))?);
    let groups = (0..count.div_ceil(TOGETHER)).into_par_iter().map(group);
    Tensor::cat(&groups.collect::<Result<Vec<_>>>()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn some(shape: &[usize], salt: f64) -> Result<Tensor> {
        let count: usize = shape.iter().product();
        Tensor::from_vec(
            (0..count).map(|i| (salt + 1.7 * i as f64).sin()).collect::<Vec<_>>(),
            shape,
            &Device::Cpu,
        )
    }

    /// The form of a GPU, too.
    #[test]
    fn products_of_patches_are_candles_convolutions() -> Result<()> {
        for (kernel, padding, pool) in [(1, 0, 1), (3, 0, 1), (2, 1, 2), (3, 2, 1), (5, 4, 1), (2, 0, 2)] {
            let source = Maps { channels: 3, height: 7, width: 5 };
            let convolution = Convolution { source, reads_images: false, channels: 4, kernel, padding, pool };
            let made = convolution.convolved().unwrap();
            let images = TOGETHER + 3;
            let (s, w) = (some(&[images, source.neurons()], 0.1)?, some(&convolution.shape(), 0.5)?);
            let maps = some(&[images, 4, made.height, made.width], 0.9)?;
            let near = |found: &Tensor, expected: &Tensor| -> Result<()> {
                assert_eq!(found.dims(), expected.dims());
                let off = (found - expected)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(off < 1e-12, "{convolution:?}: {off:.1e}");
                Ok(())
            };
            let read = source.of(&s)?;
            near(&convolution.convolve(&w, &s)?, &read.conv2d(&w, padding, 1, 1, 1)?)?;
            let back = maps.conv_transpose2d(&w, padding, 0, 1, 1)?.flatten_from(1)?;
            near(&convolution.convolve_back(&w, &maps)?, &back)?;
            let turned = |tensor: &Tensor| tensor.transpose(0, 1)?.contiguous();
            let correlated = turned(&turned(&read)?.conv2d(&turned(&maps)?, padding, 1, 1, 1)?)?;
            near(&convolution.correlate(&maps, &s)?, &correlated)?;
            if let Some(largest) = convolution.largest(&maps.round()?)? {
                near(&largest, &convolution.first_of_equals(&maps.round()?)?)?;
            }
        }
        Ok(())
    }

    #[test]
    fn images_are_read_pixel_after_pixel() -> Result<()> {
        let source = Maps { channels: 3, height: 2, width: 2 };
        let convolution =
            Convolution { source, reads_images: true, channels: 1, kernel: 2, padding: 0, pool: 1 };
        // Red, green and blue of four pixels; the filter takes the green of the second alone.
        let s = Tensor::from_vec((0..12).map(f64::from).collect::<Vec<_>>(), (1, 12), &Device::Cpu)?;
        let mut w = vec![0.0; 12];
        w[4 + 1] = 1.0;
        let w = Tensor::from_vec(w, (1, 3, 2, 2), &Device::Cpu)?;
        assert_eq!(convolution.convolve(&w, &s)?.flatten_all()?.to_vec1::<f64>()?, [4.0]);
        let one = Tensor::ones((1, 1, 1, 1), DType::F64, &Device::Cpu)?;
        let back = convolution.convolve_back(&w, &one)?.flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(back.iter().position(|value| *value == 1.0), Some(4));
        Ok(())
    }
}
