//! What a comparison found.

use serde::Serialize;

use super::{Condition, Held};
use crate::measure::result::Load;

/// Everything that was compared.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// The pairs, each with its own baseline.
    pub pairs: Vec<Pair>,
    /// Differences that were tested: what p values are corrected for.
    pub comparisons: u64,
    /// What the gates say, if any were given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Held>,
}

/// A candidate against a baseline.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The run and engine that come first.
    pub baseline: String,
    /// The run and engine that are held against them.
    pub candidate: String,
    /// In what else the two differ.
    pub differs: Vec<Condition>,
    /// Loads that only one of them has, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alone: Vec<String>,
    /// The loads that both have.
    pub cells: Vec<Cell>,
}

/// Both under the same load.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The load.
    #[serde(flatten)]
    pub load: Load,
    /// Repeats of the baseline and of the candidate.
    pub repeats: [usize; 2],
    /// The fewest requests that latencies of a repeat rest on.
    pub fewest_requests: u64,
    /// The metrics, in the order of reports.
    pub rows: Vec<Row>,
}

/// One metric of both.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub metric: &'static str,
    /// The baseline's value.
    pub baseline: Figure,
    /// The candidate's value.
    pub candidate: Figure,
    /// Candidate less baseline, in the metric's unit.
    pub difference: f64,
    /// Candidate over baseline; absent where one of them is 0.
    pub ratio: Option<f64>,
    /// 95 % interval of the ratio.
    pub ratio_ci95: Option<[f64; 2]>,
    /// The difference in percent of the baseline; of `errors`, which may be 0, in percentage points.
    pub change_percent: Option<f64>,
    /// How it was tested; absent where it could not be.
    pub test: Option<Test>,
    /// The probability of such a difference between two that do not differ.
    pub p: Option<f64>,
    /// The same, corrected for the number of comparisons (Holm).
    pub p_corrected: Option<f64>,
    /// Effect size over repeats: Hedges' g.
    pub effect: Option<f64>,
    /// Whether it is more than chance: the corrected p is below 5 %.
    pub real: bool,
    /// Whether the candidate is the better one; absent where the two are equal, and where neither more nor less is better.
    pub better: Option<bool>,
}

/// A value with what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// The value; the mean over repeats.
    pub value: f64,
    /// Its 95 % interval.
    pub ci95: Option<[f64; 2]>,
}

/// How a difference was tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Block bootstrap within the runs.
    BlockBootstrap,
    /// Welch's t over the repeats.
    WelchT,
}
