//! A tensor as its file has it, and its numbers.

use crate::blocks::{self, Row};
use anyhow::{Context, ensure};
use half::{bf16, f16};

/// How a file writes a tensor's numbers: one by one, or in ggml's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // their usual names
#[allow(non_camel_case_types)]
pub enum Kind {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Kind {
    /// That of a number in a GGUF file's tensor table (`ggml_type` in `ggml.h`).
    pub fn of_ggml(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2_K,
            11 => Self::Q3_K,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// That of a safetensors file.
    pub fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Numbers and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
        }
    }
}

/// A tensor as the file has it.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// How its numbers are written.
    pub kind: Kind,
    /// Rows first.
    pub shape: &'a [usize],
    /// Row after row.
    pub bytes: &'a [u8],
    /// Whether the file is GGUF.
    pub is_gguf: bool,
}

impl Raw<'_> {
    /// All numbers, row after row.
    ///
    /// # Errors
    /// If they are of a kind that isn't read, or not as many as the shape says.
    pub fn to_f32(&self) -> anyhow::Result<Vec<f32>> {
        let len: usize = self.shape.iter().product();
        let numbers: Vec<f32> = match self.kind {
            Kind::F32 => numbers(self.bytes, f32::from_le_bytes),
            Kind::F16 => numbers(self.bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Kind::BF16 => numbers(self.bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            kind => {
                let format = blocks::format(kind)
                    .with_context(|| format!("{kind:?} can't be read here; use another quantisation"))?;
                let mut numbers = Vec::with_capacity(len);
                let mut row = Row::default();
                for block in self.bytes.chunks_exact(kind.block().1) {
                    blocks::unpack(kind, block, &mut row);
                    row.numbers(format, &mut numbers);
                }
                numbers
            }
        };
        ensure!(
            numbers.len() == len,
            "{} numbers where {:?} are expected",
            numbers.len(),
            self.shape
        );
        Ok(numbers)
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|bytes| number(*bytes))
        .collect()
}
