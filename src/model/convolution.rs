//! A convolution with max pooling: what leads from the maps of one layer to those of the next, P(w ⋆ s).
//!
//! After Ernoult et al. (2019), where Φ = Σ sⁿ·P(w ⋆ sⁿ⁺¹) + …: from above a layer receives ∂Φ/∂sⁿ = P(w ⋆ sⁿ⁺¹), and
//! from below ∂Φ/∂sⁿ⁺¹ = w̃ ⋆ P⁻¹(sⁿ). P takes the largest value of each window, and P⁻¹ puts a value back where that
//! was: both are linear once the [largest](Convolution::largest) are known. w̃ ⋆ is the transposed convolution.
//!
//! States stay flat, (B, d_n), map after map and row after row. Windows do not overlap, and convolutions go in steps
//! of 1. On a CPU the products are made of [patches](super::patches), elsewhere by candle.

use super::patches::{assembled, first_largest, patches, put_back};
use candle_core::{D, DType, Result, Tensor, bail};
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

    /// P(w ⋆ s) of flat states (B, d): flat states (B, d'), and where the windows have their largest values.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub(super) fn deliver(&self, w: &Tensor, s: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let (pooled, places): (Vec<_>, Vec<_>) = in_groups(s, |group| {
            let convolved = self.convolve(w, &group.of(s)?)?;
            let places = self.largest(&convolved)?;
            Ok((self.pool(&convolved, places.as_ref())?, places))
        })?
        .into_iter()
        .unzip();
        Ok((Tensor::cat(&pooled, 0)?, joined_if_any(places)?))
    }

    /// P(w ⋆ s) of flat states (B, d) with these [largest](Convolution::largest): flat states (B, d').
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub(super) fn through(&self, w: &Tensor, s: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let pooled = in_groups(s, |group| {
            self.pool(&self.convolve(w, &group.of(s)?)?, group.of_those(largest)?.as_ref())
        })?;
        Tensor::cat(&pooled, 0)
    }

    /// The [largest](Convolution::largest) of w ⋆ s, of flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub(super) fn find_largest(&self, w: &Tensor, s: &Tensor) -> Result<Option<Tensor>> {
        joined_if_any(in_groups(s, |group| self.largest(&self.convolve(w, &group.of(s)?)?))?)
    }

    /// w̃ ⋆ P⁻¹(s) of flat states (B, d'), the transpose of [`Convolution::through`]: flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub(super) fn back_through(&self, w: &Tensor, s: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let read = in_groups(s, |group| {
            self.convolve_back(w, &self.unpool(&group.of(s)?, group.of_those(largest)?.as_ref())?)
        })?;
        Tensor::cat(&read, 0)
    }

    /// ∂(rows·P(w ⋆ s))/∂w summed over the images, (C', C, k, k), of flat `rows` (B, d') and flat states s (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub(super) fn outer(&self, rows: &Tensor, s: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let groups = in_groups(s, |group| {
            let maps = self.unpool(&group.of(rows)?, group.of_those(largest)?.as_ref())?;
            self.correlate(&maps, &group.of(s)?)
        })?;
        match &groups[..] {
            [one] => Ok(one.clone()),
            _ => Tensor::stack(&groups, 0)?.sum(0),
        }
    }

    /// w ⋆ s, (B, C', H', W'), of flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    fn convolve(&self, w: &Tensor, s: &Tensor) -> Result<Tensor> {
        let maps = self.read(s)?;
        if !maps.device().is_cpu() {
            return maps.conv2d(w, self.padding, 1, 1, 1);
        }
        let images = maps.dim(0)?;
        let convolved = of_each(&self.filters(w)?, images)?.matmul(&patches(*self, &maps)?)?;
        let [height, width] = self.convolved_sides()?;
        convolved.reshape((images, self.channels, height, width))
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

    /// The places of the largest values of the windows of maps (B, C', H', W') among the C'·H'·W' values of an image:
    /// (B, d') in u32. Of equals it is the first, row after row, and a value that is no number is taken for the
    /// largest. `None` where there are no windows. No gradient flows through it.
    ///
    /// # Errors
    /// Only those of candle.
    pub fn largest(&self, convolved: &Tensor) -> Result<Option<Tensor>> {
        if self.pool == 1 {
            return Ok(None);
        }
        let convolved = convolved.detach();
        match convolved.device().is_cpu() {
            true => first_largest(self.pool, &convolved).map(Some),
            false => self.first_of_equals(&convolved).map(Some),
        }
    }

    /// Finds the largest values by operations of candle.
    fn first_of_equals(&self, convolved: &Tensor) -> Result<Tensor> {
        let (images, channels, height, width) = convolved.dims4()?;
        let (side, device) = (self.pool, convolved.device());
        let (rows, columns) = (height / side, width / side);
        let maps = images * channels;
        // The values of a window side by side.
        let beside = |maps_in_rows: &Tensor| {
            let windows = maps_in_rows.reshape((maps, rows, side, columns, side))?.transpose(2, 3)?;
            windows.contiguous()?.reshape((maps * rows * columns, side * side))
        };
        let values = beside(convolved)?;
        let is_largest = values.broadcast_eq(&values.max_keepdim(D::Minus1)?)?.to_dtype(DType::F32)?;
        let no_number = (values.ne(&values)?.to_dtype(DType::F32)? * (side * side + 1) as f64)?;
        // Numbers that fall along the window: the first of equals has the largest.
        let order: Vec<f32> = (0..side * side).rev().map(|rank| 1.0 + rank as f32).collect();
        let order = Tensor::from_vec(order, (1, side * side), device)?;
        let rank = (is_largest + no_number)?.broadcast_mul(&order)?.argmax_keepdim(D::Minus1)?;
        let in_image = Tensor::arange(0, (channels * height * width) as u32, device)?;
        let in_image = in_image.reshape((1, channels, height, width))?;
        let in_image = beside(&in_image.broadcast_as((images, channels, height, width))?.contiguous()?)?;
        in_image.gather(&rank, 1)?.reshape((images, ()))
    }

    /// P of maps (B, C', H', W') with these [largest](Convolution::largest): flat states (B, d').
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn pool(&self, convolved: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let flat = convolved.flatten_from(1)?;
        match largest {
            None => Ok(flat),
            Some(largest) if largest.dim(0)? != flat.dim(0)? => {
                bail!("{} images, and the largest values of {}", flat.dim(0)?, largest.dim(0)?)
            }
            Some(largest) => flat.gather(largest, 1),
        }
    }

    /// P⁻¹ of flat states (B, d'): maps (B, C', H', W') that are 0 but where the [largest](Convolution::largest) are.
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    pub fn unpool(&self, s: &Tensor, largest: Option<&Tensor>) -> Result<Tensor> {
        let [height, width] = self.convolved_sides()?;
        let flat = match largest {
            None => s.clone(),
            Some(largest) if s.dims() != largest.dims() => {
                bail!("states {:?} for windows {:?}", s.dims(), largest.dims())
            }
            Some(largest) if s.device().is_cpu() => put_back(s, largest, self.channels * height * width)?,
            Some(largest) => self.put_back_if_largest(s, largest)?,
        };
        flat.reshape((s.dim(0)?, self.channels, height, width))
    }

    /// The flat maps of [`Convolution::unpool`] by operations of candle.
    fn put_back_if_largest(&self, s: &Tensor, largest: &Tensor) -> Result<Tensor> {
        let ([height, width], side, images) = (self.convolved_sides()?, self.pool, s.dim(0)?);
        let (rows, columns) = (height / side, width / side);
        let numbers = |count: usize| Tensor::arange(0, count as u32, s.device());
        // The window in which each place lies.
        let window =
            numbers(self.channels * rows * columns)?.reshape((self.channels, rows, 1, columns, 1))?;
        let window = window.broadcast_as((self.channels, rows, side, columns, side))?.flatten_all()?;
        let window = window.broadcast_as((images, self.channels * height * width))?.contiguous()?;
        let is_largest =
            largest.gather(&window, 1)?.broadcast_eq(&numbers(self.channels * height * width)?)?;
        let of_windows = s.contiguous()?.gather(&window, 1)?;
        is_largest.where_cond(&of_windows, &of_windows.zeros_like()?)
    }

    /// w̃ ⋆ maps, the transpose of [`Convolution::convolve`]: maps (B, C', H', W') to flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    fn convolve_back(&self, w: &Tensor, maps: &Tensor) -> Result<Tensor> {
        let images = maps.dim(0)?;
        let read = match maps.device().is_cpu() {
            true => {
                let filters = of_each(&self.filters(w)?.t()?, images)?;
                assembled(*self, &filters.matmul(&maps.flatten_from(2)?)?)?
            }
            false => maps.conv_transpose2d(w, self.padding, 0, 1, 1)?,
        };
        let read = match self.reads_images && self.source.channels > 1 {
            true => read.permute((0, 2, 3, 1))?.contiguous()?,
            false => read,
        };
        read.reshape((images, ()))
    }

    /// ∂(maps·(w ⋆ s))/∂w summed over the images, (C', C, k, k), of maps (B, C', H', W') and flat states (B, d).
    ///
    /// # Errors
    /// Only those of candle (shapes that differ).
    fn correlate(&self, maps: &Tensor, s: &Tensor) -> Result<Tensor> {
        let read = self.read(s)?;
        if read.device().is_cpu() {
            let patches = patches(*self, &read)?.transpose(1, 2)?;
            return maps.flatten_from(2)?.matmul(&patches)?.sum(0)?.reshape(&self.shape()[..]);
        }
        let read = read.transpose(0, 1)?.contiguous()?;
        read.conv2d(&maps.transpose(0, 1)?.contiguous()?, self.padding, 1, 1, 1)?
            .transpose(0, 1)?
            .contiguous()
    }
}

/// A matrix as that of each of the images, (B, …).
fn of_each(matrix: &Tensor, images: usize) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    matrix.broadcast_as((images, rows, columns))
}

/// The number of images that a thread takes at once, so that their patches stay in its cache.
const TOGETHER: usize = 5;

/// Some of the images.
struct Group {
    begin: usize,
    count: usize,
}

impl Group {
    /// Its part of (B, …).
    fn of(&self, images: &Tensor) -> Result<Tensor> {
        images.narrow(0, self.begin, self.count)
    }

    fn of_those(&self, images: Option<&Tensor>) -> Result<Option<Tensor>> {
        images.map(|images| self.of(images)).transpose()
    }
}

/// Calls `work` for groups of the images (B, …), which the threads of a CPU share. The groups, and with them the bits,
/// are the same for any number of threads.
fn in_groups<T: Send>(images: &Tensor, work: impl Fn(Group) -> Result<T> + Sync) -> Result<Vec<T>> {
    let count = images.dim(0)?;
    if count <= TOGETHER || !images.device().is_cpu() {
        return Ok(vec![work(Group { begin: 0, count })?]);
    }
    let group = |g: usize| work(Group { begin: g * TOGETHER, count: TOGETHER.min(count - g * TOGETHER) });
    (0..count.div_ceil(TOGETHER)).into_par_iter().map(group).collect()
}

/// All images of what was found for each group, if anything was.
fn joined_if_any(groups: Vec<Option<Tensor>>) -> Result<Option<Tensor>> {
    let found = groups.into_iter().collect::<Option<Vec<_>>>();
    found.map(|groups| Tensor::cat(&groups, 0)).transpose()
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
        let shapes = [(1, 0, 1), (3, 0, 1), (2, 1, 2), (3, 2, 1), (5, 4, 1), (2, 0, 2), (2, 1, 3)];
        for (kernel, padding, pool) in shapes {
            let source = Maps { channels: 3, height: if pool == 3 { 8 } else { 7 }, width: 5 };
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
            // Whole numbers, many of them equal, and some that are none.
            let whole = (&maps * 2.0)?.round()?;
            let whole = whole.ge(1.5)?.where_cond(&(&whole * f64::NAN)?, &whole)?;
            if let Some(largest) = convolution.largest(&whole)? {
                let on_a_gpu = convolution.first_of_equals(&whole)?;
                assert_eq!(largest.to_vec2::<u32>()?, on_a_gpu.to_vec2::<u32>()?, "{convolution:?}");
                let s = some(largest.dims(), 0.3)?;
                let back = convolution.unpool(&s, Some(&largest))?;
                near(&back.flatten_from(1)?, &convolution.put_back_if_largest(&s, &largest)?)?;
            }
            // In groups as all at once.
            let (delivered, largest) = convolution.deliver(&w, &s)?;
            let (convolved, largest) = (convolution.convolve(&w, &s)?, largest.as_ref());
            let places = |places: Option<&Tensor>| places.map(|places| places.to_vec2::<u32>()).transpose();
            assert_eq!(places(largest)?, places(convolution.largest(&convolved)?.as_ref())?);
            assert_eq!(places(largest)?, places(convolution.find_largest(&w, &s)?.as_ref())?);
            near(&delivered, &convolution.pool(&convolved, largest)?)?;
            near(&convolution.through(&w, &s, largest)?, &delivered)?;
            let rows = some(delivered.dims(), 0.7)?;
            let unpooled = convolution.unpool(&rows, largest)?;
            near(&convolution.back_through(&w, &rows, largest)?, &convolution.convolve_back(&w, &unpooled)?)?;
            near(&convolution.outer(&rows, &s, largest)?, &convolution.correlate(&unpooled, &s)?)?;
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
