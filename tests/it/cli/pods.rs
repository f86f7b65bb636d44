//! `meshscrape scrape pod/NAME` through an agent: the same report as of a scrape of our own, or why there is none.

use serde_json::Value;
use tempfile::TempDir;

use super::{meshscrape, text};
use crate::support::agent::{self, Running};
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::program::Program;
use crate::support::tls_server::{Reply, Server, Talk, Then, always};

const BODY: &str = "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\"} 3\nh 1 1700000000000\n";

/// An agent that knows pods as discovery tells of them, and hardly ever scrapes them by itself.
struct Stage {
    agent: Running,
    cart: Server,
    hanging: Server,
    _mesh: Mesh,
    _dir: TempDir,
}

impl Stage {
    async fn new() -> Self {
        let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
        let cart = Server::start(Talk::Tls(mesh.cart(), always(Reply::ok(BODY))));
        let hang = Reply::raw("HTTP/1.1 200 OK\r\n", Then::Hang);
        let hanging = Server::start(Talk::Tls(mesh.cart(), always(hang)));
        let pod = |address: &dyn std::fmt::Display, name: &str, annotation: &dyn std::fmt::Display, more: &str| {
            format!(
                "  - targets: ['{address}']\n    labels: {{__meta_kubernetes_namespace: shop, __meta_kubernetes_pod_name: {name}, \
                 __meta_kubernetes_pod_annotation_prometheus_istio_io_secure_port: '{annotation}', __spiffe_id__: '{CART}'{more}}}\n"
            )
        };
        let targets = [
            pod(&cart.address(), "cart-1", &cart.port(), ""),
            pod(&cart.address(), "payments-1", &cart.port(), ", account: payments"),
            pod(&hanging.address(), "slow-1", &hanging.port(), ""),
            pod(&"127.0.0.1:15091", "envoy-1", &"", ""),
            pod(&"127.0.0.1:1", "web-1", &"", ", drop: me"),
            pod(&"x@evil:443", "evil-1", &"x@evil:443", ""),
        ]
        .concat();
        let config = format!(
            "
scrape_configs:
- job_name: mesh
  scrape_interval: 300d
  scrape_timeout: 50s
  metrics_path: /stats/prometheus
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs:
{targets}  metric_relabel_configs:
  - {{source_labels: [__name__], regex: h, action: drop}}
  relabel_configs:
  - {{source_labels: [drop], regex: me, action: drop}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
  - {{source_labels: [account], regex: (.+), target_label: __spiffe_id__, replacement: 'spiffe://cluster.local/ns/shop/sa/$1'}}
",
            mesh.certs.path().display()
        );
        let agent = agent::start(dir.path(), &config).await;
        let verified = |targets: &[Value]| targets.len() == 4;
        agent.until("the targets are known", verified).await;
        agent::eventually("the certificates are loaded", async || {
            let ready = crate::support::http::get(agent.listen(), "/-/ready").await.expect("an answer");
            (ready.status == 200).then_some(())
        })
        .await;
        Self { agent, cart, hanging, _mesh: mesh, _dir: dir }
    }

    fn arguments<'a>(&self, pod: &'a str, more: &[&'a str]) -> Vec<String> {
        let url = format!("http://{}", self.agent.api());
        // A kubeconfig of whoever runs the tests is not asked.
        let fixed = ["scrape", pod, "-n", "shop", "--agent", &url, "--kubeconfig", "/nowhere/kubeconfig"];
        fixed.iter().chain(more).map(|&text| text.to_owned()).collect()
    }

    async fn scrape(&self, pod: &str, more: &[&str]) -> std::process::Output {
        let arguments = self.arguments(pod, more);
        meshscrape(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_scrapes_for_us_and_the_report_is_as_of_our_own_scrape() {
    let stage = Stage::new().await;
    let output = stage.scrape("pod/cart-1", &[]).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(text(&output.stdout), BODY);
    for part in [
        &format!("https://{}/stats/prometheus\n", stage.cart.address()),
        &format!("through     http://{}, job mesh\n", stage.agent.api()),
        "connect",
        "TLSv1.3 TLS_",
        &format!("{CART}  is exactly what was expected"),
        "first byte",
        "status      200",
        "samples     2 in 2 families",
        "scraped",
    ] {
        assert!(report.contains(part), "{part:?} is missing in\n{report}");
    }
    assert_eq!(stage.cart.requests().len(), 1);

    let output = stage.scrape("pod/cart-1", &["--output", "json"]).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&document["ok"], &document["identityPinned"], &document["peer"]["identity"]),
        (&true.into(), &true.into(), &CART.into())
    );
    assert_eq!(document["samples"][1]["timestampMs"], 1_700_000_000_000_i64);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_says_what_it_would_forward_and_what_not() {
    let stage = Stage::new().await;
    let output = stage.scrape("pod/cart-1", &["--relabel"]).await;
    let (shown, report) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(
        shown,
        format!(
            "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{{instance=\"{}\",job=\"mesh\",kind=\"arabica\",pod=\"cart-1\"}} 3\n\
             # not forwarded: h, by metric relabel rule 1: {{action: drop, source_labels: [__name__], regex: 'h'}}\n",
            stage.cart.address()
        )
    );
    assert!(
        report.contains("samples     2 in ") && report.contains("forwarded   1 series, 1 dropped by relabelling"),
        "{report}"
    );
    let output = stage.scrape("pod/cart-1", &["--relabel", "--match", "h", "--explain"]).await;
    assert!(text(&output.stdout).starts_with("# not forwarded: h, by"), "{}", text(&output.stdout));
    let output = stage.scrape("pod/payments-1", &["--relabel"]).await;
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(4), ""));
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_that_fails_there_fails_here_with_its_reason() {
    let stage = Stage::new().await;
    let output = stage.scrape("pod/payments-1", &[]).await;
    let report = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(4), ""), "{report}");
    let mismatch =
        format!("\nidentity_mismatch: expected spiffe://cluster.local/ns/shop/sa/payments, but {CART} answered\n");
    assert!(
        report.contains(&mismatch) && report.contains("\nhint: another workload") && report.contains("refused"),
        "{report}"
    );
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_no_target_has_a_sentence_that_says_why() {
    let stage = Stage::new().await;
    for (pod, more, says) in [
        (
            "pod/web-1",
            &[][..],
            "relabel rule 1 of job mesh drops it: {action: drop, source_labels: [drop], regex: 'me'}",
        ),
        ("pod/evil-1", &[], "job mesh cannot use it: pod shop/evil-1: __address__ \"x@evil:443\""),
        ("pod/nobody", &[], "no job of its agent has found it\nhint: look at node, namespaces and selectors"),
        (
            "pod/envoy-1",
            &[],
            "does not scrape port 15092 of the pod, but 15091 (job mesh)\nhint: choose one of these with --port",
        ),
        ("pod/cart-1", &["--port", "15020"], "does not scrape port 15020 of the pod, but "),
    ] {
        let output = stage.scrape(pod, more).await;
        let error = text(&output.stderr);
        assert!(error.contains(says), "{pod}: {says:?} is missing in\n{error}");
        assert_eq!(output.status.code(), Some(8), "{pod}: {error}");
        assert_eq!(text(&output.stdout), "", "{pod}");
    }
    assert_eq!(stage.cart.connections(), 0);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_second_is_told_to_wait() {
    let stage = Stage::new().await;
    let arguments = stage.arguments("pod/slow-1", &[]);
    let first = Program::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    stage.hanging.hanging().await;
    let output = stage.scrape("pod/cart-1", &[]).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("another live scrape is under way: try again in a moment"), "{error}");
    drop(first);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_of_a_pod_is_a_usage_error() {
    let nowhere = ["--kubeconfig", "/nowhere/kubeconfig"];
    let agent = ["--agent", "http://127.0.0.1:1"];
    for (arguments, says) in [
        (vec!["pod/cart", "--agent", "http://127.0.0.1:1", "--spiffe-id", CART], "cannot be used with"),
        (vec!["pod/cart", "--agent", "http://127.0.0.1:1", "--alpn", "istio"], "cannot be used with"),
        (vec!["pod/cart", "-n", "shop", "--alpn", "istio"], "the label __alpn__ of the target decides"),
        (vec!["pod/cart", "-n", "shop", "--trust-domain", "td"], "give --certs-dir"),
        (vec!["pod/cart", "-n", "shop", "--spiffe-id", CART], "its job decides who must answer"),
        (vec!["pod/../nodes", "-n", "shop", agent[0], agent[1]], "is no name that Kubernetes gives"),
        (vec!["pod/cart", "-n", "SHOP", agent[0], agent[1]], "is no name that Kubernetes gives"),
        (vec!["pod/cart", agent[0], agent[1], nowhere[0], nowhere[1]], "namespace is not known: give -n"),
        (vec!["pod/cart", "-n", "shop", nowhere[0], nowhere[1]], "/nowhere/kubeconfig"),
        (vec!["pod/cart", "-n", "shop", "--agent", "http://10.0.0.1:9465"], "loopback address"),
        (vec!["pod/cart", "-n", "shop", "--port", "http"], "merged, envoy or a port"),
        (vec!["https://10.0.0.1/", "-n", "shop"], "the options for pods need a pod"),
        (vec!["https://10.0.0.1/", "--port", "15092"], "the options for pods need a pod"),
    ] {
        let output = meshscrape(&[&["scrape"], arguments.as_slice()].concat()).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?}: {says:?} is missing in\n{error}");
    }
}
