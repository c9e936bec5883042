//! One step of a run: what was asked for, and what was found out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientResult, Cost, Latency, UnderLoad, Verdict, WithFailures};
use crate::measure::{Outcome, TokenSource};

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
    /// 95 % interval of the share of these requests that failed; absent with fewer than 10.
    #[serde(default)]
    pub failed_share_ci95: Option<[f64; 2]>,
    /// Tokens of the requests sent inside the window that succeeded.
    pub tokens: Tokens,
    /// Events with output over the whole step, to be held against the server's own count.
    pub events: u64,
    /// Output tokens over the whole step.
    pub output_tokens_all: u64,
    /// Output tokens that arrived inside the window, per second.
    pub output_tps: f64,
    /// 95 % interval of `output_tps` by a block bootstrap over the window's whole seconds; absent with fewer than 10.
    pub output_tps_ci95: Option<[f64; 2]>,
    /// Requests whose last output arrived inside the window, per second.
    pub request_rps: f64,
    /// 95 % interval of `request_rps`, likewise.
    #[serde(default)]
    pub request_rps_ci95: Option<[f64; 2]>,
    /// Requests sent inside the window that met every SLO, per second of the window; absent when no SLO was given.
    pub goodput_rps: Option<f64>,
    /// 95 % interval of `goodput_rps`, likewise.
    #[serde(default)]
    pub goodput_rps_ci95: Option<[f64; 2]>,
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
    /// Mean inter-token latency by the token's place in the answer. Absent in a step that was computed again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub itl_by_position: Vec<PositionItl>,
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
    /// What the server used during the window; absent when nothing of it was in sight.
    pub server: Option<ServerResult>,
    /// Throughput against the step of the same engine and shape with the fewest users.
    pub scaling: Option<Scaling>,
    /// Prompts of the verification that were asked again under this load; absent when the run was not asked to verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<UnderLoad>,
    /// What it costs, when the user named a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Users that had not ended the requests of their warm-up when the window opened.
    #[serde(default)]
    pub cold_users: u32,
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

/// Inter-token latency of the tokens of these places in their answers, over the requests sent inside the window that
/// succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PositionItl {
    /// First token of the answer that counts here, from 1.
    pub from: u64,
    /// Last one.
    pub to: u64,
    /// Tokens.
    pub tokens: u64,
    /// Their mean inter-token latency in milliseconds.
    pub mean_ms: f64,
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
    /// Streams past their first token that were not exceeded during 95 % of the window.
    #[serde(default)]
    pub streaming_p95: u32,
    /// What Little's law makes of throughput and latency: `request_rps` times the mean E2EL in seconds.
    pub littles_law: Option<f64>,
    /// Requests that the server said it worked on, averaged over the window.
    #[serde(default)]
    pub server_running: Option<f64>,
    /// Requests that the server said were waiting, averaged over the window.
    #[serde(default)]
    pub server_waiting: Option<f64>,
}

/// What the server's processes and the machine's graphics cards used during the window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServerResult {
    /// CPU seconds of all its processes; absent when they were out of sight.
    pub cpu_s: Option<f64>,
    /// Processors busy on average: `cpu_s` over the window's length.
    #[serde(default)]
    pub cpu_cores: Option<f64>,
    /// Largest resident set seen over the step, looked at once a second, in bytes. Pages that processes share count
    /// in each.
    pub rss_peak_bytes: Option<u64>,
    /// The sum of the largest resident set that each process ever had (the kernel's `VmHWM`), loading included.
    #[serde(default)]
    pub rss_high_water_bytes: Option<u64>,
    /// Most threads seen over the step.
    #[serde(default)]
    pub threads_peak: Option<u64>,
    /// Page faults answered from memory.
    #[serde(default)]
    pub minor_faults: Option<u64>,
    /// Page faults that needed the disk.
    #[serde(default)]
    pub major_faults: Option<u64>,
    /// One entry for each graphics card of the machine.
    #[serde(default)]
    pub gpu: Vec<GpuResult>,
}

impl ServerResult {
    /// The cards that the server computed on, where their driver tells; else all.
    pub fn its_gpus(&self) -> Vec<&GpuResult> {
        let its: Vec<_> = self.gpu.iter().filter(|gpu| gpu.server == Some(true)).collect();
        match its.is_empty() {
            true => self.gpu.iter().collect(),
            false => its,
        }
    }

    /// What is known of its cards, added up; absent where nothing is.
    pub fn gpu_sum(&self, of: fn(&GpuResult) -> Option<f64>) -> Option<f64> {
        self.its_gpus()
            .into_iter()
            .filter_map(of)
            .reduce(|sum, value| sum + value)
    }

    /// Mean utilisation of its cards in percent.
    pub fn gpu_utilisation_pct(&self) -> Option<f64> {
        let told = self.gpu_sum(|gpu| gpu.utilisation_pct.and(Some(1.0)))?;
        Some(self.gpu_sum(|gpu| gpu.utilisation_pct)? / told)
    }
}

impl StepResult {
    /// Energy of the server's cards over the output tokens of the window, in joules.
    pub fn joules_per_token(&self) -> Option<f64> {
        let tokens = self.output_tps * self.window_s;
        let joules = self.server.as_ref()?.gpu_sum(|gpu| gpu.energy_j)?;
        (tokens > 0.0).then_some(joules / tokens)
    }
}

/// One graphics card during the window. What its driver did not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuResult {
    /// Its number on the machine.
    #[serde(default)]
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether a process of the server computed on it.
    #[serde(default)]
    pub server: Option<bool>,
    /// Mean utilisation in percent.
    pub utilisation_pct: Option<f64>,
    /// Largest memory use seen, by anyone, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// Memory that it has, in bytes.
    #[serde(default)]
    pub memory_total_bytes: Option<u64>,
    /// Mean power in watts.
    #[serde(default)]
    pub power_w: Option<f64>,
    /// Energy in joules: by the card's own counter, else mean power times the window's length.
    pub energy_j: Option<f64>,
    /// Highest temperature in degrees Celsius.
    #[serde(default)]
    pub temperature_max_c: Option<f64>,
    /// Mean clock of its multiprocessors in MHz.
    #[serde(default)]
    pub sm_clock_mhz: Option<f64>,
    /// Mean clock of its memory in MHz.
    #[serde(default)]
    pub memory_clock_mhz: Option<f64>,
    /// Mean of the bytes per second that it received over PCIe.
    #[serde(default)]
    pub pcie_rx_bytes_per_s: Option<f64>,
    /// Mean of the bytes per second that it sent over PCIe.
    #[serde(default)]
    pub pcie_tx_bytes_per_s: Option<f64>,
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
