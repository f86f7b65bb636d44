//! `POST /api/v1/targets/ID/scrape`: one scrape of one active target now, and everything that is known of it.
//!
//! It makes the agent do something, so it takes as little as can be said: the id of an active
//! target as `/api/v1/targets` lists it, and whether the exposition is wanted (`body=true`), or what would be forwarded of
//! it (`relabel=true`). No URL, label, path or identity; anything else is refused. The header `X-Meshscrape: scrape` is required, because no page in a browser can
//! send it to another origin without asking first, and this API never says yes to that.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::{failed, found, map, rfc3339};
use crate::model::{Failure, TargetId, Verification};
use crate::scrape::{Probe, ProbeError, Wanted};
use crate::status::{HEADER, Sources};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveQuery {
    /// Whether the answer is to hold the exposition.
    #[serde(default)]
    body: bool,
    /// Whether the exposition is to be as it would be forwarded, with the series that would not and why.
    #[serde(default)]
    relabel: bool,
}

pub(super) async fn scrape(
    State(sources): State<Sources>,
    Path(id): Path<String>,
    query: Result<Query<LiveQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if headers.get(HEADER).is_none_or(|value| value != "scrape") {
        return failed(StatusCode::FORBIDDEN, "forbidden", "the header X-Meshscrape: scrape is missing");
    }
    let Ok(Query(query)) = query else {
        return failed(
            StatusCode::BAD_REQUEST,
            "bad_data",
            "there is no parameter but body and relabel, true or false",
        );
    };
    if has_content(&headers) {
        return failed(StatusCode::BAD_REQUEST, "bad_data", "the request must have no content");
    }
    let Some(id) = parse_id(&id) else {
        let error = "the id of a target is expected: 16 hexadecimal digits, as /api/v1/targets shows it";
        return failed(StatusCode::BAD_REQUEST, "bad_data", error);
    };
    let wanted = if query.relabel { Wanted::Forwarded } else { Wanted::Exposed };
    match sources.scrape.probe(id, wanted).await {
        Ok(probe) => found(LiveScrape::of(probe, query.body || query.relabel)),
        Err(error @ ProbeError::UnknownTarget) => failed(StatusCode::NOT_FOUND, "not_found", &error.to_string()),
        Err(error @ ProbeError::Busy) => failed(StatusCode::TOO_MANY_REQUESTS, "unavailable", &error.to_string()),
    }
}

fn has_content(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// The id as it is printed, and in no other spelling.
fn parse_id(text: &str) -> Option<TargetId> {
    let id = TargetId(u64::from_str_radix(text, 16).ok()?);
    (id.to_string() == text).then_some(id)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LiveScrape {
    id: String,
    scrape_pool: String,
    labels: BTreeMap<String, String>,
    url: String,
    started: String,
    ok: bool,
    /// How the peer was verified: `exact`, `namespace`, `trust_domain`, `host_name`, `none`, or `refused` where nobody
    /// may answer.
    verification: &'static str,
    expected_identity: Option<String>,
    phases: Phases,
    peer: Option<Peer>,
    status: Option<u16>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    body_bytes: u64,
    transferred_bytes: u64,
    sample_count: usize,
    samples_kept: usize,
    failure: Option<Failed>,
    /// The exposition in the Prometheus text format, where it was asked for; empty if the scrape failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The series that would not be forwarded, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<Dropped>,
    /// Whether the exposition is longer than what is shown of it.
    body_cut: bool,
}

#[derive(Serialize)]
struct Dropped {
    series: String,
    why: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Phases {
    connect_ms: Option<f64>,
    tls_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    total_ms: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    identity: String,
    tls_version: String,
    cipher: String,
    not_after: String,
    chain: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    reason: &'static str,
    detail: String,
    hint: String,
    expected: Option<String>,
    presented: Option<String>,
    /// The certificates of a peer that was refused: its own words.
    refused_chain: Vec<String>,
    /// What `meshscrape scrape` exits with for this reason.
    exit_code: u8,
}

impl LiveScrape {
    fn of(probe: Probe, with_body: bool) -> Self {
        let Probe { target, started, seen, samples, samples_kept, failure, text, dropped, text_cut } = probe;
        let millis = |phase: Duration| phase.as_secs_f64() * 1000.0;
        let (verification, expected_identity) = match &target.verification {
            Verification::Spiffe(peer) => (peer.rule().word(), Some(peer.to_string())),
            Verification::HostName => ("host_name", None),
            Verification::None => ("none", None),
            Verification::Refused(failure) => ("refused", failure.expected.clone()),
        };
        Self {
            id: target.id.to_string(),
            scrape_pool: target.pool.to_string(),
            labels: map(&target.labels),
            url: target.url(),
            started: rfc3339(Some(started)),
            ok: failure.is_none(),
            verification,
            expected_identity,
            phases: Phases {
                connect_ms: seen.phases.connect.map(millis),
                tls_ms: seen.phases.tls.map(millis),
                first_byte_ms: seen.phases.first_byte.map(millis),
                total_ms: millis(seen.phases.total),
            },
            peer: seen.peer.map(|peer| Peer {
                identity: peer.identity,
                tls_version: peer.tls_version,
                cipher: peer.cipher,
                not_after: rfc3339(Some(peer.not_after)),
                chain: peer.chain,
            }),
            status: seen.status,
            content_type: seen.content_type,
            content_encoding: seen.encoding,
            body_bytes: seen.body_bytes,
            transferred_bytes: seen.wire_bytes,
            sample_count: samples,
            samples_kept,
            failure: failure.map(Failed::of),
            body: with_body.then_some(text),
            dropped: dropped.into_iter().map(|dropped| Dropped { series: dropped.series, why: dropped.why }).collect(),
            body_cut: with_body && text_cut,
        }
    }
}

impl Failed {
    fn of(failure: Failure) -> Self {
        Self {
            reason: failure.reason.name(),
            hint: failure.hint().into_owned(),
            exit_code: failure.reason.class().code(),
            detail: failure.detail,
            expected: failure.expected,
            presented: failure.presented,
            refused_chain: failure.chain.into_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!(parse_id("00000000000000ff"), Some(TargetId(255)));
        for other in ["", "ff", "00000000000000FF", "+0000000000000ff", "00000000000000fg", "000000000000000ff", "é"] {
            assert_eq!(parse_id(other), None, "{other:?}");
        }
    }
}
