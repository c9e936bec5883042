//! One request and its streamed answer, turned into a [`Trace`] and an outcome.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::answer::{Answer, Refusal};
use super::connection::{Connection, Cut};
use super::http::{Body, Head};
use super::stamped::{Arrival, Bite};
use super::{Failure, Target};
use crate::measure::{Clock, Live, OpenWindow, Outcome, Trace};
use crate::profile::Timeouts;

/// Bytes of a user's read buffer.
const BUFFER: usize = 4096;

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
}

/// The client of one user: its connection and the memory it reuses from request to request.
pub struct Client {
    shared: Shared,
    user: usize,
    connection: Option<Connection>,
    request: Vec<u8>,
    buffer: Vec<u8>,
    answer: Answer,
    timer: Pin<Box<Sleep>>,
    timer_ns: u64,
    usual_head: usize,
    latest_chunk: usize,
    opened_ns: Option<u64>,
    /// Whether anything of the current answer has arrived.
    heard: bool,
    /// What is known of the current or last request.
    pub trace: Trace,
}

impl Client {
    /// The client of user number `user` of the shard. Must be created on its runtime.
    pub fn new(shared: Shared, user: usize) -> Self {
        Self {
            shared,
            user,
            connection: None,
            request: Vec::new(),
            buffer: vec![0; BUFFER],
            answer: Answer::default(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            timer_ns: 0,
            usual_head: 0,
            latest_chunk: 0,
            opened_ns: None,
            heard: false,
            trace: Trace::default(),
        }
    }

    /// Opens the connection if there is none that can be used. The time it took belongs to the next request.
    ///
    /// # Errors
    /// If it cannot be opened in time, or the run is over.
    pub async fn open(&mut self) -> Result<(), Failure> {
        if self
            .connection
            .as_ref()
            .is_some_and(|connection| !connection.is_stale())
        {
            return Ok(());
        }
        self.connection = None;
        let Shared {
            target,
            timeouts,
            clock,
            cut,
            ..
        } = &self.shared;
        let begun = clock.now_ns();
        let opened = cut
            .unless_cut(self.user, Connection::open(target, *clock, timeouts.connect))
            .await;
        self.connection = Some(opened.ok_or_else(Failure::cancelled)??);
        self.opened_ns = Some(clock.now_ns() - begun);
        Ok(())
    }

    /// Whether arrivals are the kernel's stamps, if a connection is open.
    pub fn kernel_stamps(&self) -> Option<bool> {
        self.connection.as_ref().map(Connection::kernel_stamps)
    }

    /// Sends request number `id` with `body` and follows its answer to the end.
    ///
    /// `admit` is asked with the instant of sending right before the first byte goes out; if it refuses, nothing is
    /// sent and nothing returned. After that, everything known is in `trace`.
    pub async fn ask(
        &mut self,
        id: u64,
        body: &[u8],
        admit: impl FnOnce(u64) -> bool,
    ) -> Option<Result<(), Failure>> {
        self.trace.clear();
        self.answer.clear();
        self.shared.target.render(id, body, &mut self.request);
        if let Err(failure) = self.open().await {
            let now = self.shared.clock.now_ns();
            if !admit(now) {
                return None;
            }
            self.trace.end_ns = Some(now);
            self.shared.live.request_not_sent(now);
            return Some(Err(failure));
        }
        let sent = self.shared.clock.now_ns();
        if !admit(sent) {
            return None;
        }
        self.shared.live.request_sent(sent);
        let reused = self.opened_ns.is_none();
        let mut result = self.try_once(sent).await;
        if reused && self.is_unanswered(&result) {
            self.trace.resent = true;
            result = match self.open().await {
                Ok(()) => self.try_once(self.shared.clock.now_ns()).await,
                Err(failure) => Err(failure),
            };
        }
        self.trace.end_ns = self.answer.end_ns().or_else(|| Some(self.shared.clock.now_ns()));
        let streamed = self.trace.count() > 0;
        self.shared
            .live
            .request_ended(self.shared.clock.now_ns(), result.is_ok(), streamed);
        Some(result)
    }

    /// Sends the request on the open connection, which is kept if it can be used again.
    async fn try_once(&mut self, sent: u64) -> Result<(), Failure> {
        let Some(mut connection) = self.connection.take() else {
            return Err(Failure::new(Outcome::Connect, "there is no connection"));
        };
        self.trace.sent_ns = Some(sent);
        self.trace.connect_ns = self.opened_ns.take();
        self.heard = false;
        let reusable = self.converse(&mut connection, sent).await;
        self.trace.stamp_error_ns = connection.stamp_error_ns();
        self.connection = Some(connection).filter(|_| matches!(reusable, Ok(true)));
        reusable.map(|_| ())
    }

    /// Whether a server that keeps connections open closed this one before a byte of an answer. It may do so at any
    /// time, so such a request is sent once more on a new connection (RFC 9112, section 9.3.1), and counted.
    fn is_unanswered(&self, result: &Result<(), Failure>) -> bool {
        !self.heard && matches!(result, Err(failure) if failure.outcome == Outcome::Truncated)
    }

    /// Writes the request and reads the answer. Says whether the connection can be used again.
    async fn converse(&mut self, connection: &mut Connection, sent: u64) -> Result<bool, Failure> {
        self.arm(self.deadline_ns(sent, None).0);
        self.write(connection, sent).await?;
        let (head, filled) = self.read_head(connection, sent).await?;
        self.trace.status = Some(head.status);
        self.trace.headers_ns = Some(connection.last_arrival().at_ns);
        self.usual_head = head.len;
        if head.status != 200 || head.event_stream == Some(false) {
            return Err(self.refusal(connection, sent, &head, filled).await);
        }
        self.read_stream(connection, sent, head, filled).await
    }

    /// A server may answer and close before it has taken all of the request: then what it answered counts.
    async fn write(&mut self, connection: &mut Connection, sent: u64) -> Result<(), Failure> {
        let request = std::mem::take(&mut self.request);
        let limit = Duration::from_nanos(self.deadline_ns(sent, None).0 - sent);
        let (trace, clock) = (&mut self.trace, self.shared.clock);
        let begins = || trace.writing_ns = Some(clock.now_ns());
        let writing = tokio::time::timeout(limit, connection.write_all(&request, begins));
        let written = self.shared.cut.unless_cut(self.user, writing).await;
        self.request = request;
        match written {
            None => Err(Failure::cancelled()),
            Some(Err(_)) => Err(self.deadline_ns(sent, None).1),
            Some(Ok(_)) => Ok(()),
        }
    }

    /// Reads up to the end of the head; also says how many bytes the buffer holds.
    async fn read_head(&mut self, connection: &mut Connection, sent: u64) -> Result<(Head, usize), Failure> {
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(filled * 2, 0);
            }
            let backlog = if filled < self.usual_head {
                self.usual_head - filled
            } else {
                32
            };
            let bite = Bite {
                usual: self.usual_head,
                backlog,
            };
            let got = self.read(connection, filled, bite, sent, None).await?;
            if got == 0 {
                return Err(Failure::closed_before_an_answer());
            }
            self.heard = true;
            filled += got;
            if let Some(head) = Head::read(&self.buffer[..filled])? {
                return Ok((head, filled));
            }
        }
    }

    /// Reads events up to the end of the stream. Says whether the connection can be used again.
    async fn read_stream(
        &mut self,
        connection: &mut Connection,
        sent: u64,
        head: Head,
        filled: usize,
    ) -> Result<bool, Failure> {
        let mut body = head.body;
        let mut bytes = head.len..filled;
        let mut last = sent;
        loop {
            let arrival = connection.last_arrival();
            let over = self.decode(&mut body, bytes, arrival)?;
            if self.trace.is_full() {
                self.trace.fold(self.shared.window.known());
            }
            if over {
                self.answer.finish(arrival, &self.trace)?;
                return Ok(head.keep_alive);
            }
            if self.trace.count() > 0 {
                last = arrival.read_ns;
            }
            let streaming = (self.trace.count() > 0).then_some(last);
            let bite = self.bite(&body);
            let done = self.answer.is_done();
            let got = match self.read(connection, 0, bite, sent, streaming).await {
                Ok(got) => got,
                // The answer is complete; only the end of its framing did not come.
                Err(_) if done => return self.answer.finish(arrival, &self.trace).map(|()| false),
                Err(failure) => return Err(failure),
            };
            if got == 0 {
                return self
                    .answer
                    .close(&body, connection.last_arrival(), &self.trace)
                    .map(|()| false);
            }
            bytes = 0..got;
        }
    }

    /// Takes the events out of what was read. Says whether the body is over.
    fn decode(
        &mut self,
        body: &mut Body,
        bytes: std::ops::Range<usize>,
        arrival: Arrival,
    ) -> Result<bool, Failure> {
        let input = &self.buffer[bytes];
        let over = self
            .answer
            .read(body, input, arrival, &mut self.trace, &self.shared.live)?;
        self.latest_chunk = body.latest_chunk();
        Ok(over)
    }

    fn bite(&self, body: &Body) -> Bite {
        Bite {
            // Events of one stream differ by little; two of them are more than this.
            usual: self.latest_chunk * 5 / 4,
            backlog: body.boundary(),
        }
    }

    /// The failure that an answer other than an event stream stands for.
    async fn refusal(
        &mut self,
        connection: &mut Connection,
        sent: u64,
        head: &Head,
        filled: usize,
    ) -> Failure {
        let mut refusal = Refusal::new(head);
        let mut bytes = head.len..filled;
        // When its bytes came does not matter: as many at once as there are.
        let bite = Bite {
            usual: BUFFER,
            backlog: BUFFER,
        };
        while refusal.read(&self.buffer[bytes]) {
            match self.read(connection, 0, bite, sent, None).await {
                Ok(got) if got > 0 => bytes = 0..got,
                _ => break,
            }
        }
        refusal.failure()
    }

    /// Reads into the buffer from `from` on; 0 bytes are the end. Ends with the first deadline that passes.
    async fn read(
        &mut self,
        connection: &mut Connection,
        from: usize,
        bite: Bite,
        sent: u64,
        last: Option<u64>,
    ) -> Result<usize, Failure> {
        let (deadline, _) = self.deadline_ns(sent, last);
        if deadline < self.timer_ns {
            self.arm(deadline);
        }
        let read: Result<io::Result<usize>, Option<()>> = poll_fn(|cx| {
            if let Poll::Ready(read) = connection.poll_read(cx, &mut self.buffer[from..], bite) {
                return Poll::Ready(Ok(read));
            }
            if self.shared.cut.forbids_waiting(self.user, cx) {
                return Poll::Ready(Err(None));
            }
            // The timer is set once a request, not once an event: it may go off early, and is then set again.
            while self.timer.as_mut().poll(cx).is_ready() {
                if self.shared.clock.now_ns() >= deadline {
                    return Poll::Ready(Err(Some(())));
                }
                self.timer.as_mut().reset(instant(&self.shared.clock, deadline));
                self.timer_ns = deadline;
            }
            Poll::Pending
        })
        .await;
        match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Ok(Err(error)) => Err(Failure::new(
                Outcome::Truncated,
                format!("the connection broke: {error}"),
            )),
            Err(None) => Err(Failure::cancelled()),
            Err(Some(())) => Err(self.deadline_ns(sent, last).1),
        }
    }

    fn arm(&mut self, deadline: u64) {
        self.timer.as_mut().reset(instant(&self.shared.clock, deadline));
        self.timer_ns = deadline;
    }

    /// The next deadline of a request sent at `sent` whose latest bytes after its first output came at `last`, and
    /// what it means to miss it.
    fn deadline_ns(&self, sent: u64, last: Option<u64>) -> (u64, Failure) {
        let Timeouts {
            first_token,
            stall,
            total,
            ..
        } = self.shared.timeouts;
        let nanos = |limit: Duration| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let total_at = sent.saturating_add(nanos(total));
        // A complete answer need not be waited on for long: only its framing is missing.
        let stall = if self.answer.is_done() {
            stall.min(Duration::from_millis(250))
        } else {
            stall
        };
        let (stage_at, outcome, limit) = match last {
            None => (
                sent.saturating_add(nanos(first_token)),
                Outcome::TimeoutFirst,
                first_token,
            ),
            Some(last) => (last.saturating_add(nanos(stall)), Outcome::Stalled, stall),
        };
        if total_at <= stage_at {
            return (
                total_at,
                Failure {
                    outcome: Outcome::TimeoutTotal,
                    limit: Some(total),
                    message: None,
                },
            );
        }
        (
            stage_at,
            Failure {
                outcome,
                limit: Some(limit),
                message: None,
            },
        )
    }
}

/// An instant of the run's clock as tokio counts them.
fn instant(clock: &Clock, at_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at_ns.saturating_sub(clock.now_ns()))
}
