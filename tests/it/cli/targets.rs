//! `meshscrape targets`, beside a live agent and on a configuration alone.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{meshscrape, text};
use crate::support::agent::{self, Running};
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::tls_server::{Reply, Server, Talk, always, closed_port};

const PAYMENTS: &str = "spiffe://cluster.local/ns/shop/sa/payments";

/// A configuration with a good target, one that somebody else answers for, one that nobody may answer for, one that is
/// malformed, and two that rules drop; and an ordinary job without targets.
struct Stage {
    mesh: Mesh,
    cart: Server,
    other: Server,
    dir: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let mesh = Mesh::new(ONLY_13).await;
        let serve = || Server::start(Talk::Tls(mesh.cart(), always(Reply::ok("beans 1\n"))));
        let (cart, other) = (serve(), serve());
        let stage = Self { cart, other, mesh, dir: TempDir::new().expect("a directory") };
        std::fs::write(stage.dir.path().join("targets.yaml"), stage.targets()).expect("a file");
        std::fs::write(stage.dir.path().join("meshscrape.yaml"), stage.config()).expect("a file");
        stage
    }

    fn targets(&self) -> String {
        let pod = |address: &str, name: &str, more: &str| {
            format!(
                "- targets: ['{address}']\n  labels: {{__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: {name}{more}}}\n"
            )
        };
        let identity = |id: &str| format!(", __spiffe_id__: '{id}'");
        [
            pod(&self.cart.address().to_string(), "cart-1", &identity(CART)),
            pod(&self.other.address().to_string(), "payments-1", &identity(PAYMENTS)),
            pod("127.0.0.1:3", "batch-1", ""),
            pod("x@evil.example:443", "evil-1", &identity(CART)),
            pod("127.0.0.1:4", "web-1", ", drop: me"),
            pod("127.0.0.1:5", "web-2", ", drop: me"),
        ]
        .concat()
    }

    fn config(&self) -> String {
        format!(
            "
scrape_configs:
- job_name: mesh
  scrape_interval: 2s
  scrape_timeout: 2s
  metrics_path: /stats/prometheus
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  file_sd_configs: [{{files: ['{}']}}]
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
  - {{source_labels: [drop], regex: me, action: drop}}
- job_name: plain
",
            self.mesh.certs.path().display(),
            self.dir.path().join("targets.yaml").display()
        )
    }

    /// An agent that has scraped everything once.
    async fn agent(&self) -> Running {
        let agent = agent::start(self.dir.path(), &self.config()).await;
        let settled = |targets: &[Value]| {
            let of = |health: &str| targets.iter().filter(|target| target["health"] == health).count();
            (of("up"), of("down")) == (1, 2)
        };
        agent.until("everything is scraped", settled).await;
        agent
    }

    fn file(&self) -> String {
        self.dir.path().join("meshscrape.yaml").display().to_string()
    }
}

fn url(agent: &Running) -> String {
    format!("http://{}", agent.api())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_what_it_scrapes_and_why_the_rest_is_not() {
    let stage = Stage::new().await;
    let agent = stage.agent().await;
    let output = meshscrape(&["targets", "--url", &url(&agent)]).await;
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), ""), "something is down");
    let (cart, other) = (stage.cart.address().to_string(), stage.other.address().to_string());
    let page = text(&output.stdout).replace(&cart, "10.0.0.17:15092").replace(&other, "10.0.0.18:15092");
    let page: Vec<_> = page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        page,
        [
            "mesh 3 targets: 1 up, 2 down; 3 dropped",
            "STATE TARGET POD IDENTITY",
            "down https://127.0.0.1:3/stats/prometheus shop/batch-1",
            "no_expected_identity: the target has no __spiffe_id__ label",
            "hint: give the target a __spiffe_id__ label; pod discovery sets it from the service account",
            "down https://10.0.0.18:15092/stats/prometheus shop/payments-1 spiffe://cluster.local/ns/shop/sa/payments",
            "identity_mismatch: expected spiffe://cluster.local/ns/shop/sa/payments, but spiffe://cluster.local/ns/shop/sa/cart answered",
            "hint: another workload answers on this address: the pod was replaced, its service account changed, or somebody poses as it",
            "up https://10.0.0.17:15092/stats/prometheus shop/cart-1 spiffe://cluster.local/ns/shop/sa/cart",
            "invalid x@evil.example:443 shop/evil-1",
            "error: pod shop/evil-1: __address__ \"x@evil.example:443\": '@' may not stand in an address: host:port is expected",
            "2 dropped by relabel rule 2: {action: drop, source_labels: [drop], regex: 'me'}",
            "",
            "plain no targets",
        ]
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_of_targets_with_their_labels() {
    let stage = Stage::new().await;
    let agent = stage.agent().await;
    let url = url(&agent);
    let output = meshscrape(&["targets", "--url", &url, "--state", "dropped", "--labels", "--job", "mesh"]).await;
    let page = text(&output.stdout);
    for part in ["web-1", "web-2", "by relabel rule 2", "before  __address__=\"127.0.0.1:4\"", "drop=\"me\""] {
        assert!(page.contains(part), "{part:?} is missing in\n{page}");
    }
    assert!(!page.contains("cart-1") && !page.contains("plain"), "{page}");
    let output = meshscrape(&["targets", "--url", &url, "--state", "active", "--labels"]).await;
    let page = text(&output.stdout);
    for part in ["before  __address__=", "after   instance=", "pod=\"cart-1\""] {
        assert!(page.contains(part), "{part:?} is missing in\n{page}");
    }
    assert!(!page.contains("evil") && !page.contains("web-1"), "{page}");
    let output = meshscrape(&["targets", "--url", &url, "--job", "plain"]).await;
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "plain  no targets\n"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_says_what_it_would_find_and_nobody_is_asked() {
    let stage = Stage::new().await;
    let output = meshscrape(&["targets", "--config", &stage.file(), "--output", "json"]).await;
    assert_eq!((output.status.code(), text(&output.stderr).matches("meshscrape:").count()), (Some(1), 0));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&document["scraped"], &document["complete"], &document["problems"]),
        (&json!(false), &json!(true), &json!([]))
    );
    let mesh = &document["jobs"][0];
    assert_eq!(
        (&mesh["job"], &mesh["unknown"], &mesh["down"], &mesh["dropped"]),
        (&json!("mesh"), &json!(2), &json!(1), &json!(3))
    );
    let by_rule = json!([{"rule": 2, "count": 2, "text": "{action: drop, source_labels: [drop], regex: 'me'}"}]);
    assert_eq!((&mesh["droppedByRule"], &mesh["malformed"]), (&by_rule, &json!(1)));
    assert_eq!(mesh["targets"][0]["reason"], "no_expected_identity");
    let cart = &mesh["targets"][1];
    assert_eq!(cart["url"], format!("https://{}/stats/prometheus", stage.cart.address()));
    assert_eq!(
        (&cart["namespace"], &cart["pod"], &cart["expectedIdentity"]),
        (&json!("shop"), &json!("cart-1"), &json!(CART))
    );
    assert_eq!((&cart["labels"]["pod"], &cart["discoveredLabels"]["pod"]), (&json!("cart-1"), &Value::Null));
    assert_eq!(mesh["droppedTargets"][0]["address"], "x@evil.example:443");
    let output = meshscrape(&["targets", "--config", &stage.file()]).await;
    let page = text(&output.stdout);
    assert!(page.contains("\n  found ") && page.contains("\n  refused ") && page.contains("\n  invalid "), "{page}");
    assert_eq!((stage.cart.connections(), stage.other.connections()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_used_is_named() {
    let stage = Stage::new().await;
    std::fs::write(stage.dir.path().join("targets.yaml"), "- targets: 7\n").expect("a file");
    let output = meshscrape(&["targets", "--config", &stage.file()]).await;
    let page = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{page}");
    assert!(page.contains("\nsource: ") && page.contains("targets.yaml: "), "{page}");

    // The same of an agent, which keeps what it knew.
    let agent = agent::start(stage.dir.path(), &stage.config()).await;
    let output = meshscrape(&["targets", "--url", &url(&agent)]).await;
    let page = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{page}");
    assert!(page.contains("\nagent: ") && page.contains("targets.yaml: "), "{page}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listed_is_a_sentence_and_an_exit_code() {
    let stage = Stage::new().await;
    let (_port, nobody) = closed_port();
    let (nobody, hello) = (format!("http://{nobody}"), Server::start(Talk::Plain(always(Reply::ok("hello")))));
    let refusing =
        Server::start(Talk::Plain(always(Reply::with("403 Forbidden", &[], "{\"error\": \"no\\u001b[2J\"}"))));
    let hanging = Server::start(Talk::HangBeforeHandshake);
    let at = |server: &Server| format!("http://{}", server.address());
    let broken = stage.dir.path().join("broken.yaml");
    std::fs::write(&broken, "globl: {}\nscrape_configs: [{}]\n").expect("a file");
    for (arguments, code, says) in [
        (vec!["--url", "http://10.0.0.1:9465"], 2, "an agent serves its API on a loopback address"),
        (vec!["--url", "https://127.0.0.1:9465"], 2, "over http"),
        (vec!["--url", "127.0.0.1:9465"], 2, "write for example http://127.0.0.1:9465"),
        (vec!["--url", "http://127.0.0.1:9465/api/v1/targets"], 2, "more than a host and a port"),
        (vec!["--url", &nobody], 3, "no agent answers at "),
        (vec!["--url", &nobody], 3, "the agent's pod, `kubectl port-forward -n NAMESPACE AGENT_POD 9465`, and"),
        (vec!["--url", &at(&hello)], 3, "is no agent"),
        (vec!["--url", &at(&refusing)], 3, "answered 403: no\\u{1b}[2J"),
        (vec!["--url", &at(&hanging), "--timeout", "200ms"], 3, "no answer within "),
        (vec!["--url", &nobody, "--config", "x.yaml"], 2, "cannot be used with"),
        (vec!["--config", "/nowhere/x.yaml"], 2, "/nowhere/x.yaml"),
        (vec!["--config", broken.to_str().expect("UTF-8")], 2, "write global"),
        (vec!["--config", &stage.file(), "--job", "mash"], 2, "there is no job \"mash\"; there are: mesh, plain"),
        (vec!["--timeout", "0s"], 2, "a duration such as"),
    ] {
        let output = meshscrape(&[&["targets"], arguments.as_slice()].concat()).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {says:?} is missing in\n{error}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}
