//! A real Prometheus that takes remote_write, and what it stored; or one in agent mode, to be asked what it says.
//!
//! Out-of-order samples are refused, as by default.

use std::net::SocketAddr;

use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use url::form_urlencoded;

use super::http;
use super::process::Process;
use super::stored::{LabelMap, Point, Stored, labels_from_json, sorted};

/// One running Prometheus, empty at first.
pub(crate) struct Prometheus {
    address: SocketAddr,
    process: Process,
}

impl Prometheus {
    /// Starts one that scrapes nothing, and waits until it takes samples.
    pub(crate) async fn start() -> Self {
        Self::with_config("global: {}\n").await
    }

    /// Starts one with this configuration file, and waits until it takes samples.
    pub(crate) async fn with_config(text: &str) -> Self {
        Self::so(text, &["--storage.tsdb.path=data", "--web.enable-remote-write-receiver"]).await
    }

    /// Starts one in agent mode that scrapes nothing.
    pub(crate) async fn agent() -> Self {
        Self::agent_with("global: {}\n").await
    }

    /// Starts one in agent mode with this configuration file.
    pub(crate) async fn agent_with(text: &str) -> Self {
        Self::so(text, &["--agent", "--storage.agent.path=data"]).await
    }

    async fn so(text: &str, mode: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("prometheus.yml"), text).expect("its configuration");
        let arguments = [&["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0"], mode].concat();
        let mut process = Process::start("prometheus", dir, &arguments);
        let address: SocketAddr =
            process.says("\"Listening on\" component=web address=").await.parse().expect("an address");
        process
            .until("/-/ready is 200", async || {
                http::get(address, "/-/ready").await.ok().filter(|answer| answer.status == 200)
            })
            .await;
        Self { address, process }
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) async fn signal(&mut self, name: &str) {
        self.process.signal(name).await;
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of its remote_write receiver.
    pub(crate) fn write_url(&self) -> String {
        format!("http://{}/api/v1/write", self.address)
    }

    /// An instant query: one sample per series, or with a range such as `up[5m]` the samples of that range. Staleness
    /// markers never show; [`Self::raw`] has them.
    pub(crate) async fn instant(&self, query: &str, at_ms: i64) -> Vec<Stored> {
        self.query("/api/v1/query", &[("query", query), ("time", &seconds(at_ms))]).await
    }

    /// A range query.
    pub(crate) async fn range(&self, query: &str, from_ms: i64, until_ms: i64, step_ms: i64) -> Vec<Stored> {
        let form =
            [("query", query), ("start", &seconds(from_ms)), ("end", &seconds(until_ms)), ("step", &seconds(step_ms))];
        self.query("/api/v1/query_range", &form).await
    }

    /// The label sets of the series that match a selector, sorted.
    pub(crate) async fn series(&self, selector: &str) -> Vec<LabelMap> {
        let data = self.ask("/api/v1/series", &[("match[]", selector)]).await;
        let mut labels: Vec<LabelMap> = data.as_array().expect("a list").iter().map(labels_from_json).collect();
        labels.sort();
        labels
    }

    /// Every stored sample of the series that have these labels, bit for bit and with staleness markers: by remote_read.
    /// Only -0 comes back as 0, because protobuf leaves out a value that equals 0; [`Self::instant`] tells them apart.
    pub(crate) async fn raw(&self, labels: &[(&str, &str)], from_ms: i64, until_ms: i64) -> Vec<Stored> {
        let matcher =
            |&(name, value): &(&str, &str)| Matcher { kind: 0, name: name.to_owned(), value: value.to_owned() };
        let query = Query { from_ms, until_ms, matchers: labels.iter().map(matcher).collect() };
        let request = ReadRequest { queries: vec![query] }.encode_to_vec();
        let body = snap::raw::Encoder::new().compress_vec(&request).expect("a small request");
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-read-version", "0.1.0"),
        ];
        let answer = http::post(self.address, "/api/v1/read", &headers, body).await.expect("an answer");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let bytes = snap::raw::Decoder::new().decompress_vec(&answer.body).expect("snappy");
        let response = ReadResponse::decode(bytes.as_slice()).expect("a ReadResponse");
        sorted(response.results.into_iter().flat_map(|result| result.series).map(Stored::from).collect())
    }

    /// What a part of the API that is only read says: its `data`.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = http::get(self.address, path).await.expect("an answer");
        let mut frame = answer.json();
        assert_eq!(frame["status"], "success", "{path}: {frame}");
        frame["data"].take()
    }

    /// The sum of one of its own metrics over all its series.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = http::get(self.address, "/metrics").await.expect("an answer");
        let lines = answer.text().lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let values = lines.map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number"));
        values.sum()
    }

    async fn query(&self, path: &str, form: &[(&str, &str)]) -> Vec<Stored> {
        let data = self.ask(path, form).await;
        let series = data["result"].as_array().expect("a list of series");
        let stored = series.iter().map(|series| {
            let points = match &series["values"] {
                Value::Array(points) => points.iter().map(point).collect(),
                _ => vec![point(&series["value"])],
            };
            Stored { labels: labels_from_json(&series["metric"]), samples: points }
        });
        sorted(stored.collect())
    }

    async fn ask(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = http::post(self.address, path, &headers, body).await.expect("an answer");
        let mut frame = answer.json();
        assert_eq!(frame["status"], "success", "{path} {form:?}: {frame}");
        frame["data"].take()
    }
}

/// `[1700000000.123, "1.5"]`. The time has at most three decimals, which an f64 holds.
fn point(pair: &Value) -> Point {
    let at = pair[0].as_f64().expect("a time in seconds");
    let value = pair[1].as_str().expect("a value as text").parse().expect("a number");
    Point { at_ms: (at * 1000.0).round() as i64, value }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(int64, tag = "1")]
    from_ms: i64,
    #[prost(int64, tag = "2")]
    until_ms: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
}

#[derive(Clone, PartialEq, Message)]
struct Matcher {
    /// 0 is equality.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    series: Vec<ReadSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<ReadLabel>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<ReadSample>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadLabel {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    at_ms: i64,
}

impl From<ReadSeries> for Stored {
    fn from(series: ReadSeries) -> Self {
        Self {
            labels: series.labels.into_iter().map(|label| (label.name, label.value)).collect(),
            samples: series.samples.iter().map(|s| Point { at_ms: s.at_ms, value: s.value }).collect(),
        }
    }
}
