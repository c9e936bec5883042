//! Figures out of HDR histograms: percentiles by rank, and intervals by order statistics.

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

/// Ranks (from 1) of the order statistics that enclose quantile `p` of `n` independent samples with 95 % confidence.
///
/// The number of samples below the quantile is binomial(n, p), whatever the distribution (Conover, Practical
/// Nonparametric Statistics, 3.2). Its probabilities are walked outward from the mode by their ratio, so nothing
/// overflows and the cost is of the order of sqrt(n).
fn order_statistic_ranks(n: u64, p: f64) -> Option<(u64, u64)> {
    if n == 0 {
        return None;
    }
    let odds = p / (1.0 - p);
    let mode = (((n + 1) as f64 * p) as u64).min(n);
    let mut below = vec![(mode, 1.0)];
    let (mut k, mut weight) = (mode, 1.0);
    while k > 0 && weight > 1e-16 {
        weight *= k as f64 / ((n - k + 1) as f64 * odds);
        k -= 1;
        below.push((k, weight));
    }
    below.reverse();
    let (mut k, mut weight) = (mode, 1.0);
    while k < n && weight > 1e-16 {
        weight *= (n - k) as f64 * odds / (k + 1) as f64;
        k += 1;
        below.push((k, weight));
    }
    let total: f64 = below.iter().map(|(_, w)| w).sum();
    let (mut lower, mut upper, mut cumulative) = (0, None, 0.0);
    for (k, w) in below {
        cumulative += w / total;
        if cumulative <= 0.025 {
            lower = k + 1;
        }
        if cumulative >= 0.975 && upper.is_none() {
            upper = Some(k + 1);
        }
    }
    upper.filter(|&u| lower >= 1 && u <= n).map(|u| (lower, u))
}

fn interval(h: &Histogram<u64>, p: f64) -> Option<[f64; 2]> {
    let (low, high) = order_statistic_ranks(h.len(), p)?;
    Some([ms(value_at_rank(h, low)), ms(value_at_rank(h, high))])
}

/// The distribution of a latency recorded in nanoseconds.
pub(super) fn latency(h: &Histogram<u64>) -> Latency {
    let n = h.len();
    if n == 0 {
        return Latency::default();
    }
    let at = |q| Some(ms(value_at_rank(h, rank_of(q, n))));
    let (mean, sd) = (h.mean() / MS, h.stdev() / MS);
    let half = 1.96 * sd / (n as f64).sqrt();
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
        ci95: Intervals {
            p50: interval(h, 0.5),
            p99: interval(h, 0.99),
            mean: Some([round(mean - half), round(mean + half)]),
        },
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

    /// The probability that binomial(n, p) is below `k`, by exact summation in plain floating point.
    fn below(n: u64, p: f64, k: u64) -> f64 {
        let mut term = (1.0 - p).powi(n as i32);
        let mut sum = 0.0;
        for i in 0..k {
            sum += term;
            term *= (n - i) as f64 / (i + 1) as f64 * p / (1.0 - p);
        }
        sum
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

        #[test]
        fn ranks_enclose_the_quantile_with_95_percent(n in 10_u64..600, p in 0.3_f64..0.7) {
            let (low, high) = order_statistic_ranks(n, p).unwrap();
            // Quantile below the low rank: fewer than `low` samples under it; above the high one: at least `high`.
            prop_assert!(below(n, p, low) <= 0.025 + 1e-9);
            prop_assert!(1.0 - below(n, p, high) <= 0.025 + 1e-9);
            prop_assert!(below(n, p, low + 1) > 0.025 - 1e-9, "the lower rank could be higher");
        }
    }

    #[test]
    fn p99_has_no_interval_until_an_order_statistic_bounds_it() {
        assert_eq!(order_statistic_ranks(367, 0.99), None);
        assert!(order_statistic_ranks(368, 0.99).is_some());
        assert!(order_statistic_ranks(5_000_000, 0.99).is_some());
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
