//! Random streams: one seed fixes all random numbers of a run.
//!
//! Every purpose has a ChaCha8 stream of its own, and every stream is counter-based: what is drawn
//! for minibatch *m* or epoch *e* depends on (seed, purpose, *m* or *e*) and on nothing drawn
//! before. A resumed run therefore needs only its position to draw exactly what an undisturbed run
//! draws.

use rand::seq::SliceRandom;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The purpose of a random stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Initial weights and biases.
    Weights = 0,
    /// Sign masks of the feedback weights (Eq. 103).
    SignMask = 1,
    /// The order of the training images in an epoch.
    Shuffle = 2,
    /// The sign of β, one draw per minibatch.
    BetaSign = 3,
    /// The procedural data set.
    Glyphs = 4,
    /// The minibatches on which angles are measured.
    Angle = 5,
    /// The neurons and synapses that figures show.
    Figure = 6,
    /// The training images that are held out for validation.
    Validation = 7,
    /// The differences between the devices of an array.
    Devices = 8,
    /// Pulse trains, and the devices' responses.
    Pulses = 9,
    /// The numbers drawn by a rule of one's own.
    OwnRule = 10,
    /// Flips and shifts of training images, one stream per minibatch.
    Augment = 11,
    /// Noise of states and of reads, one stream per minibatch.
    Noise = 12,
}

/// The stream for `purpose`, item `index` (an epoch, a layer, an image …) under `seed`.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((purpose as u64) << 48) | index);
    rng
}

/// The numbers of `held` of `count` training images, and those of all others, each in order.
pub fn hold_out(seed: u64, count: usize, held: usize) -> (Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.shuffle(&mut stream(seed, Purpose::Validation, 0));
    let mut others = order.split_off(held);
    order.sort_unstable();
    others.sort_unstable();
    (order, others)
}

/// The order in which epoch `epoch` (from 0) visits `count` training images.
pub fn permutation(seed: u64, epoch: usize, count: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    order.shuffle(&mut stream(seed, Purpose::Shuffle, epoch as u64));
    order
}

/// The sign of β, ±1 with probability ½ each, at minibatch `minibatch` of the whole run (F.1).
pub fn beta_sign(seed: u64, minibatch: u64) -> f64 {
    let mut rng = stream(seed, Purpose::BetaSign, 0);
    rng.set_word_pos(u128::from(minibatch));
    if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 }
}

/// `count` draws from U(−bound, bound).
pub fn uniform(rng: &mut impl Rng, bound: f64, count: usize) -> Vec<f64> {
    (0..count).map(|_| bound * (2.0 * rng.random::<f64>() - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_seed_purpose_and_index_only() {
        let draw = |seed, purpose, index| stream(seed, purpose, index).next_u64();
        let first = draw(1, Purpose::Weights, 0);
        assert_eq!(first, draw(1, Purpose::Weights, 0));
        assert_ne!(first, draw(2, Purpose::Weights, 0));
        assert_ne!(first, draw(1, Purpose::SignMask, 0));
        assert_ne!(first, draw(1, Purpose::Weights, 1));
    }

    #[test]
    fn permutations_visit_every_image_once_and_differ_between_epochs() {
        let first = permutation(7, 0, 1000);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_ne!(first, permutation(7, 1, 1000));
    }

    #[test]
    fn beta_signs_are_balanced() {
        let positive = (0..10_000).filter(|&m| beta_sign(3, m) > 0.0).count();
        assert!((4_800..=5_200).contains(&positive), "{positive}");
    }
}
