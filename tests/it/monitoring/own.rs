//! What the agent's metrics say of certificates and targets is so.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::agent::{self, Running, eventually, instance};
use crate::support::ca::{Ca, CertsDir, HOUR};
use crate::support::mesh::{CART, Mesh, ONLY_13, SCRAPER};
use crate::support::tls_server::{Reply, Server, Talk, always, closed_port};

fn config(certs: &CertsDir, targets: &[String]) -> String {
    let targets: String = targets
        .iter()
        .map(|target| format!("  - {{targets: ['{target}'], labels: {{__spiffe_id__: '{CART}'}}}}\n"))
        .collect();
    format!(
        "
scrape_configs:
- job_name: mesh
  scheme: https
  scrape_interval: 2s
  scrape_timeout: 2s
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs:
{targets}",
        certs.path().display()
    )
}

/// The value of a series of the identity that is read from `certs`.
async fn of_identity(agent: &Running, certs: &CertsDir, name: &str) -> Option<f64> {
    let files = certs.files();
    let series = format!(
        "meshscrape_identity_{name}{{cert_file=\"{}\",ca_file=\"{}\"}} ",
        files.chain.display(),
        files.root.display()
    );
    let text = agent.metrics().await;
    text.lines().find_map(|line| line.strip_prefix(&series)).map(|value| value.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn own_certificates_tell_how_long_they_last_and_how_their_files_fare() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let certs = CertsDir::at(certs.path());
    let agent = agent::start(dir.path(), &config(&certs, &["127.0.0.1:1".to_owned()])).await;
    let value = async |name: &str| of_identity(&agent, &certs, name).await;
    let becomes = async |name: &str, wanted: f64| {
        eventually(&format!("{name} is {wanted}"), async || (value(name).await == Some(wanted)).then_some(())).await;
    };
    becomes("ready", 0.0).await;
    assert_eq!(value("certificate_expiry_timestamp_seconds").await, None, "nothing is loaded");
    assert_eq!(value("certificate_trusted").await, None);
    assert_eq!(value("root_expiry_timestamp_seconds").await, None);

    let now = || agent.clock.now_ms() as f64 / 1000.0;
    let before = now();
    let ca = Ca::new("cluster.local");
    let short = Ca::valid("cluster.local", -HOUR, HOUR);
    let leaf = ca.leaf(SCRAPER);
    let after = now();
    certs.write(&leaf, &[&short, &ca]);
    becomes("ready", 1.0).await;
    becomes("certificate_trusted", 1.0).await;
    let (hour, ten_hours) = (HOUR as f64, 10.0 * HOUR as f64);
    let expiry = value("certificate_expiry_timestamp_seconds").await.expect("a certificate");
    assert!(before + hour - 1.0 <= expiry && expiry <= after + hour, "{before} {expiry} {after}");
    let start = value("certificate_start_timestamp_seconds").await.expect("a certificate");
    assert_eq!(expiry - start, hour + 120.0);
    let root = value("root_expiry_timestamp_seconds").await.expect("a root");
    assert!(before + ten_hours - 1.0 <= root && root <= after + ten_hours, "the last one: {before} {root} {after}");
    assert_eq!(root - value("root_start_timestamp_seconds").await.expect("a root"), ten_hours + hour);
    becomes("file_problems", 0.0).await;
    let reloaded = value("last_reload_timestamp_seconds").await.expect("a time");
    assert!(after <= reloaded && reloaded <= now());
    let reloads = value("reloads_total").await.expect("a count");

    certs.write_roots(&[&Ca::new("cluster.local")]);
    becomes("certificate_trusted", 0.0).await;
    becomes("reloads_total", reloads + 1.0).await;
    let refusals = value("reload_refusals_total").await.expect("a count");
    certs.put("cert-chain.pem", b"-----BEGIN CERTIFICATE-----\nnonsense");
    becomes("file_problems", 1.0).await;
    becomes("reload_refusals_total", refusals + 1.0).await;
    assert_eq!(value("certificate_expiry_timestamp_seconds").await, Some(expiry), "the last good one is in use");

    agent.clock.shift(2 * HOUR * 1000);
    becomes("ready", 0.0).await;
    assert_eq!(value("certificate_expiry_timestamp_seconds").await, Some(expiry), "also when it has ended");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_the_same_files_are_one_series_and_the_one_in_trouble_speaks() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let certs = CertsDir::at(certs.path());
    let ca = Ca::new("cluster.local");
    // Without a SPIFFE ID of our own the trust domain has to be configured.
    certs.write(&ca.issue(&crate::support::ca::LeafSpec::nameless()), &[&ca]);
    let job = |name: &str, spiffe: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  tls_config: {{certs_dir: '{}', spiffe: {spiffe}}}\n  static_configs: [{{targets: ['127.0.0.1:1']}}]\n",
            certs.path().display()
        )
    };
    let good = job("good", "{trust_domain: cluster.local}");
    let mut agent = agent::start(dir.path(), &format!("scrape_configs:\n{good}")).await;
    eventually("it is ready", async || (of_identity(&agent, &certs, "ready").await == Some(1.0)).then_some(())).await;
    agent.reload(&format!("scrape_configs:\n{good}{}", job("bad", "{}"))).await.expect("a good configuration");
    eventually("one is in trouble", async || {
        let text = agent.metrics().await;
        let ready: Vec<&str> = text.lines().filter(|line| line.starts_with("meshscrape_identity_ready{")).collect();
        assert_eq!(ready.len(), 1, "{ready:?}");
        ready[0].ends_with(" 0.0").then_some(())
    })
    .await;
    agent.reload(&format!("scrape_configs:\n{good}")).await.expect("a good configuration");
    eventually("the other one alone", async || (of_identity(&agent, &certs, "ready").await == Some(1.0)).then_some(()))
        .await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_counted_by_what_they_are_now() {
    let mesh = Mesh::new(ONLY_13).await;
    let leaf = mesh.ca.leaf(CART);
    let server = Server::start(Talk::Tls(mesh.tls(&leaf), always(Reply::ok("a 1\n"))));
    let (_nobody, closed) = closed_port();
    let (good, bad) = (server.address().to_string(), closed.to_string());
    let dir = TempDir::new().expect("a directory");
    let mut agent = agent::start(dir.path(), &config(&mesh.certs, &[good.clone(), bad])).await;
    // A scrape may run out of time on a loaded machine; the next one tells.
    let as_expected = |target: &Value| match instance(target) == good {
        true => target["health"] == "up",
        false => target["reason"] == "connect_refused",
    };
    agent.until_all("all are what they are", as_expected).await;
    assert_eq!(agent.metric("meshscrape_targets{job=\"mesh\",health=\"up\"}").await, 1.0);
    assert_eq!(agent.metric("meshscrape_targets{job=\"mesh\",health=\"down\"}").await, 1.0);
    assert_eq!(agent.metric("meshscrape_targets_down{job=\"mesh\",reason=\"connect_refused\"}").await, 1.0);
    assert_eq!(agent.metric("meshscrape_targets_unverified{job=\"mesh\"}").await, 0.0);
    let hour_ahead = agent.clock.now_ms() as f64 / 1000.0 + HOUR as f64;
    let expiry = agent.metric("meshscrape_peer_certificate_first_expiry_timestamp_seconds{job=\"mesh\"}").await;
    assert!(expiry > 0.0 && expiry <= hour_ahead, "the leaf's end comes before the root's: {expiry} {hour_ahead}");

    agent
        .until("three scrapes", |targets| targets.iter().any(|target| target["scrapesSucceeded"].as_u64() >= Some(3)))
        .await;
    // Where the server has seen one already, the scrape that made it may still be under way.
    eventually("the handshakes are those of the server: a kept connection needs no other one", async || {
        let told = agent.metric("meshscrape_handshakes_total{job=\"mesh\"}").await;
        (told == server.handshakes() as f64).then_some(())
    })
    .await;

    agent.reload(&config(&mesh.certs, &[good])).await.expect("a good configuration");
    let text = agent.metrics().await;
    assert!(!text.contains("meshscrape_targets_down{"), "what is gone is not down: {text}");
    assert!(text.contains("meshscrape_targets{job=\"mesh\",health=\"down\"} 0"), "{text}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counters_of_a_job_begin_at_zero() {
    let certs = TempDir::new().expect("a directory");
    let certs = CertsDir::at(certs.path());
    let dir = TempDir::new().expect("a directory");
    // No certificates: nothing succeeds, and nothing is lost of the first event.
    let agent = agent::start(dir.path(), &config(&certs, &["127.0.0.1:1".to_owned()])).await;
    // The job is known once its certificates have been read.
    let text = eventually("the job has counters", async || {
        let text = agent.metrics().await;
        text.contains("meshscrape_samples_scraped_total{").then_some(text)
    })
    .await;
    for series in [
        "meshscrape_samples_scraped_total{job=\"mesh\"} 0",
        "meshscrape_handshakes_total{job=\"mesh\"} 0",
        "meshscrape_weaker_identity_matches_total{job=\"mesh\"} 0",
        "meshscrape_partial_merges_total{job=\"mesh\",part=\"application\"} 0",
    ] {
        assert!(text.lines().any(|line| line == series), "{series}: {text}");
    }
    agent.stop().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_process_tells_what_it_takes() {
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), "scrape_configs: []").await;
    let now = agent.clock.now_ms() as f64 / 1000.0;
    let started = agent.metric("process_start_time_seconds").await;
    assert!(started > 0.0 && started <= now, "{started} {now}");
    let before = agent.metric("process_cpu_seconds_total").await;
    assert!(before > 0.0);
    for name in ["process_resident_memory_bytes", "process_open_fds"] {
        assert!(agent.metric(name).await > 0.0, "{name}");
    }
    assert!(agent.metric("process_virtual_memory_bytes").await > agent.metric("process_resident_memory_bytes").await);
    assert!(agent.metric("process_max_fds").await > agent.metric("process_open_fds").await);
    assert!(agent.metric("process_cpu_seconds_total").await > before, "time goes on");
    agent.stop().await;
}
