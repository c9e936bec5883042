//! Percentile curves out of a step's HDR histograms: each nine of the quantile takes the same room.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;

use super::chart::{Axis, Chart, Kind, Plot, Point, Scale, Section, Style};
use crate::measure::hlog;
use crate::report::loads::Loads;

/// The latencies that are drawn: tag in the log, name of the chart, title.
const METRICS: [(&str, &str, &str); 3] = [
    ("ttft", "ttft-tail", "Time to first token, percentiles"),
    ("itl", "itl-tail", "Inter-token latency, percentiles"),
    ("e2el", "e2el-tail", "End-to-end latency, percentiles"),
];

/// Points of a curve for each nine.
const PER_NINE: i32 = 12;

/// Nines that are drawn: to p99.9.
const NINES: i32 = 3;

/// The percentile curves of every load. A step without a histogram (one that was cut short) has none.
pub(super) fn charts(loads: &Loads<'_>, dir: &Path) -> Vec<Chart> {
    let mut panels: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for load in 0..loads.count() {
        let logs = logs(loads, load, dir);
        for (tag, ..) in METRICS {
            let mut plot = Plot::default();
            for (engine, name) in loads.engines.iter().enumerate() {
                if let Some(histogram) = logs.get(&engine).and_then(|log| log.get(tag)) {
                    plot.add(Some(engine), *name, Style::Line, curve(histogram));
                }
            }
            if !plot.is_empty() {
                panels.entry(tag).or_default().push(plot.panel(vec![load]));
            }
        }
    }
    let chart = |(tag, id, title): (&str, &'static str, &'static str)| {
        Some(Chart {
            id,
            section: Section::Requests,
            title,
            hint: "Of so many percent, all are at or below the line. Flat is predictable; a step up to the right is a tail \
                   that some users feel. A curve ends where its samples do."
                .to_owned(),
            kind: Kind::Lines,
            x: Axis::new("percentile", "", Scale::Tail),
            y: Axis::new("latency", "ms", Scale::Log),
            panels: panels.get(tag)?.clone(),
        })
    };
    METRICS.into_iter().filter_map(chart).collect()
}

/// The histograms of a load by engine and tag, repeats added up.
fn logs(loads: &Loads<'_>, load: usize, dir: &Path) -> BTreeMap<usize, BTreeMap<String, Histogram<u64>>> {
    let mut found: BTreeMap<usize, BTreeMap<String, Histogram<u64>>> = BTreeMap::new();
    for (engine, step) in loads.under(load) {
        let Ok(log) = hlog::read(&dir.join("hdr").join(hlog::file_name(&step.facts))) else {
            continue;
        };
        let sums = found.entry(engine).or_default();
        for (tag, histogram) in log {
            match sums.get_mut(&tag) {
                // Ours all have the same bounds; one that does not was not written by us.
                Some(sum) => drop(sum.add(histogram)),
                None => drop(sums.insert(tag, histogram)),
            }
        }
    }
    found
}

/// Latency against `1 / (1 - quantile)`, as far as there are samples beyond the quantile.
fn curve(histogram: &Histogram<u64>) -> Vec<Point> {
    let n = histogram.len() as f64;
    let nines = (0..=NINES * PER_NINE).map(|i| 10_f64.powf(f64::from(i) / f64::from(PER_NINE)));
    let at = |beyond: f64| {
        let ns = histogram.value_at_quantile(1.0 - 1.0 / beyond);
        Point::new(beyond, histogram.median_equivalent(ns) as f64 / 1e6)
    };
    // The marks of the axis (50, 75, 90, 99 and 99.9 %) are on the curve.
    let mut points: Vec<f64> = nines.chain([2.0, 4.0]).filter(|beyond| *beyond <= n).collect();
    points.sort_by(f64::total_cmp);
    points.into_iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_holds_the_marked_percentiles_and_ends_with_its_samples() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=500_u64).for_each(|i| histogram.record(i * 1_000_000).unwrap());
        let points = curve(&histogram);
        let at = |x: f64| points.iter().find(|p| (p.x - x).abs() < 1e-6).map(|p| p.y);
        assert!((at(2.0).unwrap() - 250.0).abs() < 1.0);
        assert!((at(10.0).unwrap() - 450.0).abs() < 1.0);
        assert!((at(100.0).unwrap() - 495.0).abs() < 1.0);
        assert!(points.last().unwrap().x <= 500.0);
        assert!(points.windows(2).all(|p| p[0].x < p[1].x && p[0].y <= p[1].y));
    }
}
