//! One request in flight: what is left to write of it, what has come of its response, and when it must be over.

use std::io;
use std::time::Duration;

use super::connection::{Buffers, Connection, Piece};
use super::response::Response;
use super::{Failure, Shared};
use crate::measure::{Clock, Outcome, Trace};
use crate::profile::Timeouts;

/// Reads before another stream gets its turn.
const TURN: usize = 64;

/// Once an answer is complete, the rest of its framing is waited for no longer than this.
const AFTER_DONE: Duration = Duration::from_millis(250);

/// How an exchange ended: whether its connection can be used again, or why it failed.
pub(super) type Ended = Result<bool, Failure>;

/// What is to be done about an exchange.
pub(super) enum Turn {
    /// To wait for its socket.
    Wait,
    /// To go on reading, once others had their turn.
    Again,
    /// Nothing: it is over.
    Over(Ended),
}

/// The request of one user and its connection. Keeps its memory from request to request.
#[derive(Default)]
pub(super) struct Exchange {
    /// Absent until it is opened, and after it was closed.
    pub connection: Option<Connection>,
    /// The bytes to be sent.
    pub request: Vec<u8>,
    /// What is known of the request.
    pub trace: Trace,
    response: Response,
    written: usize,
    sent_ns: u64,
    read_ns: u64,
    /// The end of the connection was announced: it must be read up to it, because it is not announced again.
    closing: bool,
}

impl Exchange {
    /// Sends the request, as much of it as its connection takes at once. `sent_ns` is now.
    pub fn begin(&mut self, sent_ns: u64, clock: Clock) {
        self.response.clear();
        self.trace.sent_ns = Some(sent_ns);
        self.sent_ns = sent_ns;
        self.read_ns = sent_ns;
        self.written = 0;
        self.closing = false;
        self.trace.writing_ns = Some(clock.now_ns());
        self.write();
    }

    /// A server may answer and close before it has taken all of the request. Then what it answered counts, so failing
    /// to write ends nothing.
    fn write(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        while self.written < self.request.len() {
            match connection.write(&self.request[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.written = self.request.len(),
            }
        }
        // What TLS keeps back is sent when the socket has room, or else missed by the server.
        let _ = connection.flush();
    }

    /// Whether all of the request is out.
    pub fn is_written(&self) -> bool {
        let flushed = self.connection.as_ref().is_none_or(Connection::is_flushed);
        self.written == self.request.len() && flushed
    }

    /// Goes on with the exchange, since its socket is ready. `closing` if the end of the connection was announced.
    pub fn advance(&mut self, closing: bool, buffers: &mut Buffers, shared: &Shared) -> Turn {
        self.closing |= closing;
        if !self.is_written() {
            self.write();
        }
        for _ in 0..TURN {
            let Some(connection) = &mut self.connection else {
                return Turn::Over(Err(Failure::closed_before_an_answer()));
            };
            let got = match connection.read(buffers, self.response.bite()) {
                Ok(Piece::Bytes(got)) => got,
                Ok(Piece::End) => return Turn::Over(self.close()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Turn::Wait,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Turn::Over(self.close());
                }
                Err(error) => return Turn::Over(self.broken(&error)),
            };
            let arrival = connection.last_arrival();
            self.read_ns = arrival.read_ns;
            let bytes = buffers.bytes(got.bytes);
            let read = self.response.read(bytes, arrival, &mut self.trace, &shared.live);
            if self.trace.is_full() {
                self.trace.fold(shared.window.known());
            }
            match read {
                Ok(true) => return Turn::Over(Ok(self.response.keep_alive())),
                Ok(false) if got.drained && !self.closing => return Turn::Wait,
                Ok(false) => {}
                Err(failure) => return Turn::Over(Err(failure)),
            }
        }
        Turn::Again
    }

    /// The connection ended, or nothing more is waited for.
    fn close(&mut self) -> Ended {
        let arrival = self.connection.as_ref().map(Connection::last_arrival);
        self.response
            .close(arrival.unwrap_or_default(), &self.trace)
            .map(|()| false)
    }

    fn broken(&mut self, error: &io::Error) -> Ended {
        if self.response.is_done() || self.response.is_refusal() {
            return self.close();
        }
        Err(Failure::new(
            Outcome::Truncated,
            format!("the connection broke: {error}"),
        ))
    }

    /// How it ends at `now_ns`, if a limit has passed.
    pub fn overdue(&mut self, now_ns: u64, timeouts: &Timeouts) -> Option<Ended> {
        let passed =
            |since_ns: u64, limit: Duration| now_ns.saturating_sub(since_ns) as u128 >= limit.as_nanos();
        let exceeded = |outcome, limit| Some(Err(Failure::exceeded(outcome, limit)));
        if self.response.is_done() {
            return passed(self.read_ns, AFTER_DONE.min(timeouts.stall)).then(|| self.close());
        }
        let streaming = self.trace.count() > 0;
        if passed(self.sent_ns, timeouts.total) {
            return exceeded(Outcome::TimeoutTotal, timeouts.total);
        }
        if streaming && passed(self.read_ns, timeouts.stall) {
            return exceeded(Outcome::Stalled, timeouts.stall);
        }
        if !streaming && passed(self.sent_ns, timeouts.first_token) {
            // A server that refuses has said so, even if its words do not end.
            if self.response.is_refusal() {
                return Some(self.close());
            }
            return exceeded(Outcome::TimeoutFirst, timeouts.first_token);
        }
        None
    }

    /// The request is over: what is left to be known of it. `reusable` keeps the connection.
    pub fn end(&mut self, reusable: bool, now_ns: u64) {
        self.trace.end_ns = self.response.end_ns().or(Some(now_ns));
        self.trace.stamp_error_ns = self.connection.as_ref().and_then(Connection::stamp_error_ns);
        if !reusable {
            self.connection = None;
        }
    }

    /// Whether anything of the response has come.
    pub fn is_answered(&self) -> bool {
        self.response.is_begun()
    }
}
