//! What to know besides the figures, told once for all steps that share it.

use serde::Serialize;

use crate::measure::result::RunResult;
use crate::report::words::{self, Judged};

/// A finding, and the lines of a log that belong to it.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub text: String,
    /// It limits what the figures say; else it is a note.
    pub warns: bool,
    pub log: Vec<String>,
}

pub(super) fn of(run: &RunResult) -> Vec<Finding> {
    let mut found = shared(words::verdicts(run));
    for line in words::of_run(run) {
        match (line.strip_prefix("    "), found.last_mut()) {
            (Some(log), Some(last)) => last.log.push(log.trim_start_matches("| ").to_owned()),
            _ => found.push(Finding {
                text: line.trim_start_matches(['!', '-', ' ']).to_owned(),
                warns: line.starts_with('!'),
                log: Vec::new(),
            }),
        }
    }
    found
}

/// An engine's verdicts that differ in nothing but figures: the first is told, and the loads of the others.
fn shared(judged: Vec<Judged>) -> Vec<Finding> {
    let mut told: Vec<(Judged, Vec<String>)> = Vec::new();
    for one in judged {
        let like = |(first, _): &&mut (Judged, Vec<String>)| {
            first.engine == one.engine && figureless(&first.words) == figureless(&one.words)
        };
        match told.iter_mut().find(like) {
            Some((_, others)) => others.push(one.load),
            None => told.push((one, Vec::new())),
        }
    }
    let worded = |(first, others): (Judged, Vec<String>)| Finding {
        text: match &others[..] {
            [] => first.to_string(),
            others => format!("{first} (with other figures at {} too)", others.join("; ")),
        },
        warns: true,
        log: Vec::new(),
    };
    told.into_iter().map(worded).collect()
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

    #[test]
    fn steps_that_share_a_finding_are_told_once() {
        let judged = |(engine, load, words): (&str, &str, &str)| Judged {
            engine: engine.to_owned(),
            load: load.to_owned(),
            repeats: String::new(),
            words: words.to_owned(),
        };
        let found = [
            ("a", "10 users", "TTFT p99 rests on 79 requests"),
            ("a", "10 users", "2.5 of 10 waited"),
            ("a", "40 users", "TTFT p99 rests on 12.5 requests"),
            ("b", "40 users", "TTFT p99 rests on 80 requests"),
            ("a", "1 user, 16/32 tokens", "TTFT p99 rests on 8 requests"),
        ];
        let told = shared(found.map(judged).into());
        let told: Vec<&str> = told.iter().map(|finding| &*finding.text).collect();
        assert_eq!(
            told,
            [
                "a, 10 users: TTFT p99 rests on 79 requests (with other figures at 40 users; 1 user, 16/32 tokens too)",
                "a, 10 users: 2.5 of 10 waited",
                "b, 40 users: TTFT p99 rests on 80 requests",
            ]
        );
    }
}
