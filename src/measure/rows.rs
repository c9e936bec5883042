//! The requests of a step in the order in which they were sent: what the intervals of its latencies rest on.

use super::Sample;
use super::latencies::Times;

/// Rows that a shard keeps at most; a row is 40 bytes. When there are more, every second one goes.
const MOST: usize = 65_536;

const MS: f64 = 1e6;

/// The latencies of a request, by their place in [`Row::latencies`].
pub(super) const TTFT: usize = 0;
pub(super) const TTFT_FROM_DUE: usize = 1;
pub(super) const TTFO: usize = 2;
pub(super) const TTST: usize = 3;
pub(super) const TPOT: usize = 4;
pub(super) const E2EL: usize = 5;

/// One request sent inside the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    sent_ns: u64,
    /// In milliseconds; NaN where the request has none.
    latencies: [f32; 6],
    /// Whether it succeeded.
    pub(super) ok: bool,
    /// Whether it met every objective; false without any.
    pub(super) good: bool,
}

impl Row {
    /// Of a request that succeeded.
    pub(super) fn of(sample: &Sample, times: &Times, good: bool) -> Row {
        let since =
            |at: Option<u64>, from: Option<u64>| at.zip(from).map(|(at, from)| at.saturating_sub(from));
        let latencies = [
            times.ttft,
            since(sample.first_ns, Some(sample.due_ns)),
            since(sample.first_visible_ns, sample.sent_ns),
            since(sample.second_ns, sample.first_ns),
            times.tpot,
            times.e2el,
        ];
        Row {
            latencies: latencies.map(|ns| ns.map_or(f32::NAN, |ns| (ns as f64 / MS) as f32)),
            ok: true,
            good,
            ..Row::failed(sample)
        }
    }

    /// Of a request that failed.
    pub(super) fn failed(sample: &Sample) -> Row {
        Row {
            sent_ns: sample.sent_ns.unwrap_or(sample.due_ns),
            latencies: [f32::NAN; 6],
            ok: false,
            good: false,
        }
    }

    /// The second in which it was sent, since the start of the run.
    pub(super) fn second(&self) -> u64 {
        self.sent_ns / 1_000_000_000
    }
}

/// Requests sent inside the window, in whichever order they ended.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    rows: Vec<Row>,
    seen: u64,
    /// Every 2^thinned-th request is kept.
    thinned: u32,
}

impl Rows {
    pub(super) fn push(&mut self, row: Row) {
        if self.seen.trailing_zeros() >= self.thinned {
            self.rows.push(row);
        }
        self.seen += 1;
        if self.rows.len() >= MOST {
            self.thin();
        }
    }

    fn thin(&mut self) {
        let mut keep = false;
        self.rows.retain(|_| {
            keep = !keep;
            keep
        });
        self.thinned += 1;
    }

    /// Adds those of another shard. Both keep the same share of theirs.
    pub(super) fn merge(&mut self, mut other: Rows) {
        while self.thinned < other.thinned {
            self.thin();
        }
        while other.thinned < self.thinned {
            other.thin();
        }
        self.rows.append(&mut other.rows);
        self.seen += other.seen;
    }

    /// In the order in which they were sent.
    pub(super) fn in_order(&self) -> Vec<Row> {
        let mut rows = self.rows.clone();
        rows.sort_by_key(|row| row.sent_ns);
        rows
    }

    /// Whether all of them are here.
    pub(super) fn is_whole(&self) -> bool {
        self.thinned == 0
    }
}

/// A latency of the requests that have it.
pub(super) fn latency(rows: &[Row], which: usize) -> Vec<f64> {
    let values = rows.iter().map(|row| f64::from(row.latencies[which]));
    values.filter(|ms| !ms.is_nan()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::sample;

    fn row(id: u64) -> Row {
        let sample = sample(id, 0, 10 * id);
        Row::of(&sample, &Times::with_first(&sample, 1), false)
    }

    #[test]
    fn a_row_holds_what_the_request_took() {
        let [ttft, from_due, ttfo, ttst, tpot, e2el] = row(3).latencies;
        assert_eq!(
            (ttft, from_due, ttfo, ttst, tpot, e2el),
            (20.0, 20.0, 20.0, 20.0, 20.0, 2_000.0)
        );
    }

    #[test]
    fn a_long_step_keeps_its_memory_and_its_order() {
        let mut rows = Rows::default();
        (0..200_000).for_each(|id| rows.push(row(id)));
        assert!(rows.rows.len() < MOST && !rows.is_whole());
        let mut other = Rows::default();
        (0..1_000).rev().for_each(|id| other.push(row(id)));
        rows.merge(other);
        let order = rows.in_order();
        assert!(order.windows(2).all(|pair| pair[0].sent_ns <= pair[1].sent_ns));
        // Every fourth of 200,000, and every fourth of 1,000.
        assert_eq!(order.len(), 50_250);
    }
}
