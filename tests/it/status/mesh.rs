//! The listener for workloads of the mesh: it serves those that may come, over mTLS, and nobody else anything.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meshscrape::agent::{MeshListener, Options};
use meshscrape::identity::{IdentitySettings, crypto_provider};
use meshscrape::model::{Peer, SpiffeId};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::agent::{self, Running, eventually, instance};
use crate::support::ca::{Ca, CertsDir, Leaf, LeafSpec, Name, refused_leaves};
use crate::support::http::{self, Answer};
use crate::support::mesh::{CART, SCRAPER};

/// Who may ask.
const PROMETHEUS: &str = "spiffe://cluster.local/ns/monitoring/sa/prometheus";
/// A name that our certificate has besides, for clients that know nothing of SPIFFE.
const NAME: &str = "agent.example";

/// An agent with a mesh listener for [`PROMETHEUS`], and the CA of its mesh.
struct Stage {
    ca: Ca,
    certs: CertsDir,
    agent: Running,
    at: SocketAddr,
    _dir: TempDir,
}

fn ours(ca: &Ca) -> Leaf {
    ca.issue(&LeafSpec::named(vec![Name::uri(SCRAPER), Name::dns(NAME)]))
}

fn with_listener(certs: &CertsDir) -> impl FnOnce(Options) -> Options {
    let identity = IdentitySettings { files: certs.files(), trust_domain: None, aliases: Vec::new() };
    let allowed = Peer::any_of(vec![SpiffeId::parse(PROMETHEUS).expect("an ID")]).expect("one");
    move |options| Options { mesh: Some(MeshListener { listen: options.listen, identity, allowed }), ..options }
}

impl Stage {
    async fn new() -> Self {
        let (ca, dir) = (Ca::new("cluster.local"), TempDir::new().expect("a directory"));
        let certs = CertsDir::at(dir.path());
        certs.write(&ours(&ca), &[&ca]);
        let agent = agent::start_so(dir.path(), "scrape_configs: []\n", with_listener(&certs)).await;
        let at = agent.mesh();
        let stage = Self { ca, certs, agent, at, _dir: dir };
        eventually("the certificates are loaded", async || stage.ask(&stage.prometheus(), "/-/healthy").await.ok())
            .await;
        stage
    }

    fn prometheus(&self) -> Leaf {
        self.ca.leaf(PROMETHEUS)
    }

    async fn ask(&self, leaf: &Leaf, path: &str) -> Result<Answer, http::Error> {
        http::exchange(connect(self.at, &self.ca, Some(leaf)).await?, "GET", path, &[], "".into()).await
    }

    async fn refused(&self, reason: &str) -> f64 {
        self.agent.metric(&format!("meshscrape_mesh_listener_refused_total{{reason=\"{reason}\"}}")).await
    }
}

/// TLS with whoever listens there, if he has our [`NAME`] from this CA; with this certificate, or with none.
async fn connect(at: SocketAddr, ca: &Ca, leaf: Option<&Leaf>) -> Result<TlsStream<TcpStream>, http::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let config = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match leaf {
        Some(leaf) => config.with_client_cert_resolver(Arc::new(leaf.resolver())),
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from(NAME)?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_come_is_served_what_loopback_serves() {
    let stage = Stage::new().await;
    let leaf = stage.prometheus();
    for (path, says) in [
        ("/metrics", "meshscrape_build_info"),
        ("/-/ready", "ready"),
        ("/api/v1/targets", "activeTargets"),
        ("/api/v1/status/config", "yaml"),
    ] {
        let answer = stage.ask(&leaf, path).await.expect(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains(says), "{path}: {}", answer.text());
    }
    let stream = connect(stage.at, &stage.ca, Some(&leaf)).await.expect("let in");
    let page = http::exchange(stream, "GET", "/metrics", &[("origin", "https://evil.example")], "".into()).await;
    assert_eq!(page.expect("an answer").status, 403, "a browser acts for nobody");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_byte() {
    let stage = Stage::new().await;
    // What only forbids to be a server is no fault of a client.
    let table = refused_leaves(&stage.ca, PROMETHEUS).into_iter().filter(|(name, ..)| *name != "for clients only");
    for (name, leaf, reason) in table {
        let before = stage.refused(reason.name()).await;
        let answer = stage.ask(&leaf, "/metrics").await;
        assert!(answer.is_err(), "{name}: {answer:?}");
        eventually("the refusal is counted", async || (stage.refused(reason.name()).await > before).then_some(()))
            .await;
    }
    let only_server =
        LeafSpec { extended_key_usages: vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth], ..LeafSpec::of(PROMETHEUS) };
    for (name, leaf) in [
        ("for servers only", stage.ca.issue(&only_server)),
        ("another mesh", Ca::new("cluster.local").leaf(PROMETHEUS)),
        ("our own identity", stage.ca.leaf(SCRAPER)),
        ("a target", stage.ca.leaf(CART)),
    ] {
        assert!(stage.ask(&leaf, "/metrics").await.is_err(), "{name}");
    }
    let without =
        async { http::exchange(connect(stage.at, &stage.ca, None).await?, "GET", "/metrics", &[], "".into()).await };
    assert!(without.await.is_err(), "no certificate");
    assert!(http::get(stage.at, "/metrics").await.is_err(), "no TLS");
    assert_eq!(stage.ask(&stage.prometheus(), "/metrics").await.expect("still served").status, 200);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_does_not_outlive_the_roots_that_let_it_in() {
    let stage = Stage::new().await;
    let stream = connect(stage.at, &stage.ca, Some(&stage.prometheus())).await.expect("let in");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let request = || {
        let request = hyper::Request::get("/-/healthy").header("host", NAME);
        request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request")
    };
    // Kept busy, because an idle one ends by itself; for longer than that takes.
    let mut served = async |stage: &Stage| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _ = stage;
        sender.ready().await.is_ok() && sender.send_request(request()).await.is_ok_and(|answer| answer.status() == 200)
    };
    for _ in 0..30 {
        assert!(served(&stage).await, "nothing has changed");
    }
    // Withdrawn: what the old root signed counts no more, and ours is signed by the new one.
    let new = Ca::new("cluster.local");
    stage.certs.write(&ours(&new), &[&new]);
    let ended = async { while served(&stage).await {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("it is closed");
    connection.await.expect("no panic").ok();
    let old = stage.ask(&stage.prometheus(), "/metrics").await;
    assert!(old.is_err(), "{old:?}");
    let fresh = connect(stage.at, &new, Some(&new.leaf(PROMETHEUS))).await.expect("let in");
    let answer = http::exchange(fresh, "GET", "/-/healthy", &[], "".into()).await.expect("served");
    assert_eq!(answer.status, 200);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_certificate_that_let_it_in() {
    let stage = Stage::new().await;
    // Its clock is ours, so this one has five seconds left.
    let short = stage.ca.issue(&LeafSpec::of(PROMETHEUS).valid(-60, 5));
    let stream = connect(stage.at, &stage.ca, Some(&short)).await.expect("let in");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut answers = 0;
    let ended = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let request = hyper::Request::get("/-/healthy").header("host", NAME);
            let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).expect("a request");
            if sender.ready().await.is_err() || sender.send_request(request).await.is_err() {
                return;
            }
            answers += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it is closed");
    assert!(answers > 0);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_connects_keeps_nobody_out() {
    let stage = Stage::new().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(stage.at).await.expect("a connection"));
    }
    // All come from one address here, so that it is our own handshakes that have to wait; places are free all the same.
    eventually("served", async || stage.ask(&stage.prometheus(), "/metrics").await.ok()).await;
    assert!(stage.refused("timeout").await >= 200.0, "those over the few of one address are sent away at once");
    drop(silent);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_afar_nobody_ends_or_reloads_the_agent_and_no_reload_ends_the_listener() {
    let mut stage = Stage::new().await;
    let leaf = stage.prometheus();
    for path in ["/-/quit", "/-/reload"] {
        let stream = connect(stage.at, &stage.ca, Some(&leaf)).await.expect("let in");
        let answer = http::exchange(stream, "POST", path, &[("x-meshscrape", &path[3..])], "".into()).await;
        assert_eq!(answer.expect("an answer").status, 403, "{path}");
    }
    stage.agent.reload("global: {scrape_interval: 7s}\nscrape_configs: []\n").await.expect("a good file");
    assert_eq!(stage.ask(&leaf, "/metrics").await.expect("served").status, 200);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_scrapes_another_by_its_identity() {
    let stage = Stage::new().await;
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&stage.prometheus(), &[&stage.ca]);
    let config = |path: &Path| {
        format!(
            "
scrape_configs:
- job_name: agents
  scrape_interval: 200ms
  scrape_timeout: 200ms
  tls_config: {{certs_dir: {}, spiffe: {{}}}}
  static_configs: [{{targets: ['{}'], labels: {{__spiffe_id__: '{SCRAPER}'}}}}]
",
            path.display(),
            stage.at
        )
    };
    let scraper = agent::start(dir.path(), &config(certs.path())).await;
    let up = scraper.until("the agent is up", |targets| targets.iter().any(|target| target["health"] == "up")).await;
    assert_eq!((up[0]["presentedIdentity"].as_str(), instance(&up[0])), (Some(SCRAPER), stage.at.to_string()));
    scraper.stop().await;
    stage.agent.stop().await;
}
