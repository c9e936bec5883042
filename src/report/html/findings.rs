//! What to know besides the figures, told once for all steps that share it.

use serde::Serialize;

use crate::measure::result::RunResult;
use crate::report::words;

/// A finding, and the lines of a log that belong to it.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub text: String,
    /// It limits what the figures say; else it is a note.
    pub warns: bool,
    pub log: Vec<String>,
}

pub(super) fn of(run: &RunResult) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for line in words::findings(run) {
        match (line.strip_prefix("    "), found.last_mut()) {
            (Some(log), Some(last)) => last.log.push(log.trim_start_matches("| ").to_owned()),
            _ => found.push(Finding {
                text: line.trim_start_matches(['!', '-', ' ']).to_owned(),
                warns: line.starts_with('!'),
                log: Vec::new(),
            }),
        }
    }
    shared(found)
}

/// An engine's steps whose findings differ in nothing but figures: the first is told, and the loads of the others.
fn shared(found: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<(Finding, Vec<String>)> = Vec::new();
    for finding in found {
        let same = step(&finding.text).and_then(|(engine, users, text)| {
            let like = |(first, _): &&mut (Finding, Vec<String>)| {
                step(&first.text)
                    .is_some_and(|(of, _, words)| of == engine && figureless(words) == figureless(text))
            };
            told.iter_mut()
                .find(like)
                .map(|(_, others)| others.push(users.to_owned()))
        });
        if same.is_none() {
            told.push((finding, Vec::new()));
        }
    }
    let worded = |(finding, others): (Finding, Vec<String>)| match &others[..] {
        [] => finding,
        others => Finding {
            text: format!(
                "{} (with other figures at {} users too)",
                finding.text,
                others.join(", ")
            ),
            ..finding
        },
    };
    told.into_iter().map(worded).collect()
}

/// Engine, users and words of a finding that is of a step.
fn step(text: &str) -> Option<(&str, &str, &str)> {
    let (step, words) = text.split_once(" users: ")?;
    let (engine, users) = step.rsplit_once(", ")?;
    users.parse::<u32>().is_ok().then_some((engine, users, words))
}

/// A text without its figures.
fn figureless(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_ascii_digit() && *c != '.')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(text: &str) -> Finding {
        Finding {
            text: text.to_owned(),
            warns: true,
            log: Vec::new(),
        }
    }

    #[test]
    fn steps_that_share_a_finding_are_told_once() {
        let found = [
            "a, 10 users: TTFT p99 rests on 79 requests",
            "a, 10 users: 2.5 of 10 waited",
            "a, 40 users: TTFT p99 rests on 12.5 requests",
            "b, 40 users: TTFT p99 rests on 80 requests",
            "a, 70 users: TTFT p99 rests on 8 requests",
            "one, two users: of no step",
        ];
        let told = shared(found.map(finding).into());
        let told: Vec<&str> = told.iter().map(|finding| &*finding.text).collect();
        assert_eq!(
            told,
            [
                "a, 10 users: TTFT p99 rests on 79 requests (with other figures at 40, 70 users too)",
                "a, 10 users: 2.5 of 10 waited",
                "b, 40 users: TTFT p99 rests on 80 requests",
                "one, two users: of no step",
            ]
        );
    }
}
