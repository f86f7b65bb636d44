//! A real single-node VictoriaMetrics that takes remote_write, and what it stored.

use std::net::SocketAddr;

use meshscrape::clock::Clock;
use tempfile::TempDir;
use url::form_urlencoded;

use super::http;
use super::process::Process;
use super::stored::{LabelMap, Point, Stored, labels_from_json, sorted};

/// One running VictoriaMetrics, empty at first.
pub(crate) struct Victoria {
    address: SocketAddr,
    process: Process,
}

impl Victoria {
    /// Starts one and waits until it takes samples.
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().expect("a directory");
        let arguments = ["-storageDataPath=data", "-httpListenAddr=127.0.0.1:0", "-memory.allowedBytes=64MB"];
        let mut process = Process::start("victoria-metrics", dir, &arguments);
        let address = process.says("started server at http://").await;
        let address: SocketAddr = address.trim_end_matches('/').parse().expect("an address");
        process
            .until("/health is 200", async || {
                http::get(address, "/health").await.ok().filter(|answer| answer.status == 200)
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

    /// Every stored sample of the series that match a selector. VictoriaMetrics keeps about 15 decimal digits of a value,
    /// and one power of ten for a series' neighbouring samples: beside 1e300 it stores 0.5 as 0. A staleness marker
    /// comes back as some NaN, because the JSON has one word for all of them.
    pub(crate) async fn raw(&self, selector: &str) -> Vec<Stored> {
        // What was just written becomes visible now instead of within a second.
        let flushed = http::get(self.address, "/internal/force_flush").await.expect("an answer");
        assert_eq!(flushed.status, 200, "{:?}", flushed.body);
        // Without an end, the samples of the second that runs are left out.
        let end = (Clock::system().now_ms() / 1000 + 3600).to_string();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("match[]", selector).append_pair("end", &end).append_pair("reduce_mem_usage", "1");
        let path = format!("/api/v1/export?{}", form.finish());
        let answer = http::get(self.address, &path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        let mut series: Vec<Stored> = Vec::new();
        for line in answer.text().lines() {
            let (labels, mut samples) = read_line(line);
            // Without de-duplication a series comes in one line per block of storage.
            match series.iter_mut().find(|stored| stored.labels == labels) {
                Some(known) => known.samples.append(&mut samples),
                None => series.push(Stored { labels, samples }),
            }
        }
        for stored in &mut series {
            stored.samples.sort_by_key(|point| point.at_ms);
        }
        sorted(series)
    }
}

/// `{"metric":{…},"values":[1,null],"timestamps":[1700000000123,…]}`
fn read_line(line: &str) -> (LabelMap, Vec<Point>) {
    let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    // The JSON library may be off by the last bit of a float, so the values are read as text. In a label value the
    // quotes would be escaped.
    let (_, rest) = line.rsplit_once(r#""values":["#).expect("values");
    let values = rest.split_once(']').expect("the end of the values").0.split(',');
    let times = json["timestamps"].as_array().expect("timestamps");
    let points = values.zip(times).map(|(value, at)| Point {
        at_ms: at.as_i64().expect("milliseconds"),
        value: match value.trim_matches('"') {
            "null" => f64::NAN,
            text => text.parse().expect("a number"),
        },
    });
    (labels_from_json(&json["metric"]), points.collect())
}
