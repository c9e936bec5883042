//! What the reference server really did: one record a request, and totals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frames::Kind;
use serde::Serialize;

/// Requests that are remembered.
const MAX_RECORDS: usize = 200_000;
/// Events whose stamps are remembered, over all ended requests; the oldest are forgotten first.
const MAX_STAMPED: usize = 2_000_000;

/// One request. All instants are CLOCK_MONOTONIC in nanoseconds.
#[derive(Debug, Default, Serialize)]
pub struct Record {
    /// Its number, from 1.
    pub n: u64,
    /// The client's `x-request-id`.
    pub request_id: Option<String>,
    /// What was done wrong on purpose.
    pub fault: Option<String>,
    /// Tokens of the prompt (words).
    pub prompt_tokens: u64,
    /// When the last bytes of the request came: the kernel's stamp, or else the instant of the read.
    pub received: u64,
    /// Tokens sent.
    pub tokens: u64,
    /// Output events sent.
    pub events: u64,
    /// For each output event: just before the write() that carried it.
    pub before: Vec<u64>,
    /// For each output event: just after that write().
    pub after: Vec<u64>,
    /// For each output event: its tokens.
    pub event_tokens: Vec<u64>,
    /// Whether the three above were forgotten for want of room.
    pub stamps_dropped: bool,
    /// After the write() that carried the role chunk of a chat.
    pub role: Option<u64>,
    /// After the write() that carried the last byte of the answer.
    pub done: Option<u64>,
    /// `done`, `cancelled` (by the client), `aborted` (by a fault); none while it goes on.
    pub outcome: Option<&'static str>,
}

/// A record that the stream, the socket and the log share.
pub type Shared = Arc<Mutex<Record>>;

/// Locks whatever a panicked thread may have left behind; there is no invariant to break.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Totals since the start or the last reset; the open ones are as of now.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Totals {
    /// Requests taken in.
    pub requests: u64,
    /// Output events handed to the kernel.
    pub events: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Requests that the client left before their end.
    pub cancelled: u64,
    /// Requests under way.
    pub open_streams: u64,
    /// Connections.
    pub open_connections: u64,
    /// Requests and connections done wrong on purpose, by how.
    pub faults: BTreeMap<String, u64>,
}

/// The memory of the server.
#[derive(Default)]
pub struct Log {
    next: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    records: VecDeque<Shared>,
    stamped: VecDeque<Shared>,
    stamps: usize,
    totals: Totals,
}

impl Log {
    /// The number of the next request.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request comes in.
    pub fn open(&self, record: Record) -> Shared {
        let mut inner = lock(&self.inner);
        inner.totals.requests += 1;
        inner.totals.open_streams += 1;
        if let Some(fault) = &record.fault {
            *inner.totals.faults.entry(fault.clone()).or_default() += 1;
        }
        let shared = Arc::new(Mutex::new(record));
        if inner.records.len() == MAX_RECORDS {
            inner.records.pop_front();
        }
        inner.records.push_back(Arc::clone(&shared));
        shared
    }

    /// A request is over; its last bytes may still be on their way to the kernel.
    pub fn close(&self, record: &Shared, outcome: &'static str) {
        lock(record).outcome = Some(outcome);
        let mut inner = lock(&self.inner);
        inner.totals.open_streams -= 1;
        inner.totals.cancelled += u64::from(outcome == "cancelled");
    }

    /// An event of a request was handed to the kernel.
    pub fn sent(&self, record: &Shared, kind: Kind, tokens: u64, before: u64, after: u64) {
        let mut record = lock(record);
        match kind {
            Kind::Role => record.role = Some(after),
            Kind::Output => {
                record.events += 1;
                record.tokens += tokens;
                record.before.push(before);
                record.after.push(after);
                record.event_tokens.push(tokens);
                let totals = &mut lock(&self.inner).totals;
                totals.events += 1;
                totals.tokens += tokens;
            }
            Kind::Finish | Kind::Usage | Kind::Done | Kind::Error => {}
        }
    }

    /// The last byte of a request was handed to the kernel at `at`, or its connection is gone.
    pub fn settled(&self, record: &Shared, at: Option<u64>) {
        let events = {
            let mut record = lock(record);
            record.done = at;
            record.before.len()
        };
        let mut inner = lock(&self.inner);
        inner.stamps += events;
        inner.stamped.push_back(Arc::clone(record));
        while inner.stamps > MAX_STAMPED || inner.stamped.len() > MAX_RECORDS {
            let Some(oldest) = inner.stamped.pop_front() else {
                break;
            };
            let mut oldest = lock(&oldest);
            inner.stamps = inner.stamps.saturating_sub(oldest.before.len());
            oldest.stamps_dropped = !oldest.before.is_empty();
            (oldest.before, oldest.after, oldest.event_tokens) = Default::default();
        }
    }

    /// A connection comes (`true`) or goes.
    pub fn connection(&self, comes: bool) {
        let open = &mut lock(&self.inner).totals.open_connections;
        *open = if comes { *open + 1 } else { open.saturating_sub(1) };
    }

    /// A connection was refused on purpose.
    pub fn refused(&self) {
        *lock(&self.inner)
            .totals
            .faults
            .entry("refuse".to_owned())
            .or_default() += 1;
    }

    /// The totals.
    pub fn totals(&self) -> Totals {
        lock(&self.inner).totals.clone()
    }

    /// The records after request `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<Shared> {
        lock(&self.inner)
            .records
            .iter()
            .filter(|record| lock(record).n > since)
            .cloned()
            .collect()
    }

    /// Forgets everything but what is open now. Numbers go on.
    pub fn reset(&self) {
        let mut inner = lock(&self.inner);
        let Totals {
            open_streams,
            open_connections,
            ..
        } = inner.totals;
        *inner = Inner::default();
        inner.totals = Totals {
            open_streams,
            open_connections,
            ..Totals::default()
        };
    }
}
