//! Tiny models with random weights, in every architecture that a `config.json` can name.

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::path::Path;

const HIDDEN: usize = 64;
const FFN: usize = 96;
/// Entries of the vocabulary.
pub const VOCABULARY: usize = 150;
const LAYERS: usize = 6;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;

/// The `model_type`s: Llama with scaled rotary frequencies, Mistral with a window in every layer, Qwen 2 with biases,
/// Gemma 3 with windows in most.
pub const KINDS: [&str; 4] = ["llama", "mistral", "qwen2", "gemma3_text"];

fn config(kind: &str) -> Value {
    json!({"model_type": kind, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": FFN, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512, "rope_theta": 10000.0, "sliding_window": 20, "query_pre_attn_scalar": 32,
        "rope_scaling": if kind == "llama" { json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}) } else { Value::Null }})
}

/// Names, shapes and standard deviations of a model's tensors.
fn tensors(kind: &str) -> Vec<(String, Vec<usize>, f32)> {
    let (query, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let gemma = kind == "gemma3_text";
    let mut tensors = vec![
        (
            "model.embed_tokens.weight".to_owned(),
            vec![VOCABULARY, HIDDEN],
            0.5,
        ),
        ("model.norm.weight".to_owned(), vec![HIDDEN], 0.5),
    ];
    if !gemma {
        tensors.push(("lm_head.weight".to_owned(), vec![VOCABULARY, HIDDEN], 0.2));
    }
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, outputs, inputs) in [
            ("self_attn.q_proj", query, HIDDEN),
            ("self_attn.k_proj", kv, HIDDEN),
            ("self_attn.v_proj", kv, HIDDEN),
            ("self_attn.o_proj", HIDDEN, query),
            ("mlp.gate_proj", FFN, HIDDEN),
            ("mlp.up_proj", FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ] {
            tensors.push((name(&format!("{part}.weight")), vec![outputs, inputs], 0.12));
            if kind == "qwen2" && part != "self_attn.o_proj" && part.starts_with("self") {
                tensors.push((name(&format!("{part}.bias")), vec![outputs], 0.5));
            }
        }
        let mut norms = vec![("input_layernorm", HIDDEN), ("post_attention_layernorm", HIDDEN)];
        if gemma {
            norms.extend([
                ("pre_feedforward_layernorm", HIDDEN),
                ("post_feedforward_layernorm", HIDDEN),
                ("self_attn.q_norm", HEAD_DIM),
                ("self_attn.k_norm", HEAD_DIM),
            ]);
        }
        for (norm, width) in norms {
            tensors.push((name(&format!("{norm}.weight")), vec![width], 0.5));
        }
    }
    tensors
}

/// Writes a model as Hugging Face does, its numbers as `dtype`: F32, F16 or BF16. It is always the same one.
pub fn write(folder: &Path, kind: &str, dtype: Dtype) {
    let mut random = ChaCha8Rng::seed_from_u64(kind.len() as u64);
    // Twelve uniform numbers are about a normal one.
    let mut normal = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
    let tensors: Vec<_> = tensors(kind)
        .into_iter()
        .map(|(name, shape, deviation)| {
            let numbers = (0..shape.iter().product::<usize>()).map(|_| normal() * deviation);
            let bytes: Vec<u8> = match dtype {
                Dtype::F16 => numbers.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
                Dtype::BF16 => numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
                _ => numbers.flat_map(f32::to_le_bytes).collect(),
            };
            (name, shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(dtype, shape.clone(), bytes);
        (name, view.expect("as many bytes as the shape says"))
    });
    std::fs::write(folder.join("config.json"), config(kind).to_string()).expect("a writable folder");
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))
        .expect("a writable folder");
}

/// Some tokens of the vocabulary.
pub fn tokens(seed: u32, len: u32) -> Vec<u32> {
    (0..len)
        .map(|i| (seed * 31 + i * i * 7 + i * 13) % VOCABULARY as u32)
        .collect()
}
