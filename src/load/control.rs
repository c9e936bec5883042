//! When the window opens and closes, who may still send, and when everyone must stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::client::Cut;
use crate::measure::{OpenWindow, Window};
use crate::profile::{Extent, Warmup};

/// An instant that lies ahead.
const UNKNOWN: u64 = u64::MAX;

/// The window opens this long after it was decided on, so that no request can have been sent in it without having
/// seen it.
const NOTICE_NS: u64 = 2_000_000;

/// How often a user whose request broke off asks whether the server was looked after.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The user's wish to end a run early.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    soft: Arc<AtomicBool>,
    hard: Arc<AtomicBool>,
    server_gone: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
}

impl Stop {
    /// The same wish, for a server of its own: another server's end does not end its steps.
    pub fn for_server(&self) -> Self {
        Self {
            server_gone: Arc::default(),
            looks: Arc::default(),
            ..self.clone()
        }
    }

    /// Ends the step now: no new requests, those in flight are followed to the drain deadline.
    pub fn soft(&self) {
        self.soft.store(true, SeqCst);
    }

    /// Ends the step now and cuts what is in flight.
    pub fn hard(&self) {
        self.hard.store(true, SeqCst);
    }

    /// The server's process is gone: cuts the step, and failures to connect or to read become
    /// [`Outcome::ServerExit`](crate::measure::Outcome::ServerExit).
    pub fn server_gone(&self) {
        self.server_gone.store(true, SeqCst);
    }

    /// The server's process was looked after, and is there. Never called for a server that nobody looks after.
    pub fn server_is_there(&self) {
        self.looks.fetch_add(1, SeqCst);
    }

    /// Waits until the server's process was looked after again. Its sockets close a little before it ends, so that a
    /// look that had begun may still find it: two are waited for.
    pub(super) async fn server_looked_after(&self) {
        let looks = self.looks.load(SeqCst);
        while looks > 0 && self.looks.load(SeqCst) < looks + 2 && !self.is_server_gone() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub(super) fn is_server_gone(&self) -> bool {
        self.server_gone.load(SeqCst)
    }

    pub(super) fn is_hard(&self) -> bool {
        self.hard.load(SeqCst) || self.is_server_gone()
    }

    /// Whether the step is to end, in one way or another.
    pub fn is_soft(&self) -> bool {
        self.soft.load(SeqCst) || self.is_hard()
    }
}

/// Keeps a step's window shut while someone who is no user asks the loaded server something.
#[derive(Debug, Default)]
pub struct Gate {
    loaded: AtomicBool,
    open: AtomicBool,
    late: AtomicBool,
    over: AtomicBool,
}

/// Lets a window open when it is dropped.
#[derive(Debug)]
pub struct Opens<'a>(&'a Gate);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.open.store(true, SeqCst);
    }
}

impl Gate {
    /// Every user of the step has started.
    pub(crate) fn all_ask(&self) {
        self.loaded.store(true, SeqCst);
    }

    /// The warm-up has lasted as long as it may.
    pub(crate) fn hurry(&self) {
        self.late.store(true, SeqCst);
    }

    /// Whether every user of the step has started.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(SeqCst)
    }

    /// Lets the window open, once the warm-up is over, when what is returned is dropped: whatever becomes of the asking.
    pub fn opens_at_end(&self) -> Opens<'_> {
        Opens(self)
    }

    /// Whether the warm-up has lasted as long as it may: who has no answer yet waits no longer.
    pub fn is_late(&self) -> bool {
        self.late.load(SeqCst)
    }

    /// Nothing is to be asked any more.
    pub fn close(&self) {
        self.over.store(true, SeqCst);
    }

    /// Whether the step is over, or its load stops.
    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }
}

/// What the users of a step share with the one who conducts it.
#[derive(Debug)]
pub(super) struct Control {
    users: u32,
    warmup: Warmup,
    extent: Extent,
    gate: Option<Arc<Gate>>,
    next_id: AtomicU64,
    started: AtomicU32,
    all_started_ns: AtomicU64,
    warm: AtomicU32,
    /// Users that were not warm when the window opened.
    cold: AtomicU32,
    /// The window of the step.
    pub window: Arc<OpenWindow>,
    admitted: AtomicU64,
    last_admitted_ns: AtomicU64,
    over: AtomicBool,
    /// Ends the waiting of every user.
    pub cut: Arc<Cut>,
}

impl Control {
    pub fn new(users: u32, warmup: Warmup, extent: Extent, gate: Option<Arc<Gate>>, first_id: u64) -> Self {
        Self {
            users,
            warmup,
            extent,
            gate,
            next_id: first_id.into(),
            started: 0.into(),
            all_started_ns: UNKNOWN.into(),
            warm: 0.into(),
            cold: 0.into(),
            window: Arc::default(),
            admitted: 0.into(),
            last_admitted_ns: 0.into(),
            over: false.into(),
            cut: Arc::new(Cut::new(users as usize)),
        }
    }

    /// The number of the next request.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, SeqCst)
    }

    /// A user has its connection, or has failed to get one.
    pub fn user_started(&self, now_ns: u64) {
        if self.started.fetch_add(1, SeqCst) + 1 == self.users {
            self.all_started_ns.store(now_ns, SeqCst);
            self.gate.iter().for_each(|gate| gate.all_ask());
        }
    }

    /// A user has ended its `count`th request.
    pub fn request_ended(&self, count: u64) {
        if count == u64::from(self.warmup.requests_per_user) {
            self.warm.fetch_add(1, SeqCst);
        }
    }

    /// Whether all users have started, and when.
    pub fn all_started_ns(&self) -> Option<u64> {
        Some(self.all_started_ns.load(SeqCst)).filter(|&at| at != UNKNOWN)
    }

    /// Users that had not ended the requests of their warm-up when the window opened.
    pub fn cold_users(&self) -> u32 {
        self.cold.load(SeqCst)
    }

    /// The window as far as it is known; instants that are not lie ahead.
    pub fn window(&self) -> Window {
        self.window.known()
    }

    /// Whether no more requests may be sent.
    pub fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }

    /// Whether a request may be sent at this instant. Of those inside the window, no more than wanted are admitted.
    pub fn admit(&self, sent_ns: u64) -> bool {
        if self.is_over() || sent_ns >= self.window().end_ns {
            return false;
        }
        let Some(wanted) = self.extent.requests else {
            return true;
        };
        if sent_ns < self.window().start_ns {
            return true;
        }
        let admitted = self.admitted.fetch_add(1, SeqCst);
        if admitted < wanted {
            self.last_admitted_ns.fetch_max(sent_ns, SeqCst);
        }
        admitted < wanted
    }

    /// Moves the step on; to be called every few milliseconds. Says whether the load must stop now.
    pub fn advance(&self, now_ns: u64, stop: &Stop) -> bool {
        if self.is_over() {
            return true;
        }
        let window = self.window();
        if self.waited(self.warmup.most, now_ns) {
            self.gate.iter().for_each(|gate| gate.hurry());
        }
        if window.start_ns == UNKNOWN && self.is_warm(now_ns) {
            if self.warmup.requests_per_user > 0 {
                let warm = self.warm.load(SeqCst);
                self.cold.store(self.users.saturating_sub(warm), SeqCst);
            }
            self.window
                .open(now_ns + NOTICE_NS, self.extent.duration.map(nanoseconds));
        }
        let sent_all = self
            .extent
            .requests
            .is_some_and(|wanted| self.admitted.load(SeqCst) >= wanted);
        if stop.is_soft() || sent_all || now_ns >= self.window().end_ns {
            self.over.store(true, SeqCst);
            self.gate.iter().for_each(|gate| gate.close());
            self.close(now_ns, sent_all);
            return true;
        }
        false
    }

    fn is_warm(&self, now_ns: u64) -> bool {
        let asked = self.warmup.requests_per_user == 0 || self.warm.load(SeqCst) >= self.users;
        self.waited(self.warmup.duration, now_ns)
            && (asked || self.waited(self.warmup.most, now_ns))
            && self.gate.as_ref().is_none_or(|gate| gate.open.load(SeqCst))
    }

    /// Whether all users started so long ago.
    fn waited(&self, length: Duration, now_ns: u64) -> bool {
        self.all_started_ns()
            .is_some_and(|started| now_ns >= started.saturating_add(nanoseconds(length)))
    }

    /// Fixes the end of the window. One that never opened is empty.
    fn close(&self, now_ns: u64, sent_all: bool) {
        let end = if sent_all {
            self.last_admitted_ns.load(SeqCst) + 1
        } else {
            now_ns
        };
        self.window.close(now_ns, end);
    }
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn control(users: u32, warm_s: u64, each: u32, duration: Option<u64>, requests: Option<u64>) -> Control {
        let warmup = Warmup {
            duration: Duration::from_secs(warm_s),
            requests_per_user: each,
            most: Duration::from_secs(60),
        };
        let extent = Extent {
            duration: duration.map(Duration::from_secs),
            requests,
        };
        Control::new(users, warmup, extent, None, 0)
    }

    #[test]
    fn a_gate_keeps_the_window_shut() {
        let (gate, stop) = (Arc::new(Gate::default()), Stop::default());
        let (warmup, extent) = (
            control(1, 0, 0, None, None).warmup,
            control(1, 0, 0, Some(1), None).extent,
        );
        let control = Control::new(1, warmup, extent, Some(gate.clone()), 0);
        assert!(!gate.is_loaded());
        control.user_started(SECOND);
        assert!(gate.is_loaded());
        control.advance(9 * SECOND, &stop);
        assert_eq!(control.window().start_ns, UNKNOWN);
        drop(gate.opens_at_end());
        assert!(!control.advance(9 * SECOND, &stop) && !gate.is_over());
        assert_eq!(control.window().start_ns, 9 * SECOND + NOTICE_NS);
        assert!(control.advance(11 * SECOND, &stop) && gate.is_over());
    }

    #[test]
    fn who_asks_behind_a_gate_hears_when_the_warm_up_has_lasted_long_enough() {
        let (gate, stop) = (Arc::new(Gate::default()), Stop::default());
        let Control { warmup, extent, .. } = control(2, 5, 0, Some(10), None);
        let control = Control::new(2, warmup, extent, Some(gate.clone()), 0);
        control.user_started(SECOND);
        control.advance(99 * SECOND, &stop);
        assert!(!gate.is_late(), "a user has not started");
        control.user_started(100 * SECOND);
        control.advance(159 * SECOND, &stop);
        assert!(!gate.is_late());
        control.advance(160 * SECOND, &stop);
        assert!(gate.is_late() && !gate.is_over());
        drop(gate.opens_at_end());
        control.advance(161 * SECOND, &stop);
        assert_eq!(control.window().start_ns, 161 * SECOND + NOTICE_NS);
    }

    #[test]
    fn the_window_opens_after_both_bounds_of_the_warm_up() {
        let control = control(2, 5, 1, Some(10), None);
        let stop = Stop::default();
        control.user_started(SECOND);
        control.request_ended(1);
        assert!(!control.advance(9 * SECOND, &stop));
        control.user_started(10 * SECOND);
        control.advance(20 * SECOND, &stop);
        assert_eq!(control.window().start_ns, UNKNOWN, "one user has not asked yet");
        control.request_ended(1);
        control.advance(21 * SECOND, &stop);
        let start = 21 * SECOND + NOTICE_NS;
        assert_eq!(
            control.window(),
            Window {
                start_ns: start,
                end_ns: start + 10 * SECOND
            }
        );
        assert!(control.admit(start + 10 * SECOND - 1) && !control.admit(start + 10 * SECOND));
        assert!(!control.advance(start + 9 * SECOND, &stop) && control.advance(start + 10 * SECOND, &stop));
    }

    #[test]
    fn a_slow_server_holds_the_window_shut_for_so_long_and_no_longer() {
        let control = control(2, 5, 1, Some(10), None);
        let stop = Stop::default();
        control.user_started(SECOND);
        control.user_started(2 * SECOND);
        control.request_ended(1);
        control.advance(61 * SECOND, &stop);
        assert_eq!((control.window().start_ns, control.cold_users()), (UNKNOWN, 0));
        control.advance(62 * SECOND, &stop);
        assert_eq!(control.window().start_ns, 62 * SECOND + NOTICE_NS);
        assert_eq!(control.cold_users(), 1);
    }

    #[test]
    fn exactly_the_requests_wanted_are_admitted() {
        let control = control(1, 0, 0, None, Some(3));
        let stop = Stop::default();
        control.user_started(1);
        assert!(control.admit(SECOND), "before the window, anything goes");
        control.advance(2 * SECOND, &stop);
        let admitted: Vec<_> = (3..8).map(|second| control.admit(second * SECOND)).collect();
        assert_eq!(admitted, [true, true, true, false, false]);
        assert!(control.advance(8 * SECOND, &stop));
        assert_eq!(control.window().end_ns, 5 * SECOND + 1);
    }

    #[tokio::test]
    async fn a_server_that_broke_off_is_looked_after_before_it_is_judged() {
        use futures::FutureExt;

        let stop = Stop::default();
        let nobody_looks = stop.server_looked_after().now_or_never();
        assert_eq!(nobody_looks, Some(()), "a server that runs already");
        stop.server_is_there();
        assert_eq!(stop.server_looked_after().now_or_never(), None);
        // These end, each in its own way.
        tokio::join!(stop.server_looked_after(), async {
            stop.server_is_there();
            stop.server_is_there();
        });
        assert!(!stop.is_server_gone());
        tokio::join!(stop.server_looked_after(), async { stop.server_gone() });
        assert!(stop.is_server_gone());
    }

    #[test]
    fn a_stop_closes_the_window_where_it_is() {
        let stop = Stop::default();
        let opened = control(1, 0, 0, Some(100), None);
        opened.user_started(1);
        opened.advance(SECOND, &stop);
        stop.soft();
        assert!(opened.advance(7 * SECOND, &stop) && !opened.admit(7 * SECOND));
        assert_eq!(
            opened.window(),
            Window {
                start_ns: SECOND + NOTICE_NS,
                end_ns: 7 * SECOND
            }
        );
        let never = control(1, 0, 0, Some(100), None);
        assert!(never.advance(7 * SECOND, &stop));
        assert_eq!(
            never.window(),
            Window {
                start_ns: 7 * SECOND,
                end_ns: 7 * SECOND
            }
        );
    }
}
