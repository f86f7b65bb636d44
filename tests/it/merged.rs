//! Merged answers that lack a part: the target stays up, and what is missing is told wherever people look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;

use crate::support::agent;
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::tls_server::{Reply, Server, Talk};

/// What Istio's agent answers for the n-th time, when the application has failed so often before.
fn answer(n: usize, failures: usize) -> Reply {
    let failed = match failures {
        0 => String::new(),
        n => format!("istio_agent_scrape_failures_total{{type=\"application\"}} {n}\n"),
    };
    Reply::ok(&format!("istio_agent_go_goroutines 9\n{failed}istio_agent_scrapes_total {n}\nenvoy_server_live{{}} 1\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_application_is_missing_is_up_and_says_so() {
    let mesh = Mesh::new(ONLY_13).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    // The answers from the second on lack the application, as the next one says each time, until that has been seen; then all is
    // well again.
    let (seen, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (is_seen, failed) = (Arc::clone(&seen), Arc::clone(&failures));
    let script = move |_: &_| {
        let n = count.fetch_add(1, Ordering::Relaxed) + 1;
        if n > 2 && !is_seen.load(Ordering::Relaxed) {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        answer(n, failed.load(Ordering::Relaxed))
    };
    let server = Server::start(Talk::Tls(mesh.cart(), Arc::new(script)));
    let dir = TempDir::new().expect("a directory");
    let config = format!(
        "
scrape_configs:
- job_name: mesh
  scrape_interval: 2s
  scrape_timeout: 2s
  scheme: https
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs: [{{targets: ['{}'], labels: {{__spiffe_id__: '{CART}'}}}}]
",
        mesh.certs.path().display(),
        server.address(),
    );
    let agent = agent::start(dir.path(), &config).await;
    let lacking = agent.until_all("it says so", |target| target["reason"] == "partial_merge").await;
    seen.store(true, Ordering::Relaxed);
    assert_eq!(lacking[0]["health"], "up");
    assert_eq!(lacking[0]["lastError"], "");
    assert_eq!(
        lacking[0]["lack"],
        "since the scrape before, the agent gave 1 merged answers, 1 without the part of the application"
    );
    assert!(lacking[0]["hint"].as_str().is_some_and(|hint| hint.contains("prometheus.io")), "{lacking:#?}");
    let well = agent.until_all("all is well again", |target| target["reason"] == "").await;
    assert_eq!((&well[0]["health"], &well[0]["lack"]), (&"up".into(), &"".into()));
    let counted = "meshscrape_partial_merges_total{job=\"mesh\",part=\"application\"}";
    assert_eq!(agent.metric(counted).await, failures.load(Ordering::Relaxed) as f64, "{}", agent.metrics().await);
    assert!(!agent.metrics().await.contains("meshscrape_scrape_failures_total{"));
    agent.stop().await;
}
