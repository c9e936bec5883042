//! One request, as the client saw it.

use serde::{Deserialize, Serialize};

/// How a request ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything arrived: output, and a proper end of the stream.
    Ok,
    /// No connection could be opened.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No output arrived within the time allowed for the first token.
    TimeoutFirst,
    /// The request took longer than the time allowed in all.
    TimeoutTotal,
    /// The stream fell silent for longer than allowed after its first output.
    Stalled,
    /// The server answered with a status of 400 to 499 other than 429.
    #[serde(rename = "http_4xx")]
    Http4xx,
    /// The server answered 429: it takes no more load.
    #[serde(rename = "http_429")]
    Http429,
    /// The server answered with a status of 500 or above.
    #[serde(rename = "http_5xx")]
    Http5xx,
    /// The stream carried an error event.
    ServerErrorEvent,
    /// The connection ended in the middle of the response.
    Truncated,
    /// The response is not what it says it is: not HTTP, not an event stream, or an event that is not JSON.
    Malformed,
    /// The stream ended well and carried no output.
    Empty,
    /// The run was over before the request was: its drain deadline passed, or the user interrupted.
    Cancelled,
    /// The server process was gone.
    ServerExit,
}

/// Where a request's number of output tokens comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The server's own `usage`.
    Usage,
    /// The model's tokenizer, or the one that the user named, run over the answer's text after the request.
    Tokenizer,
    /// The number of events that carried output.
    Events,
}

/// One request. All instants are nanoseconds of CLOCK_MONOTONIC since the start of the run; an instant that the
/// request did not reach is absent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the request in its run, from 0, in the order in which requests became due.
    pub id: u64,
    /// The engine asked, by its number in the run; files have its name.
    #[serde(skip)]
    pub engine: u16,
    /// The step of the run, from 0.
    pub step: u16,
    /// The user who asked, from 0.
    pub user: u32,
    /// When the load shape wanted the request.
    pub due_ns: u64,
    /// When the request's first byte was handed to the kernel.
    pub sent_ns: Option<u64>,
    /// When the response head had arrived.
    pub headers_ns: Option<u64>,
    /// Arrival of the first event that carries generated output.
    pub first_ns: Option<u64>,
    /// Arrival of the second such event.
    pub second_ns: Option<u64>,
    /// Arrival of the first event with visible output (not reasoning).
    pub first_visible_ns: Option<u64>,
    /// Arrival of the last event that carries generated output.
    pub last_ns: Option<u64>,
    /// When the stream was over.
    pub end_ns: Option<u64>,
    /// Nanoseconds spent on DNS, TCP and TLS, when this request opened a connection.
    pub connect_ns: Option<u64>,
    /// Events that carried output.
    pub events: u32,
    /// Input tokens, where known.
    pub n_in: Option<u32>,
    /// Output tokens.
    pub n_out: Option<u32>,
    /// Where `n_out` comes from.
    pub token_source: TokenSource,
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status, if one arrived.
    pub status: Option<u16>,
    /// What went wrong, in words (bounded in length).
    pub error: Option<String>,
}

impl Sample {
    /// How late a request went out that was sent at `sent_ns`: nanoseconds since it was due, less the set-up of a
    /// connection that was made in between.
    pub(super) fn send_lag_ns(&self, sent_ns: u64) -> u64 {
        let late = sent_ns.saturating_sub(self.due_ns);
        // A connection that took longer was opened ahead of the request.
        late - self.connect_ns.filter(|&connect| connect <= late).unwrap_or(0)
    }

    /// The latest instant that the request reached.
    pub(super) fn latest_ns(&self) -> u64 {
        [self.sent_ns, self.headers_ns, self.last_ns, self.end_ns]
            .into_iter()
            .flatten()
            .fold(self.due_ns, u64::max)
    }
}
