//! Engines side by side under one load: what each gives, and which one leads by how much.

use serde::Serialize;

use super::chart::short;
use super::loads::Loads;
use crate::measure::result::StepResult;
use crate::report::columns::significant;

/// The engines under one load.
#[derive(Debug, Serialize)]
pub(super) struct Glance {
    /// What to make of it, in words.
    pub words: Vec<String>,
    pub rows: Vec<Row>,
}

/// One figure of every engine.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub name: &'static str,
    pub unit: &'static str,
    /// Whether more is better; neither where it only describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub higher_is_better: Option<bool>,
    /// A value for each engine of the page.
    pub values: Vec<Option<f64>>,
}

/// A figure of a step: name, unit, whether more is better, value.
type Figure = (
    &'static str,
    &'static str,
    Option<bool>,
    fn(&StepResult) -> Option<f64>,
);

const FIGURES: [Figure; 9] = [
    ("throughput", "tok/s", Some(true), |s| Some(s.output_tps)),
    ("TTFT p50", "ms", Some(false), |s| s.ttft_ms.p50),
    ("TTFT p99", "ms", Some(false), |s| s.ttft_ms.p99),
    ("ITL p50", "ms", Some(false), |s| s.itl_ms.p50),
    ("ITL p99", "ms", Some(false), |s| s.itl_ms.p99),
    ("E2EL p50", "ms", Some(false), |s| s.e2el_ms.p50),
    ("failed", "requests", Some(false), |s| {
        Some(s.requests.failed as f64)
    }),
    ("server CPU", "cores", None, |s| {
        let used = s.server.as_ref()?;
        (s.window_s > 0.0).then(|| used.cpu_s / s.window_s)
    }),
    ("server memory", "GiB", None, |s| {
        Some(s.server.as_ref()?.rss_peak_bytes as f64 / f64::from(1 << 30))
    }),
];

/// A glance at every load, in their order.
pub(super) fn all(loads: &Loads<'_>) -> Vec<Glance> {
    (0..loads.count()).map(|load| at(loads, load)).collect()
}

fn at(loads: &Loads<'_>, load: usize) -> Glance {
    let engines = 0..loads.engines.len();
    let steps: Vec<Vec<&StepResult>> = engines.map(|engine| loads.repeats(engine, load)).collect();
    let row = |(name, unit, higher_is_better, of): Figure| {
        let value = |steps: &Vec<&StepResult>| mean(steps.iter().filter_map(|step| of(step)).collect());
        let values: Vec<_> = steps.iter().map(value).map(|value| value.map(short)).collect();
        let shown = values.iter().any(|value| value.is_some_and(|value| value > 0.0));
        shown.then_some(Row {
            name,
            unit,
            higher_is_better,
            values,
        })
    };
    Glance {
        words: words(loads, &steps),
        rows: FIGURES.into_iter().filter_map(row).collect(),
    }
}

fn mean(values: Vec<f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.iter().sum::<f64>() / n as f64)
}

/// Which engine leads, where intervals let one say so.
fn words(loads: &Loads<'_>, steps: &[Vec<&StepResult>]) -> Vec<String> {
    let throughput = |s: &StepResult| Some((s.output_tps, s.output_tps_ci95));
    let ttft = |s: &StepResult| s.ttft_ms.p50.map(|p50| (p50, s.ttft_ms.ci95.p50));
    let itl = |s: &StepResult| s.itl_ms.p50.map(|p50| (p50, s.itl_ms.ci95.p50));
    let figures: [(&str, &str, bool, &dyn Fn(&StepResult) -> Option<Told>); 3] = [
        ("Most tokens per second", "tok/s", true, &throughput),
        ("Shortest wait for the first token (TTFT p50)", "ms", false, &ttft),
        ("Shortest gap between tokens (ITL p50)", "ms", false, &itl),
    ];
    figures
        .into_iter()
        .filter_map(|(what, unit, higher, of)| {
            let told = steps.iter().enumerate().filter_map(|(engine, steps)| {
                let told: Vec<Told> = steps.iter().filter_map(|step| of(step)).collect();
                Some((loads.engines[engine], spanned(&told)?))
            });
            leader(told.collect(), higher).map(|leads| format!("{what}: {}", leads.words(unit)))
        })
        .collect()
}

/// A value with its interval.
type Told = (f64, Option<[f64; 2]>);

/// Repeats as one: their mean, and an interval that spans those of all.
fn spanned(told: &[Told]) -> Option<Told> {
    let value = mean(told.iter().map(|(value, _)| *value).collect())?;
    let ends = told
        .iter()
        .flat_map(|(value, interval)| interval.unwrap_or([*value; 2]));
    let known = told.len() > 1 || told.iter().all(|(_, interval)| interval.is_some());
    let span = ends.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], end| {
        [low.min(end), high.max(end)]
    });
    Some((value, known.then_some(span)))
}

/// Who leads, and whether the lead is more than chance.
struct Leader<'a> {
    best: (&'a str, f64),
    next: (&'a str, f64),
    higher: bool,
    /// Intervals do not overlap; nothing where one is not known.
    clear: Option<bool>,
}

fn leader(mut told: Vec<(&str, Told)>, higher: bool) -> Option<Leader<'_>> {
    told.sort_by(|(_, (a, _)), (_, (b, _))| if higher { b.total_cmp(a) } else { a.total_cmp(b) });
    let [(best, (value, interval)), (next, (next_value, next_interval)), ..] = told[..] else {
        return None;
    };
    let apart =
        |([low, high], [next_low, next_high]): ([f64; 2], [f64; 2])| low > next_high || high < next_low;
    Some(Leader {
        best: (best, value),
        next: (next, next_value),
        higher,
        clear: interval.zip(next_interval).map(apart),
    })
}

impl Leader<'_> {
    fn words(&self, unit: &str) -> String {
        let ((best, value), (next, next_value)) = (self.best, self.next);
        let (value_text, next_text) = (significant(value), significant(next_value));
        if self.clear == Some(false) {
            return format!(
                "{best} ({value_text} {unit}) and {next} ({next_text} {unit}) cannot be told apart: their 95 % intervals overlap."
            );
        }
        let unsure = if self.clear.is_none() {
            " (no interval is known)"
        } else {
            ""
        };
        let (more, less) = if self.higher {
            (value, next_value)
        } else {
            (next_value, value)
        };
        if less <= 0.0 {
            return format!("{best}, {value_text} {unit}, before {next} ({next_text} {unit}){unsure}.");
        }
        let times = significant(more / less);
        match self.higher {
            true => format!(
                "{best}, {value_text} {unit}: {times} times what {next} gives ({next_text} {unit}){unsure}."
            ),
            false => format!(
                "{best}, {value_text} {unit}; {next} takes {times} times as long ({next_text} {unit}){unsure}."
            ),
        }
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

    #[test]
    fn what_overlaps_is_no_lead() {
        let told = vec![("a", (10.0, Some([8.0, 12.0]))), ("b", (11.0, Some([9.0, 13.0])))];
        let words = leader(told, true).unwrap().words("tok/s");
        assert_eq!(
            words,
            "b (11.0 tok/s) and a (10.0 tok/s) cannot be told apart: their 95 % intervals overlap."
        );
        let told = vec![
            ("a", (10.0, Some([9.0, 11.0]))),
            ("b", (30.0, Some([28.0, 32.0]))),
        ];
        assert_eq!(
            leader(told.clone(), true).unwrap().words("tok/s"),
            "b, 30.0 tok/s: 3.00 times what a gives (10.0 tok/s)."
        );
        assert_eq!(
            leader(told, false).unwrap().words("ms"),
            "a, 10.0 ms; b takes 3.00 times as long (30.0 ms)."
        );
        assert!(leader(vec![("a", (1.0, None))], true).is_none());
    }
}
