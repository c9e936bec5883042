//! What a model looks like: the numbers of its architecture, from GGUF metadata or a `config.json`.

use anyhow::{Context, bail};
use loadtest_model::gguf::Gguf;
use serde_json::Value as Json;

/// Which architecture, as far as it decides what a tensor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama and Mistral; Qwen 2 is the same with a bias on query, key and value.
    Llama,
    /// Gemma 3: norms around both halves of a layer and on queries and keys, two kinds of attention.
    Gemma3,
}

/// What the gate of a feed-forward layer goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU in its tanh form.
    Gelu,
}

/// Which numbers of a head the rotary embedding turns together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// `2i` and `2i + 1`: how GGUF stores Llama's heads.
    Adjacent,
    /// `i` and `i + head_dim / 2`: everywhere else.
    Halves,
}

/// A model's architecture.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which architecture.
    pub family: Family,
    /// Width of a token's state.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads that query.
    pub heads: usize,
    /// Heads that keep keys and values; each serves `heads / kv_heads` queries.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Longest sequence it was trained for, in tokens.
    pub context: usize,
    /// Added to the mean square in a norm.
    pub norm_eps: f32,
    /// Of the feed-forward gate.
    pub activation: Activation,
    /// How heads are turned.
    pub pairs: Pairs,
    /// Radians a position for each pair of a head.
    pub rope: Vec<f32>,
    /// The same for layers with a window.
    pub local_rope: Vec<f32>,
    /// Positions that a layer with a window sees, itself included.
    pub window: Option<usize>,
    /// For each layer, whether it has a window.
    pub windowed: Vec<bool>,
    /// Factor on the embedding.
    pub embedding_scale: f32,
    /// Factor on queries.
    pub query_scale: f32,
    /// Whether the file's norm weights lack the 1 that Gemma adds.
    pub norm_plus_one: bool,
}

/// Gemma 3's layers, where the file doesn't say: five with a window, then one without.
fn every_sixth_without(layers: usize) -> Vec<bool> {
    (1..=layers).map(|layer| layer % 6 != 0).collect()
}

fn inverse_frequencies(base: f32, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| f64::from(base).powf(-2.0 * i as f64 / head_dim as f64) as f32)
        .collect()
}

impl Config {
    /// Reads GGUF metadata. Divisors of the rotary frequencies lie in a tensor: see
    /// [`divide_rope`](Self::divide_rope).
    ///
    /// # Errors
    /// If the architecture is not one we compute, or a key is missing.
    pub fn from_gguf(gguf: &Gguf) -> anyhow::Result<Self> {
        let arch = gguf
            .architecture()
            .context("the GGUF file has no general.architecture")?;
        let family = match arch {
            "llama" | "qwen2" => Family::Llama,
            "gemma3" => Family::Gemma3,
            other => bail!("architecture {other:?} is not supported: llama, qwen2 and gemma3 are"),
        };
        let value = |key: &str| gguf.get(&format!("{arch}.{key}"));
        let number = |key: &str| {
            value(key)
                .and_then(|value| usize::try_from(value.as_u64()?).ok())
                .with_context(|| format!("the GGUF file has no {arch}.{key}"))
        };
        let float = |key: &str| Some(value(key)?.as_f64()? as f32);
        let (hidden, layers, heads) = (
            number("embedding_length")?,
            number("block_count")?,
            number("attention.head_count")?,
        );
        if heads == 0 {
            bail!("the GGUF file has {arch}.attention.head_count = 0");
        }
        let head_dim = number("attention.key_length").unwrap_or(hidden / heads);
        let gemma = family == Family::Gemma3;
        let mut rope = inverse_frequencies(
            float("rope.freq_base").unwrap_or(if gemma { 1e6 } else { 1e4 }),
            head_dim,
        );
        if value("rope.scaling.type").and_then(|kind| kind.as_str()) == Some("linear") {
            let factor =
                float("rope.scaling.factor").context("rope.scaling.type is linear without a factor")?;
            rope.iter_mut().for_each(|frequency| *frequency /= factor);
        }
        let config = Self {
            family,
            hidden,
            layers,
            heads,
            kv_heads: number("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            ffn: number("feed_forward_length")?,
            context: number("context_length")?,
            norm_eps: float("attention.layer_norm_rms_epsilon")
                .with_context(|| format!("the GGUF file has no {arch}.attention.layer_norm_rms_epsilon"))?,
            activation: if gemma { Activation::Gelu } else { Activation::Silu },
            pairs: if arch == "llama" {
                Pairs::Adjacent
            } else {
                Pairs::Halves
            },
            rope,
            local_rope: inverse_frequencies(1e4, head_dim),
            window: if gemma {
                number("attention.sliding_window").ok()
            } else {
                None
            },
            windowed: if gemma {
                every_sixth_without(layers)
            } else {
                vec![false; layers]
            },
            embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
            query_scale: (head_dim as f32).powf(-0.5),
            norm_plus_one: false,
        };
        config.check()
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// If the architecture is not one we compute, or a key is missing.
    pub fn from_json(json: &Json) -> anyhow::Result<Self> {
        let kind = json["model_type"]
            .as_str()
            .context("config.json has no model_type")?;
        let family = match kind {
            "llama" | "mistral" | "qwen2" => Family::Llama,
            "gemma3_text" => Family::Gemma3,
            other => {
                bail!("model_type {other:?} is not supported: llama, mistral, qwen2 and gemma3_text are")
            }
        };
        let number = |key: &str| {
            json[key]
                .as_u64()
                .map(|n| n as usize)
                .with_context(|| format!("config.json has no number {key}"))
        };
        let float = |key: &str| json[key].as_f64().map(|x| x as f32);
        let gemma = family == Family::Gemma3;
        let (hidden, layers, heads) = (
            number("hidden_size")?,
            number("num_hidden_layers")?,
            number("num_attention_heads")?,
        );
        let head_dim = number("head_dim").unwrap_or(hidden / heads.max(1));
        let theta = float("rope_theta").unwrap_or(if gemma { 1e6 } else { 1e4 });
        let mut rope = inverse_frequencies(theta, head_dim);
        scale_rope(&mut rope, &json["rope_scaling"])?;
        let windowed = match (&json["layer_types"], gemma) {
            (Json::Array(types), true) => types.iter().map(|kind| kind == "sliding_attention").collect(),
            (_, true) => every_sixth_without(layers),
            // Mistral's first version has a window in every layer.
            _ => vec![kind == "mistral" && json["sliding_window"].is_u64(); layers],
        };
        let local_theta = if gemma {
            float("rope_local_base_freq").unwrap_or(1e4)
        } else {
            theta
        };
        Self {
            family,
            hidden,
            layers,
            heads,
            kv_heads: number("num_key_value_heads").unwrap_or(heads),
            head_dim,
            ffn: number("intermediate_size")?,
            context: number("max_position_embeddings")?,
            norm_eps: float("rms_norm_eps").context("config.json has no number rms_norm_eps")?,
            activation: if gemma { Activation::Gelu } else { Activation::Silu },
            pairs: Pairs::Halves,
            rope,
            local_rope: inverse_frequencies(local_theta, head_dim),
            window: number("sliding_window").ok().filter(|_| windowed.contains(&true)),
            windowed,
            embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
            query_scale: float("query_pre_attn_scalar")
                .unwrap_or(head_dim as f32)
                .powf(-0.5),
            norm_plus_one: gemma,
        }
        .check()
    }

    /// Divides the rotary frequencies, one divisor a pair (Llama 3's `rope_freqs`).
    ///
    /// # Errors
    /// If there is another number of them.
    pub fn divide_rope(&mut self, divisors: &[f32]) -> anyhow::Result<()> {
        if divisors.len() != self.rope.len() {
            bail!(
                "{} divisors for {} rotary frequencies",
                divisors.len(),
                self.rope.len()
            );
        }
        self.rope
            .iter_mut()
            .zip(divisors)
            .for_each(|(frequency, divisor)| *frequency /= divisor);
        Ok(())
    }

    /// Width of all queries of a token.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all keys, and of all values, of a token.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The window of a layer, if it has one.
    pub fn window_of(&self, layer: usize) -> Option<usize> {
        self.window.filter(|_| self.windowed[layer])
    }

    fn check(self) -> anyhow::Result<Self> {
        let sizes = [
            self.hidden,
            self.layers,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.ffn,
            self.context,
        ];
        if sizes.contains(&0) || self.windowed.len() != self.layers {
            bail!("the model's sizes make no sense: {self:?}");
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(16) {
            bail!(
                "{} heads of {} over {} KV heads are not supported: heads must be a multiple of KV heads, their \
                 width one of 16",
                self.heads,
                self.head_dim,
                self.kv_heads
            );
        }
        Ok(self)
    }
}

/// Applies `rope_scaling` of a config.json: linear, or Llama 3's, which slows low frequencies, leaves high ones
/// and goes from one to the other between (Hugging Face transformers, `modeling_rope_utils`).
fn scale_rope(rope: &mut [f32], scaling: &Json) -> anyhow::Result<()> {
    if scaling.is_null() {
        return Ok(());
    }
    let kind = scaling["rope_type"]
        .as_str()
        .or(scaling["type"].as_str())
        .unwrap_or("default");
    let float = |key: &str| {
        scaling[key]
            .as_f64()
            .map(|x| x as f32)
            .with_context(|| format!("rope_scaling in config.json has no {key}"))
    };
    match kind {
        "default" => {}
        "linear" => {
            let factor = float("factor")?;
            rope.iter_mut().for_each(|frequency| *frequency /= factor);
        }
        "llama3" => {
            let (factor, low, high) = (
                float("factor")?,
                float("low_freq_factor")?,
                float("high_freq_factor")?,
            );
            let context = float("original_max_position_embeddings")?;
            for frequency in rope {
                let turns = context * *frequency / std::f32::consts::TAU;
                let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                *frequency *= smooth + (1.0 - smooth) / factor;
            }
        }
        other => bail!("rope_scaling {other:?} in config.json is not supported: linear and llama3 are"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn llama() -> Json {
        json!({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0})
    }

    #[test]
    fn llama3_scaling_keeps_high_and_slows_low_frequencies() {
        let plain = Config::from_json(&llama()).unwrap();
        let mut json = llama();
        json["rope_scaling"] = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let scaled = Config::from_json(&json).unwrap();
        assert_eq!(plain.head_dim, 16);
        assert_eq!(scaled.rope[0], plain.rope[0]);
        assert!((scaled.rope[7] * 32.0 - plain.rope[7]).abs() < 1e-9);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (key, value, message) in [
            ("rms_norm_eps", Json::Null, "rms_norm_eps"),
            ("model_type", json!("gpt2"), "gpt2"),
            ("num_key_value_heads", json!(3), "KV heads"),
            ("rope_scaling", json!({"rope_type": "yarn"}), "yarn"),
        ] {
            let mut json = llama();
            json[key] = value;
            let error = Config::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
