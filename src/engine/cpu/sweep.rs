//! The one matrix product of the fused engine: out[r, c] = start + Σ_terms Σ_k a[r, k]·b[k, c].
//!
//! Columns c come in panels of [`WIDTH`]; each output number is summed over k in order, whatever
//! the tiling, so results do not depend on how rows and panels are shared out.

use super::lanes::{Lanes, WIDTH};
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
    /// Which k of `b` goes with each k of `a`, ascending; all of them in order where `None`.
    pub b_only: Option<&'a [u32]>,
    /// How many k there are.
    pub depth: usize,
}

impl<T> Term<'_, T> {
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

/// Where results go. Implementations are `#[inline(always)]`, which closures cannot be: a function
/// between a kernel and its intrinsics that is not inlined is compiled without vectors.
pub trait Output<L: Lanes> {
    /// What the output begins with.
    fn start(&self, row: usize, panel: usize) -> L;
    /// Takes the result.
    fn finish(&self, row: usize, panel: usize, sum: L);
}

/// Computes the outputs of `rows` rows and these panels.
#[inline(always)]
pub fn sweep<L: Lanes>(rows: usize, panels: Range<usize>, terms: &[Term<L::Elem>], output: &impl Output<L>) {
    if rows == 0 || panels.is_empty() {
        return;
    }
    for term in terms {
        term.check(rows, panels.end);
    }
    let chunks =
        |width: usize| panels.clone().step_by(width).map(move |first| first..panels.end.min(first + width));
    // SAFETY (all tiles): the bounds were checked for all rows and panels just above.
    unsafe {
        if L::MANY_REGISTERS {
            let whole = rows - rows % 10;
            tiles::<L, 10, 2>(0..whole, panels.clone(), terms, output);
            if whole == rows {
                return;
            }
            // The tiles of what is left share their panels while those are in the cache.
            for panels in chunks(8) {
                let row = tiles::<L, 5, 4>(whole..rows, panels.clone(), terms, output);
                let row = tiles::<L, 2, 8>(row..rows, panels.clone(), terms, output);
                tiles::<L, 1, 8>(row..rows, panels, terms, output);
            }
        } else {
            for panels in chunks(4) {
                let row = tiles::<L, 5, 1>(0..rows, panels.clone(), terms, output);
                let row = tiles::<L, 2, 2>(row..rows, panels.clone(), terms, output);
                tiles::<L, 1, 4>(row..rows, panels, terms, output);
            }
        }
    }
}

/// As many tiles of `M` × `P` as there are rows for, and narrower ones where no `P` panels are left.
/// Returns the first row that is left.
///
/// # Safety
/// Every term must reach to the ends of both ranges.
#[inline(always)]
unsafe fn tiles<L: Lanes, const M: usize, const P: usize>(
    rows: Range<usize>,
    panels: Range<usize>,
    terms: &[Term<L::Elem>],
    output: &impl Output<L>,
) -> usize {
    let end = rows.start + rows.len() / M * M;
    let mut panel = panels.start;
    while panel < panels.end {
        let wide = panel + P <= panels.end;
        for row in (rows.start..end).step_by(M) {
            unsafe {
                if wide {
                    tile::<L, M, P>(row, panel, terms, output);
                } else {
                    tile::<L, M, 1>(row, panel, terms, output);
                }
            }
        }
        panel += if wide { P } else { 1 };
    }
    end
}

/// `M` rows × `P` panels, accumulated in registers.
///
/// # Safety
/// Every term must reach to row + M and panel + P.
#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const P: usize>(
    row: usize,
    panel: usize,
    terms: &[Term<L::Elem>],
    output: &impl Output<L>,
) {
    let mut sums = [[L::splat(L::Elem::default()); P]; M];
    for (i, sums) in sums.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = output.start(row + i, panel + j);
        }
    }
    for term in terms {
        unsafe {
            let mut a = term.a.as_ptr().add(row * term.a_row);
            let b = term.b.as_ptr().add(panel * term.b_panel);
            for k in 0..term.depth {
                let k = match term.b_only {
                    None => k,
                    Some(only) => *only.get_unchecked(k) as usize,
                };
                let mut b_k = [L::splat(L::Elem::default()); P];
                for (j, lanes) in b_k.iter_mut().enumerate() {
                    *lanes = L::load(b.add(k * term.b_k + j * term.b_panel));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a_ik = L::splat(*a.add(i * term.a_row));
                    for (sum, lanes) in sums.iter_mut().zip(b_k) {
                        *sum = a_ik.mul_add(lanes, *sum);
                    }
                }
                a = a.wrapping_add(term.a_k);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (j, &sum) in sums.iter().enumerate() {
            output.finish(row + i, panel + j, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::{Isa, Kernel};
    use super::*;
    use std::cell::RefCell;

    /// Into `out`, row-major (rows, panels·WIDTH), beginning with what is there.
    struct Into<'a>(&'a RefCell<Vec<f32>>, usize);

    impl<L: Lanes<Elem = f32>> Output<L> for Into<'_> {
        #[inline(always)]
        fn start(&self, row: usize, panel: usize) -> L {
            unsafe { L::load(self.0.borrow()[(row * self.1 + panel) * WIDTH..][..WIDTH].as_ptr()) }
        }

        #[inline(always)]
        fn finish(&self, row: usize, panel: usize, sum: L) {
            unsafe { sum.store(self.0.borrow_mut()[(row * self.1 + panel) * WIDTH..][..WIDTH].as_mut_ptr()) }
        }
    }

    struct Sweep<'a>(usize, usize, &'a [Term<'a, f32>], Into<'a>);

    impl Kernel<f32> for Sweep<'_> {
        #[inline(always)]
        fn run<L: Lanes<Elem = f32>>(self) {
            let (some, rest) = (0..self.1 / 3, self.1 / 3..self.1);
            sweep::<L>(self.0, some, self.2, &self.3);
            sweep::<L>(self.0, rest, self.2, &self.3);
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
                    if isa > Isa::native() {
                        continue;
                    }
                    let out = RefCell::new(start.clone());
                    // SAFETY: the CPU has it.
                    unsafe { isa.run(Sweep(rows, panels, &terms, Into(&out, panels))) };
                    assert!(out.into_inner() == expected(isa > Isa::Portable), "{isa:?}, {rows} × {panels}");
                }
            }
        }
    }
}
