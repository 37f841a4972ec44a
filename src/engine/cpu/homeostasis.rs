//! [`crate::learning::homeostasis`] on packed weights.

use super::packing::{Connection, PackedMatrix, Weights};
use super::sigma::Sigma;
use super::simd::{Real, Simd, WIDTH};
use super::state::Block;
use super::update::{accumulate, outer};

/// Takes one step of κ down the asymmetry of the Jacobian at the states that the blocks have settled in.
pub fn homeostasis<T: Real>(
    simd: Simd,
    sigma: Sigma,
    weights: &mut Weights<T>,
    blocks: &[Block<T>],
    strength: f64,
) {
    let slopes: Vec<Vec<Vec<T>>> = (blocks.iter().map(|block| &block.settled[2]))
        .map(|states| states.iter().map(|s| s.iter().map(|&s| sigma.slope(s)).collect()).collect())
        .collect();
    let images: usize = blocks.iter().map(|block| block.rows).sum();
    let step = T::from_f64(strength / images as f64);
    // κ⟨σ′²⟩ of each neuron.
    let squares: Vec<Vec<T>> = (0..weights.widths.len())
        .map(|n| {
            let stride = weights.stride(n);
            let mut sums = vec![T::default(); stride];
            for row in slopes.iter().flat_map(|layers| layers[n].chunks_exact(stride)) {
                sums.iter_mut().zip(row).for_each(|(sum, &slope)| *sum += step * slope * slope);
            }
            sums
        })
        .collect();
    for low in 0..weights.last() {
        let high = low + 1;
        // κ⟨σ′_i σ′_j⟩ of each pair of neurons.
        let mut products = PackedMatrix::zeros(weights.widths[high], weights.widths[low]);
        let terms = blocks.iter().zip(&slopes).map(|(block, slopes)| {
            outer(block.rows, &slopes[high], slopes[high].len() / block.rows, &slopes[low])
        });
        accumulate(simd, &mut products, None, &terms.collect::<Vec<_>>(), step);
        let mut pair =
            weights.between.iter_mut().filter(|c| [(high, low), (low, high)].contains(&(c.from, c.to)));
        if let (Some(there), Some(back)) = (pair.next(), pair.next()) {
            step_down(there, back, &products, &squares);
        }
    }
}

/// Changes both weights of each pair at once: w −= κ⟨σ′_i²⟩w − κ⟨σ′_iσ′_j⟩b, and b the other way round.
fn step_down<T: Real>(
    there: &mut Connection<T>,
    back: &mut Connection<T>,
    products: &PackedMatrix<T>,
    squares: &[Vec<T>],
) {
    let (low, high) = (&squares[there.to], &squares[there.from]);
    let (width_low, width_high) = (there.matrix.to, there.matrix.from);
    for first in (0..width_high).step_by(WIDTH) {
        for (i, &low) in low.iter().enumerate().take(width_low) {
            for (j, &high) in high.iter().enumerate().take(width_high.min(first + WIDTH)).skip(first) {
                let at = (i / WIDTH * width_high + j) * WIDTH + i % WIDTH;
                let across = (j / WIDTH * width_low + i) * WIDTH + j % WIDTH;
                let (w, b) = (there.matrix.panels[at], back.matrix.panels[across]);
                let product = products.panels[at];
                there.matrix.panels[at] = w - (low * w - product * b);
                back.matrix.panels[across] = b - (high * b - product * w);
            }
        }
    }
}
