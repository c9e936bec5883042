//! The answer's form: server-sent events as OpenAI's API sends them, or one JSON body.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use loadtest_protocol::{
    ChatMessage, Choice, Completion, LogprobLists, Logprobs, Output, TokenLogprob, Usage,
};
use serde_json::json;

use crate::call::{Call, Endpoint};
use crate::{Event, Finish, Generation, Metrics, Outcome, Refusal};

/// What a frame of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The first chunk of a chat, which only names the role.
    Role,
    /// Generated text.
    Output,
    /// The chunk with the finish reason.
    Finish,
    /// The chunk that only counts tokens.
    Usage,
    /// `[DONE]`.
    Done,
    /// An error in mid-stream.
    Error,
}

/// One server-sent event, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Tokens that became visible with it.
    pub tokens: u64,
    /// The event with its blank line.
    pub bytes: Bytes,
}

/// Who answers, as responses name it.
#[derive(Debug, Clone, Copy)]
pub struct Answerer<'a> {
    /// The model's name.
    pub model: &'a str,
    /// Which configuration answers.
    pub fingerprint: &'a str,
}

/// Name and time of one response.
struct Stamp {
    id: String,
    created: u64,
}

impl Stamp {
    fn new(endpoint: Endpoint) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = match endpoint {
            Endpoint::Chat => "chatcmpl",
            Endpoint::Completions => "cmpl",
        };
        let id = format!(
            "{prefix}-{:x}-{:x}",
            now.as_nanos() as u64,
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            id,
            created: now.as_secs(),
        }
    }
}

/// Renders the chunks of one stream. All but the text is rendered once.
struct ChunkWriter {
    endpoint: Endpoint,
    /// `data: {"id":...,"choices":[`
    head: String,
    include_usage: bool,
    continuous_usage: bool,
    prompt_tokens: u64,
    logprobs: bool,
    /// Characters of the output so far.
    offset: u64,
}

impl ChunkWriter {
    fn new(call: &Call, answerer: Answerer<'_>, prompt_tokens: u64) -> Self {
        let Stamp { id, created } = Stamp::new(call.endpoint);
        let object = match call.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions => "text_completion",
        };
        let (id, model, fingerprint) = (json!(id), json!(answerer.model), json!(answerer.fingerprint));
        let head = format!(
            "data: {{\"id\":{id},\"object\":\"{object}\",\"created\":{created},\"model\":{model},\
             \"system_fingerprint\":{fingerprint},\"choices\":["
        );
        Self {
            endpoint: call.endpoint,
            head,
            include_usage: call.include_usage,
            continuous_usage: call.continuous_usage,
            prompt_tokens,
            logprobs: call.request.logprobs.is_some(),
            offset: 0,
        }
    }

    /// A chunk with one choice; `generated` counts the tokens so far.
    fn chunk(&mut self, piece: Piece<'_>, logprobs: Vec<TokenLogprob>, generated: u64) -> Bytes {
        let mut out = Vec::with_capacity(self.head.len() + 160);
        out.extend_from_slice(self.head.as_bytes());
        let (open, text, close) = match (self.endpoint, piece) {
            (Endpoint::Chat, Piece::Role) => (
                r#"{"index":0,"delta":{"role":"assistant","content":"#,
                Some(""),
                "},\"finish_reason\":null}]",
            ),
            (Endpoint::Chat, Piece::Text(text)) => (r#"{"index":0,"delta":{"content":"#, Some(text), "}"),
            (Endpoint::Chat, Piece::Finish(_)) => (r#"{"index":0,"delta":{}"#, None, ""),
            (Endpoint::Completions, Piece::Text(text)) => (r#"{"index":0,"text":"#, Some(text), ""),
            (Endpoint::Completions, Piece::Finish(_)) => (r#"{"index":0,"text":"""#, None, ""),
            (_, Piece::Role | Piece::Nothing) => ("", None, "]"),
        };
        out.extend_from_slice(open.as_bytes());
        if let Some(text) = text {
            // Writing a string to a vector does not fail.
            let _ = serde_json::to_writer(&mut out, text);
        }
        out.extend_from_slice(close.as_bytes());
        match piece {
            Piece::Text(text) => {
                self.write_logprobs(&mut out, logprobs);
                self.offset += text.chars().count() as u64;
                out.extend_from_slice(b",\"finish_reason\":null}]");
            }
            Piece::Finish(reason) => {
                self.write_logprobs(&mut out, logprobs);
                out.extend_from_slice(b",\"finish_reason\":\"");
                out.extend_from_slice(reason.as_str().as_bytes());
                out.extend_from_slice(b"\"}]");
            }
            Piece::Role | Piece::Nothing => {}
        }
        if self.continuous_usage || matches!(piece, Piece::Nothing) {
            out.extend_from_slice(b",\"usage\":");
            let _ = serde_json::to_writer(&mut out, &Usage::new(self.prompt_tokens, generated));
        } else if self.include_usage {
            out.extend_from_slice(b",\"usage\":null");
        }
        out.extend_from_slice(b"}\n\n");
        out.into()
    }

    /// Writes a choice's `logprobs`, which a completion has in any case and a chat if it was asked for them.
    fn write_logprobs(&self, out: &mut Vec<u8>, entries: Vec<TokenLogprob>) {
        if !self.logprobs {
            if self.endpoint == Endpoint::Completions {
                out.extend_from_slice(b",\"logprobs\":null");
            }
            return;
        }
        out.extend_from_slice(b",\"logprobs\":");
        // What is written has text keys and finite numbers.
        let _ = serde_json::to_writer(out, &shaped(self.endpoint, entries, self.offset));
    }
}

/// Log probabilities in the endpoint's shape; `offset` is the number of characters before them.
fn shaped(endpoint: Endpoint, entries: Vec<TokenLogprob>, mut offset: u64) -> Logprobs {
    if endpoint == Endpoint::Chat {
        return Logprobs::Content {
            content: Some(entries),
        };
    }
    let mut lists = LogprobLists {
        top_logprobs: Some(Vec::with_capacity(entries.len())),
        ..LogprobLists::default()
    };
    for TokenLogprob { token, top_logprobs } in entries {
        lists.text_offset.push(offset);
        offset += token.token.chars().count() as u64;
        lists.tokens.push(token.token);
        lists.token_logprobs.push(Some(token.logprob));
        let top = top_logprobs
            .into_iter()
            .map(|likely| (likely.token, likely.logprob));
        lists
            .top_logprobs
            .get_or_insert_default()
            .push(Some(top.collect()));
    }
    Logprobs::Lists(lists)
}

/// What a chunk tells.
#[derive(Clone, Copy)]
enum Piece<'a> {
    Role,
    Text(&'a str),
    Finish(Finish),
    /// No choice, only usage.
    Nothing,
}

/// A generation as a stream of rendered events. Dropping it cancels the generation.
pub struct Frames {
    writer: ChunkWriter,
    generation: Generation,
    generated: u64,
    /// Rendered, not yet taken.
    ready: VecDeque<Frame>,
    ending: Ending,
}

impl Frames {
    /// The frames that answer `call`.
    pub fn new(call: &Call, answerer: Answerer<'_>, generation: Generation, metrics: Arc<Metrics>) -> Self {
        let writer = ChunkWriter::new(call, answerer, generation.prompt_tokens);
        let mut frames = Self {
            writer,
            generation,
            generated: 0,
            ready: VecDeque::with_capacity(4),
            ending: Ending::new(metrics),
        };
        if call.endpoint == Endpoint::Chat {
            frames.push(Kind::Role, 0, Piece::Role, Vec::new());
        }
        frames
    }

    fn push(&mut self, kind: Kind, tokens: u64, piece: Piece<'_>, logprobs: Vec<TokenLogprob>) {
        self.generated += tokens;
        let bytes = self.writer.chunk(piece, logprobs, self.generated);
        self.ready.push_back(Frame { kind, tokens, bytes });
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Output {
                text,
                tokens,
                logprobs,
            } => self.push(Kind::Output, tokens, Piece::Text(&text), logprobs),
            Event::Finish {
                reason,
                tokens,
                logprobs,
            } => {
                self.push(Kind::Finish, tokens, Piece::Finish(reason), logprobs);
                if self.writer.include_usage {
                    self.push(Kind::Usage, 0, Piece::Nothing, Vec::new());
                }
                let done = Bytes::from_static(b"data: [DONE]\n\n");
                self.ready.push_back(Frame {
                    kind: Kind::Done,
                    tokens: 0,
                    bytes: done,
                });
                self.ending.is(reason.into());
            }
            Event::Failed(message) => {
                let error = json!({ "error": Refusal::internal(message).detail });
                let bytes = Bytes::from(format!("data: {error}\n\n"));
                self.ready.push_back(Frame {
                    kind: Kind::Error,
                    tokens: 0,
                    bytes,
                });
                self.ending.is(Outcome::Failed);
            }
        }
    }
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Poll::Ready(Some(frame));
            }
            if self.ending.known() {
                return Poll::Ready(None);
            }
            match self.generation.events.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(event)) => self.take_in(event),
                Poll::Ready(None) => self.take_in(Event::Failed("The engine stopped.".to_owned())),
            }
        }
    }
}

/// The whole answer to `call` as one JSON body.
///
/// # Errors
/// If the generation fails.
pub async fn collect(
    call: &Call,
    answerer: Answerer<'_>,
    mut generation: Generation,
    metrics: Arc<Metrics>,
) -> Result<Completion, Refusal> {
    let mut ending = Ending::new(metrics);
    let (mut output, mut generated, mut entries) = (String::new(), 0, Vec::new());
    let finish = loop {
        match generation.events.next().await {
            Some(Event::Output {
                text,
                tokens,
                logprobs,
            }) => {
                output.push_str(&text);
                generated += tokens;
                entries.extend(logprobs);
            }
            Some(Event::Finish {
                reason,
                tokens,
                logprobs,
            }) => {
                generated += tokens;
                entries.extend(logprobs);
                break reason;
            }
            failed => {
                ending.is(Outcome::Failed);
                let Some(Event::Failed(message)) = failed else {
                    return Err(Refusal::internal("The engine stopped."));
                };
                return Err(Refusal::internal(message));
            }
        }
    };
    ending.is(finish.into());
    let asked = call.request.logprobs.is_some();
    let Stamp { id, created } = Stamp::new(call.endpoint);
    let (object, output) = match call.endpoint {
        Endpoint::Chat => {
            let message = ChatMessage {
                role: "assistant".to_owned(),
                content: Some(output),
            };
            ("chat.completion", Output::Message(message))
        }
        Endpoint::Completions => ("text_completion", Output::Text(output)),
    };
    Ok(Completion {
        id,
        object: object.to_owned(),
        created,
        model: answerer.model.to_owned(),
        system_fingerprint: Some(answerer.fingerprint.to_owned()),
        choices: vec![Choice {
            index: 0,
            output,
            logprobs: asked.then(|| shaped(call.endpoint, entries, 0)),
            finish_reason: Some(finish.as_str().to_owned()),
        }],
        usage: Some(Usage::new(generation.prompt_tokens, generated)),
    })
}

/// Counts how a request ended, once; one that is dropped before its end was cancelled.
struct Ending {
    metrics: Arc<Metrics>,
    outcome: Option<Outcome>,
}

impl Ending {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            outcome: None,
        }
    }

    fn is(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    fn known(&self) -> bool {
        self.outcome.is_some()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.metrics.ended(self.outcome.unwrap_or(Outcome::Cancelled));
    }
}

impl From<Finish> for Outcome {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::Length => Self::Length,
        }
    }
}
