//! Whether the engines give the same answers: a table, and what must be said about it.

use std::fmt::Write;

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

use super::columns::significant;
use super::words::users;
use crate::measure::result::{
    Agreement, Cause, Difference, EngineAnswers, Gap, RunResult, StepResult, Verification,
};

/// Differences of one engine that are told one by one; `run.json` has all.
const TOLD: usize = 3;

/// What stands in the row of an engine without any.
const NO_ANSWER: &str = "no answer";

/// The table, if answers were verified; `markdown` for a document.
pub(super) fn table(run: &RunResult, markdown: bool) -> Option<String> {
    let found = run.verification.as_ref()?;
    let against = match &found.reference {
        Some(name) if found.engines.len() > 1 => format!(", against {name}'s"),
        _ => String::new(),
    };
    let mut text = format!(
        "greedy answers to {} prompts, up to {} tokens each{against}\n",
        found.prompts, found.max_tokens
    );
    let loaded = run.steps.iter().any(|step| step.verified.is_some());
    let mut builder = Builder::default();
    builder.push_record(head(loaded));
    for engine in &found.engines {
        let mut row = cells(found, engine);
        if loaded {
            row.push(under_load(run, &engine.engine));
        }
        builder.push_record(row);
    }
    for engine in never_asked(run, found) {
        let mut row = vec![engine.to_owned(), NO_ANSWER.to_owned()];
        row.resize(builder.count_columns(), "-".into());
        builder.push_record(row);
    }
    let mut table = builder.build();
    match markdown {
        true => table.with(Style::markdown()),
        false => table.with(Style::psql()),
    };
    table.modify(Columns::new(1..), Alignment::right());
    let gap = if markdown { "\n" } else { "" };
    writeln!(text, "{gap}{table}").expect("writing to a String cannot fail");
    Some(text)
}

/// The engines that failed before they could be asked.
fn never_asked<'a>(run: &'a RunResult, found: &'a Verification) -> impl Iterator<Item = &'a str> {
    let asked = |name: &str| found.engines.iter().any(|engine| engine.engine == name);
    let failed = run.engines.iter().filter(|engine| engine.failure.is_some());
    failed
        .map(|engine| &*engine.name)
        .filter(move |name| !asked(name))
}

fn head(loaded: bool) -> Vec<&'static str> {
    let mut head = vec![
        "engine",
        "same",
        "common prefix",
        "similarity",
        "near ties",
        "widest",
        "apart",
        "unknown",
    ];
    head.extend(loaded.then_some("same under load"));
    head
}

fn cells(found: &Verification, engine: &EngineAnswers) -> Vec<String> {
    let mut row = vec![engine.engine.clone()];
    match &engine.agreement {
        None => {
            let word = match (found.reference.as_ref() == Some(&engine.engine), &engine.failure) {
                (_, Some(_)) => NO_ANSWER,
                (true, None) => "reference",
                (false, None) => "-",
            };
            row.push(word.into());
            row.resize(8, "-".into());
        }
        Some(agreement) => row.extend(agreed(agreement)),
    }
    row
}

fn agreed(agreement: &Agreement) -> [String; 7] {
    let widest = agreement
        .differences
        .iter()
        .filter(|difference| difference.cause == Cause::NearTie)
        .filter_map(widest_gap)
        .max_by(f64::total_cmp);
    [
        format!("{}/{}", agreement.same, agreement.compared),
        format!(
            "{}/{}",
            significant(agreement.common_prefix_mean),
            significant(agreement.tokens_mean)
        ),
        format!("{:.2}", agreement.similarity_mean),
        agreement.near_ties.to_string(),
        widest.map_or_else(|| "-".to_owned(), significant),
        agreement.apart.to_string(),
        agreement.unknown.to_string(),
    ]
}

/// The wider of the two engines' preferences.
fn widest_gap(difference: &Difference) -> Option<f64> {
    let gaps = [difference.reference_gap, difference.other_gap];
    gaps.into_iter()
        .flatten()
        .map(|gap| gap.nats)
        .max_by(f64::total_cmp)
}

/// Over all steps of an engine.
fn under_load(run: &RunResult, engine: &str) -> String {
    let steps = run.steps.iter().filter(|step| step.facts.engine == engine);
    let (same, asked) = steps
        .filter_map(|step| step.verified.as_ref())
        .fold((0, 0), |(same, asked), found| {
            (same + found.same, asked + found.asked - found.late)
        });
    match asked {
        0 => "-".into(),
        _ => format!("{same}/{asked}"),
    }
}

/// What must be said of the answers.
pub(super) fn findings(run: &RunResult) -> Vec<String> {
    let Some(found) = &run.verification else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let reference = found.reference.as_deref().unwrap_or_default();
    for engine in &found.engines {
        let name = &engine.engine;
        if let Some(why) = &engine.failure {
            lines.push(format!("! {name} gave no answer to be verified: {why}"));
        }
        let silent = engine
            .answers
            .iter()
            .filter(|answer| answer.text.is_none())
            .count();
        if silent > 0 {
            lines.push(format!(
                "! {name} did not answer {silent} of {} prompts",
                found.prompts
            ));
        }
        if engine.unread > 0 {
            lines.push(format!(
                "! {name} told the log probabilities of {} answers in a form that is not understood: they are as if it had told \
                 none",
                engine.unread
            ));
        }
        lines.extend(
            engine
                .agreement
                .iter()
                .flat_map(|agreement| apart(name, reference, agreement)),
        );
        if let Some(counts) = engine.counts.filter(|counts| counts.differing > 0) {
            lines.push(format!(
                "! {name} counts its tokens in its own way: {} output tokens in {} answers, {} by the model's tokenizer; \
                 {} answers differ by more than an end token",
                counts.told, counts.answers, counts.counted, counts.differing
            ));
        }
    }
    lines.extend(prompt_counts(found));
    lines.extend(run.steps.iter().flat_map(loaded));
    lines
}

/// What a step's answers were, besides what the verdict `garbled` says.
fn loaded(step: &StepResult) -> Vec<String> {
    let Some(found) = &step.verified else {
        return Vec::new();
    };
    let name = format!("{}, {}", step.facts.engine, users(step.facts.users));
    let mut lines = Vec::new();
    if found.near_ties > 0 {
        let ties = found
            .differences
            .iter()
            .filter(|difference| difference.cause == Cause::NearTie);
        let widest = ties.filter_map(widest_gap).fold(0.0, f64::max);
        lines.push(format!(
            "- {name}: {} of {} answers under load part from those given alone at near ties (the widest {}), which the \
             order of a larger batch's sums explains",
            found.near_ties,
            found.answered(),
            significant(widest)
        ));
    }
    if let Some(why) = found.failures.first() {
        lines.push(format!(
            "! {name}: {} of {} prompts to be verified under load had no answer: {why}",
            found.failed, found.asked
        ));
    }
    if found.late > 0 {
        lines.push(format!(
            "! {name}: {} of {} prompts to be verified under load were not answered within the longest warm-up, and were \
             waited for no longer",
            found.late, found.asked
        ));
    }
    lines
}

fn apart(name: &str, reference: &str, agreement: &Agreement) -> Vec<String> {
    let apart = agreement
        .differences
        .iter()
        .filter(|difference| difference.cause == Cause::Apart);
    let mut lines: Vec<String> = apart
        .clone()
        .take(TOLD)
        .map(|difference| {
            format!(
                "! {name} is apart from {reference} at {}",
                place(difference, reference, name)
            )
        })
        .collect();
    let more = apart.count().saturating_sub(TOLD);
    if more > 0 {
        lines.push(format!("    and in {more} more answers; run.json has all"));
    }
    if agreement.unknown > 0 {
        lines.push(format!(
            "! {name} differs from {reference} in {} answers, and no log probabilities tell whether at near ties",
            agreement.unknown
        ));
    }
    lines
}

/// Where two answers differ first, in words; `first` and `second` are who gave them.
pub(super) fn place(difference: &Difference, first: &str, second: &str) -> String {
    let said = |token: &str| match token {
        "" => "its end".to_owned(),
        token => format!("{token:?}"),
    };
    let mut text = format!(
        "token {} of prompt {}: {first} has {}, {second} {}",
        difference.token + 1,
        difference.prompt + 1,
        said(&difference.reference),
        said(&difference.other),
    );
    let gaps = [(first, difference.reference_gap), (second, difference.other_gap)];
    for (who, gap) in gaps {
        let Some(Gap { nats, at_least }) = gap else {
            continue;
        };
        let more = if at_least { "more than " } else { "" };
        write!(text, "; {who} prefers its own by {more}{}", significant(nats))
            .expect("writing to a String cannot fail");
    }
    text
}

/// Engines that make other prompts of the same messages.
fn prompt_counts(found: &Verification) -> Option<String> {
    let sum = |engine: &EngineAnswers| -> Option<u64> {
        let told: Option<Vec<u64>> = engine.answers.iter().map(|answer| answer.prompt_tokens).collect();
        told.filter(|told| !told.is_empty()).map(|told| told.iter().sum())
    };
    let told: Vec<(&str, u64)> = found
        .engines
        .iter()
        .filter_map(|engine| Some((engine.engine.as_str(), sum(engine)?)))
        .collect();
    let differ = told.windows(2).any(|pair| pair[0].1 != pair[1].1);
    let each: Vec<String> = told
        .iter()
        .map(|(name, tokens)| format!("{name} {tokens}"))
        .collect();
    differ.then(|| {
        format!(
            "! engines count other tokens for the same {} prompts ({}): they use other chat templates, or count otherwise",
            found.prompts,
            each.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{finished_run, new_run};
    use crate::measure::result::{EngineFailure, EngineResult, KeptAnswer, TokenCounts, UnderLoad, Verdict};

    fn difference(token: u32, cause: Cause, nats: f64) -> Difference {
        let gap = |nats, at_least| Some(Gap { nats, at_least });
        Difference {
            prompt: token,
            token,
            reference: " is".into(),
            other: if cause == Cause::Unknown { "" } else { " was" }.into(),
            reference_gap: gap(nats, false).filter(|_| cause != Cause::Unknown),
            other_gap: gap(nats / 2.0, true).filter(|_| cause == Cause::Apart),
            similarity: 0.5,
            cause,
        }
    }

    fn answered(run: &mut RunResult) {
        let answers = |tokens| {
            let answer = KeptAnswer {
                text: Some("It is".into()),
                prompt_tokens: Some(tokens),
                ..KeptAnswer::default()
            };
            vec![answer; 2]
        };
        let differences = vec![
            difference(3, Cause::NearTie, 0.04),
            difference(5, Cause::NearTie, 0.62),
            difference(7, Cause::Apart, 3.5),
            difference(9, Cause::Unknown, 0.0),
        ];
        let agreement = Agreement {
            compared: 20,
            same: 16,
            near_ties: 2,
            apart: 1,
            unknown: 1,
            common_prefix_mean: 27.25,
            tokens_mean: 31.5,
            similarity_mean: 0.913,
            differences,
        };
        run.verification = Some(Verification {
            prompts: 20,
            max_tokens: 32,
            reference: Some("candle".into()),
            near_tie: 1.0,
            engines: vec![
                EngineAnswers {
                    engine: "candle".into(),
                    answers: answers(40),
                    ..EngineAnswers::default()
                },
                EngineAnswers {
                    engine: "llamacpp".into(),
                    answers: answers(38),
                    agreement: Some(agreement),
                    counts: Some(TokenCounts {
                        answers: 20,
                        differing: 4,
                        told: 640,
                        counted: 610,
                    }),
                    unread: 1,
                    ..EngineAnswers::default()
                },
                EngineAnswers {
                    engine: "pytorch".into(),
                    failure: Some("HTTP 500: out of memory".into()),
                    ..EngineAnswers::default()
                },
            ],
        });
    }

    #[test]
    fn answers_alone() {
        let mut run = new_run();
        answered(&mut run);
        run.engines.push(EngineResult {
            name: "ollama".into(),
            failure: Some(EngineFailure::default()),
            ..EngineResult::default()
        });
        let text = table(&run, false).unwrap() + &findings(&run).join("\n");
        insta::assert_snapshot!(text);
        assert!(table(&run, true).unwrap().contains("|---"));
    }

    #[test]
    fn answers_under_load() {
        let mut run = finished_run();
        answered(&mut run);
        run.steps[1].verified = Some(UnderLoad {
            asked: 6,
            same: 1,
            near_ties: 1,
            garbled: 1,
            failed: 1,
            late: 2,
            failures: vec!["HTTP 429: the queue is full".into()],
            differences: vec![
                difference(2, Cause::NearTie, 0.1),
                difference(4, Cause::Apart, 6.0),
            ],
        });
        let said = loaded(&run.steps[1]).join("\n");
        insta::assert_snapshot!(table(&run, false).unwrap() + &said);
        let words = super::super::verdict::verdict(Verdict::Garbled, &run.steps[1]);
        insta::assert_snapshot!("garbled", words);
    }
}
