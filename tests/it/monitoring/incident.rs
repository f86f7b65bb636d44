//! An agent to which much happens at once, so that nearly every alert has a cause and every metric a series.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use meshscrape::agent::{MeshListener, Options};
use meshscrape::identity::IdentitySettings;
use meshscrape::model::{Peer, SpiffeId};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::support::agent::{self, Running};
use crate::support::ca::{Ca, CertsDir, HOUR, LeafSpec};
use crate::support::http;
use crate::support::mesh::{CART, Mesh, ONLY_13, SCRAPER};
use crate::support::receiver::{self, Receiver};
use crate::support::tls_server::{Reply, Server, Talk, always, closed_port};

const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/search";

/// The alerts that have a cause there.
pub(super) const ALERTS: &[&str] = &[
    "MeshscrapeCertificateFilesBroken",
    "MeshscrapeCertificateNotRenewed",
    "MeshscrapeCertificateUntrusted",
    "MeshscrapeConfigReloadFailed",
    "MeshscrapeDiscoveryFailing",
    "MeshscrapeForgedSamples",
    "MeshscrapeHandshakeFailing",
    "MeshscrapeHistogramsDropped",
    "MeshscrapeIdentityMismatch",
    "MeshscrapeIdentityNotReady",
    "MeshscrapeJobFailing",
    "MeshscrapeMemoryBudget",
    "MeshscrapePartialMerge",
    "MeshscrapePeerUntrusted",
    "MeshscrapePlaintextTarget",
    "MeshscrapeRemoteWriteBehind",
    "MeshscrapeRemoteWriteRejected",
    "MeshscrapeRootExpiring",
    "MeshscrapeSamplesLost",
    "MeshscrapeSamplesWithoutTenant",
    "MeshscrapeSpoolDamaged",
    "MeshscrapeTargetUnidentified",
    "MeshscrapeTargetsDown",
    "MeshscrapeTargetsMalformed",
    "MeshscrapeTargetsOverLimit",
    "MeshscrapeUnverifiedTargets",
    "MeshscrapeWeakerMatch",
];

/// The agent, and all that it deals with.
pub(super) struct Incident {
    pub(super) agent: Running,
    mesh: Mesh,
    _servers: Vec<Server>,
    _receivers: [Receiver; 2],
    _nobody: TcpSocket,
    _dirs: [TempDir; 4],
}

impl Incident {
    pub(super) async fn start() -> Self {
        let mesh = Mesh::new(ONLY_13).await;
        let ended = Ca::valid("cluster.local", -2 * HOUR, -HOUR);
        mesh.certs.write_roots(&[&mesh.ca, &ended]);
        let honest = merged(&mesh);
        let impostor = tls(&mesh, &mesh.ca);
        let stranger = Server::start(Talk::Tls(mesh.tls(&mesh.other.leaf(CART)), always(Reply::ok("a 1\n"))));
        let closing = Server::start(Talk::CloseInHandshake);
        let plain = Server::start(Talk::Plain(always(Reply::ok("a 1\n"))));
        let forging = Server::start(Talk::Plain(always(Reply::ok("a 1\nup 1\n"))));
        let bounds = Server::start(Talk::Plain(always(Reply::ok(HISTOGRAM))));
        let large = Server::start(Talk::Plain(always(Reply::ok(&large()))));
        let (nobody, closed) = closed_port();
        let receiver = Receiver::start(receiver::always(receiver::Answer::ok())).await;
        let strict = Receiver::start(receiver::always(receiver::Answer::status(400))).await;
        let [dir, lagging, late, empty] = std::array::from_fn(|_| TempDir::new().expect("a directory"));
        // Our certificate is still that of the root before; or it and its root end soon; or there is none.
        CertsDir::at(lagging.path()).write(&mesh.ca.leaf(SCRAPER), &[&mesh.other]);
        let ending = Ca::valid("cluster.local", -9 * HOUR, HOUR);
        let old = LeafSpec::of(SCRAPER).valid(-9 * HOUR, HOUR);
        CertsDir::at(late.path()).write(&ending.issue(&old), &[&ending]);
        let malformed = "[{\"targets\": [\"x@y:1\"]}]";
        std::fs::write(dir.path().join("targets.json"), malformed).expect("a file of targets");
        damage(dir.path(), &forging, &format!("http://{closed}/api/v1/write")).await;
        let target =
            |server: &Server| format!("{{targets: ['{}'], labels: {{__spiffe_id__: '{CART}'}}}}", server.address());
        let config = format!(
            "
global: {{scrape_interval: 1s, scrape_timeout: 500ms, scrape_memory_limit: 8MiB}}
scrape_configs:
- job_name: mesh
  scheme: https
  tls_config: {{certs_dir: '{certs}', spiffe: {{}}}}
  static_configs: [{honest_one}, {impostor_one}, {stranger_one}, {closing_one}, {plain_one}, {{targets: ['nobody:1']}}]
- job_name: namespace
  scheme: https
  tls_config: {{certs_dir: '{certs}', spiffe: {{match: namespace}}}}
  static_configs: [{impostor_one}]
- job_name: lagging
  scheme: https
  tls_config: {{certs_dir: '{lagging}', spiffe: {{}}}}
  static_configs: [{stranger_one}]
- job_name: late
  scheme: https
  tls_config: {{certs_dir: '{late}', spiffe: {{}}}}
  static_configs: []
- job_name: empty
  scheme: https
  tls_config: {{certs_dir: '{empty}', spiffe: {{trust_domain: cluster.local}}}}
  static_configs: []
- job_name: plain
  static_configs: [{{targets: ['{forging}', '{closed}']}}]
- job_name: bounds
  convert_classic_histograms_to_nhcb: true
  static_configs: [{{targets: ['{bounds}']}}]
- job_name: large
  scrape_interval: 5s
  scrape_timeout: 5s
  static_configs: [{{targets: ['{large}']}}]
- job_name: crowded
  namespace_target_limit: 1
  static_configs: [{{targets: ['{bounds}', '{closed}'], labels: {{__meta_kubernetes_namespace: shop}}}}]
- job_name: files
  file_sd_configs: [{{files: ['{dir}/targets.json']}}]
- job_name: lists
  http_sd_configs: [{{url: 'http://{closed}/targets', refresh_interval: 1s}}]
- job_name: cluster
  kubernetes_sd_configs: [{{role: pod, api_server: 'http://{closed}'}}]
remote_write:
- {{name: central, url: '{url}', send_native_histograms: true}}
- {{name: strict, url: '{strict}'}}
- {{name: gone, url: 'http://{closed}/api/v1/write'}}
- {{name: hasty, url: 'http://{closed}/api/v1/write', queue_config: {{sample_age_limit: 1s}}}}
- {{name: shared, url: '{url}', tenant: {{template: '{{__tenant}}'}}}}
",
            certs = mesh.certs.path().display(),
            dir = dir.path().display(),
            lagging = lagging.path().display(),
            late = late.path().display(),
            empty = empty.path().display(),
            strict = strict.url(),
            honest_one = target(&honest),
            impostor_one = target(&impostor),
            stranger_one = target(&stranger),
            closing_one = target(&closing),
            plain_one = target(&plain),
            bounds = bounds.address(),
            large = large.address(),
            forging = forging.address(),
            url = receiver.url(),
        );
        let data_dir = dir.path().join("data");
        let identity = IdentitySettings { files: mesh.certs.files(), trust_domain: None, aliases: Vec::new() };
        let allowed = Peer::exactly(SpiffeId::parse(OTHER).expect("an ID"));
        let change = |options: Options| Options {
            data_dir: Some(data_dir),
            mesh: Some(MeshListener { listen: options.listen, identity, allowed }),
            ..options
        };
        let mut agent = agent::start_so(dir.path(), &config, change).await;
        http::get(agent.mesh(), "/metrics").await.expect_err("it speaks TLS only");
        agent.reload("nonsense: 1").await.expect_err("a configuration that cannot be used");
        let servers = vec![honest, impostor, stranger, closing, plain, bounds, large, forging];
        Self {
            agent,
            mesh,
            _servers: servers,
            _receivers: [receiver, strict],
            _nobody: nobody,
            _dirs: [dir, lagging, late, empty],
        }
    }

    /// Another agent in the same mesh, to which nothing happens.
    pub(super) async fn healthy_agent(&self) -> Healthy {
        let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
        let copy = CertsDir::at(certs.path());
        copy.write(&self.mesh.ca.leaf(SCRAPER), &[&self.mesh.ca]);
        let server = Server::start(Talk::Tls(self.mesh.cart(), always(Reply::ok("a 1\n"))));
        let receiver = Receiver::start(receiver::always(receiver::Answer::ok())).await;
        let config = format!(
            "
scrape_configs:
- job_name: mesh
  scheme: https
  scrape_interval: 5s
  scrape_timeout: 5s
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs: [{{targets: ['{}'], labels: {{__spiffe_id__: '{CART}'}}}}]
remote_write: [{{name: central, url: '{}'}}]
",
            copy.path().display(),
            server.address(),
            receiver.url(),
        );
        let agent = agent::start(dir.path(), &config).await;
        agent.until_all("it is up", |target| target["health"] == "up").await;
        Healthy { agent, _kept: (server, receiver, dir, certs) }
    }
}

/// An agent to which nothing happens.
pub(super) struct Healthy {
    pub(super) agent: Running,
    _kept: (Server, Receiver, TempDir, TempDir),
}

/// A histogram of which conversion makes one with bounds of its own.
const HISTOGRAM: &str = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n";

/// An answer that takes more memory than all scrapes together may.
fn large() -> String {
    (0..50_000).map(|number| format!("held{{number=\"{number}\"}} 1\n")).collect()
}

/// Leaves what an earlier agent has for the receiver `gone`, one bit of it turned over.
async fn damage(dir: &Path, target: &Server, url: &str) {
    let config = format!(
        "
scrape_configs:
- job_name: before
  scrape_interval: 200ms
  scrape_timeout: 200ms
  static_configs: [{{targets: ['{}']}}]
remote_write: [{{name: gone, url: '{url}'}}]
",
        target.address()
    );
    let data = dir.join("data");
    let data_dir = Some(data.clone());
    let change = |options: Options| Options { data_dir, flush_deadline: Duration::ZERO, ..options };
    let agent = agent::start_so(dir, &config, change).await;
    agent.until_all("some scrapes are made", |target| target["scrapesSucceeded"].as_u64() >= Some(8)).await;
    agent.stop().await;
    let queues = std::fs::read_dir(data.join("spool")).expect("queues");
    let files = queues.flat_map(|queue| std::fs::read_dir(queue.expect("a queue").path()).expect("its files"));
    let mut files = files.map(|file| file.expect("a file").path());
    let segment = files.find(|file| file.extension().is_some_and(|ending| ending == "log")).expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 8;
    std::fs::write(segment, bytes).expect("written");
}

/// The workload that must answer. Each of its merged answers tells that the one before lacked the application.
fn merged(mesh: &Mesh) -> Server {
    let asked = Arc::new(AtomicUsize::new(0));
    let script = move |_: &_| {
        let n = asked.fetch_add(1, Ordering::Relaxed) + 1;
        Reply::ok(&format!(
            "istio_agent_scrape_failures_total{{type=\"application\"}} {n}\nistio_agent_scrapes_total {n}\nenvoy_server_live{{}} 1\n"
        ))
    };
    Server::start(Talk::Tls(mesh.cart(), Arc::new(script)))
}

/// Another workload of the same namespace.
fn tls(mesh: &Mesh, ca: &Ca) -> Server {
    Server::start(Talk::Tls(mesh.tls(&ca.leaf(OTHER)), always(Reply::ok("a 1\n"))))
}
