//! A real Kubernetes API server on a real etcd, and nothing else of a cluster: no kubelet, no scheduler, no controller. What
//! those would write (statuses, endpoints, the end of a terminating pod) the tests write themselves.
//!
//! Each cluster has a loopback address that nobody else on the machine uses, so that its API server can come back on the same
//! port. Starting one takes seconds: tests that only need objects share one ([`Cluster::shared`]), each with namespaces
//! and node names of its own; those that kill it start theirs ([`Cluster::start`]). A client lives on the runtime of the
//! test that asked for it.

mod audit;
mod manifest;
mod namespace;
mod proxy;
mod rights;
mod watch;

pub(crate) use audit::Asked;
pub(crate) use manifest::{PodManifest, node, pod, with};
pub(crate) use namespace::{Namespace, create, set_status};
pub(crate) use proxy::Proxy;
pub(crate) use rights::READ;
pub(crate) use watch::Watch;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Node;
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::ca::{Ca, HOUR, Leaf, LeafSpec, Name};
use super::http;
use super::process::Process;
use super::usage::Usage;

/// Where the API server listens on its cluster's address.
const PORT: u16 = 26443;

/// Only what tests ask is written down, not what the server asks itself.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
    - {level: None, users: ['system:apiserver']}\n\
    - {level: Metadata}\n";

/// A running cluster.
pub(crate) struct Cluster {
    address: Ipv4Addr,
    flags: Vec<String>,
    admin_token: String,
    ca: Ca,
    /// None while it is killed.
    server: Option<Process>,
    /// Its directory also holds the files of the server, which outlive a server that is killed.
    etcd: Process,
}

impl Cluster {
    /// The cluster of all tests that neither kill it nor change what is everybody's.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A cluster of its own.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A cluster of its own whose API server has these flags besides the usual ones.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let address = Ipv4Addr::from(0x7f80_0000 | rand::random_range(1..0x7f_ffff)); // 127.128.0.0/9
        let admin_token = format!("{:032x}", rand::random::<u128>());
        let dir = TempDir::new().expect("a directory");
        let ca = Ca::new("kubernetes");
        write_files(dir.path(), &ca, address, &admin_token);
        let (clients, peers) = (etcd_url(address, 2379), etcd_url(address, 2380));
        let etcd_flags = [
            "--data-dir=data".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
        ];
        let etcd = Process::start("etcd", dir, &etcd_flags);
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let mut cluster = Self { address, flags, admin_token, ca, server: None, etcd };
        cluster.restart().await;
        cluster
    }

    /// The URL of the API server.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.server_address())
    }

    /// The file with the CA that vouches for the API server.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.etcd.dir().join("ca.pem")
    }

    /// A certificate by that CA, as an approved request of a kubelet gets one.
    pub(crate) fn issue(&self, spec: &LeafSpec) -> Leaf {
        self.ca.issue(spec)
    }

    /// A client that may do everything.
    pub(crate) fn admin(&self) -> Client {
        self.client(&self.url(), &self.admin_token)
    }

    /// The token of a user who may do everything.
    pub(crate) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A client of the API server at `url`, which may be that of a [`Proxy`], with this token.
    pub(crate) fn client(&self, url: &str, token: &str) -> Client {
        let mut config = Config::new(url.parse().expect("a URL"));
        config.root_cert_file = Some(self.ca_file());
        config.auth_info.token = Some(token.to_owned().into());
        Client::try_from(config).expect("a client")
    }

    /// Writes a kubeconfig for the API server at `url`, which may be that of a [`Proxy`], with this token.
    pub(crate) fn kubeconfig(&self, file: &Path, url: &str, token: &str) {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": self.ca_file()}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        std::fs::write(file, config.to_string()).expect("a kubeconfig"); // JSON is YAML
    }

    /// Kills the API server; what it stored stays in etcd.
    pub(crate) fn kill(&mut self) {
        assert!(self.server.take().is_some(), "it is killed already");
    }

    /// Starts the API server again, at the same address, and waits until it is ready.
    pub(crate) async fn restart(&mut self) {
        assert!(self.server.is_none(), "it still runs");
        let own_dir = TempDir::new().expect("a directory");
        let mut server = Process::start("kube-apiserver", own_dir, &self.server_flags());
        // It looks at the CA file on the way, so each attempt is a client of its own.
        server.until("/readyz is ok", async || get(&self.admin(), "/readyz").await.ok()).await;
        self.server = Some(server);
    }

    /// From now on the API server neither answers nor closes a connection.
    pub(crate) async fn stop_responding(&mut self) {
        self.signal("STOP").await;
    }

    /// It goes on.
    pub(crate) async fn resume(&mut self) {
        self.signal("CONT").await;
    }

    /// Makes every resourceVersion from before expire, for watches and for the continuation of lists (410): compacts etcd and
    /// starts the API server anew, which remembers the recent past beside etcd.
    pub(crate) async fn forget_history(&mut self) {
        self.compact().await;
        self.kill();
        self.restart().await;
    }

    /// Makes etcd forget what was before its present revision.
    pub(crate) async fn compact(&self) {
        let header = self.ask_etcd("/v3/kv/range", json!({"key": "AA=="})).await;
        let revision = header["header"]["revision"].as_str().expect("a revision as text").to_owned();
        self.ask_etcd("/v3/kv/compaction", json!({"revision": revision, "physical": true})).await;
    }

    /// Creates a namespace, which must be new.
    pub(crate) async fn namespace(&self, name: &str) -> Namespace {
        Namespace::create(self.admin(), json!({"metadata": {"name": name}})).await
    }

    /// Creates a namespace whose name begins with `stem` and that no other test has.
    pub(crate) async fn own_namespace(&self, stem: &str) -> Namespace {
        Namespace::create(self.admin(), json!({"metadata": {"generateName": format!("{stem}-")}})).await
    }

    /// Creates a node and writes its status, if [`node`] has been told of one.
    pub(crate) async fn node(&self, manifest: Value) -> Node {
        create(&kube::Api::all(self.admin()), manifest).await
    }

    /// Puts something between clients and the API server that a test can cut.
    pub(crate) async fn proxy(&self) -> Proxy {
        Proxy::start(self.address, self.server_address()).await
    }

    /// Every request so far that came from outside, in the order of arrival.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        audit::read(&self.etcd.dir().join("audit.log"))
    }

    /// What the API server has used so far, without etcd.
    pub(crate) async fn server_usage(&mut self) -> Usage {
        self.server.as_mut().expect("it runs").usage().await
    }

    fn server_address(&self) -> SocketAddr {
        SocketAddr::from((self.address, PORT))
    }

    fn server_flags(&self) -> Vec<String> {
        let file = |name: &str| self.etcd.dir().join(name).display().to_string();
        let mut flags = vec![
            format!("--bind-address={}", self.address),
            format!("--secure-port={PORT}"),
            format!("--etcd-servers={}", etcd_url(self.address, 2379)),
            format!("--tls-cert-file={}", file("server.pem")),
            format!("--tls-private-key-file={}", file("server-key.pem")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts-key.pem")),
            format!("--service-account-signing-key-file={}", file("accounts-key.pem")),
            "--authorization-mode=RBAC".to_owned(),
            // Nobody makes the accounts' tokens here that it would mount into pods.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
        ];
        flags.extend(self.flags.iter().cloned());
        flags
    }

    async fn signal(&mut self, name: &str) {
        self.server.as_mut().expect("it runs").signal(name).await;
    }

    async fn ask_etcd(&self, path: &str, question: Value) -> Value {
        let etcd = SocketAddr::from((self.address, 2379));
        let answer = http::post(etcd, path, &[], question.to_string()).await.expect("etcd answers");
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.json()
    }
}

/// The body that the API server answers with for a path.
pub(crate) async fn get(client: &Client, path: &str) -> kube::Result<String> {
    client.request_text(::http::Request::get(path).body(Vec::new()).expect("a request")).await
}

fn etcd_url(address: Ipv4Addr, port: u16) -> String {
    format!("http://{address}:{port}")
}

/// Certificates, keys, the one user who may do everything, and what is written down.
fn write_files(dir: &Path, ca: &Ca, address: Ipv4Addr, admin_token: &str) {
    let server = ca.issue(&LeafSpec::named(vec![Name::Ip(IpAddr::V4(address))]).valid(-HOUR, 9 * HOUR));
    // The API server wants the key in its traditional form, and without the certificate only RSA's is whole.
    let accounts = ca.issue(&LeafSpec { algorithm: &rcgen::PKCS_RSA_SHA256, ..LeafSpec::nameless() });
    let tokens = format!("{admin_token},admin,admin,system:masters\n");
    let files = [
        ("ca.pem", ca.pem()),
        ("server.pem", server.chain_pem()),
        ("server-key.pem", server.key_pem()),
        ("accounts-key.pem", accounts.traditional_key_pem()),
        ("tokens.csv", tokens),
        ("audit-policy.yaml", AUDIT_POLICY.to_owned()),
    ];
    for (name, text) in files {
        std::fs::write(dir.join(name), text).expect("a file");
    }
}
