//! How many streams run at once, by their own stamps and not by when a busy machine came to look.

use super::Window;

/// One look every 50 ms: 2 MB for a step of 7 hours.
const LOOK_NS: u64 = 50_000_000;
/// The few looks above the rest are where one stream's last token and another's first were stamped late.
const SHARE: f64 = 0.95;

/// Streams between their first and last token, at one look every 50 ms of a step.
#[derive(Debug)]
pub struct Streams {
    first_look: u64,
    /// By how many the streams of a look differ from those of the look before.
    changes: Vec<i32>,
}

impl Streams {
    /// No streams yet, in a step that begins at `start_ns`.
    pub fn new(start_ns: u64) -> Self {
        Self {
            first_look: start_ns / LOOK_NS,
            changes: Vec::new(),
        }
    }

    /// Adds a stream.
    pub fn add(&mut self, first_ns: u64, last_ns: u64) {
        if first_ns < last_ns {
            self.change(first_ns, 1);
            self.change(last_ns, -1);
        }
    }

    fn change(&mut self, at_ns: u64, by: i32) {
        let look = usize::try_from(at_ns.div_ceil(LOOK_NS).saturating_sub(self.first_look)).unwrap_or(0);
        if self.changes.len() <= look {
            self.changes.resize(look + 1, 0);
        }
        self.changes[look] += by;
    }

    /// Adds the streams of another shard of the step.
    pub fn merge(&mut self, other: &Self) {
        let looks = self.changes.len().max(other.changes.len());
        self.changes.resize(looks, 0);
        for (own, added) in self.changes.iter_mut().zip(&other.changes) {
            *own += added;
        }
    }

    /// The streams that 95 % of the looks inside the window do not exceed; 0 if the window is over before a look.
    pub fn p95(&self, window: Window) -> u32 {
        let mut streams = 0;
        let mut seen: Vec<i32> = (self.first_look..)
            .zip(&self.changes)
            .map(|(look, change)| {
                streams += change;
                (look * LOOK_NS, streams)
            })
            .filter(|&(at_ns, _)| window.holds(at_ns))
            .map(|(_, streams)| streams)
            .collect();
        seen.sort_unstable();
        let rank = (SHARE * seen.len() as f64).ceil() as usize;
        let streams = seen.get(rank.saturating_sub(1)).copied().unwrap_or(0);
        u32::try_from(streams).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    fn streams(of: impl IntoIterator<Item = (u64, u64)>) -> Streams {
        let mut streams = Streams::new(1_000 * MS);
        for (first, last) in of {
            streams.add(first * MS, last * MS);
        }
        streams
    }

    const WINDOW: Window = Window {
        start_ns: 2_000 * MS,
        end_ns: 12_000 * MS,
    };

    #[test]
    fn one_slot_is_one_stream_though_some_overlap() {
        // One stream after the other, and each of the first four reaches a little into the next.
        let of = |i: u64| (1_000 + 200 * i, 1_200 + 200 * i + if i < 9 { 10 } else { 0 });
        assert_eq!(streams((0..60).map(of)).p95(WINDOW), 1);
        let twice = (0..60).flat_map(|i| [of(i), of(i)]);
        assert_eq!(streams(twice).p95(WINDOW), 2);
    }

    #[test]
    fn outside_the_window_nothing_counts() {
        assert_eq!(streams([(1_000, 1_900), (12_010, 13_000)]).p95(WINDOW), 0);
        assert_eq!(streams([]).p95(WINDOW), 0);
    }

    proptest! {
        #[test]
        fn shards_count_as_one(of in prop::collection::vec((1_000..13_000u64, 0..5_000u64), 0..40), shard in 0..40usize) {
            let of: Vec<_> = of.into_iter().map(|(first, length)| (first, first + length)).collect();
            let (one, other) = of.split_at(shard.min(of.len()));
            let mut merged = streams(one.iter().copied());
            merged.merge(&streams(other.iter().copied()));
            let whole = streams(of.iter().copied());
            prop_assert_eq!(merged.p95(WINDOW), whole.p95(WINDOW));
            let most = of.len() as u32;
            prop_assert!(whole.p95(WINDOW) <= most);
        }
    }
}
