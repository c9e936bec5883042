//! Which engine leads: under one load with its figures, and over all loads in a line for each figure.
//!
//! One leads another where their 95 % intervals do not overlap; with repeats, where the spans of all do not.

use super::columns::significant;
use super::loads::Loads;
use crate::measure::result::StepResult;

/// A figure that engines are compared by.
struct Figure {
    /// What the best of it is, at the start of a sentence.
    what: &'static str,
    unit: &'static str,
    higher_is_better: bool,
    of: fn(&StepResult) -> Option<Told>,
}

/// A value with its interval.
type Told = (f64, Option<[f64; 2]>);

const FIGURES: [Figure; 3] = [
    Figure {
        what: "Most tokens per second",
        unit: "tok/s",
        higher_is_better: true,
        of: |s| (s.output_tps > 0.0).then_some((s.output_tps, s.output_tps_ci95)),
    },
    Figure {
        what: "Shortest wait for the first token (TTFT p50)",
        unit: "ms",
        higher_is_better: false,
        of: |s| Some((s.ttft_ms.p50?, s.ttft_ms.ci95.p50)),
    },
    Figure {
        what: "Shortest gap between tokens (ITL p50)",
        unit: "ms",
        higher_is_better: false,
        of: |s| Some((s.itl_ms.p50?, s.itl_ms.ci95.p50)),
    },
];

/// The leaders under one load, a sentence for each figure that at least two engines have.
pub(super) fn at(loads: &Loads<'_>, load: usize) -> Vec<String> {
    let sentence = |figure: &Figure| {
        let leader = leader(told(loads, load, figure), figure.higher_is_better)?;
        Some(format!("{}: {}", figure.what, leader.words(figure.unit)))
    };
    FIGURES.iter().filter_map(sentence).collect()
}

/// The leaders over all loads, a sentence for each figure; nothing for a run of one engine.
pub(super) fn over_all(loads: &Loads<'_>) -> Vec<String> {
    let labels = loads.labels();
    let sentence = |figure: &Figure| {
        // Neighbouring loads with the same leader are told as one.
        let mut spans: Vec<(String, usize, usize)> = Vec::new();
        for load in 0..loads.count() {
            let Some(leader) = leader(told(loads, load, figure), figure.higher_is_better) else {
                continue;
            };
            let name = leader.name();
            match spans.last_mut() {
                Some((last, _, to)) if *last == name && *to + 1 == load => *to = load,
                _ => spans.push((name, load, load)),
            }
        }
        let words = spans.into_iter().map(|(name, from, to)| match from == to {
            true => format!("{name} at {}", labels[from].label),
            false => format!("{name} from {} to {}", labels[from].label, labels[to].label),
        });
        let words: Vec<String> = words.collect();
        (!words.is_empty()).then(|| format!("{}: {}.", figure.what, words.join("; ")))
    };
    FIGURES.iter().filter_map(sentence).collect()
}

/// The engines that have this figure, with its value over their repeats.
fn told<'a>(loads: &Loads<'a>, load: usize, figure: &Figure) -> Vec<(&'a str, Told)> {
    let of = |(engine, name): (usize, &&'a str)| {
        let told = loads.repeats(engine, load).into_iter().filter_map(figure.of);
        Some((*name, spanned(&told.collect::<Vec<_>>())?))
    };
    loads.engines.iter().enumerate().filter_map(of).collect()
}

/// The arithmetic mean, of any values.
pub(super) fn mean(values: Vec<f64>) -> Option<f64> {
    let n = values.len();
    (n > 0).then(|| values.iter().sum::<f64>() / n as f64)
}

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
    higher_is_better: bool,
    /// Intervals do not overlap; nothing where one is not known.
    clear: Option<bool>,
}

fn leader(mut told: Vec<(&str, Told)>, higher_is_better: bool) -> Option<Leader<'_>> {
    told.sort_by(|(_, (a, _)), (_, (b, _))| match higher_is_better {
        true => b.total_cmp(a),
        false => a.total_cmp(b),
    });
    let [(best, (value, interval)), (next, (next_value, next_interval)), ..] = told[..] else {
        return None;
    };
    let apart =
        |([low, high], [next_low, next_high]): ([f64; 2], [f64; 2])| low > next_high || high < next_low;
    Some(Leader {
        best: (best, value),
        next: (next, next_value),
        higher_is_better,
        clear: interval.zip(next_interval).map(apart),
    })
}

impl Leader<'_> {
    /// The leader's name; both names where nobody leads.
    fn name(&self) -> String {
        match self.clear {
            Some(false) => format!("{} or {} (not to be told apart)", self.best.0, self.next.0),
            Some(true) => self.best.0.to_owned(),
            None => format!("{} (by how much is not known)", self.best.0),
        }
    }

    fn words(&self, unit: &str) -> String {
        let ((best, value), (next, next_value)) = (self.best, self.next);
        let (value_text, next_text) = (significant(value), significant(next_value));
        if self.clear == Some(false) {
            return format!(
                "{best} ({value_text} {unit}) and {next} ({next_text} {unit}) cannot be told apart: their 95 % intervals \
                 overlap."
            );
        }
        let unsure = match self.clear {
            None => " (no interval is known)",
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

    #[test]
    fn the_leader_is_named_with_its_lead() {
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

    #[test]
    fn what_overlaps_is_no_lead() {
        let told = vec![("a", (10.0, Some([8.0, 12.0]))), ("b", (11.0, Some([9.0, 13.0])))];
        assert_eq!(
            leader(told, true).unwrap().words("tok/s"),
            "b (11.0 tok/s) and a (10.0 tok/s) cannot be told apart: their 95 % intervals overlap."
        );
    }

    #[test]
    fn neighbouring_loads_with_one_leader_are_told_as_one() {
        let run = finished_run();
        let words = over_all(&Loads::of(&run));
        assert!(
            words.contains(
                &"Shortest wait for the first token (TTFT p50): candle from 4 users to 64 users.".to_owned()
            ),
            "{words:?}"
        );
        let mut alone = finished_run();
        alone.steps.retain(|step| step.facts.engine == "candle");
        assert!(over_all(&Loads::of(&alone)).is_empty());
    }
}
