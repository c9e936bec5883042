//! Figures out of HDR histograms: percentiles by rank.

use hdrhistogram::Histogram;

use super::result::{Intervals, Lag, Latency, WithFailures};

const MS: f64 = 1e6;

/// Longest time that is told from longer ones: an hour. `saturating_record` clips there; in a histogram that resizes
/// itself it would clip at 2.
const HIGHEST_NS: u64 = 3_600_000_000_000;

/// A histogram of nanoseconds with 3 significant digits. All of them have the same bounds, so that any two merge.
pub(super) fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("bounds and digits are within the library's")
}

/// Percentiles with the number of samples below which they are marked.
const NEEDED: [(&str, u64); 3] = [("p90", 64), ("p99", 662), ("p999", 6_636)];

/// Nanoseconds as milliseconds.
fn ms(ns: u64) -> f64 {
    ns as f64 / MS
}

/// A figure cut to six decimals, so that files stay readable.
pub(super) fn round(x: f64) -> f64 {
    (x * 1e6).round() / 1e6
}

/// The rank (from 1) of quantile `q` among `n` samples. The tolerance keeps a product such as 0.99 x 100, which is
/// not exact in binary, from being rounded up to the next rank.
fn rank_of(q: f64, n: u64) -> u64 {
    ((q * n as f64 - 1e-9).ceil() as u64).clamp(1, n.max(1))
}

/// The sample of rank `rank` (from 1), within the histogram's precision.
fn value_at_rank(h: &Histogram<u64>, rank: u64) -> u64 {
    let mut seen = 0;
    for step in h.iter_recorded() {
        seen += step.count_since_last_iteration();
        if seen >= rank {
            return h
                .median_equivalent(step.value_iterated_to())
                .clamp(h.min(), h.max());
        }
    }
    h.max()
}

/// The values between two levels of the distribution, in milliseconds; absent where one lies beyond all samples.
pub(super) fn between_levels(h: &Histogram<u64>, low: f64, high: f64) -> Option<[f64; 2]> {
    let n = h.len() as f64;
    let (low, high) = ((low * n).floor(), (high * n).floor() + 1.0);
    let inside = low >= 1.0 && high <= n;
    inside.then(|| {
        [
            ms(value_at_rank(h, low as u64)),
            ms(value_at_rank(h, high as u64)),
        ]
    })
}

/// The distribution of a latency recorded in nanoseconds. Its intervals are left open: they need the order of time.
pub(super) fn latency(h: &Histogram<u64>) -> Latency {
    let n = h.len();
    if n == 0 {
        return Latency::default();
    }
    let at = |q| Some(ms(value_at_rank(h, rank_of(q, n))));
    let (mean, sd) = (h.mean() / MS, h.stdev() / MS);
    Latency {
        n,
        mean: Some(round(mean)),
        sd: Some(round(sd)),
        min: Some(ms(h.min())),
        p50: at(0.5),
        p75: at(0.75),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: Some(ms(h.max())),
        ci95: Intervals::default(),
        few_samples: NEEDED
            .iter()
            .filter(|(_, need)| n < *need)
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    }
}

/// Percentiles over the samples of `h` and `failed` more that never came.
pub(super) fn with_failures(h: &Histogram<u64>, failed: u64) -> WithFailures {
    let n = h.len() + failed;
    let at = |q| {
        let rank = rank_of(q, n);
        (rank <= h.len()).then(|| ms(value_at_rank(h, rank)))
    };
    if n == 0 {
        return WithFailures::default();
    }
    WithFailures {
        n,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
    }
}

/// A lag recorded in nanoseconds.
pub fn lag(h: &Histogram<u64>) -> Lag {
    let at = |q| (!h.is_empty()).then(|| ms(value_at_rank(h, rank_of(q, h.len()))));
    Lag {
        p50: at(0.5),
        p99: at(0.99),
        max: at(1.0),
    }
}

/// The 99th percentile, in milliseconds, of `n` times of which all that are not in the histogram are 0.
pub(super) fn p99_ms(h: &Histogram<u64>, n: u64) -> Option<f64> {
    let zeros = n.saturating_sub(h.len());
    let rank = rank_of(0.99, n);
    (n > 0).then(|| match rank.checked_sub(zeros) {
        None | Some(0) => 0.0,
        Some(rank) => ms(value_at_rank(h, rank)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut h = Histogram::new(3).unwrap();
        values.iter().for_each(|v| h.record(*v).unwrap());
        h
    }

    proptest! {
        #[test]
        fn percentiles_agree_with_sorting(mut values in prop::collection::vec(1_u64..10_000_000_000, 1..800)) {
            let found = latency(&histogram(&values));
            values.sort_unstable();
            let n = values.len();
            for (q, p) in [(500, found.p50), (750, found.p75), (900, found.p90), (990, found.p99), (999, found.p999)] {
                let exact = ms(values[(n * q).div_ceil(1_000) - 1]);
                prop_assert!((p.unwrap() - exact).abs() <= 0.001 * exact + 1e-6, "{q}: {p:?} for {exact}");
            }
        }

        #[test]
        fn failures_push_percentiles_up_and_to_infinity(
            values in prop::collection::vec(1_u64..1_000_000, 1..200),
            failed in 0_u64..400,
        ) {
            let h = histogram(&values);
            let found = with_failures(&h, failed);
            let (n, half) = (h.len() + failed, (h.len() + failed).div_ceil(2));
            prop_assert_eq!(found.n, n);
            prop_assert_eq!(found.p50.is_none(), half > h.len());
            if let Some(p50) = found.p50 {
                prop_assert!(p50 >= latency(&h).p50.unwrap());
            }
        }
    }

    #[test]
    fn few_samples_are_named() {
        let of = |n: u64| latency(&histogram(&(1..=n).collect::<Vec<_>>())).few_samples;
        assert_eq!(of(63), ["p90", "p99", "p999"]);
        assert_eq!(of(64), ["p99", "p999"]);
        assert_eq!(of(662), ["p999"]);
        assert!(of(6_636).is_empty());
        assert_eq!(latency(&histogram(&[])), Latency::default());
    }
}
