//! Logits and greedy choices against llama.cpp's on the same weights, dequantised to f32 on both sides.

use loadtest_burn::engine::{Burn, Options};
use loadtest_conformance::agreement::{Exact, Fixture, check_exact, follow, gemma3, smollm2};
use loadtest_conformance::model;

/// `bound`: how far log probabilities may be from llama.cpp's.
fn check((fixture, exact): (Fixture, Exact), name: &str, bound: f64) {
    let options = Options {
        dtype: None,
        device: "cpu".into(),
        threads: 2,
    };
    let mut engine = Burn::load(&model(name), name, &options).unwrap();
    check_exact(&follow(&mut engine, &fixture, &exact), &exact, bound);
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    check(smollm2(), "smollm2", 0.002);
}

/// llama.cpp takes GELU from a table of half floats; the bound is its step.
#[test]
#[ignore = "needs a model of 250 MB: scripts/test --all"]
fn gemma3_agrees_with_llama_cpp() {
    check(gemma3(), "gemma-3-270m", 0.03);
}
