//! Which engine for which use.

use super::{StepObjectives, at, common_load, engines, sound};
use crate::compare::{Row, Side, compare};
use crate::measure::Metric;
use crate::measure::result::{Load, RunResult, StepResult};
use crate::report::columns::significant;
use crate::report::words::users;

/// Which engine for batches, for people who wait, and for little memory. Nothing of a single engine but what it can hold.
pub(in crate::report) fn choices(run: &RunResult) -> Vec<String> {
    let known = engines(run);
    let mut lines = Vec::new();
    let common = common_load(run, &known).filter(|_| known.len() > 1);
    if let Some(load) = common {
        lines.extend(batch(run, &known, &load));
    }
    lines.extend(interactive(run, &known));
    if let Some(load) = common {
        lines.extend(memory(run, &known, &load));
    }
    lines
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// The most tokens per second under the largest load that all of them took.
fn batch(run: &RunResult, known: &[&str], load: &Load) -> Option<String> {
    let tps = |engine: &str| mean(at(run, engine, load).map(|step| step.output_tps));
    let mut ranked: Vec<(&str, f64)> = known.iter().filter_map(|e| Some((*e, tps(e)?))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let [(best, most), (next, less), ..] = ranked[..] else {
        return None;
    };
    let figures = format!("{} tok/s at {}", significant(most), users(load.users));
    Some(match difference(run, next, best, load, "output_tps") {
        Some(row) if row.real => format!(
            "Batch work: {best}, {figures}, {} times {next}'s {}, which is more than chance",
            significant(most / less),
            significant(less)
        ),
        Some(_) => format!(
            "Batch work: {best} ({figures}) and {next} ({}) cannot be told apart",
            significant(less)
        ),
        None => format!(
            "Batch work: {best} had most, {figures} to {next}'s {}; the run is too short to say whether that is chance",
            significant(less)
        ),
    })
}

/// The comparison of two engines in a metric under a load, corrected for all engines and loads that were compared. Nothing
/// where they were measured too briefly.
pub(in crate::report) fn difference(
    run: &RunResult,
    baseline: &str,
    candidate: &str,
    load: &Load,
    metric: &str,
) -> Option<Row> {
    let side = |engine: &str| Side {
        run,
        engine: engine.to_owned(),
        label: engine.to_owned(),
    };
    let others = engines(run).into_iter().filter(|engine| *engine != candidate);
    let pairs: Vec<_> = others.map(|other| (side(other), side(candidate))).collect();
    let found = compare(&pairs, &[Metric::find(metric).ok()?]);
    let pair = found.pairs.into_iter().find(|pair| pair.baseline == baseline)?;
    let cell = pair.cells.into_iter().find(|cell| cell.load == *load)?;
    cell.rows.into_iter().find(|row| row.p.is_some())
}

/// The most users that each engine keeps within what a person accepts.
fn interactive(run: &RunResult, known: &[&str]) -> Option<String> {
    let objectives = StepObjectives::of(run);
    let held = |engine: &str| {
        let mut steps: Vec<&StepResult> = sound(run).filter(|step| step.facts.engine == engine).collect();
        steps.sort_by_key(|step| step.facts.users);
        // A load that is held behind one that is not says more of chance than of the engine.
        let failed = steps
            .iter()
            .find(|step| !objectives.holds(step))
            .map_or(u32::MAX, |step| step.facts.users);
        steps
            .iter()
            .map(|step| step.facts.users)
            .filter(|users| *users < failed)
            .max()
    };
    let mut ranked: Vec<(&str, u32)> = known.iter().filter_map(|e| Some((*e, held(e)?))).collect();
    ranked.sort_by_key(|(_, users)| std::cmp::Reverse(*users));
    let limits = objectives.words();
    let fewest = sound(run).map(|step| step.facts.users).min()?;
    // Of an engine whose smallest load is not valid, nothing is known of that one.
    let fewest_of = |engine: &str| {
        let steps = sound(run).filter(|step| step.facts.engine == engine);
        steps.map(|step| step.facts.users).min()
    };
    // A run of one user does not tell how many are served.
    sound(run).find(|step| step.facts.users > 1)?;
    let Some((_, most)) = ranked.first() else {
        return Some(format!(
            "Interactive use: none holds {limits}, not even with {}",
            users(fewest)
        ));
    };
    let best: Vec<&str> = ranked
        .iter()
        .filter(|(_, users)| users == most)
        .map(|(name, _)| *name)
        .collect();
    let rest: Vec<String> = known
        .iter()
        .filter(|engine| !best.contains(engine))
        .map(|engine| match ranked.iter().find(|(name, _)| name == engine) {
            Some((_, users)) => format!("{engine} up to {users}"),
            None => format!("{engine} not even with {}", fewest_of(engine).unwrap_or(fewest)),
        })
        .collect();
    let rest = match rest.is_empty() {
        true => String::new(),
        false => format!("; {}", rest.join(", ")),
    };
    let verb = if best.len() == 1 { "holds" } else { "hold" };
    Some(format!(
        "Interactive use: {} {verb} {limits} up to {}{rest}",
        best.join(" and "),
        users(*most)
    ))
}

/// The least memory under the largest load that all of them took.
fn memory(run: &RunResult, known: &[&str], load: &Load) -> Option<String> {
    let peak = |engine: &str| {
        let peaks = at(run, engine, load).filter_map(|step| step.server.as_ref());
        peaks
            .filter_map(|server| server.rss_peak_bytes)
            .max()
            .filter(|bytes| *bytes > 0)
    };
    let mut ranked: Vec<(&str, u64)> = known.iter().filter_map(|e| Some((*e, peak(e)?))).collect();
    ranked.sort_by_key(|(_, bytes)| *bytes);
    let [(best, least), .., (last, most)] = ranked[..] else {
        return None;
    };
    let mb = |bytes: u64| significant(bytes as f64 / 1e6);
    Some(format!(
        "Little memory: {best}, {} MB at {}; {last} takes most, {} MB",
        mb(least),
        users(load.users),
        mb(most)
    ))
}
