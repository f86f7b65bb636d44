//! Istio's complete sample: all of its jobs in one configuration, on one API server, as ours and as a real Prometheus'.
//!
//! What must hold: `check config` has warnings only; the targets of every job are Prometheus' but for those listed here; and
//! where the sample skips verification, whom Prometheus takes for a pod or a kubelet is refused by us before a byte of
//! a secret has reached it.

mod objects;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::objects::meshed;
use crate::support::agent::{self, Running};
use crate::support::ca::{Ca, Leaf, LeafSpec, Name};
use crate::support::kubernetes::{Cluster, Namespace, READ};
use crate::support::mesh::{Mesh, ONLY_13};
use crate::support::program::Program;
use crate::support::prometheus::Prometheus;
use crate::support::stored::{LabelMap, labels_from_json};
use crate::support::tls_server::{Asked, Reply, Server, Talk, always};
use crate::support::{http, loopback};

const SAMPLE: &str = include_str!("../../fixtures/config/istio_sample_complete.warned.yaml");
/// Its warnings, one a line, as the chapter on configurations has them.
const WARNINGS: &str = include_str!("../../fixtures/config/istio_sample_complete.expected");

const MERGED: &str = "istio-secure-merged-metrics";
const ENVOY: &str = "istio-secure-envoy-metrics";

/// The annotations of the pods that are targets of Prometheus' alone, in [`MERGED`]. Ours are dropped with an error that names
/// the pod. All other differences are none: a pod with several container ports is one target of these jobs on both sides.
const ONLY_PROMETHEUS: [&str; 3] = [
    // It leads elsewhere, and the identity was computed for the pod.
    "x@192.0.2.66:443",
    // These are no ports, which Prometheus finds out when it dials.
    "15092abc",
    "70000",
];

/// How many targets each job has on Prometheus' side. Jobs that find nobody would agree about anything.
const EXPECTED: &[(&str, usize)] = &[
    (MERGED, 6),
    (ENVOY, 1),
    ("kubernetes-api-servers", 1),
    ("kubernetes-nodes", 3),
    ("kubernetes-nodes-cadvisor", 3),
    ("kubernetes-pods", 5),
    ("kubernetes-pods-slow", 1),
    ("kubernetes-service-endpoints", 7),
    ("kubernetes-service-endpoints-slow", 4),
    ("kubernetes-services", 2),
    ("prometheus", 1),
    ("prometheus-pushgateway", 2),
];

/// How long anything may take on a loaded machine. Prometheus alone hands on what changed within ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the two sides look for pods of a mesh, kubelets and the API server.
struct Stage {
    cluster: Cluster,
    shop: Namespace,
    mesh: Mesh,
    /// As a pod's service account has it: `token` and `ca.crt`.
    account: TempDir,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let shop = cluster.namespace("shop").await;
        let home = cluster.namespace("monitoring").await;
        let account = home.account("scraper").await;
        let resources = ["pods", "nodes", "services", "endpoints"];
        cluster.allow(&account, json!([{"apiGroups": [""], "resources": resources, "verbs": READ}])).await;
        let token = home.token(&account).await;
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("token"), &token).expect("a token");
        std::fs::copy(cluster.ca_file(), dir.path().join("ca.crt")).expect("the roots");
        Self { cluster, shop, mesh: Mesh::new(ONLY_13).await, account: dir, token }
    }

    /// The sample, with the addresses and files of this place, and seconds instead of minutes.
    fn config(&self) -> String {
        let (own, certs) = (self.account.path().display(), self.mesh.certs.path().display());
        let access = format!(
            "{{api_server: '{}', authorization: {{credentials_file: '{own}/token'}}, \
             tls_config: {{ca_file: '{own}/ca.crt'}}, role:",
            self.cluster.url()
        );
        let mut text = SAMPLE.to_owned();
        for (there, here) in [
            ("{role:", access.as_str()),
            ("/var/run/secrets/kubernetes.io/serviceaccount/", &format!("{own}/")),
            ("/etc/istio-certs/", &format!("{certs}/")),
            ("scrape_interval: 15s, scrape_timeout: 10s", "scrape_interval: 5s, scrape_timeout: 5s"),
        ] {
            assert!(text.contains(there), "the sample has no {there}");
            text = text.replace(there, here);
        }
        text
    }

    /// The same with the one key that only this place needs: its pods are on loopback, where no pod really is.
    fn our_config(&self) -> String {
        let mut text = self.config();
        for job in [MERGED, ENVOY] {
            let head = format!("- job_name: {job}\n");
            assert!(text.contains(&head), "the sample has no {head}");
            text = text.replace(&head, &format!("{head}    pod_cidrs: [127.64.0.0/10]\n"));
        }
        text
    }

    /// The identity of an account of the shop.
    fn id(&self, account: &str) -> String {
        format!("spiffe://cluster.local/ns/shop/sa/{account}")
    }

    /// A secure metrics port that shows the certificate of this account.
    fn secure_port(&self, ip: Ipv4Addr, port: u16, account: &str) -> Server {
        let tls = self.mesh.tls(&self.mesh.ca.leaf(&self.id(account)));
        Server::start_at((ip, port).into(), Talk::Tls(tls, always(Reply::ok("beans_total 3\n"))))
    }

    /// A node whose kubelet shows the certificate that `issue` makes for its address.
    async fn kubelet(&self, node: &str, issue: impl FnOnce(Ipv4Addr) -> Leaf) -> Server {
        let ip = loopback();
        objects::kubelet(&self.cluster, node, ip).await;
        let tls = issue(ip).open_server();
        Server::start_at((ip, 10250).into(), Talk::Tls(tls, always(Reply::ok("beans_total 3\n"))))
    }

    /// Those who asked this server with our token, and for which path.
    fn with_token(&self, server: &Server, agent: &str) -> Vec<String> {
        let bearer = format!("Bearer {}", self.token);
        let theirs = |asked: &Asked| asked.header("user-agent").is_some_and(|name| name.starts_with(agent));
        let requests = server.requests().into_iter().filter(theirs);
        let mut paths: Vec<String> = requests
            .filter(|asked| asked.header("authorization") == Some(&bearer))
            .map(|asked| asked.path().to_owned())
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

fn named(ip: Ipv4Addr) -> LeafSpec {
    LeafSpec::named(vec![Name::Ip(IpAddr::V4(ip))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istios_sample_finds_what_prometheus_finds_and_believes_less() {
    let stage = Stage::new().await;
    let (cart_ip, impostor_ip, finished_ip) = (loopback(), loopback(), loopback());
    let cart = [(15092, "cart"), (15091, "cart")].map(|(port, account)| stage.secure_port(cart_ip, port, account));
    let impostor = stage.secure_port(impostor_ip, 15092, "cart");
    let finished = stage.secure_port(finished_ip, 15092, "job");
    let approved = stage.kubelet("n1", |ip| stage.cluster.issue(&named(ip))).await;
    let self_signed = stage.kubelet("n2", |ip| Ca::new("n2-ca").issue(&named(ip))).await;
    let elsewhere = stage.kubelet("n3", |_| stage.cluster.issue(&named(Ipv4Addr::new(10, 0, 0, 3)))).await;
    let envoy = ("prometheus.istio.io/secure-envoy-port", "15091");
    stage
        .shop
        .create_pods([
            meshed("cart", "cart", "15092", cart_ip).annotation(envoy.0, envoy.1),
            meshed("web", "web", "15092", impostor_ip),
            meshed("job", "job", "15092", finished_ip).with(json!({"status": {"phase": "Succeeded"}})),
        ])
        .await;
    let misled = |port: &str| meshed(&format!("misled-{:08x}", rand::random::<u32>()), "web", port, loopback());
    stage.shop.create_pods(ONLY_PROMETHEUS.map(misled)).await;
    objects::annotated(&stage.cluster, &stage.shop).await;

    passes_with_warnings(&stage).await;
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &stage.our_config()).await;

    for (job, server) in [(MERGED, &cart[0]), (ENVOY, &cart[1])] {
        let target = settled(&agent, job, cart_ip, UP).await;
        assert_eq!(target["expectedIdentity"], stage.id("cart"));
        assert!(server.requests().iter().all(|asked| asked.path() == "/stats/prometheus"));
    }
    let target = settled(&agent, MERGED, impostor_ip, ("reason", "identity_mismatch")).await;
    assert_eq!(target["expectedIdentity"], stage.id("web"));
    assert_eq!(target["presentedIdentity"], stage.id("cart"));
    assert!(impostor.connections() > 0 && impostor.handshakes() == 0 && impostor.requests().is_empty());
    let target = settled(&agent, MERGED, finished_ip, ("reason", "no_expected_identity")).await;
    assert_eq!(finished.connections(), 0, "{target:#}");

    for (job, path) in [("kubernetes-nodes", "/metrics"), ("kubernetes-nodes-cadvisor", "/metrics/cadvisor")] {
        settled(&agent, job, ip_of(&approved), UP).await;
        assert!(stage.with_token(&approved, "meshscrape/").contains(&path.to_owned()));
        let target = settled(&agent, job, ip_of(&self_signed), ("reason", "unknown_authority")).await;
        let hint = target["hint"].as_str().expect("a hint");
        assert!(hint.contains("ca_file must name the CA") && hint.contains("serverTLSBootstrap"), "{hint}");
        settled(&agent, job, ip_of(&elsewhere), ("reason", "host_name_mismatch")).await;
    }
    for server in [&self_signed, &elsewhere] {
        // The token goes with a request, and no request goes before the handshake is over.
        assert!(server.connections() > 0 && server.handshakes() == 0 && server.requests().is_empty());
    }

    let prometheus = Prometheus::with_config(&stage.config()).await;
    agreed(prometheus.address(), &agent).await;
    // Those whom we refused have got what they wanted from Prometheus, so they were there to be refused.
    let both = ["/metrics", "/metrics/cadvisor"];
    for server in [&self_signed, &elsewhere] {
        until("Prometheus hands out its token", async || match stage.with_token(server, "Prometheus/") {
            paths if paths == both => Ok(()),
            paths => Err(format!("{paths:?}")),
        })
        .await;
    }
    for server in [&impostor, &finished] {
        until("Prometheus takes it for the pod", async || match server.requests().len() {
            0 => Err("no request".to_owned()),
            _ => Ok(()),
        })
        .await;
    }
    for server in [&impostor, &finished, &self_signed, &elsewhere] {
        let ours = |asked: &Asked| asked.head.contains("meshscrape");
        assert!(!server.requests().iter().any(ours), "nor did any of them ever get a request of ours");
    }
    agent.stop().await;
}

/// `check config` accepts the sample and warns of exactly what the chapter on configurations lists.
async fn passes_with_warnings(stage: &Stage) {
    let file: PathBuf = stage.account.path().join("sample.yaml");
    std::fs::write(&file, stage.our_config()).expect("a configuration");
    let output = Program::start(&["check", "config", &file.display().to_string()]).end().await;
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{said}");
    // Behind file, line and column, which are other ones there.
    let sentence = |line: &str| line.splitn(4, ':').nth(3).expect("a place").trim().to_owned();
    let warned: Vec<String> = said.lines().map(|line| sentence(line).replacen("warning: ", "", 1)).collect();
    assert_eq!(warned, WARNINGS.lines().map(sentence).collect::<Vec<_>>());
}

fn ip_of(server: &Server) -> Ipv4Addr {
    let IpAddr::V4(ip) = server.socket().ip() else { panic!("{} is not IPv4", server.socket()) };
    ip
}

const UP: (&str, &str) = ("health", "up");

/// Our target of this job at this address, once it has come out so: its first scrape may run out of time.
async fn settled(agent: &Running, job: &str, ip: Ipv4Addr, (key, value): (&str, &str)) -> Value {
    let at = format!("https://{ip}:");
    let is_it = |target: &&Value| {
        target["scrapePool"] == job && target["scrapeUrl"].as_str().is_some_and(|url| url.starts_with(&at))
    };
    let known = |targets: &[Value]| targets.iter().find(is_it).filter(|target| target[key] == value).cloned();
    let targets = agent.until(&format!("{key} of {ip} in {job} is {value}"), |targets| known(targets).is_some()).await;
    known(&targets).expect("it was just there")
}

/// Labels and URLs of the targets of each job, sorted.
type Targets = BTreeMap<String, Vec<(LabelMap, String)>>;

/// The active targets as the API of either side shows them.
async fn targets(address: SocketAddr) -> Targets {
    let answer = http::get(address, "/api/v1/targets?state=active").await.expect("the API answers");
    let mut targets = Targets::new();
    for target in answer.json()["data"]["activeTargets"].as_array().into_iter().flatten() {
        let text = |key: &str| target[key].as_str().expect("text").to_owned();
        let found = (labels_from_json(&target["labels"]), text("scrapeUrl"));
        targets.entry(text("scrapePool")).or_default().push(found);
    }
    targets.values_mut().for_each(|targets| targets.sort());
    targets
}

/// Waits until Prometheus has the expected targets and ours are the same, but for [`ONLY_PROMETHEUS`], of which each is
/// named among our dropped ones.
async fn agreed(prometheus: SocketAddr, agent: &Running) {
    until("both have the same targets", async || {
        let mut theirs = targets(prometheus).await;
        let counts: BTreeMap<&str, usize> = theirs.iter().map(|(job, targets)| (&**job, targets.len())).collect();
        let expected: BTreeMap<&str, usize> = EXPECTED.iter().copied().collect();
        if counts != expected {
            return Err(format!("Prometheus has {counts:?} instead of {expected:?}"));
        }
        let merged = theirs.get_mut(MERGED).expect("an expected job");
        merged.retain(|(labels, _)| !ONLY_PROMETHEUS.iter().any(|port| labels["instance"].ends_with(port)));
        let ours = targets(agent.api()).await;
        if theirs == ours { Ok(()) } else { Err(format!("Prometheus: {theirs:#?}\nours: {ours:#?}")) }
    })
    .await;
    let answer = http::get(agent.api(), "/api/v1/targets?state=dropped").await.expect("the API answers");
    let answer = answer.json();
    let dropped = answer["data"]["droppedTargets"].as_array().expect("a list");
    for port in ONLY_PROMETHEUS {
        let named = dropped.iter().filter(|target| target["scrapePool"] == MERGED).any(|target| {
            target["error"].as_str().is_some_and(|error| error.contains(port) && error.starts_with("pod shop/misled-"))
        });
        assert!(named, "{port} is not said to be wrong: {dropped:#?}");
    }
}

/// Asks until it is so; what was last in its way is said when it never is.
async fn until(what: &str, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(hindrance) = ask().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}\n{hindrance}");
        sleep(Duration::from_millis(100)).await;
    }
}
