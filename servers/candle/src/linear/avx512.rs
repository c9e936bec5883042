//! The product by AVX-512 VNNI: one instruction multiplies 64 bytes and adds them up by fours.

// Indices below constants: the compiler unrolls these loops into registers.
#![allow(clippy::needless_range_loop)]

use super::activations::{Activations, BLOCK};
use super::affine8::{Panel, Products, TILE, lines_per_unit};
use std::arch::x86_64::*;

/// Proof that this processor has the instructions.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// Asks the processor.
    pub fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        has.then_some(Self(()))
    }
}

/// Multiplies `rows` rows of `x` from `first` on with a panel.
pub fn tile(
    _: Avx512Vnni,
    panel: Panel<'_>,
    x: &Activations,
    first: usize,
    rows: usize,
    products: &mut Products,
) {
    assert!(first + rows <= x.rows && rows <= TILE);
    assert_eq!(panel.lines.len(), x.width / BLOCK * lines_per_unit(panel.format));
    // SAFETY: the processor has the instructions (that is what the first argument proves); all reads are inside the
    // rows and the panel, whose sizes are those just checked.
    unsafe {
        match rows {
            1 => formats::<1>(panel, x, first, products),
            2 => formats::<2>(panel, x, first, products),
            3 => formats::<3>(panel, x, first, products),
            4 => formats::<4>(panel, x, first, products),
            5 => formats::<5>(panel, x, first, products),
            _ => formats::<6>(panel, x, first, products),
        }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn formats<const ROWS: usize>(
    panel: Panel<'_>,
    x: &Activations,
    first: usize,
    products: &mut Products,
) {
    // SAFETY: as promised to `tile`.
    unsafe {
        match (panel.format.block, panel.format.zero) {
            (32, Some(zero)) => multiply::<ROWS, 1, false>(panel, x, first, zero, products),
            (32, None) => multiply::<ROWS, 1, true>(panel, x, first, 0, products),
            (_, Some(zero)) => multiply::<ROWS, 2, false>(panel, x, first, zero, products),
            (_, None) => multiply::<ROWS, 2, true>(panel, x, first, 0, products),
        }
    }
}

/// `ROWS` rows with the panel's 32 columns; a unit of 32 k has `BLOCKS` blocks, with minima if `MINIMA`.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply<const ROWS: usize, const BLOCKS: usize, const MINIMA: bool>(
    panel: Panel<'_>,
    x: &Activations,
    first: usize,
    zero: u8,
    products: &mut Products,
) {
    let units = x.width / BLOCK;
    let mut line = panel.lines.as_ptr().cast::<__m512i>();
    // SAFETY: every pointer below stays inside the panel and the rows `first..first + ROWS` (see `tile`).
    unsafe {
        let q = x.q.as_ptr().add(first * x.width);
        let scale = x.scale.as_ptr().add(first * units);
        let sum = x.sum.as_ptr().add(first * units * 2);
        let mut total = [[_mm512_setzero_ps(); 2]; ROWS];
        for unit in 0..units {
            for block in 0..BLOCKS {
                let mut sums = [0; ROWS];
                let mut dot = [[_mm512_setzero_si512(); 2]; ROWS];
                for r in 0..ROWS {
                    let at = sum.add((r * units + unit) * 2);
                    sums[r] = if BLOCKS == 1 {
                        *at + *at.add(1)
                    } else {
                        *at.add(block)
                    };
                    if !MINIMA {
                        dot[r] = [_mm512_set1_epi32(-i32::from(zero) * sums[r]); 2];
                    }
                }
                for four in 0..8 / BLOCKS {
                    let weights = [_mm512_load_si512(line), _mm512_load_si512(line.add(1))];
                    line = line.add(2);
                    let k = unit * BLOCK + block * 16 + four * 4;
                    for r in 0..ROWS {
                        let x = _mm512_set1_epi32(q.add(r * x.width + k).cast::<i32>().read_unaligned());
                        dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], weights[0], x);
                        dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], weights[1], x);
                    }
                }
                let floats = line.cast::<f32>();
                let scales = [_mm512_load_ps(floats), _mm512_load_ps(floats.add(16))];
                for r in 0..ROWS {
                    let scale = _mm512_set1_ps(*scale.add(r * units + unit));
                    for half in 0..2 {
                        let dot = _mm512_cvtepi32_ps(dot[r][half]);
                        total[r][half] =
                            _mm512_fmadd_ps(dot, _mm512_mul_ps(scales[half], scale), total[r][half]);
                    }
                }
                if MINIMA {
                    let minima = [_mm512_load_ps(floats.add(32)), _mm512_load_ps(floats.add(48))];
                    for r in 0..ROWS {
                        let sum = _mm512_set1_ps(*scale.add(r * units + unit) * sums[r] as f32);
                        total[r][0] = _mm512_fmadd_ps(minima[0], sum, total[r][0]);
                        total[r][1] = _mm512_fmadd_ps(minima[1], sum, total[r][1]);
                    }
                }
                line = line.add(if MINIMA { 4 } else { 2 });
            }
        }
        for r in 0..ROWS {
            _mm512_storeu_ps(products[r].as_mut_ptr(), total[r][0]);
            _mm512_storeu_ps(products[r].as_mut_ptr().add(16), total[r][1]);
        }
    }
}
