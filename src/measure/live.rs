//! Counters that the hot path writes and the display reads, without locks.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Buckets an octave: a percentile read here is within 1/32 of the truth.
const PER_OCTAVE: usize = 32;
/// 2^10 ns, about 1 us: what is shorter falls into the first bucket.
const FIRST_OCTAVE: u32 = 10;
/// Up to 2^38 ns, about 4.6 minutes.
const OCTAVES: usize = 28;

/// Durations counted by bucket; buckets without a count are left out.
pub type Buckets = Vec<(u16, u32)>;

/// The middle of a bucket of [`Buckets`], in nanoseconds.
pub(super) fn middle_ns(bucket: u16) -> u64 {
    Durations::value(usize::from(bucket))
}

/// The bucket of a duration.
#[cfg(test)]
pub(super) fn bucket_of(ns: u64) -> u16 {
    Durations::bucket(ns) as u16
}

/// Seconds that are open for counting at once. A second is read once it is over by more than one.
const OPEN: u64 = 4;

const SECOND_NS: u64 = 1_000_000_000;

/// A coarse histogram of durations whose counts are atomics.
#[derive(Debug)]
struct Durations([AtomicU32; PER_OCTAVE * OCTAVES]);

impl Default for Durations {
    fn default() -> Self {
        Self([const { AtomicU32::new(0) }; PER_OCTAVE * OCTAVES])
    }
}

impl Durations {
    fn add(&self, ns: u64) {
        self.0[Self::bucket(ns)].fetch_add(1, Relaxed);
    }

    fn bucket(ns: u64) -> usize {
        let ns = ns.max(1 << FIRST_OCTAVE);
        let octave = ns.ilog2();
        let within = (ns >> (octave - PER_OCTAVE.ilog2())) as usize - PER_OCTAVE;
        let bucket = (octave - FIRST_OCTAVE) as usize * PER_OCTAVE + within;
        bucket.min(PER_OCTAVE * OCTAVES - 1)
    }

    /// The middle of a bucket.
    fn value(bucket: usize) -> u64 {
        let octave = FIRST_OCTAVE + (bucket / PER_OCTAVE) as u32;
        let low = ((PER_OCTAVE + bucket % PER_OCTAVE) as u64) << (octave - PER_OCTAVE.ilog2());
        low + (1 << (octave - PER_OCTAVE.ilog2())) / 2
    }

    fn read_into(&self, counts: &mut [u64; PER_OCTAVE * OCTAVES]) {
        for (bucket, count) in self.0.iter().zip(counts) {
            *count += u64::from(bucket.load(Relaxed));
        }
    }

    fn take_into(&self, counts: &mut [u64; PER_OCTAVE * OCTAVES]) {
        for (bucket, count) in self.0.iter().zip(counts) {
            *count += u64::from(bucket.swap(0, Relaxed));
        }
    }
}

/// The value below which `share` of the counted durations lie, in nanoseconds.
fn quantile(counts: &[u64; PER_OCTAVE * OCTAVES], share: f64) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(Durations::value(bucket))
}

#[derive(Debug, Default)]
struct Slot {
    sent: AtomicU32,
    ok: AtomicU32,
    failed: AtomicU32,
    ttft: Durations,
    itl: Durations,
    read_lag: Durations,
}

/// What one shard of the load does right now. Its own thread writes, others read.
#[derive(Debug, Default)]
pub struct Live {
    users: AtomicU32,
    in_flight: AtomicU32,
    streaming: AtomicU32,
    events: AtomicU64,
    sent: AtomicU64,
    ok: AtomicU64,
    failed: AtomicU64,
    /// Of the whole step.
    ttft: Durations,
    slots: [Slot; OPEN as usize],
}

/// Totals of a step so far, over its shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Users that have started.
    pub users: u32,
    /// Requests under way.
    pub in_flight: u32,
    /// Streams past their first token.
    pub streaming: u32,
    /// Events with output.
    pub events: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
}

/// What one second brought, over all shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecondCounts {
    /// Requests sent.
    pub sent: u64,
    /// Requests that ended well.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Median and 99th percentile of the TTFT of first tokens that arrived, in nanoseconds.
    pub ttft_ns: Option<(u64, u64)>,
    /// Median and 99th percentile of the gaps between output events that arrived, in nanoseconds.
    pub itl_ns: Option<(u64, u64)>,
    /// These gaps, by bucket.
    pub gaps: Buckets,
}

impl Live {
    fn slot(&self, at_ns: u64) -> &Slot {
        &self.slots[(at_ns / SECOND_NS % OPEN) as usize]
    }

    /// A user has started.
    pub fn user_started(&self) {
        self.users.fetch_add(1, Relaxed);
    }

    /// A request goes out.
    pub fn request_sent(&self, at_ns: u64) {
        self.in_flight.fetch_add(1, Relaxed);
        self.sent.fetch_add(1, Relaxed);
        self.slot(at_ns).sent.fetch_add(1, Relaxed);
    }

    /// The first output of a request arrived. `now_ns` tells the second to count it in.
    pub fn first_event(&self, now_ns: u64, ttft_ns: u64) {
        self.streaming.fetch_add(1, Relaxed);
        self.events.fetch_add(1, Relaxed);
        self.slot(now_ns).ttft.add(ttft_ns);
        self.ttft.add(ttft_ns);
    }

    /// Output arrived `gap_ns` after the output before it.
    pub fn next_event(&self, now_ns: u64, gap_ns: u64) {
        self.events.fetch_add(1, Relaxed);
        self.slot(now_ns).itl.add(gap_ns);
    }

    /// Output was read `lag_ns` after it had arrived.
    pub fn read_late(&self, now_ns: u64, lag_ns: u64) {
        self.slot(now_ns).read_lag.add(lag_ns);
    }

    /// A request that went out is over; `streamed` if its first output had arrived.
    pub fn request_ended(&self, now_ns: u64, ok: bool, streamed: bool) {
        self.in_flight.fetch_sub(1, Relaxed);
        if streamed {
            self.streaming.fetch_sub(1, Relaxed);
        }
        self.count_end(now_ns, ok);
    }

    /// A request that could not go out is over.
    pub fn request_not_sent(&self, now_ns: u64) {
        self.count_end(now_ns, false);
    }

    fn count_end(&self, now_ns: u64, ok: bool) {
        let slot = self.slot(now_ns);
        let (total, second) = if ok {
            (&self.ok, &slot.ok)
        } else {
            (&self.failed, &slot.failed)
        };
        total.fetch_add(1, Relaxed);
        second.fetch_add(1, Relaxed);
    }
}

/// What the display shows of a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatestSecond {
    /// Which second, since the start of the run.
    pub at_s: u64,
    /// Median TTFT of first tokens that arrived in it, in nanoseconds.
    pub ttft_p50_ns: Option<u64>,
    /// Median gap between output events that arrived in it, in nanoseconds.
    pub itl_p50_ns: Option<u64>,
    /// 99th percentile of how late its events were read after they arrived, in nanoseconds.
    pub read_lag_p99_ns: Option<u64>,
}

/// The counters of all shards of one step.
#[derive(Debug)]
pub struct LiveShards {
    shards: Vec<Arc<Live>>,
    latest: Mutex<Option<LatestSecond>>,
}

impl LiveShards {
    /// Counters for so many shards.
    pub fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Arc::default()).collect(),
            latest: Mutex::default(),
        }
    }

    /// The counters of one shard.
    pub fn shard(&self, index: usize) -> Arc<Live> {
        self.shards[index].clone()
    }

    /// What happened so far.
    pub fn totals(&self) -> Totals {
        self.shards.iter().fold(Totals::default(), |sum, live| Totals {
            users: sum.users + live.users.load(Relaxed),
            in_flight: sum.in_flight + live.in_flight.load(Relaxed),
            streaming: sum.streaming + live.streaming.load(Relaxed),
            events: sum.events + live.events.load(Relaxed),
            sent: sum.sent + live.sent.load(Relaxed),
            ok: sum.ok + live.ok.load(Relaxed),
            failed: sum.failed + live.failed.load(Relaxed),
        })
    }

    /// Median TTFT of the step so far, in nanoseconds within 3 %.
    pub fn ttft_p50_ns(&self) -> Option<u64> {
        let mut counts = [0; PER_OCTAVE * OCTAVES];
        for live in &self.shards {
            live.ttft.read_into(&mut counts);
        }
        quantile(&counts, 0.5)
    }

    /// Reads a second that is over, and empties its counters for a later one.
    pub fn take_second(&self, at_s: u64) -> SecondCounts {
        let mut ttft = [0; PER_OCTAVE * OCTAVES];
        let mut itl = [0; PER_OCTAVE * OCTAVES];
        let mut read_lag = [0; PER_OCTAVE * OCTAVES];
        let mut counts = SecondCounts::default();
        for live in &self.shards {
            let slot = &live.slots[(at_s % OPEN) as usize];
            counts.sent += u64::from(slot.sent.swap(0, Relaxed));
            counts.ok += u64::from(slot.ok.swap(0, Relaxed));
            counts.failed += u64::from(slot.failed.swap(0, Relaxed));
            slot.ttft.take_into(&mut ttft);
            slot.itl.take_into(&mut itl);
            slot.read_lag.take_into(&mut read_lag);
        }
        counts.ttft_ns = quantile(&ttft, 0.5).zip(quantile(&ttft, 0.99));
        counts.itl_ns = quantile(&itl, 0.5).zip(quantile(&itl, 0.99));
        let counted = itl.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.gaps = counted
            .map(|(bucket, count)| (bucket as u16, *count as u32))
            .collect();
        let latest = LatestSecond {
            at_s,
            ttft_p50_ns: quantile(&ttft, 0.5),
            itl_p50_ns: quantile(&itl, 0.5),
            read_lag_p99_ns: quantile(&read_lag, 0.99),
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(latest);
        counts
    }

    /// The second that was read last, for the display.
    pub fn latest(&self) -> Option<LatestSecond> {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_is_close_to_what_it_holds(ns in 1_u64 << FIRST_OCTAVE..1 << 37) {
            let value = Durations::value(Durations::bucket(ns));
            prop_assert!(value.abs_diff(ns) * PER_OCTAVE as u64 <= ns, "{ns} is shown as {value}");
        }
    }

    #[test]
    fn extremes_have_a_bucket() {
        assert_eq!(Durations::bucket(0), 0);
        assert_eq!(Durations::bucket(u64::MAX), PER_OCTAVE * OCTAVES - 1);
    }

    #[test]
    fn a_second_is_read_once() {
        let shards = LiveShards::new(2);
        for shard in 0..2 {
            let live = shards.shard(shard);
            live.user_started();
            live.request_sent(5 * SECOND_NS);
            live.first_event(5 * SECOND_NS + 1, 100_000_000);
            live.next_event(6 * SECOND_NS, 10_000_000);
            live.request_ended(6 * SECOND_NS, shard == 0, true);
        }
        assert_eq!(shards.latest(), None);
        let totals = Totals {
            users: 2,
            events: 4,
            sent: 2,
            ok: 1,
            failed: 1,
            ..Totals::default()
        };
        assert_eq!(shards.totals(), totals);
        let fifth = shards.take_second(5);
        assert_eq!((fifth.sent, fifth.ok, fifth.itl_ns), (2, 0, None));
        let (p50, p99) = fifth.ttft_ns.expect("two first tokens");
        assert!(p50 == p99 && p50.abs_diff(100_000_000) < 3_200_000);
        let sixth = shards.take_second(6);
        let latest = shards.latest().expect("a second was read");
        assert_eq!((latest.at_s, latest.ttft_p50_ns), (6, None));
        assert!(
            latest
                .itl_p50_ns
                .is_some_and(|ns| ns.abs_diff(10_000_000) < 320_000)
        );
        assert_eq!((sixth.ok, sixth.failed, sixth.ttft_ns), (1, 1, None));
        assert_eq!(shards.take_second(5), SecondCounts::default());
    }
}
