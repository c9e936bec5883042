//! The JSON that vLLM's serving benchmark writes with `--save-result` for one run: a step of ours.

use serde_json::{Map, Value, json};

use crate::measure::result::{Latency, RunResult, StepResult};

/// What it would have saved of this step. Its ITL is the raw gap between two chunks (our ICL).
pub(super) fn step(run: &RunResult, step: &StepResult) -> Value {
    let started = run
        .started_at
        .parse::<chrono::DateTime<chrono::Utc>>()
        .unwrap_or_default();
    let tokens = step.tokens.input + step.tokens.output;
    let total = step.output_tps * tokens as f64 / step.tokens.output.max(1) as f64;
    let mut saved = Map::new();
    let summary = json!({
        "date": started.format("%Y%m%d-%H%M%S").to_string(),
        "backend": "openai-chat",
        "model_id": run.model.name,
        "tokenizer_id": run.model.name,
        "num_prompts": step.requests.sent,
        "request_rate": step.facts.rate.map_or(json!("inf"), |rate| json!(rate)),
        "burstiness": 1.0,
        "max_concurrency": step.facts.users,
        "duration": step.window_s,
        "completed": step.requests.ok,
        "total_input_tokens": step.tokens.input,
        "total_output_tokens": step.tokens.output,
        "request_throughput": step.request_rps,
        "request_goodput": step.goodput_rps,
        "output_throughput": step.output_tps,
        "total_token_throughput": total,
    });
    saved.extend(summary.as_object().cloned().unwrap_or_default());
    for (name, latency) in [
        ("ttft", &step.ttft_ms),
        ("tpot", &step.tpot_ms),
        ("itl", &step.icl_ms),
        ("e2el", &step.e2el_ms),
    ] {
        saved.extend(figures(name, latency));
    }
    Value::Object(saved)
}

fn figures(name: &str, latency: &Latency) -> impl Iterator<Item = (String, Value)> {
    let figures = [
        ("mean", latency.mean),
        ("median", latency.p50),
        ("std", latency.sd),
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p95", latency.p95),
        ("p99", latency.p99),
    ];
    figures
        .map(|(figure, ms)| (format!("{figure}_{name}_ms"), json!(ms)))
        .into_iter()
}
