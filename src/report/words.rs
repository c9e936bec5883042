//! What stands above and below the tables, in plain words.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::calibration;
use super::columns::significant;
use crate::measure::result::{RunResult, Status, StepResult, Verdict};

/// The name of a unit variant as it stands in `run.json`.
pub(super) fn snake(variant: impl Serialize) -> String {
    match serde_json::to_value(variant) {
        Ok(Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}

/// What was tested, in one or two lines.
pub(super) fn heading(run: &RunResult) -> String {
    let profile = run
        .profile_name()
        .map_or_else(String::new, |name| format!(", profile {name}"));
    let model = match run.model.name.as_str() {
        "" => String::new(),
        name => format!(", model {name}"),
    };
    let mut text = format!(
        "loadtest {}{profile}{model}, {}\n",
        run.loadtest_version, run.started_at
    );
    let ended = match run.status {
        Status::Done => None,
        Status::Running => Some("This run did not come to its end."),
        Status::Interrupted => Some("This run was interrupted; what follows was measured before."),
        Status::Failed => Some("This run failed; what follows was measured before."),
    };
    if let Some(ended) = ended {
        text.push_str(ended);
        text.push('\n');
    }
    text
}

/// Everything that a reader must know besides the numbers: verdicts, failed engines, notes.
pub(super) fn findings(run: &RunResult) -> Vec<String> {
    let mut lines = Vec::new();
    for step in &run.steps {
        let name = format!("{}, {} users", step.facts.engine, step.facts.users);
        lines.extend(
            step.verdicts
                .iter()
                .map(|v| format!("! {name}: {}", verdict(*v, step))),
        );
    }
    for engine in &run.engines {
        let Some(failure) = &engine.failure else { continue };
        let exit = failure
            .exit
            .as_ref()
            .map_or_else(String::new, |exit| format!(" ({exit})"));
        lines.push(format!("! {} failed{exit}: {}", engine.name, failure.message));
        lines.extend(failure.log_tail.iter().map(|line| format!("    | {line}")));
        lines.extend(engine.log.iter().map(|log| format!("    its log: {log}")));
    }
    lines.extend(run.calibration.iter().flat_map(calibration::findings));
    if run.request_lines_lost > 0 {
        lines.push(format!(
            "! {} requests are counted but missing from requests.jsonl: the disk was too slow",
            run.request_lines_lost
        ));
    }
    lines.extend(run.notes.iter().map(|note| format!("- {note}")));
    lines
}

/// A verdict with its figures.
fn verdict(verdict: Verdict, s: &StepResult) -> String {
    let number = |x: Option<f64>| x.map_or_else(|| "unknown".to_owned(), significant);
    let seen = &s.concurrency;
    match verdict {
        Verdict::NoSamples if s.requests.sent == 0 => {
            "no request was sent inside the window: requests take longer than it lasts; try a longer --duration"
                .to_owned()
        }
        Verdict::NoSamples => "no request succeeded".to_owned(),
        Verdict::Errors => {
            let kinds: Vec<_> = s
                .errors
                .iter()
                .map(|(kind, n)| format!("{} {n}", snake(kind)))
                .collect();
            let (failed, sent) = (s.requests.failed, s.requests.sent);
            format!(
                "{failed} of {sent} requests failed ({}); latencies are of the others",
                kinds.join(", ")
            )
        }
        Verdict::ClientLimited => format!(
            "client-limited: the client's own error (p99 {} ms) is above 1 ms or 5 % of TTFT p50 ({} ms)",
            number(s.client.error_p99_ms),
            number(s.ttft_ms.p50)
        ),
        Verdict::ConcurrencyShort => {
            format!(
                "{} users were claimed, {} were in flight",
                seen.claimed,
                significant(seen.observed)
            )
        }
        Verdict::MostlyWaiting => format!(
            "of {} requests in flight only {} were receiving tokens; the others waited for their first",
            significant(seen.observed),
            significant(seen.streaming)
        ),
        Verdict::LittlesLaw => format!(
            "not steady: throughput times latency says {} in flight, {} were",
            number(seen.littles_law),
            significant(seen.observed)
        ),
        Verdict::ShortOutput => format!(
            "answers were shorter than asked: {} tokens on average, {} wanted",
            significant(s.tokens.output as f64 / s.requests.ok.max(1) as f64),
            s.facts.osl.mean
        ),
        Verdict::TokensAreEvents => {
            "the server told no usage: output events are counted as tokens".to_owned()
        }
        Verdict::FewSamples => format!("TTFT p99 rests on {} requests; 662 are needed", s.ttft_ms.n),
        Verdict::Resent => format!(
            "{} requests were sent a second time: the server closes connections that it said it keeps open",
            s.resent
        ),
        Verdict::GooseMismatch => {
            let goose = s.goose.map_or((0, 0), |g| (g.ok, g.failed));
            let (ok, failed) = (s.requests_all.ok, s.requests_all.failed);
            format!(
                "goose counted {} + {} failed requests, the client {ok} + {failed}",
                goose.0, goose.1
            )
        }
    }
}

/// Where the files are.
pub(super) fn files(dir: &Path) -> String {
    format!(
        "{}: run.json, requests.jsonl, timeline.csv, hdr/, engine logs",
        dir.display()
    )
}
