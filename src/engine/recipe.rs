//! An engine as data: `servers/NAME/engine.toml`.

mod parse;
mod placeholder;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

pub use parse::RecipeError;
pub use placeholder::PLACEHOLDERS;

pub(super) use parse::nearest;
pub(super) use placeholder::{fill, placeholders, unknown};

/// How an engine comes to be a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Our own server around a Rust engine.
    Embedded,
    /// The engine's own server, started by us.
    Spawned,
    /// Its own protocol, translated to OpenAI's by a server of ours.
    Bridge,
    /// A command line of the user's.
    Command,
    /// It runs already; only its address is known.
    Attach,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Kind::Embedded => "embedded",
            Kind::Spawned => "spawned",
            Kind::Bridge => "bridge",
            Kind::Command => "command",
            Kind::Attach => "attach",
        })
    }
}

/// Where a program of the user's may be: the engine's server or, for a bridge, what its server stands in front of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Find {
    /// An environment variable that names the program; it goes before everything else.
    pub env: Option<String>,
    /// Names to look for on `PATH`, the first found wins.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Arguments that make the program print its version.
    #[serde(default)]
    pub version_args: Vec<String>,
    /// What to type to get the program, for people.
    pub get: Option<String>,
}

/// How the engine's server is built with cargo in a source checkout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The package's `Cargo.toml`, relative to the recipe.
    pub manifest: PathBuf,
    /// The binary that the build makes.
    pub binary: String,
    /// Cargo features to switch on.
    #[serde(default)]
    pub features: Vec<String>,
    /// The version of the engine's crate that the package's lock file names, for people.
    pub version: Option<String>,
    /// Devices that a Cargo feature of the same name is for, switched on when `--device` names one.
    #[serde(default)]
    pub device_features: Vec<String>,
    /// Environment of the build.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What it costs, for people: minutes and disk.
    pub takes: String,
}

/// How the engine is installed into a folder of its own: by pip into a private Python environment, or by Go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// What `pip install` is given.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What `go install` is given, in place of `packages`: a package with its version. It goes to `{dir}/bin`.
    pub go: Option<String>,
    /// Environment of `go install`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Systems that it can be installed on, as Rust calls them; empty: any.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// The program that results; `{python}` is the environment's interpreter, `{dir}` the folder.
    pub program: Vec<String>,
    /// Files beside the recipe that go into the folder.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// What it costs, for people: minutes and disk.
    pub takes: String,
    /// The name of the environment; the engine's own, unless engines share one.
    pub environment: Option<String>,
}

/// How a GGUF is converted for an engine that reads none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Convert {
    /// The form that results.
    pub to: String,
    /// What `pip install` is given for a Python environment of the converter's own; none: the engine's is used.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What converts `{model}` to files in the folder `{out}`, which `{model}` then is to the server; `{python}` and
    /// `{dir}` as in [`Install`]. The last line that it prints may be a JSON object with what it wrote: `format` and
    /// `bits_per_weight`.
    pub command: Vec<String>,
    /// Files beside the recipe that go into the environment's folder.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// What it costs, for people: minutes and disk.
    pub takes: String,
}

/// How the server is started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    /// Arguments, with [placeholders](PLACEHOLDERS).
    pub args: Vec<String>,
    /// Arguments added when the user chose a form for the weights.
    pub weights_args: Vec<String>,
    /// Arguments added when the user chose a device.
    pub device_args: Vec<String>,
    /// Environment, with placeholders.
    pub env: BTreeMap<String, String>,
    /// Files written before the start: path and text, both with placeholders.
    pub files: BTreeMap<String, String>,
    /// Arguments of runs of the same program, in the same environment, after the server is up and before its model is
    /// asked: an engine that must be told of a model while it runs.
    pub prepare: Vec<Vec<String>>,
}

impl Serve {
    /// All words that a server is started with, whatever the user chose.
    pub(super) fn words(&self) -> impl Iterator<Item = &String> {
        self.args
            .iter()
            .chain(self.env.values())
            .chain(self.files.iter().flat_map(|(path, text)| [path, text]))
            .chain(self.prepare.iter().flatten())
    }
}

/// The endpoint that a readiness probe asks for one token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// `/v1/completions`: works for models without a chat template too.
    #[default]
    Completions,
    /// `/v1/chat/completions`.
    Chat,
    /// The first of the two that does not refuse.
    Either,
}

/// How readiness is known: the path answers 200 (where there is one), then the model answers with a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ready {
    /// A path that answers 200 once the server is up, asked before the model is.
    pub path: Option<String>,
    /// A path that is asked instead by a server that has no such `path` (404).
    pub else_path: Option<String>,
    /// Where the one token is asked for.
    pub probe: Probe,
    /// The server samples all its answers as its first request asked: that one is asked as the load's will be.
    pub sampling: bool,
    /// Seconds until the server is given up.
    pub timeout_s: u64,
    /// Seconds between SIGTERM and SIGKILL when it is stopped.
    pub stop_grace_s: u64,
}

impl Default for Ready {
    fn default() -> Self {
        Ready {
            path: None,
            else_path: None,
            probe: Probe::default(),
            sampling: false,
            timeout_s: 600,
            stop_grace_s: 5,
        }
    }
}

impl Ready {
    /// How long the server may take to load.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }

    /// How long the server may take to end after SIGTERM.
    pub fn stop_grace(&self) -> Duration {
        Duration::from_secs(self.stop_grace_s)
    }
}

/// What a server calls things, where it differs from OpenAI's API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dialect {
    /// What to send as `model`; `{model_name}` is the name the engine was started with.
    pub model: String,
    /// The server names its model itself: where `/v1/models` does not list the name that it was started with, the
    /// first name that it lists is the model's.
    pub listed_name: bool,
    /// The server calls its model by the path that it was started with.
    pub path_as_name: bool,
    /// The field that bounds the output: `max_tokens` or `max_completion_tokens`.
    pub max_tokens: String,
    /// The field that makes the server go on past the end-of-sequence token; `false` in the file: it has none.
    #[serde(deserialize_with = "field_or_false")]
    pub ignore_eos: Option<String>,
    /// What that field is set to.
    pub ignore_eos_value: toml::Value,
    /// The field of the sampling temperature; `false` in the file: it has none.
    #[serde(deserialize_with = "field_or_false")]
    pub temperature: Option<String>,
    /// The field of nucleus sampling's share; `false` in the file: it has none.
    #[serde(deserialize_with = "field_or_false")]
    pub top_p: Option<String>,
    /// Whether a `top_p` of 1 is taken; where it is refused it is left out, and the server must then draw from all.
    pub top_p_of_one: bool,
    /// The field of the number of tokens sampled from; `false` in the file: it has none.
    #[serde(deserialize_with = "field_or_false")]
    pub top_k: Option<String>,
    /// The field of the seed; `false` in the file: it has none.
    #[serde(deserialize_with = "field_or_false")]
    pub seed: Option<String>,
    /// The seed is the whole server's: a request's own only where no other runs.
    pub shared_seed: bool,
    /// Whether `stream_options: {include_usage: true}` is understood.
    pub include_usage: bool,
    /// Whether the stream ends with `data: [DONE]`.
    pub done: bool,
    /// Fields added to every request that does not set them otherwise.
    pub extra: BTreeMap<String, toml::Value>,
}

/// The name of a field, or `false` where there is none.
fn field_or_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(name) if !name.is_empty() => Ok(Some(name)),
        toml::Value::Boolean(false) => Ok(None),
        _ => Err(serde::de::Error::custom(
            "the name of a field, or false where the server has none",
        )),
    }
}

impl Dialect {
    /// Whether the server is told of this `top_p`.
    pub fn takes_top_p(&self, top_p: f64) -> bool {
        self.top_p.is_some() && (self.top_p_of_one || top_p < 1.0)
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            model: "{model_name}".into(),
            listed_name: false,
            path_as_name: false,
            max_tokens: "max_tokens".into(),
            ignore_eos: Some("ignore_eos".into()),
            ignore_eos_value: toml::Value::Boolean(true),
            temperature: Some("temperature".into()),
            top_p: Some("top_p".into()),
            top_p_of_one: true,
            top_k: Some("top_k".into()),
            seed: Some("seed".into()),
            shared_seed: false,
            include_usage: true,
            done: true,
            extra: BTreeMap::new(),
        }
    }
}

/// Where the server tells the settings it really uses: a JSON document and a JSON pointer (RFC 6901) for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadBack {
    /// Path of the document.
    pub path: String,
    /// Sequences served at once.
    pub parallel: Option<String>,
    /// Tokens of context for each sequence.
    pub context: Option<String>,
    /// Threads that compute.
    pub threads: Option<String>,
    /// Tokens of prompts that one step computes at most.
    pub batch: Option<String>,
    /// What it computes on.
    pub device: Option<String>,
    /// The version of what computes.
    pub version: Option<String>,
    /// The form of the weights in memory.
    pub weights: Option<String>,
    /// Bytes of the weights in memory.
    pub weights_bytes: Option<String>,
}

/// Settings that a server has whatever it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fixed {
    /// Sequences served at once.
    pub parallel: Option<u32>,
}

/// Where the server's Prometheus metrics are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Their path.
    pub path: String,
    /// Names that the number of requests it works on may have; the first that stands there counts.
    #[serde(default)]
    pub running: Vec<String>,
    /// The same for the number of requests that wait.
    #[serde(default)]
    pub waiting: Vec<String>,
}

/// Everything `loadtest` knows about an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// What `--engine` calls it.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// How it comes to be a server.
    pub kind: Kind,
    /// One line about it.
    pub description: String,
    /// Model formats that it takes: `gguf`, `safetensors`.
    #[serde(default)]
    pub formats: Vec<String>,
    /// Systems that it runs on, as Rust calls them (`linux`, `macos`); empty: any.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// What the machine must have, for people.
    pub needs: Option<String>,
    /// The address of an engine of kind `attach`, unless the user gives another.
    pub url: Option<String>,
    /// Where a program of the user's may be.
    pub find: Option<Find>,
    /// How it is built.
    pub build: Option<Build>,
    /// How it is installed.
    pub install: Option<Install>,
    /// How a GGUF is converted for it.
    pub convert: Option<Convert>,
    /// How it is started.
    #[serde(default)]
    pub serve: Serve,
    /// How readiness is known.
    #[serde(default)]
    pub ready: Ready,
    /// What it calls things.
    #[serde(default)]
    pub dialect: Dialect,
    /// Where it tells its settings.
    pub effective: Option<ReadBack>,
    /// Settings that it has whatever it is told.
    #[serde(default)]
    pub fixed: Fixed,
    /// Where its metrics are.
    pub metrics: Option<Metrics>,
    /// The folder that the recipe's relative paths start from; none for a shipped recipe outside a checkout.
    #[serde(skip)]
    pub dir: Option<PathBuf>,
}
