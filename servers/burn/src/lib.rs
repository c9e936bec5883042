//! The burn engine: Llama-family and Gemma 3 models, every active sequence in one forward pass.
//!
//! ```text
//! loadtest-weights (GGUF, safetensors) -> linear -> forward (rows, attention over groups of the cache) -> engine
//! ```
//!
//! The linear layers take all rows of a step at once; attention goes over each sequence's own memory, neighbours
//! together. All of it is burn's tensor operations, so the same code runs on every backend.

pub mod attention;
pub mod engine;
pub mod forward;
pub mod groups;
pub mod linear;
