//! What the agent tells about itself: probes and metrics on one listener, the API on loopback, and nothing to whom it should
//! not.

mod api;
mod clients;
mod live;
mod mesh;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshscrape::parse::{Entry, Format, Parser, Step};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::deploy::rendered::documents;
use crate::support::agent::{self, eventually};
use crate::support::ca::{Ca, CertsDir};
use crate::support::http;
use crate::support::mesh::{CART, SCRAPER};

fn config(certs: &CertsDir) -> String {
    format!(
        "
scrape_configs:
- job_name: mesh
  scheme: https
  scrape_interval: 1h
  tls_config: {{certs_dir: {}, spiffe: {{}}}}
  static_configs: [{{targets: ['127.0.0.1:1'], labels: {{__spiffe_id__: '{CART}'}}}}]
",
        certs.path().display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_once_its_certificates_are_there() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let certs = CertsDir::at(certs.path());
    let agent = agent::start(dir.path(), &config(&certs)).await;
    let healthy = http::get(agent.listen(), "/-/healthy").await.expect("an answer");
    assert_eq!((healthy.status, healthy.text()), (200, "meshscrape is healthy.\n"));
    let waiting = http::get(agent.listen(), "/-/ready").await.expect("an answer");
    assert_eq!(waiting.status, 503);
    assert!(waiting.text().contains("no certificate of our own is loaded"), "{}", waiting.text());
    assert!(waiting.text().contains("cert-chain.pem"), "{}", waiting.text());

    let ca = Ca::new("cluster.local");
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    eventually("it is ready", async || {
        let answer = http::get(agent.listen(), "/-/ready").await.expect("an answer");
        (answer.status == 200).then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_metrics_are_an_exposition_that_parses() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let agent = agent::start(dir.path(), &config(&CertsDir::at(certs.path()))).await;
    let stream = TcpStream::connect(agent.listen()).await.expect("a connection");
    let asking = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")];
    let answer = http::exchange(stream, "GET", "/metrics", &asking, Default::default()).await.expect("an answer");
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(answer.header("vary"), "accept");
    let mut parser = Parser::new(Format::OpenMetrics);
    let mut rest = &answer.body[..];
    let mut names = Vec::new();
    while let Step::Entry(entry, taken) = parser.next(rest, true).expect("it parses") {
        if let Entry::Sample(sample) = entry {
            let labels = sample.labels().expect("no label twice");
            names.push(labels.value("__name__").to_owned());
        }
        rest = &rest[taken..];
    }
    assert!(parser.is_complete());
    for name in ["meshscrape_build_info", "prometheus_target_scrape_pool_targets", "prometheus_sd_discovered_targets"] {
        assert!(names.iter().any(|known| known == name), "{name} is missing: {names:?}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_for_this_host_only() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let agent = agent::start(dir.path(), &config(&CertsDir::at(certs.path()))).await;
    let ask = async |headers: &str| {
        let request = format!("GET /api/v1/targets HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        http::status_line(agent.api(), &request).await
    };
    for (headers, status) in [
        ("Host: 127.0.0.1:9465\r\n", "HTTP/1.1 200 OK"),
        ("Host: localhost\r\nOrigin: http://localhost\r\n", "HTTP/1.1 200 OK"),
        ("Host: rebound.example\r\n", "HTTP/1.1 403 Forbidden"),
        ("Host: 10.0.0.1:9465\r\n", "HTTP/1.1 403 Forbidden"),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", "HTTP/1.1 403 Forbidden"),
        ("Host: localhost\r\nOrigin: null\r\n", "HTTP/1.1 403 Forbidden"),
    ] {
        assert_eq!(ask(headers).await, status, "{headers:?}");
    }
    let outside = http::get(agent.listen(), "/api/v1/targets").await.expect("an answer");
    assert_eq!(outside.status, 404, "the pod's own port serves probes and metrics only");
    let other = http::get(agent.api(), "/api/v1/targets?state=all").await.expect("an answer");
    assert_eq!((other.status, &other.json()["data"]["activeTargets"]), (200, &serde_json::json!([])));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_neither_stop_a_probe_nor_the_end() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let agent = agent::start(dir.path(), &config(&CertsDir::at(certs.path()))).await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(agent.listen()).await.expect("a connection");
        // As many answers as fill every buffer, none of which is read.
        let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
        let _ = tokio::time::timeout(Duration::from_millis(20), stream.write_all(requests.as_bytes())).await;
        idle.push(stream);
    }
    probe(agent.listen()).await;
    tokio::time::timeout(Duration::from_secs(10), agent.stop()).await.expect("it ends in time");
    drop(idle);
}

/// Asks as the kubelet does, which kills a container that is too late with its answers.
async fn probe(at: SocketAddr) {
    let manifest = documents(include_str!("../../deploy/kustomize/base/daemon-set.yaml")).remove(0);
    let probe = &manifest["spec"]["template"]["spec"]["containers"][0]["livenessProbe"];
    let patience = Duration::from_secs(probe["timeoutSeconds"].as_u64().expect("seconds"));
    let answer = tokio::time::timeout(patience, http::get(at, "/-/healthy")).await;
    let answer = answer.unwrap_or_else(|_| panic!("no answer to a probe within {patience:?}"));
    assert_eq!(answer.expect("an answer").status, 200);
}

/// Connects from this address, asks for more than it ever reads, or for nothing, and does not go away by itself.
async fn hold(at: SocketAddr, from: Ipv4Addr, asks: bool, connected: &AtomicUsize) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_send_buffer_size(4096)?;
    socket.set_recv_buffer_size(4096)?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(at).await?;
    connected.fetch_add(1, Ordering::Relaxed);
    if !asks {
        tokio::time::sleep(Duration::from_secs(1)).await;
        return Ok(());
    }
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    loop {
        stream.write_all(requests.as_bytes()).await?;
    }
}

/// Another pod, which comes again as soon as it is sent away, and somebody on the address that the kubelet has, too.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_connections_by_the_hundred_keeps_no_probe_waiting() {
    const HELD: usize = 300;
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let agent = agent::start(dir.path(), &config(&CertsDir::at(certs.path()))).await;
    let at = agent.listen();
    for (from, comes_again) in [(Ipv4Addr::new(127, 0, 0, 2), true), (Ipv4Addr::LOCALHOST, false)] {
        let connected = Arc::new(AtomicUsize::new(0));
        let mut crowd = JoinSet::new();
        for number in 0..HELD {
            let connected = Arc::clone(&connected);
            crowd.spawn(async move {
                loop {
                    let _ = hold(at, from, number % 4 != 0, &connected).await;
                    if !comes_again {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        eventually("the crowd is there", async || (connected.load(Ordering::Relaxed) >= HELD).then_some(())).await;
        for _ in 0..3 {
            probe(at).await;
        }
        crowd.shutdown().await;
    }
    agent.stop().await;
}
