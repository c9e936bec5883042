//! Verdicts in words: what was found, with its figures, and what to do about it.

use super::columns::significant;
use super::verify::place;
use super::words::snake;
use crate::measure::TokenSource;
use crate::measure::result::{Cause, StepResult, Verdict};

/// A verdict with its figures.
pub(super) fn verdict(verdict: Verdict, s: &StepResult) -> String {
    match verdict {
        Verdict::NoSamples if s.requests.sent == 0 => {
            "no request was sent inside the window: requests take longer than it lasts; try a longer --duration"
                .to_owned()
        }
        Verdict::NoSamples => "no request succeeded".to_owned(),
        Verdict::Errors => errors(s),
        Verdict::ClientLimited => client_limited(s),
        Verdict::LateReader => format!(
            "the reader was late by {} ms at p99; arrivals are the kernel's, so that latencies stand; processors of its \
             own (--client-cpus) make the client read in time",
            number(s.client.read_lag_ms.p99)
        ),
        Verdict::Unstamped => unstamped(s),
        Verdict::ClockStep => format!(
            "the wall clock was set {} time(s) during the step; arrivals were converted all the same",
            s.client.clock_steps
        ),
        Verdict::Contended => contended(s),
        Verdict::Garbled => garbled(s),
        Verdict::ConcurrencyShort | Verdict::Queued | Verdict::MostlyWaiting | Verdict::ServerCount => {
            concurrency(verdict, s)
        }
        Verdict::LittlesLaw => format!(
            "not steady: throughput times latency says {} in flight, {} were; try a longer --warmup and --duration",
            number(s.concurrency.littles_law),
            significant(s.concurrency.observed)
        ),
        Verdict::ShortOutput => short_output(s),
        Verdict::TokensCountedHere => {
            "the server told no usage: output tokens were counted here, by a tokenizer".to_owned()
        }
        Verdict::TokensAreEvents => "the server told no usage: output events are counted as tokens, as no tokenizer \
             (--tokenizer) could count them"
            .to_owned(),
        Verdict::FewSamples => format!(
            "TTFT p99 rests on {} requests; 662 are needed: measure longer",
            s.ttft_ms.n
        ),
        Verdict::ColdUsers => format!(
            "{} of {} users had not ended the requests of their warm-up when the window opened, for which nobody waits longer \
             than the window is to last; try a longer --duration",
            s.cold_users, s.facts.users
        ),
        Verdict::Resent => format!(
            "{} request{} sent a second time: the server closes connections that it said it keeps open",
            s.resent,
            if s.resent == 1 { " was" } else { "s were" }
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

fn number(x: Option<f64>) -> String {
    x.map_or_else(|| "unknown".to_owned(), significant)
}

fn short_output(s: &StepResult) -> String {
    let why = match s.tokens.source {
        Some(TokenSource::Tokenizer) => {
            "by the tokenizer's count, in which tokens without text, as an end token passed over, are not"
        }
        _ => "--ignore-eos asks for all of them, where the engine knows it",
    };
    format!(
        "answers were shorter than asked: {} tokens on average, {} wanted; {why}",
        significant(s.tokens.output as f64 / s.requests.ok.max(1) as f64),
        s.facts.osl.mean
    )
}

fn errors(s: &StepResult) -> String {
    let named = |(kind, n): (_, &u64)| format!("{} {n}", snake(kind));
    let kinds: Vec<_> = s.errors.iter().map(named).collect();
    let (failed, sent) = (s.requests.failed, s.requests.sent);
    format!(
        "{failed} of {sent} requests failed ({}); latencies are of the others; requests.jsonl says why",
        kinds.join(", ")
    )
}

fn garbled(s: &StepResult) -> String {
    let Some(found) = &s.verified else {
        return "answers under load are not those given alone".to_owned();
    };
    let worst = found
        .differences
        .iter()
        .filter(|difference| difference.cause != Cause::NearTie)
        .min_by_key(|difference| difference.token);
    let first = worst.map_or_else(String::new, |difference| {
        format!("; first at {}", place(difference, "alone it", "under load it"))
    });
    format!(
        "garbled under load: {} of {} greedy answers are not those that the engine gave alone, and no near tie explains \
         it{first}",
        found.garbled,
        found.answered()
    )
}

fn client_limited(s: &StepResult) -> String {
    let parts = s.client.error_parts_ms;
    let named = [
        ("send lag", parts.send_lag),
        ("sending", parts.sending),
        ("shared stamps", parts.shared_stamps),
        ("clock", parts.clock),
    ];
    let named = named.map(|(name, ms)| format!("{name} {}", number(ms)));
    format!(
        "client-limited: the client's own error (p99 {} ms: {}) is above 1 ms or 5 % of TTFT p50 ({} ms); give the client \
         processors of its own (--client-cpus), or a machine of its own",
        number(s.client.error_p99_ms),
        named.join(", "),
        number(s.ttft_ms.p50)
    )
}

fn unstamped(s: &StepResult) -> String {
    let count = s.client.unstamped_events;
    format!(
        "the kernel stamped no arrival for {count} events, which count from the instant they were read: the client's own \
         error is not known, and a late client looks like a slow server"
    )
}

fn contended(s: &StepResult) -> String {
    let of_window =
        |seconds: f64, by: f64| significant(100.0 * seconds / (s.window_s * by).max(f64::MIN_POSITIVE));
    let mut parts = Vec::new();
    if let Some(seconds) = s.client.run_queue_s {
        let share = of_window(seconds, f64::from(s.client.threads));
        parts.push(format!(
            "the client's threads waited for a processor {share} % of the window"
        ));
    }
    if let Some(seconds) = s.client.steal_s.filter(|&seconds| seconds > 0.0) {
        let share = of_window(seconds, 1.0);
        parts.push(format!(
            "the hypervisor took {share} % of the machine's processors away"
        ));
    }
    format!(
        "{}: stop what else runs here, or share the processors out (--client-cpus, --server-cpus)",
        parts.join("; ")
    )
}

fn concurrency(verdict: Verdict, s: &StepResult) -> String {
    let seen = &s.concurrency;
    let observed = significant(seen.observed);
    match (verdict, seen.server_running, seen.server_waiting) {
        (Verdict::ConcurrencyShort, ..) => format!(
            "{} users were claimed, {observed} were in flight: the others were held up by failures or by the client",
            seen.claimed
        ),
        (Verdict::Queued, Some(running), waiting) => format!(
            "the server worked on {} of {observed} requests at a time; {} waited, by its own word: give it more slots \
             (--parallel) if it has fewer than users, or ask with fewer users",
            significant(running),
            significant(waiting.unwrap_or(seen.observed - running)),
        ),
        (Verdict::Queued, None, _) => format!(
            "the server worked on {} of {observed} requests at a time, hardly ever on more than {}; {} waited: give it more slots \
             (--parallel) if it has fewer than users, or ask with fewer users",
            significant(seen.streaming),
            seen.streaming_p95,
            significant(seen.observed - seen.streaming)
        ),
        (Verdict::ServerCount, running, waiting) => format!(
            "the server counts {} requests, the client had {observed} in flight: others ask it too, or something between \
             the two holds requests back",
            significant(running.unwrap_or(0.0) + waiting.unwrap_or(0.0))
        ),
        _ => format!(
            "of {observed} requests in flight only {} were receiving tokens; the others waited for their first: the server \
             spends its time on prompts",
            significant(seen.streaming)
        ),
    }
}
