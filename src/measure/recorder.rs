//! Folds requests, as they end, into what a step leaves behind. One recorder a shard; they merge without loss.

use super::arrivals::{StampWalk, Stamps};
use super::latencies::Times;
use super::rows::Row;
use super::streams::Streams;
use super::{Arrivals, Outcome, Sample, StepRecord, TokenSource, Trace, Window};

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

/// What one shard of a step recorded.
#[derive(Debug)]
pub struct Recorder {
    objectives: Option<Objectives>,
    first_second: u64,
    seconds: Vec<Arrivals>,
    tokens_in_window: f64,
    sources: [(TokenSource, u64); 3],
    stamps: Stamps,
    streams: Streams,
    record: StepRecord,
}

impl Recorder {
    /// An empty recorder of a step that begins at `start_ns`.
    pub fn new(start_ns: u64, objectives: Option<Objectives>) -> Self {
        let ahead = Window {
            start_ns: u64::MAX,
            end_ns: u64::MAX,
        };
        Self {
            objectives,
            first_second: start_ns / 1_000_000_000,
            seconds: Vec::new(),
            tokens_in_window: 0.0,
            sources: [TokenSource::Usage, TokenSource::Tokenizer, TokenSource::Events]
                .map(|source| (source, 0)),
            stamps: Stamps::default(),
            streams: Streams::new(start_ns),
            record: StepRecord {
                good: objectives.map(|_| 0),
                kernel_stamps: true,
                ..StepRecord::empty(ahead, 0)
            },
        }
    }

    /// Arrivals of this shard were not stamped by the kernel.
    pub fn without_kernel_stamps(&mut self) {
        self.record.kernel_stamps = false;
    }

    /// Adds a request that has ended. `window` is the window as known now: what is not known of it lies ahead.
    pub fn fold(&mut self, sample: &Sample, trace: &Trace, window: Window) {
        let inside = |at: u64| window.holds(at);
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
            self.streams.add(first, last);
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
            // A request that was sent again was late by what the server did.
            if !trace.resent {
                record.send_lag.saturating_record(sample.send_lag_ns(sent));
            }
            if let Some(writing) = trace.writing_ns {
                record.sending.saturating_record(writing.saturating_sub(sent));
            }
        }
        if sample.outcome != Outcome::Ok {
            record.rows.push(Row::failed(sample));
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
        let met = self.objectives.is_some_and(|objectives| times.meet(&objectives));
        if let Some(good) = &mut record.good {
            *good += u64::from(met);
        }
        record.rows.push(Row::of(sample, &times, met));
    }

    /// Tokens by second and in the window, and how well their arrivals are known.
    fn arrivals(&mut self, sample: &Sample, trace: &Trace, window: Window) {
        // Where events do not say how many tokens they carry, all carry the same share of them.
        let share = f64::from(sample.n_out.unwrap_or(0)) / f64::from(sample.events.max(1));
        let mut walk = StampWalk::from(trace.floor_ns());
        if let Some(folded) = trace.folded() {
            for &(second, events) in &folded.seconds {
                self.second(second, events, share);
            }
            self.tokens_in_window += folded.stamps.events as f64 * share;
            self.stamps.merge(&folded.stamps);
            walk = folded.stamp_walk;
        }
        for event in trace.events() {
            self.second(event.at_ns / 1_000_000_000, 1, share);
            if window.holds(event.at_ns) {
                self.tokens_in_window += share;
            }
            self.stamps.take(&mut walk, event, window);
        }
    }

    fn second(&mut self, second: u64, events: u64, share: f64) {
        let index = usize::try_from(second.saturating_sub(self.first_second)).unwrap_or(0);
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Arrivals::default());
        }
        self.seconds[index].events += events;
        self.seconds[index].tokens += events as f64 * share;
    }

    /// Adds what another shard of the step recorded.
    pub fn merge(&mut self, other: Self) {
        let (record, added) = (&mut self.record, other.record);
        record.latencies.merge(&added.latencies);
        record.rows.merge(added.rows);
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
        for (own, added) in [
            (&mut record.send_lag, added.send_lag),
            (&mut record.sending, added.sending),
        ] {
            own.add(added).expect("all have the same bounds");
        }
        self.stamps.merge(&other.stamps);
        self.streams.merge(&other.streams);
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
        self.record.events_in_window = self.stamps.events;
        self.record.unstamped_events = self.stamps.unstamped;
        self.record.streaming_p95 = self.streams.p95(window);
        self.record.read_lag = self.stamps.read_lag;
        self.record.shared_stamps = self.stamps.shared;
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

#[cfg(test)]
mod tests;
