//! What lies between the events of a request: inter-chunk and inter-token latencies.

use hdrhistogram::Histogram;

use super::positions::Positions;
use super::{Event, Latencies, Trace};

/// How far the events of a request have been walked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GapWalk {
    last: Option<Event>,
    /// A gap that ends with an event without a token of its own belongs to the token that follows.
    waiting_ns: u64,
    /// Tokens after the first event's so far.
    tokens: u64,
}

impl GapWalk {
    /// Counts the gap before `event`, and the latency of the tokens that the event carries; `tokens` is given the event
    /// before it.
    pub fn step(
        &mut self,
        event: Event,
        tokens: impl FnOnce(&Event) -> u64,
        icl: &mut Histogram<u64>,
        itl: &mut Histogram<u64>,
        positions: &mut Positions,
    ) {
        let Some(before) = self.last.replace(event) else {
            return;
        };
        let gap = event.at_ns.saturating_sub(before.at_ns);
        icl.saturating_record(gap);
        self.waiting_ns += gap;
        let tokens = tokens(&before);
        if let Some(latency) = self.waiting_ns.checked_div(tokens) {
            itl.saturating_record_n(latency, tokens);
            self.tokens += tokens;
            positions.add(1 + self.tokens, tokens, self.waiting_ns);
            self.waiting_ns = 0;
        }
    }
}

/// Tokens of an event by the server's word on it and on the event before.
pub(super) fn told(event: &Event, before: &Event) -> u64 {
    u64::from(event.tokens.saturating_sub(before.tokens))
}

/// How many tokens each event of a request carries.
#[derive(Clone, Copy)]
enum TokensOf {
    /// The server says so, event by event.
    Told,
    /// The server only gives the sum, and it is more than one an event.
    Spread { n_out: u64, events: u64 },
    /// One each. A sum of one more is the end-of-sequence token, which comes without an event.
    One,
}

impl TokensOf {
    fn new(trace: &Trace, n_out: u32) -> Self {
        let events = trace.count();
        if trace.is_told() {
            Self::Told
        } else if n_out > events.saturating_add(1) {
            Self::Spread {
                n_out: u64::from(n_out),
                events: u64::from(events),
            }
        } else {
            Self::One
        }
    }

    /// Tokens of the event of this index, which is not the first.
    fn of(self, index: u64, event: &Event, before: &Event) -> u64 {
        match self {
            Self::Told => told(event, before),
            Self::Spread { .. } => self.until(index + 1) - self.until(index),
            Self::One => 1,
        }
    }

    /// Tokens of all events before the one of this index.
    fn until(self, index: u64) -> u64 {
        match self {
            Self::Spread { n_out, events } => index * n_out / events,
            Self::Told | Self::One => index,
        }
    }
}

impl Latencies {
    /// Adds the gaps of a request that generated `n_out` tokens.
    pub(super) fn gaps(&mut self, trace: &Trace, n_out: u32) {
        let tokens = TokensOf::new(trace, n_out);
        let (mut walk, mut index) = (GapWalk::default(), 0);
        if let Some(folded) = trace.folded() {
            self.icl.add(&folded.icl).expect("all have the same bounds");
            let itl = match tokens {
                TokensOf::Told => Some((&folded.told_itl, &folded.told_positions)),
                TokensOf::One => Some((&folded.icl, &folded.positions)),
                TokensOf::Spread { .. } => None,
            };
            match itl {
                Some((itl, positions)) => {
                    self.itl.add(itl).expect("all have the same bounds");
                    self.positions.merge(positions);
                }
                // Where its tokens lie is not known: they count for no position.
                None => spread(
                    &folded.icl,
                    tokens.until(folded.events) - tokens.until(1),
                    &mut self.itl,
                ),
            }
            walk = folded.gaps;
            if !matches!(tokens, TokensOf::Told) {
                walk.waiting_ns = 0;
                walk.tokens = tokens.until(folded.events).saturating_sub(1);
            }
            index = folded.events;
        }
        for event in trace.events() {
            walk.step(
                *event,
                |before| tokens.of(index, event, before),
                &mut self.icl,
                &mut self.itl,
                &mut self.positions,
            );
            index += 1;
        }
    }
}

/// Spreads `tokens` evenly over gaps of which only the distribution is known, and adds the latency of each token.
fn spread(gaps: &Histogram<u64>, tokens: u64, itl: &mut Histogram<u64>) {
    let Some(each) = tokens.checked_div(gaps.len()) else {
        return;
    };
    // So many gaps have one token more than the others.
    let more = tokens % gaps.len();
    let mut carry = 0;
    for step in gaps.iter_recorded() {
        let (gap, count) = (
            gaps.median_equivalent(step.value_iterated_to()),
            step.count_at_value(),
        );
        carry += count * more;
        let with_more = carry / gaps.len();
        carry %= gaps.len();
        itl.saturating_record_n(gap / (each + 1), with_more * (each + 1));
        if let Some(latency) = gap.checked_div(each) {
            itl.saturating_record_n(latency, (count - with_more) * each);
        }
    }
}
