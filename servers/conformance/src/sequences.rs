//! Sequences in steps: what one computes depends neither on the others nor on how its prompt is cut.

use crate::tiny::{VOCABULARY, tokens};
use loadtest_shell::{Engine, Rows};

/// Root of the mean square of the difference, over that of the first.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| x * x;
    (a.iter().zip(b).map(|(a, b)| square(a - b)).sum::<f32>() / a.iter().map(|a| square(*a)).sum::<f32>())
        .sqrt()
}

/// One step, and the logits of each entry that wants them.
pub fn step(engine: &mut dyn Engine, batch: &[Rows<'_>]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    engine.step(batch, &mut logits).expect("a step that makes sense");
    logits
        .chunks(engine.info().vocabulary)
        .map(<[f32]>::to_vec)
        .collect()
}

fn rows(slot: usize, position: usize, tokens: &[u32]) -> Rows<'_> {
    Rows {
        slot,
        position,
        tokens,
        logits: true,
    }
}

/// All checks on one model; `bound` is how far logits may be apart where sums come in another order.
pub fn check(engine: &mut dyn Engine, what: &str, bound: f32) {
    a_sequence_computes_in_a_batch_what_it_does_alone(engine, what, bound);
    a_prompt_in_chunks_gives_what_it_gives_at_once(engine, what, bound);
    a_freed_slot_remembers_nothing(engine, what);
    rows_that_make_no_sense_are_refused_and_the_model_goes_on(engine);
}

fn a_sequence_computes_in_a_batch_what_it_does_alone(engine: &mut dyn Engine, what: &str, bound: f32) {
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| tokens(i, 3 + 17 * i)).collect();
    let next: Vec<u32> = (0..5).map(|i| 7 + i).collect();
    let alone: Vec<Vec<Vec<f32>>> = (0..5)
        .map(|i| {
            engine.prepare(1, 128).expect("room for one sequence");
            let first = step(engine, &[rows(0, 0, &prompts[i])]);
            let second = step(engine, &[rows(0, prompts[i].len(), &next[i..=i])]);
            [first, second].concat()
        })
        .collect();
    engine.prepare(5, 128).expect("room for five sequences");
    // Slot 4 starts one step late and mixes its prefill with the others' decoding; slot 2's first logits are not
    // wanted.
    let prompt = |slot: usize| Rows {
        logits: slot != 2,
        ..rows(slot, 0, &prompts[slot])
    };
    let decode = |slot: usize| rows(slot, prompts[slot].len(), &next[slot..=slot]);
    let first = step(engine, &[prompt(3), prompt(0), prompt(2), prompt(1)]);
    let second = step(engine, &[decode(0), prompt(4), decode(2), decode(3), decode(1)]);
    let first = first.iter().zip([(3, 0), (0, 0), (1, 0)]);
    let second = second.iter().zip([(0, 1), (4, 0), (2, 1), (3, 1), (1, 1)]);
    for (logits, (slot, at)) in first.chain(second) {
        let distance = distance(&alone[slot][at], logits);
        assert!(distance <= bound, "{what}, slot {slot}, step {at}: {distance}");
    }
}

fn a_prompt_in_chunks_gives_what_it_gives_at_once(engine: &mut dyn Engine, what: &str, bound: f32) {
    let prompt = tokens(9, 100);
    engine.prepare(2, 128).expect("room for two sequences");
    let whole = step(engine, &[rows(0, 0, &prompt)]);
    let mut position = 0;
    let mut last = Vec::new();
    for chunk in [1, 30, 2, 50, 17] {
        last = step(engine, &[rows(1, position, &prompt[position..position + chunk])]);
        position += chunk;
    }
    let distance = distance(&whole[0], &last[0]);
    assert!(distance <= bound, "{what}: {distance}");
}

fn a_freed_slot_remembers_nothing(engine: &mut dyn Engine, what: &str) {
    let (long, short) = (tokens(1, 90), tokens(2, 20));
    engine.prepare(1, 128).expect("room for one sequence");
    let fresh = step(engine, &[rows(0, 0, &short)]);
    engine.free(0);
    step(engine, &[rows(0, 0, &long)]);
    engine.free(0);
    assert_eq!(step(engine, &[rows(0, 0, &short)]), fresh, "{what}");
}

fn rows_that_make_no_sense_are_refused_and_the_model_goes_on(engine: &mut dyn Engine) {
    engine.prepare(2, 32).expect("room for two sequences");
    let mut logits = Vec::new();
    let long = tokens(1, 33);
    for (batch, message) in [
        (vec![rows(0, 5, &[1])], "holds 0 tokens"),
        (vec![rows(2, 0, &[1])], "no slot 2"),
        (vec![rows(0, 0, &[])], "no tokens"),
        (vec![rows(0, 0, &[VOCABULARY as u32])], "vocabulary"),
        (vec![rows(0, 0, &long)], "context"),
        (vec![rows(1, 0, &[1]), rows(1, 1, &[1])], "twice"),
    ] {
        let error = engine.step(&batch, &mut logits).expect_err("refused").to_string();
        assert!(error.contains(message), "{error}");
    }
    assert_eq!(step(engine, &[rows(1, 0, &[1, 2])]).len(), 1);
}
