//! Every setting of a load test, each of them optional: the keys of a profile's file and, under the same names, the
//! flags of the command line. Being one set of types, the two cannot drift apart.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::{
    Cpus, Endpoint, Export, Format, Header, Length, Order, Shape, Slo, Stable, Users, Verify, duration,
    length, shape,
};

/// The engine that a command line of the user's starts.
pub(super) const COMMAND: &str = "command";

/// Declares how the settings of one group override those of another, field by field; the compiler checks that no
/// field is left out.
macro_rules! overrides {
    ($group:ident: $($field:ident),+) => {
        impl $group {
            fn over(self, base: Self) -> Self {
                let Self { $($field),+ } = self;
                Self { $($field: $field.or(base.$field)),+ }
            }
        }
    };
}

/// What a profile's file or the command line says; whatever is absent is left to the other, or to the default.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What the profile is for, in one line.
    #[arg(skip)]
    pub description: Option<String>,
    /// Engines to test one after another, separated by commas; `loadtest engines` lists them
    #[arg(
        long = "engine",
        alias = "engines",
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "What to test"
    )]
    #[serde(alias = "engine")]
    pub engines: Option<Vec<String>>,
    /// Attach to a server that runs already, e.g. http://host:8000
    #[arg(long, value_name = "URL", help_heading = "What to test")]
    pub url: Option<String>,
    /// Model: a name of `loadtest models`, a path, or hf:owner/repo[/file]
    #[arg(long, value_name = "MODEL", help_heading = "What to test")]
    pub model: Option<String>,
    /// The load's shape.
    #[command(flatten)]
    pub load: LoadSettings,
    /// What is sent.
    #[command(flatten)]
    pub requests: RequestSettings,
    /// The window and the repeats.
    #[command(flatten)]
    pub measure: MeasureSettings,
    /// Count requests that meet all of these, in ms: "ttft:500 tpot:50 e2el:5000"
    #[arg(long = "goodput", value_name = "SLO", help_heading = "Measuring")]
    pub slo: Option<Slo>,
    /// How engines are started.
    #[command(flatten)]
    pub server: ServerSettings,
    /// What is shown and kept.
    #[command(flatten)]
    pub report: ReportSettings,
}

impl Settings {
    /// These settings where they are given, else those of `base`. Some settings stand for one choice and override
    /// each other: engines, a URL and a command line; a new number of users and an old step; a new duration or number of requests
    /// and the old end of a step; a dataset, lengths and shapes of synthetic prompts.
    pub fn over(self, mut base: Self) -> Self {
        if self.url.is_some() && self.engines.is_none() {
            base.engines = None;
            base.model = None;
        } else if self.engines.is_some() && self.url.is_none() {
            base.url = None;
        } else if self.server.command.is_some() {
            base.engines = None;
            base.url = None;
        }
        if self.engines.is_some() && self.server.command.is_none() {
            let wanted = |engines: &Vec<String>| engines.iter().any(|name| name == COMMAND);
            base.server.command = base
                .server
                .command
                .filter(|_| self.engines.as_ref().is_some_and(wanted));
        }
        if self.load.users.as_ref().is_some_and(|users| !users.is_range()) {
            base.load.step = None;
        }
        if self.load.duration.is_some() || self.load.num_prompts.is_some() {
            base.load.duration = None;
            base.load.num_prompts = None;
        }
        let wanted = &self.requests;
        if wanted.dataset.is_some() || wanted.shape.is_some() {
            base.requests.isl = None;
        }
        if wanted.isl.is_some() || wanted.shape.is_some() {
            base.requests.dataset = None;
        }
        if wanted.shape.is_some() {
            base.requests.osl = None;
        } else if wanted.isl.is_some() || wanted.osl.is_some() || wanted.dataset.is_some() {
            base.requests.shape = None;
        }
        Self {
            description: self.description.or(base.description),
            engines: self.engines.or(base.engines),
            url: self.url.or(base.url),
            model: self.model.or(base.model),
            load: self.load.over(base.load),
            requests: self.requests.over(base.requests),
            measure: self.measure.over(base.measure),
            slo: self.slo.or(base.slo),
            server: self.server.over(base.server),
            report: self.report.over(base.report),
        }
    }
}

/// `[load]`: how many users, for how long.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Load")]
pub struct LoadSettings {
    /// Concurrent users: 64, or 10,20,40, or 10..100 with --step
    #[arg(long, aliases = ["concurrency", "max-concurrency"], value_name = "USERS")]
    #[serde(alias = "concurrency", alias = "max_concurrency")]
    pub users: Option<Users>,
    /// Users from one step of a range to the next
    #[arg(long, value_name = "N")]
    pub step: Option<u32>,
    /// How long each step is measured, e.g. 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub duration: Option<Duration>,
    /// How many requests each step measures; with --duration, whichever ends first
    #[arg(long, alias = "request-count", value_name = "N")]
    #[serde(alias = "request_count")]
    pub num_prompts: Option<u64>,
    /// Start the users of a step evenly over this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub ramp: Option<Duration>,
    /// Wait this long for requests in flight when a step ends
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub drain: Option<Duration>,
    /// A user whose request failed waits this long before the next (500ms)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub backoff: Option<Duration>,
    /// Processors for the threads that make the load, e.g. 0,2-3 (Linux)
    #[arg(long, value_name = "CPUS")]
    pub client_cpus: Option<Cpus>,
}
overrides!(LoadSettings: users, step, duration, num_prompts, ramp, drain, backoff, client_cpus);

/// `[requests]`: what is sent.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Requests")]
pub struct RequestSettings {
    /// Input tokens of a request: mean, or mean,stddev; given again, another step
    #[arg(long, value_name = "TOKENS")]
    #[serde(deserialize_with = "length::read_list")]
    pub isl: Option<Vec<Length>>,
    /// Output tokens of a request: mean, or mean,stddev; given again, another step
    #[arg(long, value_name = "TOKENS")]
    #[serde(deserialize_with = "length::read_list")]
    pub osl: Option<Vec<Length>>,
    /// Input and output tokens together, e.g. 512/128, instead of --isl and --osl; given again, another step
    #[arg(long, value_name = "ISL/OSL")]
    #[serde(deserialize_with = "shape::read_list")]
    pub shape: Option<Vec<Shape>>,
    /// Prompts: synthetic, questions (a small fixed set), or the path of a .jsonl file
    #[arg(long, value_name = "SET")]
    pub dataset: Option<String>,
    /// Start every prompt with the same N tokens
    #[arg(long, value_name = "N")]
    pub shared_prefix: Option<u32>,
    /// Generate all output tokens asked for, past the model's own end
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub ignore_eos: Option<bool>,
    /// Sampling temperature (0.8); 0 is greedy
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Sample from this share of the probability (0.95)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Sample from the N likeliest tokens alone
    #[arg(long, value_name = "N")]
    pub top_k: Option<u32>,
    /// Seed of prompts, lengths and sampling
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Which OpenAI endpoint to ask
    #[arg(long, value_enum)]
    pub endpoint: Option<Endpoint>,
    /// Tokenizer that counts prompts, and answers whose server does not: a tokenizer.json, a model's folder or a GGUF;
    /// else the model's own
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Send this header with every request
    #[arg(long, value_name = "K:V")]
    pub header: Option<Vec<Header>>,
    /// Give up on a request after this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub timeout: Option<Duration>,
    /// Give up on connecting after this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub connect_timeout: Option<Duration>,
    /// Give up on the first token after this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub first_token_timeout: Option<Duration>,
    /// Give up on a stream that is silent for this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub stall_timeout: Option<Duration>,
}
overrides!(RequestSettings: isl, osl, shape, dataset, shared_prefix, ignore_eos, temperature, top_p, top_k, seed,
    endpoint,
    tokenizer, header, timeout, connect_timeout, first_token_timeout, stall_timeout);

/// `[measure]`: what comes before the window, and how often all of it is done.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Measuring")]
pub struct MeasureSettings {
    /// Load each step this long before measuring
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub warmup: Option<Duration>,
    /// Requests of every user before measuring, waited for no longer than the measuring is to last
    #[arg(long, value_name = "N")]
    pub warmup_requests: Option<u32>,
    /// Run every step N times
    #[arg(long, value_name = "N")]
    pub repeat: Option<u32>,
    /// Repeat each step until the 95 % interval of the metric's mean is within so much of it, e.g. output_tps:2%; at
    /// least 3 times, or --repeat
    #[arg(long, value_name = "METRIC:X%")]
    pub until_stable: Option<Stable>,
    /// With --until-stable, at most so many times (10)
    #[arg(long, value_name = "N")]
    pub max_repeats: Option<u32>,
    /// In which order engines take their turns over the repeats
    #[arg(long, value_enum)]
    pub order: Option<Order>,
    /// Let an engine run on between its repeats, its caches warm; else each repeat starts it anew
    #[arg(long = "no-restart", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", value_parser = negated)]
    pub restart: Option<bool>,
    /// Let the machine rest this long before the next engine's turn
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub cool_down: Option<Duration>,
    /// Skip the calibrations before and after the run
    #[arg(long = "no-calibrate", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_name = "BOOL", value_parser = negated)]
    pub calibrate: Option<bool>,
    /// Before the load, hold the engines' greedy answers to 20 prompts against each other, and under it against their own;
    /// --verify=only: without a load
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "HOW")]
    pub verify: Option<Verify>,
    /// The engine that the others' answers are held against; default: the first that answers
    #[arg(long, value_name = "NAME")]
    pub verify_against: Option<String>,
}
overrides!(MeasureSettings: warmup, warmup_requests, repeat, until_stable, max_repeats, order, restart, cool_down, calibrate,
    verify, verify_against);

/// The opposite of what is written, for a flag that switches off what a profile's key switches on.
fn negated(text: &str) -> Result<bool, std::str::ParseBoolError> {
    text.parse::<bool>().map(|no| !no)
}

/// `[server]`: how an engine is started; none of it applies to a server that runs already.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Server")]
pub struct ServerSettings {
    /// The line that starts the engine `command`, e.g. 'my-server --port {port} --model {model}'
    #[arg(long, value_name = "LINE")]
    pub command: Option<String>,
    /// Threads that the engine computes with
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Processors for the engine's processes, e.g. 0,2-3 (Linux)
    #[arg(long, value_name = "CPUS")]
    pub server_cpus: Option<Cpus>,
    /// Sequences that the engine runs at once; default: the most users of any step
    #[arg(long, value_name = "N")]
    pub parallel: Option<u32>,
    /// Tokens of context for each sequence
    #[arg(long, value_name = "N")]
    pub context: Option<u32>,
    /// How the engine holds its weights, in the engine's own words
    #[arg(long, value_name = "FORM")]
    pub weights: Option<String>,
    /// What the engine computes on, in its own words, e.g. cpu, cuda or mps; default: its own choice
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Give up on an engine whose model has not answered this long after its start; default: its recipe's (10m or 30m)
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    #[serde(deserialize_with = "duration::read")]
    pub load_timeout: Option<Duration>,
    /// Pass this argument on to the engine's command line
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub server_arg: Option<Vec<String>>,
}
overrides!(ServerSettings: command, threads, server_cpus, parallel, context, weights, device, load_timeout, server_arg);

/// `[report]`: what is shown and kept.
#[derive(Debug, Clone, Default, PartialEq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Results")]
pub struct ReportSettings {
    /// Folder for the run's files; default: `results/<utc time>-<profile>`
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// What to print at the end
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Print the result alone
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub quiet: Option<bool>,
    /// Show no live progress
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub no_progress: Option<bool>,
    /// What an hour of the server costs, in your currency: adds the cost of a million output tokens
    #[arg(long, value_name = "PRICE", value_parser = price)]
    pub price_per_hour: Option<f64>,
    /// The engine that the others' costs are held against
    #[arg(long, value_name = "ENGINE")]
    pub baseline: Option<String>,
    /// Write the results in these forms too, into the run's folder `export/`
    #[arg(long, value_enum, value_name = "FORM,...", value_delimiter = ',')]
    pub export: Option<Vec<Export>>,
    /// Exit with 3 when the client limited a step, or answers were garbled under load
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub strict: Option<bool>,
}
overrides!(ReportSettings: output, format, quiet, no_progress, price_per_hour, baseline, export, strict);

/// A price above nothing.
pub fn price(text: &str) -> Result<f64, String> {
    let price = text
        .parse()
        .ok()
        .filter(|price: &f64| price.is_finite() && *price > 0.0);
    price.ok_or_else(|| "must be a number above 0, such as 2.50".into())
}
