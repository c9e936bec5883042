//! A request inside the engine: a job while it waits, a sequence while it has a slot.

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::mpsc::UnboundedSender;

use crate::plan::Need;
use crate::sample::Sampler;
use crate::scheduler::Place;
use crate::text::{Detokenizer, TextModel};
use crate::{Event, Finish, Rows};

/// A request on its way to the engine.
pub(crate) struct Job {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub min_tokens: usize,
    pub ignore_eos: bool,
    pub sampler: Sampler,
    pub detokenizer: Detokenizer,
    pub events: UnboundedSender<Event>,
    pub counted: Counted,
    /// Held until the request is over.
    pub _place: Place,
}

/// Counts a request in a gauge while it lives, so that no way out of the server can leave it there.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that has a slot.
pub(crate) struct Sequence {
    pub slot: usize,
    pub job: Job,
    /// The prompt and what was generated.
    pub tokens: Vec<u32>,
    /// How many of `tokens` are in the slot's KV memory.
    pub computed: usize,
    generated: usize,
    /// Tokens generated since the last event.
    untold: u64,
    /// Rows of the step that is computed.
    pub rows: usize,
    /// Which row of the step's logits is its own.
    pub row_of_logits: Option<usize>,
    pub next: u32,
    pub over: bool,
}

impl Sequence {
    pub fn new(mut job: Job, slot: usize, running: Counted) -> Self {
        job.counted = running;
        let mut tokens = std::mem::take(&mut job.prompt);
        tokens.reserve_exact(job.max_tokens);
        Self {
            slot,
            job,
            tokens,
            computed: 0,
            generated: 0,
            untold: 0,
            rows: 0,
            row_of_logits: None,
            next: 0,
            over: false,
        }
    }

    pub fn need(&self) -> Need {
        if self.generated > 0 {
            Need::Decode
        } else {
            Need::Prefill(self.tokens.len() - self.computed)
        }
    }

    pub fn rows_of_step(&self) -> Option<Rows<'_>> {
        let tokens = &self.tokens[self.computed..self.computed + self.rows];
        let logits = self.row_of_logits.is_some();
        (!tokens.is_empty()).then_some(Rows {
            slot: self.slot,
            position: self.computed,
            tokens,
            logits,
        })
    }

    pub fn may_end(&self) -> bool {
        !self.job.ignore_eos && self.generated >= self.job.min_tokens
    }

    /// Takes the chosen token: tells its text, or ends.
    pub fn accept(&mut self, text: &dyn TextModel) {
        self.generated += 1;
        self.untold += 1;
        if text.end_tokens().contains(&self.next) {
            return self.end(Finish::Stop);
        }
        let may_stop = self.generated >= self.job.min_tokens;
        let (piece, stopped) = self.job.detokenizer.push(text.token_bytes(self.next), may_stop);
        self.tell_text(piece);
        if stopped {
            self.over = true;
            let tokens = std::mem::take(&mut self.untold);
            self.tell(Event::Finish {
                reason: Finish::Stop,
                tokens,
            });
        } else if self.generated == self.job.max_tokens {
            self.end(Finish::Length);
        } else {
            self.tokens.push(self.next);
        }
    }

    fn end(&mut self, reason: Finish) {
        self.over = true;
        let rest = self.job.detokenizer.finish();
        self.tell_text(rest);
        let tokens = std::mem::take(&mut self.untold);
        self.tell(Event::Finish { reason, tokens });
    }

    fn tell_text(&mut self, text: String) {
        if !text.is_empty() {
            let tokens = std::mem::take(&mut self.untold);
            self.tell(Event::Output { text, tokens });
        }
    }

    /// A client that went away misses it, and is noticed before the next step.
    pub fn tell(&self, event: Event) {
        let _ = self.job.events.send(event);
    }
}
