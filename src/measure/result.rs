//! The versioned result of a run, `run.json`. Keys are a promise to scripts: see `results/README.md`.
//!
//! `results/schema.json` is generated from these types. Raise [`SCHEMA_VERSION`] when a key changes its meaning or
//! goes away; a new key needs no new version.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::calibration::Calibrations;
use super::{Outcome, TokenSource};

/// Version of the layout of `run.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// Everything that one run found out.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "run.json of loadtest")]
pub struct RunResult {
    /// Version of this layout.
    pub schema_version: u32,
    /// Version of the program that measured.
    pub loadtest_version: String,
    /// Wall-clock start of the run, RFC 3339, UTC. Instants in `requests.jsonl` count from here.
    pub started_at: String,
    /// Wall-clock end of the run; absent while it runs, and for ever when it was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// How far the run came.
    pub status: Status,
    /// The effective profile: every setting of the run, defaults filled in.
    pub profile: Map<String, Value>,
    /// The machine that generated the load.
    pub machine: Map<String, Value>,
    /// The model that the engines served.
    pub model: ModelResult,
    /// The engines in the order of the run; `engine` in `steps` and in `requests.jsonl` is their name.
    pub engines: Vec<EngineResult>,
    /// The finished steps in the order of the run.
    pub steps: Vec<StepResult>,
    /// The step under way when this file was written; left in place when the run was killed inside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<StepFacts>,
    /// What the client's own error was before and after the load; absent when the run was told not to calibrate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibrations>,
    /// Requests that were measured and counted but are missing from `requests.jsonl`: the disk was too slow.
    #[serde(default)]
    pub request_lines_lost: u64,
    /// What a reader must know about these figures, in words.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl RunResult {
    /// A run that starts now and has measured nothing yet.
    pub fn new(started_at: DateTime<Utc>, profile: Map<String, Value>) -> RunResult {
        RunResult {
            schema_version: SCHEMA_VERSION,
            loadtest_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: started_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            finished_at: None,
            status: Status::Running,
            profile,
            machine: Map::new(),
            model: ModelResult::default(),
            engines: Vec::new(),
            steps: Vec::new(),
            unfinished: None,
            calibration: None,
            request_lines_lost: 0,
            notes: Vec::new(),
        }
    }

    /// Name of the profile, if the profile carries one.
    pub fn profile_name(&self) -> Option<&str> {
        self.profile.get("name").and_then(Value::as_str)
    }
}

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is under way, or was killed.
    Running,
    /// Every step was tried.
    Done,
    /// The user interrupted it; what was measured until then is here.
    Interrupted,
    /// It could not go on; what was measured until then is here.
    Failed,
}

/// The model under test.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ModelResult {
    /// Its name as the servers call it.
    pub name: String,
    /// Where it lay, when it was a file of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// SHA-256 of the file, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash: Option<String>,
    /// Size of the file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Format and quantisation, such as `gguf Q4_1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// One engine of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct EngineResult {
    /// Name, unique in the run.
    pub name: String,
    /// `embedded`, `spawned`, `bridge` or `attach`.
    pub kind: String,
    /// Its version, where it tells.
    pub version: Option<String>,
    /// The settings that the server really had (`parallel`, `context`, `threads`, weights, memory and others).
    pub effective: Map<String, Value>,
    /// Seconds from the start of its process until its model answered.
    pub load_s: Option<f64>,
    /// How its process ended: `stopped` by us, `exit 1`, `signal 9`; absent for a server that runs on.
    pub exit: Option<String>,
    /// What went wrong with it, when something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<EngineFailure>,
    /// File of the run directory that holds the server's own output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Why an engine could not be measured, or not to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineFailure {
    /// What happened, in words.
    pub message: String,
    /// How the process ended, if it did.
    pub exit: Option<String>,
    /// The last lines that it wrote.
    pub log_tail: Vec<String>,
}

/// A sequence length in tokens, as it was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct SequenceLength {
    /// Mean.
    pub mean: u32,
    /// Standard deviation; 0 for a fixed length.
    pub stddev: u32,
}

/// What is known of a step before it has measured anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepFacts {
    /// Number of the step in the run, from 0; `step` in `requests.jsonl`.
    pub step: u16,
    /// Name of the engine.
    pub engine: String,
    /// Which repeat of the same step this is, from 0.
    pub repeat: u32,
    /// Concurrent users.
    pub users: u32,
    /// Planned arrivals per second (open loop); absent when users send as they become free (closed loop).
    pub rate: Option<f64>,
    /// Input sequence length asked for.
    pub isl: SequenceLength,
    /// Output sequence length asked for.
    pub osl: SequenceLength,
    /// When the measurement window opened, in nanoseconds since the start of the run; absent before.
    #[serde(default)]
    pub window_start_ns: Option<u64>,
}

/// One step: one engine under one load.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StepResult {
    /// What was asked for.
    #[serde(flatten)]
    pub facts: StepFacts,
    /// Length of the measurement window in seconds.
    pub window_s: f64,
    /// What a reader must know before believing the figures.
    pub verdicts: Vec<Verdict>,
    /// Requests sent inside the window.
    pub requests: Requests,
    /// Requests of the whole step: ramp, warm-up and drain too.
    pub requests_all: Requests,
    /// Failures among the requests sent inside the window, by kind.
    pub errors: BTreeMap<Outcome, u64>,
    /// Tokens of the requests sent inside the window that succeeded.
    pub tokens: Tokens,
    /// Events with output over the whole step, to be held against the server's own count.
    pub events: u64,
    /// Output tokens over the whole step.
    pub output_tokens_all: u64,
    /// Output tokens that arrived inside the window, per second.
    pub output_tps: f64,
    /// 95 % interval of `output_tps` by batch means over the window's whole seconds (at most 20 batches, Student's
    /// t); absent for windows under 10 s.
    pub output_tps_ci95: Option<[f64; 2]>,
    /// Requests whose last output arrived inside the window, per second.
    pub request_rps: f64,
    /// Requests sent inside the window that met every SLO, per second of the window; absent when no SLO was given.
    pub goodput_rps: Option<f64>,
    /// Users claimed and users seen.
    pub concurrency: Concurrency,
    /// Time to first token: `first - sent`.
    pub ttft_ms: Latency,
    /// Time to first token from the instant the request was due.
    pub ttft_from_due_ms: Latency,
    /// Time to first visible output (not reasoning).
    pub ttfo_ms: Latency,
    /// Time from the first to the second token event.
    pub ttst_ms: Latency,
    /// Inter-token latency: gaps divided by the later event's tokens, once per token.
    pub itl_ms: Latency,
    /// Inter-chunk latency: raw gaps between output events.
    pub icl_ms: Latency,
    /// Time per output token of each request after its first event.
    pub tpot_ms: Latency,
    /// End-to-end latency: `last - sent`.
    pub e2el_ms: Latency,
    /// Connection set-up of the requests that opened one.
    pub connect_ms: Latency,
    /// TTFT over all requests sent inside the window, a failed one counting as infinite (`null`).
    pub ttft_with_failures_ms: WithFailures,
    /// E2EL over all requests sent inside the window, a failed one counting as infinite (`null`).
    pub e2el_with_failures_ms: WithFailures,
    /// The client's own error and cost.
    pub client: ClientResult,
    /// What the server's processes used during the window; absent when they were out of sight.
    pub server: Option<ServerResult>,
    /// Throughput against the step of the same engine and shape with the fewest users.
    pub scaling: Option<Scaling>,
    /// Requests of the whole step that were sent a second time, on a new connection: the server had closed the
    /// kept-alive one before a byte of an answer.
    #[serde(default)]
    pub resent: u64,
    /// Requests as goose counted them, a cross-check of `requests_all`.
    pub goose: Option<GooseCount>,
    /// The step was cut short and its figures were computed again from `requests.jsonl`.
    #[serde(default)]
    pub recomputed: bool,
}

/// Requests by how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requests {
    /// All of them.
    pub sent: u64,
    /// Those that succeeded.
    pub ok: u64,
    /// Those that did not.
    pub failed: u64,
}

/// Tokens, and who counted them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Tokens {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Where most requests' counts came from.
    pub source: Option<TokenSource>,
    /// Requests by the source of their counts, when there is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<(TokenSource, u64)>,
}

/// Users claimed and users seen.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
pub struct Concurrency {
    /// Users of the step.
    pub claimed: u32,
    /// Requests in flight, averaged over the window.
    pub observed: f64,
    /// Streams past their first token, averaged over the window.
    pub streaming: f64,
    /// What Little's law makes of throughput and latency: `request_rps` times the mean E2EL in seconds.
    pub littles_law: Option<f64>,
}

/// A latency distribution in milliseconds. Every figure is `null` when `n` is 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Samples.
    pub n: u64,
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Standard deviation.
    pub sd: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 75th percentile.
    pub p75: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// 99.9th percentile.
    pub p999: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// 95 % intervals.
    pub ci95: Intervals,
    /// Percentiles that rest on too few samples to be trusted (p90: 64, p99: 662, p999: 6,636 are needed).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub few_samples: Vec<String>,
}

/// 95 % confidence intervals in milliseconds. Both methods take the samples as independent; samples of one run are
/// correlated, so the true intervals are wider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Intervals {
    /// Of the median: order statistics at the ranks of the exact binomial distribution.
    pub p50: Option<[f64; 2]>,
    /// Of the 99th percentile, likewise; absent below 367 samples, where no order statistic bounds it from above.
    pub p99: Option<[f64; 2]>,
    /// Of the mean: normal approximation, `mean ± 1.96 sd / sqrt(n)`.
    pub mean: Option<[f64; 2]>,
}

/// Percentiles in milliseconds when a failed request counts as infinite; `null` is infinite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WithFailures {
    /// Requests, failed ones included.
    pub n: u64,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// How far the client can be trusted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ClientResult {
    /// Whose clock stamps arrivals.
    pub stamp: Stamp,
    /// From the kernel's arrival of an event to its read by the client.
    pub read_lag_ms: Lag,
    /// From the instant a request was due to the instant it was sent.
    pub send_lag_ms: Lag,
    /// The error of arrivals that remains in the latencies: with `read` stamps the read lag's p99; with `kernel`
    /// stamps how far the kernel's clock could be told from the run's clock, at worst. Absent when nothing measured
    /// it. The instant of sending has no error of its own: it is stamped before the write, so that TTFT and E2EL
    /// include what the write takes.
    pub error_p99_ms: Option<f64>,
    /// CPU seconds of the client's threads during the window.
    pub cpu_s: f64,
    /// CPU of the client per output event of the window's share, in microseconds.
    pub cpu_us_per_event: Option<f64>,
}

/// Whose clock stamps the arrival of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stamp {
    /// The kernel's receive timestamp.
    Kernel,
    /// The instant read() returned.
    Read,
}

/// A lag in milliseconds; `null` without samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Lag {
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// What the server's process tree used during the window.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ServerResult {
    /// CPU seconds.
    pub cpu_s: f64,
    /// Largest resident set seen, in bytes.
    pub rss_peak_bytes: u64,
    /// One entry per GPU.
    #[serde(default)]
    pub gpu: Vec<GpuResult>,
}

/// One GPU during the window.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct GpuResult {
    /// Its name.
    pub name: String,
    /// Mean utilisation in percent.
    pub utilisation_pct: Option<f64>,
    /// Largest memory use seen, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Energy in joules.
    pub energy_j: Option<f64>,
}

/// Throughput of a step against its base.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Scaling {
    /// Users of the base step.
    pub base_users: u32,
    /// `output_tps` over that of the base (the mean over its repeats).
    pub factor: f64,
    /// `factor` over the ratio of users: 1 is linear scaling.
    pub efficiency: f64,
}

/// Requests of the whole step as goose counted them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GooseCount {
    /// Succeeded.
    pub ok: u64,
    /// Failed.
    pub failed: u64,
}

/// What a reader must know before believing a step's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No request succeeded.
    NoSamples,
    /// Some requests failed.
    Errors,
    /// The client's own error is above 1 ms or above 5 % of the median TTFT.
    ClientLimited,
    /// Fewer than 95 % of the users were in flight on average.
    ConcurrencyShort,
    /// Fewer than half of the requests in flight were past their first token: most users waited.
    MostlyWaiting,
    /// Throughput times latency differs from the observed concurrency by more than 5 %: the step was not steady.
    LittlesLaw,
    /// The answers were more than 5 % shorter than asked for.
    ShortOutput,
    /// Output tokens were counted as events: the server told no usage.
    TokensAreEvents,
    /// TTFT's p99 rests on too few requests.
    FewSamples,
    /// Some requests were sent a second time: the server had closed the connection it kept open.
    Resent,
    /// goose counted other numbers of requests than the client.
    GooseMismatch,
}

/// The JSON schema of `run.json`.
pub fn schema() -> Value {
    schemars::schema_for!(RunResult).to_value()
}
