//! An engine as data: `servers/NAME/engine.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// It runs already; only its address is known.
    Attach,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Kind::Embedded => "embedded",
            Kind::Spawned => "spawned",
            Kind::Bridge => "bridge",
            Kind::Attach => "attach",
        })
    }
}

/// Where a program of the user's may be.
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
    /// Environment of the build.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What it costs, for people: minutes and disk.
    pub takes: String,
}

/// How the engine is installed into a private Python environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// What `pip install` is given.
    pub packages: Vec<String>,
    /// The program that results; `{python}` is the environment's interpreter, `{dir}` the environment's folder.
    pub program: Vec<String>,
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
    /// Environment, with placeholders.
    pub env: BTreeMap<String, String>,
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
}

/// How readiness is known: the path answers 200 (where there is one), then the model answers with a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ready {
    /// A path that answers 200 once the server is up, asked before the model is.
    pub path: Option<String>,
    /// Where the one token is asked for.
    pub probe: Probe,
    /// Seconds until the server is given up.
    pub timeout_s: u64,
    /// Seconds between SIGTERM and SIGKILL when it is stopped.
    pub stop_grace_s: u64,
}

impl Default for Ready {
    fn default() -> Self {
        Ready {
            path: None,
            probe: Probe::default(),
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
    /// The field that bounds the output: `max_tokens` or `max_completion_tokens`.
    pub max_tokens: String,
    /// The field that makes the server go on past the end-of-sequence token; none: it cannot.
    pub ignore_eos: Option<String>,
    /// Whether `stream_options: {include_usage: true}` is understood.
    pub include_usage: bool,
    /// Whether the stream ends with `data: [DONE]`.
    pub done: bool,
    /// Fields added to every request.
    pub extra: BTreeMap<String, toml::Value>,
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            model: "{model_name}".into(),
            max_tokens: "max_tokens".into(),
            ignore_eos: Some("ignore_eos".into()),
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
    /// The version of what computes.
    pub version: Option<String>,
    /// The form of the weights in memory.
    pub weights: Option<String>,
    /// Bytes of the weights in memory.
    pub weights_bytes: Option<String>,
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
    /// What `--engine` calls it; also the name of its folder.
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
    /// Where a program of the user's may be.
    pub find: Option<Find>,
    /// How it is built.
    pub build: Option<Build>,
    /// How it is installed.
    pub install: Option<Install>,
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
    /// Where its metrics are.
    pub metrics: Option<Metrics>,
    /// The folder that the recipe's relative paths start from; none for a shipped recipe outside a checkout.
    #[serde(skip)]
    pub dir: Option<PathBuf>,
}

/// Words in braces that a recipe's arguments may use.
pub const PLACEHOLDERS: [&str; 10] = [
    "model",
    "model_name",
    "host",
    "port",
    "parallel",
    "context",
    "context_total",
    "threads",
    "weights",
    "log",
];

const INSTALL_PLACEHOLDERS: [&str; 2] = ["python", "dir"];

/// Why a recipe can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file is no recipe.
    #[error("{file}:{line}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No engine has this name.
    #[error("no engine is called `{name}`{}; known: {known}", .nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The name asked for.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
}

impl Recipe {
    /// Reads a recipe. `file` is what errors call it, `dir` where its relative paths start.
    pub fn parse(text: &str, file: &str, dir: Option<&Path>) -> Result<Recipe, RecipeError> {
        let invalid = |at: usize, message: String| RecipeError::Invalid {
            file: file.into(),
            line: 1 + text[..at.min(text.len())].matches('\n').count(),
            message,
        };
        let mut recipe: Recipe = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            invalid(at, with_nearest(error.message()))
        })?;
        if let Some((at, message)) = recipe.mistake(text) {
            return Err(invalid(at, message));
        }
        recipe.dir = dir.map(Path::to_owned);
        Ok(recipe)
    }

    /// What the types alone can't rule out: byte offset and message.
    fn mistake(&self, text: &str) -> Option<(usize, String)> {
        let at = |needle: &str| text.find(needle).unwrap_or(0);
        let serve = self
            .serve
            .args
            .iter()
            .chain(&self.serve.weights_args)
            .chain(self.serve.env.values());
        let install = self.install.iter().flat_map(|install| &install.program);
        let unknown = serve
            .map(|word| (word, &PLACEHOLDERS[..]))
            .chain(install.map(|word| (word, &INSTALL_PLACEHOLDERS[..])))
            .find_map(|(word, known)| {
                placeholders(word)
                    .find(|name| !known.contains(name))
                    .map(|name| (name, known))
            });
        if let Some((name, known)) = unknown {
            let hint = nearest(name, known.iter().copied()).map(|n| format!(", did you mean `{{{n}}}`?"));
            let message = format!("unknown placeholder `{{{name}}}`{}", hint.unwrap_or_default());
            return Some((at(&format!("{{{name}}}")), message));
        }
        if !matches!(
            self.dialect.max_tokens.as_str(),
            "max_tokens" | "max_completion_tokens"
        ) {
            let message = "dialect.max_tokens is `max_tokens` or `max_completion_tokens`".to_owned();
            return Some((at("max_tokens"), message));
        }
        let had = self.find.is_some() || self.build.is_some() || self.install.is_some();
        match self.kind {
            Kind::Attach if had => Some((
                0,
                "an engine of kind `attach` is not started: no find, build or install".into(),
            )),
            Kind::Attach => None,
            _ if !had => Some((
                0,
                format!(
                    "an engine of kind `{}` needs [find], [build] or [install]",
                    self.kind
                ),
            )),
            _ if !self
                .serve
                .args
                .iter()
                .any(|word| placeholders(word).any(|name| name == "port")) =>
            {
                Some((
                    at("[serve]"),
                    "serve.args must tell the server its `{port}`".into(),
                ))
            }
            _ => None,
        }
    }
}

/// The names in braces inside `word`; JSON braces and the like are no names.
fn placeholders(word: &str) -> impl Iterator<Item = &str> {
    word.split('{').skip(1).filter_map(|rest| {
        let name = &rest[..rest.find('}')?];
        (!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(name)
    })
}

/// Puts values in the place of `{names}`.
pub(super) fn fill(word: &str, values: &[(&str, String)]) -> String {
    values.iter().fold(word.to_owned(), |word, (name, value)| {
        word.replace(&format!("{{{name}}}"), value)
    })
}

/// The candidate that `name` was most likely meant to be.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// serde says "unknown field `x`, expected one of `a`, `b`": names the nearest of them first.
fn with_nearest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = message.starts_with("unknown ").then(|| quoted.next()).flatten();
    match unknown.and_then(|name| nearest(name, quoted)) {
        Some(hit) => format!("{message} (did you mean `{hit}`?)"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"name = "x"
title = "X"
kind = "spawned"
description = "a server"
[find]
programs = ["x"]
[serve]
args = ["--port", "{port}"]
"#;

    fn error(text: &str) -> String {
        Recipe::parse(text, "x/engine.toml", None)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn defaults_are_those_of_the_reference_api() {
        let recipe = Recipe::parse(MINIMAL, "x/engine.toml", None).unwrap();
        assert_eq!(recipe.dialect, Dialect::default());
        assert_eq!(recipe.ready.timeout(), Duration::from_secs(600));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line_and_the_nearest() {
        let message = error(&MINIMAL.replace("programs", "program"));
        assert!(
            message.starts_with("x/engine.toml:6: unknown field `program`"),
            "{message}"
        );
        assert!(message.ends_with("(did you mean `programs`?)"), "{message}");
        let message = error(&MINIMAL.replace("\"spawned\"", "\"spawnd\""));
        assert!(
            message.contains(":3:") && message.contains("did you mean `spawned`?"),
            "{message}"
        );
    }

    #[test]
    fn a_wrong_placeholder_is_named_with_its_line_and_the_nearest() {
        let message = error(&MINIMAL.replace("{port}", "{prot}"));
        assert_eq!(
            message,
            "x/engine.toml:8: unknown placeholder `{prot}`, did you mean `{port}`?"
        );
    }

    #[test]
    fn a_server_must_be_told_its_port_and_be_had_somehow() {
        assert!(error(&MINIMAL.replace("{port}", "8000")).contains("`{port}`"));
        assert!(error(&MINIMAL.replace("[find]\nprograms = [\"x\"]\n", "")).contains("needs [find]"));
        assert!(error(&MINIMAL.replace("spawned", "attach")).contains("is not started"));
    }

    #[test]
    fn braces_that_are_no_names_stay() {
        let word = r#"{"a": {port}}"#;
        assert_eq!(placeholders(word).collect::<Vec<_>>(), ["port"]);
        assert_eq!(fill(word, &[("port", "80".into())]), r#"{"a": 80}"#);
    }
}
