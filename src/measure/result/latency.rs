//! How a latency is told: percentiles, and their intervals.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// 95 % confidence intervals in milliseconds, by a block bootstrap in the order of time: over requests, and of ITL and ICL
/// over seconds. Absent with fewer than 10 of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Intervals {
    /// Of the median.
    pub p50: Option<[f64; 2]>,
    /// Of the 90th percentile.
    #[serde(default)]
    pub p90: Option<[f64; 2]>,
    /// Of the 99th percentile; absent where no sample bounds it from above, as with fewer than some 370.
    pub p99: Option<[f64; 2]>,
    /// Of the mean.
    pub mean: Option<[f64; 2]>,
    /// Blocks that these intervals rest on, the fewest of them: one more than their degrees of freedom.
    #[serde(default)]
    pub blocks: Option<u32>,
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
