//! The HTTP routes, and what every request has in common.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{Stream, StreamExt};
use loadtest_protocol::{Completion, Model, Models};
use serde_json::{Value, json};

use crate::call::{Call, Endpoint};
use crate::frames::{self, Answerer, Frame, Frames};
use crate::{Generation, Generator, Metrics, Outcome, Refusal};

/// Most bytes of a request body.
pub const BODY_LIMIT: usize = 8 << 20;

/// A server: what it is called, what it counts, and, once it is loaded, what generates.
pub struct Server {
    /// The served model's name, and others it answers to.
    pub names: Vec<String>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    generator: OnceLock<Arc<dyn Generator>>,
    created: u64,
}

impl Server {
    /// A server that is still loading. The first of `names` is the one it answers with.
    pub fn loading(names: Vec<String>) -> Arc<Self> {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Arc::new(Self {
            names,
            metrics: Arc::default(),
            generator: OnceLock::new(),
            created,
        })
    }

    /// Loading is over: from now on requests are served. Only the first call counts.
    pub fn ready(&self, generator: Arc<dyn Generator>) {
        let _ = self.generator.set(generator);
    }

    /// What generates.
    ///
    /// # Errors
    /// While the server loads.
    pub fn generator(&self) -> Result<&Arc<dyn Generator>, Refusal> {
        self.generator.get().ok_or_else(Refusal::loading)
    }

    fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// Refuses a model that is not served here. A request that names none gets the one there is.
    ///
    /// # Errors
    /// 404 `model_not_found`.
    pub fn check_model(&self, model: Option<&str>) -> Result<(), Refusal> {
        match model {
            Some(asked) if !self.names.iter().any(|name| name == asked) => {
                Err(Refusal::unknown_model(asked, self.name()))
            }
            _ => Ok(()),
        }
    }

    fn answerer(&self) -> Answerer<'_> {
        let generator = self.generator.get();
        Answerer {
            model: self.name(),
            fingerprint: generator.map_or("", |generator| generator.fingerprint()),
        }
    }

    /// A generation's frames, to be sent by [`event_stream`].
    pub fn frames(&self, call: &Call, generation: Generation) -> Frames {
        Frames::new(call, self.answerer(), generation, Arc::clone(&self.metrics))
    }

    /// The whole answer of a generation.
    ///
    /// # Errors
    /// If the generation fails.
    pub async fn collect(&self, call: &Call, generation: Generation) -> Result<Completion, Refusal> {
        frames::collect(call, self.answerer(), generation, Arc::clone(&self.metrics)).await
    }
}

/// Every route of a server.
pub fn router(server: Arc<Server>) -> Router {
    control(Arc::clone(&server)).merge(
        Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(completions))
            .with_state(server)
            .layer(DefaultBodyLimit::max(BODY_LIMIT)),
    )
}

/// The routes that do not generate.
pub fn control(server: Arc<Server>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/models", get(models))
        .route("/metrics", get(metrics))
        .route("/props", get(props))
        .route("/tokenize", post(tokenize))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, None, "There is no such path here.") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                None,
                "This path does not take this method.",
            )
        })
        .with_state(server)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
}

/// The response that sends frames as server-sent events.
pub fn event_stream(frames: impl Stream<Item = Frame> + Send + 'static) -> Response {
    raw_event_stream(frames.map(|frame| Ok::<_, Infallible>(frame.bytes)))
}

/// The response that sends bytes under the content type of server-sent events; an error cuts the connection.
pub fn raw_event_stream<E: Into<axum::BoxError> + 'static>(
    bytes: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, Body::from_stream(bytes)).into_response()
}

/// A request's body in full.
///
/// # Errors
/// 413 if it is over [`BODY_LIMIT`], 400 if it does not arrive.
pub fn whole_body(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Refusal> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("The body is over the limit of {BODY_LIMIT} bytes.");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, None, message)
        }
        status => Refusal::new(status, None, rejection.body_text()),
    })
}

async fn chat(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    answer(server, Endpoint::Chat, body).await
}

async fn completions(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    answer(server, Endpoint::Completions, body).await
}

async fn answer(
    server: Arc<Server>,
    endpoint: Endpoint,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let (call, generation) = match take_in(&server, endpoint, body).await {
        Ok(taken) => taken,
        Err(refusal) => {
            server.metrics.ended(Outcome::Refused);
            return Err(refusal);
        }
    };
    if call.stream {
        return Ok(event_stream(server.frames(&call, generation)));
    }
    Ok(Json(server.collect(&call, generation).await?).into_response())
}

async fn take_in(
    server: &Server,
    endpoint: Endpoint,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Call, Generation), Refusal> {
    let generator = server.generator()?;
    let call = Call::parse(endpoint, &whole_body(body)?, None)?;
    server.check_model(call.model.as_deref())?;
    let generation = generator.submit(call.request.clone()).await?;
    Ok((call, generation))
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    match server.generator() {
        Ok(_) => Json(json!({ "status": "ok" })).into_response(),
        Err(loading) => loading.into_response(),
    }
}

async fn models(State(server): State<Arc<Server>>) -> Json<Models> {
    let data = server.names.iter().map(|name| Model {
        id: name.clone(),
        object: "model".to_owned(),
        created: server.created,
        owned_by: "loadtest".to_owned(),
    });
    Json(Models {
        object: "list".to_owned(),
        data: data.collect(),
    })
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], server.metrics.render()).into_response()
}

async fn props(State(server): State<Arc<Server>>) -> Result<Json<Value>, Refusal> {
    Ok(Json(server.generator()?.props()))
}

async fn tokenize(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Refusal> {
    let body: Value = serde_json::from_slice(&whole_body(body)?).map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            None,
            format!("The body is not JSON: {error}."),
        )
    })?;
    let text = body["content"]
        .as_str()
        .ok_or_else(|| Refusal::param("content", "'content' must be a string."))?;
    let tokens = server.generator()?.tokenize(text.to_owned()).await?;
    Ok(Json(json!({ "tokens": tokens })))
}
