//! When events came and how well that is known, also of a request with more events than its trace keeps.

use hdrhistogram::Histogram;

use super::gaps::{GapWalk, told};
use super::histogram::empty;
use super::positions::Positions;
use super::{Event, Window};

const SECOND_NS: u64 = 1_000_000_000;

/// Events and tokens of one second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arrivals {
    /// Output events.
    pub events: u64,
    /// Output tokens.
    pub tokens: f64,
}

/// How well the arrivals of the window's events are known.
#[derive(Debug, Clone)]
pub(super) struct Stamps {
    /// Events inside the window.
    pub events: u64,
    /// Those that the kernel did not stamp.
    pub unstamped: u64,
    /// From the kernel's stamp to the read.
    pub read_lag: Histogram<u64>,
    /// Of each event that shares its stamp with a later one of its stream: the time since the stamp before, which
    /// bounds how much earlier it may have come.
    pub shared: Histogram<u64>,
}

impl Default for Stamps {
    fn default() -> Self {
        Self {
            events: 0,
            unstamped: 0,
            read_lag: empty(),
            shared: empty(),
        }
    }
}

/// The stamps of a request walked so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StampWalk {
    last_ns: u64,
    /// The stamp before the last one that differs from it.
    before_ns: u64,
}

impl StampWalk {
    /// Before the first event; nothing of it can have come before `floor_ns`.
    pub fn from(floor_ns: u64) -> Self {
        Self {
            last_ns: floor_ns,
            before_ns: floor_ns,
        }
    }
}

impl Stamps {
    /// Adds an event, if it lies inside the window.
    pub fn take(&mut self, walk: &mut StampWalk, event: &Event, window: Window) {
        let shares = event.at_ns == walk.last_ns;
        if !shares {
            walk.before_ns = std::mem::replace(&mut walk.last_ns, event.at_ns);
        }
        if !window.holds(event.at_ns) {
            return;
        }
        self.events += 1;
        if event.lag_ns == 0 {
            self.unstamped += 1;
            return;
        }
        self.read_lag.saturating_record(u64::from(event.lag_ns));
        if shares {
            // The one before it is the one whose own arrival is not known.
            self.shared
                .saturating_record(event.at_ns.saturating_sub(walk.before_ns));
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.unstamped += other.unstamped;
        self.read_lag
            .add(&other.read_lag)
            .expect("all have the same bounds");
        self.shared.add(&other.shared).expect("all have the same bounds");
    }

    fn clear(&mut self) {
        (self.events, self.unstamped) = (0, 0);
        self.read_lag.reset();
        self.shared.reset();
    }
}

/// The events of one request that do not lie in its trace any more.
#[derive(Debug, Clone)]
pub(super) struct Folded {
    /// How many they are.
    pub events: u64,
    /// Raw gaps between them.
    pub icl: Histogram<u64>,
    /// Their tokens' latencies, by the server's word on each event.
    pub told_itl: Histogram<u64>,
    /// These by the token's place in the answer.
    pub told_positions: Positions,
    /// The raw gaps by the event's place in the answer.
    pub positions: Positions,
    /// The walk over their gaps so far.
    pub gaps: GapWalk,
    /// How well they are known.
    pub stamps: Stamps,
    /// The walk over their stamps so far.
    pub stamp_walk: StampWalk,
    /// How many came in each second that had any.
    pub seconds: Vec<(u64, u64)>,
}

impl Folded {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            events: 0,
            icl: empty(),
            told_itl: empty(),
            told_positions: Positions::default(),
            positions: Positions::default(),
            gaps: GapWalk::default(),
            stamps: Stamps::default(),
            stamp_walk: StampWalk::default(),
            seconds: Vec::new(),
        }
    }

    /// Bytes of memory that a clone takes: those of its four histograms, which outweigh the rest.
    pub fn bytes(&self) -> usize {
        4 * self.icl.distinct_values() * size_of::<u64>()
    }

    /// Forgets the request; keeps the memory.
    pub fn clear(&mut self) {
        if self.events == 0 {
            return;
        }
        self.events = 0;
        self.icl.reset();
        self.told_itl.reset();
        self.told_positions.clear();
        self.positions.clear();
        self.gaps = GapWalk::default();
        self.stamps.clear();
        self.seconds.clear();
    }

    /// Takes the events that follow those it has; no event of the request can have come before `floor_ns`. `window` is
    /// the window as known now.
    pub fn take(&mut self, events: &[Event], window: Window, floor_ns: u64) {
        if self.events == 0 {
            self.stamp_walk = StampWalk::from(floor_ns);
        }
        for (index, event) in (self.events + 1..).zip(events) {
            let tokens = |before: &Event| {
                let gap_ns = event.at_ns.saturating_sub(before.at_ns);
                self.positions.add(index, 1, gap_ns);
                told(event, before)
            };
            self.gaps.step(
                *event,
                tokens,
                &mut self.icl,
                &mut self.told_itl,
                &mut self.told_positions,
            );
            self.stamps.take(&mut self.stamp_walk, event, window);
            let second = event.at_ns / SECOND_NS;
            match self.seconds.last_mut() {
                Some((last, count)) if *last == second => *count += 1,
                _ => self.seconds.push((second, 1)),
            }
        }
        self.events += events.len() as u64;
    }
}
