//! The HTTP API in the shape of Prometheus' agent mode, with what we know beyond it.
//!
//! ```text
//! GET /api/v1/targets                    what is scraped, and how it fares            targets
//!     /api/v1/scrape_pools               the jobs                                     targets
//!     /api/v1/targets/metadata           how targets describe their families          metadata
//!     /api/v1/metadata                   the same, by family                          metadata
//!     /api/v1/targets/relabel_steps      relabelling, rule by rule                    steps
//!     /api/v1/status/config|flags|…      configuration and process                    process
//!     /-/healthy /-/ready /metrics       as on the pod's own port
//! POST /api/v1/targets/ID/scrape         one scrape of one target now                 live
//!      /-/reload /-/quit                 where the command line allows it             manage
//! ```
//!
//! What Prometheus has and an agent cannot answer (queries, rules, …) is refused as its agent mode refuses it. Requests
//! that a browser was talked into are refused ([`foreign`](super::foreign)).

mod live;
mod manage;
mod metadata;
mod parameters;
mod process;
mod steps;
mod targets;

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Sources;
use crate::model::Labels;

/// What Prometheus in agent mode says of them, word for word: clients go by it.
const NOT_HERE: &str = "unavailable with Prometheus Agent";
/// What Prometheus answers and an agent has nothing to answer from.
const NOT_IN_AGENTS: [&str; 14] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/labels",
    "/api/v1/label/{name}/values",
    "/api/v1/series",
    "/api/v1/alertmanagers",
    "/api/v1/alerts",
    "/api/v1/rules",
    "/api/v1/read",
    "/api/v1/status/tsdb",
    "/api/v1/admin/tsdb/{action}",
];

/// The routes of the API.
pub(super) fn router(sources: Sources) -> Router {
    let mut router = Router::new()
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/scrape_pools", get(targets::scrape_pools))
        .route("/api/v1/targets/metadata", get(metadata::of_targets))
        .route("/api/v1/metadata", get(metadata::by_family))
        .route("/api/v1/targets/relabel_steps", get(steps::relabel_steps))
        .route("/api/v1/targets/{id}/scrape", post(live::scrape))
        .route("/api/v1/status/config", get(process::config))
        .route("/api/v1/status/flags", get(process::flags))
        .route("/api/v1/status/buildinfo", get(process::build_info))
        .route("/api/v1/status/runtimeinfo", get(process::runtime_info))
        .route("/api/v1/status/walreplay", get(process::wal_replay))
        .route("/api/v1/notifications", get(process::notifications))
        .route("/version", get(process::version))
        .route("/-/reload", post(manage::reload).put(manage::reload))
        .route("/-/quit", post(manage::quit).put(manage::quit));
    for path in NOT_IN_AGENTS {
        router = router.route(path, any(async || not_in_agents()));
    }
    router.with_state(sources)
}

fn not_in_agents() -> Response {
    failed(StatusCode::UNPROCESSABLE_ENTITY, "execution", NOT_HERE)
}

/// An answer in the API's frame.
fn found(data: impl Serialize) -> Response {
    #[derive(Serialize)]
    struct Frame<T> {
        status: &'static str,
        data: T,
    }
    Json(Frame { status: "success", data }).into_response()
}

/// An error in the API's frame.
pub(super) fn failed(status: StatusCode, kind: &str, error: &str) -> Response {
    let body = serde_json::json!({ "status": "error", "errorType": kind, "error": error });
    (status, Json(body)).into_response()
}

/// A parameter that cannot be used.
fn bad_data(error: &str) -> Response {
    failed(StatusCode::BAD_REQUEST, "bad_data", error)
}

fn map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// RFC 3339 in UTC; Go's zero time where there is none, because that is what Prometheus' clients expect.
fn rfc3339(time: Option<SystemTime>) -> String {
    time.and_then(|time| OffsetDateTime::from(time).format(&Rfc3339).ok())
        .unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn times_are_written_as_prometheus_clients_read_them() {
        let time = UNIX_EPOCH + Duration::new(1_709_210_096, 123_456_789);
        assert_eq!(rfc3339(Some(time)), "2024-02-29T12:34:56.123456789Z");
        assert_eq!(rfc3339(None), "0001-01-01T00:00:00Z");
    }
}
