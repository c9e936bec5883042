//! A row per step; a column is named by its path in `run.json`, joined by dots. Lists and intervals stay out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::measure::result::RunResult;

/// The steps of a run as CSV.
pub(super) fn text(run: &RunResult) -> String {
    let rows: Vec<BTreeMap<String, String>> = run
        .steps
        .iter()
        .map(|step| {
            let mut row = BTreeMap::new();
            flatten("", &serde_json::to_value(step).unwrap_or_default(), &mut row);
            row
        })
        .collect();
    let mut columns: Vec<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
    columns.sort_by_key(|name| {
        (
            !["engine", "repeat", "step", "users"].contains(&name.as_str()),
            *name,
        )
    });
    columns.dedup();
    let mut out = csv::Writer::from_writer(Vec::new());
    let cells = |row: &BTreeMap<String, String>| -> Vec<String> {
        columns
            .iter()
            .map(|c| row.get(*c).cloned().unwrap_or_default())
            .collect()
    };
    let written = out
        .write_record(&columns)
        .and_then(|()| rows.iter().try_for_each(|r| out.write_record(cells(r))));
    written.expect("writing to memory cannot fail, and every row has every column");
    String::from_utf8(out.into_inner().unwrap_or_default()).expect("made of text")
}

fn flatten(path: &str, value: &Value, row: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(fields) => {
            for (key, field) in fields.iter().filter(|(key, _)| *key != "ci95") {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, field, row);
            }
            return;
        }
        Value::Array(items) if items.iter().all(Value::is_string) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" "),
        Value::Array(_) => return,
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    row.insert(path.to_owned(), text);
}
