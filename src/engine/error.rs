//! Why an engine could not be brought up.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use super::process::Exit;
use super::recipe::RecipeError;

/// Why an engine could not be brought up. Messages say what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A recipe is wrong or there is none.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Its program is not on this machine.
    #[error("{engine} is not on this machine: {what_to_do}")]
    Missing {
        /// The engine.
        engine: String,
        /// How to get it.
        what_to_do: String,
    },
    /// Cargo, pip or another program that gets the engine failed.
    #[error("{engine}: `{command}` failed; the end of its output:\n{tail}")]
    Command {
        /// The engine.
        engine: String,
        /// What was run.
        command: String,
        /// Its last lines.
        tail: String,
    },
    /// The user asked to stop while cargo, pip or another program was getting the engine.
    #[error("interrupted")]
    Interrupted,
    /// A file or a program could not be used.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A setting that this engine has no way to take.
    #[error("{engine} cannot be told {what}: its recipe has no {key}")]
    Unsupported {
        /// The engine.
        engine: String,
        /// The setting.
        what: &'static str,
        /// What the recipe lacks.
        key: &'static str,
    },
    /// A command line of the user's that starts no server.
    #[error("--command: {message}")]
    CommandLine {
        /// What is wrong, and what would be right.
        message: String,
    },
    /// A model in a form that this engine does not read.
    #[error("{engine} takes {takes}, and {} is {form}: name another model with --model", .model.display())]
    Format {
        /// The engine.
        engine: String,
        /// The forms that it takes.
        takes: String,
        /// The model.
        model: PathBuf,
        /// Its form.
        form: &'static str,
    },
    /// A server at its usual address that lists other models.
    #[error("{engine} at {url} has no model `{model}`; name one of these with --model: {listed}")]
    NoSuchModel {
        /// The engine.
        engine: String,
        /// The address.
        url: String,
        /// The name asked for.
        model: String,
        /// The names it lists.
        listed: String,
    },
    /// The port asked for is taken.
    #[error("port {port} is in use: give {engine} another by --port, or 0 for a free one")]
    PortInUse {
        /// The engine.
        engine: String,
        /// The port.
        port: u16,
    },
    /// The server ended before the model answered.
    #[error("{engine} died while loading, {exit}{}{}; its log is {}{}", background(.exit), .exit.memory(), .log.display(), shown(&.exit.log_tail))]
    Died {
        /// The engine.
        engine: String,
        /// How it ended.
        exit: Box<Exit>,
        /// Its log file.
        log: PathBuf,
    },
    /// The server runs but the model did not answer in time.
    #[error("{engine} did not answer within {} s: {last}; give it longer by --load-timeout, or timeout_s under [ready] in its engine.toml; its log is {}{}", .after.as_secs(), .log.display(), shown(.log_tail))]
    NeverReady {
        /// The engine.
        engine: String,
        /// How long was waited.
        after: Duration,
        /// What the last attempt came to.
        last: String,
        /// Its log file.
        log: PathBuf,
        /// The log's last lines.
        log_tail: String,
    },
    /// The server is up and refuses a request for one token.
    #[error("{engine} is up at {url} but refuses a request for one token: HTTP {status}: {body}")]
    Refused {
        /// The engine.
        engine: String,
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The start of the body.
        body: String,
    },
    /// Nothing useful answers at the address given.
    #[error("no server answers at {url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
}

impl EngineError {
    /// For `map_err`: says what was tried.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> EngineError {
        let what = what.into();
        move |source| EngineError::Io { what, source }
    }
}

/// An error with its causes, none of which its own text holds.
pub(super) fn reason(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What a server that ends well before it has answered may have done.
fn background(exit: &Exit) -> &'static str {
    match exit.code {
        Some(0) => ": if it went to the background, tell it to stay in the foreground",
        _ => "",
    }
}

fn shown(log_tail: &str) -> String {
    if log_tail.is_empty() {
        " (empty)".into()
    } else {
        format!("; its last lines:\n{log_tail}")
    }
}
