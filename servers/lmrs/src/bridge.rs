//! What requests ask of lm.rs: honoured, or refused by the field's name.

use std::sync::Arc;

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::BoxFuture;
use loadtest_shell::{Counted, Generation, Generator, Input, Metrics, Refusal, Request};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::backend::Sampling;
use crate::exchange::{Exchange, Terms, broken};
use crate::model::Model;
use crate::pool::Pool;
use crate::vocabulary::Vocabulary;

/// How often a request is given to another process because its own died before it.
const TRIES: u32 = 3;

/// lm.rs as the shell's generator.
pub struct Bridge {
    model: Model,
    vocabulary: Arc<Vocabulary>,
    pool: Arc<Pool>,
    parallel: usize,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Bridge {
    /// A bridge to what `pool` starts, for `parallel` requests at a time.
    pub fn new(
        model: Model,
        vocabulary: Vocabulary,
        pool: Pool,
        parallel: usize,
        metrics: Arc<Metrics>,
    ) -> Bridge {
        Bridge {
            model,
            vocabulary: Arc::new(vocabulary),
            places: Arc::new(Semaphore::new(parallel)),
            pool: Arc::new(pool),
            parallel,
            metrics,
        }
    }

    async fn answer(&self, request: Request) -> Result<Generation, Refusal> {
        let prompt = prompt(&request)?;
        let (prompt_tokens, prompt) = self.counted(prompt).await?;
        let context = u64::from(self.model.context);
        let room = context.saturating_sub(prompt_tokens);
        let max_tokens = request.max_tokens.unwrap_or(room);
        if room == 0 || max_tokens > room {
            let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let wanted = number(request.max_tokens.unwrap_or(1));
            return Err(Refusal::context_too_long(
                "messages",
                number(prompt_tokens),
                wanted,
                number(context),
            ));
        }
        let sampling = Sampling {
            temperature: request.temperature,
            top_p: request.top_p,
        };
        let waiting = Counted::new(&self.metrics.waiting);
        let gone = |_| Refusal::internal("The bridge is going down.");
        let mut place = Arc::clone(&self.places).acquire_owned().await.map_err(gone)?;
        drop(waiting);
        let mut tries = 1;
        let exchange = loop {
            let backend = self
                .pool
                .lease(sampling)
                .await
                .map_err(|error| unavailable(&error))?;
            let terms = Terms {
                max_tokens,
                stop: request.stop.clone(),
                place,
                metrics: Arc::clone(&self.metrics),
            };
            match Exchange::begin(Arc::clone(&self.pool), Arc::clone(&backend), &prompt, terms).await {
                Ok(exchange) => break exchange,
                Err(error) => {
                    let why = broken(&self.pool, &backend).await;
                    if tries == TRIES {
                        return Err(unavailable(&anyhow::anyhow!("{why} before a token: {error}")));
                    }
                    tries += 1;
                    place = Arc::clone(&self.places).acquire_owned().await.map_err(gone)?;
                }
            }
        };
        self.metrics.prompt_tokens.inc_by(prompt_tokens);
        Ok(Generation {
            prompt_tokens,
            events: Box::pin(exchange.events()),
        })
    }

    /// The prompt with the number of its tokens, counted where it holds nobody up.
    async fn counted(&self, prompt: String) -> Result<(u64, String), Refusal> {
        let (vocabulary, family) = (Arc::clone(&self.vocabulary), self.model.family);
        let counting = tokio::task::spawn_blocking(move || {
            let tokens = vocabulary.prompt_tokens(family, &prompt);
            (tokens, prompt)
        });
        counting
            .await
            .map_err(|error| Refusal::internal(error.to_string()))
    }
}

fn unavailable(error: &anyhow::Error) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, None, format!("{error:#}."))
}

/// The one text that lm.rs takes.
fn prompt(request: &Request) -> Result<String, Refusal> {
    if request.ignore_eos {
        let message = "lm.rs has no way to go on past the end token.";
        return Err(Refusal::param("ignore_eos", message));
    }
    if request.logprobs.is_some() {
        let message = "lm.rs does not tell how likely its tokens were.";
        return Err(Refusal::param("logprobs", message));
    }
    if request.top_k.is_some() {
        let message = "lm.rs takes a temperature and a top_p alone.";
        return Err(Refusal::param("top_k", message));
    }
    if request.min_tokens > 0 {
        let message = "lm.rs ends an answer where its model does.";
        return Err(Refusal::param("min_tokens", message));
    }
    let Input::Messages(messages) = &request.input else {
        let message = "lm.rs puts every prompt into its model's chat template: ask /v1/chat/completions.";
        return Err(Refusal::param("prompt", message));
    };
    let [message] = &messages[..] else {
        let message = format!(
            "'messages' has {}; lm.rs takes one message of the user.",
            messages.len()
        );
        return Err(Refusal::param("messages", message));
    };
    if message["role"] != "user" {
        let message = "lm.rs takes a message of the user alone; its system message is its own.";
        return Err(Refusal::param("messages", message));
    }
    match message["content"].as_str().map(str::trim) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(Refusal::param("messages", "The user's message is empty.")),
    }
}

impl Generator for Bridge {
    fn submit(&self, request: Request) -> BoxFuture<'_, Result<Generation, Refusal>> {
        self.answer(request).boxed()
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Vec<u32>, Refusal>> {
        let vocabulary = Arc::clone(&self.vocabulary);
        async move {
            tokio::task::spawn_blocking(move || vocabulary.encode(&text))
                .await
                .map_err(|error| Refusal::internal(error.to_string()))
        }
        .boxed()
    }

    fn props(&self) -> Value {
        json!({
            "engine": "lm.rs",
            "parallel": self.parallel,
            "context": self.model.context,
            "threads": self.pool.threads(),
            "weights": self.model.weights,
            "weights_bytes": self.model.bytes,
            "device": "cpu",
        })
    }

    fn fingerprint(&self) -> &str {
        "lm.rs"
    }
}
