//! What an inference engine must be able to do to be served: run one step over rows of tokens.

use anyhow::{bail, ensure};

/// What an engine says of itself once its model is loaded.
#[derive(Debug, Clone, serde::Serialize)]
pub struct EngineInfo {
    /// The engine's name, as in `candle`.
    pub engine: String,
    /// The version of the library that does the computing.
    pub version: String,
    /// The name the model is served under.
    pub model: String,
    /// How the weights are held: `q8`, `affine8`, `f32`, `bf16`, ...
    pub weights: String,
    /// Bytes of memory the weights take.
    pub weights_bytes: u64,
    /// Bytes of KV memory that one token of one sequence takes.
    pub kv_bytes_per_token: u64,
    /// The longest sequence the model was trained for, in tokens.
    pub max_context: usize,
    /// Entries of the vocabulary; the length of one row of logits.
    pub vocabulary: usize,
    /// `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// Threads that compute (CPU), else 0.
    pub threads: usize,
}

/// A run of tokens of one sequence that one step has to compute: one row when the sequence decodes,
/// a bounded chunk when it is in its prefill.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Which sequence; `0..parallel`.
    pub slot: usize,
    /// Position of the first of `tokens` in its sequence: as many tokens are in the slot's KV memory already.
    pub position: usize,
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Whether the logits after the last of `tokens` are wanted.
    pub logits: bool,
}

/// A model that computes one step for many sequences at once.
///
/// The scheduler calls it from one thread. Sequences are told apart by their slot; the engine keeps one KV
/// memory a slot, reserved before the first step.
pub trait Engine: Send + 'static {
    /// What is loaded, and how.
    fn info(&self) -> EngineInfo;

    /// Makes room for `parallel` sequences of up to `context` tokens, so that no step has to ask the system for KV
    /// memory. Called once, before the first step, and only if the machine's memory is large enough.
    ///
    /// # Errors
    /// If the device has no such memory.
    fn prepare(&mut self, parallel: usize, context: usize) -> anyhow::Result<()>;

    /// Computes every row of `batch` in one forward pass, appends their keys and values to their slots' memory,
    /// and writes the logits of each entry that wants them to `logits`, one vocabulary-long row after the other,
    /// in the order of `batch`. `logits` is cleared first.
    ///
    /// # Errors
    /// If the computation fails; the scheduler then fails the sequences of this batch and goes on.
    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()>;

    /// Forgets the sequence in `slot`; its KV memory is free again for another.
    fn free(&mut self, slot: usize);
}

/// Checks, before a step computes anything, that each entry of its batch has tokens of the vocabulary and continues
/// the sequence in its slot, which no other entry does. `len` says how many tokens a slot holds, if there is such a
/// slot; `context` is the most it may.
///
/// # Errors
/// If one does not; the message names the slot.
pub fn check_batch(
    batch: &[Rows<'_>],
    context: usize,
    vocabulary: usize,
    len: impl Fn(usize) -> Option<usize>,
) -> anyhow::Result<()> {
    let mut slots: Vec<usize> = batch.iter().map(|rows| rows.slot).collect();
    slots.sort_unstable();
    ensure!(
        slots.is_sorted_by(|a, b| a < b),
        "a slot is in the batch twice: {slots:?}"
    );
    for rows in batch {
        let Some(len) = len(rows.slot) else {
            bail!("there is no slot {}", rows.slot);
        };
        let (slot, position, tokens) = (rows.slot, rows.position, rows.tokens.len());
        ensure!(tokens > 0, "slot {slot} has no tokens to compute");
        ensure!(
            position <= len,
            "slot {slot} holds {len} tokens; its next cannot be at {position}"
        );
        ensure!(
            position + tokens <= context,
            "slot {slot} would outgrow its context of {context} tokens"
        );
        if let Some(token) = rows.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            bail!("token {token} of slot {slot} is not in the vocabulary of {vocabulary}");
        }
    }
    Ok(())
}
