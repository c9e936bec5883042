//! A model's weights, in whatever form a forward pass multiplies with.

use crate::config::{Config, Family};
use crate::source::Source;
use crate::tensor::Raw;

/// Makes matrices of the form `M` out of the file's.
pub trait Build {
    /// The form.
    type Matrix;

    /// One matrix of several with the same inputs, their outputs side by side, plus a bias.
    ///
    /// # Errors
    /// If they have no such form or the device no such memory.
    fn matrix(&mut self, parts: &[Raw<'_>], bias: Option<Vec<f32>>) -> anyhow::Result<Self::Matrix>;
}

/// All weights.
pub struct Weights<M> {
    /// Rows are tokens.
    pub embedding: M,
    /// The output matrix, unless the embedding is it.
    pub output: Option<M>,
    /// Before the output matrix.
    pub norm: Vec<f32>,
    /// One a layer.
    pub layers: Vec<Layer<M>>,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
}

/// The weights of a layer.
pub struct Layer<M> {
    /// Before attention.
    pub attention_norm: Vec<f32>,
    /// Query, key and value.
    pub qkv: M,
    /// On each query head (Gemma).
    pub query_norm: Option<Vec<f32>>,
    /// On each key head (Gemma).
    pub key_norm: Option<Vec<f32>>,
    /// What attention's result goes through.
    pub attention_output: M,
    /// After attention (Gemma).
    pub attention_post_norm: Option<Vec<f32>>,
    /// Before the feed-forward half.
    pub ffn_norm: Vec<f32>,
    /// Gate and up.
    pub gate_up: M,
    /// Back to the hidden width.
    pub down: M,
    /// After the feed-forward half (Gemma).
    pub ffn_post_norm: Option<Vec<f32>>,
}

impl<M> Weights<M> {
    /// Reads them all.
    ///
    /// # Errors
    /// If a tensor is missing or has no such form.
    pub fn load(source: &Source, build: &mut impl Build<Matrix = M>) -> anyhow::Result<Self> {
        let config = source.config().clone();
        let embedding = source.matrix("token_embd.weight", (None, config.hidden))?;
        let vocabulary = embedding.shape[0];
        let output = match source.has("output.weight") {
            true => {
                let raw = source.matrix("output.weight", (Some(vocabulary), config.hidden))?;
                Some(build.matrix(&[raw], None)?)
            }
            false => None,
        };
        Ok(Self {
            embedding: build.matrix(&[embedding], None)?,
            output,
            norm: norm(source, &config, "output_norm.weight", config.hidden)?,
            layers: (0..config.layers)
                .map(|index| load_layer(source, &config, index, build))
                .collect::<anyhow::Result<_>>()?,
            vocabulary,
        })
    }

    /// The matrix that makes logits.
    pub fn output(&self) -> &M {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// All matrices.
    pub fn matrices(&self) -> impl Iterator<Item = &M> {
        let layers = self.layers.iter();
        let layers =
            layers.flat_map(|layer| [&layer.qkv, &layer.attention_output, &layer.gate_up, &layer.down]);
        layers.chain([&self.embedding]).chain(&self.output)
    }
}

fn norm(source: &Source, config: &Config, name: &str, len: usize) -> anyhow::Result<Vec<f32>> {
    let mut weights = source.vector(name, len)?;
    if config.norm_plus_one {
        weights.iter_mut().for_each(|weight| *weight += 1.0);
    }
    Ok(weights)
}

fn load_layer<B: Build>(
    source: &Source,
    config: &Config,
    index: usize,
    build: &mut B,
) -> anyhow::Result<Layer<B::Matrix>> {
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    let (query, kv, hidden) = (config.query_width(), config.kv_width(), config.hidden);
    let mut fused = |parts: &[(&str, usize)], inputs: usize| {
        let raw = parts
            .iter()
            .map(|&(part, outputs)| source.matrix(&name(part), (Some(outputs), inputs)));
        let raw = raw.collect::<anyhow::Result<Vec<_>>>()?;
        let mut bias = Vec::new();
        for &(part, outputs) in parts {
            let name = format!("blk.{index}.{part}.bias");
            if source.has(&name) {
                bias.extend(source.vector(&name, outputs)?);
            }
        }
        let outputs: usize = parts.iter().map(|part| part.1).sum();
        anyhow::ensure!(
            bias.is_empty() || bias.len() == outputs,
            "layer {index} lacks some of its biases"
        );
        build.matrix(&raw, (!bias.is_empty()).then_some(bias))
    };
    let qkv = fused(&[("attn_q", query), ("attn_k", kv), ("attn_v", kv)], hidden)?;
    let attention_output = fused(&[("attn_output", hidden)], query)?;
    let gate_up = fused(&[("ffn_gate", config.ffn), ("ffn_up", config.ffn)], hidden)?;
    let down = fused(&[("ffn_down", hidden)], config.ffn)?;
    let gemma = config.family == Family::Gemma3;
    let norm = |part: &str, len: usize| norm(source, config, &name(part), len);
    Ok(Layer {
        attention_norm: norm("attn_norm", hidden)?,
        qkv,
        query_norm: gemma.then(|| norm("attn_q_norm", config.head_dim)).transpose()?,
        key_norm: gemma.then(|| norm("attn_k_norm", config.head_dim)).transpose()?,
        attention_output,
        attention_post_norm: gemma.then(|| norm("post_attention_norm", hidden)).transpose()?,
        ffn_norm: norm("ffn_norm", hidden)?,
        gate_up,
        down,
        ffn_post_norm: gemma.then(|| norm("post_ffw_norm", hidden)).transpose()?,
    })
}
