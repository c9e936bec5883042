//! Repeats that end when a metric is known well enough (`--until-stable`).

use anyhow::anyhow;

use super::Usage;
use crate::measure::result::{RunResult, StepResult};
use crate::measure::{Metric, cells, load_of};
use crate::profile::{Planned, Profile, Turn};
use crate::stats::Spread;

/// Whether the metric that the profile names is one.
///
/// # Errors
/// [`Usage`] if it is not.
pub fn check(profile: &Profile) -> anyhow::Result<()> {
    let Some(stable) = &profile.stable else {
        return Ok(());
    };
    let found = Metric::find(&stable.until.metric);
    found
        .map(|_| ())
        .map_err(|error| Usage(anyhow!("--until-stable: {error}")).into())
}

/// Whether this repeat of a step can be left out: those before it say enough.
pub fn enough(profile: &Profile, engine: &str, planned: &Planned, steps: &[StepResult]) -> bool {
    let Some(stable) = profile
        .stable
        .as_ref()
        .filter(|stable| planned.repeat >= stable.least)
    else {
        return false;
    };
    let same = |step: &&StepResult| {
        let facts = &step.facts;
        let lengths = (facts.isl.mean, facts.isl.stddev, facts.osl.mean, facts.osl.stddev);
        let (isl, osl) = (planned.step.isl, planned.step.osl);
        facts.engine == engine
            && facts.users == planned.step.users
            && lengths == (isl.mean, isl.stddev, osl.mean, osl.stddev)
    };
    let repeats: Vec<&StepResult> = steps.iter().filter(same).collect();
    within(&stable.until.metric, &repeats).is_some_and(|within| within <= stable.until.within)
}

/// Whether every repeat of a turn can be left out, so that its engine need not be started.
pub fn turn_over(profile: &Profile, engine: &str, turn: &Turn, steps: &[StepResult]) -> bool {
    let planned = profile.steps();
    let mut of_turn = planned
        .iter()
        .filter(|planned| turn.repeats.contains(&planned.repeat));
    profile.stable.is_some() && of_turn.all(|planned| enough(profile, engine, planned, steps))
}

/// How far the metric's mean over these repeats is known.
fn within(metric: &str, repeats: &[&StepResult]) -> Option<f64> {
    let metric = Metric::find(metric).ok()?;
    let values: Vec<f64> = repeats.iter().filter_map(|step| metric.value(step)).collect();
    Spread::of(&values)?.within()
}

/// Which steps did not become stable, in words.
pub fn notes(profile: &Profile, run: &RunResult) -> Vec<String> {
    let Some(stable) = &profile.stable else {
        return Vec::new();
    };
    let until = &stable.until;
    let note = |cell: Vec<&StepResult>| {
        let known = within(&until.metric, &cell);
        let percent = |share: f64| (share * 1e4).round() / 1e2;
        let reached = known.is_some_and(|known| known <= until.within);
        let known = known.map_or("unknown".to_owned(), |known| {
            format!("known within {} %", percent(known))
        });
        (!reached).then(|| {
            format!(
                "{}, {}: after {} repeats {} is {known}, not {} %; measure longer, or raise --max-repeats",
                cell[0].facts.engine,
                load_of(cell[0]),
                cell.len(),
                until.metric,
                percent(until.within)
            )
        })
    };
    cells(&run.steps).into_iter().filter_map(note).collect()
}
