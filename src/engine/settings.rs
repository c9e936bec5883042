//! What a server is told, and what it says that it uses.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::EngineError;
use super::process::this_program;
use super::recipe::Recipe;

/// How the load's requests will be sampled; what is `None` is left to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sampling {
    /// Sampling temperature; 0 is greedy.
    pub temperature: Option<f64>,
    /// Sample from this share of the probability.
    pub top_p: Option<f64>,
}

/// What a server is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The model: a file or a folder.
    pub model: PathBuf,
    /// What requests call it.
    pub model_name: String,
    /// Sequences served at once.
    pub parallel: u32,
    /// Tokens of context for each of them.
    pub context: u32,
    /// Threads that compute.
    pub threads: u32,
    /// The processors that its processes may run on; none: any.
    pub cpus: Option<Vec<usize>>,
    /// The form to keep the weights in; none: the engine chooses.
    pub weights: Option<String>,
    /// What it computes on, in the engine's words; none: the engine chooses.
    pub device: Option<String>,
    /// How requests will be sampled, for servers that must know it at once.
    pub sampling: Sampling,
    /// Arguments of the user's, added at the end.
    pub extra_args: Vec<String>,
    /// The address that it listens on.
    pub host: Ipv4Addr,
    /// The port; none: a free one.
    pub port: Option<u16>,
    /// Where the server's output goes.
    pub log: PathBuf,
    /// How long it may take to load; none: what the recipe says.
    pub ready_timeout: Option<Duration>,
    /// The program that runs [`guard::main`](super::guard::main) for its hidden subcommand: [`this_program`].
    pub guard: PathBuf,
}

impl Settings {
    /// One sequence of 4096 tokens on one thread; change what should be otherwise.
    pub fn new(
        model: impl Into<PathBuf>,
        model_name: impl Into<String>,
        log: impl Into<PathBuf>,
    ) -> Settings {
        Settings {
            model: model.into(),
            model_name: model_name.into(),
            parallel: 1,
            context: 4096,
            threads: 1,
            cpus: None,
            weights: None,
            device: None,
            sampling: Sampling::default(),
            extra_args: Vec::new(),
            host: Ipv4Addr::LOCALHOST,
            port: None,
            log: log.into(),
            ready_timeout: None,
            guard: this_program(),
        }
    }

    /// The model, as the server is told of it.
    fn model_path(&self) -> String {
        let model = std::path::absolute(&self.model).unwrap_or_else(|_| self.model.clone());
        model.display().to_string()
    }

    /// What requests are to call the model: its name, or the path that the server is told.
    pub(super) fn asked_for(&self, recipe: &Recipe) -> String {
        match recipe.dialect.path_as_name {
            true => self.model_path(),
            false => self.model_name.clone(),
        }
    }

    /// Where this machine reaches it: the address that means all of them is none to connect to.
    pub(super) fn reached_at(&self) -> Ipv4Addr {
        match self.host.is_unspecified() {
            true => Ipv4Addr::LOCALHOST,
            false => self.host,
        }
    }

    /// What stands for the placeholders of a recipe.
    pub(super) fn values(&self, port: u16, dir: &Path) -> Vec<(&'static str, String)> {
        vec![
            ("model", self.model_path()),
            ("model_name", self.model_name.clone()),
            ("host", self.host.to_string()),
            ("port", port.to_string()),
            ("parallel", self.parallel.to_string()),
            ("context", self.context.to_string()),
            (
                "context_total",
                (u64::from(self.context) * u64::from(self.parallel)).to_string(),
            ),
            ("threads", self.threads.to_string()),
            ("weights", self.weights.clone().unwrap_or_default()),
            ("device", self.device.clone().unwrap_or_default()),
            ("log", self.log.display().to_string()),
            ("dir", dir.display().to_string()),
        ]
    }

    /// Refuses a model whose form the engine does not take, where both are known.
    pub(super) fn readable_by(&self, recipe: &Recipe) -> Result<(), EngineError> {
        let model = &self.model;
        let gguf = model
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        let (form, takes) = match (model.is_dir(), gguf) {
            (true, _) => ("a folder", recipe.formats.iter().any(|format| format != "gguf")),
            (false, true) => (
                "a GGUF file",
                recipe.formats.iter().any(|format| format == "gguf"),
            ),
            (false, false) => return Ok(()),
        };
        if takes || recipe.formats.is_empty() {
            return Ok(());
        }
        Err(EngineError::Format {
            engine: recipe.name.clone(),
            takes: recipe.formats.join(" or "),
            model: model.clone(),
            form,
        })
    }
}

/// The settings that a server says it uses. What it does not tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Sequences served at once.
    pub parallel: Option<u32>,
    /// Tokens of context for each of them.
    pub context: Option<u32>,
    /// Threads that compute.
    pub threads: Option<u32>,
    /// The version of what computes.
    pub version: Option<String>,
    /// The form of the weights in memory.
    pub weights: Option<String>,
    /// Bytes of the weights in memory.
    pub weights_bytes: Option<u64>,
}
