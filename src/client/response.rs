//! One response, from the bytes of its head to the end of its stream: pushed in as they come, wherever they are cut.

use super::Failure;
use super::answer::{Answer, Refusal};
use super::http::{Body, Head};
use super::stamped::{Arrival, Bite};
use crate::measure::{Live, Trace};

/// The reader of one response after the other; keeps its memory.
#[derive(Default)]
pub struct Response {
    answer: Answer,
    head: Vec<u8>,
    stage: Stage,
    keep_alive: bool,
    /// Bytes of the head before this one: heads of one server differ by little.
    usual_head: usize,
}

#[derive(Default)]
enum Stage {
    #[default]
    Head,
    Refusal(Refusal),
    Stream(Body),
}

impl Response {
    /// Ready for the next response.
    pub fn clear(&mut self) {
        self.answer.clear();
        self.head.clear();
        self.stage = Stage::Head;
        self.keep_alive = false;
    }

    /// Takes bytes that came at `arrival`, with what they say to `trace` and `live`. Says whether the response is over.
    ///
    /// # Errors
    /// The failure that the response is. Nothing may be read after that.
    pub fn read(
        &mut self,
        bytes: &[u8],
        arrival: Arrival,
        trace: &mut Trace,
        live: &Live,
    ) -> Result<bool, Failure> {
        let Stage::Head = self.stage else {
            return self.read_body(bytes, arrival, trace, live);
        };
        self.head.extend_from_slice(bytes);
        let Some(head) = Head::read(&self.head)? else {
            return Ok(false);
        };
        trace.status = Some(head.status);
        trace.headers_ns = Some(arrival.at_ns);
        self.usual_head = head.len;
        self.keep_alive = head.keep_alive;
        self.stage = if head.status != 200 || head.event_stream == Some(false) {
            Stage::Refusal(Refusal::new(&head))
        } else {
            Stage::Stream(head.body)
        };
        let beginning = std::mem::take(&mut self.head);
        let over = self.read_body(&beginning[head.len..], arrival, trace, live);
        self.head = beginning;
        over
    }

    fn read_body(
        &mut self,
        bytes: &[u8],
        arrival: Arrival,
        trace: &mut Trace,
        live: &Live,
    ) -> Result<bool, Failure> {
        match &mut self.stage {
            Stage::Stream(body) => {
                let over = self.answer.read(body, bytes, arrival, trace, live)?;
                if over {
                    self.answer.finish(arrival, trace)?;
                }
                Ok(over)
            }
            Stage::Refusal(refusal) => match refusal.read(bytes) {
                true => Ok(false),
                false => Err(refusal.failure()),
            },
            Stage::Head => Ok(false),
        }
    }

    /// The connection was closed at `arrival`, or nothing more is waited for, before the response was over.
    ///
    /// # Errors
    /// The failure that the response is, unless nothing of it is missing.
    pub fn close(&mut self, arrival: Arrival, trace: &Trace) -> Result<(), Failure> {
        match &self.stage {
            Stage::Head => Err(Failure::closed_before_an_answer()),
            Stage::Refusal(refusal) => Err(refusal.failure()),
            Stage::Stream(body) => self.answer.close(body, arrival, trace),
        }
    }

    /// Whether a refusal is being read: its text may be cut short.
    pub fn is_refusal(&self) -> bool {
        matches!(self.stage, Stage::Refusal(_))
    }

    /// Whether `[DONE]` has come: only the end of its framing can be missing.
    pub fn is_done(&self) -> bool {
        self.answer.is_done()
    }

    /// Whether anything has come.
    pub fn is_begun(&self) -> bool {
        !self.head.is_empty()
    }

    /// Whether the connection may serve another request after this response.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// When the stream was over, in nanoseconds since the start of the run.
    pub fn end_ns(&self) -> Option<u64> {
        self.answer.end_ns()
    }

    /// How much to read at once so that what came at different times is told apart.
    pub(super) fn bite(&self) -> Bite {
        match &self.stage {
            Stage::Head => Bite {
                usual: self.usual_head,
                backlog: match self.usual_head.saturating_sub(self.head.len()) {
                    0 => 32,
                    left => left,
                },
            },
            // When its bytes came does not matter.
            Stage::Refusal(_) => Bite::ALL,
            Stage::Stream(body) => Bite {
                // Events of one stream differ by little; two of them are more than this.
                usual: body.latest_chunk() * 5 / 4,
                backlog: body.boundary(),
            },
        }
    }
}
