//! Greedy output against llama.cpp's on the same file.
//!
//! The fixtures hold 20 prompts each with the 32 tokens that llama.cpp chose. Both sides quantise activations to
//! eight bits, in their own order of sums and with scales of their own precision, so where two tokens are all but
//! equally likely they may part. There the test asks how far our logits of the two are apart, and goes on along
//! llama.cpp's choice, so that every one of the 640 choices is compared.

use loadtest_candle::Forward;
use loadtest_candle::forward_cpu::CpuForward;
use loadtest_candle::linear::Kernel;
use loadtest_candle::source::Source;
use loadtest_shell::Rows;
use serde::Deserialize;
use std::path::PathBuf;

/// Where a prompt's output first parts from llama.cpp's, the two tokens' logits are at most this far apart.
const NEAR_TIE: f32 = 0.5;
/// And wherever it parts later, along llama.cpp's choice, at most this far.
const LATER: f32 = 1.0;
/// At most so many of the choices may differ.
const SHARE: f32 = 0.05;

#[derive(Deserialize)]
struct Fixture {
    model: String,
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
}

/// The model file, from `LOADTEST_TEST_MODELS` or the cache; none if it isn't on this machine.
fn model(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("LOADTEST_TEST_MODELS") {
        Some(folder) => PathBuf::from(folder),
        None => dirs::cache_dir()?.join("loadtest/models"),
    };
    let files = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    files.into_iter().find(|file| {
        let file_name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        file_name.starts_with(name) && file_name.ends_with(".gguf")
    })
}

fn check(fixture: &str, name: &str) {
    let fixture: Fixture = serde_json::from_str(fixture).unwrap();
    let path = model(name).unwrap_or_else(|| {
        panic!(
            "{} is not on this machine: `loadtest models fetch {name}` gets it",
            fixture.model
        )
    });
    assert!(fixture.prompts.len() >= 20);
    let mut source = Source::open(&path).unwrap();
    let mut model = CpuForward::load(&mut source, Kernel::available()[0], 2).unwrap();
    model.prepare(fixture.prompts.len(), 512).unwrap();
    let (mut ties, mut parted) = (0, 0);
    let mut logits = Vec::new();
    for (slot, prompt) in fixture.prompts.iter().enumerate() {
        let (mut position, mut tokens, mut tied) = (0, &prompt.tokens[..], 0);
        for (index, choice) in prompt.greedy.iter().enumerate() {
            model
                .step(
                    &[Rows {
                        slot,
                        position,
                        tokens,
                        logits: true,
                    }],
                    &mut logits,
                )
                .unwrap();
            (position, tokens) = (position + tokens.len(), std::slice::from_ref(choice));
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let gap = best - logits[*choice as usize];
            if gap > 0.0 {
                tied += 1;
                eprintln!("{:?}, token {index}: {gap:.3} below the best", prompt.prompt);
            }
            let bound = if tied <= 1 { NEAR_TIE } else { LATER };
            assert!(
                gap <= bound,
                "{:?}, token {index}: {choice} is {gap} below the best",
                prompt.prompt
            );
        }
        ties += tied;
        parted += usize::from(tied > 0);
    }
    let choices: usize = fixture.prompts.iter().map(|prompt| prompt.greedy.len()).sum();
    assert!(
        ties as f32 <= SHARE * choices as f32,
        "{ties} of {choices} choices differ"
    );
    eprintln!(
        "{}: {ties} near ties in {parted} of {} prompts",
        fixture.model,
        fixture.prompts.len()
    );
}

#[test]
fn smollm2_agrees_with_llama_cpp() {
    check(include_str!("data/smollm2-135m-instruct.json"), "smollm2");
}

#[test]
#[ignore = "needs a model of 250 MB: scripts/test --all"]
fn gemma3_agrees_with_llama_cpp() {
    check(include_str!("data/gemma-3-270m.json"), "gemma-3-270m");
}
