//! How a step goes, out of the load's live counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::step::Bench;
use crate::measure::LiveShards;
use crate::report::{Live, Phase};

/// The window's start while it is still ahead.
pub const AHEAD: u64 = u64::MAX;

/// Looks at the counters of one step.
pub struct Display<'a> {
    bench: &'a Bench<'a>,
    live: &'a LiveShards,
    opened_ns: &'a AtomicU64,
    started_ns: u64,
    before: (u64, u64),
    tokens_per_s: f64,
}

impl<'a> Display<'a> {
    /// A step that starts now; `opened_ns` is the start of its window, or [`AHEAD`].
    pub fn new(bench: &'a Bench<'a>, live: &'a LiveShards, opened_ns: &'a AtomicU64) -> Display<'a> {
        let started_ns = bench.clock.now_ns();
        Display {
            bench,
            live,
            opened_ns,
            started_ns,
            before: (started_ns, 0),
            tokens_per_s: 0.0,
        }
    }

    /// The step at this moment.
    pub fn look(&mut self) -> Live {
        let now_ns = self.bench.clock.now_ns();
        let totals = self.live.totals();
        let passed_s = (now_ns - self.before.0) as f64 / 1e9;
        if passed_s >= 1.0 {
            self.tokens_per_s = (totals.events - self.before.1) as f64 / passed_s;
            self.before = (now_ns, totals.events);
        }
        let profile = self.bench.profile;
        let second = self.live.latest();
        let elapsed = Duration::from_nanos(now_ns - self.started_ns);
        let opened_ns = self.opened_ns.load(Ordering::Relaxed);
        let window = profile.extent.duration;
        let warm = match opened_ns {
            AHEAD => profile.ramp + profile.warmup.duration,
            opened_ns => Duration::from_nanos(opened_ns.saturating_sub(self.started_ns)),
        };
        let phase = match opened_ns {
            AHEAD if elapsed < profile.ramp => Phase::Ramp,
            AHEAD => Phase::WarmUp,
            _ if window.is_some_and(|window| elapsed > warm + window) => Phase::Drain,
            _ => Phase::Measure,
        };
        Live {
            phase,
            elapsed,
            total: window.map(|window| warm + window),
            users: totals.users,
            in_flight: totals.in_flight,
            tokens_per_s: self.tokens_per_s,
            ttft_p50: self.live.ttft_p50_ns().map(Duration::from_nanos),
            ok: totals.ok,
            failed: totals.failed,
            second,
            server: None,
            read_lag_p99: second.and_then(|second| second.read_lag_p99_ns.map(Duration::from_nanos)),
        }
    }
}
