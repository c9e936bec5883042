//! Latency histograms, and how a request enters them.

use hdrhistogram::Histogram;

use super::histogram::empty;
use super::positions::Positions;
use super::{Objectives, Sample, Trace};

/// Latency histograms in nanoseconds, 3 significant digits, over the requests sent inside the window that succeeded.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// Time to first token: `first - sent`.
    pub ttft: Histogram<u64>,
    /// `first - due`.
    pub ttft_from_due: Histogram<u64>,
    /// Time to first visible output: `first_visible - sent`.
    pub ttfo: Histogram<u64>,
    /// Time to second token: `second - first`.
    pub ttst: Histogram<u64>,
    /// Inter-token latency: each gap divided by the later event's tokens, counted once per token.
    pub itl: Histogram<u64>,
    /// The same, summed by the token's place in the answer.
    pub positions: Positions,
    /// Inter-chunk latency: the raw gaps.
    pub icl: Histogram<u64>,
    /// Time per output token of each request.
    pub tpot: Histogram<u64>,
    /// End-to-end latency: `last - sent`.
    pub e2el: Histogram<u64>,
    /// Connection set-up of the requests that opened one.
    pub connect: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            ttft: empty(),
            ttft_from_due: empty(),
            ttfo: empty(),
            ttst: empty(),
            itl: empty(),
            positions: Positions::default(),
            icl: empty(),
            tpot: empty(),
            e2el: empty(),
            connect: empty(),
        }
    }
}

impl Latencies {
    pub(super) fn merge(&mut self, other: &Self) {
        self.positions.merge(&other.positions);
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

    /// Adds what a request says as a whole; what lies between its events is added by
    /// [`gaps`](super::gaps).
    pub(super) fn request(&mut self, sample: &Sample, times: &Times) {
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
}

/// The latencies of one request that objectives are about.
pub(super) struct Times {
    pub(super) ttft: Option<u64>,
    pub(super) tpot: Option<u64>,
    pub(super) e2el: Option<u64>,
}

impl Times {
    /// Of a request whose events are at hand.
    pub fn of(sample: &Sample, trace: &Trace) -> Self {
        Self::with_first(sample, trace.first_tokens())
    }

    /// Of a request whose first event carried `n_first` tokens.
    pub fn with_first(sample: &Sample, n_first: u32) -> Self {
        let since_sent = |at: Option<u64>| at.zip(sample.sent_ns).map(|(at, sent)| at.saturating_sub(sent));
        let decode = sample
            .last_ns
            .zip(sample.first_ns)
            .map(|(last, first)| last.saturating_sub(first));
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

    /// Whether every objective is met; one about what the request did not reach is.
    pub fn meet(&self, objectives: &Objectives) -> bool {
        let within = |time: Option<u64>, limit: Option<u64>| {
            limit.is_none_or(|limit| time.is_none_or(|time| time <= limit))
        };
        within(self.ttft, objectives.ttft_ns)
            && within(self.tpot, objectives.tpot_ns)
            && within(self.e2el, objectives.e2el_ns)
    }
}
