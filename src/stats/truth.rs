//! Whether the intervals hold what they say, on data whose distribution is known.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::*;

/// A lognormal series of median 1: the exponential of a Gaussian AR(1) series with this correlation of neighbours.
pub(crate) fn series(seed: u64, n: usize, correlation: f64, sigma: f64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
    let fresh = (1.0 - correlation * correlation).sqrt();
    let mut state = normal();
    (0..n)
        .map(|_| {
            let value = (sigma * state).exp();
            state = correlation * state + fresh * normal();
            value
        })
        .collect()
}

/// Quantile of the standard normal distribution for the percentiles in use.
const NORMAL: [(f64, f64); 3] = [(0.5, 0.0), (0.9, 1.281_551_566), (0.99, 2.326_347_874)];

const RUNS: u64 = 1_000;

/// The percentile `p` of a series, with its interval.
fn percentile(values: &[f64], p: f64) -> Option<Estimate> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = sorted[(p * sorted.len() as f64 - 1e-9).ceil() as usize - 1];
    let level = quantile_interval(values.iter().map(|&x| (f64::from(u8::from(x <= at)), 1.0)), p)?;
    let [low, high] = level.of_sorted(&sorted)?;
    Some(Estimate {
        value: at,
        low,
        high,
        blocks: level.blocks,
    })
}

fn mean(values: &[f64]) -> Option<Estimate> {
    Some(Blocks::of_values(values.iter().copied())?.estimate())
}

/// How many of a thousand intervals hold the truth.
fn held(n: usize, correlation: f64, truth: f64, of: impl Fn(&[f64]) -> Option<Estimate>) -> usize {
    let holds = |seed: u64| {
        let values = series(seed, n, correlation, 0.5);
        of(&values).is_some_and(|e| e.low <= truth && truth <= e.high)
    };
    (0..RUNS).filter(|&seed| holds(seed)).count()
}

/// 93 to 97 %.
#[track_caller]
fn right(held: usize) {
    assert!(
        (930..=970).contains(&held),
        "{held} of {RUNS} intervals hold the truth"
    );
}

#[test]
fn equal_values_at_the_top_do_not_feign_that_a_percentile_is_known() {
    let mut values = series(1, 120, 0.0, 0.5);
    values.sort_by(f64::total_cmp);
    values[118] = values[119];
    assert_eq!(percentile(&values, 0.99), None);
    let known = percentile(&[7.0; 1_000], 0.99).unwrap();
    assert_eq!((known.low, known.high), (7.0, 7.0));
}

#[test]
fn intervals_of_means_hold_the_truth() {
    let truth = 0.125_f64.exp();
    right(held(500, 0.0, truth, mean));
    right(held(1_000, 0.5, truth, mean));
    right(held(2_000, 0.8, truth, mean));
}

#[test]
fn intervals_of_percentiles_hold_the_truth() {
    for (p, z) in NORMAL {
        let truth = (0.5 * z).exp();
        let requests = if p > 0.95 { 2_000 } else { 1_000 };
        right(held(requests, 0.0, truth, |values| percentile(values, p)));
        right(held(requests, 0.5, truth, |values| percentile(values, p)));
    }
}

/// A series of seconds is short, and its rate a sum over its time.
#[test]
fn intervals_of_rates_hold_the_truth() {
    let truth = 0.125_f64.exp();
    right(held(60, 0.0, truth, mean));
    right(held(300, 0.5, truth, mean));
}

#[test]
fn intervals_of_shares_hold_the_truth() {
    // One in ten values of a correlated series is above its 90th percentile.
    let limit = (0.5 * NORMAL[1].1).exp();
    let failures = |values: &[f64]| share(values.iter().map(|&x| (f64::from(u8::from(x > limit)), 1.0)));
    right(held(1_000, 0.0, 0.1, failures));
    right(held(1_000, 0.5, 0.1, failures));
    let none = share((0..1_000).map(|_| (0.0, 1.0))).unwrap();
    assert!(none.low == 0.0 && (0.003..0.005).contains(&none.high), "{none:?}");
}

/// A/A: two runs that do not differ. Differences called in no more than 6 % of a thousand.
#[test]
fn runs_that_do_not_differ_are_not_called_different() {
    for (correlation, of) in [
        (0.0, (|v| mean(v)) as fn(&[f64]) -> Option<Estimate>),
        (0.5, |v| mean(v)),
        (0.5, |v| percentile(v, 0.5)),
        (0.5, |v| percentile(v, 0.99)),
    ] {
        let called = (0..RUNS).filter(|seed| {
            let [a, b] = [0, RUNS].map(|other| of(&series(seed + other, 1_000, correlation, 0.5)));
            a.zip(b).is_some_and(|(a, b)| difference(&a, &b).p < 0.05)
        });
        let called = called.count();
        assert!(
            called <= 60,
            "{called} of {RUNS} at a correlation of {correlation}"
        );
        assert!(
            called >= 20,
            "{called} of {RUNS}: it would never see a difference"
        );
    }
}

/// What differs by a tenth is seen.
#[test]
fn runs_that_differ_are_called_different() {
    let called = (0..100).filter(|seed| {
        let (a, b) = (
            series(*seed, 2_000, 0.5, 0.5),
            series(seed + 100, 2_000, 0.5, 0.5),
        );
        let slower: Vec<f64> = b.iter().map(|x| 1.15 * x).collect();
        let (a, b) = (mean(&a).unwrap(), mean(&slower).unwrap());
        difference(&a, &b).p < 0.05
    });
    assert!(called.count() >= 95);
}

/// Repeats by Welch's t, and the 95 % intervals over repeats.
#[test]
fn repeats_that_do_not_differ_are_not_called_different() {
    let truth = 1.0_f64;
    let (mut called, mut held) = (0, 0);
    for seed in 0..RUNS {
        let values = series(seed, 10, 0.0, 0.05);
        let (a, b) = values.split_at(5);
        called += usize::from(welch(a, b).is_some_and(|w| w.p < 0.05));
        let logs: Vec<f64> = a.iter().map(|x| 1.0 + x.ln()).collect();
        let [low, high] = Spread::of(&logs).and_then(|s| s.ci95).unwrap();
        held += usize::from(low <= truth && truth <= high);
    }
    assert!(called <= 60, "{called} of {RUNS}");
    right(held);
}
