//! The block formats of ggml as what they all are: `w = scale * q + min` with an unsigned byte `q`.
//!
//! Layouts: `ggml-common.h` and `ggml-quants.c` of llama.cpp; candle's `k_quants.rs` has them in Rust.

use crate::tensor::Kind;
use half::f16;

/// How a tensor's numbers are grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Numbers that share one scale: 16 or 32.
    pub block: usize,
    /// `min = -scale * zero` for every block; none if blocks have minima of their own.
    pub zero: Option<u8>,
}

/// One row of a matrix, unpacked.
#[derive(Debug, Default)]
pub struct Row {
    /// One byte a number.
    pub q: Vec<u8>,
    /// One scale a block.
    pub scale: Vec<f32>,
    /// One minimum a block, where the format has them.
    pub min: Vec<f32>,
}

/// The format of a ggml type, if it is one that [`unpack`] reads.
pub fn format(kind: Kind) -> Option<Format> {
    let (block, zero) = match kind {
        Kind::Q4_0 => (32, Some(8)),
        Kind::Q5_0 => (32, Some(16)),
        Kind::Q8_0 => (32, Some(128)),
        Kind::Q6_K => (16, Some(32)),
        Kind::Q4_1 | Kind::Q5_1 | Kind::Q4_K | Kind::Q5_K => (32, None),
        _ => return None,
    };
    Some(Format { block, zero })
}

/// Unpacks the blocks in `raw` into `row`.
pub fn unpack(kind: Kind, raw: &[u8], row: &mut Row) {
    row.q.clear();
    row.scale.clear();
    row.min.clear();
    for block in raw.chunks_exact(kind.block().1) {
        match kind {
            Kind::Q4_0 => row.half_bytes(block, None, None, 2),
            Kind::Q4_1 => row.half_bytes(block, Some(2), None, 4),
            Kind::Q5_0 => row.half_bytes(block, None, Some(2), 6),
            Kind::Q5_1 => row.half_bytes(block, Some(2), Some(4), 8),
            Kind::Q8_0 => {
                row.scale.push(half_at(block, 0));
                row.q.extend(block[2..].iter().map(|&q| q ^ 0x80));
            }
            Kind::Q4_K => row.k_quant(block, None, &block[16..144]),
            Kind::Q5_K => row.k_quant(block, Some(&block[16..48]), &block[48..176]),
            Kind::Q6_K => row.q6k(block),
            other => unreachable!("{other:?} has no format: see format()"),
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

impl Row {
    /// Appends the row's numbers to `to`.
    pub fn numbers(&self, format: Format, to: &mut Vec<f32>) {
        for (index, q) in self.q.chunks_exact(format.block).enumerate() {
            let scale = self.scale[index];
            match format.zero {
                Some(zero) => to.extend(q.iter().map(|&q| scale * (f32::from(q) - f32::from(zero)))),
                None => to.extend(q.iter().map(|&q| scale * f32::from(q) + self.min[index])),
            }
        }
    }

    /// Q4_0 to Q5_1: scale, perhaps a minimum, perhaps fifth bits, then 16 bytes with numbers i and i + 16.
    fn half_bytes(&mut self, block: &[u8], min: Option<usize>, fifth: Option<usize>, low: usize) {
        self.scale.push(half_at(block, 0));
        if let Some(at) = min {
            self.min.push(half_at(block, at));
        }
        let bits = fifth.map_or(0, |at| {
            u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"))
        });
        let low = &block[low..low + 16];
        let number = |i: usize, nibble: u8| nibble | ((bits >> i & 1) << 4) as u8;
        self.q
            .extend(low.iter().enumerate().map(|(i, byte)| number(i, byte & 15)));
        self.q
            .extend(low.iter().enumerate().map(|(i, byte)| number(i + 16, byte >> 4)));
    }

    /// Q4_K and Q5_K: eight blocks of 32 with six-bit scales and minima under two half floats.
    fn k_quant(&mut self, block: &[u8], fifth: Option<&[u8]>, low: &[u8]) {
        let (d, dmin, packed) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
        for index in 0..8 {
            let (scale, min) = match index {
                0..4 => (packed[index] & 63, packed[index + 4] & 63),
                _ => (
                    packed[index + 4] & 15 | packed[index - 4] >> 6 << 4,
                    packed[index + 4] >> 4 | packed[index] >> 6 << 4,
                ),
            };
            self.scale.push(d * f32::from(scale));
            self.min.push(-dmin * f32::from(min));
            let bytes = &low[index / 2 * 32..][..32];
            self.q.extend(bytes.iter().enumerate().map(|(i, byte)| {
                let high = fifth.map_or(0, |bits| (bits[i] >> index & 1) << 4);
                (byte >> (index % 2 * 4) & 15) | high
            }));
        }
    }

    /// Q6_K: sixteen blocks of 16 with eight-bit scales under one half float.
    fn q6k(&mut self, block: &[u8]) {
        let d = half_at(block, 208);
        self.scale
            .extend(block[192..208].iter().map(|&scale| d * f32::from(scale as i8)));
        for half in 0..2 {
            let (low, high) = (&block[half * 64..][..64], &block[128 + half * 32..][..32]);
            for quarter in 0..4 {
                let low = &low[quarter % 2 * 32..][..32];
                self.q.extend(
                    low.iter().zip(high).map(|(low, high)| {
                        (low >> (quarter / 2 * 4) & 15) | (high >> (quarter * 2) & 3) << 4
                    }),
                );
            }
        }
    }
}
