//! A request inside the engine: a job while it waits, a sequence while it has a slot.

use loadtest_protocol::TokenLogprob;
use tokio::sync::mpsc::UnboundedSender;

use crate::logprobs::Likeliest;
use crate::plan::Need;
use crate::sample::Sampler;
use crate::scheduler::Place;
use crate::text::{Detokenizer, TextModel};
use crate::{Counted, Event, Finish, Rows};

/// A request on its way to the engine.
pub(crate) struct Job {
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub min_tokens: usize,
    pub ignore_eos: bool,
    pub logprobs: Option<usize>,
    pub sampler: Sampler,
    pub detokenizer: Detokenizer,
    pub events: UnboundedSender<Event>,
    pub counted: Counted,
    /// Held until the request is over.
    pub _place: Place,
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
    /// Their log probabilities, if the request asked for them.
    untold_logprobs: Vec<TokenLogprob>,
    /// Rows of the step that is computed.
    pub rows: usize,
    /// Which row of the step's logits is its own.
    pub row_of_logits: Option<usize>,
    pub next: u32,
    /// How likely `next` was, if the request asked for it.
    pub likeliest: Option<Likeliest>,
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
            untold_logprobs: Vec::new(),
            rows: 0,
            row_of_logits: None,
            next: 0,
            likeliest: None,
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
        if let Some(likeliest) = self.likeliest.take() {
            self.untold_logprobs.push(likeliest.told(text));
        }
        if text.end_tokens().contains(&self.next) {
            return self.end(Finish::Stop);
        }
        let may_stop = self.generated >= self.job.min_tokens;
        let (piece, stopped) = self.job.detokenizer.push(text.token_bytes(self.next), may_stop);
        self.tell_text(piece);
        if stopped {
            self.over = true;
            self.tell_finish(Finish::Stop);
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
        self.tell_finish(reason);
    }

    fn tell_finish(&mut self, reason: Finish) {
        let tokens = std::mem::take(&mut self.untold);
        let logprobs = std::mem::take(&mut self.untold_logprobs);
        self.tell(Event::Finish {
            reason,
            tokens,
            logprobs,
        });
    }

    fn tell_text(&mut self, text: String) {
        if !text.is_empty() {
            let tokens = std::mem::take(&mut self.untold);
            let logprobs = std::mem::take(&mut self.untold_logprobs);
            self.tell(Event::Output {
                text,
                tokens,
                logprobs,
            });
        }
    }

    /// A client that went away misses it, and is noticed before the next step.
    pub fn tell(&self, event: Event) {
        let _ = self.job.events.send(event);
    }
}
