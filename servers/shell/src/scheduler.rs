//! Continuous batching at iteration level: sequences join and leave between steps.
//!
//! The engine lives on a thread of its own, that of [`Worker::run`]; requests reach it by a channel, and its
//! events leave by one channel a request, so that the I/O runtime never waits for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Instant;

use axum::http::StatusCode;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::plan::{self, Need};
use crate::sample::Sampler;
use crate::text::{Detokenizer, TextModel};
use crate::{
    Engine, EngineInfo, Event, Finish, Generation, Generator, Input, Metrics, Refusal, Request, Rows,
};

/// The bounds of a server.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// Sequences at a time.
    pub parallel: usize,
    /// Most tokens of a sequence, prompt and output.
    pub context: usize,
    /// Requests that may wait for a slot.
    pub queue: usize,
    /// Most rows of prompts in a step.
    pub prefill_chunk: usize,
}

/// Where requests go in: the generator of an engine.
pub struct Scheduler {
    jobs: Sender<Job>,
    text: Arc<dyn TextModel>,
    info: EngineInfo,
    limits: Limits,
    fingerprint: String,
    taken: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// Where the engine works.
pub struct Worker {
    engine: Box<dyn Engine>,
    text: Arc<dyn TextModel>,
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    /// In the order in which they came.
    running: Vec<Sequence>,
    free_slots: Vec<usize>,
    limits: Limits,
    vocabulary: usize,
    kv_bytes_per_token: u64,
    end_tokens: Vec<u32>,
    logits: Vec<f32>,
    metrics: Arc<Metrics>,
}

/// A request on its way to the engine.
struct Job {
    prompt: Vec<u32>,
    max_tokens: usize,
    min_tokens: usize,
    ignore_eos: bool,
    sampler: Sampler,
    detokenizer: Detokenizer,
    events: UnboundedSender<Event>,
    /// Held until the request is over.
    _place: Place,
}

/// A request's place among those that run or wait; dropped, another may have it.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that has a slot.
struct Sequence {
    slot: usize,
    job: Job,
    /// The prompt and what was generated.
    tokens: Vec<u32>,
    /// How many of `tokens` are in the slot's KV memory.
    computed: usize,
    generated: usize,
    /// Tokens generated since the last event.
    untold: u64,
    /// Rows of the step that is computed.
    rows: usize,
    /// Which row of the step's logits is its own.
    row_of_logits: Option<usize>,
    next: u32,
    over: bool,
}

impl Scheduler {
    /// Makes `engine` ready to serve within `limits`. The worker is to be run on a thread of its own.
    ///
    /// # Errors
    /// If a limit is 0 or the engine has no room for them.
    pub fn new(
        mut engine: Box<dyn Engine>,
        text: Arc<dyn TextModel>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<(Self, Worker)> {
        let info = engine.info();
        let limits = Limits {
            context: limits.context.min(info.max_context),
            ..limits
        };
        anyhow::ensure!(limits.parallel > 0, "--parallel must be at least 1");
        anyhow::ensure!(limits.context > 1, "--context must be at least 2 tokens");
        engine.prepare(limits.parallel, limits.context)?;
        metrics.kv_bytes_bound.set(kv_bound(&info, limits) as i64);
        let (sender, jobs) = channel();
        let end_tokens = text.end_tokens().to_vec();
        let worker = Worker {
            engine,
            text: Arc::clone(&text),
            jobs,
            waiting: VecDeque::new(),
            running: Vec::with_capacity(limits.parallel),
            free_slots: (0..limits.parallel).rev().collect(),
            limits,
            vocabulary: info.vocabulary,
            kv_bytes_per_token: info.kv_bytes_per_token,
            end_tokens,
            logits: Vec::new(),
            metrics: Arc::clone(&metrics),
        };
        let fingerprint = format!("{}-{}", info.engine, info.version);
        let taken = Arc::default();
        Ok((
            Self {
                jobs: sender,
                text,
                info,
                limits,
                fingerprint,
                taken,
                metrics,
            },
            worker,
        ))
    }

    /// Takes a place, of which there are as many as may run and wait.
    fn place(&self) -> Result<Place, Refusal> {
        let places = self.limits.parallel + self.limits.queue;
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < places).then_some(taken + 1)
            });
        taken
            .map(|_| Place(Arc::clone(&self.taken)))
            .map_err(|_| Refusal::queue_full(self.limits.queue))
    }

    fn submit_tokens(&self, request: Request, prompt: Vec<u32>, place: Place) -> Result<Generation, Refusal> {
        let (length, context) = (prompt.len(), self.limits.context);
        let param = if matches!(request.input, Input::Messages(_)) {
            "messages"
        } else {
            "prompt"
        };
        if prompt.is_empty() {
            return Err(Refusal::param(param, format!("'{param}' has no token.")));
        }
        if let Some(token) = prompt
            .iter()
            .find(|token| **token as usize >= self.info.vocabulary)
        {
            let message = format!(
                "'{param}' holds token {token}; the model has {}.",
                self.info.vocabulary
            );
            return Err(Refusal::param(param, message));
        }
        let wanted = request
            .max_tokens
            .map_or(1, |max| usize::try_from(max).unwrap_or(usize::MAX));
        if length.saturating_add(wanted) > context {
            return Err(Refusal::context_too_long(param, length, wanted, context));
        }
        let (events, receiver) = unbounded_channel();
        let job = Job {
            max_tokens: request.max_tokens.map_or(context - length, |_| wanted),
            min_tokens: usize::try_from(request.min_tokens).unwrap_or(usize::MAX),
            ignore_eos: request.ignore_eos,
            sampler: Sampler::new(
                request.temperature,
                request.top_p,
                request.seed.unwrap_or_else(rand::random),
            ),
            detokenizer: Detokenizer::new(request.stop),
            prompt,
            events,
            _place: place,
        };
        self.metrics.waiting.inc();
        if self.jobs.send(job).is_err() {
            self.metrics.waiting.dec();
            return Err(Refusal::internal("The engine stopped."));
        }
        self.metrics.prompt_tokens.inc_by(length as u64);
        Ok(Generation {
            prompt_tokens: length as u64,
            events: Box::pin(receive(receiver)),
        })
    }
}

fn receive(events: UnboundedReceiver<Event>) -> impl stream::Stream<Item = Event> {
    stream::unfold(events, |mut events| async move {
        events.recv().await.map(|event| (event, events))
    })
}

fn kv_bound(info: &EngineInfo, limits: Limits) -> u64 {
    info.kv_bytes_per_token * limits.parallel as u64 * limits.context as u64
}

/// The tokens of a request's input.
fn encode(text: &dyn TextModel, input: &Input) -> Result<Vec<u32>, Refusal> {
    let encoded = match input {
        Input::Tokens(tokens) => return Ok(tokens.clone()),
        Input::Text(prompt) => text.encode(prompt, false),
        Input::Messages(messages) => {
            let prompt = text.chat_prompt(messages);
            let prompt = prompt.map_err(|error| Refusal::param("messages", format!("{error:#}.")))?;
            text.encode(&prompt, true)
        }
    };
    let mut tokens =
        encoded.map_err(|error| Refusal::internal(format!("The tokenizer failed: {error:#}.")))?;
    // A chat template may have written it already.
    if let Some(bos) = text.bos().filter(|bos| tokens.first() != Some(bos)) {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}

/// Runs what would hold up the I/O runtime.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Refusal::internal(error.to_string()))
}

impl Generator for Scheduler {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Generation, Refusal>> {
        async move {
            let place = self.place()?;
            let text = Arc::clone(&self.text);
            let (request, prompt) = off_runtime(move || {
                let prompt = encode(&*text, &request.input);
                (request, prompt)
            })
            .await?;
            self.submit_tokens(request, prompt?, place)
        }
        .boxed()
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Vec<u32>, Refusal>> {
        async move {
            let model = Arc::clone(&self.text);
            off_runtime(move || model.encode(&text, false))
                .await?
                .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, None, format!("{error:#}")))
        }
        .boxed()
    }

    fn props(&self) -> Value {
        let mut props = json!(self.info);
        let more = json!({
            "parallel": self.limits.parallel,
            "context": self.limits.context,
            "queue": self.limits.queue,
            "prefill_chunk": self.limits.prefill_chunk,
            "kv_bytes_bound": kv_bound(&self.info, self.limits),
        });
        if let (Some(props), Value::Object(mut more)) = (props.as_object_mut(), more) {
            props.append(&mut more);
        }
        props
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl Worker {
    /// Serves until the scheduler is gone and every request is over.
    pub fn run(mut self) {
        while self.take_in() {
            self.drop_cancelled();
            self.admit();
            if !self.running.is_empty() {
                self.step();
            }
            self.tell_gauges();
        }
    }

    /// Takes new requests in; waits for one if there is nothing else to do. False when there will be none.
    fn take_in(&mut self) -> bool {
        if self.running.is_empty() && self.waiting.is_empty() {
            match self.jobs.recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(_) => return false,
            }
        }
        loop {
            match self.jobs.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    return !(self.running.is_empty() && self.waiting.is_empty());
                }
            }
        }
    }

    /// Forgets the requests whose client went away.
    fn drop_cancelled(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|job| !job.events.is_closed());
        self.metrics.waiting.dec_by((before - self.waiting.len()) as i64);
        for sequence in &mut self.running {
            sequence.over |= sequence.job.events.is_closed();
        }
        self.free_what_is_over();
    }

    fn admit(&mut self) {
        while let Some(slot) = self.free_slots.pop() {
            let Some(mut job) = self.waiting.pop_front() else {
                self.free_slots.push(slot);
                return;
            };
            self.metrics.waiting.dec();
            let mut tokens = std::mem::take(&mut job.prompt);
            tokens.reserve_exact(job.max_tokens);
            self.running.push(Sequence {
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
            });
        }
    }

    /// Computes one batch and hands its tokens out.
    fn step(&mut self) {
        let needs: Vec<_> = self.running.iter().map(Sequence::need).collect();
        let mut logits_rows = 0;
        for (sequence, rows) in self
            .running
            .iter_mut()
            .zip(plan::rows(needs, self.limits.prefill_chunk))
        {
            sequence.rows = rows;
            let complete = sequence.computed + rows == sequence.tokens.len();
            sequence.row_of_logits = complete.then_some(logits_rows);
            logits_rows += usize::from(complete);
        }
        let batch: Vec<_> = self.running.iter().filter_map(Sequence::rows_of_step).collect();
        let started = Instant::now();
        self.logits.clear();
        let result = self.engine.step(&batch, &mut self.logits);
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.busy_seconds.inc_by(seconds);
        self.metrics.step_seconds.observe(seconds);
        self.metrics.step_sequences.observe(batch.len() as f64);
        self.metrics
            .step_rows
            .observe(batch.iter().map(|rows| rows.tokens.len()).sum::<usize>() as f64);
        drop(batch);
        let expected = logits_rows * self.vocabulary;
        match result {
            Ok(()) if self.logits.len() == expected => self.advance(),
            Ok(()) => self.fail(&format!(
                "The engine gave {} logits instead of {expected}.",
                self.logits.len()
            )),
            Err(error) => self.fail(&format!("The engine failed: {error:#}")),
        }
        self.free_what_is_over();
    }

    /// Chooses the next token of each sequence whose logits are there, all at once, and tells them.
    fn advance(&mut self) {
        let (logits, vocabulary, end_tokens) = (&self.logits, self.vocabulary, &self.end_tokens);
        self.running.par_iter_mut().for_each(|sequence| {
            sequence.computed += sequence.rows;
            if let Some(row) = sequence.row_of_logits {
                let masked = if sequence.may_end() { &[][..] } else { end_tokens };
                sequence.next = sequence
                    .job
                    .sampler
                    .sample(&logits[row * vocabulary..][..vocabulary], masked);
            }
        });
        for sequence in self
            .running
            .iter_mut()
            .filter(|sequence| sequence.row_of_logits.is_some())
        {
            self.metrics.generated_tokens.inc();
            sequence.accept(&*self.text);
        }
    }

    /// Fails the sequences of the step; the others go on.
    fn fail(&mut self, message: &str) {
        for sequence in self.running.iter_mut().filter(|sequence| sequence.rows > 0) {
            sequence.tell(Event::Failed(message.to_owned()));
            sequence.over = true;
        }
    }

    fn free_what_is_over(&mut self) {
        let (engine, free_slots) = (&mut self.engine, &mut self.free_slots);
        self.running.retain(|sequence| {
            if sequence.over {
                engine.free(sequence.slot);
                free_slots.push(sequence.slot);
            }
            !sequence.over
        });
    }

    fn tell_gauges(&self) {
        self.metrics.running.set(self.running.len() as i64);
        let tokens: usize = self.running.iter().map(|sequence| sequence.computed).sum();
        self.metrics
            .kv_bytes
            .set((tokens as u64 * self.kv_bytes_per_token) as i64);
    }
}

impl Sequence {
    fn need(&self) -> Need {
        if self.generated > 0 {
            Need::Decode
        } else {
            Need::Prefill(self.tokens.len() - self.computed)
        }
    }

    fn rows_of_step(&self) -> Option<Rows<'_>> {
        let tokens = &self.tokens[self.computed..self.computed + self.rows];
        let logits = self.row_of_logits.is_some();
        (!tokens.is_empty()).then_some(Rows {
            slot: self.slot,
            position: self.computed,
            tokens,
            logits,
        })
    }

    fn may_end(&self) -> bool {
        !self.job.ignore_eos && self.generated >= self.job.min_tokens
    }

    /// Takes the chosen token: tells its text, or ends.
    fn accept(&mut self, text: &dyn TextModel) {
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
    fn tell(&self, event: Event) {
        let _ = self.job.events.send(event);
    }
}
