//! What lies between the HTTP layer and whatever produces tokens.

use std::pin::Pin;

use futures::Stream;
use futures::future::BoxFuture;
use loadtest_protocol::TokenLogprob;
use serde_json::Value;

use crate::Refusal;

/// One checked request: what to continue, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to continue.
    pub input: Input,
    /// Most tokens to generate; as many as the context holds if not given.
    pub max_tokens: Option<u64>,
    /// Fewest tokens before an end token may come.
    pub min_tokens: u64,
    /// 0 is greedy.
    pub temperature: f32,
    /// Only the likeliest tokens that make up this share of the probability.
    pub top_p: f32,
    /// Only so many of the likeliest tokens, before `top_p` takes its share of them.
    pub top_k: Option<usize>,
    /// Seed of the request's own random numbers; drawn if not given.
    pub seed: Option<u64>,
    /// Texts that end the output, without being part of it.
    pub stop: Vec<String>,
    /// Whether end tokens are never chosen.
    pub ignore_eos: bool,
    /// Whether events tell the log probabilities of their tokens, and of how many of the likeliest tokens at each place.
    pub logprobs: Option<usize>,
}

/// What a request asks to continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A conversation, for the model's chat template. Every `content` is a string or null.
    Messages(Vec<Value>),
    /// A text.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
}

/// Why the output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended, or a stop text appeared.
    Stop,
    /// The most tokens were generated, or the context is full.
    Length,
}

impl Finish {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// One thing that happened to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// New output.
    Output {
        /// Whole characters, never empty.
        text: String,
        /// Tokens generated since the event before.
        tokens: u64,
        /// One entry for each of these tokens, if the request asked for it.
        logprobs: Vec<TokenLogprob>,
    },
    /// The last event of an output that ended as it should.
    Finish {
        /// Why it ended.
        reason: Finish,
        /// Tokens generated since the event before: an end token, the tokens of a stop text.
        tokens: u64,
        /// One entry for each of these tokens, if the request asked for it.
        logprobs: Vec<TokenLogprob>,
    },
    /// The last event of an output that broke.
    Failed(String),
}

/// A request under way.
///
/// Its events end with [`Event::Finish`] or [`Event::Failed`]. Dropping it cancels the request.
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// What happens to the request, as it happens.
    pub events: Pin<Box<dyn Stream<Item = Event> + Send>>,
}

/// What produces tokens for requests.
pub trait Generator: Send + Sync + 'static {
    /// Takes a request in, or refuses it.
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Generation, Refusal>>;

    /// The tokens of a plain text.
    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Vec<u32>, Refusal>>;

    /// The effective settings, for `/props`.
    fn props(&self) -> Value;

    /// Which configuration answers, for `system_fingerprint`.
    fn fingerprint(&self) -> &str;
}
