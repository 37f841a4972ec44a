//! Weights that stay fixed during the second phase, and (B, B) matrices of inner products in place of what they would
//! have learnt.

use super::packing::{Connection, PackedMatrix, Weights};
use super::simd::{Lanes, Real, Simd, Vectorized, WIDTH, each};
use super::state::Block;
use crate::learning::Schedule;

/// A (B, B) matrix of inner products in place of changes of weights: products·factor is added to the input of layer
/// `to`.
pub struct Gram<T> {
    /// The layer.
    pub to: usize,
    /// (B, B), row-major.
    pub products: Vec<T>,
    /// The factor of the products.
    pub factor: Factor,
}

/// States of all images.
pub enum Factor {
    /// [`Block::drift`] of layer N.
    Drift,
    /// s_t of the destination layer.
    Now,
    /// s_0 = s_* of the destination layer.
    First,
}

impl Factor {
    /// These states of a block, in layer `n`.
    pub fn of<'a, T>(&self, block: &'a Block<T>, n: usize) -> &'a [T] {
        match self {
            Factor::Drift => &block.drift[n],
            Factor::Now => &block.s[n],
            Factor::First => &block.settled[2][n],
        }
    }
}

/// True where the updates of a matrix are left to [`change_grams`] until the phase is over: under C-EP and Algorithm
/// 5, where that is less work.
pub fn telescopes<T>(correlation: bool, schedule: Schedule, matrix: &PackedMatrix<T>, images: usize) -> bool {
    let (from, to) = (matrix.from, matrix.to);
    let at_every_step = matches!(schedule, Schedule::Continual | Schedule::Rescaled);
    correlation && at_every_step && from * to > images * (from + to)
}

/// The changes of the input weights as a contribution to the drive: c·(x·xᵀ + 1)·[drift of layer N](Block::drift);
/// `one` is 0 where the bias does not learn.
pub fn input_gram<T: Real>(simd: Simd, weights: &Weights<T>, blocks: &[Block<T>], c: T, one: T) -> Gram<T> {
    let x: Vec<&[T]> = blocks.iter().map(|b| &b.x[..]).collect();
    let pixels = blocks[0].active_pixels.len();
    let products = inner_products(simd, &x, &x, pixels, pixels, c, one);
    Gram { to: weights.last(), products, factor: Factor::Drift }
}

/// The changes of a telescoping matrix as contributions to its destination: c·(s_t·s_tᵀ)·s_t, less c·(s_t·s_0ᵀ)·s_0,
/// with inner products over the source layer and factors of the destination.
pub fn change_grams<T: Real>(
    simd: Simd,
    weights: &Weights<T>,
    blocks: &[Block<T>],
    connection: &Connection<T>,
    c: T,
) -> [Gram<T>; 2] {
    let (from, to) = (connection.from, connection.to);
    let (stride, width) = (weights.stride(from), weights.widths[from]);
    let now: Vec<&[T]> = blocks.iter().map(|b| &b.s[from][..]).collect();
    let first: Vec<&[T]> = blocks.iter().map(|b| &b.settled[2][from][..]).collect();
    let zero = T::default();
    let products = inner_products(simd, &now, &now, stride, width, c, zero);
    let with_first = inner_products(simd, &now, &first, stride, width, zero - c, zero);
    [Gram { to, products, factor: Factor::Now }, Gram { to, products: with_first, factor: Factor::First }]
}

/// scale·(a_i·b_j + one) for the rows of all blocks, (B, B) row-major.
fn inner_products<T: Real>(
    simd: Simd,
    a: &[&[T]],
    b: &[&[T]],
    stride: usize,
    width: usize,
    scale: T,
    one: T,
) -> Vec<T> {
    let rows = a[0].len() / stride;
    let images: usize = a.iter().map(|rows| rows.len() / stride).sum();
    let mut products = vec![T::default(); images * images];
    for (i, a) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            let out = &mut products[i * rows * images + j * rows..];
            T::run(simd, InnerProducts { a, b, stride, width, scale, one, out, out_stride: images });
        }
    }
    products
}

/// out[i, j] = scale·(a_i·b_j + one): inner products of rows.
struct InnerProducts<'a, T> {
    /// Rows `a_i`.
    a: &'a [T],
    /// Rows `b_j`.
    b: &'a [T],
    /// Distance between rows of either.
    stride: usize,
    /// The length of a row that counts.
    width: usize,
    scale: T,
    one: T,
    /// Row-major, beginning at the first product.
    out: &'a mut [T],
    /// Distance between rows of `out`.
    out_stride: usize,
}

impl<T: Real> Vectorized<T> for InnerProducts<'_, T> {
    #[inline(always)]
    fn run<L: Lanes<Elem = T>>(self) {
        let Self { a, b, stride, width, scale, one, out, out_stride } = self;
        let rows = b.len() / stride;
        for (a, out) in a.chunks_exact(stride).zip(out.chunks_mut(out_stride)) {
            let mut store = |first: usize, products: &[T]| {
                for (out, &product) in out[first..].iter_mut().zip(products) {
                    *out = scale * (one + product);
                }
            };
            let mut j = 0;
            while j + 5 <= rows {
                store(j, &products::<L, 5>(&a[..width], &b[j * stride..], stride));
                j += 5;
            }
            for j in j..rows {
                store(j, &products::<L, 1>(&a[..width], &b[j * stride..], stride));
            }
        }
    }
}

/// A row as whole vectors and a remainder.
type InLanes<'a, T> = (&'a [[T; WIDTH]], &'a [T]);

/// a·b_j for `M` rows b_j, side by side, so that no sum waits for another.
#[inline(always)]
fn products<L: Lanes, const M: usize>(a: &[L::Elem], b: &[L::Elem], stride: usize) -> [L::Elem; M] {
    let mut rows: [InLanes<L::Elem>; M] = [(&[], &[]); M];
    for (j, row) in rows.iter_mut().enumerate() {
        *row = b[j * stride..][..a.len()].as_chunks();
    }
    let (whole, rest) = a.as_chunks::<WIDTH>();
    let mut sums = [L::number(0.0); M];
    each!(k < whole.len() => {
        let a = L::load(&whole[k]);
        each!(j < M => sums[j] = a.mul_add(L::load(&rows[j].0[k]), sums[j]));
    });
    let mut products = [L::Elem::default(); M];
    for ((product, lanes), (_, row)) in products.iter_mut().zip(&sums).zip(&rows) {
        let mut of_lanes = [L::Elem::default(); WIDTH];
        lanes.store(&mut of_lanes);
        for lane in &of_lanes {
            *product += *lane;
        }
        for (&a, &b) in rest.iter().zip(*row) {
            *product += a * b;
        }
    }
    products
}
