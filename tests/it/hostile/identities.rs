//! A peer that shows another identity in every handshake: each is refused, and none of them leaves a trace that stays. The
//! series of `/metrics` and the targets of the API are as many after ten thousand (with `MESHSCRAPE_SOAK=1`, else five hundred)
//! as after a few.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde_json::Value;

use crate::support::agent::{self, Running, eventually};
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::scale;
use crate::support::tls_server::{Reply, Server, Talk, always};

const TARGETS: usize = 20;

/// Shows a leaf of its own in each handshake.
struct Forger {
    mesh: Arc<Mesh>,
    shown: Arc<AtomicUsize>,
}

impl fmt::Debug for Forger {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Forger")
    }
}

impl ResolvesServerCert for Forger {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let number = self.shown.fetch_add(1, Ordering::SeqCst);
        let leaf = self.mesh.ca.leaf(&format!("spiffe://cluster.local/ns/forged/sa/number-{number}"));
        leaf.resolver().resolve(hello)
    }
}

/// The names and labels of all own series, but for those of scrapes that ran out of their short time, as they may on a
/// machine that has much else to do.
async fn series(agent: &Running) -> BTreeSet<String> {
    let text = agent.metrics().await;
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.contains("reason=\"timeout\""))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.into()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_identities_leave_no_series_behind() {
    let mesh = Arc::new(Mesh::new(ONLY_13).await);
    let shown = Arc::<AtomicUsize>::default();
    let mut tls = rustls::ServerConfig::clone(&mesh.cart());
    tls.cert_resolver = Arc::new(Forger { mesh: Arc::clone(&mesh), shown: Arc::clone(&shown) });
    let server = Server::start(Talk::Tls(Arc::new(tls), always(Reply::ok("forged 1\n"))));
    let mut text = format!(
        "scrape_configs:
- job_name: forged
  scrape_interval: 100ms
  scrape_timeout: 100ms
  scheme: https
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs:
",
        mesh.certs.path().display()
    );
    for number in 0..TARGETS {
        let address = server.address();
        text.push_str(&format!(
            "  - {{targets: ['{address}'], labels: {{__spiffe_id__: '{CART}', number: '{number}'}}}}\n"
        ));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let agent = agent::start(dir.path(), &text).await;
    // Twice, because the time between two scrapes is a series of its own.
    let refused =
        |target: &Value| target["reason"] == "identity_mismatch" && target["scrapesFailed"].as_u64() >= Some(2);
    agent.until_all("each was refused twice", refused).await;
    let (few, before) = (shown.load(Ordering::SeqCst), series(&agent).await);

    let many = few + scale(500, 10_000);
    eventually("many more were shown", async || (shown.load(Ordering::SeqCst) >= many).then_some(())).await;
    let after = series(&agent).await;
    assert_eq!(after, before);
    assert!(!after.iter().any(|series| series.contains("number-")), "{after:?}");
    let targets = agent.targets().await;
    assert_eq!(targets.len(), TARGETS);
    assert!(targets.iter().all(|target| target["scrapesSucceeded"] == 0), "{targets:?}");
    assert_eq!(server.requests().len(), 0, "nobody was asked for anything");
    agent.stop().await;
}
