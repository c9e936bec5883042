//! One pass over `requests.jsonl`: what the charts need of each step, in bounded memory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::measure::result::RunResult;
use crate::measure::{Outcome, Sample, read_requests};

/// Rows of the TTFT grid for each factor of ten.
pub(super) const ROWS_PER_DECADE: f64 = 12.0;

/// Requests of a step whose prompt length and TTFT are kept one by one.
const PAIRS: usize = 50_000;

const NS: u64 = 1_000_000_000;

/// What is kept of one step's requests. Seconds count from the start of the run.
#[derive(Debug, Default)]
pub(super) struct StepRequests {
    /// Requests by the second in which they were sent and the row of their TTFT.
    pub grid: BTreeMap<(u64, i32), u32>,
    /// Input tokens and TTFT in milliseconds of requests that succeeded: every one up to a number, then every second
    /// one, and so on.
    pub pairs: Vec<(u32, f32)>,
    /// How often every second pair was left out.
    halvings: u32,
    seen: usize,
    /// Failed requests by the second in which they ended.
    pub failed: BTreeMap<(Outcome, u64), u32>,
    /// What the timeline of a step lacks that was cut short.
    pub lost: Option<LostSeconds>,
}

/// The seconds of a step that has no rows in `timeline.csv`, told from its requests.
#[derive(Debug, Default)]
pub(super) struct LostSeconds {
    /// Output tokens, spread evenly over each stream.
    pub tokens: BTreeMap<u64, f64>,
    /// TTFT in milliseconds of the first tokens that arrived.
    pub ttft: BTreeMap<u64, Vec<f32>>,
}

/// The row of the grid that holds a TTFT.
fn row(ttft_ms: f64) -> i32 {
    (ttft_ms.max(1e-3).log10() * ROWS_PER_DECADE).floor() as i32
}

/// Reads the file; `has_rows` says whether a step is in `timeline.csv`.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read(
    path: &Path,
    run: &RunResult,
    has_rows: impl Fn(u16) -> bool,
) -> io::Result<BTreeMap<u16, StepRequests>> {
    let mut steps: BTreeMap<u16, StepRequests> = run
        .steps
        .iter()
        .map(|step| {
            let number = step.facts.step;
            let requests = StepRequests {
                lost: (!has_rows(number)).then(LostSeconds::default),
                ..StepRequests::default()
            };
            (number, requests)
        })
        .collect();
    read_requests(path, |line| {
        if let Some(step) = steps.get_mut(&line.sample.step) {
            step.add(&line.sample);
        }
    })?;
    Ok(steps)
}

impl StepRequests {
    fn add(&mut self, sample: &Sample) {
        if sample.outcome != Outcome::Ok {
            let ended = sample.end_ns.or(sample.sent_ns).unwrap_or(sample.due_ns);
            *self.failed.entry((sample.outcome, ended / NS)).or_default() += 1;
        }
        let (Some(sent), Some(first)) = (sample.sent_ns, sample.first_ns) else {
            return;
        };
        let ttft_ms = first.saturating_sub(sent) as f64 / 1e6;
        *self.grid.entry((sent / NS, row(ttft_ms))).or_default() += 1;
        if let (Outcome::Ok, Some(tokens)) = (sample.outcome, sample.n_in) {
            self.pair(tokens, ttft_ms as f32);
        }
        if let Some(lost) = &mut self.lost {
            lost.add(sample, first, ttft_ms as f32);
        }
    }

    fn pair(&mut self, tokens: u32, ttft_ms: f32) {
        if self.seen.is_multiple_of(1 << self.halvings) {
            self.pairs.push((tokens, ttft_ms));
        }
        self.seen += 1;
        if self.pairs.len() == PAIRS {
            let mut keep = false;
            self.pairs.retain(|_| {
                keep = !keep;
                keep
            });
            self.halvings += 1;
        }
    }
}

impl LostSeconds {
    fn add(&mut self, sample: &Sample, first: u64, ttft_ms: f32) {
        self.ttft.entry(first / NS).or_default().push(ttft_ms);
        let last = sample.last_ns.unwrap_or(first).max(first);
        let tokens = f64::from(sample.n_out.unwrap_or(sample.events));
        let length = (last - first).max(1) as f64;
        for second in first / NS..=last / NS {
            let inside = (last + 1).min((second + 1) * NS) - first.max(second * NS);
            *self.tokens.entry(second).or_default() += tokens * (inside as f64 / (length + 1.0)).min(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::sample;

    #[test]
    fn tokens_of_a_lost_second_sum_up_to_those_of_the_requests() {
        let mut step = StepRequests {
            lost: Some(LostSeconds::default()),
            ..StepRequests::default()
        };
        (0..10).for_each(|i| step.add(&sample(i, 0, 700 * i)));
        let lost = step.lost.as_ref().unwrap();
        assert!((lost.tokens.values().sum::<f64>() - 1_000.0).abs() < 0.01);
        assert_eq!(lost.ttft.values().map(Vec::len).sum::<usize>(), 10);
        assert_eq!(step.grid.values().sum::<u32>(), 10);
        assert_eq!(step.pairs.len(), 10);
    }

    #[test]
    fn failures_count_where_they_ended_and_pairs_are_bounded() {
        let mut step = StepRequests::default();
        let failed = Sample {
            outcome: Outcome::Stalled,
            ..sample(0, 0, 100)
        };
        step.add(&failed);
        assert_eq!(step.failed[&(Outcome::Stalled, 2)], 1);
        (0..200_000).for_each(|i| step.pair(i, 1.0));
        assert!(step.pairs.len() < PAIRS);
        // Those that are kept are spread over all.
        assert!(step.pairs.iter().filter(|(i, _)| *i > 100_000).count() > PAIRS / 5);
    }

    #[test]
    fn rows_grow_with_the_latency() {
        assert_eq!(row(1.0), 0);
        assert_eq!(row(10.0), 12);
        assert_eq!(row(9.99), 11);
    }
}
