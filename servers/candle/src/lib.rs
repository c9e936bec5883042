//! The candle engine: Llama-family and Gemma 3 models, every active sequence in one forward pass.
//!
//! ```text
//! source (GGUF, safetensors) -> config, weights -> forward_cpu | forward_tensor -> engine
//! ```
//!
//! The linear layers take all rows of a step at once; attention goes over each sequence's own memory.
//! [`forward_cpu`] is the fast path on the CPU; [`forward_tensor`] is written in candle's tensors, for GPUs and for
//! weights in other forms.

pub mod attention;
pub mod config;
pub mod engine;
pub mod forward_cpu;
pub mod forward_tensor;
pub mod kv;
pub mod linear;
pub mod math;
pub mod pool;
pub mod source;
pub mod weights;
mod widen;

use anyhow::ensure;
use loadtest_shell::Rows;

/// A loaded model that computes steps. The methods are those of [`loadtest_shell::Engine`].
pub trait Forward: Send {
    /// Entries of the vocabulary.
    fn vocabulary(&self) -> usize;

    /// Memory that the weights take.
    fn weights_bytes(&self) -> u64;

    /// KV memory that a position of a sequence takes.
    fn kv_bytes_per_token(&self) -> u64;

    /// Makes room for `parallel` sequences of up to `context` tokens.
    ///
    /// # Errors
    /// If the device has no such memory.
    fn prepare(&mut self, parallel: usize, context: usize) -> anyhow::Result<()>;

    /// Computes all rows of `batch`, and the logits that it wants.
    ///
    /// # Errors
    /// If a row does not continue its sequence or the computation fails.
    fn step(&mut self, batch: &[Rows<'_>], logits: &mut Vec<f32>) -> anyhow::Result<()>;

    /// Forgets a sequence.
    fn free(&mut self, slot: usize);
}

/// The rows of a step, to be checked before anything is computed.
struct Batch<'a>(&'a [Rows<'a>]);

impl Batch<'_> {
    /// That each entry has tokens of the vocabulary and continues the sequence in its slot, which no other entry does.
    fn check(
        &self,
        context: usize,
        vocabulary: usize,
        len: impl Fn(usize) -> Option<usize>,
    ) -> anyhow::Result<()> {
        let mut slots: Vec<usize> = self.0.iter().map(|rows| rows.slot).collect();
        slots.sort_unstable();
        ensure!(
            slots.is_sorted_by(|a, b| a < b),
            "a slot is in the batch twice: {slots:?}"
        );
        for rows in self.0 {
            let Some(len) = len(rows.slot) else {
                anyhow::bail!("there is no slot {}", rows.slot);
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
                anyhow::bail!("token {token} of slot {slot} is not in the vocabulary of {vocabulary}");
            }
        }
        Ok(())
    }
}
