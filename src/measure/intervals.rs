//! The 95 % intervals of a step's figures, by the block bootstrap of [`crate::stats`]: of latencies over its requests in
//! the order in which they were sent, of rates and gaps over its seconds.

use hdrhistogram::Histogram;

use super::histogram::{between_levels, round};
use super::live::{Buckets, middle_ns};
use super::result::{Intervals, Latency, StepResult};
use super::rows::{self, E2EL, Row, Rows, TPOT, TTFO, TTFT, TTFT_FROM_DUE, TTST};
use super::{Second, StepRecord, Window};
use crate::stats::{Blocks, Estimate, quantile_interval, share};

/// Sets every interval of a step.
pub(super) fn fill(step: &mut StepResult, record: &StepRecord) {
    let seconds = whole_seconds(record);
    of_requests(step, &record.rows);
    of_gaps(&mut step.itl_ms, &record.latencies.itl, seconds);
    of_gaps(&mut step.icl_ms, &record.latencies.icl, seconds);
    step.output_tps_ci95 = rate(step.output_tps, seconds.iter().map(|s| s.output_tokens as f64));
    step.request_rps_ci95 = rate(step.request_rps, seconds.iter().map(|s| s.ok as f64));
    let good = good_by_second(&record.rows, seconds);
    step.goodput_rps_ci95 = step.goodput_rps.and_then(|rps| rate(rps, good.into_iter()));
}

/// Sets the intervals that rest on requests alone.
pub(super) fn of_requests(step: &mut StepResult, rows: &Rows) {
    let rows = rows.in_order();
    for (latency, which) in [
        (&mut step.ttft_ms, TTFT),
        (&mut step.ttft_from_due_ms, TTFT_FROM_DUE),
        (&mut step.ttfo_ms, TTFO),
        (&mut step.ttst_ms, TTST),
        (&mut step.tpot_ms, TPOT),
        (&mut step.e2el_ms, E2EL),
    ] {
        of_values(latency, &rows::latency(&rows, which));
    }
    let failed = rows.iter().map(|row| (f64::from(u8::from(!row.ok)), 1.0));
    step.failed_share_ci95 = share(failed).map(|e| [round(e.low), round(e.high)]);
}

/// The intervals of a latency whose values are at hand, in the order of time.
fn of_values(latency: &mut Latency, values: &[f64]) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mut blocks = usize::MAX;
    let mut percentile = |at: Option<f64>, p: f64| {
        // The histogram's value stands for all that are equal to it at its precision.
        let limit = at? * 1.0005;
        let below = values.iter().map(|&x| (f64::from(u8::from(x <= limit)), 1.0));
        let level = quantile_interval(below, p)?;
        let [low, high] = level.of_sorted(&sorted)?;
        blocks = blocks.min(level.blocks);
        Some([round(low), round(high)])
    };
    let mut found = Intervals {
        p50: percentile(latency.p50, 0.5),
        p90: percentile(latency.p90, 0.9),
        p99: percentile(latency.p99, 0.99),
        ..Intervals::default()
    };
    if let Some(estimate) = Blocks::of_values(values.iter().copied()).map(|b| b.estimate()) {
        found.mean = latency.mean.map(|mean| around(mean, &estimate));
        blocks = blocks.min(estimate.blocks);
    }
    found.blocks = u32::try_from(blocks).ok().filter(|_| found.mean.is_some());
    latency.ci95 = found;
}

/// The intervals of gaps between events. Too many to keep them all, they are known by coarse counts of each second; these
/// say how far the share below a percentile may be off, and the histogram what that means in time.
fn of_gaps(latency: &mut Latency, histogram: &Histogram<u64>, seconds: &[Second]) {
    let counted = |second: &Second| second.gaps.iter().map(|(_, n)| f64::from(*n)).sum::<f64>();
    let mut blocks = usize::MAX;
    let mut percentile = |p: f64| {
        let below = shares_below(seconds, p)?;
        let cells = below.into_iter().zip(seconds.iter().map(counted));
        let level = quantile_interval(cells, p)?;
        blocks = blocks.min(level.blocks);
        between_levels(histogram, level.low, level.high)
    };
    let mut found = Intervals {
        p50: percentile(0.5),
        p90: percentile(0.9),
        p99: percentile(0.99),
        ..Intervals::default()
    };
    let sum = |buckets: &Buckets| -> f64 {
        buckets
            .iter()
            .map(|(b, n)| middle_ns(*b) as f64 * f64::from(*n))
            .sum()
    };
    let cells = seconds.iter().map(|second| (sum(&second.gaps), counted(second)));
    if let (Some(estimate), Some(mean)) = (Blocks::new(cells).map(|b| b.estimate()), latency.mean) {
        let scale = mean / estimate.value;
        found.mean = Some([round(estimate.low * scale), round(estimate.high * scale)]);
        blocks = blocks.min(estimate.blocks);
    }
    found.blocks = u32::try_from(blocks).ok().filter(|_| found.mean.is_some());
    latency.ci95 = found;
}

/// How many gaps of each second lie below the percentile `p` of all of them. The bucket in which it lies counts in part,
/// such that the share of all seconds is `p`.
fn shares_below(seconds: &[Second], p: f64) -> Option<Vec<f64>> {
    let mut all: Vec<(u16, f64)> = Vec::new();
    for (bucket, n) in seconds.iter().flat_map(|second| &second.gaps) {
        let at = usize::from(*bucket);
        if all.len() <= at {
            all.resize(at + 1, (0, 0.0));
        }
        all[at] = (*bucket, all[at].1 + f64::from(*n));
    }
    let wanted = p * all.iter().map(|(_, n)| n).sum::<f64>();
    let mut before = 0.0;
    let (bucket, part) = all.into_iter().find_map(|(bucket, n)| {
        let inside = before + n >= wanted && n > 0.0;
        let part = (wanted - before) / n;
        before += n;
        inside.then_some((bucket, part))
    })?;
    let weight = |b: u16| match b.cmp(&bucket) {
        std::cmp::Ordering::Less => 1.0,
        std::cmp::Ordering::Equal => part,
        std::cmp::Ordering::Greater => 0.0,
    };
    let below = |second: &Second| second.gaps.iter().map(|(b, n)| weight(*b) * f64::from(*n)).sum();
    Some(seconds.iter().map(below).collect())
}

/// The interval of a rate from what happened in each whole second of the window.
fn rate(reported: f64, seconds: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let estimate = Blocks::of_values(seconds)?.estimate();
    let [low, high] = around(reported, &estimate);
    Some([low.max(0.0), high])
}

/// The interval of a figure whose estimate here is as good as equal to it: seconds at the window's edges are left out of
/// one, and the histogram rounds the other.
fn around(reported: f64, estimate: &Estimate) -> [f64; 2] {
    let shift = reported - estimate.value;
    [round(estimate.low + shift), round(estimate.high + shift)]
}

/// The seconds that lie in the window as a whole; none where one of them is missing.
fn whole_seconds(record: &StepRecord) -> &[Second] {
    let Window { start_ns, end_ns } = record.window;
    let (first, end) = (start_ns.div_ceil(1_000_000_000), end_ns / 1_000_000_000);
    let from = record.seconds.partition_point(|second| second.at_s < first);
    let to = record.seconds.partition_point(|second| second.at_s < end);
    match record.seconds.get(from..to) {
        Some(seconds) if seconds.len() as u64 == end.saturating_sub(first) => seconds,
        _ => &[],
    }
}

/// Requests of each second that met their objectives, as a rate: rows that were left out count by those that were not.
fn good_by_second(rows: &Rows, seconds: &[Second]) -> Vec<f64> {
    let rows: Vec<Row> = match rows.is_whole() {
        true => rows.in_order(),
        false => return Vec::new(),
    };
    let mut good = vec![0.0; seconds.len()];
    let first = seconds.first().map_or(0, |second| second.at_s);
    for row in rows.iter().filter(|row| row.good) {
        let at = row.second().checked_sub(first).map(|at| at as usize);
        if let Some(count) = at.and_then(|at| good.get_mut(at)) {
            *count += 1.0;
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{facts, sample};
    use crate::measure::latencies::Times;
    use crate::measure::live::bucket_of;
    use crate::measure::{StepContext, summarise};
    use crate::stats::truth::series;

    const SECONDS: u64 = 100;
    const A_SECOND: usize = 20;

    /// A step of 100 s with 20 gaps and 20 tokens in each of them: 20 ms in the median, neighbours correlated.
    fn step(seed: u64) -> StepResult {
        let window = Window {
            start_ns: 0,
            end_ns: SECONDS * 1_000_000_000,
        };
        let mut record = StepRecord::empty(window, 4);
        let gaps = series(seed, SECONDS as usize * A_SECOND, 0.5, 0.3);
        for (at_s, gaps) in (0..).zip(gaps.chunks(A_SECOND)) {
            let mut second = Second {
                at_s,
                output_tokens: A_SECOND as u64,
                ok: 1,
                ..Second::default()
            };
            let mut counts = std::collections::BTreeMap::<u16, u32>::new();
            for gap in gaps {
                let ns = (20e6 * gap) as u64;
                record.latencies.itl.record(ns).unwrap();
                *counts.entry(bucket_of(ns)).or_default() += 1;
            }
            second.gaps = counts.into_iter().collect();
            record.seconds.push(second);
        }
        summarise(facts(0, "candle", 4), &record, StepContext::default())
    }

    #[test]
    fn intervals_of_gaps_hold_the_truth_though_their_order_is_known_by_the_second_alone() {
        let truth = [
            20.0,
            20.0 * (0.3_f64 * 2.326_347_874).exp(),
            20.0 * (0.5 * 0.3 * 0.3_f64).exp(),
        ];
        let mut held = [0; 3];
        for seed in 0..400 {
            let found = step(seed).itl_ms.ci95;
            for ((held, ends), truth) in held.iter_mut().zip([found.p50, found.p99, found.mean]).zip(truth) {
                *held += u32::from(ends.is_some_and(|[low, high]| low <= truth && truth <= high));
            }
        }
        // 93 to 97 %
        assert!(
            held.iter().all(|held| (372..=388).contains(held)),
            "{held:?} of 400"
        );
    }

    #[test]
    fn a_steady_rate_is_known_exactly_and_a_short_window_has_no_interval() {
        let step = step(1);
        assert_eq!(step.request_rps_ci95, Some([step.request_rps; 2]));
        let mut record = StepRecord::empty(
            Window {
                start_ns: 0,
                end_ns: 9_000_000_000,
            },
            1,
        );
        record.seconds = (0..9)
            .map(|at_s| Second {
                at_s,
                ..Second::default()
            })
            .collect();
        assert_eq!(
            summarise(facts(0, "candle", 1), &record, StepContext::default()).output_tps_ci95,
            None
        );
    }

    #[test]
    fn a_p99_has_an_interval_from_so_many_requests_on() {
        let has = |n: usize| {
            let with_interval = (0..20).filter(|&seed| {
                let values = series(seed, n, 0.0, 0.5);
                let mut sorted = values.clone();
                sorted.sort_by(f64::total_cmp);
                let mut latency = Latency {
                    p99: Some(sorted[(0.99 * n as f64).ceil() as usize - 1]),
                    ..Latency::default()
                };
                of_values(&mut latency, &values);
                latency.ci95.p99.is_some()
            });
            with_interval.count()
        };
        let enough = crate::measure::P99_REQUESTS as usize;
        assert_eq!((has(enough * 6 / 10), has(2 * enough)), (0, 20));
        assert!(has(enough) >= 17, "{}", has(enough));
    }

    #[test]
    fn objectives_and_failures_have_intervals() {
        let mut record = StepRecord::empty(
            Window {
                start_ns: 0,
                end_ns: SECONDS * 1_000_000_000,
            },
            4,
        );
        for id in 0..1_000_u64 {
            let sample = sample(id, 0, 100 * id);
            record.rows.push(match id % 10 {
                0 => Row::failed(&sample),
                _ => Row::of(&sample, &Times::with_first(&sample, 1), id % 2 == 0),
            });
        }
        record.good = Some(400);
        record.seconds = (0..SECONDS)
            .map(|at_s| Second {
                at_s,
                ..Second::default()
            })
            .collect();
        let step = summarise(facts(0, "candle", 4), &record, StepContext::default());
        let [low, high] = step.failed_share_ci95.unwrap();
        assert!(
            (0.07..0.1).contains(&low) && (0.1..0.13).contains(&high),
            "{low} {high}"
        );
        let [low, high] = step.goodput_rps_ci95.unwrap();
        assert!(
            (3.9..=4.0).contains(&low) && (4.0..4.1).contains(&high),
            "{low} {high}"
        );
    }
}
