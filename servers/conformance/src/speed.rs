//! Tokens a second of whole steps.

use loadtest_shell::{Engine, Rows};
use std::time::Instant;

const PROMPT: usize = 64;
const STEPS: usize = 12;
const SEQUENCES: [usize; 4] = [1, 4, 16, 64];

/// Prints the table's head.
pub fn head() {
    println!(
        "{:<24}{:>8}{:>10}{:>8}{:>8}{:>8}{:>8}",
        "weights", "MB", "prefill", "1", "4", "16", "64"
    );
}

/// Prints one line: megabytes of weights, and tokens a second of a prompt and of 1 to 64 sequences that decode. Each
/// holds 64 to 112 tokens; the figure is that of the fastest step, which other work on the machine disturbs least.
pub fn line(engine: &mut dyn Engine) {
    let most = SEQUENCES[SEQUENCES.len() - 1];
    let mut logits = Vec::new();
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|i| 100 + i * 7).collect();
    let info = engine.info();
    print!("{:<24}{:>8}", info.weights, info.weights_bytes / 1_000_000);
    engine
        .prepare(most, PROMPT + STEPS * SEQUENCES.len())
        .expect("room for all sequences");
    let mut seconds = |batch: &[Rows<'_>]| {
        let start = Instant::now();
        engine.step(batch, &mut logits).expect("a step that makes sense");
        start.elapsed().as_secs_f64()
    };
    let rows = |slot, position, tokens| Rows {
        slot,
        position,
        tokens,
        logits: true,
    };
    let prefill = (0..most).map(|slot| seconds(&[rows(slot, 0, &prompt)]));
    print!("{:>10.0}", PROMPT as f64 / prefill.fold(f64::MAX, f64::min));
    let mut positions = vec![PROMPT; most];
    for sequences in SEQUENCES {
        let mut best = f64::MAX;
        for _ in 0..STEPS {
            let slots = positions.iter().take(sequences).enumerate();
            let batch: Vec<_> = slots
                .map(|(slot, &position)| rows(slot, position, &[500]))
                .collect();
            best = best.min(seconds(&batch));
            positions
                .iter_mut()
                .take(sequences)
                .for_each(|position| *position += 1);
        }
        print!("{:>8.0}", sequences as f64 / best);
    }
    println!();
}
