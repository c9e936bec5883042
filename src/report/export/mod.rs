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

use super::{Format, render};
use crate::measure::result::{RunResult, StepResult};

/// A form that other tools read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// The JSON of aiperf, a file for each step.
    Aiperf,
    /// The JSON of vLLM's `vllm bench serve`, a file for each step.
    Vllm,
    /// The JSON of guidellm, a file for each engine.
    Guidellm,
    /// A row for each step.
    Csv,
    /// A table in Markdown.
    Markdown,
    /// JUnit XML.
    Junit,
    /// OpenMetrics text.
    Openmetrics,
}

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
