//! Logits and greedy choices against llama.cpp's on the same weights, dequantised to f32 on both sides.

use loadtest_burn::engine::{Burn, Options};
use loadtest_conformance::agreement::{Case, check_exact, follow, gemma3, smollm2};
use loadtest_conformance::model;

fn check(case: &Case) {
    let options = Options {
        dtype: None,
        device: "cpu".into(),
        threads: 2,
    };
    let mut engine = Burn::load(&model(case.name), case.name, &options).unwrap();
    check_exact(&follow(&mut engine, case), case);
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
