//! What one step of the load leaves behind: histograms and counts, mergeable without loss.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::{Outcome, TokenSource};

/// The measurement window of a step, in nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The last user had started and the warm-up was over.
    pub start_ns: u64,
    /// The load started to stop.
    pub end_ns: u64,
}

/// Latency histograms in nanoseconds, 3 significant digits, over the requests sent inside the window that succeeded.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Time to first token: `first - sent`.
    pub ttft: Histogram<u64>,
    /// `first - due`.
    pub ttft_from_due: Histogram<u64>,
    /// Time to first visible output: `first_visible - sent`.
    pub ttfo: Histogram<u64>,
    /// Time to second token: `second - first`.
    pub ttst: Histogram<u64>,
    /// Inter-token latency: each gap divided by the later event's tokens, counted once per token.
    pub itl: Histogram<u64>,
    /// Inter-chunk latency: the raw gaps.
    pub icl: Histogram<u64>,
    /// Time per output token of each request.
    pub tpot: Histogram<u64>,
    /// End-to-end latency: `last - sent`.
    pub e2el: Histogram<u64>,
    /// Connection set-up of the requests that opened one.
    pub connect: Histogram<u64>,
}

/// One second of a step, for the timeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Start of the second, in whole seconds since the start of the run.
    pub at_s: u64,
    /// Users started.
    pub users: u32,
    /// Requests in flight at the end of the second.
    pub in_flight: u32,
    /// Streams past their first token at the end of the second.
    pub streaming: u32,
    /// Output tokens that arrived in this second.
    pub output_tokens: u64,
    /// Output events that arrived in this second.
    pub events: u64,
    /// Requests sent in this second.
    pub sent: u64,
    /// Requests whose stream ended well in this second.
    pub ok: u64,
    /// Requests that failed in this second.
    pub failed: u64,
    /// Median and 99th percentile, in nanoseconds within 3 %, of the TTFT of first tokens that arrived in this second.
    pub ttft_ns: Option<(u64, u64)>,
    /// The same of the gaps between output events that ended in this second.
    pub itl_ns: Option<(u64, u64)>,
}

/// Everything one step measured. Shards of one step merge into one record.
#[derive(Debug, Clone)]
pub struct StepRecord {
    /// The measurement window.
    pub window: Window,
    /// Users of the step.
    pub users: u32,
    /// Latencies over the requests sent inside the window.
    pub latencies: Latencies,
    /// Requests sent inside the window, by how they ended.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Requests of the whole step (ramp, warm-up and drain too), by how they ended.
    pub all_outcomes: BTreeMap<Outcome, u64>,
    /// Requests whose last output event arrived inside the window.
    pub completed_in_window: u64,
    /// Output tokens whose event arrived inside the window.
    pub output_tokens_in_window: f64,
    /// Input tokens of the requests sent inside the window that succeeded.
    pub input_tokens: u64,
    /// Output tokens of the requests sent inside the window that succeeded.
    pub output_tokens: u64,
    /// Output events of the whole step, to be held against the server's own count.
    pub all_events: u64,
    /// Output tokens of the whole step.
    pub all_output_tokens: u64,
    /// Where the counts of output tokens came from, by number of requests.
    pub token_sources: Vec<(TokenSource, u64)>,
    /// Request-nanoseconds in flight inside the window; divided by its length, the observed concurrency.
    pub in_flight_ns: u128,
    /// Stream-nanoseconds between first and last token inside the window.
    pub streaming_ns: u128,
    /// Requests sent inside the window that met every SLO given.
    pub good: Option<u64>,
    /// Read lag in nanoseconds: kernel arrival to user-space read, per event, over the window.
    pub read_lag: Histogram<u64>,
    /// Send lag in nanoseconds: `sent - due` of each request, over the window.
    pub send_lag: Histogram<u64>,
    /// Whether arrivals are the kernel's stamps (`true`) or the instant read() returned.
    pub kernel_stamps: bool,
    /// How far the kernel's stamps may be off on the run's clock, in nanoseconds: the largest of the requests sent
    /// inside the window. Absent where no request had stamps, and where a record is computed from `requests.jsonl`.
    pub stamp_error_ns: Option<u64>,
    /// CPU nanoseconds that the client's threads (outside Linux: its whole process) used during the window.
    pub client_cpu_ns: u64,
    /// The seconds of the step, in order.
    pub seconds: Vec<Second>,
    /// Requests of the whole step that were sent a second time, because the server had closed their kept-alive
    /// connection before a byte of an answer.
    pub resent: u64,
    /// Requests as `goose` counted them: (succeeded, failed). A cross-check of `all_outcomes`.
    pub goose_requests: (u64, u64),
}
