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
//! that a browser was talked into are refused: the host must be a loopback address and there must be no foreign `Origin`.

mod live;
mod manage;
mod metadata;
mod process;
mod steps;
mod targets;

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Sources, probes};
use crate::model::Labels;

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

/// The routes of the loopback listener.
pub fn router(sources: Sources) -> Router {
    routes(sources).layer(middleware::from_fn(refuse_foreign))
}

/// The routes of the mesh listener: the same, but that nobody ends the agent or reloads it from afar.
pub fn mesh_router(sources: Sources) -> Router {
    routes(Sources { control: None, ..sources }).layer(middleware::from_fn(refuse_pages))
}

fn routes(sources: Sources) -> Router {
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
        .route("/version", get(process::version))
        .route("/-/reload", post(manage::reload).put(manage::reload))
        .route("/-/quit", post(manage::quit).put(manage::quit));
    for path in NOT_IN_AGENTS {
        router = router.route(path, any(async || not_in_agents()));
    }
    router.with_state(sources.clone()).merge(probes::router(sources))
}

fn not_in_agents() -> Response {
    failed(
        StatusCode::UNPROCESSABLE_ENTITY,
        "execution",
        "unavailable: this is an agent, which stores nothing to ask for",
    )
}

/// Who is let in by a certificate is no page of another origin; a browser that has one must not act for such a page.
async fn refuse_pages(request: Request, next: Next) -> Response {
    match request.headers().contains_key(header::ORIGIN) {
        true => failed(StatusCode::FORBIDDEN, "forbidden", "requests from pages are refused"),
        false => next.run(request).await,
    }
}

/// Closes the way in through a browser: rebinding a name to loopback, or asking from another page.
async fn refuse_foreign(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let refused = if !is_loopback(headers.get(header::HOST).and_then(|host| host.to_str().ok())) {
        Some("the Host header does not name a loopback address")
    } else if headers.contains_key(header::ORIGIN) && !same_origin(headers) {
        Some("requests from another origin are refused")
    } else {
        None
    };
    match refused {
        Some(reason) => failed(StatusCode::FORBIDDEN, "forbidden", reason),
        None => next.run(request).await,
    }
}

fn is_loopback(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("http://") == Some(host),
        _ => false,
    }
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
fn failed(status: StatusCode, kind: &str, error: &str) -> Response {
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

    #[test]
    fn only_loopback_names_are_hosts() {
        for good in ["127.0.0.1:9465", "localhost", "[::1]:9465", "LOCALHOST:1", "127.0.0.7"] {
            assert!(is_loopback(Some(good)), "{good}");
        }
        for bad in ["10.0.0.1:9465", "evil.example:9465", "localhost.evil.example", "127.0.0.1.nip.io", "[::2]", ""] {
            assert!(!is_loopback(Some(bad)), "{bad}");
        }
        assert!(!is_loopback(None));
    }
}
