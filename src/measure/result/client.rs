//! How far the client itself can be trusted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far the client can be trusted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ClientResult {
    /// Whose clock stamps arrivals.
    pub stamp: Stamp,
    /// From the kernel's arrival of an event to its read by the client.
    pub read_lag_ms: Lag,
    /// From the instant a request was due to the instant it was sent, less the set-up of a connection in between.
    pub send_lag_ms: Lag,
    /// From the instant that stands as `sent` to the request's first write.
    #[serde(default)]
    pub sending_ms: Lag,
    /// How far the client's own lateness may have moved what it reports, at p99: the sum of `error_parts_ms`. Absent when
    /// the kernel does not stamp arrivals, because nothing then tells how late they were read.
    pub error_p99_ms: Option<f64>,
    /// What `error_p99_ms` is the sum of.
    #[serde(default)]
    pub error_parts_ms: ErrorParts,
    /// Events of the window whose arrival is the instant of their read, because no kernel stamp could be had.
    #[serde(default)]
    pub unstamped_events: u64,
    /// How often the wall clock, by which the kernel stamps, was set during the step. The stamps were converted all the
    /// same.
    #[serde(default)]
    pub clock_steps: u32,
    /// CPU seconds of the client's threads during the window.
    pub cpu_s: f64,
    /// CPU of the client per output event of the window's share, in microseconds.
    pub cpu_us_per_event: Option<f64>,
    /// Threads that drove the load.
    #[serde(default)]
    pub threads: u32,
    /// Seconds of the window that these threads were ready to run and had no processor, summed over them.
    #[serde(default)]
    pub run_queue_s: Option<f64>,
    /// Seconds of the window that the hypervisor took from a processor of this machine, averaged over all of them.
    #[serde(default)]
    pub steal_s: Option<f64>,
    /// Seconds of the window in which some task of this machine waited for a processor (PSI).
    #[serde(default)]
    pub cpu_pressure_s: Option<f64>,
}

/// The parts of the client's error at p99, in milliseconds; `null` where one was not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorParts {
    /// Bringing the kernel's wall-clock stamps onto the run's clock, at worst.
    pub clock: Option<f64>,
    /// Events that were read so late that the kernel had merged their stamps with those of later ones.
    pub shared_stamps: Option<f64>,
    /// Writing requests after the clock was read.
    pub sending: Option<f64>,
    /// Sending requests after they were due.
    pub send_lag: Option<f64>,
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
