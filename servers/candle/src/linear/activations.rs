//! The rows that go into an integer product: signed bytes with one scale for 32 of them.

use crate::math::ROUNDER;

/// Numbers that share one scale, as in ggml's Q8_1.
pub const BLOCK: usize = 32;

/// Rows of activations, quantised.
#[derive(Debug, Default)]
pub struct Activations {
    /// Numbers in a row, a multiple of [`BLOCK`].
    pub width: usize,
    /// How many rows there are.
    pub rows: usize,
    /// `rows * width` numbers from -127 to 127.
    pub q: Vec<i8>,
    /// One scale for 32 numbers.
    pub scale: Vec<f32>,
    /// The sum of 16 numbers each: what a weight's minimum or zero point is multiplied with.
    pub sum: Vec<i32>,
}

/// One row of [`Activations`], to be written.
pub struct RowMut<'a> {
    /// `width` numbers.
    pub q: &'a mut [i8],
    /// `width / 32` scales.
    pub scale: &'a mut [f32],
    /// `width / 16` sums.
    pub sum: &'a mut [i32],
}

impl Activations {
    /// Makes room for `rows` rows of `width` numbers; what was in it is of no more use.
    pub fn resize(&mut self, rows: usize, width: usize) {
        debug_assert_eq!(width % BLOCK, 0);
        (self.rows, self.width) = (rows, width);
        self.q.resize(rows * width, 0);
        self.scale.resize(rows * width / BLOCK, 0.0);
        self.sum.resize(rows * width / 16, 0);
    }
}

impl RowMut<'_> {
    /// Quantises `x` into the row: `x ≈ scale * q` with `scale` so that the largest of each 32 becomes ±127.
    #[inline(always)]
    pub fn quantise(&mut self, x: &[f32]) {
        let blocks = x
            .as_chunks::<BLOCK>()
            .0
            .iter()
            .zip(self.q.as_chunks_mut::<BLOCK>().0);
        for ((x, q), (scale, sum)) in blocks.zip(self.scale.iter_mut().zip(self.sum.as_chunks_mut::<2>().0)) {
            let mut largest = [0f32; 16];
            for (i, largest) in largest.iter_mut().enumerate() {
                *largest = x[i].abs().max(x[i + 16].abs());
            }
            let mut width = 8;
            while width > 0 {
                for i in 0..width {
                    largest[i] = largest[i].max(largest[i + width]);
                }
                width /= 2;
            }
            *scale = largest[0] / 127.0;
            let inverse = if *scale > 0.0 { 1.0 / *scale } else { 0.0 };
            for (q, x) in q.iter_mut().zip(x) {
                *q = (x * inverse + ROUNDER).to_bits() as i8;
            }
            for (sum, q) in sum.iter_mut().zip(q.as_chunks::<16>().0) {
                *sum = q.iter().map(|&q| i32::from(q)).sum();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantising_errs_by_at_most_half_a_step(x in prop::collection::vec(-1e4f32..1e4, 64)) {
            let mut rows = Activations::default();
            rows.resize(1, 64);
            RowMut { q: &mut rows.q, scale: &mut rows.scale, sum: &mut rows.sum }.quantise(&x);
            for (i, x) in x.iter().enumerate() {
                let scale = rows.scale[i / BLOCK];
                prop_assert!((x - scale * f32::from(rows.q[i])).abs() <= scale * 0.5001);
            }
            for (sum, q) in rows.sum.iter().zip(rows.q.chunks(16)) {
                prop_assert_eq!(*sum, q.iter().map(|&q| i32::from(q)).sum::<i32>());
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let mut rows = Activations::default();
        rows.resize(1, 64);
        RowMut {
            q: &mut rows.q,
            scale: &mut rows.scale,
            sum: &mut rows.sum,
        }
        .quantise(&[0.0; 64]);
        assert!(rows.q.iter().all(|&q| q == 0) && rows.scale.iter().all(|&scale| scale == 0.0));
    }
}
