//! In what else two sides differ: what a difference of their figures may come from.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::Side;
use crate::measure::result::{EngineResult, RunResult};

/// What kind of condition differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Differs {
    /// What was sent, and how it was measured.
    Load,
    /// The model.
    Model,
    /// The machine that made the load.
    Machine,
    /// The version of loadtest, or of the engine.
    Version,
    /// How the server was set up: often just what is compared.
    Server,
}

/// One condition that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Its kind.
    pub kind: Differs,
    /// Its name in `run.json`.
    pub name: String,
    /// The baseline's value.
    pub baseline: String,
    /// The candidate's value.
    pub candidate: String,
}

impl Condition {
    /// Whether figures under it must not be compared unasked.
    pub fn is_refused(&self) -> bool {
        self.kind != Differs::Server
    }
}

/// Keys of a profile that change no figure, or that are compared step by step.
const NO_CONDITION: [&str; 17] = [
    "name",
    "description",
    "engines",
    "url",
    "model",
    "users",
    "requests.shapes",
    "requests.headers",
    "requests.tokenizer",
    "requests.timeouts",
    "repeat",
    "stable",
    "order",
    "restart",
    "cool_down_s",
    "calibrate",
    "report",
];

/// Of a machine: what follows from the rest.
const NO_MACHINE: [&str; 1] = ["cpu_features"];

/// What differs between two sides. Engines of one run were measured under the same conditions.
pub(super) fn between(first: &Side<'_>, second: &Side<'_>) -> Vec<Condition> {
    if std::ptr::eq(first.run, second.run) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut take = |kind, changes: Vec<(String, String, String)>| {
        found.extend(changes.into_iter().map(|(name, baseline, candidate)| Condition {
            kind,
            name,
            baseline,
            candidate,
        }));
    };
    let (a, b) = (first.run, second.run);
    let (profiles, servers): (Vec<_>, Vec<_>) = changes(&a.profile, &b.profile, &NO_CONDITION)
        .into_iter()
        .partition(|(name, ..)| !name.starts_with("server.") && name != "client_cpus");
    take(Differs::Load, profiles);
    take(Differs::Model, models(a, b));
    take(Differs::Machine, machines(a, b));
    take(Differs::Version, versions(first, second));
    take(Differs::Server, servers);
    if first.engine == second.engine {
        let settings = |side: &Side<'_>| engine(side).map(|e| e.effective.clone()).unwrap_or_default();
        take(
            Differs::Server,
            changes(&settings(first), &settings(second), &["version", "memory_bytes"]),
        );
    }
    found
}

fn engine<'a>(side: &Side<'a>) -> Option<&'a EngineResult> {
    side.run.engines.iter().find(|engine| engine.name == side.engine)
}

/// The same content under another name is the same model.
fn models(a: &RunResult, b: &RunResult) -> Vec<(String, String, String)> {
    let (a, b) = (&a.model, &b.model);
    let hashes = a.path_hash.as_ref().zip(b.path_hash.as_ref());
    let differs = hashes.map_or(a.name != b.name, |(a, b)| a != b);
    let shown = |model: &crate::measure::result::ModelResult| match (&model.format, &model.path_hash) {
        (Some(format), Some(hash)) => format!("{} ({format}, sha256 {:.12})", model.name, hash),
        _ => model.name.clone(),
    };
    match differs {
        true => vec![("model".to_owned(), shown(a), shown(b))],
        false => Vec::new(),
    }
}

fn machines(a: &RunResult, b: &RunResult) -> Vec<(String, String, String)> {
    let mut found = changes(&a.machine, &b.machine, &NO_MACHINE);
    // What the kernel keeps for itself differs from one start of a machine to the next.
    let memory = |run: &RunResult| run.machine.get("memory_bytes").and_then(Value::as_f64);
    let alike = memory(a)
        .zip(memory(b))
        .is_some_and(|(a, b)| (a - b).abs() < 0.01 * a.max(b));
    found.retain(|(name, ..)| !(name == "memory_bytes" && alike));
    found
}

fn versions(first: &Side<'_>, second: &Side<'_>) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let mut say = |name: &str, a: &str, b: &str| {
        if a != b {
            found.push((name.to_owned(), a.to_owned(), b.to_owned()));
        }
    };
    say(
        "loadtest_version",
        &first.run.loadtest_version,
        &second.run.loadtest_version,
    );
    if first.engine == second.engine {
        let version = |side: &Side<'_>| engine(side).and_then(|e| e.version.clone()).unwrap_or_default();
        say(
            &format!("{} version", first.engine),
            &version(first),
            &version(second),
        );
    }
    found
}

/// The leaves of two objects that are not the same, by their path.
fn changes(a: &Map<String, Value>, b: &Map<String, Value>, but: &[&str]) -> Vec<(String, String, String)> {
    let leaves = |object: &Map<String, Value>| {
        let mut found = BTreeMap::new();
        flatten("", &Value::Object(object.clone()), &mut found);
        found
    };
    let (a, b) = (leaves(a), leaves(b));
    let left_out = |name: &&String| {
        but.iter().any(|key| {
            name.strip_prefix(key)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).filter(|name| !left_out(name)).collect();
    let shown = |leaves: &BTreeMap<String, String>, name: &String| {
        leaves.get(name).cloned().unwrap_or_else(|| "-".into())
    };
    names
        .into_iter()
        .map(|name| (name.clone(), shown(&a, name), shown(&b, name)))
        .filter(|(_, a, b)| a != b)
        .collect()
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, field, leaves);
            }
        }
        Value::Null => {}
        Value::String(text) => drop(leaves.insert(path.to_owned(), text.clone())),
        other => drop(leaves.insert(path.to_owned(), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::measure::fixture::finished_run;

    #[test]
    fn what_differs_is_named_with_its_kind() {
        let a = finished_run();
        let mut b = finished_run();
        b.profile = Map::from_iter([
            ("name".to_owned(), json!("other")),
            ("extent".to_owned(), json!({"duration_s": 60.0})),
            ("server".to_owned(), json!({"threads": 2})),
        ]);
        b.machine = Map::from_iter([
            ("cpus".to_owned(), json!(8)),
            ("cpu_features".to_owned(), json!(["avx2"])),
        ]);
        b.model.name = "gemma".to_owned();
        b.loadtest_version = "0.2.0".to_owned();
        b.engines[0].version = Some("9".to_owned());
        let side = |run| Side {
            run,
            engine: "candle".to_owned(),
            label: String::new(),
        };
        let found = between(&side(&a), &side(&b));
        let names: Vec<_> = found
            .iter()
            .map(|c| (c.kind, c.name.as_str(), c.candidate.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                (Differs::Load, "extent.duration_s", "60.0"),
                (Differs::Model, "model", "gemma"),
                (Differs::Machine, "cpus", "8"),
                (Differs::Version, "loadtest_version", "0.2.0"),
                (Differs::Version, "candle version", "9"),
                (Differs::Server, "server.threads", "2"),
            ]
        );
        assert!(between(&side(&a), &side(&a)).is_empty());
    }
}
