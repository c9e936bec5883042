//! What a calibration finds out: the client's own word held against that of a server which knows what it did.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::result::{Lag, Stamp};

/// The error, in milliseconds, above which a client must not be believed.
pub const BOUND_MS: f64 = 1.0;

/// The calibrations of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibrations {
    /// Before the first engine was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Calibration>,
    /// After the last engine was stopped; absent when the run was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Calibration>,
    /// Why one of them could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The client against the built-in reference server, on this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// What was asked for.
    pub load: CalibrationLoad,
    /// Length of the measurement window in seconds.
    pub window_s: f64,
    /// Requests of the whole load that succeeded.
    pub requests: u64,
    /// Requests that failed; the server was told to do nothing wrong.
    pub requests_failed: u64,
    /// Output events that the client counted in the requests that succeeded.
    pub events: u64,
    /// Output events that the server sent and the client did not count.
    pub events_lost: u64,
    /// Output events that the client counted beyond those that the server sent.
    pub events_doubled: u64,
    /// Output events that arrived inside the window, per second.
    pub events_per_s: f64,
    /// Events per second of one stream as the server really sent them: the median stream.
    pub sent_rate: Option<f64>,
    /// Whose clock stamps arrivals.
    pub stamp: Stamp,
    /// Client's `first - sent` minus the server's write of the first event less the arrival of the request there, of
    /// requests sent inside the window. Where the server's kernel stamps no arrivals, how late it read is part of it.
    pub ttft_error_ms: ErrorMs,
    /// Client's gap between two events minus the gap between the server's writes of them, likewise.
    pub itl_error_ms: ErrorMs,
    /// Arrival of an event minus the server's write of it, likewise; every event counts.
    pub arrival_error_ms: ErrorMs,
    /// From the kernel's arrival of an event to its read by the client.
    pub read_lag_ms: Lag,
    /// From the instant a request was due to the instant it was sent.
    pub send_lag_ms: Lag,
    /// CPU of the client's threads per event inside the window, in microseconds: its requests and all else included.
    pub cpu_us_per_event: Option<f64>,
    /// The highest rate that was held; absent when it was not searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
}

/// The load of a calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationLoad {
    /// Concurrent streams.
    pub users: u32,
    /// Output events per second of each stream.
    pub rate: f64,
    /// Words of each prompt.
    pub isl: u32,
    /// Output events of each answer.
    pub osl: u32,
    /// Bytes of text in each output event, at least; 0 is a word.
    pub event_bytes: u32,
    /// How long and how often the client's threads were stalled on purpose: `30ms/100ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<String>,
}

/// Absolute errors in milliseconds; `null` without samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorMs {
    /// Samples.
    pub n: u64,
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

impl ErrorMs {
    /// The nearest-rank percentiles of errors in nanoseconds.
    pub fn of(mut errors_ns: Vec<u64>) -> ErrorMs {
        errors_ns.sort_unstable();
        let n = errors_ns.len();
        let at = |share: f64| {
            let rank = ((share * n as f64).ceil() as usize).clamp(1, n.max(1));
            errors_ns.get(rank - 1).map(|&ns| ns as f64 / 1e6)
        };
        ErrorMs {
            n: n as u64,
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// How many events per second the machine takes with its errors under the bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// The highest rate that was held; absent when not even the lowest one tried was.
    pub held: Option<Tried>,
    /// What kept the next rate from being held; absent when the search ended for want of time.
    pub limit: Option<Limit>,
    /// Every rate that was tried, in order.
    pub tried: Vec<Tried>,
}

/// One rate of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tried {
    /// Concurrent streams.
    pub users: u32,
    /// Output events per second asked of each stream.
    pub rate: f64,
    /// Output events per second that arrived in all.
    pub events_per_s: f64,
    /// The largest of the 99th percentiles of the errors of TTFT, ITL and arrival, in milliseconds.
    pub error_p99_ms: Option<f64>,
    /// CPU of the client's threads per event, in microseconds.
    pub cpu_us_per_event: Option<f64>,
    /// Why this rate was not held; absent when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Limit>,
}

/// Why a rate was not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Requests failed, or events were lost or doubled.
    Loss,
    /// The server could not send so fast: the machine, not the client, was at its end.
    Server,
    /// The p99 of an error was above the bound.
    Error,
    /// Errors stayed small, but the client took less than nine tenths of the events per second.
    Client,
}

impl Calibration {
    /// Whether every event was counted once, and no request failed.
    pub fn is_whole(&self) -> bool {
        self.events > 0 && self.events_lost == 0 && self.events_doubled == 0 && self.requests_failed == 0
    }

    /// The largest of the 99th percentiles of the errors of TTFT, ITL and arrival, in milliseconds.
    pub fn error_p99_ms(&self) -> Option<f64> {
        [self.ttft_error_ms, self.itl_error_ms, self.arrival_error_ms]
            .iter()
            .filter_map(|error| error.p99)
            .reduce(f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let errors = ErrorMs::of((1..=100).rev().map(|ms| ms * 1_000_000).collect());
        assert_eq!((errors.n, errors.p50), (100, Some(50.0)));
        assert_eq!((errors.p99, errors.max), (Some(99.0), Some(100.0)));
        assert_eq!(ErrorMs::of(vec![]), ErrorMs::default());
    }
}
