//! Which engine leads under one load, and by how much.
//!
//! One leads another where `loadtest compare` would call their difference real.

use super::columns::significant;
use super::conclusions::difference;
use super::loads::Loads;
use crate::measure::load_of;
use crate::measure::result::StepResult;

/// A figure that engines are compared by.
struct Figure {
    /// What the best of it is, at the start of a sentence.
    what: &'static str,
    unit: &'static str,
    higher_is_better: bool,
    /// Its name where it is compared.
    metric: &'static str,
    of: fn(&StepResult) -> Option<f64>,
}

const FIGURES: [Figure; 3] = [
    Figure {
        what: "Most tokens per second",
        unit: "tok/s",
        higher_is_better: true,
        metric: "output_tps",
        of: |s| (s.output_tps > 0.0).then_some(s.output_tps),
    },
    Figure {
        what: "Shortest wait for the first token (TTFT p50)",
        unit: "ms",
        higher_is_better: false,
        metric: "ttft_p50",
        of: |s| s.ttft_ms.p50,
    },
    Figure {
        what: "Shortest gap between tokens (ITL p50)",
        unit: "ms",
        higher_is_better: false,
        metric: "itl_p50",
        of: |s| s.itl_ms.p50,
    },
];

/// The leaders under one load, a sentence for each figure that at least two engines have.
pub(super) fn at(loads: &Loads<'_>, load: usize) -> Vec<String> {
    let sentence = |figure: &Figure| {
        let [best, next, ..] = ranked(loads, load, figure)[..] else {
            return None;
        };
        let lead = Lead {
            best: (loads.engines[best.engine], best.value),
            next: (loads.engines[next.engine], next.value),
            higher_is_better: figure.higher_is_better,
            clear: apart(loads, load, figure, &best, &next),
        };
        Some(format!("{}: {}", figure.what, lead.words(figure.unit)))
    };
    FIGURES.iter().filter_map(sentence).collect()
}

/// An engine's value of a figure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    /// Number of the engine.
    pub engine: usize,
    pub value: f64,
}

/// Whether two differ by more than chance. Nothing where they were measured too briefly to say.
fn apart(loads: &Loads<'_>, load: usize, figure: &Figure, one: &Ranked, other: &Ranked) -> Option<bool> {
    let step = *loads.repeats(one.engine, load).first()?;
    let [candidate, baseline] = [one, other].map(|ranked| loads.engines[ranked.engine]);
    let row = difference(loads.run, baseline, candidate, &load_of(step), figure.metric)?;
    Some(row.real)
}

/// Whether the throughput of two differs by more than chance.
pub(super) fn throughput_apart(loads: &Loads<'_>, load: usize, one: &Ranked, other: &Ranked) -> Option<bool> {
    apart(loads, load, &FIGURES[0], one, other)
}

/// Whether the median wait for their first token does.
pub(super) fn wait_apart(loads: &Loads<'_>, load: usize, one: &Ranked, other: &Ranked) -> Option<bool> {
    apart(loads, load, &FIGURES[1], one, other)
}

/// These engines by their output tokens per second, the most first.
pub(super) fn by_throughput(loads: &Loads<'_>, load: usize, engines: &[usize]) -> Vec<Ranked> {
    among(ranked(loads, load, &FIGURES[0]), engines)
}

/// These engines by their median wait for the first token, the shortest first.
pub(super) fn by_wait(loads: &Loads<'_>, load: usize, engines: &[usize]) -> Vec<Ranked> {
    among(ranked(loads, load, &FIGURES[1]), engines)
}

fn among(mut ranked: Vec<Ranked>, engines: &[usize]) -> Vec<Ranked> {
    ranked.retain(|one| engines.contains(&one.engine));
    ranked
}

/// The engines that have this figure, with its value over their repeats, the best first.
fn ranked(loads: &Loads<'_>, load: usize, figure: &Figure) -> Vec<Ranked> {
    let of = |engine: usize| {
        let values = loads.repeats(engine, load).into_iter().filter_map(figure.of);
        let value = mean(values.collect())?;
        Some(Ranked { engine, value })
    };
    let mut ranked: Vec<Ranked> = (0..loads.engines.len()).filter_map(of).collect();
    ranked.sort_by(|a, b| match figure.higher_is_better {
        true => b.value.total_cmp(&a.value),
        false => a.value.total_cmp(&b.value),
    });
    ranked
}

/// The arithmetic mean, of any values.
pub(super) fn mean(values: Vec<f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.iter().sum::<f64>() / n as f64)
}

/// Who leads, and whether the lead is more than chance.
struct Lead<'a> {
    best: (&'a str, f64),
    next: (&'a str, f64),
    higher_is_better: bool,
    /// It is; nothing where they were measured too briefly to say.
    clear: Option<bool>,
}

impl Lead<'_> {
    fn words(&self, unit: &str) -> String {
        let ((best, value), (next, next_value)) = (self.best, self.next);
        let (value_text, next_text) = (significant(value), significant(next_value));
        if self.clear == Some(false) {
            return format!(
                "{best} ({value_text} {unit}) and {next} ({next_text} {unit}) cannot be told apart."
            );
        }
        let unsure = match self.clear {
            None => ", measured too briefly to rule out chance",
            _ => "",
        };
        let (more, less) = match self.higher_is_better {
            true => (value, next_value),
            false => (next_value, value),
        };
        if less <= 0.0 {
            return format!("{best}, {value_text} {unit}, before {next} ({next_text} {unit}){unsure}.");
        }
        let times = significant(more / less);
        match self.higher_is_better {
            true => {
                format!(
                    "{best}, {value_text} {unit}: {times} times what {next} gives ({next_text} {unit}){unsure}."
                )
            }
            false => {
                format!(
                    "{best}, {value_text} {unit}; {next} takes {times} times as long ({next_text} {unit}){unsure}."
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    fn lead(higher_is_better: bool, clear: Option<bool>) -> Lead<'static> {
        Lead {
            best: ("a", if higher_is_better { 30.0 } else { 10.0 }),
            next: ("b", if higher_is_better { 10.0 } else { 30.0 }),
            higher_is_better,
            clear,
        }
    }

    #[test]
    fn the_leader_is_named_with_its_lead() {
        assert_eq!(
            lead(true, Some(true)).words("tok/s"),
            "a, 30.0 tok/s: 3.00 times what b gives (10.0 tok/s)."
        );
        assert_eq!(
            lead(false, Some(true)).words("ms"),
            "a, 10.0 ms; b takes 3.00 times as long (30.0 ms)."
        );
        let briefly = lead(true, None).words("tok/s");
        assert!(briefly.ends_with("(10.0 tok/s), measured too briefly to rule out chance."));
    }

    #[test]
    fn what_may_be_chance_is_no_lead() {
        assert_eq!(
            lead(true, Some(false)).words("tok/s"),
            "a (30.0 tok/s) and b (10.0 tok/s) cannot be told apart."
        );
    }

    #[test]
    fn the_best_comes_first() {
        let run = finished_run();
        let loads = Loads::of(&run);
        let waits = by_wait(&loads, 0, &[0, 1]);
        assert!(waits.len() == 2 && waits[0].value <= waits[1].value);
        let most = by_throughput(&loads, 1, &[0, 1]);
        assert!(most.len() == 2 && most[0].value >= most[1].value);
        assert_eq!(by_throughput(&loads, 1, &[1]).len(), 1);
    }
}
