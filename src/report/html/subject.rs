//! What was tested: the head of the page.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::measure::result::{EngineResult, RunResult};
use crate::report::columns::significant;
use crate::report::loads::{Loads, Varies};
use crate::report::weights;

/// The head of the page.
#[derive(Debug, Serialize)]
pub(super) struct Subject {
    /// Engines and load in a line.
    pub title: String,
    /// What the engines are, one for each of the page's numbers.
    pub engines: Vec<Engine>,
    /// The forms in which they keep the weights, where these differ, in words.
    pub weights: Option<String>,
    /// What was asked of them: name and value.
    pub facts: Vec<(&'static str, String)>,
    /// Where, when and how exactly.
    pub circumstances: Vec<(&'static str, String)>,
}

/// An engine in the head.
#[derive(Debug, Serialize)]
pub(super) struct Engine {
    pub name: String,
    /// Kind, version, settings.
    pub words: String,
    pub failed: bool,
}

pub(super) fn of(loads: &Loads<'_>) -> Subject {
    let run = loads.run;
    let known = |name: &str| run.engines.iter().find(|engine| engine.name == name);
    let engine = |name: &&str| Engine {
        name: (*name).to_owned(),
        words: known(name).map(described).unwrap_or_default(),
        failed: known(name).is_some_and(|engine| engine.failure.is_some()),
    };
    Subject {
        title: title(loads),
        engines: loads.engines.iter().map(engine).collect(),
        weights: weights::forms(run),
        facts: facts(loads),
        circumstances: circumstances(loads),
    }
}

fn title(loads: &Loads<'_>) -> String {
    let engines = listed(&loads.engines);
    let users = span(loads.run.steps.iter().map(|step| u64::from(step.facts.users)));
    match users {
        Some(users) if users == "1" => format!("{engines} under 1 user"),
        Some(users) => format!("{engines} under {users} users"),
        None => engines,
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(names: &[&str]) -> String {
    match names {
        [] => "no engine".to_owned(),
        [one] => (*one).to_owned(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// `10 to 100`, or `64` when there is one value only.
fn span(values: impl Iterator<Item = u64>) -> Option<String> {
    let values: Vec<u64> = values.collect();
    let (low, high) = (values.iter().min()?, values.iter().max()?);
    Some(match low == high {
        true => low.to_string(),
        false => format!("{low} to {high}"),
    })
}

fn facts(loads: &Loads<'_>) -> Vec<(&'static str, String)> {
    let run = loads.run;
    let steps = &run.steps;
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("model", model(run));
    let input = span(steps.iter().map(|step| u64::from(step.facts.isl.mean)));
    let output = span(steps.iter().map(|step| u64::from(step.facts.osl.mean)));
    add(
        "requests",
        input
            .zip(output)
            .map(|(input, output)| format!("prompts of {input} tokens, answers of {output}, as asked for")),
    );
    let window = span(steps.iter().map(|step| step.window_s.round() as u64));
    let repeats = steps.iter().map(|step| step.facts.repeat + 1).max().unwrap_or(1);
    add(
        "measured",
        window.map(|window| {
            let sweep = match loads.varies() {
                Varies::Nothing => "",
                _ => " a step",
            };
            let repeats = match repeats {
                1 => String::new(),
                n => format!(", {n} repeats"),
            };
            let sent: u64 = steps.iter().map(|step| step.requests.sent).sum();
            format!("{window} s{sweep}{repeats}; {sent} requests")
        }),
    );
    facts
}

fn circumstances(loads: &Loads<'_>) -> Vec<(&'static str, String)> {
    let run = loads.run;
    let mut facts = Vec::new();
    let mut add = |name, value: Option<String>| facts.extend(value.map(|value| (name, value)));
    add("profile", run.profile_name().map(str::to_owned));
    add(
        "model's SHA-256",
        run.model.path_hash.clone().filter(|hash| !hash.is_empty()),
    );
    add("machine of the client", machine(&run.machine));
    let errors = run.steps.iter().filter_map(|step| step.client.error_p99_ms);
    add(
        "client's own error",
        errors
            .max_by(f64::total_cmp)
            .map(|ms| format!("at most {} ms at p99, in any step", significant(ms))),
    );
    let known_start = !run.started_at.starts_with("1970");
    add("started", known_start.then(|| run.started_at.clone()));
    add("by", Some(format!("loadtest {}", run.loadtest_version)));
    facts
}

fn model(run: &RunResult) -> Option<String> {
    let model = &run.model;
    let mut words = vec![model.name.clone()];
    words.extend(model.format.clone());
    words.extend(model.bytes.map(|bytes| format!("{} MB", bytes / 1_000_000)));
    let bits = |bits: f64| format!("{} bits per weight", (bits * 10.0).round() / 10.0);
    words.extend(model.bits_per_weight.map(bits));
    words.retain(|word| !word.is_empty());
    (!words.is_empty()).then(|| words.join(", "))
}

fn machine(machine: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| machine.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| machine.get(key).and_then(Value::as_u64);
    let mut words = Vec::new();
    words.extend(text("cpu_model"));
    words.extend(number("cpus").map(|cpus| format!("{cpus} processors")));
    words.extend(number("memory_bytes").map(|bytes| format!("{} GiB", bytes >> 30)));
    words.extend(text("os"));
    (!words.is_empty()).then(|| words.join(", "))
}

fn described(engine: &EngineResult) -> String {
    let mut words = vec![engine.kind.clone()];
    words.extend(engine.version.clone());
    let setting = |key: &str| engine.setting(key);
    for (key, name) in [
        ("parallel", "sequences at once"),
        ("threads", "threads"),
        ("batch", "prompt tokens a step"),
    ] {
        words.extend(
            setting(key)
                .and_then(Value::as_u64)
                .map(|value| format!("{value} {name}")),
        );
    }
    let device = setting("device").and_then(Value::as_str);
    words.extend(device.map(|device| format!("on {device}")));
    words.extend(setting("weights").and_then(Value::as_str).map(str::to_owned));
    words.extend(
        engine
            .load_s
            .map(|seconds| format!("loaded in {} s", significant(seconds))),
    );
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn the_head_says_what_was_tested() {
        let run = finished_run();
        let subject = of(&Loads::of(&run));
        assert_eq!(subject.title, "candle and llamacpp under 4 to 64 users");
        assert!(subject.engines[1].failed && !subject.engines[0].failed);
        let facts: Vec<_> = subject.facts.iter().map(|(name, _)| *name).collect();
        assert_eq!(facts, ["model", "requests", "measured"]);
        assert_eq!(subject.circumstances[0].0, "profile");
    }
}
