//! What `/metrics` tells, by prometheus-client.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The model ended, or a stop text appeared.
    Stop,
    /// The most tokens were generated, or the context is full.
    Length,
    /// The client went away.
    Cancelled,
    /// The engine failed.
    Failed,
    /// It was not taken in.
    Refused,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let word = match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Refused => "refused",
        };
        word.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// The server's counters. One set a server; sharing it is cheap.
pub struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabel, Counter>,
    /// Requests that generate.
    pub running: Gauge,
    /// Requests that wait for a slot.
    pub waiting: Gauge,
    /// Tokens of prompts taken in.
    pub prompt_tokens: Counter,
    /// Tokens generated.
    pub generated_tokens: Counter,
    /// Seconds a step of the engine took.
    pub step_seconds: Histogram,
    /// Token rows of a step.
    pub step_rows: Histogram,
    /// Sequences of a step.
    pub step_sequences: Histogram,
    /// Bytes of KV memory that hold tokens.
    pub kv_bytes: Gauge<i64>,
    /// Bytes of KV memory there can be.
    pub kv_bytes_bound: Gauge<i64>,
    /// Seconds the engine computed, summed.
    pub busy_seconds: Counter<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let powers = |length| exponential_buckets(1.0, 2.0, length);
        let metrics = Self {
            registry: Registry::with_prefix("loadtest"),
            requests: Family::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            step_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            step_rows: Histogram::new(powers(13)),
            step_sequences: Histogram::new(powers(11)),
            kv_bytes: Gauge::default(),
            kv_bytes_bound: Gauge::default(),
            busy_seconds: Counter::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        r.register("requests", "Requests by how they ended", self.requests.clone());
        r.register("requests_running", "Requests that generate", self.running.clone());
        r.register(
            "requests_waiting",
            "Requests that wait for a slot",
            self.waiting.clone(),
        );
        r.register(
            "prompt_tokens",
            "Tokens of prompts taken in",
            self.prompt_tokens.clone(),
        );
        r.register(
            "generated_tokens",
            "Tokens generated",
            self.generated_tokens.clone(),
        );
        r.register_with_unit(
            "step",
            "Time a step of the engine took",
            Unit::Seconds,
            self.step_seconds.clone(),
        );
        r.register("step_rows", "Token rows of a step", self.step_rows.clone());
        r.register(
            "step_sequences",
            "Sequences of a step",
            self.step_sequences.clone(),
        );
        r.register_with_unit(
            "kv",
            "KV memory that holds tokens",
            Unit::Bytes,
            self.kv_bytes.clone(),
        );
        r.register_with_unit(
            "kv_bound",
            "KV memory there can be",
            Unit::Bytes,
            self.kv_bytes_bound.clone(),
        );
        r.register_with_unit(
            "busy",
            "Time the engine computed",
            Unit::Seconds,
            self.busy_seconds.clone(),
        );
        self
    }

    /// Counts the end of a request.
    pub fn ended(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Counts a request in a gauge while it lives, so that no way out of the server can leave it there.
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more in `gauge`.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
