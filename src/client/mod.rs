//! Doing it: a connection per user, a stamped socket, HTTP/1.1, the SSE splitter, and one request turned into a
//! [`Sample`](crate::measure::Sample).

use std::error::Error;
use std::time::Duration;

mod answer;
mod asking;
mod connection;
mod exchange;
pub mod http;
pub mod offline;
mod reader;
mod recv;
mod response;
pub mod sse;
mod stamped;
mod target;

pub use asking::{Client, Shared};
pub use connection::Cut;
pub use reader::{Reader, Stall};
pub use target::{Target, TargetError};

use crate::measure::Outcome;

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub outcome: Outcome,
    limit: Option<Duration>,
    message: Option<String>,
}

/// The longest message kept, in characters.
const MAX_MESSAGE: usize = 300;

impl Failure {
    fn new(outcome: Outcome, message: impl AsRef<str>) -> Self {
        let message = message.as_ref().chars().take(MAX_MESSAGE).collect();
        Self {
            outcome,
            limit: None,
            message: Some(message),
        }
    }

    fn cancelled() -> Self {
        Self::new(Outcome::Cancelled, "the run was over before the request was")
    }

    fn exceeded(outcome: Outcome, limit: Duration) -> Self {
        Self {
            outcome,
            limit: Some(limit),
            message: None,
        }
    }

    fn closed_before_an_answer() -> Self {
        Self::new(Outcome::Truncated, "the connection was closed before an answer")
    }

    /// What went wrong, in words.
    pub fn message(&self) -> String {
        match (&self.message, self.limit) {
            (Some(message), _) => message.clone(),
            (None, Some(limit)) => match self.outcome {
                Outcome::TimeoutFirst => format!("no output within {limit:?}"),
                Outcome::Stalled => format!("no bytes for {limit:?} in the middle of the stream"),
                _ => format!("not over within {limit:?}"),
            },
            (None, None) => String::new(),
        }
    }
}

impl From<http::HttpError> for Failure {
    fn from(error: http::HttpError) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}"));
        Self::new(
            Outcome::Malformed,
            format!("{error}{}", cause.unwrap_or_default()),
        )
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
