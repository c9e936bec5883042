//! A run that was cut short, computed again from its `requests.jsonl`.
//!
//! A line holds no gaps between tokens, so ITL and ICL stay empty, and a request's tokens are spread evenly between
//! its first and last output. Everything else follows the definitions of a finished step.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use super::across::across_steps;
use super::latencies::Times;
use super::requests::{self, RequestLine};
use super::result::{
    ClientResult, ErrorParts, RunResult, SequenceLength, Status, StepFacts, StepResult, Verdict,
};
use super::rows::Row;
use super::store::{StoreError, load};
use super::streams::Streams;
use super::summary::{StepContext, summarise};
use super::{Outcome, Sample, StepRecord, TokenSource, Window};

/// Opens any run: a finished one as it was saved; one that was killed with its last step computed again from
/// `requests.jsonl`.
///
/// # Errors
/// When the directory holds neither a readable `run.json` nor a readable `requests.jsonl`.
pub fn open(dir: &Path) -> Result<RunResult, StoreError> {
    let loaded = load(dir);
    let path = dir.join("requests.jsonl");
    let mut run = match loaded {
        Ok(run) if run.unfinished.is_none() => return Ok(run),
        Ok(run) => run,
        Err(newer @ StoreError::Newer { .. }) => return Err(newer),
        Err(error) if !path.is_file() => return Err(error),
        Err(error) => {
            let mut run = RunResult::new(chrono::DateTime::UNIX_EPOCH, serde_json::Map::new());
            let cause = error.source().map(|cause| format!(": {cause}"));
            run.notes.push(format!(
                "{error}{}; everything was computed again from requests.jsonl",
                cause.unwrap_or_default()
            ));
            run
        }
    };
    let reading = |source| StoreError::Read {
        path: path.clone(),
        source,
    };
    let known: Vec<u16> = run.steps.iter().map(|step| step.facts.step).collect();
    let (mut bounds, mut skipped) = (BTreeMap::new(), 0);
    if path.is_file() {
        skipped = requests::read(&path, |line| {
            if !known.contains(&line.sample.step) {
                bounds
                    .entry(line.sample.step)
                    .or_insert_with(|| Bounds::of(&line))
                    .widen(&line);
            }
        })
        .map_err(reading)?;
    }
    let unfinished = run.unfinished.take();
    let mut replays: BTreeMap<u16, Replay> = bounds
        .into_iter()
        .map(|(step, b)| (step, Replay::new(step, b, unfinished.as_ref())))
        .collect();
    if !replays.is_empty() {
        requests::read(&path, |line| {
            if let Some(replay) = replays.get_mut(&line.sample.step) {
                replay.add(&line.sample);
            }
        })
        .map_err(reading)?;
    }
    for replay in replays.into_values() {
        run.notes.push(replay.note());
        run.steps.push(replay.result());
    }
    if skipped > 0 {
        run.notes.push(format!(
            "{skipped} lines of requests.jsonl could not be read and were left out"
        ));
    }
    if run.status == Status::Running {
        run.notes.push("the run did not come to its end".to_owned());
    }
    across_steps(&mut run);
    Ok(run)
}

/// What must be known of a step's lines before they can be counted.
struct Bounds {
    engine: String,
    first_due_ns: u64,
    latest_ns: u64,
    last_user: u32,
}

impl Bounds {
    fn of(line: &RequestLine) -> Bounds {
        let engine = line.engine.clone().into_owned();
        Bounds {
            engine,
            first_due_ns: line.sample.due_ns,
            latest_ns: line.sample.latest_ns(),
            last_user: line.sample.user,
        }
    }

    fn widen(&mut self, line: &RequestLine) {
        let line = &line.sample;
        self.first_due_ns = self.first_due_ns.min(line.due_ns);
        self.latest_ns = self.latest_ns.max(line.latest_ns());
        self.last_user = self.last_user.max(line.user);
    }
}

/// A step that is being counted again.
struct Replay {
    facts: StepFacts,
    record: StepRecord,
    streams: Streams,
    window_known: bool,
}

impl Replay {
    fn new(step: u16, bounds: Bounds, unfinished: Option<&StepFacts>) -> Replay {
        let facts = unfinished
            .filter(|facts| facts.step == step)
            .cloned()
            .unwrap_or(StepFacts {
                step,
                engine: bounds.engine,
                repeat: 0,
                users: bounds.last_user + 1,
                rate: None,
                isl: SequenceLength::default(),
                osl: SequenceLength::default(),
                window_start_ns: None,
            });
        let opened = facts.window_start_ns.filter(|start| *start < bounds.latest_ns);
        let window = Window {
            start_ns: opened.unwrap_or(bounds.first_due_ns),
            end_ns: bounds.latest_ns,
        };
        Replay {
            streams: Streams::new(bounds.first_due_ns),
            record: StepRecord::empty(window, facts.users),
            facts,
            window_known: opened.is_some(),
        }
    }

    fn note(&self) -> String {
        let window = if self.window_known {
            ""
        } else {
            "; its window had not opened, so all of it is counted"
        };
        format!(
            "step {} ({}, {} users) was cut short and computed again from requests.jsonl: ITL and ICL are unknown, \
             tokens are spread evenly over each request{window}",
            self.facts.step, self.facts.engine, self.facts.users
        )
    }

    fn add(&mut self, line: &Sample) {
        let window = self.record.window;
        let record = &mut self.record;
        let inside = |at: u64| window.start_ns <= at && at <= window.end_ns;
        let overlap = |from: u64, to: u64| to.min(window.end_ns).saturating_sub(from.max(window.start_ns));
        let n_out = u64::from(line.n_out.unwrap_or(line.events));
        *record.all_outcomes.entry(line.outcome).or_default() += 1;
        record.all_events += u64::from(line.events);
        record.all_output_tokens += n_out;
        if let (Some(first), Some(last)) = (line.first_ns, line.last_ns) {
            let share = match last - first.min(last) {
                0 => f64::from(u8::from(inside(first))),
                length => overlap(first, last) as f64 / length as f64,
            };
            record.output_tokens_in_window += n_out as f64 * share;
            record.streaming_ns += u128::from(overlap(first, last));
            self.streams.add(first, last);
            record.completed_in_window += u64::from(line.outcome == Outcome::Ok && inside(last));
        }
        let Some(sent) = line.sent_ns else {
            *record.outcomes.entry(line.outcome).or_default() += u64::from(inside(line.due_ns));
            return;
        };
        record.in_flight_ns += u128::from(overlap(sent, line.end_ns.unwrap_or(line.latest_ns())));
        if !inside(sent) {
            return;
        }
        *record.outcomes.entry(line.outcome).or_default() += 1;
        record.send_lag.saturating_record(line.send_lag_ns(sent));
        if line.outcome == Outcome::Ok {
            record.input_tokens += u64::from(line.n_in.unwrap_or(0));
            record.output_tokens += n_out;
            count_source(&mut record.token_sources, line.token_source);
            let times = Times::with_first(line, 1);
            record.latencies.request(line, &times);
            record.rows.push(Row::of(line, &times, false));
        } else {
            record.rows.push(Row::failed(line));
        }
    }

    fn result(mut self) -> StepResult {
        self.record.streaming_p95 = self.streams.p95(self.record.window);
        let mut result = summarise(self.facts, &self.record, StepContext::default());
        result.recomputed = true;
        result.goose = None;
        // Nothing of these is in a line: absent is truer than zero.
        result.client = ClientResult {
            error_p99_ms: None,
            error_parts_ms: ErrorParts::default(),
            cpu_us_per_event: None,
            ..result.client
        };
        result
            .verdicts
            .retain(|verdict| *verdict != Verdict::GooseMismatch);
        result
    }
}

fn count_source(sources: &mut Vec<(TokenSource, u64)>, source: TokenSource) {
    match sources.iter_mut().find(|(known, _)| *known == source) {
        Some((_, n)) => *n += 1,
        None => sources.push((source, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture::{facts, new_run, record, sample};
    use crate::measure::{Store, StoreError};

    /// A run with one finished step that was killed in its second, whose window opened at 10 s.
    fn killed(root: &Path) -> std::path::PathBuf {
        let mut store = Store::create(root, new_run()).unwrap();
        store
            .step_done(facts(0, "candle", 4), &record(4, 20), StepContext::default(), &[])
            .unwrap();
        let open = StepFacts {
            window_start_ns: Some(10_000_000_000),
            ..facts(1, "candle", 4)
        };
        store.step_begins(open).unwrap();
        let sink = store.sink().unwrap();
        // 4 users, back to back: 2 s each from 8 s to 30 s.
        (0..11)
            .for_each(|i| (0..4).for_each(|user| sink.send(sample(4 * i + user, 1, 8_000 + 2_000 * i), &[])));
        drop(sink);
        let dir = store.dir().to_owned();
        // Its end leaves `unfinished` in place, as a kill does, and waits for the lines.
        store.finish(Status::Running).unwrap();
        dir
    }

    #[test]
    fn a_killed_run_keeps_its_finished_steps_and_gets_the_last_one_back() {
        let root = tempfile::tempdir().unwrap();
        let dir = killed(root.path());
        let mut text = std::fs::read(dir.join("requests.jsonl")).unwrap();
        text.extend_from_slice(b"{\"id\":44,\"eng");
        std::fs::write(dir.join("requests.jsonl"), text).unwrap();

        let run = open(&dir).unwrap();
        assert_eq!(run.steps.len(), 2);
        assert!(!run.steps[0].recomputed && run.steps[1].recomputed);
        let step = &run.steps[1];
        assert_eq!(
            (step.requests.sent, step.requests.ok, step.requests_all.sent),
            (40, 40, 44)
        );
        assert_eq!((step.events, step.tokens.output), (4_400, 4_000));
        assert!(
            (step.concurrency.observed - 4.0).abs() < 0.01,
            "{:?}",
            step.concurrency
        );
        assert_eq!(step.concurrency.streaming_p95, 4);
        assert!((step.output_tps - 200.0).abs() < 1.0, "{}", step.output_tps);
        assert!((step.ttft_ms.p50.unwrap() - 20.0).abs() < 0.02);
        assert!((step.tpot_ms.p50.unwrap() - 20.0).abs() < 0.02);
        assert_eq!(step.itl_ms.n, 0);
        assert!(
            run.notes.iter().any(|n| n.starts_with("1 lines")),
            "{:?}",
            run.notes
        );
    }

    #[test]
    fn without_run_json_every_step_is_computed_again() {
        let root = tempfile::tempdir().unwrap();
        let dir = killed(root.path());
        std::fs::write(dir.join("run.json"), "{\"schema_version\": 1,").unwrap();
        let run = open(&dir).unwrap();
        assert_eq!(run.steps.len(), 1);
        assert_eq!((run.steps[0].facts.users, run.steps[0].requests.sent), (4, 44));
        assert_eq!(run.steps[0].facts.engine, "candle");
    }

    #[test]
    fn a_newer_run_and_no_run_are_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("run.json"), "{\"schema_version\": 99}").unwrap();
        assert!(matches!(
            open(root.path()),
            Err(StoreError::Newer { found: 99, .. })
        ));
        std::fs::remove_file(root.path().join("run.json")).unwrap();
        assert!(matches!(open(root.path()), Err(StoreError::Read { .. })));
    }
}
