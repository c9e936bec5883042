//! Engines side by side under one load: what each gives, and which one leads by how much.

use serde::Serialize;

use super::chart::short;
use crate::measure::result::StepResult;
use crate::report::leads::{self, mean};
use crate::report::loads::Loads;

/// The engines under one load.
#[derive(Debug, Serialize)]
pub(super) struct Glance {
    /// Who leads in what, in words.
    pub words: Vec<String>,
    pub rows: Vec<Row>,
}

/// One figure of every engine.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub name: &'static str,
    /// What it is, for those who do not know the name.
    pub what: &'static str,
    pub unit: &'static str,
    /// Whether more is better; neither where it only describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub higher_is_better: Option<bool>,
    /// A value for each engine of the page.
    pub values: Vec<Option<f64>>,
}

/// A figure of a step: name, what it is, unit, whether more is better, value.
type Figure = (
    &'static str,
    &'static str,
    &'static str,
    Option<bool>,
    fn(&StepResult) -> Option<f64>,
);

const FIGURES: [Figure; 10] = [
    (
        "throughput",
        "output of all users together",
        "tok/s",
        Some(true),
        |s| Some(s.output_tps),
    ),
    (
        "TTFT p50",
        "wait for the first token, the median",
        "ms",
        Some(false),
        |s| s.ttft_ms.p50,
    ),
    (
        "TTFT p99",
        "wait for the first token, the worst in a hundred",
        "ms",
        Some(false),
        |s| s.ttft_ms.p99,
    ),
    (
        "TPOT p50",
        "time per output token after the first, a request's mean, the median",
        "ms",
        Some(false),
        |s| s.tpot_ms.p50,
    ),
    (
        "ITL p50",
        "gap between two tokens, the median",
        "ms",
        Some(false),
        |s| s.itl_ms.p50,
    ),
    (
        "ITL p99",
        "gap between two tokens, the worst in a hundred",
        "ms",
        Some(false),
        |s| s.itl_ms.p99,
    ),
    (
        "E2EL p50",
        "time to the last token, the median",
        "ms",
        Some(false),
        |s| s.e2el_ms.p50,
    ),
    (
        "failed",
        "requests without a whole answer",
        "requests",
        Some(false),
        |s| Some(s.requests.failed as f64),
    ),
    ("server CPU", "processors busy, on average", "cores", None, |s| {
        let used = s.server.as_ref()?;
        (s.window_s > 0.0).then_some(used.cpu_s? / s.window_s)
    }),
    ("server memory", "largest resident set", "MiB", None, |s| {
        Some(s.server.as_ref()?.rss_peak_bytes? as f64 / f64::from(1 << 20))
    }),
];

/// A glance at every load, in their order.
pub(super) fn all(loads: &Loads<'_>) -> Vec<Glance> {
    (0..loads.count()).map(|load| at(loads, load)).collect()
}

fn at(loads: &Loads<'_>, load: usize) -> Glance {
    let engines = 0..loads.engines.len();
    let steps: Vec<Vec<&StepResult>> = engines.map(|engine| loads.repeats(engine, load)).collect();
    let row = |(name, what, unit, higher_is_better, of): Figure| {
        let value = |steps: &Vec<&StepResult>| mean(steps.iter().filter_map(|step| of(step)).collect());
        let values: Vec<_> = steps.iter().map(value).map(|value| value.map(short)).collect();
        let shown = values.iter().any(|value| value.is_some_and(|value| value > 0.0));
        shown.then_some(Row {
            name,
            what,
            unit,
            higher_is_better,
            values,
        })
    };
    Glance {
        words: leads::at(loads, load),
        rows: FIGURES.into_iter().filter_map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn the_leader_is_named_with_its_lead() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let glances = all(&loads);
        assert_eq!(glances.len(), 2);
        let rows: Vec<&str> = glances[1].rows.iter().map(|row| row.name).collect();
        assert_eq!(rows[..2], ["throughput", "TTFT p50"]);
        assert!(rows.contains(&"failed"));
        let words = glances[1].words.join("\n");
        assert!(
            words.contains("Shortest wait for the first token (TTFT p50): candle"),
            "{words}"
        );
    }
}
