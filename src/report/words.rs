//! What stands above and below the tables, in plain words.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::loads::Loads;
use super::verdict::verdict;
use super::{across, calibration, single, verify, weights};
use crate::measure::cells;
use crate::measure::result::{EngineResult, RunResult, Status, StepResult, Verdict};

/// The name of a unit variant as it stands in `run.json`.
pub(super) fn snake(variant: impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}

/// What was tested, in one or two lines.
pub(super) fn heading(run: &RunResult) -> String {
    let profile = run
        .profile_name()
        .map_or_else(String::new, |name| format!(", profile {name}"));
    let model = match run.model.name.as_str() {
        "" => String::new(),
        name => format!(", model {name}"),
    };
    let mut text = format!(
        "loadtest {}{profile}{model}, {}\n",
        run.loadtest_version, run.started_at
    );
    if let Some(ended) = ended(run) {
        text.push_str(ended);
        text.push('\n');
    }
    text
}

/// How a run ended that did not end well.
pub(super) fn ended(run: &RunResult) -> Option<&'static str> {
    match run.status {
        Status::Done => None,
        Status::Running => Some("This run did not come to its end."),
        Status::Interrupted => Some("This run was interrupted; what follows was measured before."),
        Status::Failed => Some("This run failed; what follows was measured before."),
    }
}

/// Everything that a reader must know besides the numbers: verdicts, failed engines, notes.
pub(super) fn findings(run: &RunResult) -> Vec<String> {
    let of_steps = verdicts(run).into_iter().map(|found| format!("! {found}"));
    let forms = weights::forms(run);
    let forms =
        forms.map(|forms| format!("- the engines compute on different forms of the weights: {forms}"));
    of_steps.chain(of_run(run)).chain(forms).collect()
}

/// Of these, all but the verdicts on steps and the forms of the weights, which the page tells elsewhere.
pub(super) fn of_run(run: &RunResult) -> Vec<String> {
    let mut lines = Vec::new();
    for engine in &run.engines {
        let Some(failure) = &engine.failure else { continue };
        let exit = failure
            .exit
            .as_ref()
            .filter(|exit| !failure.message.contains(exit.as_str()))
            .map_or_else(String::new, |exit| format!(" ({exit})"));
        lines.push(format!("! {} failed{exit}: {}", engine.name, failure.message));
        lines.extend(failure.log_tail.iter().map(|line| format!("    | {line}")));
        lines.extend(engine.log.iter().map(|log| format!("    its log: {log}")));
    }
    lines.extend(across::findings(run));
    lines.extend(run.engines.iter().flat_map(other_settings));
    lines.extend(verify::findings(run));
    lines.extend(weights::conversions(run));
    lines.extend(run.calibration.iter().flat_map(calibration::findings));
    if run.request_lines_lost > 0 {
        lines.push(format!(
            "! {} requests are counted but missing from requests.jsonl: the disk was too slow",
            run.request_lines_lost
        ));
    }
    lines.extend(run.notes.iter().map(|note| format!("- {note}")));
    lines
}

/// A verdict on an engine under a load.
#[derive(Debug)]
pub(super) struct Judged {
    pub engine: String,
    /// The load in words.
    pub load: String,
    /// How many of its repeats share the verdict; empty where there is one.
    pub repeats: String,
    /// The verdict with the figures of the first of them.
    pub words: String,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}{}: {}",
            self.engine, self.load, self.repeats, self.words
        )
    }
}

/// The verdicts on all steps. Repeats that share one are told once.
pub(super) fn verdicts(run: &RunResult) -> Vec<Judged> {
    let loads = Loads::of(run);
    let labels = loads.labels();
    // Where runs are summed up by their medians, there is no percentile to doubt.
    let told = |verdict: &Verdict| !(single::sums_up(run) && *verdict == Verdict::FewSamples);
    let mut judged = Vec::new();
    for cell in cells(&run.steps) {
        let mut found: Vec<(Verdict, Vec<&StepResult>)> = Vec::new();
        for step in &cell {
            for verdict in step.verdicts.iter().filter(|verdict| told(verdict)) {
                match found.iter_mut().find(|(known, _)| known == verdict) {
                    Some((_, steps)) => steps.push(step),
                    None => found.push((*verdict, vec![step])),
                }
            }
        }
        for (which, steps) in found {
            let repeats = match cell.len() {
                1 => String::new(),
                n => format!(", {} of {n} repeats", steps.len()),
            };
            let step = steps[0];
            judged.push(Judged {
                engine: step.facts.engine.clone(),
                load: labels[loads.load(step)].label.clone(),
                repeats,
                words: verdict(which, step),
            });
        }
    }
    judged
}

/// So many users.
pub fn users(n: u32) -> String {
    format!("{n} user{}", if n == 1 { "" } else { "s" })
}

/// Settings that an engine took in another way than it was asked to. More context than asked for is room left over.
fn other_settings(engine: &EngineResult) -> Vec<String> {
    let number = |settings: &Map<String, Value>, key: &str| settings.get(key).and_then(Value::as_u64);
    let differs = |key: &str, has: u64, wanted: u64| match key {
        "context" => has < wanted,
        _ => has != wanted,
    };
    let line = |(key, words)| {
        let (wanted, has) = (number(&engine.wanted, key)?, number(&engine.effective, key)?);
        differs(key, has, wanted)
            .then(|| format!("! {} has {has} {words}, {wanted} were asked for", engine.name))
    };
    let numbers = [
        ("parallel", "sequences at once"),
        ("context", "tokens of context for each"),
        ("threads", "threads"),
    ];
    numbers
        .into_iter()
        .filter_map(line)
        .chain(other_device(engine))
        .collect()
}

/// A device of another kind than was asked for: `cuda` may be any of the cards, `cuda:1` and `cuda:0` are of one kind.
fn other_device(engine: &EngineResult) -> Option<String> {
    let device = |settings: &Map<String, Value>| settings.get("device")?.as_str().map(str::to_lowercase);
    let (wanted, has) = (device(&engine.wanted)?, device(&engine.effective)?);
    let kind = |device: &str| device.split(':').next().map(str::to_owned);
    (kind(&wanted) != kind(&has))
        .then(|| format!("! {} computes on {has}, {wanted} was asked for", engine.name))
}

/// Where the files are.
pub(super) fn files(dir: &Path) -> String {
    format!(
        "{}: report.html, run.json, requests.jsonl, timeline.csv, hdr/, what engines logged and told",
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn a_device_of_another_kind_is_pointed_out() {
        let mut engine = finished_run().engines.remove(0);
        let mut found = |wanted: &str, has: &str| {
            engine.wanted.insert("device".into(), wanted.into());
            engine.effective.insert("device".into(), has.into());
            other_settings(&engine)
        };
        assert_eq!(found("cuda", "cuda:0"), Vec::<String>::new());
        assert_eq!(
            found("cuda:1", "cpu"),
            ["! candle computes on cpu, cuda:1 was asked for"]
        );
    }
}
