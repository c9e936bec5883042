//! The results in the forms of other tools. One form a file.

mod aiperf;
mod guidellm;
mod junit;
mod openmetrics;
mod vllm;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::render;
use crate::measure::result::{RunResult, StepResult};
use crate::profile::{Export, Format};

/// Writes the run in these forms into `export/` of its folder, and names what was written.
///
/// # Errors
/// When a file cannot be written.
pub fn export(run: &RunResult, dir: &Path, forms: &[Export]) -> io::Result<Vec<PathBuf>> {
    let folder = dir.join("export");
    let mut written = Vec::new();
    for form in forms {
        for (name, text) in files(run, *form) {
            fs::create_dir_all(&folder)?;
            let path = folder.join(name);
            fs::write(&path, text)?;
            written.push(path);
        }
    }
    Ok(written)
}

/// The files of a form: their names and what is in them.
fn files(run: &RunResult, form: Export) -> Vec<(String, String)> {
    let steps = |tool: &str, of: fn(&RunResult, &StepResult) -> Value| {
        let file = |step: &StepResult| (format!("{tool}-{}.json", stem(step)), json(&of(run, step)));
        run.steps.iter().map(file).collect()
    };
    match form {
        Export::Aiperf => steps("aiperf", aiperf::step),
        Export::Vllm => steps("vllm", vllm::step),
        Export::Guidellm => {
            let engines = run.engines.iter().map(|engine| &engine.name);
            let file = |name: &String| {
                (
                    format!("guidellm-{name}.json"),
                    json(&guidellm::engine(run, name)),
                )
            };
            engines.map(file).collect()
        }
        Export::Csv => vec![("steps.csv".into(), render(run, Format::Csv, 0, None))],
        Export::Markdown => vec![("report.md".into(), render(run, Format::Markdown, 0, None))],
        Export::Junit => vec![("junit.xml".into(), junit::text(run))],
        Export::Openmetrics => vec![("metrics.txt".into(), openmetrics::text(run))],
    }
}

fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A step in words.
fn title(step: &StepResult) -> String {
    let facts = &step.facts;
    format!(
        "{} users, ISL {}, OSL {}, repeat {}",
        facts.users,
        facts.isl.mean,
        facts.osl.mean,
        facts.repeat + 1
    )
}

/// A step as part of a file's name.
fn stem(step: &StepResult) -> String {
    let facts = &step.facts;
    format!("{:02}-{}-{}", facts.step, facts.engine, facts.users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    /// Where `ours` has a key that a file of the tool itself has not, or another kind of value under it. Of a list the
    /// first element is looked at; a `null` of ours says that we do not know.
    fn differences(path: &str, ours: &Value, theirs: &Value, found: &mut Vec<String>) {
        match (ours, theirs) {
            (Value::Null, _) => {}
            (Value::Object(ours), Value::Object(theirs)) => {
                for (key, value) in ours {
                    let path = format!("{path}/{key}");
                    match theirs.get(key) {
                        Some(theirs) if key == "unit" && value != theirs => {
                            found.push(format!("{path}: {value}, not {theirs}"))
                        }
                        Some(theirs) => differences(&path, value, theirs, found),
                        None => found.push(format!("{path}: no such key")),
                    }
                }
            }
            (Value::Array(ours), Value::Array(theirs)) => {
                if let (Some(ours), Some(theirs)) = (ours.first(), theirs.first()) {
                    differences(&format!("{path}/0"), ours, theirs, found);
                }
            }
            (ours, theirs) if std::mem::discriminant(ours) == std::mem::discriminant(theirs) => {}
            _ => found.push(format!("{path}: {ours}, not like {theirs}")),
        }
    }

    /// Holds each file of a form against one that the tool itself wrote.
    fn held_against(form: Export, real: &str) {
        let theirs = serde_json::from_str(real).unwrap();
        let files = files(&finished_run(), form);
        assert!(!files.is_empty());
        for (name, text) in files {
            let mut found = Vec::new();
            differences("", &serde_json::from_str(&text).unwrap(), &theirs, &mut found);
            assert!(found.is_empty(), "{name}: {found:#?}");
        }
    }

    #[test]
    fn aiperf_has_the_keys_and_units_that_aiperf_writes() {
        held_against(Export::Aiperf, include_str!("testdata/aiperf.json"));
    }

    #[test]
    fn vllm_has_the_keys_that_vllm_writes() {
        held_against(Export::Vllm, include_str!("testdata/vllm.json"));
    }

    #[test]
    fn guidellm_has_the_keys_that_guidellm_writes() {
        held_against(Export::Guidellm, include_str!("testdata/guidellm.json"));
    }

    #[test]
    fn junit_fails_the_gates_that_failed() {
        let files = files(&finished_run(), Export::Junit);
        insta::assert_snapshot!("junit", files[0].1);
    }

    #[test]
    fn openmetrics_has_every_step() {
        let files = files(&finished_run(), Export::Openmetrics);
        let text = &files[0].1;
        assert!(text.ends_with("# EOF\n"));
        let ttft = text
            .lines()
            .filter(|line| line.starts_with("loadtest_ttft_seconds{"));
        assert_eq!(ttft.count(), 4 * 5, "four steps, five quantiles");
        // Samples of a metric come in no order.
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("users=\"64\""))
            .collect();
        lines.sort_unstable();
        insta::assert_snapshot!("openmetrics", lines.join("\n"));
    }

    #[test]
    fn files_are_written_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let written = export(&finished_run(), dir.path(), &[Export::Csv, Export::Markdown]).unwrap();
        assert_eq!(
            written,
            ["steps.csv", "report.md"].map(|name| dir.path().join("export").join(name))
        );
        assert!(written.iter().all(|path| path.metadata().unwrap().len() > 0));
        assert!(export(&finished_run(), dir.path(), &[]).unwrap().is_empty());
    }
}
