//! From what a step recorded to what is reported. The definitions are those of `results/README.md`.

use super::histogram::{latency, round, with_failures};
use super::intervals;
use super::own_error::client;
use super::result::{
    Concurrency, GooseCount, Requests, Scaling, ServerResult, StepFacts, StepResult, Tokens, UnderLoad,
};
use super::verdicts::verdicts;
use super::{Outcome, StepRecord};
use std::collections::BTreeMap;

const NS: f64 = 1e9;

/// What was known about a step from outside its record.
#[derive(Debug, Clone, Default)]
pub struct StepContext {
    /// What the server used during the window.
    pub server: Option<ServerResult>,
    /// Requests that the server said it worked on, averaged over the window.
    pub server_running: Option<f64>,
    /// Requests that the server said were waiting, averaged over the window.
    pub server_waiting: Option<f64>,
    /// What the server answered under load to prompts that it had answered alone.
    pub verified: Option<UnderLoad>,
}

/// The result of one step. `scaling` is left open: it needs the other steps ([`fill_scaling`]).
pub fn summarise(facts: StepFacts, record: &StepRecord, context: StepContext) -> StepResult {
    let window_ns = record.window.end_ns.saturating_sub(record.window.start_ns);
    let window_s = window_ns as f64 / NS;
    let per_second = |count: f64| {
        if window_ns == 0 {
            0.0
        } else {
            round(count / window_s)
        }
    };
    let (l, requests) = (&record.latencies, count(&record.outcomes));
    let e2el = latency(&l.e2el);
    let request_rps = per_second(record.completed_in_window as f64);
    let mut result = StepResult {
        window_s: round(window_s),
        verdicts: Vec::new(),
        requests,
        requests_all: count(&record.all_outcomes),
        errors: failures(&record.outcomes),
        failed_share_ci95: None,
        tokens: tokens(record),
        events: record.all_events,
        output_tokens_all: record.all_output_tokens,
        output_tps: per_second(record.output_tokens_in_window),
        output_tps_ci95: None,
        request_rps,
        request_rps_ci95: None,
        goodput_rps: record.good.map(|good| per_second(good as f64)),
        goodput_rps_ci95: None,
        concurrency: Concurrency {
            claimed: record.users,
            observed: per_second(record.in_flight_ns as f64 / NS),
            streaming: per_second(record.streaming_ns as f64 / NS),
            streaming_p95: record.streaming_p95,
            server_running: context.server_running.map(round),
            server_waiting: context.server_waiting.map(round),
            littles_law: e2el.mean.map(|mean| round(request_rps * mean / 1e3)),
        },
        ttft_ms: latency(&l.ttft),
        ttft_from_due_ms: latency(&l.ttft_from_due),
        ttfo_ms: latency(&l.ttfo),
        ttst_ms: latency(&l.ttst),
        itl_ms: latency(&l.itl),
        itl_by_position: l.positions.means(),
        icl_ms: latency(&l.icl),
        tpot_ms: latency(&l.tpot),
        e2el_ms: e2el,
        connect_ms: latency(&l.connect),
        ttft_with_failures_ms: with_failures(&l.ttft, requests.failed),
        e2el_with_failures_ms: with_failures(&l.e2el, requests.failed),
        client: client(record),
        server: context.server,
        scaling: None,
        verified: context.verified,
        cost: None,
        cold_users: record.cold_users,
        resent: record.resent,
        goose: Some(GooseCount {
            ok: record.goose_requests.0,
            failed: record.goose_requests.1,
        }),
        recomputed: false,
        facts: StepFacts {
            window_start_ns: Some(record.window.start_ns),
            ..facts
        },
    };
    intervals::fill(&mut result, record);
    result.verdicts = verdicts(&result);
    result
}

/// Sets `scaling` of every step: against the step of the same engine, lengths and arrival rate with the fewest
/// users. A sweep of one step has no scaling.
pub fn fill_scaling(steps: &mut [StepResult]) {
    let shape = |s: &StepResult| {
        (
            s.facts.engine.clone(),
            s.facts.isl,
            s.facts.osl,
            s.facts.rate.map(f64::to_bits),
        )
    };
    let mut bases = BTreeMap::new();
    for step in steps.iter() {
        let (users, tps, n) = bases.entry(shape(step)).or_insert((u32::MAX, 0.0, 0_u32));
        if step.facts.users < *users {
            (*users, *tps, *n) = (step.facts.users, 0.0, 0);
        }
        if step.facts.users == *users {
            *tps += step.output_tps;
            *n += 1;
        }
    }
    for step in steps {
        let (base_users, sum, n) = bases[&shape(step)];
        let base_tps = sum / f64::from(n);
        let alone = base_users == step.facts.users;
        step.scaling = (base_tps > 0.0 && base_users > 0).then(|| {
            let factor = if alone && n == 1 {
                1.0
            } else {
                step.output_tps / base_tps
            };
            let efficiency = factor * f64::from(base_users) / f64::from(step.facts.users);
            Scaling {
                base_users,
                factor: round(factor),
                efficiency: round(efficiency),
            }
        });
    }
}

fn count(outcomes: &BTreeMap<Outcome, u64>) -> Requests {
    let sent = outcomes.values().sum();
    let ok = outcomes.get(&Outcome::Ok).copied().unwrap_or(0);
    Requests {
        sent,
        ok,
        failed: sent - ok,
    }
}

fn failures(outcomes: &BTreeMap<Outcome, u64>) -> BTreeMap<Outcome, u64> {
    outcomes
        .iter()
        .filter(|&(kind, &n)| *kind != Outcome::Ok && n > 0)
        .map(|(kind, n)| (*kind, *n))
        .collect()
}

fn tokens(record: &StepRecord) -> Tokens {
    let sources: Vec<_> = record
        .token_sources
        .iter()
        .copied()
        .filter(|(_, n)| *n > 0)
        .collect();
    Tokens {
        input: record.input_tokens,
        output: record.output_tokens,
        source: sources.iter().max_by_key(|(_, n)| *n).map(|(source, _)| *source),
        sources: if sources.len() > 1 { sources } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::TokenSource;
    use crate::measure::fixture::{facts, record};
    use crate::measure::result::{Stamp, Verdict};

    fn result(users: u32, change: impl FnOnce(&mut StepRecord)) -> StepResult {
        let mut record = record(users, 20);
        change(&mut record);
        summarise(facts(0, "candle", users), &record, StepContext::default())
    }

    #[test]
    fn figures_follow_their_definitions() {
        let step = result(80, |_| {});
        assert_eq!(
            (step.window_s, step.output_tps, step.request_rps),
            (20.0, 4_000.0, 40.0)
        );
        assert_eq!(
            (step.concurrency.observed, step.concurrency.streaming),
            (80.0, 76.0)
        );
        assert_eq!(
            step.requests,
            Requests {
                sent: 800,
                ok: 800,
                failed: 0
            }
        );
        let parts = step.client.error_parts_ms;
        let close = |part: Option<f64>, ms: f64| part.is_some_and(|part| (part - ms).abs() < 0.001);
        assert!(
            close(parts.clock, 0.005) && close(parts.shared_stamps, 0.0),
            "{parts:?}"
        );
        assert!(
            close(parts.sending, 0.02) && close(parts.send_lag, 0.08),
            "{parts:?}"
        );
        assert!(close(step.client.error_p99_ms, 0.105));
        assert_eq!((step.client.threads, step.client.run_queue_s), (1, Some(0.1)));
        assert_eq!(step.client.cpu_us_per_event, Some(12.5));
        assert_eq!(step.output_tps_ci95, Some([4_000.0, 4_000.0]));
        assert_eq!(step.goodput_rps, None);
        assert_eq!(step.verdicts, []);
    }

    #[test]
    fn verdicts_say_what_is_wrong() {
        let found = |change: fn(&mut StepRecord)| result(80, change).verdicts;
        assert_eq!(
            found(|r| r.stamp_error_ns = Some(1_100_000)),
            [Verdict::ClientLimited]
        );
        assert_eq!(
            found(|r| r.send_lag.record_n(3_000_000, 800).unwrap()),
            [Verdict::ClientLimited]
        );
        assert_eq!(
            found(|r| r.sending.record_n(3_000_000, 800).unwrap()),
            [Verdict::ClientLimited]
        );
        assert_eq!(found(|r| r.clock_steps = 1), [Verdict::ClockStep]);
        assert_eq!(
            found(|r| r.contention.run_queue_ns = Some(1_100_000_000)),
            [Verdict::Contended]
        );
        assert_eq!(
            found(|r| r.contention.steal_ns = Some(500_000_000)),
            [Verdict::Contended]
        );
        assert!(found(|r| r.in_flight_ns = r.in_flight_ns * 9 / 10).contains(&Verdict::ConcurrencyShort));
        assert_eq!(found(|r| r.streaming_ns /= 4), [Verdict::MostlyWaiting]);
        let one_slot = |r: &mut StepRecord| (r.streaming_ns, r.streaming_p95) = (r.streaming_ns / 76, 1);
        assert_eq!(found(one_slot), [Verdict::Queued]);
        let unseen = |r: &mut StepRecord| (r.streaming_ns, r.streaming_p95) = (r.streaming_ns / 76, 0);
        assert_eq!(found(unseen), [Verdict::MostlyWaiting], "nobody looked");
        let short = |r: &mut StepRecord| (r.streaming_ns, r.streaming_p95) = (r.streaming_ns / 760, 4);
        assert_eq!(found(short), [Verdict::MostlyWaiting], "streams hardly overlap");
        assert_eq!(found(|r| r.output_tokens /= 2), [Verdict::ShortOutput]);
        assert_eq!(found(|r| r.goose_requests.0 += 1), [Verdict::GooseMismatch]);
        assert_eq!(found(|r| r.completed_in_window /= 2), [Verdict::LittlesLaw]);
        assert_eq!(
            found(|r| r.token_sources[0].0 = TokenSource::Events),
            [Verdict::TokensAreEvents]
        );
        let by_tokenizer = |r: &mut StepRecord| r.token_sources[0].0 = TokenSource::Tokenizer;
        assert_eq!(found(by_tokenizer), [Verdict::TokensCountedHere]);
        let short_by_tokenizer = |r: &mut StepRecord| {
            r.token_sources[0].0 = TokenSource::Tokenizer;
            r.output_tokens /= 2;
        };
        assert_eq!(
            found(short_by_tokenizer),
            [Verdict::ShortOutput, Verdict::TokensCountedHere]
        );
        assert_eq!(result(8, |_| {}).verdicts, [Verdict::FewSamples]);
        let failed = |r: &mut StepRecord| *r.outcomes.entry(Outcome::Http5xx).or_default() += 2;
        assert_eq!(found(failed), [Verdict::Errors]);
    }

    #[test]
    fn a_late_reader_spoils_what_the_kernel_did_not_keep_apart() {
        let late = |r: &mut StepRecord| r.read_lag.record_n(3_000_000, 80_000).unwrap();
        let verdicts = |change: fn(&mut StepRecord), late: fn(&mut StepRecord)| {
            let step = result(80, |r| {
                late(r);
                change(r);
            });
            assert!(step.client.read_lag_ms.p99.is_some_and(|lag| lag > 2.9));
            step.verdicts
        };
        // Every event with its own stamp: the reader was late, the arrivals are not.
        assert_eq!(verdicts(|_| {}, late), [Verdict::LateReader]);
        // Merged stamps: events came up to 2 ms before their stamps.
        let merged = |r: &mut StepRecord| r.shared_stamps.record_n(2_000_000, 8_000).unwrap();
        assert_eq!(
            verdicts(merged, late),
            [Verdict::ClientLimited, Verdict::LateReader]
        );
        // A prompt reader finds events together because the server sent them together.
        let prompt = result(80, |r| r.shared_stamps.record_n(20_000_000, 40_000).unwrap());
        assert_eq!(prompt.verdicts, []);
        let few = |r: &mut StepRecord| r.shared_stamps.record_n(2_000_000, 700).unwrap();
        assert_eq!(
            verdicts(few, late),
            [Verdict::LateReader],
            "less than 1 % of events"
        );
    }

    #[test]
    fn without_the_kernels_stamps_the_error_is_not_known() {
        let unstamped = |r: &mut StepRecord| {
            r.read_lag.reset();
            r.unstamped_events = r.events_in_window;
        };
        let step = result(80, |r| {
            unstamped(r);
            r.kernel_stamps = false;
        });
        assert_eq!((step.client.stamp, step.client.error_p99_ms), (Stamp::Read, None));
        assert_eq!(step.verdicts, [Verdict::Unstamped]);
        assert_eq!(
            result(80, unstamped).client.stamp,
            Stamp::Read,
            "as when the kernel stops to stamp"
        );
        let few = result(80, |r| r.unstamped_events = r.events_in_window / 200);
        assert_eq!((few.client.stamp, few.verdicts), (Stamp::Kernel, vec![]));
    }

    #[test]
    fn the_servers_word_on_its_queue_counts_before_what_the_streams_say() {
        let verdicts = |running: f64, waiting: f64, change: fn(&mut StepRecord)| {
            let mut record = record(80, 20);
            change(&mut record);
            let context = StepContext {
                server_running: Some(running),
                server_waiting: Some(waiting),
                ..StepContext::default()
            };
            summarise(facts(0, "candle", 80), &record, context).verdicts
        };
        assert_eq!(verdicts(80.0, 0.0, |_| {}), []);
        assert_eq!(verdicts(1.0, 79.0, |_| {}), [Verdict::Queued]);
        let prompts = |r: &mut StepRecord| (r.streaming_ns, r.streaming_p95) = (r.streaming_ns / 10, 10);
        assert_eq!(verdicts(80.0, 0.0, prompts), [Verdict::MostlyWaiting]);
        assert_eq!(verdicts(160.0, 0.0, |_| {}), [Verdict::ServerCount]);
        assert_eq!(verdicts(76.5, 0.0, |_| {}), [], "within 5 %");
    }

    #[test]
    fn scaling_is_against_the_fewest_users_of_the_same_engine_and_shape() {
        let step = |engine: &str, users: u32, tps: f64| {
            let mut step = result(users, |_| {});
            (step.facts.engine, step.output_tps) = (engine.to_owned(), tps);
            step
        };
        let mut steps = [
            step("a", 10, 90.0),
            step("a", 10, 110.0),
            step("a", 40, 300.0),
            step("b", 20, 50.0),
        ];
        fill_scaling(&mut steps);
        let of = |i: usize| steps[i].scaling.unwrap();
        assert_eq!(
            of(2),
            Scaling {
                base_users: 10,
                factor: 3.0,
                efficiency: 0.75
            }
        );
        assert_eq!((of(0).factor, of(1).factor), (0.9, 1.1));
        assert_eq!(
            of(3),
            Scaling {
                base_users: 20,
                factor: 1.0,
                efficiency: 1.0
            }
        );
    }

    #[test]
    fn an_empty_step_has_no_figures_and_says_so() {
        let empty = StepRecord::empty(
            crate::measure::Window {
                start_ns: 5,
                end_ns: 5,
            },
            4,
        );
        let step = summarise(facts(0, "candle", 4), &empty, StepContext::default());
        assert_eq!(
            (step.output_tps, step.ttft_ms.p50, step.output_tps_ci95),
            (0.0, None, None)
        );
        assert!(step.verdicts.contains(&Verdict::NoSamples));
    }
}
