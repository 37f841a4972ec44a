//! Training images, each a little different every time: mirrored, and shifted.

use super::error::{Result, refuse};
use super::{Batch, Split};
use rand::Rng;
use std::path::Path;

/// The augmentation of training images before they are learnt; test images are never changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Every second image, drawn, is mirrored from left to right.
    pub flips: bool,
    /// By how many pixels an image is shifted at most in each direction; what comes in is black. An image with a border
    /// of so many black pixels is cropped to its size, at a place that is drawn.
    pub crops: usize,
}

impl Augment {
    /// True where images stay as they are.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Checks that it can be done to these images.
    ///
    /// # Errors
    /// Where their height and width are not known, or they are no larger than they may be shifted.
    pub fn check(self, split: &Split) -> Result<()> {
        let origin = Path::new(&split.images_origin);
        match split.shape {
            _ if self.is_none() => {}
            None => refuse!(
                origin,
                "does not say how high and wide its images are, which training.flips and training.crops need: give them \
                 as an array (N, height, width) or (N, height, width, channels), or leave the keys out"
            ),
            Some([height, width, _]) if self.crops >= height.min(width) => refuse!(
                origin,
                "has images of {height} × {width} pixels, which training.crops = {} would shift out of themselves: choose \
                 less",
                self.crops
            ),
            Some(_) => {}
        }
        Ok(())
    }

    /// Does it to a minibatch of images of this height, width and number of channels, each with draws of its own.
    pub fn apply(self, batch: &mut Batch, [height, width, channels]: [usize; 3], rng: &mut impl Rng) {
        if self.is_none() {
            return;
        }
        let mut image = Vec::new();
        for pixels in batch.images.chunks_exact_mut(height * width * channels) {
            let mirrored = self.flips && rng.random::<bool>();
            let mut shift = || if self.crops == 0 { 0 } else { rng.random_range(0..=2 * self.crops) };
            let (down, right) = (shift(), shift());
            image.clear();
            image.extend_from_slice(pixels);
            for row in 0..height {
                for column in 0..width {
                    let from = if mirrored { width - 1 - column } else { column };
                    // Of the bordered image the pixel at (row + down, from + right).
                    let inside = |at: usize, shift: usize, size: usize| {
                        (at + shift).checked_sub(self.crops).filter(|at| *at < size)
                    };
                    let to = &mut pixels[(row * width + column) * channels..][..channels];
                    match (inside(row, down, height), inside(from, right, width)) {
                        (Some(row), Some(from)) => {
                            to.copy_from_slice(&image[(row * width + from) * channels..][..channels]);
                        }
                        _ => to.fill(0),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};

    /// The results of augmenting an image of 3 × 4 pixels with two channels, with values 1 to 24, in so many draws.
    fn draws(augment: Augment, count: usize) -> Vec<Vec<u8>> {
        let image: Vec<u8> = (1..=24).collect();
        let mut batch = Batch { images: image.repeat(count), labels: vec![0; count] };
        augment.apply(&mut batch, [3, 4, 2], &mut stream(1, Purpose::Augment, 0));
        batch.images.chunks(24).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn every_second_image_is_mirrored_and_its_channels_stay_together() {
        let all = draws(Augment { flips: true, crops: 0 }, 200);
        let mirrored =
            [7, 8, 5, 6, 3, 4, 1, 2, 15, 16, 13, 14, 11, 12, 9, 10, 23, 24, 21, 22, 19, 20, 17, 18];
        let straight: Vec<u8> = (1..=24).collect();
        assert!(all.iter().all(|image| *image == straight || image[..] == mirrored));
        let count = all.iter().filter(|image| image[..] == mirrored).count();
        assert!((70..=130).contains(&count), "{count} of 200");
    }

    #[test]
    fn a_crop_is_a_shift_in_which_every_place_comes_up_and_black_comes_in() {
        let all = draws(Augment { flips: false, crops: 1 }, 400);
        let shifted = |down: i32, right: i32| -> Vec<u8> {
            let at = |row: i32, column: i32, channel: i32| match (0..3).contains(&row)
                && (0..4).contains(&column)
            {
                true => ((row * 4 + column) * 2 + channel + 1) as u8,
                false => 0,
            };
            let places = (0..3).flat_map(|row| (0..4).map(move |column| (row, column)));
            places.flat_map(|(row, column)| [0, 1].map(|c| at(row + down, column + right, c))).collect()
        };
        let mut seen = 0;
        for (down, right) in (-1..=1).flat_map(|down| (-1..=1).map(move |right| (down, right))) {
            let count = all.iter().filter(|image| **image == shifted(down, right)).count();
            assert!(count > 15, "({down}, {right}): {count} of 400");
            seen += count;
        }
        assert_eq!(seen, 400);
    }
}
