//! The agent as anybody sees it from outside: its targets over `/api/v1/targets`, its counters over `/metrics`.
//!
//! The demo shows nothing of the agent that did not come this way. All text is cleaned here, because parts of it are
//! what strangers sent to the agent.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::Empty;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::cli::agent_api::exchange;
use crate::model::{clean, clean_to};

/// How long the agent may take over an answer about itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// One active target, as far as the demo shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TargetState {
    /// Its labels after relabelling.
    pub(super) labels: BTreeMap<String, String>,
    /// `up`, `down` or `unknown`.
    pub(super) health: String,
    /// What happened in the last scrape; empty if it went well.
    pub(super) last_error: String,
    /// The reason for the failure, of the agent's closed list; empty where there is none.
    pub(super) reason: String,
    /// What to look at or to change; empty where there is nothing.
    pub(super) hint: String,
    /// Who answered, as far as a certificate told; else empty.
    pub(super) presented_identity: String,
    /// Samples in the last scrape, after relabelling.
    pub(super) samples_kept: u64,
    /// Scrapes that ended well.
    pub(super) scrapes_succeeded: u64,
    /// Scrapes that failed.
    pub(super) scrapes_failed: u64,
}

impl TargetState {
    fn cleaned(mut self) -> Self {
        self.last_error = clean_to(&self.last_error, 1024).into_owned();
        self.hint = clean_to(&self.hint, 1024).into_owned();
        self.reason = clean(&self.reason).into_owned();
        self.presented_identity = clean(&self.presented_identity).into_owned();
        self
    }
}

/// The active targets that the API at `api` lists.
pub(super) async fn targets(api: SocketAddr) -> io::Result<Vec<TargetState>> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "activeTargets")]
        active: Vec<TargetState>,
    }
    let body = get(api, "/api/v1/targets?state=active").await?;
    let answer: Answer = serde_json::from_slice(&body)?;
    Ok(answer.data.active.into_iter().map(TargetState::cleaned).collect())
}

/// The text of `/metrics` at `listen`.
pub(super) async fn metrics(listen: SocketAddr) -> io::Result<String> {
    let body = get(listen, "/metrics").await?;
    String::from_utf8(body.into()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The samples that receivers have taken, by the agent's own metrics: what was attempted, less what failed or was tried
/// again.
pub(super) fn samples_delivered(exposition: &str) -> u64 {
    let total = |name| sum(exposition, name).unwrap_or(0.0);
    let attempted = total("prometheus_remote_storage_samples_total");
    let failed = total("prometheus_remote_storage_samples_failed_total");
    let retried = total("prometheus_remote_storage_samples_retried_total");
    (attempted - failed - retried).max(0.0) as u64
}

/// The sum of all series called `name` in an exposition without timestamps; `None` if there is none.
fn sum(exposition: &str, name: &str) -> Option<f64> {
    let values = exposition.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with(['{', ' ']) {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

async fn get(address: SocketAddr, path: &str) -> io::Result<Bytes> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let request = Request::get(path).header(HOST, address.to_string()).body(Empty::new());
        let (status, body) = exchange(stream, request).await?;
        match status {
            StatusCode::OK => Ok(body),
            other => Err(io::Error::other(format!("{path} answered {other}"))),
        }
    };
    tokio::time::timeout(PATIENCE, asked).await?
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn serve_once(status: &str, body: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("bound");
        let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            stream.write_all(text.as_bytes()).await.expect("writes");
        });
        address
    }

    #[tokio::test]
    async fn targets_are_read_as_prometheus_shapes_them_and_cleaned() {
        let body = r#"{"status":"success","data":{"activeTargets":[{"discoveredLabels":{"__address__":"a"},
            "labels":{"instance":"127.0.0.2:1","job":"mesh"},"scrapePool":"mesh","lastError":"identity_mismatch: \u001b[2J",
            "lastScrape":"2026-01-02T10:20:30.314627576Z","lastScrapeDuration":0.1,"health":"down",
            "reason":"identity_mismatch","hint":"look","scrapesSucceeded":0,"scrapesFailed":3,"presentedIdentity":"spiffe://cluster.local/ns/x/sa/y"}],
            "droppedTargets":[],"droppedTargetCounts":null}}"#;
        let targets = targets(serve_once("200 OK", body).await).await.expect("readable");
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].labels["instance"], "127.0.0.2:1");
        assert_eq!((targets[0].reason.as_str(), targets[0].scrapes_failed), ("identity_mismatch", 3));
        assert_eq!(targets[0].presented_identity, "spiffe://cluster.local/ns/x/sa/y");
        assert_eq!(targets[0].last_error, "identity_mismatch: \\u{1b}[2J");
    }

    #[tokio::test]
    async fn another_status_is_an_error() {
        let error = targets(serve_once("503 Service Unavailable", "").await).await.expect_err("refused");
        assert!(error.to_string().contains("503"), "{error}");
    }

    #[test]
    fn what_failed_or_was_tried_again_was_not_delivered() {
        let text = "prometheus_remote_storage_samples_total{url=\"a\"} 100\n\
                    prometheus_remote_storage_samples_retried_total{url=\"a\"} 30\n\
                    prometheus_remote_storage_samples_failed_total{url=\"a\"} 10\n";
        assert_eq!(samples_delivered(text), 60);
        assert_eq!(samples_delivered("up 1\n"), 0);
    }

    #[test]
    fn series_of_one_name_are_summed() {
        let text = "# TYPE a counter\na_total{x=\"1\"} 2\na_total{x=\"2 3\"} 3\na_total_more 9\nb 1\n";
        assert_eq!(sum(text, "a_total"), Some(5.0));
        assert_eq!(sum(text, "b"), Some(1.0));
        assert_eq!(sum(text, "c"), None);
    }
}
