//! Which engine to take under each load: of those that keep people within the limits, or of all where none does, the one
//! with the most tokens per second. The rule stands in `results/README.md`.

use serde::Serialize;

use super::columns::significant;
use super::conclusions::{StepObjectives, is_sound};
use super::leads;
use super::loads::Loads;

/// The engine to take under one load.
#[derive(Debug, Serialize)]
pub(super) struct Pick {
    /// The load in words.
    pub load: String,
    /// Engines by their numbers: one, several that cannot be told apart, or none where nothing is valid.
    pub take: Vec<usize>,
    /// Whether these stay within the limits.
    pub within: bool,
    /// Why, in a sentence or two.
    pub why: String,
}

/// A pick for each load; nothing for a run of one engine.
pub(super) fn picks(loads: &Loads<'_>) -> Vec<Pick> {
    if loads.engines.len() < 2 {
        return Vec::new();
    }
    let objectives = StepObjectives::of(loads.run);
    let labels = loads.labels().into_iter().enumerate();
    labels
        .map(|(load, of)| pick(loads, load, of.label, &objectives))
        .collect()
}

fn pick(loads: &Loads<'_>, load: usize, label: String, objectives: &StepObjectives) -> Pick {
    let (mut within, mut beyond, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    let mut broken = Vec::new();
    for (engine, name) in loads.engines.iter().enumerate() {
        let steps = loads.repeats(engine, load);
        if steps.is_empty() || !steps.iter().all(|step| is_sound(step)) {
            silent.push(*name);
            continue;
        }
        match objectives.broken(&steps) {
            None => within.push(engine),
            Some(what) => {
                beyond.push(engine);
                broken.push(format!("{name} ({what})"));
            }
        }
    }
    let alone = |engine: usize| {
        let figures = objectives.figures(&loads.repeats(engine, load));
        match beyond.is_empty() {
            true => format!("Within the limits: {figures}."),
            false => format!("The only one within the limits: {figures}."),
        }
    };
    let (take, chosen) = match (&within[..], &beyond[..]) {
        ([], []) => (Vec::new(), None),
        ([], [one]) => (vec![*one], None),
        ([], several) => most(loads, load, several, ""),
        ([one], _) => (vec![*one], Some(alone(*one))),
        (several, []) => most(loads, load, several, ""),
        (several, _) => most(loads, load, several, " of those within the limits"),
    };
    let whose = if within.is_empty() {
        "None stays within the limits"
    } else {
        "Beyond the limits"
    };
    let others = (!broken.is_empty()).then(|| format!("{whose}: {}.", broken.join("; ")));
    let silent = (!silent.is_empty()).then(|| {
        format!(
            "No valid figures of {}: the findings say why.",
            silent.join(" and ")
        )
    });
    let why: Vec<String> = [chosen, others, silent].into_iter().flatten().collect();
    Pick {
        load: label,
        take,
        within: !within.is_empty(),
        why: why.join(" "),
    }
}

/// The one of these engines with the most tokens per second; among those that cannot be told apart from it, the one with
/// the shortest wait. `of_whom` says who they are.
fn most(loads: &Loads<'_>, load: usize, engines: &[usize], of_whom: &str) -> (Vec<usize>, Option<String>) {
    let ranked = leads::by_throughput(loads, load, engines);
    let [best, rest @ ..] = &ranked[..] else {
        return (Vec::new(), None);
    };
    let tps = significant(best.value);
    let mut level = vec![best.engine];
    level.extend(
        rest.iter()
            .filter(|one| leads::throughput_apart(loads, load, best, one) == Some(false))
            .map(|one| one.engine),
    );
    if level.len() > 1 {
        return by_wait(loads, load, level, &tps);
    }
    let lead = rest.first().map_or_else(String::new, |next| {
        let unsure = match leads::throughput_apart(loads, load, best, next) {
            None => "; measured too briefly to rule out chance",
            Some(_) => "",
        };
        let times = significant(best.value / next.value);
        format!(
            ", {times} times {}'s {}{unsure}",
            loads.engines[next.engine],
            significant(next.value)
        )
    });
    let sooner = sooner(loads, load, engines, best.engine);
    (
        vec![best.engine],
        Some(format!("Most tokens per second{of_whom}: {tps}{lead}.{sooner}")),
    )
}

/// The one of engines of level throughput that answers soonest, or all of them.
fn by_wait(loads: &Loads<'_>, load: usize, level: Vec<usize>, tps: &str) -> (Vec<usize>, Option<String>) {
    let names = |engines: &[usize]| {
        let names: Vec<&str> = engines.iter().map(|engine| loads.engines[*engine]).collect();
        names.join(" and ")
    };
    match leads::by_wait(loads, load, &level)[..] {
        [first, second, ..] if leads::wait_apart(loads, load, &first, &second) == Some(true) => {
            let others: Vec<usize> = level
                .into_iter()
                .filter(|engine| *engine != first.engine)
                .collect();
            let why = format!(
                "Answers sooner than {} at a throughput that cannot be told apart (about {tps} tok/s): TTFT p50 {} ms against \
                 {}.",
                names(&others),
                significant(first.value),
                significant(second.value)
            );
            (vec![first.engine], Some(why))
        }
        _ => {
            let why = format!(
                "Neither throughput (about {tps} tok/s) nor the wait for the first token tells {} apart.",
                names(&level)
            );
            (level, Some(why))
        }
    }
}

/// What a reader gives up with the engine taken: another within the limits that clearly answers sooner.
fn sooner(loads: &Loads<'_>, load: usize, engines: &[usize], taken: usize) -> String {
    let waits = leads::by_wait(loads, load, engines);
    let own = waits.iter().find(|one| one.engine == taken);
    match (waits.first(), own) {
        (Some(first), Some(own)) if leads::wait_apart(loads, load, first, own) == Some(true) => format!(
            " {} answers sooner: TTFT p50 {} ms against {}.",
            loads.engines[first.engine],
            significant(first.value),
            significant(own.value)
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;
    use crate::measure::result::RunResult;

    /// Two engines under 4 and 64 users: output tok/s with its interval, TTFT p50 and p99.
    fn run(of: [(f64, f64, f64); 4]) -> RunResult {
        let mut run = finished_run();
        let base = run.steps[0].clone();
        run.steps.clear();
        for (i, (tps, p50, p99)) in of.into_iter().enumerate() {
            let mut step = base.clone();
            step.facts.step = i as u16;
            step.facts.engine = ["candle", "llamacpp"][i % 2].to_owned();
            step.facts.users = [4, 64][i / 2];
            (step.output_tps, step.output_tps_ci95) = (tps, Some([0.95 * tps, 1.05 * tps]));
            (step.ttft_ms.p50, step.ttft_ms.p99) = (Some(p50), Some(p99));
            step.ttft_ms.ci95.p50 = Some([0.95 * p50, 1.05 * p50]);
            step.tpot_ms.p50 = Some(20.0);
            step.requests.failed = 0;
            step.verdicts.clear();
            step.client.error_p99_ms = Some(0.1);
            run.steps.push(step);
        }
        run
    }

    fn told(run: &RunResult) -> String {
        let lines = picks(&Loads::of(run));
        let line = |pick: &Pick| format!("{} {:?} {}: {}", pick.load, pick.take, pick.within, pick.why);
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn most_tokens_within_the_limits_is_taken() {
        let run = run([
            (100.0, 50.0, 90.0),
            (200.0, 60.0, 95.0),
            (900.0, 100.0, 400.0),
            (1_900.0, 900.0, 1_400.0),
        ]);
        insta::assert_snapshot!(told(&run), @r"
        4 users [1] true: Most tokens per second: 200, 2.00 times candle's 100. candle answers sooner: TTFT p50 50.0 ms against 60.0.
        64 users [0] true: The only one within the limits: TTFT p99 400 ms, TPOT p50 20.0 ms. Beyond the limits: llamacpp (TTFT p99 1400 ms).
        ");
    }

    #[test]
    fn level_engines_are_told_apart_by_the_wait_or_not_at_all() {
        let run = run([
            (100.0, 50.0, 90.0),
            (101.0, 80.0, 95.0),
            (500.0, 50.0, 90.0),
            (501.0, 50.5, 90.0),
        ]);
        insta::assert_snapshot!(told(&run), @r"
        4 users [0] true: Answers sooner than llamacpp at a throughput that cannot be told apart (about 101 tok/s): TTFT p50 50.0 ms against 80.0.
        64 users [1, 0] true: Neither throughput (about 501 tok/s) nor the wait for the first token tells llamacpp and candle apart.
        ");
    }

    #[test]
    fn where_all_are_slow_the_fastest_is_taken_and_what_failed_has_no_say() {
        let mut run = run([
            (100.0, 1_500.0, 2_000.0),
            (200.0, 3_000.0, 5_000.0),
            (500.0, 50.0, 90.0),
            (900.0, 50.0, 90.0),
        ]);
        run.steps[3].requests.failed = run.steps[3].requests.sent;
        insta::assert_snapshot!(told(&run), @r"
        4 users [1] false: Most tokens per second: 200, 2.00 times candle's 100. candle answers sooner: TTFT p50 1500 ms against 3000. None stays within the limits: candle (TTFT p99 2000 ms); llamacpp (TTFT p99 5000 ms).
        64 users [0] true: Within the limits: TTFT p99 90.0 ms, TPOT p50 20.0 ms. No valid figures of llamacpp: the findings say why.
        ");
    }

    #[test]
    fn one_engine_is_no_choice() {
        let mut run = finished_run();
        run.engines.truncate(1);
        run.steps.retain(|step| step.facts.engine == "candle");
        assert!(picks(&Loads::of(&run)).is_empty());
    }
}
