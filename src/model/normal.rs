//! Normalised input: from each channel of an image its mean is taken off, and what is left is divided by its standard
//! deviation.

use candle_core::{D, Result, Tensor};

/// The most channels.
pub const MOST_CHANNELS: usize = 4;

/// x ↦ (x − m_c)/d_c, where pixel i of an image is of channel c = i mod the number of channels: all channels of a
/// pixel lie together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normal {
    channels: usize,
    /// m_c and d_c.
    of: [(f64, f64); MOST_CHANNELS],
}

impl Normal {
    /// With these means and standard deviations, one of each a channel, from 1 to [`MOST_CHANNELS`]; `None` where
    /// there are none, or not as many of both.
    pub fn new(mean: &[f64], std: &[f64]) -> Option<Self> {
        let channels = mean.len();
        if channels != std.len() || !(1..=MOST_CHANNELS).contains(&channels) {
            return None;
        }
        let mut of = [(0.0, 1.0); MOST_CHANNELS];
        of.iter_mut().zip(mean.iter().zip(std)).for_each(|(of, (mean, std))| *of = (*mean, *std));
        Some(Self { channels, of })
    }

    /// x normalised, (…, d_in).
    ///
    /// # Errors
    /// Only those of candle.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let pixels = x.dim(D::Minus1)?;
        let row = |of: &dyn Fn((f64, f64)) -> f64| {
            let row: Vec<f64> = (0..pixels).map(|i| of(self.of[i % self.channels])).collect();
            Tensor::from_vec(row, pixels, x.device())?.to_dtype(x.dtype())
        };
        let (means, scales) = (row(&|(mean, _)| mean)?, row(&|(_, std)| 1.0 / std)?);
        x.broadcast_sub(&means)?.broadcast_mul(&scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn each_channel_has_its_own_mean_and_deviation() -> Result<()> {
        let Some(normal) = Normal::new(&[0.5, 0.25], &[0.5, 2.0]) else {
            candle_core::bail!("as many of both")
        };
        let x = Tensor::new(&[[1.0, 0.25, 0.5, 4.25], [0.0, 2.25, 0.75, 0.25]], &Device::Cpu)?;
        let expected = [[1.0, 0.0, 0.0, 2.0], [-1.0, 1.0, 0.5, 0.0]];
        assert_eq!(normal.apply(&x)?.to_vec2::<f64>()?, expected);
        assert!(Normal::new(&[0.5], &[0.5, 1.0]).is_none() && Normal::new(&[], &[]).is_none());
        Ok(())
    }
}
