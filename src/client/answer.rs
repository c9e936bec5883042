//! What the stream says: its events, read for output, usage and errors.

use loadtest_protocol::ChunkReader;

use super::Failure;
use super::http::{Body, Head, Piece};
use super::sse::{Event, Splitter};
use super::stamped::Arrival;
use crate::measure::{Event as OutputEvent, Live, Outcome, Trace};

/// The longest event taken, in bytes.
const MAX_EVENT: usize = 1 << 20;

/// The reader of one answer after the other.
pub struct Answer {
    splitter: Splitter,
    chunks: ChunkReader,
    seen: Seen,
}

#[derive(Debug, Default)]
struct Seen {
    done_ns: Option<u64>,
    finished: bool,
    failure: Option<Failure>,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            splitter: Splitter::new(MAX_EVENT),
            chunks: ChunkReader::default(),
            seen: Seen::default(),
        }
    }
}

impl Answer {
    /// Forgets the answer; keeps the memory.
    pub fn clear(&mut self) {
        self.splitter.reset();
        self.seen = Seen::default();
    }

    /// Whether `[DONE]` has come.
    pub fn is_done(&self) -> bool {
        self.seen.done_ns.is_some()
    }

    /// Whether nothing is missing: `[DONE]`, or the reason why generation ended.
    pub fn is_complete(&self) -> bool {
        self.is_done() || self.seen.finished
    }

    /// When the stream was over.
    pub fn end_ns(&self) -> Option<u64> {
        self.seen.done_ns
    }

    /// Takes the bytes of a response with this `body` that came at `arrival`. Says whether the body is over.
    pub fn read(
        &mut self,
        body: &mut Body,
        mut input: &[u8],
        arrival: Arrival,
        trace: &mut Trace,
        live: &Live,
    ) -> Result<bool, Failure> {
        loop {
            match body.next(&mut input)? {
                Piece::Data(data) => self.take(data, arrival, trace, live)?,
                Piece::More => return Ok(false),
                Piece::End => return Ok(true),
            }
        }
    }

    fn take(&mut self, data: &[u8], arrival: Arrival, trace: &mut Trace, live: &Live) -> Result<(), Failure> {
        let Self {
            splitter,
            chunks,
            seen,
        } = self;
        let fed = splitter.feed(data, |event| {
            if seen.failure.is_none() {
                seen.event(chunks, event, arrival, trace, live);
            }
        });
        if let Some(failure) = seen.failure.take() {
            return Err(failure);
        }
        fed.map_err(|error| Failure::new(Outcome::Malformed, error.to_string()))
    }

    /// The connection was closed at `arrival`, in the middle of `body` or at its end: whether the answer is one.
    pub fn close(&mut self, body: &Body, arrival: Arrival, trace: &Trace) -> Result<(), Failure> {
        if !body.may_end() && !self.is_complete() {
            return Err(Failure::new(
                Outcome::Truncated,
                "the connection ended in the middle of the stream",
            ));
        }
        self.finish(arrival, trace)
    }

    /// The body is over, since `arrival`: whether the answer is one.
    pub fn finish(&mut self, arrival: Arrival, trace: &Trace) -> Result<(), Failure> {
        if !self.is_complete() {
            return Err(Failure::new(
                Outcome::Truncated,
                "the stream ended without `[DONE]` or a finish reason",
            ));
        }
        self.seen.done_ns.get_or_insert(arrival.at_ns);
        match trace.count() {
            0 => Err(Failure::new(Outcome::Empty, "the stream carried no output")),
            _ => Ok(()),
        }
    }
}

impl Seen {
    fn event(
        &mut self,
        chunks: &mut ChunkReader,
        Event { data, is_error }: Event<'_>,
        arrival: Arrival,
        trace: &mut Trace,
        live: &Live,
    ) {
        // The stream is over with `[DONE]`, whatever comes after it.
        if self.done_ns.is_some() {
            return;
        }
        if data == b"[DONE]" {
            self.done_ns = Some(arrival.at_ns);
            return;
        }
        let chunk = match chunks.read_text(data, trace.room_for_text(data.len())) {
            Ok(chunk) => chunk,
            Err(_) if is_error => {
                self.failure = Some(Failure::new(
                    Outcome::ServerErrorEvent,
                    String::from_utf8_lossy(data),
                ));
                return;
            }
            Err(error) => {
                let message = format!(
                    "an event is not what it should be: {error}: {}",
                    String::from_utf8_lossy(data)
                );
                self.failure = Some(Failure::new(Outcome::Malformed, message));
                return;
            }
        };
        if chunk.error.is_some() || is_error {
            let message = chunk.error.as_ref().map(|error| error.message.0.as_ref());
            self.failure = Some(Failure::new(
                Outcome::ServerErrorEvent,
                message.unwrap_or("the server names an error"),
            ));
            return;
        }
        self.finished |= chunk.finished;
        let count = |tokens: Option<u64>| tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX));
        if let Some(usage) = chunk.usage {
            trace.n_in = count(usage.prompt_tokens).or(trace.n_in);
            trace.n_out = count(usage.completion_tokens).or(trace.n_out);
        }
        if chunk.output {
            let tokens = chunk
                .usage
                .and_then(|usage| count(usage.completion_tokens))
                .unwrap_or(0);
            let lag_ns = arrival.lag_ns();
            if lag_ns > 0 {
                live.read_late(arrival.read_ns, u64::from(lag_ns));
            }
            match trace.push(OutputEvent {
                at_ns: arrival.at_ns,
                lag_ns,
                tokens,
            }) {
                Some(gap_ns) => live.next_event(arrival.read_ns, gap_ns),
                None => {
                    let sent = trace.sent_ns.unwrap_or(arrival.at_ns);
                    live.first_event(arrival.read_ns, arrival.at_ns.saturating_sub(sent));
                }
            }
            if trace.first_visible_ns.is_none() && chunk.visible {
                trace.first_visible_ns = Some(arrival.at_ns);
            }
        }
    }
}

/// An answer that is no event stream.
pub struct Refusal {
    status: u16,
    body: Body,
    text: Vec<u8>,
}

/// Bytes of a refusal that are kept.
const MAX_REFUSAL: usize = 4096;

impl Refusal {
    /// A refusal that begins with this head.
    pub fn new(head: &Head) -> Self {
        Self {
            status: head.status,
            body: head.body.clone(),
            text: Vec::new(),
        }
    }

    /// Takes bytes of its body. Says whether more of them are wanted.
    pub fn read(&mut self, mut input: &[u8]) -> bool {
        while self.text.len() < MAX_REFUSAL {
            match self.body.next(&mut input) {
                Ok(Piece::Data(data)) => {
                    let room = MAX_REFUSAL - self.text.len();
                    self.text.extend_from_slice(&data[..data.len().min(room)]);
                }
                Ok(Piece::More) => return true,
                Ok(Piece::End) | Err(_) => return false,
            }
        }
        false
    }

    /// The failure that it stands for, with the message in its JSON, or else its text.
    pub fn failure(&self) -> Failure {
        let Self { status, text, .. } = self;
        let outcome = match status {
            429 => Outcome::Http429,
            400..=499 => Outcome::Http4xx,
            500.. => Outcome::Http5xx,
            _ => Outcome::Malformed,
        };
        let said = serde_json::from_slice::<serde_json::Value>(text)
            .ok()
            .and_then(|json| {
                let error = json.get("error").unwrap_or(&json);
                let message = error
                    .get("message")
                    .or_else(|| json.get("detail"))
                    .unwrap_or(error);
                message.as_str().map(str::to_owned)
            });
        let said = said.unwrap_or_else(|| String::from_utf8_lossy(text).into_owned());
        let message = match said.trim() {
            "" => format!("HTTP {status}"),
            said => format!("HTTP {status}: {said}"),
        };
        Failure::new(outcome, message)
    }
}
