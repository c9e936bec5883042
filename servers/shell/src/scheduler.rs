//! Continuous batching at iteration level: where requests go in.
//!
//! The engine lives on a thread of its own, that of [`Worker::run`]; requests reach it by a channel, and its
//! events leave by one channel a request, so that the I/O runtime never waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use anyhow::Context;
use axum::http::StatusCode;
use futures::future::BoxFuture;
use futures::{FutureExt, stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::memory::{self, kv_bound};
use crate::sample::Sampler;
use crate::sequence::Job;
use crate::text::{Detokenizer, TextModel};
use crate::{
    Counted, Engine, EngineInfo, Event, Generation, Generator, Input, Metrics, Refusal, Request, Worker,
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

/// A request's place among those that run or wait; dropped, another may have it.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Scheduler {
    /// Makes `engine` ready to serve within `limits`. The worker is to be run on a thread of its own.
    ///
    /// # Errors
    /// If a limit is 0, or the machine or the engine has no room for them.
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
        memory::check(&info, limits, memory::free())?;
        engine.prepare(limits.parallel, limits.context).with_context(|| {
            format!(
                "no room for {} sequences of {} tokens (--parallel, --context)",
                limits.parallel, limits.context
            )
        })?;
        metrics.kv_bytes_bound.set(kv_bound(&info, limits) as i64);
        let (sender, jobs) = channel();
        let worker = Worker::new(
            engine,
            Arc::clone(&text),
            jobs,
            &info,
            limits,
            Arc::clone(&metrics),
        );
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
            logprobs: request.logprobs,
            sampler: Sampler::new(
                request.temperature,
                request.top_p,
                request.seed.unwrap_or_else(rand::random),
            )
            .of_likeliest(request.top_k),
            detokenizer: Detokenizer::new(request.stop),
            prompt,
            events,
            counted: Counted::new(&self.metrics.waiting),
            _place: place,
        };
        if self.jobs.send(job).is_err() {
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
