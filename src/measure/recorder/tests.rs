//! What a recorder makes of whole streams.

use std::collections::BTreeMap;

use super::*;
use crate::measure::{Event, RequestId};

const MS: u64 = 1_000_000;
const WINDOW: Window = Window {
    start_ns: 100 * MS,
    end_ns: 200 * MS,
};

/// A request sent at `sent` ms whose events come at the given ms with the given tokens so far.
fn trace(sent: u64, events: &[(u64, u32)], n_out: Option<u32>) -> Trace {
    let mut trace = Trace::default();
    trace.sent_ns = Some(sent * MS);
    trace.n_out = n_out;
    for &(at, tokens) in events {
        trace.push(Event {
            at_ns: at * MS,
            lag_ns: 5,
            tokens,
        });
    }
    trace.end_ns = trace.last_ns();
    trace
}

fn fold(recorder: &mut Recorder, trace: &Trace, outcome: Outcome) {
    let id = RequestId {
        id: 0,
        engine: 0,
        step: 0,
        user: 0,
    };
    let sample = trace.sample(id, trace.sent_ns.unwrap_or(0) - MS, outcome, None);
    recorder.fold(&sample, trace, WINDOW);
}

fn close(value: u64, expected_ms: u64) -> bool {
    value.abs_diff(expected_ms * MS) <= expected_ms * MS / 500
}

#[test]
fn what_lies_inside_the_window_counts() {
    let mut recorder = Recorder::new(0, None);
    fold(
        &mut recorder,
        &trace(50, &[(90, 0), (110, 0), (130, 0)], None),
        Outcome::Ok,
    );
    fold(
        &mut recorder,
        &trace(150, &[(160, 0), (190, 0), (210, 0)], None),
        Outcome::Ok,
    );
    fold(&mut recorder, &trace(150, &[(160, 0)], None), Outcome::Stalled);
    let (record, seconds) = recorder.finish(WINDOW);
    assert_eq!(
        record.outcomes,
        BTreeMap::from([(Outcome::Ok, 1), (Outcome::Stalled, 1)])
    );
    assert_eq!(
        record.all_outcomes,
        BTreeMap::from([(Outcome::Ok, 2), (Outcome::Stalled, 1)])
    );
    assert_eq!(
        (
            record.completed_in_window,
            record.output_tokens,
            record.all_events
        ),
        (2, 3, 7)
    );
    assert_eq!(record.output_tokens_in_window, 5.0);
    assert_eq!(record.in_flight_ns, u128::from((30 + 50 + 10) * MS));
    assert_eq!(record.streaming_ns, u128::from((30 + 40) * MS));
    assert_eq!(record.streaming_p95, 1);
    assert_eq!(
        seconds,
        [Arrivals {
            events: 7,
            tokens: 7.0
        }]
    );
    assert_eq!(
        (
            record.latencies.ttft.len(),
            record.latencies.icl.len(),
            record.read_lag.len()
        ),
        (1, 2, 5)
    );
    assert!(close(record.latencies.ttft.max(), 10) && close(record.latencies.e2el.max(), 60));
    assert!(close(record.latencies.ttft_from_due.max(), 11) && close(record.latencies.tpot.max(), 25));
}

#[test]
fn itl_counts_tokens_as_the_server_tells_them() {
    let mut recorder = Recorder::new(0, None);
    // 2 tokens at first, then 4 in 40 ms, then an event that completes no token, then 1.
    fold(
        &mut recorder,
        &trace(100, &[(110, 2), (150, 6), (155, 6), (170, 7)], Some(7)),
        Outcome::Ok,
    );
    let latencies = recorder.finish(WINDOW).0.latencies;
    let itl = latencies.itl;
    assert_eq!(itl.len(), 5);
    assert!(close(itl.value_at_quantile(0.5), 10) && close(itl.max(), 20));
    let by_position = latencies.positions.means();
    let told: Vec<_> = by_position
        .iter()
        .map(|part| (part.from, part.tokens, part.mean_ms))
        .collect();
    assert_eq!(told, [(5, 4, 10.0), (6, 1, 20.0)]);
}

#[test]
fn itl_spreads_a_sum_over_the_events() {
    let mut recorder = Recorder::new(0, None);
    fold(
        &mut recorder,
        &trace(100, &[(110, 0), (120, 0), (130, 0), (140, 0)], Some(8)),
        Outcome::Ok,
    );
    // The end-of-sequence token is counted by the server but has no event.
    fold(
        &mut recorder,
        &trace(100, &[(110, 0), (120, 0), (130, 0)], Some(4)),
        Outcome::Ok,
    );
    let itl = recorder.finish(WINDOW).0.latencies.itl;
    assert_eq!((itl.len(), itl.count_between(4 * MS, 6 * MS)), (8, 6));
}

#[test]
fn goodput_wants_every_objective() {
    let objectives = Objectives {
        ttft_ns: Some(20 * MS),
        tpot_ns: Some(15 * MS),
        e2el_ns: None,
    };
    let mut recorder = Recorder::new(0, Some(objectives));
    fold(
        &mut recorder,
        &trace(100, &[(110, 0), (120, 0)], None),
        Outcome::Ok,
    );
    fold(
        &mut recorder,
        &trace(100, &[(110, 0), (130, 0)], None),
        Outcome::Ok,
    );
    fold(
        &mut recorder,
        &trace(100, &[(121, 0), (130, 0)], None),
        Outcome::Ok,
    );
    assert_eq!(recorder.finish(WINDOW).0.good, Some(1));
}

#[test]
fn shards_merge_without_loss() {
    let traces = [
        trace(100, &[(110, 0), (120, 0)], None),
        trace(50, &[(140, 0), (1500, 0)], Some(5)),
    ];
    let mut whole = Recorder::new(0, None);
    let mut shards = [Recorder::new(0, None), Recorder::new(0, None)];
    for (trace, shard) in traces.iter().zip(&mut shards) {
        fold(&mut whole, trace, Outcome::Ok);
        fold(shard, trace, Outcome::Ok);
    }
    let [mut merged, other] = shards;
    merged.merge(other);
    let (merged, whole) = (merged.finish(WINDOW), whole.finish(WINDOW));
    assert_eq!(merged.1, whole.1);
    assert_eq!(merged.0.latencies.icl, whole.0.latencies.icl);
    assert_eq!(merged.0.all_outcomes, whole.0.all_outcomes);
    assert_eq!(merged.0.output_tokens_in_window, whole.0.output_tokens_in_window);
    assert_eq!(merged.0.token_sources, whole.0.token_sources);
}

/// A stream of 200,000 events, 1 ms apart but for every seventh, the first of them 10 ms before the window. Every
/// fifth shares its stamp with the one before. `told` says whether events tell their tokens, `fold` whether the trace
/// is folded when it is full, as a client does.
fn long(told: bool, n_out: Option<u32>, fold: bool) -> (StepRecord, Vec<Arrivals>) {
    let window = Window {
        start_ns: 20 * MS,
        end_ns: 150_000 * MS,
    };
    let mut trace = Trace::default();
    (trace.sent_ns, trace.n_out) = (Some(5 * MS), n_out);
    let mut at_ns = 10 * MS;
    for i in 0..200_000_u32 {
        at_ns += match i {
            i if i % 5 == 4 => 0,
            i if i % 7 == 6 => 3 * MS,
            _ => MS,
        };
        trace.push(Event {
            at_ns,
            lag_ns: 5_000 + i % 100,
            tokens: if told { 1 + i * 3 / 2 } else { 0 },
        });
        if fold && trace.is_full() {
            trace.fold(window);
        }
    }
    assert!(
        !fold || trace.events().len() < 20_000,
        "a long stream takes no more memory"
    );
    trace.end_ns = trace.last_ns();
    let mut recorder = Recorder::new(0, None);
    // Sent inside a window that opened before.
    let id = RequestId {
        id: 0,
        engine: 0,
        step: 0,
        user: 0,
    };
    let mut sample = trace.sample(id, 4 * MS, Outcome::Ok, None);
    sample.sent_ns = Some(20 * MS);
    recorder.fold(&sample, &trace, window);
    recorder.finish(window)
}

#[test]
fn a_stream_of_200_000_events_counts_to_the_last_one() {
    for (told, n_out, tokens) in [(true, Some(300_000), 1.5), (false, None, 1.0)] {
        let (whole, whole_seconds) = long(told, n_out, false);
        let (folded, folded_seconds) = long(told, n_out, true);
        assert_eq!(folded.latencies.icl.len(), 199_999);
        for (own, other) in [
            (&folded.latencies.icl, &whole.latencies.icl),
            (&folded.latencies.itl, &whole.latencies.itl),
            (&folded.read_lag, &whole.read_lag),
            (&folded.shared_stamps, &whole.shared_stamps),
        ] {
            assert!(!own.is_empty() && own == other);
        }
        assert_eq!(folded.events_in_window, whole.events_in_window);
        assert_eq!(folded.shared_stamps.len(), folded.events_in_window / 5);
        assert_eq!(folded_seconds, whole_seconds);
        assert_eq!(folded.latencies.positions, whole.latencies.positions);
        assert_eq!(folded_seconds.iter().map(|s| s.events).sum::<u64>(), 200_000);
        let counted = folded.events_in_window as f64 * tokens;
        assert!((folded.output_tokens_in_window - counted).abs() < 1e-3 * counted);
    }
}

#[test]
fn a_long_stream_of_which_only_the_sum_is_told_spreads_it_evenly() {
    let (whole, _) = long(false, Some(500_000), false);
    let (folded, _) = long(false, Some(500_000), true);
    let (whole, folded) = (whole.latencies.itl, folded.latencies.itl);
    assert_eq!(folded.len(), whole.len());
    for quantile in [0.3, 0.5, 0.9, 0.99] {
        let (own, other) = (
            folded.value_at_quantile(quantile),
            whole.value_at_quantile(quantile),
        );
        assert!(
            own.abs_diff(other) <= other / 100,
            "{quantile}: {own} for {other}"
        );
    }
}
