//! The figures of a step that are compared, repeated and gated: each by its name, with its interval.

use super::result::{GpuResult, Latency, StepResult};
use crate::stats::Estimate;

/// Which values of a metric are the good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Large ones.
    High,
    /// Small ones.
    Low,
    /// It depends.
    Neither,
}

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Tokens per second.
    TokensPerSecond,
    /// Requests per second.
    RequestsPerSecond,
    /// Milliseconds.
    Milliseconds,
    /// A share of all requests.
    Share,
    /// Bytes.
    Bytes,
    /// Percent of the time.
    Percent,
    /// Watts.
    Watts,
    /// Joules for an output token.
    JoulesPerToken,
}

/// One figure of a step.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its name, as in `--fail-on` and in `run.json`.
    pub id: &'static str,
    /// What it is measured in.
    pub unit: Unit,
    /// Which values are the good ones.
    pub better: Better,
    value: fn(&StepResult) -> Option<f64>,
    interval: fn(&StepResult) -> Option<Interval>,
}

/// A 95 % interval, and how many blocks it rests on.
type Interval = ([f64; 2], Option<u32>);

impl std::fmt::Debug for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id)
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// There is no metric of this name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no metric `{name}`{hint}; there are {known}")]
pub struct NoMetric {
    name: String,
    hint: String,
    known: String,
}

/// Requests of a run from which on its p99 mostly has a 95 % interval: with fewer, its upper limit lies beyond all of them.
pub const P99_REQUESTS: u64 = 560;

/// Degrees of freedom plus one of an interval that does not tell.
const BLOCKS: u32 = 10;

impl Metric {
    /// The metric of this name; `ttft`, `itl`, `tpot` and `e2el` alone are their medians.
    ///
    /// # Errors
    /// If there is none; the message has the nearest one.
    pub fn find(name: &str) -> Result<&'static Metric, NoMetric> {
        let median = format!("{name}_p50");
        let by_name = |metric: &&Metric| metric.id == name || metric.id == median;
        METRICS.iter().find(by_name).ok_or_else(|| {
            let ids = || METRICS.iter().map(|metric| metric.id);
            let near = ids()
                .map(|id| (strsim::jaro_winkler(name, id), id))
                .filter(|(likeness, _)| *likeness > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            NoMetric {
                name: name.to_owned(),
                hint: near.map_or_else(String::new, |(_, id)| format!(" (did you mean `{id}`?)")),
                known: ids().collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// Requests that a run must have for an interval of this metric, where they are many.
    pub fn fewest_requests(&self) -> Option<u64> {
        // Gaps between tokens are many more than requests.
        (self.id.ends_with("_p99") && !self.id.starts_with("itl")).then_some(P99_REQUESTS)
    }

    /// Its value in a step; absent where it was not measured.
    pub fn value(&self, step: &StepResult) -> Option<f64> {
        (self.value)(step)
    }

    /// Its value with the 95 % interval that one run gives it.
    pub fn estimate(&self, step: &StepResult) -> Option<Estimate> {
        let value = self.value(step)?;
        let ([low, high], blocks) = (self.interval)(step)?;
        Some(Estimate {
            value,
            // What the histogram rounds must not lie outside.
            low: low.min(value),
            high: high.max(value),
            blocks: blocks.unwrap_or(BLOCKS) as usize,
        })
    }
}

/// A percentile of a latency, or its mean.
macro_rules! latency {
    ($id:literal, $latency:ident, $figure:ident) => {
        Metric {
            id: $id,
            unit: Unit::Milliseconds,
            better: Better::Low,
            value: |step| step.$latency.$figure,
            interval: |step| step.$latency.ci95.$figure.zip(Some(blocks(&step.$latency))),
        }
    };
}

/// A rate of the window.
macro_rules! rate {
    ($id:literal, $unit:ident, $interval:ident, $value:expr) => {
        Metric {
            id: $id,
            unit: Unit::$unit,
            better: Better::High,
            value: $value,
            interval: |step| step.$interval.zip(Some(None)),
        }
    };
}

/// A figure that each run has once.
macro_rules! once {
    ($id:literal, $unit:ident, $better:ident, $value:expr) => {
        Metric {
            id: $id,
            unit: Unit::$unit,
            better: Better::$better,
            value: $value,
            interval: |_| None,
        }
    };
}

fn blocks(latency: &Latency) -> Option<u32> {
    latency.ci95.blocks
}

/// The share of the window's requests that failed.
fn failed(step: &StepResult) -> Option<f64> {
    let requests = step.requests;
    (requests.sent > 0).then(|| requests.failed as f64 / requests.sent as f64)
}

/// Every metric, in the order of reports.
pub const METRICS: &[Metric] = &[
    rate!("output_tps", TokensPerSecond, output_tps_ci95, |step| Some(
        step.output_tps
    )),
    rate!("request_rps", RequestsPerSecond, request_rps_ci95, |step| Some(
        step.request_rps
    )),
    rate!("goodput_rps", RequestsPerSecond, goodput_rps_ci95, |step| step
        .goodput_rps),
    latency!("ttft_mean", ttft_ms, mean),
    latency!("ttft_p50", ttft_ms, p50),
    latency!("ttft_p90", ttft_ms, p90),
    latency!("ttft_p99", ttft_ms, p99),
    latency!("itl_mean", itl_ms, mean),
    latency!("itl_p50", itl_ms, p50),
    latency!("itl_p99", itl_ms, p99),
    latency!("tpot_mean", tpot_ms, mean),
    latency!("tpot_p50", tpot_ms, p50),
    latency!("tpot_p99", tpot_ms, p99),
    latency!("e2el_mean", e2el_ms, mean),
    latency!("e2el_p50", e2el_ms, p50),
    latency!("e2el_p90", e2el_ms, p90),
    latency!("e2el_p99", e2el_ms, p99),
    Metric {
        id: "errors",
        unit: Unit::Share,
        better: Better::Low,
        value: failed,
        interval: |step| step.failed_share_ci95.zip(Some(None)),
    },
    once!("rss_peak", Bytes, Low, |step| Some(
        step.server.as_ref()?.rss_peak_bytes? as f64
    )),
    once!("gpu_util", Percent, Neither, |step| step
        .server
        .as_ref()?
        .gpu_utilisation_pct()),
    once!("gpu_memory_peak", Bytes, Low, |step| {
        let of = |gpu: &GpuResult| gpu.memory_peak_bytes.map(|bytes| bytes as f64);
        step.server.as_ref()?.gpu_sum(of)
    }),
    once!("gpu_power", Watts, Low, |step| step
        .server
        .as_ref()?
        .gpu_sum(|gpu| gpu.power_w)),
    once!(
        "gpu_energy_per_token",
        JoulesPerToken,
        Low,
        StepResult::joules_per_token
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_wrong_ones_get_the_nearest() {
        assert_eq!(Metric::find("ttft_p99").unwrap().id, "ttft_p99");
        assert_eq!(Metric::find("itl").unwrap().id, "itl_p50");
        insta::assert_snapshot!(Metric::find("tftt_p99").unwrap_err());
    }
}
