//! The JSON report that guidellm writes (its version 2): an engine of ours, a benchmark for each of its steps.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::measure::result::{Latency, RunResult, StepResult};

/// What guidellm would have reported of this engine. Its inter-token latency is the mean gap of a request (our TPOT), its
/// request latency is in seconds.
pub(super) fn engine(run: &RunResult, engine: &str) -> Value {
    let started = run.started_at.parse::<DateTime<Utc>>().unwrap_or_default();
    let started_s = started.timestamp_millis() as f64 / 1e3;
    let steps = run.steps.iter().filter(|step| step.facts.engine == engine);
    let benchmarks = steps
        .enumerate()
        .map(|(index, step)| benchmark(index, step, started_s));
    json!({ "metadata": { "version": 2 }, "benchmarks": benchmarks.collect::<Vec<_>>() })
}

fn benchmark(index: usize, step: &StepResult, started_s: f64) -> Value {
    let users = step.facts.users;
    let start_s = started_s + step.facts.window_start_ns.unwrap_or(0) as f64 / 1e9;
    json!({
        "type_": "generative_benchmark",
        "config": {
            "run_index": index,
            "strategy": { "type_": "concurrent", "streams": users, "max_concurrency": users },
        },
        "metrics": metrics(step),
        "start_time": start_s,
        "end_time": start_s + step.window_s,
        "duration": step.window_s,
        "warmup_duration": 0.0,
        "cooldown_duration": 0.0,
    })
}

fn metrics(step: &StepResult) -> Value {
    let (requests, tokens) = (step.requests, &step.tokens);
    let per_request = |count: u64| count as f64 / requests.ok.max(1) as f64;
    let input_tps = step.output_tps * tokens.input as f64 / tokens.output.max(1) as f64;
    let mut metrics = Map::new();
    metrics.insert(
        "request_totals".into(),
        json!({
            "successful": requests.ok,
            "errored": requests.failed,
            "incomplete": requests.sent - requests.ok - requests.failed,
            "total": requests.sent,
        }),
    );
    let means = [
        ("requests_per_second", step.request_rps),
        ("request_concurrency", step.concurrency.observed),
        ("output_tokens_per_second", step.output_tps),
        ("prompt_tokens_per_second", input_tps),
        ("tokens_per_second", input_tps + step.output_tps),
        ("prompt_token_count", per_request(tokens.input)),
        ("output_token_count", per_request(tokens.output)),
    ];
    metrics.extend(means.map(|(name, mean)| (name.into(), json!({ "successful": { "mean": mean } }))));
    let latencies = [
        ("request_latency", &step.e2el_ms, 1e-3),
        ("time_to_first_token_ms", &step.ttft_ms, 1.0),
        ("time_to_first_output_token_ms", &step.ttfo_ms, 1.0),
        ("inter_token_latency_ms", &step.tpot_ms, 1.0),
    ];
    metrics
        .extend(latencies.map(|(name, latency, unit)| {
            (name.into(), json!({ "successful": distribution(latency, unit) }))
        }));
    Value::Object(metrics)
}

/// A distribution in milliseconds times `unit`.
fn distribution(latency: &Latency, unit: f64) -> Value {
    let in_unit = |ms: Option<f64>| ms.map(|ms| ms * unit);
    json!({
        "mean": in_unit(latency.mean),
        "median": in_unit(latency.p50),
        "std_dev": in_unit(latency.sd),
        "variance": in_unit(latency.sd).map(|sd| sd * sd),
        "min": in_unit(latency.min),
        "max": in_unit(latency.max),
        "count": latency.n,
        "percentiles": {
            "p50": in_unit(latency.p50),
            "p75": in_unit(latency.p75),
            "p90": in_unit(latency.p90),
            "p95": in_unit(latency.p95),
            "p99": in_unit(latency.p99),
            "p999": in_unit(latency.p999),
        },
    })
}
