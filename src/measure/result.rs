//! The versioned result of a run, `run.json`. Keys are a promise to scripts: see `results/README.md`.
//!
//! `results/schema.json` is generated from these types. Raise [`SCHEMA_VERSION`] when a key changes its meaning or
//! goes away; a new key needs no new version.

mod across;
mod client;
mod cost;
mod latency;
mod step;
mod verdict;
mod verification;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use across::{Law, Load, Parameter, Repeats, ScalingFit, Spread};
pub use client::{ClientResult, ErrorParts, Lag, Stamp};
pub use cost::{Cost, Price};
pub use latency::{Intervals, Latency, WithFailures};
pub use step::{
    Concurrency, GooseCount, GpuResult, PositionItl, Requests, Scaling, SequenceLength, ServerResult,
    StepFacts, StepResult, Tokens,
};
pub use verdict::Verdict;
pub use verification::{
    Agreement, Cause, Difference, EngineAnswers, Gap, KeptAnswer, TokenCounts, UnderLoad, Verification,
};

use super::calibration::Calibrations;

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
    /// Figures over the repeats of a step, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repeats: Vec<Repeats>,
    /// How each engine's throughput grows with users, where more than one number of them was tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scaling: Vec<ScalingFit>,
    /// The step under way when this file was written; left in place when the run was killed inside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<StepFacts>,
    /// What the server costs, when the user said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// What the client's own error was before and after the load; absent when the run was told not to calibrate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibrations>,
    /// Whether the engines give the same answers; absent when the run was not asked to verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
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
            repeats: Vec::new(),
            scaling: Vec::new(),
            unfinished: None,
            price: None,
            calibration: None,
            verification: None,
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
    /// SHA-256 of the file, in hexadecimal digits; of a folder, that of the lines `SHA-256  path` of its files but hidden
    /// ones, sorted by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash: Option<String>,
    /// Size in bytes: of the file, or of the folder's files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Format: `gguf`, `safetensors` or `lmrs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Bits for each weight: the tensors' bytes over their elements, times 8; absent where that is not known, as of a
    /// folder whose elements hold several weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
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
    /// The model that it was given in the place of `model`, where it does not read that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub converted: Option<ConvertedModel>,
    /// The settings that it was told to have (of `parallel`, `context`, `threads`, `weights` and `device`, those that its
    /// recipe passes on); empty for a server that ran already.
    #[serde(default)]
    pub wanted: Map<String, Value>,
    /// The settings that the server says it has (`parallel`, `context` and `threads`; `batch`, the tokens of prompts that one
    /// step computes at most; `device`; `weights` and `weights_bytes`; `version`), and the processors of both sides.
    pub effective: Map<String, Value>,
    /// How often it was started: once, or once for each repeat.
    #[serde(default)]
    pub starts: u32,
    /// Seconds from the start of its process until its model answered, the first time.
    pub load_s: Option<f64>,
    /// The parts of its load time, for each start that came to an answer; empty for a server that ran already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<LoadTime>,
    /// How its process ended: `stopped` by us, `exit code 1`, `SIGKILL`; absent for a server that runs on.
    pub exit: Option<String>,
    /// What went wrong with it, when something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<EngineFailure>,
    /// File of the run directory that holds the server's own output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

impl EngineResult {
    /// A setting that the engine really had, else that it was asked to have.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        self.effective.get(key).or_else(|| self.wanted.get(key))
    }
}

/// How long one start took, looked at ten times a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LoadTime {
    /// Seconds from the start of the process until its own page said that it is up; absent where it has none.
    pub ready_s: Option<f64>,
    /// Seconds from there (from the start of the process, where it has none) until its model answered with a token,
    /// what it had to be told first included.
    pub first_token_s: f64,
}

/// A conversion of the model under test.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConvertedModel {
    /// Its folder.
    pub path: String,
    /// SHA-256 of the file that it was made from.
    pub from_hash: String,
    /// SHA-256 over the lines `SHA-256  path` of its files, sorted by path.
    pub path_hash: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its form, in the converter's words, such as `safetensors float32`.
    pub format: String,
    /// Bits for each weight, as the converter counted what it wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
    /// Seconds that the conversion took when it was made.
    pub convert_s: f64,
}

/// Why an engine could not be measured, or not to the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineFailure {
    /// What happened, in words.
    pub message: String,
    /// How the process ended, if it did: `exit code 1`, `SIGKILL`.
    pub exit: Option<String>,
    /// When it ended, in seconds since the start of the run; absent when it had not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_s: Option<f64>,
    /// The step that it ended in; absent when it ended in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u16>,
    /// Requests of that step, ramp and warm-up included, that it took down (`server_exit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_lost: Option<u64>,
    /// The last lines that it wrote.
    pub log_tail: Vec<String>,
}

/// The JSON schema of `run.json`.
pub fn schema() -> Value {
    schemars::schema_for!(RunResult).to_value()
}
