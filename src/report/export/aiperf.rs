//! The JSON that aiperf writes for one run (`profile_export_aiperf.json`, its schema 1.4): a step of ours.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::measure::result::{Latency, RunResult, Status, StepResult};
use crate::report::words::snake;

/// What aiperf would have written of this step. Its inter-token latency is the mean gap of a request (our TPOT), its
/// inter-chunk latency the raw gap (our ICL). Percentiles that we do not keep are left out.
pub(super) fn step(run: &RunResult, step: &StepResult) -> Value {
    let mut out = Map::new();
    let latencies = [
        ("request_latency", &step.e2el_ms),
        ("time_to_first_token", &step.ttft_ms),
        ("time_to_first_output_token", &step.ttfo_ms),
        ("time_to_second_token", &step.ttst_ms),
        ("inter_token_latency", &step.tpot_ms),
        ("inter_chunk_latency", &step.icl_ms),
    ];
    out.extend(latencies.map(|(name, latency)| (name.to_owned(), latency_ms(latency))));
    let tokens = &step.tokens;
    let per_output = step.output_tps / tokens.output.max(1) as f64;
    let single = [
        ("request_throughput", "requests/sec", step.request_rps),
        ("request_count", "requests", step.requests.ok as f64),
        ("completed_request_count", "requests", step.requests.ok as f64),
        ("output_token_throughput", "tokens/sec", step.output_tps),
        (
            "input_token_throughput",
            "tokens/sec",
            per_output * tokens.input as f64,
        ),
        (
            "total_token_throughput",
            "tokens/sec",
            per_output * (tokens.input + tokens.output) as f64,
        ),
        ("benchmark_duration", "sec", step.window_s),
        ("total_output_tokens", "tokens", tokens.output as f64),
        ("total_osl", "tokens", tokens.output as f64),
        ("total_isl", "tokens", tokens.input as f64),
        (
            "request_error_rate",
            "%",
            100.0 * step.requests.failed as f64 / step.requests.sent.max(1) as f64,
        ),
        ("effective_concurrency", "requests", step.concurrency.observed),
    ];
    out.extend(single.map(|(name, unit, avg)| (name.to_owned(), json!({ "unit": unit, "avg": avg }))));
    let started: DateTime<Utc> = run.started_at.parse().unwrap_or_default();
    let opened = started + TimeDelta::nanoseconds(step.facts.window_start_ns.unwrap_or(0) as i64);
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
    let errors = step.errors.iter();
    let errors = errors.map(|(kind, n)| json!({ "error_details": { "type": snake(kind) }, "count": n }));
    let rest = json!({
        "schema_version": "1.4",
        "was_cancelled": run.status == Status::Interrupted,
        "is_complete": run.status == Status::Done,
        "error_summary": errors.collect::<Vec<_>>(),
        "start_time": time(opened),
        "end_time": time(opened + TimeDelta::nanoseconds((step.window_s * 1e9) as i64)),
        "input_config": {
            "models": { "items": [{ "name": run.model.name }] },
            "endpoint": { "type": "chat", "streaming": true },
            "datasets": [{
                "name": "main",
                "prompts": {
                    "isl": { "mean": step.facts.isl.mean },
                    "osl": { "mean": step.facts.osl.mean },
                },
            }],
        },
    });
    out.extend(rest.as_object().cloned().unwrap_or_default());
    Value::Object(out)
}

fn latency_ms(latency: &Latency) -> Value {
    json!({
        "unit": "ms",
        "avg": latency.mean,
        "p50": latency.p50,
        "p75": latency.p75,
        "p90": latency.p90,
        "p95": latency.p95,
        "p99": latency.p99,
        "min": latency.min,
        "max": latency.max,
        "std": latency.sd,
        "count": latency.n,
    })
}
