//! The verdicts on a step, by rules that hold for any engine.

use super::TokenSource;
use super::result::{Concurrency, Stamp, StepResult, Verdict};

/// What is told apart from what was claimed.
const TOLERATED: f64 = 0.05;

/// The share of the machine's processors that a hypervisor may take away.
const STOLEN: f64 = 0.02;

/// The client's error that is never tolerated, and the read lag that is worth a word, in milliseconds.
const LATE_MS: f64 = 1.0;

/// What a reader must know of a step.
pub(super) fn verdicts(step: &StepResult) -> Vec<Verdict> {
    let mut found = Vec::new();
    let mut say = |verdict, holds: bool| {
        if holds {
            found.push(verdict);
        }
    };
    let (seen, closed) = (&step.concurrency, step.facts.rate.is_none());
    let measured = step.requests.ok > 0;
    let events = measured && step.client.cpu_us_per_event.is_some();
    let wanted = f64::from(step.facts.osl.mean) * step.requests.ok as f64;
    let counted_by = |source| step.tokens.source == Some(source);
    let counted = counted_by(TokenSource::Usage) || counted_by(TokenSource::Tokenizer);
    let steady = step.requests.ok >= 10 * u64::from(step.facts.users);
    let littles_gap = seen.littles_law.map_or(0.0, |law| (law - seen.observed).abs());
    let queued = measured && is_queued(step);
    say(Verdict::NoSamples, !measured);
    say(Verdict::Errors, step.requests.failed > 0);
    say(Verdict::ClientLimited, is_client_limited(step));
    say(Verdict::Unstamped, events && step.client.stamp == Stamp::Read);
    say(
        Verdict::LateReader,
        step.client.read_lag_ms.p99.is_some_and(|lag| lag > LATE_MS),
    );
    say(Verdict::ClockStep, step.client.clock_steps > 0);
    say(Verdict::Contended, is_contended(step));
    say(
        Verdict::Garbled,
        step.verified.as_ref().is_some_and(|found| found.garbled > 0),
    );
    say(
        Verdict::ConcurrencyShort,
        closed && seen.observed < (1.0 - TOLERATED) * f64::from(seen.claimed),
    );
    say(Verdict::Queued, queued);
    say(
        Verdict::MostlyWaiting,
        !queued && measured && seen.claimed > 1 && seen.streaming < 0.5 * seen.observed,
    );
    say(Verdict::ServerCount, server_differs(seen));
    say(
        Verdict::LittlesLaw,
        steady && littles_gap > TOLERATED * seen.observed,
    );
    say(
        Verdict::ShortOutput,
        measured && counted && (step.tokens.output as f64) < 0.95 * wanted,
    );
    say(Verdict::TokensCountedHere, counted_by(TokenSource::Tokenizer));
    say(Verdict::TokensAreEvents, counted_by(TokenSource::Events));
    say(
        Verdict::FewSamples,
        measured && step.ttft_ms.few_samples.iter().any(|p| p == "p99"),
    );
    say(Verdict::ColdUsers, step.cold_users > 0);
    say(Verdict::Resent, step.resent > 0);
    let all = step.requests_all;
    say(
        Verdict::GooseMismatch,
        step.goose
            .is_some_and(|g| (g.ok, g.failed) != (all.ok, all.failed)),
    );
    found
}

/// Above 1 ms, or above 5 % of the median TTFT.
fn is_client_limited(step: &StepResult) -> bool {
    is_spoilt_by_client(step) || step.client.error_p99_ms.is_some_and(|error| error > LATE_MS)
}

/// Whether the client's own error is above 5 % of the median TTFT, so that latencies say little of the server; above 1 ms
/// where there is none.
pub fn is_spoilt_by_client(step: &StepResult) -> bool {
    let limit = step.ttft_ms.p50.map_or(LATE_MS, |p50| TOLERATED * p50);
    step.client.error_p99_ms.is_some_and(|error| error > limit)
}

fn is_contended(step: &StepResult) -> bool {
    let above = |seconds: Option<f64>, share: f64| seconds.is_some_and(|s| s > share * step.window_s);
    above(
        step.client.run_queue_s,
        TOLERATED * f64::from(step.client.threads),
    ) || above(step.client.steal_s, STOLEN)
}

/// Whether requests waited for a slot of the server. The server's word decides where it has one; else the streams do.
fn is_queued(step: &StepResult) -> bool {
    let seen = &step.concurrency;
    if seen.claimed <= 1 {
        return false;
    }
    match (seen.server_running, seen.server_waiting) {
        (Some(running), Some(waiting)) => waiting > TOLERATED * (running + waiting),
        (Some(running), None) => running < (1.0 - TOLERATED) * seen.observed,
        (None, _) => has_few_slots(step),
    }
}

/// A server with so many slots never has more streams between their first and last token than that, and mostly has nearly
/// as many. A window shorter than a request need not have seen as many.
fn has_few_slots(step: &StepResult) -> bool {
    let seen = &step.concurrency;
    let most = f64::from(seen.streaming_p95);
    let long = step
        .e2el_ms
        .mean
        .is_some_and(|ms| step.window_s >= (ms / 1e3).max(1.0));
    long && most > 0.0 && most < (1.0 - TOLERATED) * seen.observed && seen.streaming > 0.5 * most
}

fn server_differs(seen: &Concurrency) -> bool {
    let counted = seen
        .server_running
        .map(|running| running + seen.server_waiting.unwrap_or(0.0));
    // A difference of one request is within what a look a second can tell.
    let tolerated = (TOLERATED * seen.observed).max(1.0);
    counted.is_some_and(|counted| (counted - seen.observed).abs() > tolerated)
}
