//! `loadtest compare`.

use std::path::Path;

use anyhow::{anyhow, bail};

use crate::cli::{self, CompareFormat};
use crate::compare::{self, Comparison, Condition, Gate, Held, Named, Ruling, pair_up};
use crate::measure::result::RunResult;
use crate::measure::{Metric, find, open, refill};
use crate::report;
use crate::run::{Ending, Usage};

/// Compares two runs, or engines of one, and says whether a gate failed.
///
/// # Errors
/// [`Usage`] for a wrong metric, gate or engine, and for runs made under other conditions; else a run that cannot be read.
pub fn compare(asked: &cli::Compare) -> anyhow::Result<Ending> {
    let gates: Vec<Gate> = asked
        .fail_on
        .iter()
        .map(|text| text.parse().map_err(|error| Usage(anyhow!("--fail-on: {error}"))))
        .collect::<Result<_, _>>()?;
    if gates.is_empty() && asked.format == CompareFormat::Junit {
        return Err(Usage(anyhow!(
            "--format junit shows gates: give one or more by --fail-on"
        ))
        .into());
    }
    let metrics: Vec<&Metric> = asked
        .metric
        .iter()
        .map(|name| Metric::find(name).map_err(|error| Usage(anyhow!("--metric: {error}"))))
        .collect::<Result<_, _>>()?;
    let runs: Vec<Run> = asked
        .runs
        .iter()
        .map(|name| Run::open(name))
        .collect::<Result<_, _>>()?;
    let named: Vec<Named<'_>> = runs.iter().map(Run::named).collect();
    let (Some(first), second) = (named.first(), named.get(1)) else {
        bail!("there is nothing to compare");
    };
    let pairs = pair_up(first, second, &asked.engine).map_err(|error| Usage(error.into()))?;
    let mut found = compare::compare(&pairs, &metrics);
    if let Some(why) = incomparable(&found, asked.anyway) {
        if asked.format == CompareFormat::Junit {
            found.gates = gates.iter().map(|gate| gate.incomparable(&why)).collect();
            report::print(&report::gates_junit(&found))?;
        }
        return Err(Usage(anyhow!(why)).into());
    }
    found.gates = gates.iter().map(|gate| gate.hold(&found)).collect();
    let text = match asked.format {
        CompareFormat::Table => report::comparison(&found),
        CompareFormat::Json => format!("{}\n", serde_json::to_string_pretty(&found)?),
        CompareFormat::Markdown => report::comparison_markdown(&found),
        CompareFormat::Junit => report::gates_junit(&found),
    };
    report::print(&text)?;
    Ok(ending(&found.gates))
}

fn ending(gates: &[Held]) -> Ending {
    let any = |ruling| gates.iter().any(|held| held.ruling == ruling);
    if any(Ruling::Failed) {
        Ending::Gate
    } else if any(Ruling::Incomparable) {
        // A gate on what nobody measured holds nothing.
        Ending::Failed
    } else {
        Ending::Done
    }
}

/// Why the two must not be compared, if so.
fn incomparable(found: &Comparison, anyway: bool) -> Option<String> {
    let refused = refused(found);
    if !anyway && !refused.is_empty() {
        let shown = report::conditions(&refused);
        return Some(format!(
            "these were not made under the same conditions:\n{shown}--anyway compares them all the same"
        ));
    }
    let nothing = found.pairs.iter().all(|pair| pair.cells.is_empty());
    nothing.then(|| format!("they have no load in common: {}", alone(found)))
}

fn refused(found: &Comparison) -> Vec<Condition> {
    let all = found.pairs.iter().flat_map(|pair| &pair.differs);
    let mut refused: Vec<Condition> = Vec::new();
    for condition in all.filter(|condition| condition.is_refused()) {
        if !refused.contains(condition) {
            refused.push(condition.clone());
        }
    }
    refused
}

fn alone(found: &Comparison) -> String {
    let all: Vec<&str> = found
        .pairs
        .iter()
        .flat_map(|pair| &pair.alone)
        .map(String::as_str)
        .collect();
    all.join(", ")
}

/// A run as the user named it.
struct Run {
    result: RunResult,
    name: String,
    engine: Option<String>,
}

impl Run {
    /// `RUN` or `RUN:ENGINE`; a folder may have a colon in its name.
    fn open(text: &str) -> anyhow::Result<Run> {
        let root = Path::new("results");
        let (dir, engine) = match (find(root, text), text.rsplit_once(':')) {
            (Ok(dir), _) => (dir, None),
            (Err(_), Some((run, engine))) if !run.is_empty() => (find(root, run)?, Some(engine.to_owned())),
            (Err(error), _) => return Err(error.into()),
        };
        let mut result = open(&dir)?;
        refill(&dir, &mut result)?;
        let name = dir
            .file_name()
            .map_or_else(|| text.to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(Run { result, name, engine })
    }

    fn named(&self) -> Named<'_> {
        (&self.result, self.name.clone(), self.engine.clone())
    }
}
