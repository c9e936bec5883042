//! The last thing before the socket: frames become bytes, marked for the log, and spoilt if a fault says so.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::frames::{Frame, Frames, Kind};
use axum::body::Bytes;
use futures::{Stream, StreamExt};

use super::faults::Fault;
use super::log::{Log, Shared};
use super::socket::{Mark, Peer};

/// What to do next.
enum Step {
    /// Hand out bytes, which carry these events.
    Send(Bytes, Vec<(Kind, u64)>),
    /// Let what was handed out be written before going on.
    Flush,
    /// Nothing, for ever.
    Hang,
    /// Cut the connection.
    Abort,
    /// End the stream as it should be.
    End,
}

/// The bytes of one answer.
pub struct Wire {
    frames: Frames,
    fault: Option<Fault>,
    open: OpenRecord,
    peer: Peer,
    steps: VecDeque<Step>,
    outputs: u64,
    batch: Vec<Frame>,
}

impl Wire {
    /// Frames on their way to `peer`, with a fault or none.
    pub fn new(frames: Frames, fault: Option<Fault>, open: OpenRecord, peer: Peer) -> Self {
        let mut steps = VecDeque::with_capacity(4);
        if fault.as_ref().is_some_and(|fault| fault.kind == "hang") {
            steps.push_back(Step::Hang);
        }
        Self {
            frames,
            fault,
            open,
            peer,
            steps,
            outputs: 0,
            batch: Vec::new(),
        }
    }

    /// Plans the steps for one frame.
    fn plan(&mut self, frame: Frame) {
        let fault = self.fault.as_ref();
        let after = fault.and_then(|fault| fault.after);
        let struck = frame.kind != Kind::Role && self.outputs == after.unwrap_or(0);
        self.outputs += u64::from(frame.kind == Kind::Output);
        match fault.map_or("", |fault| fault.kind) {
            "error_event" if struck => {
                let error = r#"{"error":{"message":"scripted error","type":"server_error","param":null,"code":null}}"#;
                self.steps.push_back(Step::Send(
                    format!("data: {error}\n\n").into(),
                    vec![(Kind::Error, 0)],
                ));
                self.steps.push_back(Step::End);
            }
            "cut" if struck => {
                let half = frame.bytes.slice(..frame.bytes.len() / 2);
                self.steps
                    .extend([Step::Send(half, Vec::new()), Step::Flush, Step::Abort]);
            }
            "truncate" if struck => self.steps.extend([Step::Flush, Step::Abort]),
            "stall" if struck => self.steps.push_back(Step::Hang),
            "die" if struck => std::process::abort(),
            "malformed" if struck => {
                self.steps.push_back(Step::Send(
                    Bytes::from_static(b"data: {\"choices\":[{\"delta\n\n"),
                    Vec::new(),
                ));
            }
            "no_done" if frame.kind == Kind::Done => self.steps.push_back(Step::End),
            "batch" => {
                let full = after.unwrap_or(4).max(1) as usize;
                let last = matches!(frame.kind, Kind::Done | Kind::Error);
                self.batch.push(frame);
                if self.batch.len() >= full || last {
                    let bytes = self
                        .batch
                        .iter()
                        .flat_map(|frame| frame.bytes.to_vec())
                        .collect::<Vec<_>>();
                    let marks = self
                        .batch
                        .drain(..)
                        .map(|frame| (frame.kind, frame.tokens))
                        .collect();
                    self.steps.push_back(Step::Send(bytes.into(), marks));
                }
            }
            "utf8" => self.plan_cut_in_character(frame),
            kind => {
                let bytes = respell(kind, &frame).unwrap_or(frame.bytes);
                self.steps
                    .push_back(Step::Send(bytes, vec![(frame.kind, frame.tokens)]));
            }
        }
    }

    fn plan_cut_in_character(&mut self, frame: Frame) {
        let marks = vec![(frame.kind, frame.tokens)];
        match frame.bytes.iter().position(|byte| !byte.is_ascii()) {
            None => self.steps.push_back(Step::Send(frame.bytes, marks)),
            Some(at) => {
                let mut head = frame.bytes;
                let tail = head.split_off(at + 1);
                self.steps.extend([
                    Step::Flush,
                    Step::Send(head, Vec::new()),
                    Step::Flush,
                    Step::Send(tail, marks),
                ]);
            }
        }
    }
}

/// The same event in another spelling, all of them legal but the usage.
fn respell(fault: &str, frame: &Frame) -> Option<Bytes> {
    let text = || String::from_utf8_lossy(&frame.bytes).into_owned();
    match fault {
        "crlf" => Some(text().replace('\n', "\r\n").into()),
        "comments" => Some(format!(": keep-alive\n\n{}", text()).into()),
        "multiline" => Some(
            text()
                .replacen(",\"choices\":", ",\ndata: \"choices\":", 1)
                .into(),
        ),
        "wrong_usage" => {
            let text = text();
            let (head, tail) = text.split_once("\"completion_tokens\":")?;
            let digits = tail.find(|c: char| !c.is_ascii_digit())?;
            let count: u64 = tail[..digits].parse().ok()?;
            Some(format!("{head}\"completion_tokens\":{}{}", count + 7, &tail[digits..]).into())
        }
        _ => None,
    }
}

impl Stream for Wire {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match self.steps.pop_front() {
                Some(Step::Send(bytes, marks)) => {
                    for (kind, tokens) in marks {
                        self.peer
                            .mark(Mark::Event(Arc::clone(&self.open.record), kind, tokens));
                    }
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Step::Flush) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
                Some(Step::Abort) => {
                    self.open.outcome = "aborted";
                    return Poll::Ready(Some(Err(io::Error::other("scripted"))));
                }
                Some(Step::End) => {
                    self.end();
                    return Poll::Ready(None);
                }
                None => match self.frames.poll_next_unpin(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(frame)) => self.plan(frame),
                    Poll::Ready(None) => self.steps.push_back(Step::End),
                },
            }
        }
    }
}

impl Wire {
    fn end(&mut self) {
        self.open.finish(&self.peer);
        self.steps.push_back(Step::End);
    }
}

/// A request that is open; dropped, it is closed in the log.
pub struct OpenRecord {
    /// What the log knows of it.
    pub record: Shared,
    log: Arc<Log>,
    outcome: &'static str,
}

impl OpenRecord {
    /// Watches over a record that was just opened.
    pub fn new(record: Shared, log: Arc<Log>) -> Self {
        Self {
            record,
            log,
            outcome: "cancelled",
        }
    }

    /// The answer is complete with the next write.
    pub fn finish(&mut self, peer: &Peer) {
        if self.outcome != "done" {
            self.outcome = "done";
            peer.mark(Mark::End(Arc::clone(&self.record)));
        }
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        self.log.close(&self.record, self.outcome);
        if self.outcome != "done" {
            self.log.settled(&self.record, None);
        }
    }
}
