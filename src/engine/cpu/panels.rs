//! The states of a layer, shared out among threads in panels of [`WIDTH`] neurons.

use super::simd::WIDTH;
use std::marker::PhantomData;
use std::ops::Range;

/// Some panels of a layer's states, in all rows, for one thread to read and write.
///
/// Rows are images. Several of these may belong to one layer: [`PanelsMut::split`] sees to it that none has a panel of
/// another.
pub struct PanelsMut<'a, T> {
    layer: *mut T,
    rows: usize,
    /// Distance between rows.
    stride: usize,
    panels: Range<usize>,
    states: PhantomData<&'a mut [T]>,
}

// SAFETY: it reaches only its own panels, as a `&mut [T]` would, and nothing else reaches those.
unsafe impl<T: Send> Send for PanelsMut<'_, T> {}

impl<'a, T> PanelsMut<'a, T> {
    /// All panels of a layer whose rows are `stride` numbers apart.
    pub fn whole(layer: &'a mut [T], stride: usize) -> Self {
        let len = layer.len();
        Self::checked(layer.as_mut_ptr(), len, stride, 0..stride / WIDTH)
    }

    /// A part for each of these ranges of panels, which must ascend and not overlap.
    pub fn split(layer: &'a mut [T], stride: usize, parts: impl Iterator<Item = Range<usize>>) -> Vec<Self> {
        let len = layer.len();
        let start = layer.as_mut_ptr();
        let mut taken = 0;
        parts
            .map(|panels| {
                assert!(taken <= panels.start, "two parts with one panel");
                taken = panels.end;
                Self::checked(start, len, stride, panels)
            })
            .collect()
    }

    fn checked(layer: *mut T, len: usize, stride: usize, panels: Range<usize>) -> Self {
        let whole_rows = stride > 0 && stride.is_multiple_of(WIDTH) && len.is_multiple_of(stride);
        let inside = panels.start <= panels.end && panels.end <= stride / WIDTH;
        assert!(whole_rows && inside, "panels {panels:?} of a layer of {len} numbers, rows {stride} apart");
        Self { layer, rows: len / stride, stride, panels, states: PhantomData }
    }

    /// The number of rows.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The range of these panels in the layer.
    #[inline(always)]
    pub fn panels(&self) -> Range<usize> {
        self.panels.clone()
    }

    /// The index of these panels' first number within a row of the layer.
    #[inline(always)]
    fn start(&self, row: usize) -> usize {
        assert!(row < self.rows);
        row * self.stride + self.panels.start * WIDTH
    }

    /// These panels of a row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[[T; WIDTH]] {
        // SAFETY: `checked` has seen that all panels of all rows lie within the layer, which is borrowed for 'a; they
        // are this one's alone.
        unsafe {
            std::slice::from_raw_parts(
                self.layer.add(self.start(row)).cast::<[T; WIDTH]>(),
                self.panels.len(),
            )
        }
    }

    /// These panels of a row.
    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [[T; WIDTH]] {
        // SAFETY: as in `row`, and `self` is borrowed mutably.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.layer.add(self.start(row)).cast::<[T; WIDTH]>(),
                self.panels.len(),
            )
        }
    }

    /// One panel, counted as the layer does, of a row.
    ///
    /// # Safety
    /// The row must be one of the [`rows`](Self::rows), the panel one of the [`panels`](Self::panels).
    #[inline(always)]
    pub unsafe fn lanes_unchecked(&mut self, row: usize, panel: usize) -> &mut [T; WIDTH] {
        debug_assert!(row < self.rows && self.panels.contains(&panel));
        // SAFETY: as in `row_mut`, for the one panel that the caller vouches for.
        unsafe { &mut *self.layer.add(row * self.stride + panel * WIDTH).cast::<[T; WIDTH]>() }
    }

    /// The numbers in a row of `other` states of this layer at the place of these panels.
    #[inline(always)]
    pub fn row_of<'s>(&self, other: &'s [T], row: usize) -> &'s [[T; WIDTH]] {
        other[self.start(row)..][..self.panels.len() * WIDTH].as_chunks().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_write_their_own_panels_of_every_row() {
        let mut layer = vec![0; 3 * 4 * WIDTH];
        let mut parts = PanelsMut::split(&mut layer, 4 * WIDTH, [0..1, 1..1, 1..3].into_iter());
        std::thread::scope(|scope| {
            for (i, part) in parts.iter_mut().enumerate() {
                scope.spawn(move || {
                    for row in 0..part.rows() {
                        for lanes in part.row_mut(row) {
                            lanes.fill(i + 1);
                        }
                    }
                });
            }
        });
        for row in layer.chunks(4 * WIDTH) {
            let of_panels: Vec<usize> = row.chunks(WIDTH).map(|lanes| lanes[WIDTH - 1]).collect();
            assert_eq!(of_panels, [1, 3, 3, 0]);
        }
    }

    #[test]
    #[should_panic = "two parts with one panel"]
    fn parts_that_overlap_are_refused() {
        let mut layer = vec![0; 2 * WIDTH];
        PanelsMut::split(&mut layer, 2 * WIDTH, [0..2, 1..2].into_iter());
    }

    #[test]
    #[should_panic = "panels 0..3 of a layer"]
    fn panels_that_are_not_there_are_refused() {
        let mut layer = vec![0; 2 * WIDTH];
        PanelsMut::split(&mut layer, 2 * WIDTH, std::iter::once(0..3));
    }
}
