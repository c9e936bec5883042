//! What the server answers: mistral.rs's own routes once it is loaded, and a page with the settings it has.

use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tower::ServiceExt;

use crate::load::Loaded;

/// A server, which serves nothing until its model is loaded.
#[derive(Default)]
pub struct Server(OnceLock<Loaded>);

impl Server {
    /// Loading is over. Only the first call counts.
    pub fn ready(&self, loaded: Loaded) {
        let _ = self.0.set(loaded);
    }
}

/// `/props`, and everything else by mistral.rs.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/props", get(props))
        .fallback(its_own)
        .with_state(server)
}

async fn props(State(server): State<Arc<Server>>) -> Response {
    match server.0.get() {
        Some(loaded) => Json(loaded.props.clone()).into_response(),
        None => loading(),
    }
}

async fn its_own(State(server): State<Arc<Server>>, request: Request) -> Response {
    match server.0.get() {
        Some(loaded) => match loaded.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => loading(),
    }
}

fn loading() -> Response {
    let error = json!({ "error": { "message": "The model is loading.", "type": "unavailable_error" } });
    (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn nothing_is_served_before_the_model_is_loaded() {
        let server = Arc::new(Server::default());
        let router = router(Arc::clone(&server));
        for path in ["/health", "/props", "/v1/models"] {
            assert_eq!(
                ask(&router, path).await.0,
                StatusCode::SERVICE_UNAVAILABLE,
                "{path}"
            );
        }
        server.ready(Loaded {
            routes: Router::new().route("/health", get(|| async { "OK" })),
            props: json!({ "parallel": 4 }),
        });
        assert_eq!(ask(&router, "/health").await, (StatusCode::OK, "OK".to_owned()));
        assert_eq!(
            ask(&router, "/props").await,
            (StatusCode::OK, r#"{"parallel":4}"#.to_owned())
        );
        assert_eq!(ask(&router, "/nowhere").await.0, StatusCode::NOT_FOUND);
    }
}
