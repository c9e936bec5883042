//! One thread that reads the streams of many users: it waits for all of them at once and does nothing else, so that an
//! event costs one system call to wait, two to read, and no task to wake.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use tokio::sync::oneshot;

use super::connection::Buffers;
use super::exchange::{Ended, Exchange, Turn};
use super::{Failure, Shared};
use crate::measure::Outcome;

/// How often limits are looked after, and at most how much later than its limit an exchange ends.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Events that come more often than twice in this time are gathered for as long before they are read: arrivals are the
/// kernel's, and waking up costs more than reading.
const GATHER: Duration = Duration::from_micros(500);

/// New exchanges are waiting.
const NEW: Token = Token(usize::MAX);

/// Announcements taken at once.
const EVENTS: usize = 1024;

/// A thread that does nothing at all for a part of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// How long it does nothing.
    pub blocked: Duration,
    /// How often: from one beginning to the next.
    pub every: Duration,
}

/// An exchange on its way to the thread.
struct Submitted {
    exchange: Box<Exchange>,
    done: oneshot::Sender<(Box<Exchange>, Ended)>,
}

/// The thread, as those see it who have something to be read.
pub struct Reader {
    shared: Shared,
    submit: Option<mpsc::Sender<Submitted>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread, with this name; `first` is what it does first.
    ///
    /// # Errors
    /// If the system gives no thread or nothing to wait with.
    pub fn start(
        name: &str,
        shared: Shared,
        stall: Option<Stall>,
        first: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), NEW)?;
        let (submit, submitted) = mpsc::channel();
        let mut reading = Reading {
            shared: shared.clone(),
            poll,
            submitted,
            active: Slab::new(),
            again: VecDeque::new(),
            buffers: Buffers::default(),
            looked_ns: 0,
            woken_ns: 0,
            stamped: true,
            stall,
            stalled_ns: shared.clock.now_ns(),
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            first();
            // Its only errors are those of a broken descriptor. Who waits for an exchange then learns that it is lost.
            let _ = reading.run();
        })?;
        Ok(Self {
            shared,
            submit: Some(submit),
            waker,
            thread: Some(thread),
        })
    }

    /// What its users share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Follows an exchange that has begun to its end; nothing if the thread is gone.
    pub(super) async fn follow(&self, exchange: Box<Exchange>) -> Option<(Box<Exchange>, Ended)> {
        let (done, ended) = oneshot::channel();
        self.submit.as_ref()?.send(Submitted { exchange, done }).ok()?;
        self.waker.wake().ok()?;
        ended.await.ok()
    }
}

impl Drop for Reader {
    /// Ends the thread. What it still reads is lost.
    fn drop(&mut self) {
        self.submit = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's own state.
struct Reading {
    shared: Shared,
    poll: Poll,
    submitted: mpsc::Receiver<Submitted>,
    active: Slab<Submitted>,
    /// Exchanges that have more to be read at once.
    again: VecDeque<usize>,
    buffers: Buffers,
    looked_ns: u64,
    woken_ns: u64,
    /// Whether all arrivals so far were the kernel's.
    stamped: bool,
    stall: Option<Stall>,
    stalled_ns: u64,
}

impl Reading {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if let Some(stall) = self.stall {
                self.stall(stall);
            }
            let timeout = match (self.again.is_empty(), self.active.is_empty()) {
                (false, _) => Some(Duration::ZERO),
                (true, false) => Some(LOOK_EVERY),
                (true, true) => None,
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let busy = !events.is_empty();
            for _ in 0..self.again.len() {
                if let Some(index) = self.again.pop_front() {
                    self.advance(index, false);
                }
            }
            for event in &events {
                match event.token() {
                    NEW if self.take_new() => return Ok(()),
                    NEW => {}
                    Token(index) => self.advance(index, event.is_read_closed()),
                }
            }
            let now_ns = self.shared.clock.now_ns();
            self.look_after_limits(now_ns);
            let often = u128::from(now_ns - self.woken_ns) < 2 * GATHER.as_nanos();
            self.woken_ns = now_ns;
            if busy && often && self.stamped && self.again.is_empty() {
                thread::sleep(GATHER);
            }
        }
    }

    /// Does nothing, if it is time to.
    fn stall(&mut self, Stall { blocked, every }: Stall) {
        let now_ns = self.shared.clock.now_ns();
        if u128::from(now_ns - self.stalled_ns) >= every.as_nanos() {
            self.stalled_ns = now_ns;
            thread::sleep(blocked);
        }
    }

    /// Says whether no more can come.
    fn take_new(&mut self) -> bool {
        loop {
            match self.submitted.try_recv() {
                Ok(new) => self.wait_for(new),
                Err(mpsc::TryRecvError::Empty) => return false,
                Err(mpsc::TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn wait_for(&mut self, mut new: Submitted) {
        let interest = match new.exchange.is_written() {
            true => Interest::READABLE,
            false => Interest::READABLE | Interest::WRITABLE,
        };
        let entry = self.active.vacant_entry();
        if let Some(connection) = &mut new.exchange.connection {
            self.stamped &= connection.kernel_stamps();
            let token = Token(entry.key());
            let registered = self
                .poll
                .registry()
                .register(connection.socket(), token, interest);
            if let Err(error) = registered {
                let failure = Failure::new(Outcome::Connect, format!("waiting for the socket: {error}"));
                // Nobody waits for it if its user was dropped.
                let _ = new.done.send((new.exchange, Err(failure)));
                return;
            }
        }
        entry.insert(new);
    }

    fn advance(&mut self, index: usize, closing: bool) {
        // It may have ended since its socket was announced.
        let Some(active) = self.active.get_mut(index) else {
            return;
        };
        match active.exchange.advance(closing, &mut self.buffers, &self.shared) {
            Turn::Wait => {}
            Turn::Again => self.again.push_back(index),
            Turn::Over(ended) => self.end(index, ended),
        }
    }

    fn look_after_limits(&mut self, now_ns: u64) {
        if u128::from(now_ns - self.looked_ns) < LOOK_EVERY.as_nanos() {
            return;
        }
        self.looked_ns = now_ns;
        let cut = self.shared.cut.is_cut();
        for index in 0..self.active.capacity() {
            let Some(active) = self.active.get_mut(index) else {
                continue;
            };
            let ended = match cut {
                true => Some(Err(Failure::cancelled())),
                false => active.exchange.overdue(now_ns, &self.shared.timeouts),
            };
            if let Some(ended) = ended {
                self.end(index, ended);
            }
        }
    }

    fn end(&mut self, index: usize, ended: Ended) {
        let Submitted { mut exchange, done } = self.active.remove(index);
        if let Some(connection) = &mut exchange.connection {
            // It fails only for what is not registered.
            let _ = self.poll.registry().deregister(connection.socket());
        }
        // Nobody waits for it if its user was dropped.
        let _ = done.send((exchange, ended));
    }
}
