//! The loops around the products. All are plain Rust over slices; [`pulp`] compiles them once for each instruction
//! set and picks one at run time, which is why they are inlined into the callers that dispatch.

use crate::linear::activations::RowMut;
use loadtest_weights::config::{Activation, Pairs};

/// Added to a number below 2^22, it leaves the nearest integer in the low bits: rounding that vectorises everywhere.
pub const ROUNDER: f32 = 12_582_912.0;

/// `e^x` to a few units in the last place, without branches so that it vectorises: `2^n * p(r)`, `|r| <= ln 2 / 2`,
/// with the Taylor series of degree 7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LN_2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    let mut p = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = r.mul_add(p, coefficient);
    }
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// The sum of `f` over `x`, in sixteen lanes.
#[inline(always)]
fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// `1 / sqrt(mean(x²) + eps)`, what [root mean square normalisation](https://arxiv.org/abs/1910.07467) multiplies with.
#[inline(always)]
pub fn inverse_rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_of(x, |x| x * x) / x.len() as f32 + eps).sqrt()
}

/// Normalises `x` in place.
#[inline(always)]
pub fn normalise(x: &mut [f32], weight: &[f32], eps: f32) {
    let factor = inverse_rms(x, eps);
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = *x * factor * weight;
    }
}

/// Normalises `x` through `scratch` into a quantised row.
#[inline(always)]
pub fn normalise_quantised(x: &[f32], weight: &[f32], eps: f32, scratch: &mut [f32], mut out: RowMut<'_>) {
    let factor = inverse_rms(x, eps);
    for ((scratch, x), weight) in scratch.iter_mut().zip(x).zip(weight) {
        *scratch = x * factor * weight;
    }
    out.quantise(scratch);
}

/// `x += normalised(y)`: Gemma's norm after each half of a layer.
#[inline(always)]
pub fn add_normalised(x: &mut [f32], y: &[f32], weight: &[f32], eps: f32) {
    let factor = inverse_rms(y, eps);
    for ((x, y), weight) in x.iter_mut().zip(y).zip(weight) {
        *x += y * factor * weight;
    }
}

/// `activation(gate) * up`, through `scratch` into a quantised row.
#[inline(always)]
pub fn gate_quantised(
    gate: &[f32],
    up: &[f32],
    activation: Activation,
    scratch: &mut [f32],
    mut out: RowMut<'_>,
) {
    let numbers = scratch.iter_mut().zip(gate).zip(up);
    match activation {
        Activation::Silu => numbers.for_each(|((out, &gate), up)| *out = gate / (1.0 + exp(-gate)) * up),
        Activation::Gelu => numbers.for_each(|((out, &gate), up)| *out = gelu(gate) * up),
    }
    out.quantise(scratch);
}

/// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` ([GELU](https://arxiv.org/abs/1606.08415), tanh form).
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let inner = 0.797_884_6 * x * (0.044_715 * x).mul_add(x, 1.0);
    // tanh(y) = 1 - 2 / (e^2y + 1)
    x * (1.0 - 1.0 / (exp(2.0 * inner) + 1.0))
}

/// Turns one head by the angles of its position.
#[inline(always)]
pub fn rotate(head: &mut [f32], (cos, sin): (&[f32], &[f32]), pairs: Pairs) {
    match pairs {
        Pairs::Adjacent => {
            for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
                let [a, b] = *pair;
                *pair = [a * cos - b * sin, a * sin + b * cos];
            }
        }
        Pairs::Halves => {
            let (first, second) = head.split_at_mut(head.len() / 2);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadtest_weights::rope::Rope;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exp_is_exact_to_a_millionth(x in -86f32..87.0) {
            let exact = f64::from(x).exp();
            prop_assert!((f64::from(exp(x)) - exact).abs() <= exact * 1e-6);
        }

        #[test]
        fn gelu_is_its_formula(x in -20f32..20.0) {
            let y = f64::from(x);
            let exact = 0.5 * y * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (y + 0.044715 * y.powi(3))).tanh());
            prop_assert!((f64::from(gelu(x)) - exact).abs() < 1e-5);
        }

        #[test]
        fn turning_keeps_products_of_equal_distance(a in prop::collection::vec(-1f32..1.0, 16),
            b in prop::collection::vec(-1f32..1.0, 16), first in 0usize..50, distance in 0usize..50, shift in 0usize..50) {
            let rope = Rope::new(&[1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003], 150);
            for pairs in [Pairs::Adjacent, Pairs::Halves] {
                let dot = |start: usize| {
                    let (mut a, mut b) = (a.clone(), b.clone());
                    rotate(&mut a, rope.at(start), pairs);
                    rotate(&mut b, rope.at(start + distance), pairs);
                    a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>()
                };
                prop_assert!((dot(first) - dot(first + shift)).abs() < 1e-4);
            }
        }
    }
}
