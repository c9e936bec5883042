//! Output by the clock: words at planned instants.

use std::sync::Arc;

use crate::{Counted, Event, Finish, Generation, Generator, Input, Metrics, Refusal, Request};
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::clock::{Clock, now};
use super::script::Schedule;

/// Tokens of a request that names no limit, from a server that was given no `--output`.
const DEFAULT_OUTPUT: u64 = 128;

/// The longest text that an event is padded to, in bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// The output, over and over; some words are not ASCII.
const WORDS: &[&str] = &[
    " one", " naïve", " river", " and", " three", " cafés", " wait", " for", " the", " 東京", " night",
    " train",
];

/// Generates words by a schedule, for as many streams at once as there are slots.
pub struct Scheduled {
    clock: Arc<Clock>,
    slots: Arc<Semaphore>,
    schedule: Schedule,
    slot_count: usize,
    seed: u64,
    metrics: Arc<Metrics>,
}

impl Scheduled {
    /// A generator whose requests go by `schedule`, unless one brings its own; `metrics` say which run and wait.
    pub fn new(
        clock: Arc<Clock>,
        schedule: Schedule,
        slots: usize,
        seed: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            clock,
            slots: Arc::new(Semaphore::new(slots)),
            schedule,
            slot_count: slots,
            seed,
            metrics,
        }
    }

    /// The clock by which everything goes.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Output by `schedule`, which starts at `received`, or when a slot is free.
    pub fn generate(&self, request: &Request, schedule: &Schedule, received: u64) -> Generation {
        let limit = request
            .max_tokens
            .unwrap_or_else(|| schedule.output.unwrap_or(DEFAULT_OUTPUT));
        let own_end = schedule
            .output
            .filter(|output| !request.ignore_eos && *output < limit);
        let (total, finish) = match own_end {
            Some(output) => (output.max(request.min_tokens), Finish::Stop),
            None => (limit, Finish::Length),
        };
        let state = Playing {
            clock: Arc::clone(&self.clock),
            slots: Arc::clone(&self.slots),
            slot: None,
            counted: Counted::new(&self.metrics.waiting),
            metrics: Arc::clone(&self.metrics),
            schedule: schedule.clone(),
            rng: ChaCha8Rng::seed_from_u64(request.seed.unwrap_or(self.seed)),
            start: received,
            due: received,
            event: 0,
            sent: 0,
            total,
            finish: Some(finish),
        };
        let events = Box::pin(stream::unfold(state, Playing::next));
        Generation {
            prompt_tokens: prompt_words(&request.input),
            events,
        }
    }
}

/// Words of a prompt, which stand for its tokens.
fn prompt_words(input: &Input) -> u64 {
    let words = |text: &str| text.split_whitespace().count() as u64;
    match input {
        Input::Text(text) => words(text),
        Input::Tokens(tokens) => tokens.len() as u64,
        Input::Messages(messages) => messages
            .iter()
            .filter_map(|m| m["content"].as_str())
            .map(words)
            .sum(),
    }
}

/// A stream on its way.
struct Playing {
    clock: Arc<Clock>,
    slots: Arc<Semaphore>,
    slot: Option<OwnedSemaphorePermit>,
    /// As one that waits, then as one that runs.
    counted: Counted,
    metrics: Arc<Metrics>,
    schedule: Schedule,
    rng: ChaCha8Rng,
    start: u64,
    due: u64,
    event: u64,
    sent: u64,
    total: u64,
    /// How it ends; none once that is told.
    finish: Option<Finish>,
}

impl Playing {
    async fn next(mut self) -> Option<(Event, Self)> {
        if self.slot.is_none() {
            self.wait_for_slot().await;
        }
        if self.sent == self.total {
            let reason = self.finish.take()?;
            let (tokens, logprobs) = (0, Vec::new());
            return Some((
                Event::Finish {
                    reason,
                    tokens,
                    logprobs,
                },
                self,
            ));
        }
        let late = if self.schedule.jitter > 0.0 {
            self.rng.random_range(0.0..self.schedule.jitter)
        } else {
            0.0
        };
        let offset = self.schedule.ttft + self.event as f64 * self.schedule.itl + late;
        self.due = self.due.max(self.start + (offset * 1e6) as u64);
        self.clock.sleep_until(self.due).await;
        let tokens = self.schedule.tokens_per_event.min(self.total - self.sent);
        let mut text: String = (self.sent..self.sent + tokens)
            .map(|i| WORDS[i as usize % WORDS.len()])
            .collect();
        while text.len() < self.schedule.event_bytes.min(MAX_EVENT_BYTES) {
            text.push('.');
        }
        self.sent += tokens;
        self.event += 1;
        let logprobs = Vec::new();
        Some((
            Event::Output {
                text,
                tokens,
                logprobs,
            },
            self,
        ))
    }

    async fn wait_for_slot(&mut self) {
        let slots = Arc::clone(&self.slots);
        let free_at_once = slots.available_permits() > 0;
        // The semaphore is never closed.
        self.slot = slots.acquire_owned().await.ok();
        self.counted = Counted::new(&self.metrics.running);
        if !free_at_once {
            self.start = now();
        }
    }
}

impl Generator for Scheduled {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Generation, Refusal>> {
        async move { Ok(self.generate(&request, &self.schedule, now())) }.boxed()
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Vec<u32>, Refusal>> {
        async move { Ok((0..).zip(text.split_whitespace()).map(|(i, _)| i).collect()) }.boxed()
    }

    fn props(&self) -> Value {
        json!({ "engine": "reference", "version": env!("CARGO_PKG_VERSION"), "parallel": self.slot_count })
    }

    fn fingerprint(&self) -> &str {
        concat!("reference-", env!("CARGO_PKG_VERSION"))
    }
}
