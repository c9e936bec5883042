//! What to do: a validated [`Profile`], its TOML file, ranges such as `10..100`, and the prompts (seeded, pure).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod cpus;
pub mod dataset;
pub mod duration;
mod error;
mod file;
mod header;
mod length;
mod nearest;
mod order;
mod plan;
mod prompts;
mod resolve;
mod settings;
mod shape;
mod slo;
mod stable;
mod users;
mod verify;
mod words;

pub use cpus::Cpus;
pub use error::Error;
pub use file::shipped;
pub use header::Header;
pub use length::Length;
pub use nearest::nearest;
pub use order::{Order, Turn};
pub use plan::Planned;
pub use prompts::{Dialect, Prompts};
pub use settings::{
    LoadSettings, MeasureSettings, ReportSettings, RequestSettings, ServerSettings, Settings, price,
};
pub use shape::Shape;
pub use slo::Slo;
pub use stable::Stable;
pub use users::Users;
pub use verify::Verify;

/// How users warm up before the window opens: `duration` and `requests_per_user` must both be met, unless `most` is over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Warmup {
    /// At least this long after the last user started.
    #[serde(rename = "duration_s", serialize_with = "duration::seconds")]
    pub duration: Duration,
    /// At least so many requests ended, per user.
    pub requests_per_user: u32,
    /// Requests are waited for at most this long after the last user started: a slow server must not hold up the run.
    #[serde(rename = "most_s", serialize_with = "duration::seconds")]
    pub most: Duration,
}

impl Warmup {
    /// The longest that it can take after the last user started.
    pub fn longest(&self) -> Duration {
        match self.requests_per_user {
            0 => self.duration,
            _ => self.duration.max(self.most),
        }
    }
}

/// How long to wait for a server, stage by stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timeouts {
    /// For DNS, TCP and TLS.
    #[serde(rename = "connect_s", serialize_with = "duration::seconds")]
    pub connect: Duration,
    /// From `sent` to the first output.
    #[serde(rename = "first_token_s", serialize_with = "duration::seconds")]
    pub first_token: Duration,
    /// Between two arrivals after the first output.
    #[serde(rename = "stall_s", serialize_with = "duration::seconds")]
    pub stall: Duration,
    /// For the whole request.
    #[serde(rename = "total_s", serialize_with = "duration::seconds")]
    pub total: Duration,
}

/// One step of the load: so many users, sending requests of one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Concurrent users.
    pub users: u32,
    /// Input sequence length wanted; a mean of 0 where the dataset decides.
    pub isl: Length,
    /// Output sequence length asked for.
    pub osl: Length,
}

/// When a step is over: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Extent {
    /// The window's length.
    #[serde(rename = "duration_s", serialize_with = "duration::some_seconds")]
    pub duration: Option<Duration>,
    /// Requests sent inside the window.
    pub requests: Option<u64>,
}

/// When the repeats of a step end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UntilStable {
    /// The metric that must be known well enough.
    pub until: Stable,
    /// Not before so many repeats.
    pub least: u32,
}

/// The endpoint of OpenAI's API that is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// /v1/chat/completions
    #[default]
    Chat,
    /// /v1/completions
    Completions,
}

impl Endpoint {
    /// The path under the server's address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }
}

/// The form of what is printed at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tables for a terminal.
    #[default]
    Table,
    /// The summary as JSON.
    Json,
    /// A line per engine and step.
    Csv,
    /// Tables for a document.
    Markdown,
    /// The page of `report.html`.
    Html,
}

/// A form in which results go into other tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Export {
    /// The JSON of aiperf: a file for each step.
    Aiperf,
    /// The JSON of vLLM's `vllm bench serve`: a file for each step.
    Vllm,
    /// The JSON of guidellm: all steps of an engine in a file.
    Guidellm,
    /// A row for each step.
    Csv,
    /// A table for a document or a pull request.
    Markdown,
    /// JUnit XML: a test case for each gate of each step.
    Junit,
    /// OpenMetrics text, as Prometheus reads it.
    Openmetrics,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Made to a wanted number of tokens.
    Synthetic,
    /// The small fixed set that is part of `loadtest`.
    Questions,
    /// A JSONL file.
    File(PathBuf),
}

/// What is to be done, checked: every setting has its value. Serialises as the effective profile of `run.json`,
/// in which durations are seconds, and of headers only the names stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Name of the profile it started from.
    pub name: String,
    /// What the profile is for.
    pub description: Option<String>,
    /// Names of the engines to test, in order; empty when attached to a URL.
    pub engines: Vec<String>,
    /// A server that runs already.
    pub url: Option<String>,
    /// The model; always there with engines, and else whatever the server at `url` serves.
    pub model: Option<String>,
    /// Concurrency levels, in order.
    pub users: Vec<u32>,
    /// When a step is over.
    pub extent: Extent,
    /// Time over which the users of a step start.
    #[serde(rename = "ramp_s", serialize_with = "duration::seconds")]
    pub ramp: Duration,
    /// How long requests in flight may take after the load stops.
    #[serde(rename = "drain_s", serialize_with = "duration::seconds")]
    pub drain: Duration,
    /// Processors that the load's threads may run on; the default when absent.
    pub client_cpus: Option<Cpus>,
    /// How long a user whose request failed waits before the next.
    #[serde(rename = "backoff_s", serialize_with = "duration::seconds")]
    pub backoff: Duration,
    /// What is sent.
    pub requests: Requests,
    /// What comes before the window of each step.
    pub warmup: Warmup,
    /// How often every step runs; at most, where `stable` may end it.
    pub repeat: u32,
    /// What ends the repeats of a step before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<UntilStable>,
    /// In which order engines take their turns.
    pub order: Order,
    /// Whether engines are started anew for every repeat.
    pub restart: bool,
    /// How long the machine rests between two turns.
    #[serde(rename = "cool_down_s", serialize_with = "duration::seconds")]
    pub cool_down: Duration,
    /// Whether the client's own error is measured before and after the run.
    pub calibrate: bool,
    /// Whether engines' answers are held against each other.
    pub verify: Verify,
    /// The engine that the others' answers are held against; the first that answers when absent.
    pub verify_against: Option<String>,
    /// What a request must keep to count for goodput.
    pub slo: Option<Slo>,
    /// How engines are started.
    pub server: Server,
    /// What is shown and kept.
    pub report: Report,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Requests {
    /// Lengths of input and output, each pair in steps of its own.
    pub shapes: Vec<Shape>,
    /// Where prompts come from.
    pub source: Source,
    /// Tokens that all prompts start with.
    pub shared_prefix: u32,
    /// Whether all output tokens asked for are generated, past the model's own end.
    pub ignore_eos: bool,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f64,
    /// Nucleus sampling: the share of the probability that tokens are drawn from.
    pub top_p: f64,
    /// How many of the likeliest tokens are drawn from; all when absent.
    pub top_k: Option<u32>,
    /// Seed of prompts, lengths and sampling.
    pub seed: u64,
    /// The endpoint asked.
    pub endpoint: Endpoint,
    /// A tokenizer that the user named.
    pub tokenizer: Option<PathBuf>,
    /// Headers that go with every request.
    pub headers: Vec<Header>,
    /// How long to wait for the server.
    pub timeouts: Timeouts,
}

/// How engines are started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    /// The line that starts the engine `command`.
    pub command: Option<String>,
    /// Threads to compute with; the engine's default when absent.
    pub threads: Option<u32>,
    /// Processors that the server's processes may run on; the default when absent.
    pub server_cpus: Option<Cpus>,
    /// Sequences to run at once.
    pub parallel: u32,
    /// Whether the user said so; else it follows from the users.
    #[serde(skip)]
    pub parallel_is_named: bool,
    /// Tokens of context for each sequence.
    pub context: u32,
    /// Whether the user said so; else it follows from the requests.
    #[serde(skip)]
    pub context_is_named: bool,
    /// How the engine holds its weights; its own choice when absent.
    pub weights: Option<String>,
    /// How long an engine may take to load; what its recipe says when absent.
    #[serde(rename = "load_timeout_s", serialize_with = "duration::some_seconds")]
    pub load_timeout: Option<Duration>,
    /// What the engine computes on; its own choice when absent.
    pub device: Option<String>,
    /// More arguments for the engine's command line.
    pub args: Vec<String>,
}

/// What is shown and kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The folder in which the run gets one of its own, if the user named it.
    pub output: Option<PathBuf>,
    /// What to print at the end.
    pub format: Format,
    /// Print the result alone.
    pub quiet: bool,
    /// Whether to show live progress.
    pub progress: bool,
    /// What an hour of the server costs.
    pub price_per_hour: Option<f64>,
    /// The engine that the others' costs are held against.
    pub baseline: Option<String>,
    /// Further forms of the results.
    pub export: Vec<Export>,
    /// Whether failed verdicts and objectives end with exit code 3.
    pub strict: bool,
}

impl Report {
    /// The folder in which the run gets one of its own.
    pub fn folder(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new("results"))
    }
}
