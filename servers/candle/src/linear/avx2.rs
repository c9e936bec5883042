//! The product by AVX2: bytes widened to 16 bits, multiplied and added by twos.

// Indices below constants: the compiler unrolls these loops into registers.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK};
use super::affine8::{Line, Panel, Products, TILE, lines_per_unit};
use std::arch::x86_64::*;

/// Proof that this processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Self(()))
    }
}

/// Multiplies `rows` rows of `x` from `first` on with a panel.
pub fn tile(_: Avx2, panel: Panel<'_>, x: &Activations, first: usize, rows: usize, products: &mut Products) {
    assert!(first + rows <= x.rows && rows <= TILE);
    assert_eq!(panel.lines.len(), x.width / BLOCK * lines_per_unit(panel.format));
    for row in (0..rows).step_by(2) {
        for half in 0..2 {
            // SAFETY: the processor has the instructions (that is what the first argument proves); all reads are
            // inside the rows and the panel, whose sizes are those just checked.
            unsafe {
                if row + 1 < rows {
                    multiply::<2>(panel, x, first + row, half, &mut products[row..]);
                } else {
                    multiply::<1>(panel, x, first + row, half, &mut products[row..]);
                }
            }
        }
    }
}

/// `ROWS` rows with 16 columns of the panel, its first or second `half`.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const ROWS: usize>(
    panel: Panel<'_>,
    x: &Activations,
    first: usize,
    half: usize,
    products: &mut [[f32; 32]],
) {
    let (block, zero) = (panel.format.block, panel.format.zero);
    let mut total = [[_mm256_setzero_ps(); 2]; ROWS];
    for (index, lines) in panel
        .lines
        .chunks_exact(lines_per_unit(panel.format) * block / BLOCK)
        .enumerate()
    {
        let (bytes, floats) = lines.split_at(block / 2);
        let mut wide = [[0i64; 8]; ROWS];
        let mut dot = [[_mm256_setzero_si256(); 4]; ROWS];
        for r in 0..ROWS {
            let k = (first + r) * x.width + index * block;
            for (part, q) in x.q[k..k + block].as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: reads 16 bytes of 16 and writes 32 of `wide`'s 64.
                unsafe {
                    let q = _mm256_cvtepi8_epi16(_mm_loadu_si128(q.as_ptr().cast()));
                    _mm256_storeu_si256(wide[r].as_mut_ptr().add(part * 4).cast(), q);
                }
            }
        }
        for (four, lines) in bytes.chunks_exact(2).enumerate() {
            for quarter in 0..4 {
                // SAFETY: a quarter of the line's 64 bytes.
                let weights = unsafe { _mm_load_si128(lines[half].0.as_ptr().add(quarter * 16).cast()) };
                let weights = _mm256_cvtepu8_epi16(weights);
                for r in 0..ROWS {
                    let products = _mm256_madd_epi16(weights, _mm256_set1_epi64x(wide[r][four]));
                    dot[r][quarter] = _mm256_add_epi32(dot[r][quarter], products);
                }
            }
        }
        for r in 0..ROWS {
            let k = (first + r) * x.width + index * block;
            let scale = x.scale[k / BLOCK];
            let sum: i32 = x.sum[k / 16..(k + block) / 16].iter().sum();
            let start = _mm256_set1_epi32(zero.map_or(0, |zero| -i32::from(zero) * sum));
            let sum = _mm256_set1_ps(scale * sum as f32);
            for eight in 0..2 {
                let dot = _mm256_hadd_epi32(dot[r][eight * 2], dot[r][eight * 2 + 1]);
                let dot = _mm256_add_epi32(_mm256_permute4x64_epi64::<0b11_01_10_00>(dot), start);
                let scales = _mm256_mul_ps(eight_floats(&floats[half], eight), _mm256_set1_ps(scale));
                total[r][eight] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scales, total[r][eight]);
                if zero.is_none() {
                    total[r][eight] =
                        _mm256_fmadd_ps(eight_floats(&floats[2 + half], eight), sum, total[r][eight]);
                }
            }
        }
    }
    for (products, total) in products.iter_mut().zip(&total) {
        for (eight, total) in total.iter().enumerate() {
            let products: &mut [f32; 8] = (&mut products[half * 16 + eight * 8..][..8])
                .try_into()
                .expect("eight");
            // SAFETY: eight floats.
            unsafe { _mm256_storeu_ps(products.as_mut_ptr(), *total) };
        }
    }
}

#[target_feature(enable = "avx2")]
fn eight_floats(line: &Line, eight: usize) -> __m256 {
    assert!(eight < 2);
    // SAFETY: half of the line's 64 bytes.
    unsafe { _mm256_load_ps(line.0.as_ptr().cast::<f32>().add(eight * 8)) }
}
