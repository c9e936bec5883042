//! Two sides under the same load, metric by metric.

use super::Metric;
use super::result::{Cell, Figure, Row, Test};
use crate::measure::result::{Load, StepResult};
use crate::measure::{Better, METRICS, Unit};
use crate::stats::{Estimate, Spread, difference, welch};

/// Repeats of each side from which on they are tested themselves.
const REPEATS: usize = 3;

/// Compares what both have of `metrics`, or of all where none is named.
pub(super) fn compare(
    load: Load,
    first: &[&StepResult],
    second: &[&StepResult],
    metrics: &[&Metric],
) -> Cell {
    let wanted = |metric: &&Metric| metrics.is_empty() || metrics.contains(metric);
    let fewest = first.iter().chain(second).map(|step| step.requests.ok).min();
    Cell {
        load,
        repeats: [first.len(), second.len()],
        fewest_requests: fewest.unwrap_or(0),
        rows: METRICS
            .iter()
            .filter(wanted)
            .filter_map(|metric| row(metric, first, second))
            .collect(),
    }
}

fn row(metric: &Metric, first: &[&StepResult], second: &[&StepResult]) -> Option<Row> {
    let values =
        |steps: &[&StepResult]| -> Option<Vec<f64>> { steps.iter().map(|step| metric.value(step)).collect() };
    let (a, b) = (values(first)?, values(second)?);
    let mut row = untested(metric, &a, &b)?;
    if a.len().min(b.len()) >= REPEATS {
        let found = welch(&a, &b)?;
        let spread = |values: &[f64]| Spread::of(values).and_then(|spread| spread.ci95);
        (row.baseline.ci95, row.candidate.ci95) = (spread(&a), spread(&b));
        row.test = Some(Test::WelchT);
        row.p = Some(found.p);
        row.effect = found.effect.map(|g| (g * 100.0).round() / 100.0);
        row.ratio_ci95 = found.ratio_ci95;
        return Some(row);
    }
    let (a, b) = (pooled(metric, first), pooled(metric, second));
    row.baseline.ci95 = a.map(|e| [e.low, e.high]);
    row.candidate.ci95 = b.map(|e| [e.low, e.high]);
    if let (Some(a), Some(b)) = (a, b) {
        let found = difference(&a, &b);
        row.test = Some(Test::BlockBootstrap);
        row.p = Some(found.p);
        row.ratio_ci95 = found.ratio_ci95;
    }
    Some(row)
}

/// The two values and what lies between them.
fn untested(metric: &Metric, a: &[f64], b: &[f64]) -> Option<Row> {
    let (a, b) = (Spread::of(a)?.mean, Spread::of(b)?.mean);
    let change = match metric.unit {
        Unit::Share => Some(100.0 * (b - a)),
        _ => (a != 0.0).then(|| 100.0 * (b - a) / a),
    };
    let better = match metric.better {
        Better::High => Some(b > a),
        Better::Low => Some(b < a),
        Better::Neither => None,
    };
    Some(Row {
        metric: metric.id,
        baseline: Figure { value: a, ci95: None },
        candidate: Figure { value: b, ci95: None },
        difference: b - a,
        ratio: (a > 0.0 && b > 0.0).then(|| b / a),
        ratio_ci95: None,
        change_percent: change,
        test: None,
        p: None,
        p_corrected: None,
        effect: None,
        real: false,
        better: better.filter(|_| a != b),
    })
}

/// The mean over a few repeats with an interval from within them: the distances to their limits add as those of
/// independent values do.
fn pooled(metric: &Metric, steps: &[&StepResult]) -> Option<Estimate> {
    let estimates: Vec<Estimate> = steps
        .iter()
        .map(|step| metric.estimate(step))
        .collect::<Option<_>>()?;
    let n = estimates.len() as f64;
    let value = estimates.iter().map(|e| e.value).sum::<f64>() / n;
    let reach =
        |side: fn(&Estimate) -> f64| estimates.iter().map(|e| side(e).powi(2)).sum::<f64>().sqrt() / n;
    Some(Estimate {
        value,
        low: value - reach(|e| e.value - e.low),
        high: value + reach(|e| e.high - e.value),
        blocks: estimates.iter().map(|e| e.blocks).min()?,
    })
}
