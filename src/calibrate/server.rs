//! The reference server in a process of its own, for the time of a calibration.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::Told;
use crate::engine::{self, EngineError, Program, Recipe, RecipeError, Running, Settings};

/// The hidden subcommand that is the reference server: `main` hands what follows it on to that.
pub const SERVER_SUBCOMMAND: &str = "__reference";

/// How the server is started. It is an engine like any other, but none that a user could choose.
const RECIPE: &str = r#"
name = "reference"
title = "reference"
kind = "embedded"
description = "The built-in server with a known schedule"

[find]
programs = ["loadtest"]

[serve]
args = ["--host", "{host}", "--port", "{port}", "--model-name", "{model_name}", "--die-with-parent"]

[ready]
path = "/health"
timeout_s = 30
"#;

/// How long the server may take to tell its log.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no reference server, or no word of it.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It could not be started.
    #[error("the reference server does not start: {0}")]
    Start(#[from] EngineError),
    /// Its recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// There is no runtime, or no folder for its log.
    #[error("the reference server cannot be had: {0}")]
    Io(#[from] std::io::Error),
    /// It did not answer.
    #[error("the reference server does not answer: {0}")]
    Silent(#[from] reqwest::Error),
    /// What it told is not what it should be.
    #[error("the reference server's log cannot be read: {0}")]
    Log(#[from] serde_json::Error),
}

/// The server, up. Dropped, it is stopped and gone.
pub struct Reference {
    running: Option<Running>,
    control: Runtime,
    http: reqwest::Client,
    /// Where the server's output goes.
    _dir: tempfile::TempDir,
}

impl Reference {
    /// Starts the server: `program`, which is `loadtest`, again, under the same guard as an engine.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(program: &Path) -> Result<Reference, ServerError> {
        let recipe = Recipe::parse(RECIPE, "the reference server's recipe", None)?;
        let dir = tempfile::tempdir()?;
        let control = Builder::new_current_thread().enable_all().build()?;
        let server = Program {
            argv: vec![program.into(), SERVER_SUBCOMMAND.into()],
            version: None,
        };
        let mut settings = Settings::new("", "reference", dir.path().join("reference.log"));
        settings.guard = program.to_owned();
        let running = control.block_on(engine::start(&recipe, &server, &settings, &|_: &str| {}))?;
        Ok(Reference {
            running: Some(running),
            http: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?,
            control,
            _dir: dir,
        })
    }

    /// Its address.
    pub fn base_url(&self) -> &str {
        self.running.as_ref().map_or("", Running::base_url)
    }

    /// Has it forget all requests so far.
    pub(super) fn forget(&self) -> Result<(), ServerError> {
        let url = format!("{}/reference/reset", self.base_url());
        self.control
            .block_on(async { self.http.post(url).send().await?.error_for_status() })?;
        Ok(())
    }

    /// What it did since.
    pub(super) fn log(&self) -> Result<Vec<Told>, ServerError> {
        let url = format!("{}/reference/log", self.base_url());
        let text = self.control.block_on(async {
            let answer = self.http.get(url).send().await?.error_for_status()?;
            answer.bytes().await
        })?;
        Ok(Told::read(&text)?)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // What comes next is to find the machine as it was.
            self.control.block_on(running.stop());
        }
    }
}
