//! The one matrix product of this engine: out[r, c] = start + Σ_terms Σ_k a[r, k]·b[k, c].
//!
//! Columns c come in panels of [`WIDTH`]; each output number is summed over k in order, whatever
//! the tiling, so results do not depend on how rows and panels are shared out.

use super::simd::{Lanes, Real, Room, WIDTH, each};
use std::ops::Range;

/// One product to add up: `a` read number by number, `b` in runs of [`WIDTH`].
#[derive(Clone, Copy)]
pub struct Term<'a, T> {
    /// a[r, k] = a[r·a_row + k·a_k].
    pub a: &'a [T],
    /// Distance between rows of `a`.
    pub a_row: usize,
    /// Distance between successive k of `a`.
    pub a_k: usize,
    /// b[k, panel] = b[panel·b_panel + k·b_k ..][..WIDTH].
    pub b: &'a [T],
    /// Distance between panels of `b`.
    pub b_panel: usize,
    /// Distance between successive k of `b`.
    pub b_k: usize,
    /// The indices k of `b` for each k of `a`, ascending; all of them in order where `None`.
    pub b_only: Option<&'a [u32]>,
    /// The number of indices k.
    pub depth: usize,
}

impl<T> Term<'_, T> {
    /// Panics where the term does not reach to the ends of so many rows and panels.
    fn check(&self, rows: usize, panels: usize) {
        if self.depth == 0 {
            return;
        }
        let last_a = (rows - 1) * self.a_row + (self.depth - 1) * self.a_k;
        let last_k = match self.b_only {
            None => self.depth - 1,
            Some(only) => {
                assert!(only.len() == self.depth && only.is_sorted(), "a term with a wrong list");
                only[self.depth - 1] as usize
            }
        };
        let last_b = (panels - 1) * self.b_panel + last_k * self.b_k + WIDTH;
        assert!(last_a < self.a.len() && last_b <= self.b.len(), "a term out of bounds");
    }
}

/// The destination of results. Implementations are `#[inline(always)]`, which closures cannot be: a function between
/// a computation and its intrinsics that is not inlined is compiled without vectors.
///
/// Bounds are checked once for a product: checked for every result they took a quarter of the time.
///
/// # Safety
/// Once `check` has returned, `start` and `finish` must be sound for all these rows and panels.
pub unsafe trait Output<L: Lanes> {
    /// Panics unless all rows below `rows` and all these panels are there.
    fn check(&self, rows: usize, panels: &Range<usize>);
    /// The value that the sum begins with.
    ///
    /// # Safety
    /// The row and the panel must be among those checked.
    unsafe fn start(&self, row: usize, panel: usize) -> L;
    /// Takes the result.
    ///
    /// # Safety
    /// The row and the panel must be among those checked.
    unsafe fn finish(&mut self, row: usize, panel: usize, sum: L);
}

/// Computes the outputs of `rows` rows and these panels.
#[inline(always)]
pub fn product<L: Lanes>(
    rows: usize,
    panels: Range<usize>,
    terms: &[Term<L::Elem>],
    output: &mut impl Output<L>,
) {
    if rows == 0 || panels.is_empty() {
        return;
    }
    output.check(rows, &panels);
    let sum = Sum::checked(terms, rows, panels.clone());
    let chunks =
        |width: usize| panels.clone().step_by(width).map(move |first| first..panels.end.min(first + width));
    match L::ROOM {
        Room::Twenty => {
            let whole = rows - rows % 10;
            sum.tiles::<L, 10, 2>(0..whole, panels.clone(), output);
            if whole == rows {
                return;
            }
            // The tiles of the remaining rows share their panels while those are in the cache.
            for panels in chunks(8) {
                let row = sum.tiles::<L, 5, 4>(whole..rows, panels.clone(), output);
                let row = sum.tiles::<L, 2, 8>(row..rows, panels.clone(), output);
                sum.tiles::<L, 1, 8>(row..rows, panels, output);
            }
        }
        Room::Five => {
            for panels in chunks(4) {
                let row = sum.tiles::<L, 5, 1>(0..rows, panels.clone(), output);
                let row = sum.tiles::<L, 2, 2>(row..rows, panels.clone(), output);
                sum.tiles::<L, 1, 4>(row..rows, panels, output);
            }
        }
        Room::Two => {
            let row = sum.tiles::<L, 2, 1>(0..rows, panels.clone(), output);
            sum.tiles::<L, 1, 1>(row..rows, panels, output);
        }
    }
}

/// Terms that reach to the ends of so many rows and panels.
struct Sum<'t, 'a, T> {
    terms: &'t [Term<'a, T>],
    rows: usize,
    panels: Range<usize>,
}

impl<'t, 'a, T: Real> Sum<'t, 'a, T> {
    fn checked(terms: &'t [Term<'a, T>], rows: usize, panels: Range<usize>) -> Self {
        for term in terms {
            term.check(rows, panels.end);
        }
        Self { terms, rows, panels }
    }

    /// Computes as many tiles of `M` × `P` as there are rows for, and narrower ones where fewer than `P` panels are
    /// left. Returns the first remaining row.
    #[inline(always)]
    fn tiles<L: Lanes<Elem = T>, const M: usize, const P: usize>(
        &self,
        rows: Range<usize>,
        panels: Range<usize>,
        output: &mut impl Output<L>,
    ) -> usize {
        let end = rows.start + rows.len() / M * M;
        let mut panel = panels.start;
        while panel < panels.end {
            let wide = panel + P <= panels.end;
            for row in (rows.start..end).step_by(M) {
                if wide {
                    self.tile::<L, M, P>(row, panel, output);
                } else {
                    self.tile::<L, M, 1>(row, panel, output);
                }
            }
            panel += if wide { P } else { 1 };
        }
        end
    }

    /// Computes `M` rows × `P` panels, accumulated in registers.
    #[inline(always)]
    fn tile<L: Lanes<Elem = T>, const M: usize, const P: usize>(
        &self,
        row: usize,
        panel: usize,
        output: &mut impl Output<L>,
    ) {
        let inside = row + M <= self.rows && self.panels.start <= panel && panel + P <= self.panels.end;
        assert!(inside, "a tile out of bounds");
        let mut sums = [[L::splat(T::default()); P]; M];
        each!(i < M, j < P => {
            // SAFETY: the tile lies within the rows and panels that `product` has checked.
            sums[i][j] = unsafe { output.start(row + i, panel + j) };
        });
        for term in self.terms {
            // SAFETY: `checked` has seen that the term reaches to the ends of all rows and panels, and the tile lies
            // within them.
            unsafe {
                let mut a = term.a.as_ptr().wrapping_add(row * term.a_row);
                let b = term.b.as_ptr().wrapping_add(panel * term.b_panel);
                each!(k < term.depth => {
                    let b_k = match term.b_only {
                        None => b.add(k * term.b_k),
                        Some(only) => b.add(*only.get_unchecked(k) as usize * term.b_k),
                    };
                    let mut lanes = [L::splat(T::default()); P];
                    each!(j < P => lanes[j] = L::load(&*b_k.add(j * term.b_panel).cast()));
                    each!(i < M => {
                        let a_ik = L::splat(*a.add(i * term.a_row));
                        each!(j < P => sums[i][j] = a_ik.mul_add(lanes[j], sums[i][j]));
                    });
                    a = a.wrapping_add(term.a_k);
                });
            }
        }
        each!(i < M, j < P => {
            // SAFETY: as above.
            unsafe { output.finish(row + i, panel + j, sums[i][j]) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, Simd, Vectorized};
    use super::*;

    /// An output `out`, row-major (rows, panels), added to.
    struct Into<'a> {
        out: &'a mut [[f32; WIDTH]],
        panels: usize,
    }

    // SAFETY: both methods check their bounds themselves.
    unsafe impl<L: Lanes<Elem = f32>> Output<L> for Into<'_> {
        fn check(&self, _: usize, _: &Range<usize>) {}

        #[inline(always)]
        unsafe fn start(&self, row: usize, panel: usize) -> L {
            L::load(&self.out[row * self.panels + panel])
        }

        #[inline(always)]
        unsafe fn finish(&mut self, row: usize, panel: usize, sum: L) {
            sum.store(&mut self.out[row * self.panels + panel]);
        }
    }

    struct Product<'a> {
        rows: usize,
        terms: &'a [Term<'a, f32>],
        output: Into<'a>,
    }

    impl Vectorized<f32> for Product<'_> {
        #[inline(always)]
        fn run<L: Lanes<Elem = f32>>(mut self) {
            let panels = self.output.panels;
            product::<L>(self.rows, 0..panels / 3, self.terms, &mut self.output);
            product::<L>(self.rows, panels / 3..panels, self.terms, &mut self.output);
        }
    }

    #[test]
    fn every_tile_of_every_instruction_set_gives_each_number_the_same_bits() {
        let depth = 7;
        let only = [0, 3, 5];
        let draw = |count: usize, salt: usize| -> Vec<f32> {
            (0..count).map(|i| ((i * 2_654_435_761 + salt) % 1009) as f32 / 1009.0 - 0.4).collect()
        };
        for rows in 1..=23 {
            for panels in 1..=19 {
                let (a, b) = (draw(rows * depth, rows), draw(panels * depth * WIDTH, panels));
                let all = Term {
                    a: &a,
                    a_row: depth,
                    a_k: 1,
                    b: &b,
                    b_panel: depth * WIDTH,
                    b_k: WIDTH,
                    b_only: None,
                    depth,
                };
                let terms = [all, Term { b_only: Some(&only), depth: only.len(), ..all }];
                let start = draw(rows * panels * WIDTH, 1);
                // Over k in order, rounded once where there are fused multiply-adds.
                let expected = |fused: bool| -> Vec<f32> {
                    let number = |i: usize| {
                        let (row, panel, lane) = (i / WIDTH / panels, i / WIDTH % panels, i % WIDTH);
                        let product = |sum: f32, (a_k, b_k): (usize, usize)| {
                            let (a, b) = (a[row * depth + a_k], b[(panel * depth + b_k) * WIDTH + lane]);
                            if fused { a.mul_add(b, sum) } else { a * b + sum }
                        };
                        (0..depth)
                            .map(|k| (k, k))
                            .chain(only.iter().enumerate().map(|(k, &b)| (k, b as usize)))
                            .fold(start[i], product)
                    };
                    (0..start.len()).map(number).collect()
                };
                for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
                    let Some(simd) = Simd::new(isa) else { continue };
                    let mut out = start.clone();
                    let output = Into { out: out.as_chunks_mut().0, panels };
                    f32::run(simd, Product { rows, terms: &terms, output });
                    assert!(out == expected(isa > Isa::Portable), "{isa:?}, {rows} × {panels}");
                }
            }
        }
    }
}
