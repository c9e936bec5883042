//! What the embedded engines share: a model's architecture and its weights, out of GGUF or safetensors.
//!
//! ```text
//! source (GGUF, safetensors) -> config, tensors -> weights, in the form that an engine builds
//! ```
//!
//! Nothing is computed here; each engine multiplies in its own way.

pub mod blocks;
pub mod config;
pub mod rope;
pub mod source;
pub mod tensor;
pub mod weights;
