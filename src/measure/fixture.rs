//! A step with round figures, for the tests of this module and of the report.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::across::across_steps;
use super::result::{
    EngineFailure, EngineResult, GpuResult, LoadTime, RunResult, SequenceLength, ServerResult, Status,
    StepFacts,
};
use super::summary::{StepContext, summarise};
use super::{Outcome, Sample, Second, StepRecord, TokenSource, Window};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

pub(crate) fn facts(step: u16, engine: &str, users: u32) -> StepFacts {
    StepFacts {
        step,
        engine: engine.to_owned(),
        repeat: 0,
        users,
        rate: None,
        isl: SequenceLength { mean: 128, stddev: 0 },
        osl: SequenceLength { mean: 100, stddev: 0 },
        window_start_ns: Some(2 * SECOND),
    }
}

/// A window of 20 s from second 2: `users` users at 50 tokens/s each, requests of 100 tokens, TTFT `ttft_ms`.
pub(crate) fn record(users: u32, ttft_ms: u64) -> StepRecord {
    let mut record = StepRecord::empty(
        Window {
            start_ns: 2 * SECOND,
            end_ns: 22 * SECOND,
        },
        users,
    );
    let requests = u64::from(users) * 10;
    let l = &mut record.latencies;
    for i in 0..requests {
        let ttft = ttft_ms * MS + i * MS / 10;
        l.ttft.record(ttft).unwrap();
        l.ttft_from_due.record(ttft + MS / 10).unwrap();
        l.e2el.record(ttft + 1_980 * MS).unwrap();
        l.tpot.record(20 * MS).unwrap();
    }
    l.itl.record_n(20 * MS, requests * 99).unwrap();
    l.icl.record_n(20 * MS, requests * 99).unwrap();
    record.read_lag.record_n(50_000, requests * 100).unwrap();
    record.send_lag.record_n(80_000, requests).unwrap();
    record.outcomes = BTreeMap::from([(Outcome::Ok, requests)]);
    record.all_outcomes = BTreeMap::from([(Outcome::Ok, requests + 4)]);
    record.goose_requests = (requests + 4, 0);
    record.completed_in_window = requests;
    record.output_tokens_in_window = (requests * 100) as f64;
    (record.input_tokens, record.output_tokens) = (requests * 128, requests * 100);
    (record.all_events, record.all_output_tokens) = ((requests + 4) * 100, (requests + 4) * 100);
    record.token_sources = vec![(TokenSource::Usage, requests)];
    record.in_flight_ns = u128::from(users) * 20 * u128::from(SECOND);
    record.streaming_ns = u128::from(users) * 19 * u128::from(SECOND);
    record.kernel_stamps = true;
    record.stamp_error_ns = Some(5_000);
    record.events_in_window = requests * 100;
    record.sending.record_n(20_000, requests).unwrap();
    record.client_cpu_ns = SECOND;
    record.client_threads = 1;
    record.contention.run_queue_ns = Some(SECOND / 10);
    record.streaming_p95 = users;
    record.seconds = (0..24).map(|at_s| second(at_s, users)).collect();
    record
}

fn second(at_s: u64, users: u32) -> Second {
    Second {
        at_s,
        users,
        in_flight: users,
        streaming: users - 1,
        output_tokens: u64::from(users) * 50,
        events: u64::from(users) * 50,
        sent: 3,
        ok: 3,
        failed: 0,
        ttft_ns: Some((20 * MS, 20 * MS)),
        itl_ns: None,
        gaps: Vec::new(),
    }
}

/// A request of 100 tokens, sent at `sent_ms`, that streams for 2 s after a TTFT of 20 ms.
pub(crate) fn sample(id: u64, step: u16, sent_ms: u64) -> Sample {
    let at = |ms: u64| Some((sent_ms + ms) * MS);
    Sample {
        id,
        engine: 0,
        step,
        user: (id % 4) as u32,
        due_ns: sent_ms * MS,
        sent_ns: at(0),
        headers_ns: at(5),
        first_ns: at(20),
        second_ns: at(40),
        first_visible_ns: at(20),
        last_ns: at(2_000),
        end_ns: at(2_001),
        connect_ns: None,
        events: 100,
        n_in: Some(128),
        n_out: Some(100),
        token_source: TokenSource::Usage,
        outcome: Outcome::Ok,
        status: Some(200),
        error: None,
    }
}

/// A run before its first step, of two engines.
pub(crate) fn new_run() -> RunResult {
    let started = "2026-03-01T12:30:00Z".parse().unwrap();
    let mut run = RunResult::new(
        started,
        Map::from_iter([("name".to_owned(), json!("sustained-64"))]),
    );
    run.loadtest_version = "0.1.0".to_owned();
    run.model.name = "smollm2-135m-instruct".to_owned();
    run.engines = ["candle", "llamacpp"]
        .map(|name| EngineResult {
            name: name.to_owned(),
            kind: "spawned".to_owned(),
            wanted: Map::from_iter([("parallel".to_owned(), json!(64))]),
            effective: Map::from_iter([(
                "parallel".to_owned(),
                json!(if name == "candle" { 64 } else { 4 }),
            )]),
            ..EngineResult::default()
        })
        .into();
    run
}

/// A server on half a processor and one of two cards.
fn server(step: u64) -> ServerResult {
    let card = |index: u32| GpuResult {
        index,
        name: "card".to_owned(),
        server: Some(index == 0),
        utilisation_pct: Some(90.0 - 80.0 * f64::from(index)),
        memory_peak_bytes: Some((step + 1) << 30),
        power_w: Some(300.0),
        energy_j: Some(6_000.0),
        ..GpuResult::default()
    };
    ServerResult {
        cpu_s: Some(10.0),
        cpu_cores: Some(0.5),
        rss_peak_bytes: Some((step + 1) << 28),
        rss_high_water_bytes: Some(2 << 30),
        threads_peak: Some(12),
        minor_faults: Some(40_000),
        major_faults: Some(step),
        gpu: vec![card(0), card(1)],
    }
}

/// A finished run of two engines at 4 and 64 users, with errors, a client that is late, and an engine that died.
pub(crate) fn finished_run() -> RunResult {
    let mut run = new_run();
    for (step, (engine, users, ttft)) in [
        ("candle", 4, 20),
        ("candle", 64, 80),
        ("llamacpp", 4, 30),
        ("llamacpp", 64, 400),
    ]
    .into_iter()
    .enumerate()
    {
        let mut record = record(users, ttft);
        if (engine, users) == ("llamacpp", 64) {
            record.outcomes.insert(Outcome::Http429, 12);
            record.outcomes.insert(Outcome::Stalled, 3);
            record.all_outcomes.insert(Outcome::Http429, 12);
            record.goose_requests.1 = 12;
            record.in_flight_ns /= 2;
            record.streaming_ns /= 20;
            record.streaming_p95 = 4;
            record.output_tokens_in_window /= 4.0;
        }
        record.stamp_error_ns = Some(if users == 4 { 2_000_000 } else { 4_000 });
        let facts = facts(step as u16, engine, users);
        let context = StepContext {
            server: Some(server(step as u64)),
            ..StepContext::default()
        };
        run.steps.push(summarise(facts, &record, context));
    }
    across_steps(&mut run);
    for (engine, ready_s) in run.engines.iter_mut().zip([None, Some(2.5)]) {
        engine.loads = vec![LoadTime {
            ready_s,
            first_token_s: 0.75,
        }];
    }
    run.engines[1].failure = Some(EngineFailure {
        message: "the server died in step 3".to_owned(),
        exit: Some("SIGKILL".to_owned()),
        at_s: Some(81.4),
        step: Some(3),
        requests_lost: Some(32),
        log_tail: vec!["main: processing".to_owned(), "Killed".to_owned()],
    });
    run.status = Status::Done;
    run
}
