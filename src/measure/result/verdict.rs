//! What limits a step's figures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a reader must know before believing a step's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No request succeeded.
    NoSamples,
    /// Some requests failed.
    Errors,
    /// The client's own error is above 1 ms or above 5 % of the median TTFT.
    ClientLimited,
    /// The reader was late by more than 1 ms at p99; arrivals are the kernel's, so that latencies do not suffer.
    LateReader,
    /// Arrivals are the instants of reading: this system's kernel does not stamp them.
    Unstamped,
    /// The wall clock was set during the step.
    ClockStep,
    /// The client's threads waited for a processor more than 5 % of the window, or the hypervisor took more than 2 % of
    /// the machine's processors away.
    Contended,
    /// Answers given under load are not those that the engine gave alone, and no near tie explains it.
    Garbled,
    /// Fewer than 95 % of the users were in flight on average.
    ConcurrencyShort,
    /// The server worked on fewer than 95 % of the requests in flight at a time, and the others waited for a slot.
    Queued,
    /// Fewer than half of the requests in flight were past their first token, though the server took all of them in.
    MostlyWaiting,
    /// The server counts more than 5 % more or fewer requests than the client had in flight.
    ServerCount,
    /// Throughput times latency differs from the observed concurrency by more than 5 %: the step was not steady.
    LittlesLaw,
    /// The answers were more than 5 % shorter than asked for.
    ShortOutput,
    /// Output tokens were counted here, by a tokenizer: the server told no usage.
    TokensCountedHere,
    /// Output tokens were counted as events: the server told no usage, and no tokenizer could count them.
    TokensAreEvents,
    /// TTFT's p99 rests on too few requests.
    FewSamples,
    /// Some users had not ended the requests of their warm-up when the window opened: the server was too slow for it.
    ColdUsers,
    /// Some requests were sent a second time: the server had closed the connection it kept open.
    Resent,
    /// goose counted other numbers of requests than the client.
    GooseMismatch,
}
