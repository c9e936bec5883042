//! The measurement window of a step.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// An instant that lies ahead.
const AHEAD: u64 = u64::MAX;

/// The measurement window of a step, in nanoseconds since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The last user had started and the warm-up was over.
    pub start_ns: u64,
    /// The load started to stop.
    pub end_ns: u64,
}

impl Window {
    /// Whether the instant lies inside.
    pub fn holds(&self, at_ns: u64) -> bool {
        self.start_ns <= at_ns && at_ns < self.end_ns
    }

    /// Whether it has begun to be known: the instant at which it opens is set.
    pub fn is_set(&self) -> bool {
        self.start_ns != AHEAD
    }
}

/// The window of a step under way: one moves it, many read it.
#[derive(Debug)]
pub struct OpenWindow {
    start_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Default for OpenWindow {
    fn default() -> Self {
        Self {
            start_ns: AHEAD.into(),
            end_ns: AHEAD.into(),
        }
    }
}

impl OpenWindow {
    /// The window as far as it is known now; instants that are not lie ahead (`u64::MAX`).
    pub fn known(&self) -> Window {
        Window {
            start_ns: self.start_ns.load(SeqCst),
            end_ns: self.end_ns.load(SeqCst),
        }
    }

    /// Opens it at `start_ns`; it closes `length_ns` later, if that is given.
    pub fn open(&self, start_ns: u64, length_ns: Option<u64>) {
        if let Some(length_ns) = length_ns {
            self.end_ns.store(start_ns.saturating_add(length_ns), SeqCst);
        }
        self.start_ns.store(start_ns, SeqCst);
    }

    /// Closes it at `end_ns`, now being `now_ns`. A window that never opened is empty.
    pub fn close(&self, now_ns: u64, end_ns: u64) {
        let start = self.start_ns.fetch_min(now_ns, SeqCst).min(now_ns);
        self.end_ns.fetch_min(end_ns.max(start), SeqCst);
    }
}
