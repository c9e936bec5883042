//! Logits and greedy choices against llama.cpp's on the same file.
//!
//! The fixtures hold 20 prompts each with the 32 tokens that llama.cpp chose; every engine is led along them, so that
//! one early difference does not count again, and all 640 choices are compared. The `-f32` fixtures hold what llama.cpp
//! says on the same weights dequantised to f32, where it rounds nothing.

use loadtest_shell::{Engine, Rows};
use serde::Deserialize;

/// A model and llama.cpp's choices on it.
#[derive(Deserialize)]
pub struct Fixture {
    /// What the file is called.
    pub model: String,
    /// With what was chosen.
    pub prompts: Vec<Prompt>,
}

/// A prompt and what llama.cpp said.
#[derive(Deserialize)]
pub struct Prompt {
    /// Of the prompt.
    pub tokens: Vec<u32>,
    /// Chosen, one after the other.
    pub greedy: Vec<u32>,
}

/// What llama.cpp says on f32 weights.
#[derive(Deserialize)]
pub struct Exact {
    /// The likeliest tokens and their log probabilities, for each prompt and each of its tokens.
    pub top: Vec<Vec<Vec<(u32, f64)>>>,
}

/// A model to be led along llama.cpp's choices.
pub struct Case {
    /// What its file's name begins with.
    pub name: &'static str,
    /// llama.cpp's choices.
    pub fixture: Fixture,
    /// And what it says on f32 weights.
    pub exact: Exact,
    /// How far an engine that rounds nothing may be from that, in log probabilities.
    pub bound: f64,
}

/// SmolLM2-135M in Q4_1.
pub fn smollm2() -> Case {
    read(
        "smollm2",
        0.002,
        include_str!("../data/smollm2-135m-instruct.json"),
        include_str!("../data/smollm2-135m-instruct-f32.json"),
    )
}

/// Gemma 3 270M in Q4_K_M. llama.cpp takes GELU from a table of half floats; the bound is its step.
pub fn gemma3() -> Case {
    read(
        "gemma-3-270m",
        0.03,
        include_str!("../data/gemma-3-270m.json"),
        include_str!("../data/gemma-3-270m-f32.json"),
    )
}

fn read(name: &'static str, bound: f64, fixture: &str, exact: &str) -> Case {
    let fixture: Fixture = serde_json::from_str(fixture).expect("a fixture");
    assert!(fixture.prompts.len() >= 20);
    let exact = serde_json::from_str(exact).expect("a fixture");
    Case {
        name,
        fixture,
        exact,
        bound,
    }
}

/// What an engine says at one of the choices.
pub struct Seen {
    /// Its own choice.
    pub best: u32,
    /// How far the logit of llama.cpp's choice is below the best.
    pub gap: f32,
    /// Log probabilities of the tokens of [`Exact`].
    pub likeliest: Vec<f64>,
}

impl Seen {
    fn new(logits: &[f32], choice: u32, exact: &[(u32, f64)]) -> Self {
        let by_logit = |a: &(usize, &f32), b: &(usize, &f32)| a.1.total_cmp(b.1);
        let (best, &largest) = logits.iter().enumerate().max_by(by_logit).expect("logits");
        let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
        let log_probability = |token: u32| f64::from(logits[token as usize] - largest) - sum.ln();
        Self {
            best: best as u32,
            gap: largest - logits[choice as usize],
            likeliest: exact.iter().map(|(token, _)| log_probability(*token)).collect(),
        }
    }
}

/// Leads an engine along llama.cpp's choices, all prompts in one batch.
pub fn follow(engine: &mut dyn Engine, case: &Case) -> Vec<Seen> {
    let (fixture, exact) = (&case.fixture, &case.exact);
    let (prompts, vocabulary) = (&fixture.prompts, engine.info().vocabulary);
    engine.prepare(prompts.len(), 512).expect("room for all prompts");
    let (mut logits, mut seen) = (Vec::new(), Vec::new());
    for index in 0..prompts[0].greedy.len() {
        let rows = prompts.iter().enumerate().map(|(slot, prompt)| {
            let (position, tokens) = match index {
                0 => (0, &prompt.tokens[..]),
                _ => (prompt.tokens.len() + index - 1, &prompt.greedy[index - 1..index]),
            };
            Rows {
                slot,
                position,
                tokens,
                logits: true,
            }
        });
        engine
            .step(&rows.collect::<Vec<_>>(), &mut logits)
            .expect("a step that makes sense");
        let logits = logits.chunks_exact(vocabulary);
        for ((prompt, exact), logits) in prompts.iter().zip(&exact.top).zip(logits) {
            seen.push(Seen::new(logits, prompt.greedy[index], &exact[index]));
        }
    }
    seen
}

/// Checks that an engine which rounds nothing agrees with llama.cpp on f32 weights: log probabilities to the
/// case's bound, and every choice unless llama.cpp's two best are closer than that.
pub fn check_exact(seen: &[Seen], case: &Case) {
    let (exact, bound) = (&case.exact, case.bound);
    let tokens = exact.top[0].len();
    let theirs = (0..tokens).flat_map(|index| exact.top.iter().map(move |prompt| &prompt[index]));
    let (mut furthest, mut ties) = (0f64, 0);
    for (seen, theirs) in seen.iter().zip(theirs) {
        for (ours, (_, theirs)) in seen.likeliest.iter().zip(theirs) {
            furthest = furthest.max((ours - theirs).abs());
        }
        let (best, gap) = (theirs[0].0, theirs[0].1 - theirs[1].1);
        assert!(
            seen.best == best || gap <= bound,
            "{} instead of {best}, which leads by {gap}",
            seen.best
        );
        ties += usize::from(seen.best != best);
    }
    eprintln!(
        "{} choices, {ties} of them other than llama.cpp's at a tie; log probabilities within {furthest:.4}",
        seen.len()
    );
    assert!(furthest <= bound, "{furthest} is more than {bound}");
}
