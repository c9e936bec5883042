//! The client of one user: opens its connection, sends, has the answer read, and sends once more where that is right.

use std::sync::Arc;

use super::connection::{Connection, Cut};
use super::exchange::Exchange;
use super::reader::Reader;
use super::{Failure, Target};
use crate::measure::{Clock, Live, OpenWindow, Outcome, Trace};
use crate::profile::Timeouts;

/// What all users of a shard share.
#[derive(Clone)]
pub struct Shared {
    /// Whom they ask.
    pub target: Arc<Target>,
    /// How long they wait.
    pub timeouts: Timeouts,
    /// The run's clock.
    pub clock: Clock,
    /// What ends their waiting.
    pub cut: Arc<Cut>,
    /// The step's window.
    pub window: Arc<OpenWindow>,
    /// Where they count.
    pub live: Arc<Live>,
    /// Whether the text of answers is kept, to be counted where the server tells no usage.
    pub keep_text: bool,
}

/// The client of one user: its connection and the memory it reuses from request to request.
pub struct Client {
    reader: Arc<Reader>,
    user: usize,
    /// With the reader while a request is in flight.
    exchange: Box<Exchange>,
    opened_ns: Option<u64>,
}

impl Client {
    /// The client of user number `user`, whose answers are read by `reader`.
    pub fn new(reader: Arc<Reader>, user: usize) -> Self {
        let mut exchange: Box<Exchange> = Box::default();
        if reader.shared().keep_text {
            exchange.trace.keep_text();
        }
        Self {
            reader,
            user,
            exchange,
            opened_ns: None,
        }
    }

    /// What is known of the current or last request.
    pub fn trace(&self) -> &Trace {
        &self.exchange.trace
    }

    /// Opens the connection if there is none that can be used. The time it took belongs to the next request.
    ///
    /// # Errors
    /// If it cannot be opened in time, or the run is over.
    pub async fn open(&mut self) -> Result<(), Failure> {
        let connection = &mut self.exchange.connection;
        if connection
            .as_ref()
            .is_some_and(|connection| !connection.is_stale())
        {
            return Ok(());
        }
        *connection = None;
        let Shared {
            target,
            timeouts,
            clock,
            cut,
            ..
        } = self.reader.shared();
        let begun = clock.now_ns();
        let opened = cut
            .unless_cut(self.user, Connection::open(target, *clock, timeouts.connect))
            .await;
        *connection = Some(opened.ok_or_else(Failure::cancelled)??);
        self.opened_ns = Some(clock.now_ns() - begun);
        Ok(())
    }

    /// Whether arrivals are the kernel's stamps, if a connection is open.
    pub fn kernel_stamps(&self) -> Option<bool> {
        self.exchange.connection.as_ref().map(Connection::kernel_stamps)
    }

    /// Sends request number `id` with `body` and follows its answer to the end.
    ///
    /// `admit` is asked with the instant of sending right before the first byte goes out; if it refuses, nothing is
    /// sent and nothing returned. After that, everything known is in the trace.
    pub async fn ask(
        &mut self,
        id: u64,
        body: &[u8],
        admit: impl FnOnce(u64) -> bool,
    ) -> Option<Result<(), Failure>> {
        let reader = self.reader.clone();
        let Shared {
            target, clock, live, ..
        } = reader.shared();
        self.exchange.trace.clear();
        target.render(id, body, &mut self.exchange.request);
        if let Err(failure) = self.open().await {
            let now = clock.now_ns();
            if !admit(now) {
                return None;
            }
            self.exchange.trace.end_ns = Some(now);
            live.request_not_sent(now);
            return Some(Err(failure));
        }
        let sent = clock.now_ns();
        if !admit(sent) {
            return None;
        }
        live.request_sent(sent);
        let reused = self.opened_ns.is_none();
        let mut result = self.try_once(sent).await;
        if reused && self.is_unanswered(&result) {
            self.exchange.trace.resent = true;
            result = match self.open().await {
                Ok(()) => self.try_once(clock.now_ns()).await,
                Err(failure) => Err(failure),
            };
        }
        let streamed = self.trace().count() > 0;
        live.request_ended(clock.now_ns(), result.is_ok(), streamed);
        Some(result)
    }

    /// Sends the request on the open connection, which is kept if it can be used again.
    async fn try_once(&mut self, sent: u64) -> Result<(), Failure> {
        self.exchange.begin(sent, self.reader.shared().clock);
        self.exchange.trace.connect_ns = self.opened_ns.take();
        let exchange = std::mem::take(&mut self.exchange);
        let followed = self.reader.follow(exchange).await;
        #[expect(
            clippy::expect_used,
            reason = "the thread ends before its users only by a panic of its own"
        )]
        let (exchange, ended) = followed.expect("the thread that reads is alive");
        self.exchange = exchange;
        let now_ns = self.reader.shared().clock.now_ns();
        self.exchange.end(matches!(ended, Ok(true)), now_ns);
        ended.map(|_| ())
    }

    /// Whether a server that keeps connections open closed this one before a byte of an answer. It may do so at any
    /// time, so such a request is sent once more on a new connection (RFC 9112, section 9.3.1), and counted.
    fn is_unanswered(&self, result: &Result<(), Failure>) -> bool {
        let closed = matches!(result, Err(failure) if failure.outcome == Outcome::Truncated);
        closed && !self.exchange.is_answered()
    }
}
