//! The limits by which an engine is chosen: the run's objectives, or what a person who waits is taken to accept.

use crate::measure::result::{RunResult, StepResult};
use crate::report::columns::significant;

/// A limit on one figure of a step.
#[derive(Debug)]
struct Objective {
    figure: &'static Figure,
    most_ms: f64,
}

/// What an objective of `--goodput` is held against where whole steps are judged.
#[derive(Debug)]
struct Figure {
    /// Its name among the run's objectives.
    key: &'static str,
    name: &'static str,
    of: fn(&StepResult) -> Option<f64>,
    /// The limit where the run names no objectives, in milliseconds.
    accepted_ms: Option<f64>,
    /// What it means for those who wait, before and after the limit.
    meaning: (&'static str, &'static str),
}

/// The accepted wait for the first token is Nielsen's limit for an uninterrupted flow of thought (J. Nielsen, Usability
/// Engineering, 1993, 5.5), that for each further token about twice the speed at which people read.
static FIGURES: [Figure; 3] = [
    Figure {
        key: "ttft_ms",
        name: "TTFT p99",
        of: |step| step.ttft_ms.p99,
        accepted_ms: Some(1_000.0),
        meaning: (
            "99 of 100 requests wait at most",
            "ms for their first token (TTFT p99)",
        ),
    },
    Figure {
        key: "tpot_ms",
        name: "TPOT p50",
        of: |step| step.tpot_ms.p50,
        accepted_ms: Some(100.0),
        meaning: (
            "after the first token one comes every",
            "ms or faster (TPOT p50, the median)",
        ),
    },
    Figure {
        key: "e2el_ms",
        name: "E2EL p99",
        of: |step| step.e2el_ms.p99,
        accepted_ms: None,
        meaning: ("99 of 100 requests are answered whole within", "ms (E2EL p99)"),
    },
];

/// All that a step must keep to.
#[derive(Debug)]
pub(in crate::report) struct StepObjectives(Vec<Objective>);

impl StepObjectives {
    /// The objectives that the run names, and no others; where it names none, what a person is taken to accept.
    pub fn of(run: &RunResult) -> Self {
        let named = run.profile.get("slo").filter(|slo| !slo.is_null());
        let most_ms = |figure: &Figure| match named {
            Some(slo) => slo.get(figure.key)?.as_f64(),
            None => figure.accepted_ms,
        };
        let objectives = FIGURES.iter().filter_map(|figure| {
            let most_ms = most_ms(figure)?;
            Some(Objective { figure, most_ms })
        });
        Self(objectives.collect())
    }

    /// Whether a step keeps to all of them. A figure that is not known keeps to nothing.
    pub fn holds(&self, step: &StepResult) -> bool {
        self.broken(&[step]).is_none()
    }

    /// What the worst of these steps breaks, in words; nothing where all keep to everything.
    pub fn broken(&self, steps: &[&StepResult]) -> Option<String> {
        let broken = self.0.iter().filter_map(|objective| {
            let name = objective.figure.name;
            match objective.worst(steps) {
                Some(ms) if ms <= objective.most_ms => None,
                Some(ms) => Some(format!("{name} {} ms", significant(ms))),
                None => Some(format!("{name} unknown")),
            }
        });
        let broken: Vec<String> = broken.collect();
        (!broken.is_empty()).then(|| broken.join(", "))
    }

    /// The figures that they limit, of the worst of these steps.
    pub fn figures(&self, steps: &[&StepResult]) -> String {
        let figures = self.0.iter().map(|objective| {
            let ms = objective
                .worst(steps)
                .map_or_else(|| "unknown".to_owned(), significant);
            format!("{} {ms} ms", objective.figure.name)
        });
        figures.collect::<Vec<_>>().join(", ")
    }

    /// As in "TTFT p99 within 1000 ms and TPOT p50 within 100 ms".
    pub fn words(&self) -> String {
        let limit = |objective: &Objective| {
            format!(
                "{} within {} ms",
                objective.figure.name,
                significant(objective.most_ms)
            )
        };
        self.0.iter().map(limit).collect::<Vec<_>>().join(" and ")
    }

    /// What keeping to them means for those who wait.
    pub fn meaning(&self) -> String {
        let meaning = |objective: &Objective| {
            let (before, after) = objective.figure.meaning;
            format!("{before} {} {after}", significant(objective.most_ms))
        };
        self.0.iter().map(meaning).collect::<Vec<_>>().join(", and ")
    }
}

impl Objective {
    fn worst(&self, steps: &[&StepResult]) -> Option<f64> {
        let values = steps.iter().map(|step| (self.figure.of)(step));
        values.reduce(|a, b| Some(a?.max(b?))).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;
    use crate::profile::Slo;

    fn with(goodput: &str) -> StepObjectives {
        let mut run = finished_run();
        let slo: Slo = goodput.parse().unwrap();
        let slo = serde_json::to_value(slo).unwrap();
        run.profile.insert("slo".to_owned(), slo);
        StepObjectives::of(&run)
    }

    #[test]
    fn the_runs_objectives_stand_in_place_of_what_is_taken_for_granted() {
        let taken = StepObjectives::of(&finished_run());
        assert_eq!(
            taken.words(),
            "TTFT p99 within 1000 ms and TPOT p50 within 100 ms"
        );
        assert_eq!(
            with("ttft:500 tpot:50").words(),
            "TTFT p99 within 500 ms and TPOT p50 within 50.0 ms"
        );
        assert_eq!(with("e2el:4000").words(), "E2EL p99 within 4000 ms");
        assert_eq!(
            with("tpot:50 e2el:4000").meaning(),
            "after the first token one comes every 50.0 ms or faster (TPOT p50, the median), \
             and 99 of 100 requests are answered whole within 4000 ms (E2EL p99)"
        );
    }

    #[test]
    fn the_worst_repeat_decides_and_what_is_unknown_holds_nothing() {
        let mut steps = [finished_run().steps[0].clone(), finished_run().steps[0].clone()];
        (steps[0].ttft_ms.p99, steps[1].ttft_ms.p99) = (Some(400.0), Some(600.0));
        let objectives = with("ttft:500");
        assert!(objectives.holds(&steps[0]));
        let both = [&steps[0], &steps[1]];
        assert_eq!(objectives.broken(&both).as_deref(), Some("TTFT p99 600 ms"));
        assert_eq!(objectives.figures(&both), "TTFT p99 600 ms");
        steps[1].ttft_ms.p99 = None;
        assert_eq!(
            objectives.broken(&[&steps[0], &steps[1]]).as_deref(),
            Some("TTFT p99 unknown")
        );
    }
}
