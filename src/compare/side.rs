//! The two sides of a comparison: a run and one engine of it.

use crate::measure::result::{Load, RunResult, StepResult};
use crate::measure::{cells, load_of};

/// One side.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    /// The run.
    pub run: &'a RunResult,
    /// The engine, by its name in the run.
    pub engine: String,
    /// What it is called in the comparison.
    pub label: String,
}

/// Why two runs give nothing to compare.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SideError {
    /// A run has no steps of the engine asked for.
    #[error("{run} measured no engine `{engine}`; it has {known}")]
    NoEngine {
        /// The run.
        run: String,
        /// The engine asked for.
        engine: String,
        /// Those that it has.
        known: String,
    },
    /// One run with one engine.
    #[error("{run} measured {known} alone: name a second run, as in `loadtest compare last~1 last`")]
    Alone {
        /// The run.
        run: String,
        /// Its engine.
        known: String,
    },
    /// A run with many engines, and none is named.
    #[error("{run} measured {known}: say which to compare, the baseline first, by --engine A,B")]
    Which {
        /// The run.
        run: String,
        /// Its engines.
        known: String,
    },
    /// Two runs without a common engine, and at least one of them with many.
    #[error(
        "no engine is in both {first} ({of_first}) and {second} ({of_second}): name one of each, as RUN:ENGINE"
    )]
    NoneInBoth {
        /// The first run.
        first: String,
        /// Its engines.
        of_first: String,
        /// The second run.
        second: String,
        /// Its engines.
        of_second: String,
    },
}

/// A run as it was named, with the engine if one was named with it.
pub type Named<'a> = (&'a RunResult, String, Option<String>);

/// What is held against what, the baseline first. One run: its engines, those of `engines` or both that it has, the first
/// against each other. Two runs: the engine named with each; else every engine, or those of `engines`, that is in both;
/// else the only one of each.
///
/// # Errors
/// When that leaves nothing, or too much.
pub fn pair_up<'a>(
    first: &Named<'a>,
    second: Option<&Named<'a>>,
    engines: &[String],
) -> Result<Vec<(Side<'a>, Side<'a>)>, SideError> {
    let Some(second) = second else {
        return within(first, engines);
    };
    if first.2.is_some() || second.2.is_some() {
        return Ok(vec![(
            only(first, second.2.as_ref())?,
            only(second, first.2.as_ref())?,
        )]);
    }
    for engine in engines {
        has(first, engine)?;
        has(second, engine)?;
    }
    let (of_first, of_second) = (measured(first.0), measured(second.0));
    let wanted = |engine: &&String| engines.is_empty() || engines.contains(engine);
    let both: Vec<&String> = of_first
        .iter()
        .filter(|e| of_second.contains(e))
        .filter(wanted)
        .collect();
    match (both.is_empty(), of_first.as_slice(), of_second.as_slice()) {
        (false, ..) => Ok(both
            .iter()
            .map(|e| (side(first, e, true), side(second, e, true)))
            .collect()),
        (true, [a], [b]) => Ok(vec![(side(first, a, true), side(second, b, true))]),
        _ => Err(SideError::NoneInBoth {
            first: first.1.clone(),
            of_first: of_first.join(", "),
            second: second.1.clone(),
            of_second: of_second.join(", "),
        }),
    }
}

/// Engines of one run.
fn within<'a>(run: &Named<'a>, engines: &[String]) -> Result<Vec<(Side<'a>, Side<'a>)>, SideError> {
    for engine in engines {
        has(run, engine)?;
    }
    let all = measured(run.0);
    let (name, known) = (run.1.clone(), all.join(", "));
    let chosen = match (engines, all.as_slice()) {
        ([], [_] | []) => return Err(SideError::Alone { run: name, known }),
        ([], [_, _]) => all,
        ([_, _, ..], _) => engines.to_vec(),
        _ => return Err(SideError::Which { run: name, known }),
    };
    let baseline = side(run, &chosen[0], false);
    Ok(chosen[1..]
        .iter()
        .map(|engine| (baseline.clone(), side(run, engine, false)))
        .collect())
}

/// The engine named with a run; else the one named with the other, if this has it; else the only one.
fn only<'a>(run: &Named<'a>, other: Option<&String>) -> Result<Side<'a>, SideError> {
    let all = measured(run.0);
    let engine = match (&run.2, other, all.as_slice()) {
        (Some(engine), ..) => engine.clone(),
        (None, Some(engine), _) if all.contains(engine) => engine.clone(),
        (None, _, [engine]) => engine.clone(),
        _ => {
            return Err(SideError::Which {
                run: run.1.clone(),
                known: all.join(", "),
            });
        }
    };
    has(run, &engine)?;
    Ok(side(run, &engine, true))
}

fn side<'a>(run: &Named<'a>, engine: &str, with_run: bool) -> Side<'a> {
    Side {
        run: run.0,
        engine: engine.to_owned(),
        label: match with_run {
            true => format!("{} {engine}", run.1),
            false => engine.to_owned(),
        },
    }
}

fn has(run: &Named<'_>, engine: &String) -> Result<(), SideError> {
    let known = measured(run.0);
    match known.contains(engine) {
        true => Ok(()),
        false => Err(SideError::NoEngine {
            run: run.1.clone(),
            engine: engine.clone(),
            known: if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            },
        }),
    }
}

/// The engines that have steps, in the order of the run.
fn measured(run: &RunResult) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for step in &run.steps {
        if !names.contains(&step.facts.engine) {
            names.push(step.facts.engine.clone());
        }
    }
    names
}

impl Side<'_> {
    /// Its steps by load.
    pub(super) fn loads(&self) -> Vec<(Load, Vec<&StepResult>)> {
        let cells = cells(&self.run.steps);
        let own = cells
            .into_iter()
            .filter(|cell| cell[0].facts.engine == self.engine);
        own.map(|cell| (load_of(cell[0]), cell)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::finished_run;

    fn labels(first: &Named<'_>, second: Option<&Named<'_>>, engines: &[&str]) -> String {
        let engines: Vec<String> = engines.iter().map(|e| (*e).to_owned()).collect();
        match pair_up(first, second, &engines) {
            Ok(pairs) => pairs
                .iter()
                .map(|(a, b)| format!("{} | {}\n", a.label, b.label))
                .collect(),
            Err(error) => format!("error: {error}\n"),
        }
    }

    #[test]
    fn sides_are_found_or_asked_for() {
        let both = finished_run();
        let mut candle = finished_run();
        candle.steps.retain(|step| step.facts.engine == "candle");
        let mut llamacpp = finished_run();
        llamacpp.steps.retain(|step| step.facts.engine == "llamacpp");
        let named = |run, name: &str, engine: Option<&str>| -> Named<'_> {
            (run, name.to_owned(), engine.map(str::to_owned))
        };
        let (a, b) = (named(&both, "A", None), named(&both, "B", None));
        let c = named(&candle, "C", None);
        let texts = [
            labels(&a, None, &[]),
            labels(&a, None, &["llamacpp", "candle"]),
            labels(&a, Some(&b), &[]),
            labels(&a, Some(&b), &["candle"]),
            labels(&a, Some(&c), &[]),
            labels(&named(&both, "A", Some("llamacpp")), Some(&c), &[]),
            labels(&c, Some(&named(&llamacpp, "L", None)), &[]),
            labels(&c, None, &[]),
            labels(&a, None, &["candle"]),
            labels(&a, None, &["candle", "vllm"]),
            labels(&named(&both, "A", Some("vllm")), Some(&c), &[]),
        ];
        insta::assert_snapshot!(texts.concat());
    }
}
