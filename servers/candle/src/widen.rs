//! Half floats to floats, a block at a time: what reading keys and values costs.
//!
//! A step of many sequences reads more keys and values than any cache holds. Whoever widens a block widens the one
//! behind it next, so that one is fetched meanwhile: the processor by itself stops at the end of each memory page.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Converts all numbers of the first slice; both are equally long.
pub type Widen = fn(&[f16], &mut [f32]);

/// The fastest conversion that this processor has.
pub fn detect() -> Widen {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        return |from, to| {
            prefetch_behind(from);
            // SAFETY: the processor has AVX-512 F, as was just asked.
            unsafe { avx512(from, to) }
        };
    }
    |from, to| {
        prefetch_behind(from);
        from.convert_to_f32_slice(to);
    }
}

/// Asks for as much memory behind the numbers as they take.
fn prefetch_behind(numbers: &[f16]) {
    #[cfg(target_arch = "x86_64")]
    for line in numbers.chunks(64 / size_of::<f16>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let behind = line.as_ptr().wrapping_add(numbers.len());
        // SAFETY: the instruction reads nothing and never faults, wherever the address points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(behind.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = numbers;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(from: &[f16], to: &mut [f32]) {
    use std::arch::x86_64::*;
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<16>(), to.as_chunks_mut::<16>());
    for (from, to) in from.iter().zip(to) {
        // SAFETY: 16 half floats are read and 16 floats written.
        unsafe {
            _mm512_storeu_ps(
                to.as_mut_ptr(),
                _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())),
            )
        };
    }
    for (from, to) in from_rest.iter().zip(to_rest) {
        *to = from.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_float_is_exact() {
        let from: Vec<f16> = (0..=u16::MAX)
            .map(f16::from_bits)
            .filter(|x| x.is_finite())
            .chain([f16::ONE; 5])
            .collect();
        let mut to = vec![0.0; from.len()];
        detect()(&from, &mut to);
        assert!(
            from.iter()
                .zip(&to)
                .all(|(from, to)| from.to_f32().to_bits() == to.to_bits())
        );
    }
}
