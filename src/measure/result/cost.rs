//! What the server's hour costs, and what that makes of a token.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The price of the server that the user named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Price {
    /// Of an hour of the server, in the user's currency.
    pub per_hour: f64,
    /// The engine that the others' costs are held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
}

/// What a step's work costs at that price, as if the server worked under this load for the whole hour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// Of a million output tokens: `per_hour / (output_tps * 3600) * 1e6`; absent when none arrived.
    pub per_million_output_tokens: Option<f64>,
    /// Requests that the server finishes in an hour: `request_rps * 3600`.
    pub requests_per_hour: f64,
    /// Cost of a token over that of the baseline engine under the same load; absent without a baseline.
    pub of_baseline: Option<f64>,
}
