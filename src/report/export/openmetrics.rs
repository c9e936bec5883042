//! OpenMetrics text: the figures of each step as gauges, for a pushgateway or a file that Prometheus collects.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::measure::result::{Latency, RunResult, StepResult};
use crate::report::words::snake;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
/// Name, help, unit and value of a gauge.
type Plain = (
    &'static str,
    &'static str,
    Option<Unit>,
    fn(&StepResult) -> Option<f64>,
);
/// Name and help of a latency, and where it stands.
type Quantiles = (&'static str, &'static str, fn(&StepResult) -> &Latency);

/// Gauges that need no further label.
const PLAIN: [Plain; 8] = [
    (
        "output_tokens_per_second",
        "Output tokens that arrived in the window, per second",
        None,
        |s| Some(s.output_tps),
    ),
    (
        "requests_per_second",
        "Requests finished in the window, per second",
        None,
        |s| Some(s.request_rps),
    ),
    (
        "goodput_requests_per_second",
        "Requests that met every objective, per second",
        None,
        |s| s.goodput_rps,
    ),
    (
        "in_flight",
        "Requests in flight, averaged over the window",
        None,
        |s| Some(s.concurrency.observed),
    ),
    (
        "window",
        "Length of the measurement window",
        Some(Unit::Seconds),
        |s| Some(s.window_s),
    ),
    (
        "client_error",
        "The client's own error at p99",
        Some(Unit::Seconds),
        |s| s.client.error_p99_ms.map(|ms| ms / 1e3),
    ),
    (
        "server_cpu",
        "CPU time of the server's processes in the window",
        Some(Unit::Seconds),
        |s| s.server.as_ref()?.cpu_s,
    ),
    (
        "server_rss_peak",
        "Largest resident set of the server's processes",
        Some(Unit::Bytes),
        |s| Some(s.server.as_ref()?.rss_peak_bytes? as f64),
    ),
];

/// Latencies, each a gauge with a label `quantile`.
const LATENCIES: [Quantiles; 4] = [
    ("ttft", "Time to first token", |s| &s.ttft_ms),
    ("itl", "Inter-token latency", |s| &s.itl_ms),
    ("tpot", "Time per output token", |s| &s.tpot_ms),
    ("e2el", "End-to-end latency", |s| &s.e2el_ms),
];

/// Every step's figures.
pub(super) fn text(run: &RunResult) -> String {
    let mut registry = Registry::with_prefix("loadtest");
    for (name, help, unit, value) in PLAIN {
        let gauges = gauges(&mut registry, name, help, unit);
        for step in &run.steps {
            set(&gauges, labels(step), value(step));
        }
    }
    for (name, help, latency) in LATENCIES {
        let gauges = gauges(&mut registry, name, help, Some(Unit::Seconds));
        for step in &run.steps {
            for (quantile, ms) in quantiles(latency(step)) {
                let mut labels = labels(step);
                labels.push(("quantile", quantile.to_owned()));
                set(&gauges, labels, ms.map(|ms| ms / 1e3));
            }
        }
    }
    let requests = gauges(
        &mut registry,
        "requests",
        "Requests sent in the window, by how they ended",
        None,
    );
    for step in &run.steps {
        let failed = step.errors.iter().map(|(kind, n)| (snake(kind), *n));
        for (outcome, n) in failed.chain([("ok".to_owned(), step.requests.ok)]) {
            let mut labels = labels(step);
            labels.push(("outcome", outcome));
            set(&requests, labels, Some(n as f64));
        }
    }
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a String cannot fail");
    out
}

fn gauges(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>) -> Gauges {
    let gauges = Gauges::default();
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauges.clone()),
        None => registry.register(name, help, gauges.clone()),
    }
    gauges
}

fn set(gauges: &Gauges, labels: Labels, value: Option<f64>) {
    if let Some(value) = value {
        gauges.get_or_create(&labels).set(value);
    }
}

fn labels(step: &StepResult) -> Labels {
    let facts = &step.facts;
    vec![
        ("engine", facts.engine.clone()),
        ("users", facts.users.to_string()),
        ("isl", facts.isl.mean.to_string()),
        ("osl", facts.osl.mean.to_string()),
        ("repeat", facts.repeat.to_string()),
    ]
}

fn quantiles(latency: &Latency) -> [(&'static str, Option<f64>); 5] {
    [
        ("0.5", latency.p50),
        ("0.9", latency.p90),
        ("0.95", latency.p95),
        ("0.99", latency.p99),
        ("0.999", latency.p999),
    ]
}
