//! What several steps say together: repeats of one, and one engine over many loads.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SequenceLength;

/// The load of a step: what two steps must share to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Load {
    /// Concurrent users.
    pub users: u32,
    /// Planned arrivals per second (open loop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Input sequence length asked for.
    pub isl: SequenceLength,
    /// Output sequence length asked for.
    pub osl: SequenceLength,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.users == 1 { "" } else { "s" };
        write!(f, "{} user{plural}", self.users)?;
        if let Some(rate) = self.rate {
            write!(f, ", {rate} requests/s")?;
        }
        write!(f, ", ISL {}, OSL {}", self.isl.mean, self.osl.mean)
    }
}

/// The repeats of one engine under one load.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Repeats {
    /// Name of the engine.
    pub engine: String,
    /// The load.
    #[serde(flatten)]
    pub load: Load,
    /// How many repeats there are.
    pub n: u32,
    /// The fewest requests that a repeat's latencies rest on. Under 100 is told.
    pub fewest_requests: u64,
    /// The figures over the repeats, by name.
    pub metrics: BTreeMap<String, Spread>,
    /// Those of `output_tps`, `ttft_p50` and `itl_p50` whose coefficient of variation is above 5 %.
    pub unsteady: Vec<String>,
}

/// One figure over repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Standard deviation (over n - 1).
    pub sd: Option<f64>,
    /// Coefficient of variation: standard deviation over mean.
    pub cv: Option<f64>,
    /// 95 % interval of the mean by Student's t.
    pub ci95: Option<[f64; 2]>,
}

/// One engine over many loads.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ScalingFit {
    /// Name of the engine.
    pub engine: String,
    /// Input sequence length asked for.
    pub isl: SequenceLength,
    /// Output sequence length asked for.
    pub osl: SequenceLength,
    /// Numbers of users with throughput, in order.
    pub users: Vec<u32>,
    /// Most users up to which every step had at least 90 % of the throughput per user of the smallest step.
    pub linear_up_to: u32,
    /// Users with the most power: throughput squared over users.
    pub knee_users: u32,
    /// The Universal Scalability Law; absent with fewer than 4 numbers of users.
    pub law: Option<Law>,
}

/// X(n) = lambda n / (1 + sigma (n - 1) + kappa n (n - 1)), fitted to output throughput over users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Law {
    /// Tokens per second of one user alone.
    pub lambda: Parameter,
    /// Contention: 0 without any.
    pub sigma: Parameter,
    /// Coherency, what each pair of users costs: 0 without any.
    pub kappa: Parameter,
    /// Users at which throughput is highest; absent where `kappa` cannot be told from 0.
    pub peak_users: Option<Parameter>,
    /// Tokens per second there.
    pub peak_tps: Option<f64>,
    /// How far measured throughputs lie from the law, as a share.
    pub residual: f64,
}

/// A fitted parameter with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Parameter {
    /// Its value.
    pub value: f64,
    /// Its interval.
    pub ci95: [f64; 2],
}
