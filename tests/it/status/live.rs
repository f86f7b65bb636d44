//! The live scrape of the API: what it tells, what it leaves alone, and everything it refuses to be asked.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::agent::{self, Running, eventually};
use crate::support::http::{self, Answer};
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::tls_server::{Reply, Script, Server, Talk, Then, always};

const BODY: &str = "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\"} 3\nh 1 1700000000000\n";
const HEADER: (&str, &str) = ("x-meshscrape", "scrape");

/// An agent whose own scrapes are an hour apart, with a target that listens and one that does not.
struct Stage {
    agent: Running,
    pod: Server,
    _mesh: Mesh,
    _dir: TempDir,
}

impl Stage {
    /// `job` are more lines of the job, `identity` is who must answer.
    async fn new(script: Script, identity: &str, job: &str) -> Self {
        let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
        let pod = Server::start(Talk::Tls(mesh.cart(), script));
        let config = format!(
            "
scrape_configs:
- job_name: mesh
  scrape_interval: 300d
  metrics_path: /stats/prometheus
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs:
  - {{targets: ['{}'], labels: {{__spiffe_id__: '{identity}', pod: cart-1}}}}
  - {{targets: ['127.0.0.1:1'], labels: {{__spiffe_id__: '{CART}'}}}}
  - {{targets: ['127.0.0.1:2'], labels: {{drop: me}}}}
  relabel_configs:
  - {{source_labels: [drop], regex: me, action: drop}}
  - {{source_labels: [__spiffe_id__], regex: '.*/forgotten', target_label: __spiffe_id__, replacement: ''}}
{job}",
            mesh.certs.path().display(),
            pod.address()
        );
        let agent = agent::start(dir.path(), &config).await;
        let certificates = async || {
            let ready = http::get(agent.listen(), "/-/ready").await.expect("an answer");
            (ready.status == 200).then_some(())
        };
        eventually("the certificates are loaded", certificates).await;
        Self { agent, pod, _mesh: mesh, _dir: dir }
    }

    /// The target that listens.
    async fn target(&self) -> Value {
        let mut targets = self.agent.until("there are targets", |targets| targets.len() == 2).await;
        targets.retain(|target| target["labels"]["pod"] == "cart-1");
        targets.remove(0)
    }

    async fn id(&self) -> String {
        self.target().await["id"].as_str().expect("an id").to_owned()
    }

    async fn ask(&self, path: &str) -> Answer {
        http::post(self.agent.api(), path, &[HEADER], "").await.expect("an answer")
    }

    /// The live scrape of the target.
    async fn scrape(&self, query: &str) -> Value {
        let answer = self.ask(&format!("/api/v1/targets/{}/scrape{query}", self.id().await)).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.json()["data"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_everything_of_one_scrape_and_leaves_the_task_of_the_target_alone() {
    let stage = Stage::new(always(Reply::ok(BODY)), CART, "").await;
    let told = stage.scrape("?body=true").await;
    assert_eq!(told["ok"], true, "{told:#}");
    assert_eq!(told["body"], BODY);
    assert_eq!((&told["sampleCount"], &told["samplesKept"], &told["bodyCut"]), (&json!(2), &json!(2), &json!(false)));
    assert_eq!((&told["verification"], &told["expectedIdentity"]), (&json!("exact"), &json!(CART)));
    assert_eq!(
        (&told["peer"]["identity"], &told["status"], &told["failure"]),
        (&json!(CART), &json!(200), &Value::Null)
    );
    assert_eq!(told["url"], format!("https://{}/stats/prometheus", stage.pod.address()));
    assert_eq!((&told["scrapePool"], &told["labels"]["pod"]), (&json!("mesh"), &json!("cart-1")));
    assert!(told["phases"]["tlsMs"].as_f64().is_some_and(|ms| ms > 0.0), "{told:#}");

    let told = stage.scrape("").await;
    assert_eq!((&told["ok"], told.get("body")), (&json!(true), None), "the exposition comes if it is asked for");
    assert_eq!(stage.pod.handshakes(), 2, "each on a connection of its own");
    let target = stage.target().await;
    assert_eq!((&target["health"], &target["scrapesSucceeded"]), (&json!("unknown"), &json!(0)));
    assert_eq!(stage.agent.metric("meshscrape_scrapes_total{job=\"mesh\"}").await, 0.0);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_limits_of_the_job() {
    let hang = Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\na 1\n", Then::Hang);
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    for (script, identity, job, reason, code) in [
        (always(Reply::ok(BODY)), other, "", "identity_mismatch", 4),
        (always(Reply::ok(BODY)), "spiffe://x/forgotten", "", "no_expected_identity", 4),
        (always(Reply::ok(BODY)), CART, "  target_limit: 1\n", "target_limit", 6),
        (always(Reply::ok(BODY)), CART, "  sample_limit: 1\n", "sample_limit", 6),
        (always(Reply::ok(BODY)), CART, "  body_size_limit: 10B\n", "body_too_large", 6),
        (always(Reply::ok(BODY)), CART, "  label_limit: 2\n", "label_limit", 6),
        (always(Reply::ok("a 1\nb 2")), CART, "  require_complete: true\n", "truncated", 6),
        (always(hang), CART, "  scrape_timeout: 300ms\n", "timeout", 7),
    ] {
        let stage = Stage::new(script, identity, job).await;
        let told = stage.scrape("?body=true").await;
        assert_eq!((&told["ok"], &told["failure"]["reason"]), (&json!(false), &json!(reason)), "{told:#}");
        assert_eq!((&told["failure"]["exitCode"], &told["body"]), (&json!(code), &json!("")), "{told:#}");
        assert!(told["failure"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{told:#}");
        stage.agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_it_is_asked_it_refuses_and_connects_to_nobody() {
    let stage = Stage::new(always(Reply::ok(BODY)), CART, "").await;
    let id = stage.id().await;
    let path = format!("/api/v1/targets/{id}/scrape");
    let elsewhere = stage.pod.address();
    let post = async |path: &str, headers: &[(&str, &str)], body: &'static str| {
        let answer = http::post(stage.agent.api(), path, headers, body).await.expect("an answer");
        (answer.status, answer)
    };
    for (what, path, headers, body, status) in [
        ("no header", path.clone(), &[][..], "", 403),
        ("another value", path.clone(), &[("x-meshscrape", "true")], "", 403),
        ("a header that pages may send", path.clone(), &[("content-type", "text/plain")], "", 403),
        ("a foreign page", path.clone(), &[HEADER, ("origin", "https://evil.example")], "", 403),
        ("a page without an origin", path.clone(), &[HEADER, ("origin", "null")], "", 403),
        ("a URL", format!("{path}?url=https://{elsewhere}/"), &[HEADER], "", 400),
        ("a path", format!("{path}?path=/admin"), &[HEADER], "", 400),
        ("an identity", format!("{path}?body=true&spiffe_id=spiffe://x/y"), &[HEADER], "", 400),
        ("a parameter twice", format!("{path}?body=true&body=true"), &[HEADER], "", 400),
        ("another value of the parameter", format!("{path}?body=yes"), &[HEADER], "", 400),
        ("content", path.clone(), &[HEADER], "url=https://10.0.0.1/", 400),
        ("no id", "/api/v1/targets/cart-1/scrape".to_owned(), &[HEADER], "", 400),
        ("an address", format!("/api/v1/targets/{elsewhere}/scrape"), &[HEADER], "", 400),
        ("another spelling", format!("/api/v1/targets/{}/scrape", id.to_uppercase() + "0"), &[HEADER], "", 400),
        ("an id that nobody has", "/api/v1/targets/0123456789abcdef/scrape".to_owned(), &[HEADER], "", 404),
    ] {
        let (got, answer) = post(&path, headers, body).await;
        assert_eq!(got, status, "{what}: {:?}", answer.body);
        assert_eq!(answer.json()["status"], "error", "{what}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{what}");
    }
    let get = http::get(stage.agent.api(), &path).await.expect("an answer");
    assert_eq!(get.status, 405);
    let asking = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let stream = TcpStream::connect(stage.agent.api()).await.expect("a connection");
    let preflight = http::exchange(stream, "OPTIONS", &path, &asking, Default::default()).await.expect("an answer");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (403, ""));
    let outside = http::post(stage.agent.listen(), &path, &[HEADER], "").await.expect("an answer");
    assert_eq!(outside.status, 404, "the pod's own port has no such thing");
    assert_eq!(stage.pod.connections(), 0);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_at_a_time_and_who_goes_away_makes_room() {
    let hang = Reply::raw("HTTP/1.1 200 OK\r\n", Then::Hang);
    let stage = Stage::new(always(hang), CART, "  scrape_timeout: 50s\n").await;
    let path = format!("/api/v1/targets/{}/scrape", stage.id().await);
    let (api, first) = (stage.agent.api(), path.clone());
    let waiting = tokio::spawn(async move { http::post(api, &first, &[HEADER], "").await.map(|answer| answer.status) });
    stage.pod.hanging().await;
    let second = stage.ask(&path).await;
    assert_eq!(second.status, 429, "{:?}", second.body);
    assert!(second.json()["error"].as_str().is_some_and(|error| error.contains("under way")));
    assert_eq!(stage.pod.connections(), 1);

    waiting.abort();
    eventually("the next one may", async || {
        let path = path.clone();
        let mut next =
            tokio::spawn(async move { http::post(api, &path, &[HEADER], "").await.map(|answer| answer.status) });
        let answered = tokio::time::timeout(Duration::from_millis(500), &mut next).await;
        next.abort();
        // One that is not refused hangs as the first did.
        answered.is_err().then_some(())
    })
    .await;
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_targets_name_the_rule_that_dropped_them() {
    let stage = Stage::new(always(Reply::ok(BODY)), CART, "").await;
    stage.id().await;
    let answer = http::get(stage.agent.api(), "/api/v1/targets?state=dropped").await.expect("an answer");
    let dropped = &answer.json()["data"]["droppedTargets"][0];
    assert_eq!((&dropped["byRule"], &dropped["error"]), (&json!(1), &Value::Null));
    assert_eq!(dropped["rule"], "{action: drop, source_labels: [drop], regex: 'me'}");
    stage.agent.stop().await;
}
