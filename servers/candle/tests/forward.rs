//! The two forward passes on tiny random models, in every architecture that a `config.json` can name.

use candle_core::{DType, Device, Tensor};
use loadtest_candle::Forward;
use loadtest_candle::forward_cpu::CpuForward;
use loadtest_candle::forward_tensor::TensorForward;
use loadtest_candle::linear::Kernel;
use loadtest_candle::linear::tensor::Form;
use loadtest_candle::source::Source;
use loadtest_shell::Rows;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

const HIDDEN: usize = 64;
const FFN: usize = 96;
const VOCABULARY: usize = 150;
const LAYERS: usize = 6;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 32;

fn config(kind: &str) -> Value {
    json!({"model_type": kind, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": FFN, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512, "rope_theta": 10000.0, "sliding_window": 20, "query_pre_attn_scalar": 32,
        "rope_scaling": if kind == "llama" { json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}) } else { Value::Null }})
}

/// Writes a model with random weights as Hugging Face does.
fn write_model(folder: &Path, kind: &str, dtype: DType) {
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize], std: f32| {
        let tensor = Tensor::randn(0f32, std, shape, &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        tensors.insert(name, tensor);
    };
    let (query, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    add("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN], 0.5);
    add("model.norm.weight".into(), &[HIDDEN], 0.5);
    if kind != "gemma3_text" {
        add("lm_head.weight".into(), &[VOCABULARY, HIDDEN], 0.2);
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
            add(name(&format!("{part}.weight")), &[outputs, inputs], 0.12);
            if kind == "qwen2" && part != "self_attn.o_proj" && part.starts_with("self") {
                add(name(&format!("{part}.bias")), &[outputs], 0.5);
            }
        }
        let mut norms = vec![("input_layernorm", HIDDEN), ("post_attention_layernorm", HIDDEN)];
        if kind == "gemma3_text" {
            norms.extend([
                ("pre_feedforward_layernorm", HIDDEN),
                ("post_feedforward_layernorm", HIDDEN),
            ]);
            norms.extend([("self_attn.q_norm", HEAD_DIM), ("self_attn.k_norm", HEAD_DIM)]);
        }
        for (norm, width) in norms {
            add(name(&format!("{norm}.weight")), &[width], 0.5);
        }
    }
    std::fs::write(folder.join("config.json"), config(kind).to_string()).unwrap();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

fn step(model: &mut dyn Forward, batch: &[Rows<'_>]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    model.step(batch, &mut logits).unwrap();
    logits.chunks(model.vocabulary()).map(<[f32]>::to_vec).collect()
}

/// Root of the mean square of the difference, over that of the first.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let square = |x: f32| x * x;
    (a.iter().zip(b).map(|(a, b)| square(a - b)).sum::<f32>() / a.iter().map(|a| square(*a)).sum::<f32>())
        .sqrt()
}

fn tokens(seed: u32, len: u32) -> Vec<u32> {
    (0..len)
        .map(|i| (seed * 31 + i * i * 7 + i * 13) % VOCABULARY as u32)
        .collect()
}

const KINDS: [&str; 4] = ["llama", "mistral", "qwen2", "gemma3_text"];

/// Calls `check` with every kind of model in every form; `exact` says whether sums come in the same order.
fn with_models(check: impl Fn(&str, &mut dyn Forward, f32)) {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        write_model(folder.path(), kind, DType::F32);
        let source = || Source::open(folder.path()).unwrap();
        let mut cpu = CpuForward::load(&mut source(), Kernel::available()[0], 2).unwrap();
        check(kind, &mut cpu, 1e-6);
        for form in [Form::Dense(DType::F32), Form::Q8] {
            // candle's products split their sums by the size of the matrix.
            let bound = if form == Form::Q8 { 0.02 } else { 1e-4 };
            check(
                kind,
                &mut TensorForward::load(&mut source(), form, &Device::Cpu).unwrap(),
                bound,
            );
        }
    }
}

#[test]
fn both_forward_passes_agree() {
    for (kind, dtype) in KINDS
        .into_iter()
        .zip([DType::F32, DType::BF16, DType::F16, DType::BF16])
    {
        let folder = tempfile::tempdir().unwrap();
        write_model(folder.path(), kind, dtype);
        let prompt = tokens(3, 50);
        let batch = [Rows {
            slot: 0,
            position: 0,
            tokens: &prompt,
            logits: true,
        }];
        let source = || Source::open(folder.path()).unwrap();
        let mut logits = Vec::new();
        for form in [Form::Dense(DType::F32), Form::Q8] {
            let mut model = TensorForward::load(&mut source(), form, &Device::Cpu).unwrap();
            model.prepare(1, 64).unwrap();
            logits.push(step(&mut model, &batch).remove(0));
        }
        for kernel in Kernel::available() {
            let mut model = CpuForward::load(&mut source(), kernel, 2).unwrap();
            model.prepare(1, 64).unwrap();
            logits.push(step(&mut model, &batch).remove(0));
        }
        for other in &logits[1..] {
            // What remains is the eight bits of weights and activations, through six layers.
            assert!(
                distance(&logits[0], other) < 0.08,
                "{kind}: {}",
                distance(&logits[0], other)
            );
        }
    }
}

#[test]
fn a_sequence_computes_in_a_batch_what_it_does_alone() {
    with_models(|kind, model, bound| {
        let prompts: Vec<Vec<u32>> = (0..5).map(|i| tokens(i, 3 + 17 * i)).collect();
        let next: Vec<u32> = (0..5).map(|i| 7 + i).collect();
        let alone: Vec<Vec<Vec<f32>>> = (0..5)
            .map(|i| {
                model.prepare(1, 128).unwrap();
                let first = step(
                    model,
                    &[Rows {
                        slot: 0,
                        position: 0,
                        tokens: &prompts[i],
                        logits: true,
                    }],
                );
                let position = prompts[i].len();
                [
                    first,
                    step(
                        model,
                        &[Rows {
                            slot: 0,
                            position,
                            tokens: &next[i..=i],
                            logits: true,
                        }],
                    ),
                ]
                .concat()
            })
            .collect();
        model.prepare(5, 128).unwrap();
        // Slot 4 starts one step late and mixes its prefill with the others' decoding; slot 2's first logits are not
        // wanted.
        let rows = |slot: usize| Rows {
            slot,
            position: 0,
            tokens: &prompts[slot],
            logits: slot != 2,
        };
        let first = step(model, &[rows(3), rows(0), rows(2), rows(1)]);
        let decode = |slot: usize| Rows {
            slot,
            position: prompts[slot].len(),
            tokens: &next[slot..=slot],
            logits: true,
        };
        let second = step(model, &[decode(0), rows(4), decode(2), decode(3), decode(1)]);
        let pairs = [(&first[0], 3, 0), (&first[1], 0, 0), (&first[2], 1, 0)];
        let later = [
            (&second[0], 0, 1),
            (&second[1], 4, 0),
            (&second[2], 2, 1),
            (&second[3], 3, 1),
            (&second[4], 1, 1),
        ];
        for (logits, slot, at) in pairs.into_iter().chain(later) {
            let distance = distance(&alone[slot][at], logits);
            assert!(distance <= bound, "{kind}, slot {slot}, step {at}: {distance}");
        }
    });
}

#[test]
fn a_prompt_in_chunks_gives_what_it_gives_at_once() {
    with_models(|kind, model, bound| {
        let prompt = tokens(9, 100);
        model.prepare(2, 128).unwrap();
        let whole = step(
            model,
            &[Rows {
                slot: 0,
                position: 0,
                tokens: &prompt,
                logits: true,
            }],
        );
        let mut position = 0;
        let mut last = Vec::new();
        for chunk in [1, 30, 2, 50, 17] {
            let tokens = &prompt[position..position + chunk];
            last = step(
                model,
                &[Rows {
                    slot: 1,
                    position,
                    tokens,
                    logits: true,
                }],
            );
            position += chunk;
        }
        let distance = distance(&whole[0], &last[0]);
        assert!(distance <= bound, "{kind}: {distance}");
    });
}

#[test]
fn a_freed_slot_remembers_nothing() {
    with_models(|kind, model, _| {
        let (long, short) = (tokens(1, 90), tokens(2, 20));
        model.prepare(1, 128).unwrap();
        let rows = |tokens| {
            [Rows {
                slot: 0,
                position: 0,
                tokens,
                logits: true,
            }]
        };
        let fresh = step(model, &rows(&short));
        model.free(0);
        step(model, &rows(&long));
        model.free(0);
        assert_eq!(step(model, &rows(&short)), fresh, "{kind}");
    });
}

#[test]
fn rows_that_make_no_sense_are_refused_and_the_model_goes_on() {
    with_models(|_, model, _| {
        model.prepare(2, 32).unwrap();
        let rows = |slot, position, tokens| Rows {
            slot,
            position,
            tokens,
            logits: true,
        };
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
            let error = model.step(&batch, &mut logits).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        assert_eq!(step(model, &[rows(1, 0, &[1, 2])]).len(), 1);
    });
}

#[test]
fn a_file_that_is_no_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut.gguf");
    std::fs::write(&file, b"GGUF\x03\0\0\0").unwrap();
    for path in [&file, folder.path(), &folder.path().join("missing.gguf")] {
        let error = Source::open(path)
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}
