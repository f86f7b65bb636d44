//! `meshscrape scrape pod/NAME` on a real API server: directly with certificates, and through the agent of the pod's node,
//! whose port the API server forwards. And `meshscrape targets`: what a configuration would find there.

use std::path::PathBuf;
use std::process::Output;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::agent::{self, Running, eventually};
use crate::support::kubelet::Kubelet;
use crate::support::kubernetes::{Cluster, Namespace, PodManifest, node, pod};
use crate::support::mesh::{Mesh, ONLY_13};
use crate::support::program::Program;
use crate::support::tls_server::{Reply, Server, Talk, always};
use crate::support::{http, loopback};

const BODY: &str = "# TYPE beans counter\nbeans_total 3\n";
const MERGED: &str = "prometheus.istio.io/secure-port";

/// A pod of the account `account` with a proxy.
fn proxied(name: &str, account: &str) -> PodManifest {
    pod(name).account(account).container(json!({"name": "istio-proxy", "image": "registry.example/proxy:1"}))
}

/// A namespace of a mesh, and a kubeconfig that leads there.
struct Stage {
    cluster: &'static Cluster,
    shop: Namespace,
    mesh: Mesh,
    dir: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let cluster = Cluster::shared().await;
        let stage = Self {
            cluster,
            shop: cluster.own_namespace("shop").await,
            mesh: Mesh::new(ONLY_13).await,
            dir: TempDir::new().expect("a directory"),
        };
        cluster.kubeconfig(&stage.kubeconfig(), &cluster.url(), cluster.admin_token());
        stage
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The identity of an account here.
    fn id(&self, account: &str) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{account}", self.shop.name())
    }

    /// A server on a pod address of its own, on the merged port, that is this account.
    fn serve(&self, account: &str) -> Server {
        let tls = self.mesh.tls(&self.mesh.ca.leaf(&self.id(account)));
        Server::start_at((loopback(), 15092).into(), Talk::Tls(tls, always(Reply::ok(BODY))))
    }

    async fn scrape(&self, pod: &str, more: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig().display().to_string();
        let fixed = ["scrape", pod, "-n", self.shop.name(), "--kubeconfig", &kubeconfig];
        Program::start(&[&fixed, more].concat()).end().await
    }

    /// With our certificates.
    async fn directly(&self, pod: &str, more: &[&str]) -> Output {
        let certs = self.mesh.certs.path().display().to_string();
        self.scrape(pod, &[&["--certs-dir", &certs], more].concat()).await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_asked_directly_and_must_be_its_own_service_account() {
    let stage = Stage::new().await;
    let cart = stage.serve("cart");
    let at = cart.socket().ip().to_string();
    let annotated = |name: &str, account: &str| proxied(name, account).annotation(MERGED, "15092").running(&at);
    stage.shop.create_pod(annotated("cart-1", "cart")).await;
    stage.shop.create_pod(annotated("payments-1", "payments")).await;

    let output = stage.directly("pod/cart-1", &[]).await;
    let report = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), BODY), "{report}");
    assert!(report.contains(&format!("pod         {}/cart-1\n", stage.shop.name())), "{report}");
    assert!(report.contains(&format!("{}  is exactly what was expected", stage.id("cart"))), "{report}");
    assert_eq!(cart.requests()[0].path(), "/stats/prometheus");

    for (name, path, asked) in [("routed", "/metrics", "/metrics"), ("not-routed", "/actuator", "/stats/prometheus")] {
        stage.shop.create_pod(annotated(name, "cart").annotation("prometheus.io/path", path)).await;
        let output = stage.directly(&format!("pod/{name}"), &["--alpn", "istio"]).await;
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
        assert_eq!(cart.requests().last().expect("a request").path(), asked, "{name}");
        assert_eq!(cart.offered().last().expect("a greeting"), &["istio"], "{name}");
    }

    let output = stage.directly("pod/payments-1", &[]).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{report}");
    let says = format!("identity_mismatch: expected {}, but {} answered", stage.id("payments"), stage.id("cart"));
    assert!(report.contains(&says), "{report}");
    let output = stage.directly("pod/payments-1", &["--spiffe-id", &stage.id("cart")]).await;
    assert_eq!(output.status.code(), Some(0), "another identity may be asked for: {}", text(&output.stderr));
    let output = stage.directly("pod/cart-1", &["--trust-domain", "elsewhere.example"]).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{report}");
    // There is no job here whose settings could be mended.
    let says = "\nhint: if the other trust domain is a name of this mesh, give it by --trust-domain; else ";
    assert!(report.contains(says) && !report.contains("tls_config"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_pod_from_being_scraped_is_said_and_nobody_is_connected() {
    let stage = Stage::new().await;
    let cart = stage.serve("cart");
    let at = cart.socket().ip().to_string();
    let outside = pod("outside").account("cart").annotation(MERGED, "15092").running(&at);
    let ambient = pod("ambient").account("cart").annotation("ambient.istio.io/redirection", "enabled").running(&at);
    let plain = proxied("plain", "cart").owned_by("apps/v1", "StatefulSet", "plain").running(&at);
    let annotated = |name: &str, port: &str| proxied(name, "cart").annotation(MERGED, port);
    stage.shop.create_pod(plain).await;
    stage.shop.create_pod(outside).await;
    stage.shop.create_pod(ambient).await;
    stage.shop.create_pod(annotated("waiting", "15092")).await;
    stage.shop.create_pod(annotated("odd", "15092abc").running(&at)).await;
    stage.shop.create_pod(annotated("host", "15092").with(json!({"spec": {"hostNetwork": true}})).running(&at)).await;
    let over = json!({"status": {"phase": "Succeeded"}});
    stage.shop.create_pod(annotated("over", "15092").running(&at).with(over)).await;
    let patch = format!("kubectl patch statefulset plain -n {} -p '", stage.shop.name());
    for (name, says) in [
        ("plain", "has no annotation prometheus.istio.io/secure-port"),
        ("plain", patch.as_str()),
        ("outside", "which would open the port of merged metrics\nhint: let Istio inject the proxy first"),
        ("ambient", "is in ambient mode"),
        ("waiting", "has no address yet (phase Pending)"),
        ("odd", "is \"15092abc\", and no port"),
        ("host", "uses the network of its node"),
        ("over", "has ended (Succeeded)"),
        ("nobody", "there is no pod "),
    ] {
        let output = stage.directly(&format!("pod/{name}"), &[]).await;
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(8), ""), "{name}: {error}");
        assert!(error.contains(says), "{name}: {says:?} is missing in\n{error}");
    }
    assert_eq!(cart.connections(), 0);
    let output = stage.directly("pod/plain", &["--port", "15092"]).await;
    assert_eq!(output.status.code(), Some(0), "the port was named: {}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_says_no_or_that_nobody_verifies_is_named() {
    let stage = Stage::new().await;
    let account = stage.shop.account("reader").await;
    let token = stage.shop.token(&account).await;
    stage.cluster.kubeconfig(&stage.kubeconfig(), &stage.cluster.url(), &token);
    let output = stage.directly("pod/cart-1", &[]).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("does not let us get pods in ") && error.contains(&account.user()), "{error}");

    stage.cluster.kubeconfig(&stage.kubeconfig(), "https://127.0.0.1:1", &token);
    let output = stage.directly("pod/cart-1", &[]).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("the API server is not reached: ") && error.contains("refused"), "{error}");
    let output = stage.scrape("pod/cart-1", &[]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));

    for (key, value) in [("insecure-skip-tls-verify", json!(true)), ("server", json!("http://127.0.0.1:1"))] {
        stage.cluster.kubeconfig(&stage.kubeconfig(), &stage.cluster.url(), &token);
        let mut file: Value =
            serde_json::from_slice(&std::fs::read(stage.kubeconfig()).expect("a file")).expect("JSON");
        file["clusters"][0]["cluster"][key] = value;
        std::fs::write(stage.kubeconfig(), file.to_string()).expect("a file");
        let output = stage.directly("pod/cart-1", &[]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{key}: {error}");
        assert!(error.contains("would not be verified"), "{key}: {error}");
    }
    let output = stage.directly("pod/cart-1", &["--context", "nowhere"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

/// An agent that knows one pod as discovery tells of it.
async fn agent_of(stage: &Stage, name: &str, address: &str, account: &str) -> Running {
    let config = format!(
        "
scrape_configs:
- job_name: mesh
  scrape_interval: 300d
  metrics_path: /stats/prometheus
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs:
  - targets: ['{address}']
    labels: {{__meta_kubernetes_namespace: {}, __meta_kubernetes_pod_name: {name}, __spiffe_id__: '{}'}}
",
        stage.mesh.certs.path().display(),
        stage.shop.name(),
        stage.id(account)
    );
    let agent = agent::start(stage.dir.path(), &config).await;
    agent.until("the target is known", |targets| targets.len() == 1).await;
    eventually("the certificates are loaded", async || {
        let ready = http::get(agent.listen(), "/-/ready").await.expect("an answer");
        (ready.status == 200).then_some(())
    })
    .await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_workstation_the_agent_of_the_pods_node_scrapes_it_by_a_forwarded_port() {
    let stage = Stage::new().await;
    let cart = stage.serve("cart");
    let kubelet = Kubelet::start().await;
    let (here, there) = (format!("{}-here", stage.shop.name()), format!("{}-there", stage.shop.name()));
    for name in [&here, &there] {
        let mut manifest = node(name, &[("InternalIP", &kubelet.ip())]);
        manifest["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = kubelet.port().into();
        let _: Node = stage.cluster.node(manifest).await;
    }
    let address = cart.socket();
    let annotated = |name: &str, node: &str| {
        proxied(name, "cart").annotation(MERGED, "15092").on(node).running(&address.ip().to_string())
    };
    stage.shop.create_pod(annotated("cart-1", &here)).await;
    stage.shop.create_pod(annotated("cart-2", &here)).await;
    let plain = proxied("plain-0", "cart").on(&here).owned_by("apps/v1", "StatefulSet", "plain");
    stage.shop.create_pod(plain.running(&address.ip().to_string())).await;
    stage.shop.create_pod(annotated("far-1", &there)).await;

    let monitoring = stage.cluster.own_namespace("monitoring").await;
    let agent = agent_of(&stage, "cart-1", &address.to_string(), "cart").await;
    let port = agent.api().port().to_string();
    let to_agents = ["--agent-namespace", monitoring.name(), "--agent-port", &port];

    let output = stage.scrape("pod/cart-1", &to_agents).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{error}");
    assert!(error.contains(&format!("no agent is found that would scrape pods of node {here}")), "{error}");

    let agent_pod = pod("meshscrape-x7f")
        .label("app.kubernetes.io/name", "meshscrape")
        .owned_by("apps/v1", "DaemonSet", "meshscrape")
        .on(&here)
        .running("10.9.9.9");
    monitoring.create_pod(agent_pod).await;
    let output = stage.scrape("pod/cart-1", &to_agents).await;
    let report = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), BODY), "{report}");
    assert!(
        report.contains(&format!("through     port {port} of pod {}/meshscrape-x7f, job mesh\n", monitoring.name())),
        "{report}"
    );
    assert!(report.contains(&format!("{}  is exactly what was expected", stage.id("cart"))), "{report}");
    assert_eq!(cart.requests().len(), 1);
    let forwarded = kubelet.asked();
    assert_eq!(forwarded.len(), 2, "one for the list, one for the scrape: {forwarded:?}");
    let path = format!("/portForward/{}/meshscrape-x7f", monitoring.name());
    assert!(forwarded.iter().all(|asked| asked.starts_with(&path) && asked.contains(&port)), "{forwarded:?}");

    for (name, says) in [
        ("cart-2", "the pod is not scraped: no job of its agent has found it"),
        (
            "plain-0",
            "merged metrics; no job of its agent has found it\nhint: open the port and name it: kubectl patch ",
        ),
        ("far-1", &format!("no agent is found that would scrape pods of node {there}")),
    ] {
        let output = stage.scrape(&format!("pod/{name}"), &to_agents).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{name}: {error}");
        assert!(error.contains(says), "{name}: {says:?} is missing in\n{error}");
    }
    let closed = ["--agent-namespace", monitoring.name(), "--agent-port", "1"];
    let output = stage.scrape("pod/cart-1", &closed).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("no agent answers at port 1 of pod "), "{error}");
    assert!(error.contains("failed to connect to localhost:1 inside the pod: "), "the kubelet's own words: {error}");

    let mute = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = mute.local_addr().expect("an address").port().to_string();
    tokio::spawn(async move { while mute.accept().await.is_ok() {} });
    let elsewhere = ["--agent-namespace", monitoring.name(), "--agent-port", &port];
    let output = stage.scrape("pod/cart-1", &elsewhere).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains(&format!("no agent answers at port {port} of pod ")), "{error}");
    assert!(error.contains("; does it serve its API there? --agent-port names another\n"), "{error}");
    agent.stop().await;
}

/// The agent of a node does not run, and somebody else's pods wear the labels of agents, more of them than a list has at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_only_wears_the_labels_of_an_agent_is_not_believed() {
    let stage = Stage::new().await;
    let cart = stage.serve("cart");
    let kubelet = Kubelet::start().await;
    let here = format!("{}-here", stage.shop.name());
    let mut manifest = node(&here, &[("InternalIP", &kubelet.ip())]);
    manifest["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = kubelet.port().into();
    let _: Node = stage.cluster.node(manifest).await;
    let ip = cart.socket().ip().to_string();
    stage.shop.create_pod(proxied("cart-1", "cart").annotation(MERGED, "15092").on(&here).running(&ip)).await;
    // What answers there would be believed: it knows the pod.
    let agent = agent_of(&stage, "cart-1", &cart.socket().to_string(), "cart").await;
    let port = agent.api().port().to_string();
    let mine = stage.shop.name();
    let labelled = |name: &str, node: &str| pod(name).label("app.kubernetes.io/instance", mine).on(node);
    let selector = format!("app.kubernetes.io/instance={mine}");
    let arguments = ["--agent-port", &port, "--agent-selector", &selector];

    let a_tenant = stage.cluster.own_namespace("a-tenant").await;
    a_tenant.create_pod(labelled("impostor", &here).running("10.9.9.8")).await;
    let output = stage.scrape("pod/cart-1", &arguments).await;
    assert_eq!(output.status.code(), Some(0), "who else runs agents is not known: {}", text(&output.stderr));

    let monitoring = stage.cluster.own_namespace("monitoring").await;
    let daemon = |name: &str, node: &str| labelled(name, node).owned_by("apps/v1", "DaemonSet", "meshscrape");
    monitoring.create_pod(daemon("meshscrape-waits", &here)).await;
    let refused = async |what: &str| {
        let output = stage.scrape("pod/cart-1", &arguments).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what}: {error}");
        let places = format!("({}, {})", a_tenant.name(), monitoring.name());
        assert!(error.contains(&places) && error.contains("--agent-namespace"), "{what}: {error}");
    };
    refused("the agent of the node does not run").await;
    monitoring.create_pod(daemon("meshscrape-far", "another-node").running("10.9.9.9")).await;
    refused("the agent of another node runs").await;
    a_tenant.create_pods((0..60).map(|number| labelled(&format!("more-{number}"), &here).running("10.9.9.8"))).await;
    refused("a list has no room for the agent").await;
    let trusted = [&arguments[..], &["--agent-namespace", monitoring.name()]].concat();
    let output = stage.scrape("pod/cart-1", &trusted).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{error}");
    assert!(error.contains(&format!("no agent is found that would scrape pods of node {here}")), "{error}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_share_the_work_are_asked_in_turn() {
    let stage = Stage::new().await;
    let cart = stage.serve("cart");
    let kubelet = Kubelet::start().await;
    let name = format!("{}-node", stage.shop.name());
    let mut manifest = node(&name, &[("InternalIP", &kubelet.ip())]);
    manifest["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = kubelet.port().into();
    let _: Node = stage.cluster.node(manifest).await;
    let address = cart.socket();
    let cart_1 = proxied("cart-1", "cart").annotation(MERGED, "15092").on("another-node");
    stage.shop.create_pod(cart_1.running(&address.ip().to_string())).await;
    let monitoring = stage.cluster.own_namespace("monitoring").await;
    let agent = agent_of(&stage, "cart-1", &address.to_string(), "cart").await;
    let replica =
        |pod_name: &str| pod(pod_name).label("app.kubernetes.io/name", "meshscrape").on(&name).running("10.9.9.9");
    monitoring.create_pod(replica("meshscrape-0")).await;
    let gone = json!({"status": {"phase": "Failed"}});
    monitoring.create_pod(replica("meshscrape-1").with(gone)).await;
    let port = agent.api().port().to_string();
    let output = stage.scrape("pod/cart-1", &["--agent-namespace", monitoring.name(), "--agent-port", &port]).await;
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), BODY), "{}", text(&output.stderr));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_can_be_no_target_yet_is_named_wherever_people_ask() {
    let stage = Stage::new().await;
    let kubeconfig = stage.kubeconfig().display().to_string();
    stage.shop.create_pod(pod("new-1").account("cart").annotation(MERGED, "15092")).await;
    let config = format!(
        "scrape_configs:\n- job_name: mesh\n  tls_config: {{certs_dir: '{}'}}\n  istio_sd_configs:\n  \
         - {{port: merged, scope: cluster, kubeconfig_file: '{kubeconfig}', namespaces: {{names: [{}]}}}}\n",
        stage.mesh.certs.path().display(),
        stage.shop.name()
    );
    let agent = agent::start(stage.dir.path(), &config).await;
    let (url, full_name) = (format!("http://{}", agent.api()), format!("{}/new-1", stage.shop.name()));
    let waiting = async || {
        let answer = http::get(agent.api(), "/api/v1/targets").await.expect("the API answers");
        answer.json()["data"]["waitingPods"].clone()
    };
    let why = "it has no address yet (phase Pending)";
    let told = json!([{"pod": full_name, "why": why}]);
    eventually("the API names it", async || (waiting().await == told).then_some(())).await;

    let page = http::get(agent.api(), "/service-discovery?search=new-1").await.expect("the page answers");
    assert!(
        page.text().contains(&format!("<li>{full_name}<span class=\"muted\">: {why}</span></li>")),
        "{}",
        page.text()
    );
    let other = http::get(agent.api(), "/service-discovery?search=other").await.expect("the page answers");
    assert!(!other.text().contains(&full_name), "{}", other.text());

    let file = stage.dir.path().join("meshscrape.yaml").display().to_string();
    let one = format!("waiting: pod {full_name}: {why}\n");
    let counted = "waiting: 1 pod that can be no target yet (see --state dropped)\n";
    for (more, says) in [(&[][..], counted), (&["--state", "any"], &one)] {
        for of in [["--url", url.as_str()], ["--config", &file]] {
            let output = Program::start(&[&["targets"], &of[..], more].concat()).end().await;
            assert!(text(&output.stdout).contains(says), "{of:?} {more:?}: {}", text(&output.stdout));
            assert_eq!(output.status.code(), Some(0), "that is no fault: {}", text(&output.stderr));
        }
    }
    let absent = stage.dir.path().join("absent").display().to_string();
    for (kubeconfig, says) in [
        (&absent, format!("the pod is not scraped: {why}\nhint: see kubectl describe pod")),
        (&kubeconfig, format!("pod {full_name} has no address yet (phase Pending); its agent waits for that")),
    ] {
        let arguments = ["scrape", "pod/new-1", "-n", stage.shop.name(), "--agent", &url, "--kubeconfig", kubeconfig];
        let output = Program::start(&arguments).end().await;
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(8) && error.contains(&says), "{says:?} is missing in\n{error}");
    }

    stage.shop.set_pod_status("new-1", json!({"phase": "Running", "podIP": "10.1.0.7"})).await;
    eventually("it is a target", async || (waiting().await == json!([])).then_some(())).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_says_which_pods_it_would_scrape_and_which_rule_drops_the_others() {
    let stage = Stage::new().await;
    let running = |name: &str, ip: &str| pod(name).account("cart").port("http", 8080).on("n1").running(ip);
    let annotated = |name: &str, ip: &str, port: &str| running(name, ip).annotation(MERGED, port);
    stage.shop.create_pod(annotated("cart-1", "10.1.0.1", "15092")).await;
    stage.shop.create_pod(annotated("odd-1", "10.1.0.2", "15092abc")).await;
    stage.shop.create_pod(annotated("ssh-1", "10.1.0.3", "22")).await;
    stage.shop.create_pod(running("plain-1", "10.1.0.4")).await;
    stage.shop.create_pod(running("plain-2", "10.1.0.5")).await;
    let over = json!({"status": {"phase": "Succeeded"}});
    stage.shop.create_pod(annotated("over-1", "10.1.0.6", "15092").with(over)).await;
    let file = stage.dir.path().join("meshscrape.yaml").display().to_string();
    let text_of = |kubeconfig: &str| {
        format!(
            "scrape_configs:\n- job_name: mesh\n  tls_config: {{certs_dir: '{}'}}\n  istio_sd_configs:\n  \
             - {{port: merged, scope: cluster, kubeconfig_file: '{kubeconfig}', namespaces: {{names: [{}]}}}}\n",
            stage.mesh.certs.path().display(),
            stage.shop.name()
        )
    };
    std::fs::write(&file, text_of(&stage.kubeconfig().display().to_string())).expect("a file");

    let output = Program::start(&["targets", "--config", &file, "--output", "json"]).end().await;
    assert_eq!(output.status.code(), Some(1), "two are malformed: {}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mesh = &document["jobs"][0];
    let names = |list: &Value| -> Vec<String> {
        let names = list.as_array().expect("a list").iter().map(|one| one["pod"].as_str().expect("a name").to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    };
    assert_eq!(
        (names(&mesh["targets"]), &mesh["targets"][0]["expectedIdentity"]),
        (vec!["cart-1".to_owned()], &json!(stage.id("cart")))
    );
    assert_eq!(mesh["targets"][0]["url"], "https://10.1.0.1:15092/stats/prometheus");
    assert_eq!(names(&mesh["droppedTargets"]), ["odd-1", "ssh-1"], "{mesh:#}");
    let by_rule = mesh["droppedByRule"].as_array().expect("a list");
    let by_rule: Vec<_> =
        by_rule.iter().map(|by| (by["count"].as_u64(), by["text"].as_str().expect("a rule"))).collect();
    assert_eq!(by_rule.len(), 2, "{by_rule:?}");
    assert!(by_rule[0].0 == Some(1) && by_rule[0].1.contains("__meta_kubernetes_pod_phase"), "{by_rule:?}");
    assert!(by_rule[1].0 == Some(2) && by_rule[1].1.contains("secure_port"), "{by_rule:?}");

    stage.cluster.kubeconfig(&stage.kubeconfig(), "https://127.0.0.1:1", "x");
    let output = Program::start(&["targets", "--config", &file, "--timeout", "2s"]).end().await;
    let (page, error) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{page}{error}");
    assert!(page.contains("incomplete: not every source of targets has answered"), "{page}{error}");
    assert!(error.contains("waiting for the sources of targets, 2s at most"), "{error}");
}
