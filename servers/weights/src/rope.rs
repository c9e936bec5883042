//! The rotary embedding's table.

/// Cosines and sines of the rotary embedding ([RoPE](https://arxiv.org/abs/2104.09864)) for each position.
#[derive(Default)]
pub struct Rope {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// The table for `context` positions.
    pub fn new(frequencies: &[f32], context: usize) -> Self {
        let angles = (0..context)
            .flat_map(|position| frequencies.iter().map(move |f| position as f64 * f64::from(*f)));
        let (cos, sin) = angles
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .unzip();
        Self {
            pairs: frequencies.len(),
            cos,
            sin,
        }
    }

    /// Cosines and sines of one position.
    #[inline(always)]
    pub fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[range.clone()], &self.sin[range])
    }

    /// The whole table, cosines and sines, a row a position.
    pub fn table(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }
}
