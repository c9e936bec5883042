//! One request on its own connection: the frames of `backend` as the shell's events.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::{SinkExt, Stream, StreamExt, stream};
use loadtest_shell::{Counted, Detokenizer, Event, Finish, Metrics};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::backend::Backend;
use crate::pool::Pool;

/// The text of the frame that ends an answer.
const END: &str = "<eos>";

/// A message of `backend`.
#[derive(Deserialize)]
struct Frame {
    category: String,
    text: String,
}

/// An answer under way. Dropping it closes the connection, which `backend` notices when it next sends.
pub struct Exchange {
    socket: WebSocketStream<TcpStream>,
    backend: Arc<Backend>,
    pool: Arc<Pool>,
    detokenizer: Detokenizer,
    /// Tokens that may still come.
    left: u64,
    generated: u64,
    /// Tokens generated since the last event.
    untold: u64,
    events: VecDeque<Event>,
    over: bool,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
    _running: Counted,
}

/// What bounds an answer, and what it holds while it lasts.
pub struct Terms {
    pub max_tokens: u64,
    pub stop: Vec<String>,
    pub place: OwnedSemaphorePermit,
    pub metrics: Arc<Metrics>,
}

impl Exchange {
    /// Connects, and asks.
    ///
    /// # Errors
    /// `backend` does not answer.
    pub async fn begin(
        pool: Arc<Pool>,
        backend: Arc<Backend>,
        prompt: &str,
        terms: Terms,
    ) -> Result<Exchange, tungstenite::Error> {
        let stream = backend.connect().await?;
        let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await?;
        let asked = serde_json::json!({ "text": prompt }).to_string();
        socket.send(Message::text(asked)).await?;
        Ok(Exchange {
            socket,
            backend,
            pool,
            detokenizer: Detokenizer::new(terms.stop),
            left: terms.max_tokens,
            generated: 0,
            untold: 0,
            events: VecDeque::new(),
            over: false,
            _place: terms.place,
            _running: Counted::new(&terms.metrics.running),
            metrics: terms.metrics,
        })
    }

    /// The events until the answer's end.
    pub fn events(self) -> impl Stream<Item = Event> + Send {
        stream::unfold(self, |mut exchange| async move {
            while exchange.events.is_empty() && !exchange.over {
                let message = exchange.socket.next().await;
                exchange.take(message).await;
            }
            let event = exchange.events.pop_front()?;
            Some((event, exchange))
        })
    }

    async fn take(&mut self, message: Option<Result<Message, tungstenite::Error>>) {
        match message {
            Some(Ok(Message::Text(text))) => match serde_json::from_str::<Frame>(&text) {
                Ok(frame) if frame.category == "OUTPUT" => self.token(&frame.text),
                // What it is busy with.
                Ok(_) => {}
                Err(error) => self.fail(format!("lm.rs sent what is no message of its protocol: {error}.")),
            },
            Some(Ok(Message::Close(_)) | Err(_)) | None => {
                let why = broken(&self.pool, &self.backend).await;
                self.fail(format!("{why} after {} tokens.", self.generated));
            }
            Some(Ok(_)) => {}
        }
    }

    /// Takes a token: tells its text, or ends.
    fn token(&mut self, text: &str) {
        self.generated += 1;
        self.metrics.generated_tokens.inc();
        self.untold += 1;
        self.left -= 1;
        if text == END {
            return self.end(Finish::Stop);
        }
        let (text, stopped) = self.detokenizer.push(text.as_bytes(), true);
        self.tell(text);
        if stopped {
            self.finish(Finish::Stop);
        } else if self.left == 0 {
            self.end(Finish::Length);
        }
    }

    fn tell(&mut self, text: String) {
        if !text.is_empty() {
            let tokens = std::mem::take(&mut self.untold);
            self.events.push_back(Event::Output {
                text,
                tokens,
                logprobs: Vec::new(),
            });
        }
    }

    fn end(&mut self, reason: Finish) {
        let rest = self.detokenizer.finish();
        self.tell(rest);
        self.finish(reason);
    }

    fn finish(&mut self, reason: Finish) {
        let tokens = std::mem::take(&mut self.untold);
        self.events.push_back(Event::Finish {
            reason,
            tokens,
            logprobs: Vec::new(),
        });
        self.over = true;
    }

    fn fail(&mut self, message: String) {
        self.events.push_back(Event::Failed(message));
        self.over = true;
    }
}

/// Why a connection broke. A `backend` that died gets no further request.
pub async fn broken(pool: &Pool, backend: &Arc<Backend>) -> String {
    match backend.ended().await {
        Some(status) => {
            pool.forget(backend).await;
            format!("lm.rs died, {status},")
        }
        None => "lm.rs broke the connection off (its panic stands in the log)".to_owned(),
    }
}
