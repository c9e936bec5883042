//! Folds requests, as they end, into what a step leaves behind. One recorder a shard; they merge without loss.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::{Latencies, Outcome, Sample, StepRecord, TokenSource, Trace, Window};

/// What a request must keep to count as good, in nanoseconds; an objective that is absent is met by all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objectives {
    /// Longest time to first token.
    pub ttft_ns: Option<u64>,
    /// Longest time per output token.
    pub tpot_ns: Option<u64>,
    /// Longest end-to-end latency.
    pub e2el_ns: Option<u64>,
}

/// Longest latency that is told from longer ones: an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST_NS, 3).expect("the bounds are valid")
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            ttft: histogram(),
            ttft_from_due: histogram(),
            ttfo: histogram(),
            ttst: histogram(),
            itl: histogram(),
            icl: histogram(),
            tpot: histogram(),
            e2el: histogram(),
            connect: histogram(),
        }
    }
}

impl Latencies {
    fn merge(&mut self, other: &Self) {
        let pairs = [
            (&mut self.ttft, &other.ttft),
            (&mut self.ttft_from_due, &other.ttft_from_due),
            (&mut self.ttfo, &other.ttfo),
            (&mut self.ttst, &other.ttst),
            (&mut self.itl, &other.itl),
            (&mut self.icl, &other.icl),
            (&mut self.tpot, &other.tpot),
            (&mut self.e2el, &other.e2el),
            (&mut self.connect, &other.connect),
        ];
        for (own, other) in pairs {
            own.add(other).expect("all have the same bounds");
        }
    }
}

/// Events and tokens of one second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arrivals {
    /// Output events.
    pub events: u64,
    /// Output tokens.
    pub tokens: f64,
}

/// What one shard of a step recorded.
#[derive(Debug)]
pub struct Recorder {
    objectives: Option<Objectives>,
    first_second: u64,
    seconds: Vec<Arrivals>,
    tokens_in_window: f64,
    sources: [(TokenSource, u64); 3],
    record: StepRecord,
}

impl Recorder {
    /// An empty recorder of a step that begins at `start_ns`.
    pub fn new(start_ns: u64, objectives: Option<Objectives>) -> Self {
        Self {
            objectives,
            first_second: start_ns / 1_000_000_000,
            seconds: Vec::new(),
            tokens_in_window: 0.0,
            sources: [TokenSource::Usage, TokenSource::Tokenizer, TokenSource::Events]
                .map(|source| (source, 0)),
            record: StepRecord {
                window: Window {
                    start_ns: u64::MAX,
                    end_ns: u64::MAX,
                },
                users: 0,
                latencies: Latencies::default(),
                outcomes: BTreeMap::new(),
                all_outcomes: BTreeMap::new(),
                resent: 0,
                completed_in_window: 0,
                output_tokens_in_window: 0.0,
                input_tokens: 0,
                output_tokens: 0,
                all_events: 0,
                all_output_tokens: 0,
                token_sources: Vec::new(),
                in_flight_ns: 0,
                streaming_ns: 0,
                good: objectives.map(|_| 0),
                read_lag: histogram(),
                send_lag: histogram(),
                kernel_stamps: true,
                stamp_error_ns: None,
                client_cpu_ns: 0,
                seconds: Vec::new(),
                goose_requests: (0, 0),
            },
        }
    }

    /// Arrivals of this shard were not stamped by the kernel.
    pub fn without_kernel_stamps(&mut self) {
        self.record.kernel_stamps = false;
    }

    /// Adds a request that has ended. `window` is the window as known now: what is not known of it lies ahead.
    pub fn fold(&mut self, sample: &Sample, trace: &Trace, window: Window) {
        let inside = |at: u64| window.start_ns <= at && at < window.end_ns;
        let record = &mut self.record;
        let tokens = u64::from(sample.n_out.unwrap_or(0));
        *record.all_outcomes.entry(sample.outcome).or_default() += 1;
        record.resent += u64::from(trace.resent);
        record.all_events += u64::from(sample.events);
        record.all_output_tokens += tokens;
        if sample.last_ns.is_some_and(inside) {
            record.completed_in_window += 1;
        }
        if let (Some(sent), Some(end)) = (sample.sent_ns, sample.end_ns) {
            record.in_flight_ns += overlap(sent, end, window);
        }
        if let (Some(first), Some(last)) = (sample.first_ns, sample.last_ns) {
            record.streaming_ns += overlap(first, last, window);
        }
        self.arrivals(sample, trace, window);
        // A request that could not be sent counts where it ended, or its failure would leave the report.
        if sample.sent_ns.or(sample.end_ns).is_some_and(inside) {
            self.sent_inside(sample, trace);
        }
    }

    fn sent_inside(&mut self, sample: &Sample, trace: &Trace) {
        let record = &mut self.record;
        *record.outcomes.entry(sample.outcome).or_default() += 1;
        record.stamp_error_ns = record.stamp_error_ns.max(trace.stamp_error_ns);
        if let Some(sent) = sample.sent_ns {
            record
                .send_lag
                .saturating_record(sent.saturating_sub(sample.due_ns));
        }
        if sample.outcome != Outcome::Ok {
            return;
        }
        for (source, requests) in &mut self.sources {
            *requests += u64::from(*source == sample.token_source);
        }
        record.input_tokens += u64::from(sample.n_in.unwrap_or(0));
        record.output_tokens += u64::from(sample.n_out.unwrap_or(0));
        let times = Times::of(sample, trace);
        record.latencies.request(sample, &times);
        record.latencies.gaps(trace, sample.n_out.unwrap_or(0));
        if let (Some(good), Some(objectives)) = (&mut record.good, &self.objectives) {
            *good += u64::from(times.meet(objectives));
        }
    }

    /// Tokens by second and in the window, and how late their events were read.
    fn arrivals(&mut self, sample: &Sample, trace: &Trace, window: Window) {
        // Where events do not say how many tokens they carry, all carry the same share of them.
        let share = f64::from(sample.n_out.unwrap_or(0)) / f64::from(sample.events.max(1));
        for event in trace.events() {
            let second =
                usize::try_from((event.at_ns / 1_000_000_000).saturating_sub(self.first_second)).unwrap_or(0);
            if self.seconds.len() <= second {
                self.seconds.resize(second + 1, Arrivals::default());
            }
            self.seconds[second].events += 1;
            self.seconds[second].tokens += share;
            if window.start_ns <= event.at_ns && event.at_ns < window.end_ns {
                self.tokens_in_window += share;
                self.record.read_lag.saturating_record(u64::from(event.lag_ns));
            }
        }
    }

    /// Adds what another shard of the step recorded.
    pub fn merge(&mut self, other: Self) {
        let (record, added) = (&mut self.record, other.record);
        record.latencies.merge(&added.latencies);
        for (own, added) in [
            (&mut record.outcomes, added.outcomes),
            (&mut record.all_outcomes, added.all_outcomes),
        ] {
            for (outcome, requests) in added {
                *own.entry(outcome).or_default() += requests;
            }
        }
        record.completed_in_window += added.completed_in_window;
        record.input_tokens += added.input_tokens;
        record.output_tokens += added.output_tokens;
        record.all_events += added.all_events;
        record.all_output_tokens += added.all_output_tokens;
        record.resent += added.resent;
        record.in_flight_ns += added.in_flight_ns;
        record.streaming_ns += added.streaming_ns;
        record.good = record.good.zip(added.good).map(|(own, added)| own + added);
        record
            .read_lag
            .add(added.read_lag)
            .expect("all have the same bounds");
        record
            .send_lag
            .add(added.send_lag)
            .expect("all have the same bounds");
        record.kernel_stamps &= added.kernel_stamps;
        record.stamp_error_ns = record.stamp_error_ns.max(added.stamp_error_ns);
        self.tokens_in_window += other.tokens_in_window;
        for (own, added) in self.sources.iter_mut().zip(other.sources) {
            own.1 += added.1;
        }
        let seconds = self.seconds.len().max(other.seconds.len());
        self.seconds.resize(seconds, Arrivals::default());
        for (own, added) in self.seconds.iter_mut().zip(other.seconds) {
            own.events += added.events;
            own.tokens += added.tokens;
        }
    }

    /// The step's record, but for what a recorder cannot know: users, CPU, seconds and goose's rows. The second list
    /// holds the arrivals by second, from the second in which the step began.
    pub fn finish(mut self, window: Window) -> (StepRecord, Vec<Arrivals>) {
        self.record.window = window;
        self.record.output_tokens_in_window = self.tokens_in_window;
        self.record.token_sources = self
            .sources
            .into_iter()
            .filter(|(_, requests)| *requests > 0)
            .collect();
        (self.record, self.seconds)
    }
}

/// How long `from..to` lies inside the window, in nanoseconds.
fn overlap(from: u64, to: u64, window: Window) -> u128 {
    u128::from(to.min(window.end_ns).saturating_sub(from.max(window.start_ns)))
}

/// The latencies of one request that succeeded.
struct Times {
    ttft: Option<u64>,
    tpot: Option<u64>,
    e2el: Option<u64>,
}

impl Times {
    fn of(sample: &Sample, trace: &Trace) -> Self {
        let since_sent = |at: Option<u64>| at.zip(sample.sent_ns).map(|(at, sent)| at.saturating_sub(sent));
        let decode = sample
            .last_ns
            .zip(sample.first_ns)
            .map(|(last, first)| last - first);
        let n_first = trace.events().first().map_or(1, |event| event.tokens.max(1));
        let later = sample
            .n_out
            .and_then(|tokens| tokens.checked_sub(n_first))
            .filter(|&tokens| tokens > 0);
        Self {
            ttft: since_sent(sample.first_ns),
            tpot: decode
                .zip(later)
                .map(|(decode, tokens)| decode / u64::from(tokens)),
            e2el: since_sent(sample.last_ns),
        }
    }

    fn meet(&self, objectives: &Objectives) -> bool {
        let within = |time: Option<u64>, limit: Option<u64>| {
            limit.is_none_or(|limit| time.is_none_or(|time| time <= limit))
        };
        within(self.ttft, objectives.ttft_ns)
            && within(self.tpot, objectives.tpot_ns)
            && within(self.e2el, objectives.e2el_ns)
    }
}

impl Latencies {
    fn request(&mut self, sample: &Sample, times: &Times) {
        let since =
            |at: Option<u64>, from: Option<u64>| at.zip(from).map(|(at, from)| at.saturating_sub(from));
        let values = [
            (&mut self.ttft, times.ttft),
            (
                &mut self.ttft_from_due,
                since(sample.first_ns, Some(sample.due_ns)),
            ),
            (&mut self.ttfo, since(sample.first_visible_ns, sample.sent_ns)),
            (&mut self.ttst, since(sample.second_ns, sample.first_ns)),
            (&mut self.tpot, times.tpot),
            (&mut self.e2el, times.e2el),
            (&mut self.connect, sample.connect_ns),
        ];
        for (histogram, value) in values {
            if let Some(value) = value {
                histogram.saturating_record(value);
            }
        }
    }

    /// Inter-chunk and inter-token latencies.
    fn gaps(&mut self, trace: &Trace, n_out: u32) {
        let mut carried = TokensOf::new(trace, n_out);
        // A gap that ends with an event without a token of its own belongs to the token that follows.
        let mut waiting = 0;
        for (index, pair) in trace.events().windows(2).enumerate() {
            let gap = pair[1].at_ns.saturating_sub(pair[0].at_ns);
            self.icl.saturating_record(gap);
            waiting += gap;
            let tokens = carried.of(index + 1);
            if let Some(latency) = waiting.checked_div(tokens) {
                self.itl.saturating_record_n(latency, tokens);
                waiting = 0;
            }
        }
    }
}

/// How many tokens each event of a request carries.
enum TokensOf<'a> {
    /// The server says so, event by event.
    Told(&'a Trace),
    /// The server only gives the sum, and it is more than one an event.
    Spread { n_out: u64, events: u64 },
    /// One each. A sum of one more is the end-of-sequence token, which comes without an event.
    One,
}

impl<'a> TokensOf<'a> {
    fn new(trace: &'a Trace, n_out: u32) -> Self {
        let events = trace.count();
        if trace.events().iter().all(|event| event.tokens > 0) {
            Self::Told(trace)
        } else if n_out > events.saturating_add(1) {
            Self::Spread {
                n_out: u64::from(n_out),
                events: u64::from(events),
            }
        } else {
            Self::One
        }
    }

    fn of(&mut self, index: usize) -> u64 {
        match self {
            Self::Told(trace) => {
                let events = trace.events();
                u64::from(events[index].tokens.saturating_sub(events[index - 1].tokens))
            }
            Self::Spread { n_out, events } => {
                let until = |index: u64| index * *n_out / *events;
                until(index as u64 + 1) - until(index as u64)
            }
            Self::One => 1,
        }
    }
}

#[cfg(test)]
mod tests {
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
        let itl = recorder.finish(WINDOW).0.latencies.itl;
        assert_eq!(itl.len(), 5);
        assert!(close(itl.value_at_quantile(0.5), 10) && close(itl.max(), 20));
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
}
