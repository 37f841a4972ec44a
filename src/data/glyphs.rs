//! Glyphs: a procedural set of handwritten-like digits, for machines without access to MNIST.
//!
//! Every image is drawn from strokes that a hand could make: a skeleton for its class (one of
//! several), control points jittered, smoothed, slanted, turned, stretched, shifted and drawn with a
//! pen of some width and pressure. The set is always the same, whatever the seed of a run.

use super::{DataChoice, Dataset, Place, Result, Source, Split};
use crate::rng::{Purpose, stream};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const SIDE: usize = 28;
const SEED: u64 = 1998;
const TRAIN: usize = 60_000;
const TEST: usize = 10_000;

/// A stroke: control points (x, y) in a unit square, y downwards, joined smoothly.
type Stroke = &'static [(f32, f32)];

/// For each digit, the ways to write it.
#[rustfmt::skip]
const SKELETONS: [&[&[Stroke]]; 10] = [
    &[&[&[(0.5, 0.0), (0.15, 0.2), (0.08, 0.6), (0.3, 0.97), (0.65, 0.97), (0.92, 0.6), (0.85, 0.2), (0.5, 0.0)]],
      &[&[(0.6, 0.05), (0.25, 0.15), (0.12, 0.55), (0.4, 1.0), (0.8, 0.75), (0.85, 0.3), (0.55, 0.0), (0.4, 0.1)]]],
    &[&[&[(0.5, 0.0), (0.5, 0.5), (0.5, 1.0)]],
      &[&[(0.3, 0.22), (0.52, 0.0)], &[(0.52, 0.0), (0.5, 0.5), (0.5, 1.0)]],
      &[&[(0.3, 0.2), (0.52, 0.0)], &[(0.52, 0.0), (0.5, 1.0)], &[(0.25, 1.0), (0.75, 1.0)]]],
    &[&[&[(0.15, 0.25), (0.4, 0.0), (0.8, 0.12), (0.75, 0.45), (0.4, 0.75), (0.1, 1.0)], &[(0.1, 1.0), (0.5, 0.97), (0.95, 1.0)]],
      &[&[(0.1, 0.2), (0.5, 0.0), (0.85, 0.25), (0.6, 0.65), (0.2, 0.95), (0.12, 0.8), (0.35, 0.75), (0.6, 0.95), (0.95, 0.9)]]],
    &[&[&[(0.15, 0.12), (0.5, 0.0), (0.82, 0.18), (0.7, 0.42), (0.4, 0.48)], &[(0.4, 0.48), (0.8, 0.55), (0.9, 0.78), (0.55, 1.0), (0.1, 0.9)]],
      &[&[(0.12, 0.02), (0.85, 0.02)], &[(0.85, 0.02), (0.45, 0.4)], &[(0.45, 0.4), (0.85, 0.55), (0.85, 0.85), (0.5, 1.0), (0.1, 0.88)]]],
    &[&[&[(0.25, 0.0), (0.12, 0.55)], &[(0.12, 0.55), (0.5, 0.58), (0.95, 0.52)], &[(0.75, 0.05), (0.7, 0.5), (0.66, 1.0)]],
      &[&[(0.7, 0.0), (0.4, 0.3), (0.08, 0.65)], &[(0.08, 0.65), (0.95, 0.65)], &[(0.7, 0.0), (0.68, 1.0)]]],
    &[&[&[(0.85, 0.02), (0.25, 0.02)], &[(0.25, 0.02), (0.2, 0.42)], &[(0.2, 0.42), (0.6, 0.36), (0.88, 0.62), (0.7, 0.95), (0.3, 1.0), (0.1, 0.88)]],
      &[&[(0.8, 0.05), (0.35, 0.08), (0.25, 0.4), (0.6, 0.45), (0.8, 0.7), (0.55, 0.98), (0.12, 0.92)]]],
    &[&[&[(0.7, 0.0), (0.35, 0.25), (0.14, 0.65), (0.35, 0.98), (0.75, 0.92), (0.82, 0.65), (0.5, 0.52), (0.18, 0.7)]],
      &[&[(0.45, 0.0), (0.2, 0.4), (0.18, 0.8), (0.5, 1.0), (0.82, 0.8), (0.6, 0.55), (0.2, 0.75)]]],
    &[&[&[(0.1, 0.03), (0.88, 0.03)], &[(0.88, 0.03), (0.6, 0.45), (0.42, 1.0)]],
      &[&[(0.1, 0.1), (0.5, 0.02), (0.88, 0.05), (0.62, 0.5), (0.5, 1.0)]],
      &[&[(0.1, 0.03), (0.88, 0.03)], &[(0.88, 0.03), (0.45, 1.0)], &[(0.35, 0.5), (0.85, 0.5)]]],
    &[&[&[(0.75, 0.12), (0.4, 0.0), (0.18, 0.22), (0.5, 0.48), (0.85, 0.75), (0.5, 1.0), (0.15, 0.78), (0.5, 0.48), (0.8, 0.22), (0.7, 0.08)]],
      &[&[(0.5, 0.48), (0.2, 0.25), (0.5, 0.0), (0.8, 0.25), (0.5, 0.48)], &[(0.5, 0.48), (0.15, 0.75), (0.5, 1.0), (0.85, 0.75), (0.5, 0.48)]]],
    &[&[&[(0.82, 0.3), (0.5, 0.5), (0.2, 0.3), (0.45, 0.02), (0.8, 0.15), (0.8, 0.6), (0.65, 1.0)]],
      &[&[(0.8, 0.12), (0.4, 0.03), (0.2, 0.3), (0.5, 0.5), (0.82, 0.25)], &[(0.82, 0.1), (0.78, 0.6), (0.4, 1.0), (0.2, 0.9)]]],
];

/// The generator.
pub(super) struct Glyphs;

impl Source for Glyphs {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        place.is_none() && matches!(choice, DataChoice::Auto | DataChoice::Glyphs)
    }

    fn read(&self, _: DataChoice, _: Option<&Place>) -> Result<Dataset> {
        Ok(dataset())
    }
}

/// 60,000 training and 10,000 test glyphs.
pub fn dataset() -> Dataset {
    let split = |start: usize, count: usize, part: &str| {
        let mut images = vec![0; count * SIDE * SIDE];
        let labels = (images.par_chunks_mut(SIDE * SIDE).enumerate())
            .map(|(i, image)| draw(start + i, image))
            .collect();
        Split {
            images_origin: format!("glyphs ({part})"),
            origin: format!("glyphs ({part})"),
            pixels: SIDE * SIDE,
            shape: Some([SIDE, SIDE, 1]),
            images,
            labels,
        }
    };
    Dataset::new(
        DataChoice::GLYPHS.into(),
        "generated; NOT MNIST".into(),
        split(0, TRAIN, "training"),
        split(TRAIN, TEST, "test"),
    )
}

/// Draws glyph number `index` into a 28×28 `image` of zeros and returns its class.
fn draw(index: usize, image: &mut [u8]) -> u8 {
    let rng = &mut stream(SEED, Purpose::Glyphs, index as u64);
    let class = rng.random_range(0..10);
    let ways = SKELETONS[class];
    let strokes = ways[rng.random_range(0..ways.len())];

    let angle = spread(rng, 0.26);
    let slant = spread(rng, 0.34) - 0.1;
    let (width, height) = (14.0 * (1.0 + spread(rng, 0.3)), 19.0 * (1.0 + spread(rng, 0.16)));
    let center = (14.0 + spread(rng, 2.4), 14.0 + spread(rng, 2.4));
    let (bend_x, bend_y) = (spread(rng, 0.22), spread(rng, 0.22));
    let pen = 0.75 + 0.95 * rng.random::<f32>();
    let pressure = 0.7 + 0.5 * rng.random::<f32>();

    let place = |(x, y): (f32, f32)| {
        let (x, y) = (x - 0.5, y - 0.5);
        let (x, y) = (x + bend_x * y * y * 2.0, y + bend_y * x * x * 2.0);
        let (x, y) = ((x - slant * y) * width, y * height);
        let (sin, cos) = angle.sin_cos();
        (center.0 + cos * x - sin * y, center.1 + sin * x + cos * y)
    };
    let mut ink = [0f32; SIDE * SIDE];
    for stroke in strokes {
        let points: Vec<(f32, f32)> =
            (stroke.iter()).map(|&(x, y)| place((x + spread(rng, 0.13), y + spread(rng, 0.11)))).collect();
        let curve = smooth(&points);
        for pair in curve.windows(2) {
            ink_segment(&mut ink, pair[0], pair[1], pen);
        }
    }
    for (pixel, ink) in image.iter_mut().zip(ink) {
        *pixel = (255.0 * (ink * pressure).min(1.0)) as u8;
    }
    class as u8
}

/// A draw around 0, of standard deviation about `scale`/2 and never beyond ±1.5·`scale`.
fn spread(rng: &mut ChaCha8Rng, scale: f32) -> f32 {
    let sum: f32 = (0..3).map(|_| rng.random::<f32>() - 0.5).sum();
    scale * sum
}

/// A Catmull–Rom curve through the points, in short straight pieces.
fn smooth(points: &[(f32, f32)]) -> Vec<(f32, f32)> {
    const PIECES: usize = 6;
    let at = |i: isize| points[i.clamp(0, points.len() as isize - 1) as usize];
    let mut curve = vec![points[0]];
    for i in 0..points.len() as isize - 1 {
        let (p0, p1, p2, p3) = (at(i - 1), at(i), at(i + 1), at(i + 2));
        for piece in 1..=PIECES {
            let t = piece as f32 / PIECES as f32;
            let blend = |a: f32, b: f32, c: f32, d: f32| {
                b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
            };
            curve.push((blend(p0.0, p1.0, p2.0, p3.0), blend(p0.1, p1.1, p2.1, p3.1)));
        }
    }
    curve
}

/// Darkens the pixels near a straight piece, with a soft edge one pixel wide.
fn ink_segment(ink: &mut [f32; SIDE * SIDE], from: (f32, f32), to: (f32, f32), pen: f32) {
    let reach = pen + 1.0;
    let range = |a: f32, b: f32| {
        let low = (a.min(b) - reach).max(0.0) as usize;
        let high = (a.max(b) + reach).clamp(-1.0, SIDE as f32 - 1.0);
        low..(high + 1.0) as usize
    };
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = (dx * dx + dy * dy).max(1e-9);
    for row in range(from.1, to.1) {
        for column in range(from.0, to.0) {
            let (x, y) = (column as f32 - from.0, row as f32 - from.1);
            let t = ((x * dx + y * dy) / length).clamp(0.0, 1.0);
            let distance = (x - t * dx).hypot(y - t * dy);
            let value = (pen + 0.5 - distance).clamp(0.0, 1.0);
            let pixel = &mut ink[row * SIDE + column];
            *pixel = pixel.max(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyphs_are_always_the_same_and_of_every_class() {
        let draw = |index| {
            let mut image = vec![0; SIDE * SIDE];
            (draw(index, &mut image), image)
        };
        let mut counts = [0; 10];
        for index in 0..2000 {
            let (class, image) = draw(index);
            counts[usize::from(class)] += 1;
            let inked = image.iter().filter(|&&p| p > 128).count();
            assert!((20..400).contains(&inked), "glyph {index} has {inked} dark pixels");
        }
        assert!(counts.iter().all(|&n| n > 140), "{counts:?}");
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7).1, draw(8).1);
    }
}
