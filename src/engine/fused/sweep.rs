//! The one matrix product of the fused engine: out[r, c] = start + Σ_terms Σ_k a[r, k]·b[k, c].
//!
//! Columns c come in panels of [`WIDTH`]; each output number is summed over k in order, whatever
//! the tiling, so results do not depend on how rows and panels are shared out.

use super::lanes::{Lanes, WIDTH};

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

/// Computes `rows` × `panels` outputs.
#[inline(always)]
pub fn sweep<L: Lanes>(rows: usize, panels: usize, terms: &[Term<L::Elem>], output: &impl Output<L>) {
    if rows == 0 || panels == 0 {
        return;
    }
    for term in terms {
        term.check(rows, panels);
    }
    // SAFETY (all tiles): the bounds were checked for all rows and panels just above.
    let mut panel = 0;
    while panel < panels {
        let two = L::MANY_REGISTERS && panel + 2 <= panels;
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            row += unsafe {
                if L::MANY_REGISTERS && left >= 10 {
                    if two {
                        tile::<L, 10, 2>(row, panel, terms, output)
                    } else {
                        tile::<L, 10, 1>(row, panel, terms, output)
                    }
                } else if !L::MANY_REGISTERS && left >= 5 {
                    tile::<L, 5, 1>(row, panel, terms, output)
                } else if two {
                    tile::<L, 1, 2>(row, panel, terms, output)
                } else {
                    tile::<L, 1, 1>(row, panel, terms, output)
                }
            };
        }
        panel += if two { 2 } else { 1 };
    }
}

/// `M` rows × `P` panels, accumulated in registers. Returns `M`.
///
/// # Safety
/// Every term must reach to row + M and panel + P.
#[inline(always)]
unsafe fn tile<L: Lanes, const M: usize, const P: usize>(
    row: usize,
    panel: usize,
    terms: &[Term<L::Elem>],
    output: &impl Output<L>,
) -> usize {
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
    M
}
