//! Answers that are no success, in OpenAI's shape.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use loadtest_protocol::{ErrorBody, ErrorDetail, RequestError};

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", detail.message)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub detail: ErrorDetail,
    /// Seconds after which a retry makes sense.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal whose `code` says more to a program than its status.
    pub fn new(status: StatusCode, code: Option<&str>, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() {
            "server_error"
        } else {
            "invalid_request_error"
        };
        let (kind, code) = (Some(kind.to_owned()), code.map(str::to_owned));
        Self {
            status,
            detail: ErrorDetail {
                message: message.into(),
                kind,
                param: None,
                code,
            },
            retry_after: None,
        }
    }

    /// The request's field `param` cannot be honoured.
    pub fn param(param: &str, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, None, message);
        refusal.detail.param = Some(param.to_owned());
        refusal
    }

    /// No such model is served here.
    pub fn unknown_model(asked: &str, served: &str) -> Self {
        let message = format!("The model '{asked}' does not exist here; this server has '{served}'.");
        let mut refusal = Self::new(StatusCode::NOT_FOUND, Some("model_not_found"), message);
        refusal.detail.param = Some("model".to_owned());
        refusal
    }

    /// Prompt and output do not fit the context.
    pub fn context_too_long(param: &str, prompt: usize, output: usize, context: usize) -> Self {
        let message = format!(
            "The prompt has {prompt} tokens and at least {output} shall be generated; \
             a sequence of this server has room for {context}."
        );
        let mut refusal = Self::param(param, message);
        refusal.detail.code = Some("context_length_exceeded".to_owned());
        refusal
    }

    /// As many requests wait as may.
    pub fn queue_full(waiting: usize) -> Self {
        let message = format!("{waiting} requests are waiting already; try again later.");
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, Some("queue_full"), message);
        refusal.retry_after = Some(1);
        refusal
    }

    /// The model is not there yet.
    pub fn loading() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Some("loading"),
            "The model is loading.",
        )
    }

    /// The server is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, None, message)
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, None, error.message);
        refusal.detail.param = error.param;
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.detail })).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
