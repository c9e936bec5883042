//! Logits and greedy choices against llama.cpp's on the same file.
//!
//! Dense weights round nothing, nor did llama.cpp on the same weights dequantised to f32: those two must agree to a few
//! digits, which proves the forward pass. Where activations are rounded to eight bits, as affine8 and llama.cpp's
//! quantised products both do, each in its own way, logits move, and two tokens that are about equally likely may
//! change places. How far is bounded here; the README beside this crate has what was measured.

use loadtest_candle::engine::{Candle, Options, WeightsForm};
use loadtest_conformance::agreement::{Case, check_exact, follow, gemma3, smollm2};
use loadtest_conformance::model;

/// Of the choices where activations are rounded, at most so many may differ.
const SHARE: f32 = 0.05;
/// And where they do, one side holds the other's token for at most so much less likely than its own (in logits).
const NEAR_TIE: f32 = 1.0;
/// What rounding activations adds to log probabilities, root mean square over the likeliest tokens.
const ROUNDING: f64 = 0.2;

fn check(case: &Case) {
    let path = model(case.name);
    let seen = |weights| {
        let options = Options {
            weights,
            dtype: None,
            device: candle_core::Device::Cpu,
            threads: 2,
        };
        follow(&mut Candle::load(&path, case.name, options).unwrap(), case)
    };
    let (dense, affine8) = (seen(WeightsForm::Dense), seen(WeightsForm::Affine8));
    check_exact(&dense, case);

    let moved = || affine8.iter().zip(&dense);
    let differ = moved()
        .filter(|(affine8, dense)| affine8.best != dense.best)
        .count();
    let squares =
        moved().flat_map(|(a, b)| a.likeliest.iter().zip(&b.likeliest).map(|(a, b)| (a - b).powi(2)));
    let squares: Vec<f64> = squares.collect();
    let rounding = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
    let parted: Vec<f32> = affine8
        .iter()
        .map(|seen| seen.gap)
        .filter(|gap| *gap > 0.0)
        .collect();
    let widest = parted.iter().copied().fold(0.0, f32::max);
    eprintln!(
        "{}: affine8 differs from dense in {differ} of {} choices, by {rounding:.3} (rms), and from llama.cpp in {}, \
         by at most {widest:.3}",
        case.fixture.model,
        dense.len(),
        parted.len()
    );
    assert!(rounding <= ROUNDING);
    assert!(widest <= NEAR_TIE);
    assert!(differ.max(parted.len()) as f32 <= SHARE * dense.len() as f32);
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    check(&smollm2());
}

#[test]
#[ignore = "needs a model of 250 MB: scripts/test --all"]
fn gemma3_agrees_with_llama_cpp() {
    check(&gemma3());
}
