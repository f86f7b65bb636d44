//! An agent with everything that there is to show: good targets, bad ones for several reasons, thousands of them, what is no
//! target, and receivers that take, refuse and are away.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::support::agent::{self, Running, eventually};
use crate::support::ca::Ca;
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::http::{self, Answer};
use crate::support::mesh::{CART, Mesh, ONLY_13, SCRAPER};
use crate::support::receiver::{self, Receiver, always, confirming};
use crate::support::tls_server::{Reply, Server, Talk, closed_port};

const PAYMENTS: &str = "spiffe://cluster.local/ns/shop/sa/payments";
/// Why those of the small jobs are down that are.
pub(super) const REASONS: [&str; 5] =
    ["identity_mismatch", "unknown_authority", "plaintext_server", "connect_refused", "no_expected_identity"];
/// What must be nowhere.
pub(super) const CANARY: &str = "canary-in-a-cage";
/// What a tenant, or a receiver, would like to be part of the page.
pub(super) const HOSTILE: &str = "<img src=x onerror=document.title='owned'>\u{202e}\u{1b}[31m";

/// The agent and all that it speaks to.
pub(super) struct Stage {
    pub(super) agent: Running,
    pub(super) mesh: Mesh,
    _envoy: Envoy,
    _servers: Vec<Server>,
    _receivers: Vec<Receiver>,
    _closed: TcpSocket,
    _dir: TempDir,
}

impl Stage {
    /// With all of it, and so many targets in its large job.
    pub(super) async fn with(many: usize) -> Self {
        let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
        let envoy = envoy(&mesh).await;
        let exposition = "# TYPE beans counter\nbeans_total 3\n";
        let tls =
            |leaf| Server::start(Talk::Tls(mesh.tls(&leaf), crate::support::tls_server::always(Reply::ok(exposition))));
        let impostor = tls(mesh.ca.leaf("spiffe://cluster.local/ns/sandbox/sa/default"));
        let stranger = tls(Ca::new("cluster.local").leaf(PAYMENTS));
        let plain = Server::start(Talk::Plain(crate::support::tls_server::always(Reply::ok(exposition))));
        let (socket, closed) = closed_port();
        let receivers = [
            Receiver::start(confirming()).await,
            Receiver::start(always(receiver::Answer::status(400).saying(format!("out of order: {HOSTILE}")))).await,
        ];

        let shop = |target: String, id: &str, pod: &str| {
            json!({"targets": [target], "labels": {
                "__spiffe_id__": id, "__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_name": pod, "namespace": "shop", "pod": pod}})
        };
        let targets = json!([
            shop(envoy.address("cart").to_string(), CART, "cart-5d9f7c6b8-x2x7p"),
            shop(envoy.address("web").to_string(), CART, "web-7b8c9d-klm42"),
            shop(impostor.address().to_string(), PAYMENTS, "payments-66bd7f-q8rtz"),
            shop(stranger.address().to_string(), PAYMENTS, "ledger-0"),
            shop(plain.address().to_string(), PAYMENTS, "legacy-0"),
            shop(closed.to_string(), CART, "checkout-6f5d-abcde"),
            shop("127.0.0.1:3".to_owned(), "", HOSTILE),
            shop("127.0.0.1:4".to_owned(), CART, "batch-28401-done"),
            shop("x@evil.example:443".to_owned(), CART, "evil-1"),
        ]);
        std::fs::write(dir.path().join("shop.json"), targets.to_string()).expect("a file");
        let large: Vec<_> = (1..=many)
            .map(|number| json!({"targets": [format!("127.0.0.1:{number}")], "labels": {"__spiffe_id__": CART, "pod": format!("pod-{number:04}")}}))
            .collect();
        std::fs::write(dir.path().join("many.json"), json!(large).to_string()).expect("a file");

        let config = format!(
            "
global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
- job_name: shop
  scheme: https
  metrics_path: /stats/prometheus
  tls_config: {{certs_dir: {certs}, spiffe: {{}}}}
  file_sd_configs: [{{files: [{dir}/shop.json]}}]
  relabel_configs:
  - {{source_labels: [pod], regex: '.*-done', action: drop}}
  - {{source_labels: [pod], regex: '(.*?)-.*', target_label: app}}
- job_name: many
  scheme: https
  scrape_interval: 1h
  tls_config: {{certs_dir: {certs}, spiffe: {{}}}}
  file_sd_configs: [{{files: [{dir}/many.json]}}]
- job_name: few
  keep_dropped_targets: 1
  static_configs: [{{targets: ['127.0.0.1:5', '127.0.0.1:6', '127.0.0.1:7']}}]
  relabel_configs: [{{action: drop, source_labels: [__address__], regex: '127.*'}}]
- job_name: list
  http_sd_configs: [{{url: 'http://me:{CANARY}@{closed}/targets?token={CANARY}'}}]
- job_name: plain
  scheme: http
  static_configs: [{{targets: ['{plain}']}}]
  basic_auth: {{username: me, password: {CANARY}}}
remote_write:
- {{name: mimir, url: '{good}?token={CANARY}', protobuf_message: io.prometheus.write.v2.Request}}
- {{name: strict, url: '{strict}'}}
- {{name: away, url: 'http://{closed}/api/v1/write', basic_auth: {{username: me, password: {CANARY}}}}}
",
            certs = mesh.certs.path().display(),
            dir = dir.path().display(),
            plain = plain.address(),
            good = receivers[0].url(),
            strict = receivers[1].url(),
        );
        let agent = agent::start_so(dir.path(), &config, |options| agent::Options {
            flush_deadline: Duration::ZERO,
            data_dir: Some(dir.path().join("data")),
            flags: vec![
                ("config".to_owned(), "meshscrape.yaml".to_owned()),
                ("listen".to_owned(), "[::]:9464".to_owned()),
            ],
            ..options
        })
        .await;
        let stage = Self {
            agent,
            mesh,
            _envoy: envoy,
            _servers: vec![impostor, stranger, plain],
            _receivers: receivers.into(),
            _closed: socket,
            _dir: dir,
        };
        stage.settled(many + 8).await;
        stage
    }

    /// Waits until every target of the small jobs was scraped and is up or down as it should be, and every receiver has
    /// answered or not.
    async fn settled(&self, all: usize) {
        let small = |target: &serde_json::Value| target["scrapePool"] != "many";
        self.agent
            .until("all targets have been scraped twice, and show what they should", |targets| {
                let of = |reason: &str| targets.iter().any(|target| small(target) && target["reason"] == reason);
                targets.len() == all
                    && REASONS.into_iter().all(of)
                    && targets.iter().filter(|target| small(target)).all(|target| {
                        let count = |name: &str| target[name].as_u64().unwrap_or_default();
                        let scraped = count("scrapesSucceeded") + count("scrapesFailed") >= 2;
                        let shown =
                            target["health"] == "up" || REASONS.iter().any(|reason| target["reason"] == *reason);
                        shown && (scraped || target["reason"] == "no_expected_identity")
                    })
            })
            .await;
        eventually("the receivers have answered", async || {
            let page = self.get("/remote-write").await;
            let text = page.text();
            (text.contains("takes samples") && text.contains("takes nothing") && text.contains("out of order"))
                .then_some(())
        })
        .await;
    }

    /// A view.
    pub(super) async fn get(&self, path: &str) -> Answer {
        get(&self.agent, path).await
    }
}

/// A view of any agent.
pub(super) async fn get(agent: &Running, path: &str) -> Answer {
    http::get(agent.api(), path).await.expect("the page answers")
}

/// Two pods in one process.
pub(super) async fn envoy(mesh: &Mesh) -> Envoy {
    let leaf = mesh.ca.leaf(CART);
    let listeners = ["cart", "web"].map(|name| ListenerSpec::stats(name, &leaf, &[&mesh.ca]));
    Envoy::start(&listeners).await
}

/// Has our certificate renewed.
pub(super) fn renew(mesh: &Mesh) {
    mesh.certs.write(&mesh.ca.leaf(SCRAPER), &[&mesh.ca]);
}
