//! Probes and `/metrics`: all that the pod's own port serves.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tracing::error;

use super::Sources;
use super::exposition::Format;

/// Whether the agent can do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// What is still missing, each in a few words; nothing missing means ready.
    pub missing: Vec<String>,
    /// What does not keep it from working with what it has.
    pub troubles: Vec<String>,
}

/// The routes of the pod's port.
pub fn router(sources: Sources) -> Router {
    Router::new()
        .route("/-/healthy", get(async || "meshscrape is healthy.\n"))
        .route("/-/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(sources)
}

async fn ready(State(sources): State<Sources>) -> (StatusCode, String) {
    let readiness = (sources.readiness)();
    if readiness.missing.is_empty() && readiness.troubles.is_empty() {
        return (StatusCode::OK, "meshscrape is ready.\n".to_owned());
    }
    if readiness.missing.is_empty() {
        return (StatusCode::OK, format!("meshscrape is ready, with trouble: {}.\n", readiness.troubles.join("; ")));
    }
    let text = format!("meshscrape is not ready: {}.\n", readiness.missing.join("; "));
    (StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn metrics(State(sources): State<Sources>, headers: HeaderMap) -> impl IntoResponse {
    let format = Format::asked_for(&headers);
    match format.write(&sources.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], text).into_response(),
        Err(error) => {
            error!(%error, "BUG: own metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "own metrics cannot be written\n").into_response()
        }
    }
}
