//! Certificates rotate under load, against real Envoy: no scrape is lost, a change is live within a second, and what a
//! withdrawn root vouched for is gone.
//!
//! Its phases sleep: that nothing fails while something goes on can only be said after a while.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::support::agent::{self, Running, eventually, instance};
use crate::support::ca::{Ca, CertsDir};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::mesh::{CART, SCRAPER};
use crate::support::scale;

const PODS: usize = 6;
/// Targets of each pod. A target may take all of its two seconds for a scrape, and still each new leaf is used by several.
const TARGETS_OF_A_POD: usize = 10;
/// The pod whose proxy never gets a certificate under the new root.
const LEFT_BEHIND: &str = "left-behind";

/// What the directory is written with from now on.
struct Issue {
    issuer: usize,
    roots: Vec<usize>,
}

/// Writes a fresh leaf, with key, chain and root in Istio's order, every 200 ms until told to stop; returns how often.
async fn rotate(
    certs: Arc<CertsDir>,
    authorities: Arc<[Ca; 2]>,
    issue: Arc<Mutex<Issue>>,
    stop: Arc<AtomicBool>,
) -> u32 {
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    let mut rotations = 0;
    while !stop.load(Ordering::Relaxed) {
        beat.tick().await;
        let issue = issue.lock().await;
        let roots: Vec<&Ca> = issue.roots.iter().map(|&at| &authorities[at]).collect();
        certs.write(&authorities[issue.issuer].leaf(SCRAPER), &roots);
        rotations += 1;
    }
    rotations
}

fn job(name: &str, interval: &str, certs: &CertsDir, pods: &[std::net::SocketAddr], targets_of_a_pod: usize) -> String {
    let pods: Vec<String> = pods.iter().map(|pod| format!("'{pod}'")).collect();
    let mut job = format!(
        "
- job_name: {name}
  scrape_interval: {interval}
  scrape_timeout: {interval}
  metrics_path: /stats/prometheus
  scheme: https
  tls_config: {{certs_dir: {}, spiffe: {{}}}}
  static_configs:
",
        certs.path().display(),
    );
    for at in 0..targets_of_a_pod {
        let labels = format!("__spiffe_id__: '{CART}', at: '{at}'");
        let _ = writeln!(job, "  - {{targets: [{}], labels: {{{labels}}}}}", pods.join(", "));
    }
    job
}

/// Asks until the answer is yes, and gives how long after `since` the last no was asked for: how long an answer takes is
/// not what is measured.
async fn last_no(what: &str, since: Instant, mut ask: impl AsyncFnMut() -> bool) -> Duration {
    let mut last = Duration::ZERO;
    eventually(what, async || {
        let asked = since.elapsed();
        if ask().await {
            return Some(());
        }
        last = asked;
        None
    })
    .await;
    last
}

/// Handshakes that all pods together have made.
async fn handshakes(envoy: &Envoy, pods: &[String]) -> u64 {
    let mut sum = 0;
    for pod in pods {
        sum += envoy.stat(&format!("listener.{pod}.ssl.handshake")).await;
    }
    sum
}

/// Fails if any target but the one left behind has ever failed, and says for which reasons.
async fn nothing_failed(agent: &Running, when: &str) -> Vec<Value> {
    let targets = agent.targets().await;
    for target in targets.iter().filter(|target| target["scrapePool"] != LEFT_BEHIND) {
        if target["scrapesFailed"] != 0 {
            let metrics = agent.metrics().await;
            let why: Vec<_> = metrics.lines().filter(|line| line.starts_with("meshscrape_scrape_failures")).collect();
            panic!("{when}: {} failed {} times: {why:#?}", instance(target), target["scrapesFailed"]);
        }
    }
    targets
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_costs_no_scrape_and_ends_what_is_withdrawn() {
    let phase = scale(Duration::from_secs(8), Duration::from_secs(60));
    let authorities = Arc::new([Ca::new("cluster.local"), Ca::new("cluster.local")]);
    let (old, new) = (&authorities[0], &authorities[1]);
    let dir = TempDir::new().expect("a directory");
    let certs = Arc::new(CertsDir::at(dir.path()));
    certs.write(&old.leaf(SCRAPER), &[old]);
    let names: Vec<String> = (0..PODS).map(|at| format!("cart-{at}")).collect();
    let mut listeners: Vec<_> = names.iter().map(|name| ListenerSpec::stats(name, &old.leaf(CART), &[old])).collect();
    listeners.push(ListenerSpec::stats(LEFT_BEHIND, &old.leaf(CART), &[old, new]));
    let mut envoy = Envoy::start(&listeners).await;

    let addresses: Vec<_> = names.iter().map(|name| envoy.address(name)).collect();
    let mut config = "scrape_configs:".to_owned();
    config.push_str(&job("carts", "2s", &certs, &addresses, TARGETS_OF_A_POD));
    config.push_str(&job(LEFT_BEHIND, "2s", &certs, &[envoy.address(LEFT_BEHIND)], 1));
    let configs = TempDir::new().expect("a directory");
    let agent: Running = agent::start(configs.path(), &config).await;
    agent.until_all("every target is up", |target| target["health"] == "up").await;

    let issue = Arc::new(Mutex::new(Issue { issuer: 0, roots: vec![0] }));
    let stop = Arc::new(AtomicBool::new(false));
    let writer =
        tokio::spawn(rotate(Arc::clone(&certs), Arc::clone(&authorities), Arc::clone(&issue), Arc::clone(&stop)));

    // Leaves alone rotate.
    tokio::time::sleep(phase).await;
    nothing_failed(&agent, "old root").await;

    // Both roots everywhere, leaves still under the old one.
    issue.lock().await.roots = vec![0, 1];
    for name in &names {
        envoy.set_roots(name, &[old, new]).await;
    }
    tokio::time::sleep(phase).await;
    nothing_failed(&agent, "old leaves, both roots").await;

    // Leaves move to the new root: half of the pods, then ourselves, then the other half.
    for name in &names[..PODS / 2] {
        envoy.rotate_leaf(name, &new.leaf(CART)).await;
    }
    tokio::time::sleep(phase / 2).await;
    issue.lock().await.issuer = 1;
    tokio::time::sleep(phase / 2).await;
    for name in &names[PODS / 2..] {
        envoy.rotate_leaf(name, &new.leaf(CART)).await;
    }
    tokio::time::sleep(phase).await;
    let targets = nothing_failed(&agent, "new leaves, both roots").await;
    let left = targets.iter().find(|target| target["scrapePool"] == LEFT_BEHIND).expect("listed");
    assert_eq!((&left["health"], &left["scrapesFailed"]), (&"up".into(), &0.into()), "the old root still stands");

    // The writer stops half way through a set: the key is new, the chain is not. In this state the old root is withdrawn.
    stop.store(true, Ordering::Relaxed);
    let rotations = writer.await.expect("the writer");
    certs.put("key.pem", new.leaf(SCRAPER).key_pem().as_bytes());
    for name in &names {
        envoy.set_roots(name, &[new]).await;
    }
    // There must be a connection that can go.
    let active = format!("listener.{LEFT_BEHIND}.downstream_cx_active");
    eventually("a connection is kept", async || (envoy.stat(&active).await == 1).then_some(())).await;
    certs.write_roots(&[new]);
    let withdrawn = Instant::now();
    let gone = "the connection that the old root vouched for is gone";
    let late = last_no(gone, withdrawn, async || envoy.stat(&active).await == 0).await;
    assert!(late < Duration::from_secs(1), "still there after {late:?}");
    agent
        .until("the pod that was left behind is refused", |targets| {
            targets.iter().any(|target| target["scrapePool"] == LEFT_BEHIND && target["reason"] == "unknown_authority")
        })
        .await;
    let targets = nothing_failed(&agent, "new root, key and chain disagree").await;

    // Every connection has been made anew under the new root, and is kept as long as nothing changes.
    let scrapes = |target: &Value| target["scrapesSucceeded"].as_u64().expect("a number");
    let name = |target: &Value| (instance(target), target["labels"]["at"].as_str().map(str::to_owned));
    let before: HashMap<_, u64> = targets.iter().map(|target| (name(target), scrapes(target))).collect();
    let again = |target: &Value| target["scrapePool"] == LEFT_BEHIND || scrapes(target) >= before[&name(target)] + 2;
    agent.until_all("every target was scraped under the new root", again).await;

    // The set is completed: the new leaf is live, which shows in new handshakes, within a second.
    let before = handshakes(&envoy, &names).await;
    certs.write(&new.leaf(SCRAPER), &[new]);
    let written = Instant::now();
    let late = last_no("the new leaf is used", written, async || handshakes(&envoy, &names).await > before).await;
    assert!(late < Duration::from_secs(1), "not yet live after {late:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let targets = nothing_failed(&agent, "new root").await;

    let mut summary = String::new();
    for target in &targets {
        let _ = write!(summary, "{} {} ", instance(target), target["scrapesSucceeded"]);
    }
    let expected = phase.as_secs() * 4 / 2 * 9 / 10;
    for target in targets.iter().filter(|target| target["scrapePool"] != LEFT_BEHIND) {
        assert!(target["scrapesSucceeded"].as_u64() >= Some(expected), "{expected} expected: {summary}");
    }
    // Between two scrapes of a target the leaf has changed, so there is a handshake for each: with five scrapes of a
    // pod and five leaves a second, as many as there are leaves.
    let seen = handshakes(&envoy, &names).await / PODS as u64;
    assert!(seen >= u64::from(rotations) * 8 / 10, "{rotations} rotations, {seen} handshakes of each pod");
    agent.stop().await;
}
