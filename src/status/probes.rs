//! Probes and `/metrics`: all that the pod's own port serves.
//!
//! Always holds: however many ask for metrics at once, they are written for one after the other, so that a probe has its turn
//! in between.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
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
    let writing = Arc::new(Semaphore::new(1));
    Router::new()
        .route("/-/healthy", get(async || "meshscrape is healthy.\n"))
        .route("/-/ready", get(ready))
        .route("/metrics", get(async move |state, headers| metrics(state, headers, &writing).await))
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

async fn metrics(State(sources): State<Sources>, headers: HeaderMap, writing: &Semaphore) -> Response {
    let format = Format::asked_for(&headers);
    let turn = writing.acquire().await.expect("the semaphore is never closed");
    let written = format.write(&sources.registry);
    drop(turn);
    match written {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], text).into_response(),
        Err(error) => {
            error!(%error, "BUG: own metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "own metrics cannot be written\n").into_response()
        }
    }
}
