//! The same refusals seen from outside, by a whole agent with a receiver: `up 0`, the reason in the API and in the metric,
//! and no sample. What is never connected at all is here, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use tempfile::TempDir;

use crate::refusals::{MARKER, SCENARIOS};
use crate::support::agent;
use crate::support::mesh::{CART, Mesh, ONLY_12, ONLY_13};
use crate::support::receiver::{Answer, Receiver, always};
use crate::support::tls_server::{Reply, Server, Talk, always as replying};

/// A SPIFFE job with one target, and lines of its own.
fn job(name: &str, certs: &str, target: impl std::fmt::Display, path: &str, more: &str) -> String {
    format!(
        "
- job_name: '{name}'
  scrape_interval: 3s
  scrape_timeout: 3s
  metrics_path: '{path}'
  scheme: https
  tls_config: {{certs_dir: '{certs}', spiffe: {{}}}}
  static_configs: [{{targets: ['{target}'], labels: {{__spiffe_id__: '{CART}'}}}}]
{more}"
    )
}

fn attempted(targets: &[Value]) -> bool {
    let tried = |target: &Value| target["scrapesSucceeded"] != 0 || target["scrapesFailed"] != 0;
    !targets.is_empty() && targets.iter().all(tried)
}

/// What the receiver was given, by job: the value of `up`, and the names of series that no scraper writes itself.
fn delivered(receiver: &Receiver) -> BTreeMap<String, (Option<f64>, Vec<String>)> {
    let mut by_job: BTreeMap<String, (Option<f64>, Vec<String>)> = BTreeMap::new();
    for (labels, sample) in receiver.recorded().into_iter().flat_map(|request| request.samples) {
        let of_job = by_job.entry(labels.value("job").to_owned()).or_default();
        match labels.value("__name__") {
            "up" => of_job.0 = Some(sample.value),
            own if own.starts_with("scrape_") => {}
            foreign => of_job.1.push(foreign.to_owned()),
        }
    }
    by_job
}

async fn every_scenario_is_refused(mesh: Mesh) {
    let certs = mesh.certs.path().display().to_string();
    let receiver = Receiver::start(always(Answer::ok())).await;
    let stages: Vec<_> = SCENARIOS.iter().map(|scenario| (scenario, (scenario.stage)(&mesh))).collect();
    let good = Server::start(Talk::Tls(mesh.cart(), replying(Reply::ok("fine 1\n"))));
    let mut config = "scrape_configs:".to_owned();
    for (scenario, stage) in &stages {
        config.push_str(&job(scenario.name, &certs, &stage.address, stage.path, "  require_complete: true\n"));
    }
    config.push_str(&job("good", &certs, good.address(), "/metrics", ""));
    let _ =
        write!(config, "remote_write:\n- url: {}\n  queue_config: {{batch_send_deadline: 100ms}}\n", receiver.url());
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &config).await;
    let expected: BTreeMap<_, _> = stages.iter().map(|(scenario, _)| (scenario.name, scenario.reason.name())).collect();
    // A scrape may run out of time on a loaded machine; the next one tells.
    let as_expected = |target: &Value| match expected.get(target["scrapePool"].as_str().expect("a job")) {
        Some(reason) => target["reason"] == *reason,
        None => target["health"] == "up",
    };
    let targets = agent.until_all("every target is what it is", as_expected).await;

    for (scenario, _) in &stages {
        let target = targets.iter().find(|target| target["scrapePool"] == scenario.name).expect("listed");
        let (name, reason) = (scenario.name, scenario.reason.name());
        assert_eq!(target["reason"], reason, "{name}: {}", target["lastError"]);
        assert_eq!(target["health"], "down", "{name}");
        assert_eq!(target["expectedIdentity"], CART, "{name}");
        // Two cases have something to be looked at before.
        let first = match name {
            "another trust domain" | "a trust domain that begins alike" => {
                "if the trust domain that answered is another name of this mesh, add it to trust_domain_aliases of the job's \
                 tls_config.spiffe; else "
            }
            _ => "",
        };
        let hint = target["hint"].as_str().expect("a text");
        assert_eq!(hint, format!("{first}{}", scenario.reason.hint()), "{name}");
        let series = format!("meshscrape_scrape_failures_total{{job=\"{name}\",reason=\"{reason}\"}}");
        assert!(agent.metric(&series).await >= 1.0, "{series}");
    }
    assert_eq!(agent.stop().await.undelivered, 0);
    let mut delivered = delivered(&receiver);
    let (up, names) = delivered.remove("good").expect("the good target was scraped, too");
    assert_eq!(up, Some(1.0));
    assert!(!names.is_empty() && names.iter().all(|name| name == "fine"), "{names:?}");
    assert_eq!(delivered.len(), stages.len());
    for (job, seen) in delivered {
        assert_eq!(seen, (Some(0.0), Vec::new()), "{job}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_be_refused_over_tls_1_3() {
    every_scenario_is_refused(Mesh::new(ONLY_13).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_be_refused_over_tls_1_2() {
    every_scenario_is_refused(Mesh::new(ONLY_12).await).await;
}

/// The first beats come within milliseconds, while there is much to read: an identity for each job, with a hundred roots.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_scraped_before_the_certificates_have_been_read() {
    let mesh = Mesh::new(ONLY_13).await;
    mesh.certs.write_roots(&[&mesh.ca; 100]);
    let certs = mesh.certs.path().display().to_string();
    let mut config = "scrape_configs:".to_owned();
    for at in 0..30 {
        let job = job(&format!("j{at}"), &certs, "127.0.0.1:1", "/metrics", "").replace(": 3s", ": 5ms");
        config.push_str(&job.replace("spiffe: {}", &format!("spiffe: {{trust_domain_aliases: [another-{at}]}}")));
    }
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &config).await;
    agent.until("every target was tried", attempted).await;
    let metrics = agent.metrics().await;
    let failures = metrics.lines().filter(|line| line.starts_with("meshscrape_scrape_failures_total{"));
    let for_want_of_ours: Vec<_> = failures.filter(|line| line.contains("\"no_own_certificate\"")).collect();
    assert_eq!(for_want_of_ours, [""; 0]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_may_not_be_connected_is_listed_and_never_dialled() {
    let mesh = Mesh::new(ONLY_13).await;
    let certs = mesh.certs.path().display().to_string();
    let plain = Server::start(Talk::Plain(replying(Reply::ok(MARKER))));
    let secure = Server::start(Talk::Tls(mesh.cart(), replying(Reply::ok(MARKER))));
    let receiver = Receiver::start(always(Answer::ok())).await;
    let label_http = "  relabel_configs: [{target_label: __scheme__, replacement: http}]\n";
    let drop_scheme = "  relabel_configs: [{regex: __scheme__, action: labeldrop}]\n";
    let drop_id = "  relabel_configs: [{regex: __spiffe_id__, action: labeldrop}]\n";
    let bad_id = |id: &str| format!("  relabel_configs: [{{target_label: __spiffe_id__, replacement: '{id}'}}]\n");
    let rows = [
        ("a label says http", label_http.to_owned(), "plaintext_refused"),
        ("no scheme is left", drop_scheme.to_owned(), "plaintext_refused"),
        ("no expected identity", drop_id.to_owned(), "no_expected_identity"),
        ("scheme in capitals", bad_id("SPIFFE://cluster.local/ns/shop/sa/cart"), "no_expected_identity"),
        ("trust domain in capitals", bad_id("spiffe://Cluster.local/ns/shop/sa/cart"), "no_expected_identity"),
        ("a slash at the end", bad_id("spiffe://cluster.local/ns/shop/sa/cart/"), "no_expected_identity"),
    ];
    let mut config = "scrape_configs:".to_owned();
    for (name, more, _) in &rows {
        let target = if name.contains("http") { plain.address() } else { secure.address() };
        config.push_str(&job(name, &certs, target, "/metrics", more));
    }
    let _ =
        write!(config, "remote_write:\n- url: {}\n  queue_config: {{batch_send_deadline: 100ms}}\n", receiver.url());
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &config).await;
    let targets = agent.until("every target was tried", attempted).await;
    agent.stop().await;
    for (name, _, reason) in &rows {
        let target = targets.iter().find(|target| target["scrapePool"] == *name).expect("listed");
        assert_eq!(target["reason"], *reason, "{name}: {}", target["lastError"]);
        let hint = target["hint"].as_str().expect("a text");
        assert_eq!(hint.contains("takes __scheme__ away"), *name == "no scheme is left", "{name}: {hint}");
    }
    let delivered = delivered(&receiver);
    for (name, ..) in &rows {
        assert_eq!(delivered[*name], (Some(0.0), Vec::new()), "{name}");
    }
    assert_eq!((plain.connections(), secure.connections()), (0, 0), "nobody was dialled");
}
