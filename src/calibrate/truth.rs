//! The comparison: what the client measured against what the server says it did, event by event.

use std::collections::HashMap;

use serde::Deserialize;

use crate::measure::calibration::ErrorMs;
use crate::measure::{Clock, Event, Outcome, Sample, Window};

/// One request as the client saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its record.
    pub sample: Sample,
    /// Its output events, in the order of their arrival.
    pub events: Vec<Event>,
}

impl From<(Sample, Vec<Event>)> for Seen {
    fn from((sample, events): (Sample, Vec<Event>)) -> Seen {
        Seen { sample, events }
    }
}

/// One request as the reference server tells it at `/reference/log`. Instants are CLOCK_MONOTONIC in nanoseconds.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Told {
    /// The number that the client gave the request.
    pub request_id: Option<String>,
    /// When the last bytes of the request came, by the kernel of the server where it stamps.
    pub received: u64,
    /// Output events sent.
    pub events: u64,
    /// For each of them, the instant just before the write() that carried it; empty where the server forgot them.
    pub before: Vec<u64>,
    /// `done`, or why the answer was not sent to its end.
    pub outcome: Option<String>,
}

impl Told {
    /// Reads `/reference/log`: a JSON object a line.
    ///
    /// # Errors
    /// When a line is none.
    pub fn read(log: &[u8]) -> serde_json::Result<Vec<Told>> {
        serde_json::Deserializer::from_slice(log).into_iter().collect()
    }
}

/// How far the client is from the server. Counts are of the whole load; errors of the requests sent inside the window, or
/// of all where the machine is so slow that there is none, whose events agree in number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// Requests that succeeded.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Output events that the client counted in the requests that succeeded.
    pub events: u64,
    /// Those of them that arrived inside the window.
    pub events_inside: u64,
    /// Events that the server sent in answers which it ended well, and the client did not count.
    pub lost: u64,
    /// Events that the client counted and the server did not send.
    pub doubled: u64,
    /// Events per second of the median stream, as the server sent them.
    pub sent_rate: Option<f64>,
    /// TTFT.
    pub ttft: ErrorMs,
    /// Inter-token latency: the gaps between neighbouring events.
    pub itl: ErrorMs,
    /// Arrival of every event.
    pub arrival: ErrorMs,
}

/// Errors in nanoseconds, as they are gathered.
#[derive(Default)]
struct Errors {
    ttft: Vec<u64>,
    itl: Vec<u64>,
    arrival: Vec<u64>,
    sent_rates: Vec<f64>,
}

/// Holds the client's samples against the server's log; `clock` is the one of the samples.
pub fn compare(seen: &[Seen], told: &[Told], clock: Clock, window: Window) -> Truth {
    let number = |told: &Told| told.request_id.as_ref()?.parse::<u64>().ok();
    let mut by_id: HashMap<u64, &Told> = told
        .iter()
        .filter_map(|told| Some((number(told)?, told)))
        .collect();
    let inside = |at: u64| window.start_ns <= at && at < window.end_ns;
    let judged = |sample: &Sample| sample.outcome == Outcome::Ok && sample.sent_ns.is_some_and(inside);
    let all = !seen.iter().any(|seen| judged(&seen.sample));
    let (mut truth, mut errors) = (Truth::default(), Errors::default());
    for Seen { sample, events } in seen {
        let told = by_id.remove(&sample.id);
        truth.events_inside += events.iter().filter(|event| inside(event.at_ns)).count() as u64;
        if sample.outcome != Outcome::Ok {
            truth.failed += 1;
            continue;
        }
        let (counted, sent) = (u64::from(sample.events), told.map_or(0, |told| told.events));
        truth.requests += 1;
        truth.events += counted;
        truth.lost += sent.saturating_sub(counted);
        truth.doubled += counted.saturating_sub(sent);
        if let Some(told) = told
            && (all || judged(sample))
            && events.len() == told.before.len()
        {
            errors.request(sample, events, told, clock);
        }
    }
    let ended = |told: &&&Told| told.outcome.as_deref() == Some("done");
    truth.lost += by_id.values().filter(ended).map(|told| told.events).sum::<u64>();
    errors.sent_rates.sort_by(f64::total_cmp);
    truth.sent_rate = errors.sent_rates.get(errors.sent_rates.len() / 2).copied();
    truth.ttft = ErrorMs::of(errors.ttft);
    truth.itl = ErrorMs::of(errors.itl);
    truth.arrival = ErrorMs::of(errors.arrival);
    truth
}

impl Errors {
    /// A request with as many events on both sides.
    fn request(&mut self, sample: &Sample, events: &[Event], told: &Told, clock: Clock) {
        let origin = clock.origin_ns();
        let pairs = events.iter().zip(&told.before);
        self.arrival
            .extend(pairs.map(|(event, &before)| (event.at_ns + origin).abs_diff(before)));
        let gaps = events.windows(2).zip(told.before.windows(2));
        self.itl.extend(gaps.map(|(seen, told)| {
            let seen = seen[1].at_ns.saturating_sub(seen[0].at_ns);
            seen.abs_diff(told[1].saturating_sub(told[0]))
        }));
        if let (Some(first), Some(sent), Some(told_first)) =
            (events.first(), sample.sent_ns, told.before.first())
        {
            let seen = first.at_ns.saturating_sub(sent);
            self.ttft
                .push(seen.abs_diff(told_first.saturating_sub(told.received)));
        }
        if let [first, .., last] = told.before[..]
            && last > first
        {
            let gaps = (told.before.len() - 1) as f64;
            self.sent_rates.push(gaps * 1e9 / (last - first) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::fixture;

    const WINDOW: Window = Window {
        start_ns: 0,
        end_ns: u64::MAX,
    };

    /// Request `id`: the client stamps each event `late` after the server wrote it.
    fn pair(id: u64, writes: &[u64], late: u64, clock: Clock) -> (Seen, Told) {
        let event = |at_ns: &u64| Event {
            at_ns: at_ns + late,
            lag_ns: 0,
            tokens: 0,
        };
        let mut sample = fixture::sample(id, 0, 0);
        (sample.sent_ns, sample.events) = (Some(1), writes.len() as u32);
        let told = Told {
            request_id: Some(id.to_string()),
            received: clock.origin_ns() + 1,
            events: writes.len() as u64,
            before: writes.iter().map(|at| at + clock.origin_ns()).collect(),
            outcome: Some("done".into()),
        };
        let events = writes.iter().map(event).collect();
        (Seen { sample, events }, told)
    }

    #[test]
    fn errors_are_those_that_were_made() {
        let clock = Clock::start();
        let (mut seen, told) = pair(7, &[10_000_000, 20_000_000, 30_000_000], 2_000, clock);
        seen.events[1].at_ns += 500_000;
        let truth = compare(&[seen], &[told], clock, WINDOW);
        assert_eq!((truth.requests, truth.events, truth.events_inside), (1, 3, 3));
        assert_eq!((truth.lost, truth.doubled, truth.failed), (0, 0, 0));
        assert_eq!((truth.arrival.p50, truth.arrival.max), (Some(0.002), Some(0.502)));
        assert_eq!((truth.itl.n, truth.itl.p50), (2, Some(0.5)));
        assert_eq!(truth.ttft.max, Some(0.002));
        assert_eq!(truth.sent_rate, Some(100.0));
    }

    #[test]
    fn requests_of_the_warm_up_count_only_where_there_are_no_others() {
        let clock = Clock::start();
        let (early, told_early) = pair(1, &[1_000, 2_000], 300, clock);
        let (mut late, told_late) = pair(2, &[5_000, 6_000], 0, clock);
        late.sample.sent_ns = Some(4_000);
        let window = Window {
            start_ns: 3_000,
            end_ns: 9_000,
        };
        let told = [told_early, told_late];
        let truth = compare(&[early.clone(), late], &told, clock, window);
        assert_eq!((truth.arrival.n, truth.arrival.max), (2, Some(0.0)));
        let truth = compare(&[early], &told, clock, window);
        assert_eq!((truth.arrival.n, truth.arrival.max), (2, Some(0.0003)));
    }

    #[test]
    fn what_was_lost_or_doubled_is_counted_and_not_compared() {
        let clock = Clock::start();
        let (mut short, told_short) = pair(1, &[1_000, 2_000, 3_000], 0, clock);
        short.sample.events = 2;
        short.events.pop();
        let (mut long, told_long) = pair(2, &[1_000], 0, clock);
        long.sample.events = 3;
        long.events.push(long.events[0]);
        let (_, unseen) = pair(3, &[1_000, 2_000], 0, clock);
        let (mut failed, cut) = pair(4, &[1_000], 0, clock);
        failed.sample.outcome = Outcome::Truncated;
        let probe = Told {
            request_id: None,
            events: 1,
            outcome: Some("done".into()),
            ..Told::default()
        };
        let told = [told_short, told_long, unseen, cut, probe];
        let truth = compare(&[short, long, failed], &told, clock, WINDOW);
        assert_eq!((truth.lost, truth.doubled), (1 + 2, 2));
        assert_eq!((truth.requests, truth.failed), (2, 1));
        assert_eq!(truth.arrival, ErrorMs::default());
    }

    #[test]
    fn the_log_is_read_line_by_line() {
        let log =
            br#"{"n":1,"request_id":null,"received":5,"events":1,"before":[6],"outcome":"done","more":{}}
{"request_id":"3","received":7,"events":0,"before":[],"outcome":null}
"#;
        let told = Told::read(log).unwrap();
        assert_eq!((told.len(), told[0].before[0]), (2, 6));
        assert_eq!(told[1].request_id.as_deref(), Some("3"));
        assert!(Told::read(b"{").is_err());
    }
}
