//! The receiving end: a remote write endpoint, of 1.0 and 2.0, that keeps no sample, but counts what arrived for whom and looks for
//! what must never arrive.
//!
//! It believes bytes only: a request counts if its headers are those of the protocol and its body decodes. Samples are
//! told apart by the labels that the agent gave them: `instance` names the target, and of the series that the agent makes
//! up itself `up` tells how each single scrape ended, also those that nobody looked at in between.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::exposition::MARKER;
use crate::wire;

/// The path of the endpoint, Prometheus' own.
const PATH: &str = "/api/v1/write";
/// More than any request of the demo.
const MAX_BODY: usize = 8 << 20;
/// The series that the agent adds to every scrape; they say nothing about what the target sent.
const SYNTHETIC: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// What has arrived so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// Requests that were taken.
    pub(super) requests: u64,
    /// Samples in them.
    pub(super) samples: u64,
    /// Requests that were not as the protocol has it.
    pub(super) malformed: u64,
    /// Series with the marker of those who must be refused.
    pub(super) marked: u64,
    /// By the `instance` label.
    pub(super) targets: BTreeMap<String, Tally>,
}

/// What has arrived of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Samples that the target itself exposed.
    pub(super) exposed: u64,
    /// Scrapes that ended well (`up` 1).
    pub(super) good: u64,
    /// Scrapes that failed (`up` 0).
    pub(super) failed: u64,
}

impl Ledger {
    /// Counts a request, and says how many samples it holds.
    fn record(&mut self, request: &wire::proto::WriteRequest) -> u64 {
        let before = self.samples;
        self.requests += 1;
        for series in &request.timeseries {
            let label = |name| series.labels.iter().find(|label| label.name == name).map_or("", |label| &label.value);
            let (name, samples) = (label("__name__"), series.samples.len() as u64);
            self.samples += samples;
            if series.labels.iter().any(|label| label.name.contains(MARKER) || label.value.contains(MARKER)) {
                self.marked += 1;
            }
            let tally = self.targets.entry(label("instance").to_owned()).or_default();
            if name == "up" {
                tally.good += series.samples.iter().filter(|sample| sample.value == 1.0).count() as u64;
                tally.failed += series.samples.iter().filter(|sample| sample.value == 0.0).count() as u64;
            } else if !SYNTHETIC.contains(&name) {
                tally.exposed += samples;
            }
        }
        self.samples - before
    }
}

/// The running endpoint. It stops when this value is dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    ledger: Arc<Mutex<Ledger>>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// Listens on loopback, on a port that the system chooses.
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, ledger.clone()));
        Ok(Self { address, ledger, _serving: serving })
    }

    /// Where to send.
    pub(super) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// What has arrived until now.
    pub(super) fn ledger(&self) -> Ledger {
        lock(&self.ledger).clone()
    }
}

/// A ledger is a set of counters: whoever panicked beside it left it readable.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, ledger: Arc<Mutex<Ledger>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, most likely: a moment later there may be some.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let ledger = ledger.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let ledger = ledger.clone();
                        async move { Ok::<_, std::convert::Infallible>(take(request, &ledger).await) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// 204 for a request that counts; else the status and the words that a real receiver would give.
async fn take(request: Request<Incoming>, ledger: &Mutex<Ledger>) -> Response<Full<Bytes>> {
    let outcome = read(request).await;
    let mut ledger = lock(ledger);
    let (status, words, samples) = match outcome {
        Ok(request) => {
            let samples = ledger.record(&request);
            (StatusCode::NO_CONTENT, String::new(), samples)
        }
        Err((status, words)) => {
            ledger.malformed += 1;
            (status, words, 0)
        }
    };
    let mut response = Response::new(Full::from(words));
    *response.status_mut() = status;
    // Who sends 2.0 must be told.
    response.headers_mut().insert("x-prometheus-remote-write-samples-written", samples.into());
    response
}

async fn read(request: Request<Incoming>) -> Result<wire::proto::WriteRequest, (StatusCode, String)> {
    if request.uri().path() != PATH {
        return Err((StatusCode::NOT_FOUND, format!("not {PATH}")));
    }
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "not POST".to_owned()));
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let version = match ["content-encoding", "content-type", "x-prometheus-remote-write-version"].map(header) {
        ["snappy", "application/x-protobuf", "0.1.0"] => 1,
        ["snappy", "application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"] => 2,
        other => return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{other:?} is no remote write"))),
    };
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?.to_bytes();
    let request = match version {
        1 => wire::decode(&body),
        _ => wire::decode_v2(&body).and_then(|request| request.samples()),
    };
    request.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::model::stale_nan;
    use crate::wire::proto::{Label, Sample, TimeSeries, WriteRequest};
    use crate::wire::v2::proto as v2;

    fn series(labels: &[(&str, &str)], values: &[f64]) -> TimeSeries {
        let label = |&(name, value): &(&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
        let sample = |&value: &f64| Sample { value, timestamp: 1 };
        TimeSeries {
            labels: labels.iter().map(label).collect(),
            samples: values.iter().map(sample).collect(),
            ..TimeSeries::default()
        }
    }

    fn request() -> WriteRequest {
        WriteRequest {
            timeseries: vec![
                series(&[("__name__", "shop_orders_total"), ("instance", "a")], &[1.0, 2.0]),
                series(&[("__name__", "up"), ("instance", "a")], &[1.0, 0.0, 1.0, stale_nan()]),
                series(&[("__name__", "scrape_duration_seconds"), ("instance", "a")], &[0.1]),
                series(&[("__name__", "up"), ("instance", "b")], &[0.0]),
            ],
            ..WriteRequest::default()
        }
    }

    async fn post(receiver: &Receiver, headers: &[(&str, &str)], body: Vec<u8>) -> StatusCode {
        let stream = tokio::net::TcpStream::connect(receiver.address).await.expect("connects");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::post(PATH).header("host", "receiver");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("well-formed");
        sender.send_request(request).await.expect("answered").status()
    }

    const HEADERS: [(&str, &str); 3] = [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];

    fn packed(request: &WriteRequest) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).expect("small")
    }

    #[tokio::test]
    async fn samples_are_counted_by_target_and_scrapes_by_their_end() {
        let receiver = Receiver::start().await.expect("listens");
        assert_eq!(post(&receiver, &HEADERS, packed(&request())).await, StatusCode::NO_CONTENT);
        let ledger = receiver.ledger();
        assert_eq!((ledger.requests, ledger.samples, ledger.malformed, ledger.marked), (1, 8, 0, 0));
        assert_eq!(ledger.targets["a"], Tally { exposed: 2, good: 2, failed: 1 });
        assert_eq!(ledger.targets["b"], Tally { exposed: 0, good: 0, failed: 1 });
    }

    #[tokio::test]
    async fn both_versions_are_counted_alike() {
        let receiver = Receiver::start().await.expect("listens");
        let request = request();
        let mut symbols = vec![String::new()];
        let mut timeseries = Vec::new();
        for series in request.timeseries {
            let texts = series.labels.into_iter().flat_map(|label| [label.name, label.value]);
            let from = symbols.len() as u32;
            symbols.extend(texts);
            let sample = |one: Sample| v2::Sample { value: one.value, timestamp: one.timestamp, start_timestamp: 0 };
            timeseries.push(v2::TimeSeries {
                labels_refs: (from..symbols.len() as u32).collect(),
                samples: series.samples.into_iter().map(sample).collect(),
                ..Default::default()
            });
        }
        let of_2 = v2::Request { symbols, timeseries }.encode_to_vec();
        let body = snap::raw::Encoder::new().compress_vec(&of_2).expect("small");
        let headers = [
            ("content-encoding", "snappy"),
            ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            ("x-prometheus-remote-write-version", "2.0.0"),
        ];
        assert_eq!(post(&receiver, &headers, body).await, StatusCode::NO_CONTENT);
        assert_eq!(receiver.ledger().samples, 8);
        assert_eq!(receiver.ledger().targets["a"], Tally { exposed: 2, good: 2, failed: 1 });
    }

    #[tokio::test]
    async fn the_marker_is_seen_in_a_name_and_in_a_value() {
        let receiver = Receiver::start().await.expect("listens");
        let bad = WriteRequest {
            timeseries: vec![
                series(&[("__name__", MARKER), ("instance", "a")], &[1.0]),
                series(&[("__name__", "x"), ("exported_name", MARKER)], &[1.0]),
            ],
            ..WriteRequest::default()
        };
        post(&receiver, &HEADERS, packed(&bad)).await;
        assert_eq!(receiver.ledger().marked, 2);
    }

    #[tokio::test]
    async fn what_is_not_the_protocol_is_refused_and_counted() {
        let receiver = Receiver::start().await.expect("listens");
        for missing in 0..HEADERS.len() {
            let mut headers = HEADERS.to_vec();
            headers.remove(missing);
            assert_eq!(post(&receiver, &headers, packed(&request())).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        assert_eq!(post(&receiver, &HEADERS, b"junk".to_vec()).await, StatusCode::BAD_REQUEST);
        let ledger = receiver.ledger();
        assert_eq!((ledger.requests, ledger.samples, ledger.malformed), (0, 0, 4));
    }
}
