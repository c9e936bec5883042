//! The candle engine: Llama-family and Gemma 3 models, every active sequence in one forward pass.
//!
//! ```text
//! loadtest-weights (GGUF, safetensors) -> linear -> forward_cpu | forward_tensor -> engine
//! ```
//!
//! The linear layers take all rows of a step at once; attention goes over each sequence's own memory.
//! [`forward_cpu`] is the fast path on the CPU; [`forward_tensor`] is written in candle's tensors, for GPUs and for
//! weights in other forms.

pub mod attention;
pub mod engine;
pub mod forward_cpu;
pub mod forward_tensor;
pub mod kv;
pub mod linear;
pub mod math;
pub mod pool;
mod widen;

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
