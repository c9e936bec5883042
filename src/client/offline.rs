//! Responses read from memory: the way of the bytes is that of [`Client`](super::Client), but for the socket. Fuzzing
//! and benches go this way.

use std::sync::Arc;

use super::Failure;
use super::answer::{Answer, Refusal};
use super::http::{Body, Head};
use super::stamped::Arrival;
use crate::measure::{Live, LiveShards, Trace};

/// The reader of one response after the other.
pub struct Reader {
    answer: Answer,
    live: Arc<Live>,
    head: Vec<u8>,
    stage: Stage,
    /// What is known of the response.
    pub trace: Trace,
}

enum Stage {
    Head,
    Refusal(Refusal),
    Stream(Body),
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            answer: Answer::default(),
            live: LiveShards::new(1).shard(0),
            head: Vec::new(),
            stage: Stage::Head,
            trace: Trace::default(),
        }
    }
}

impl Reader {
    /// Ready for the next response; keeps the memory.
    pub fn clear(&mut self) {
        self.answer.clear();
        self.head.clear();
        self.stage = Stage::Head;
        self.trace.clear();
    }

    /// Takes bytes that came at `at_ns`. Says whether the response is over.
    ///
    /// # Errors
    /// The failure that the response is. Nothing may be read after that.
    pub fn read(&mut self, bytes: &[u8], at_ns: u64) -> Result<bool, Failure> {
        let arrival = arrival(at_ns);
        let Stage::Head = self.stage else {
            return self.read_body(bytes, arrival);
        };
        self.head.extend_from_slice(bytes);
        let Some(head) = Head::read(&self.head)? else {
            return Ok(false);
        };
        self.trace.status = Some(head.status);
        self.trace.headers_ns = Some(at_ns);
        self.stage = if head.status != 200 || head.event_stream == Some(false) {
            Stage::Refusal(Refusal::new(&head))
        } else {
            Stage::Stream(head.body)
        };
        let beginning = std::mem::take(&mut self.head);
        let over = self.read_body(&beginning[head.len..], arrival);
        self.head = beginning;
        over
    }

    fn read_body(&mut self, bytes: &[u8], arrival: Arrival) -> Result<bool, Failure> {
        match &mut self.stage {
            Stage::Stream(body) => {
                let over = self
                    .answer
                    .read(body, bytes, arrival, &mut self.trace, &self.live)?;
                if over {
                    self.answer.finish(arrival, &self.trace)?;
                    self.trace.end_ns = self.answer.end_ns();
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

    /// The connection was closed at `at_ns`, before the response was over.
    ///
    /// # Errors
    /// The failure that the response is, unless nothing of it is missing.
    pub fn close(&mut self, at_ns: u64) -> Result<(), Failure> {
        match &self.stage {
            Stage::Head => Err(Failure::closed_before_an_answer()),
            Stage::Refusal(refusal) => Err(refusal.failure()),
            Stage::Stream(body) => {
                self.answer.close(body, arrival(at_ns), &self.trace)?;
                self.trace.end_ns = self.answer.end_ns();
                Ok(())
            }
        }
    }
}

fn arrival(at_ns: u64) -> Arrival {
    Arrival {
        at_ns,
        read_ns: at_ns,
    }
}
