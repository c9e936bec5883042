//! What one step of the load leaves behind: histograms and counts, mergeable without loss.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::histogram::empty;
use super::live::Buckets;
use super::rows::Rows;
use super::{Latencies, Outcome, TokenSource, Window};

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
    /// These gaps, counted in buckets of 3 %.
    pub gaps: Buckets,
}

/// What kept the client from running, in nanoseconds over the window. Absent where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contention {
    /// The load's threads were ready to run and did not, summed over them.
    pub run_queue_ns: Option<u64>,
    /// The hypervisor took a processor away, averaged over all of them.
    pub steal_ns: Option<u64>,
    /// Some task of the machine waited for a processor (PSI).
    pub pressure_ns: Option<u64>,
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
    /// These requests one by one, in so far as the intervals need them.
    pub rows: Rows,
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
    /// Streams between their first and last token that 95 % of the looks inside the window, one every 50 ms, do not exceed.
    pub streaming_p95: u32,
    /// Requests sent inside the window that met every SLO given.
    pub good: Option<u64>,
    /// Output events that arrived inside the window.
    pub events_in_window: u64,
    /// Those of them that the kernel did not stamp: their arrival is the instant of their read.
    pub unstamped_events: u64,
    /// Read lag in nanoseconds: kernel arrival to user-space read, per stamped event, over the window.
    pub read_lag: Histogram<u64>,
    /// Of the window's events that share their stamp with a later one of their stream: nanoseconds since the stamp
    /// before, a bound on how much earlier they came.
    pub shared_stamps: Histogram<u64>,
    /// Send lag in nanoseconds: from the instant a request was due to the instant it was sent, less the set-up of a
    /// connection in between; over the requests sent inside the window, but those sent a second time.
    pub send_lag: Histogram<u64>,
    /// Nanoseconds from the instant that stands as `sent` to the first write, of the requests sent inside the window.
    pub sending: Histogram<u64>,
    /// Whether arrivals are the kernel's stamps (`true`) or the instant read() returned.
    pub kernel_stamps: bool,
    /// How far the kernel's stamps may be off on the run's clock, in nanoseconds: the largest of the requests sent
    /// inside the window. Absent where no request had stamps, and where a record is computed from `requests.jsonl`.
    pub stamp_error_ns: Option<u64>,
    /// CPU nanoseconds that the client's threads (outside Linux: its whole process) used during the window.
    pub client_cpu_ns: u64,
    /// Threads that drove the load.
    pub client_threads: u32,
    /// What kept the client's threads from running during the window.
    pub contention: Contention,
    /// Steps of the wall clock that were seen and survived during the step.
    pub clock_steps: u32,
    /// Users that had not ended the requests of their warm-up when the window opened.
    pub cold_users: u32,
    /// The seconds of the step, in order.
    pub seconds: Vec<Second>,
    /// Requests of the whole step that were sent a second time, because the server had closed their kept-alive
    /// connection before a byte of an answer.
    pub resent: u64,
    /// Requests as `goose` counted them: (succeeded, failed). A cross-check of `all_outcomes`.
    pub goose_requests: (u64, u64),
}

impl StepRecord {
    /// A record of nothing yet.
    pub fn empty(window: Window, users: u32) -> StepRecord {
        StepRecord {
            window,
            users,
            latencies: Latencies::default(),
            rows: Rows::default(),
            outcomes: BTreeMap::new(),
            all_outcomes: BTreeMap::new(),
            completed_in_window: 0,
            output_tokens_in_window: 0.0,
            input_tokens: 0,
            output_tokens: 0,
            all_events: 0,
            all_output_tokens: 0,
            token_sources: Vec::new(),
            in_flight_ns: 0,
            streaming_ns: 0,
            streaming_p95: 0,
            good: None,
            events_in_window: 0,
            unstamped_events: 0,
            read_lag: empty(),
            shared_stamps: empty(),
            send_lag: empty(),
            sending: empty(),
            kernel_stamps: false,
            stamp_error_ns: None,
            client_cpu_ns: 0,
            client_threads: 0,
            contention: Contention::default(),
            clock_steps: 0,
            cold_users: 0,
            seconds: Vec::new(),
            resent: 0,
            goose_requests: (0, 0),
        }
    }
}
