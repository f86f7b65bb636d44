//! The API beside a real Prometheus: both scrape one target by one configuration and are asked the same.

use std::collections::BTreeSet;

use meshscrape::agent::Options;
use meshscrape::lifecycle;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::agent::{self, Running, eventually};
use crate::support::http::{self, Answer};
use crate::support::prometheus::Prometheus;
use crate::support::tls_server::{Reply, Server, Talk, always};

const BODY: &str = "# HELP beans Beans, in \"bags\".
# TYPE beans counter
beans_total 3
# TYPE fill_ratio gauge
# UNIT fill_ratio ratio
fill_ratio 0.5
# HELP dropped Not kept.
# TYPE dropped gauge
dropped 1
# EOF
";

const JOBS: &str = "  metric_relabel_configs: [{source_labels: [__name__], regex: dropped, action: drop}]
  relabel_configs:
  - {source_labels: [__address__], regex: '(.*):.*', target_label: host}
  - {source_labels: [drop], regex: 'me', action: drop}
  - {action: labelmap, regex: 'x_(.+)'}
- job_name: another
  scrape_interval: 1s
";

fn config(target: &Server) -> String {
    let address = target.address();
    format!(
        "scrape_configs:\n- job_name: one\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{address}']}}, {{targets: ['127.0.0.1:1'], labels: {{drop: me}}}}]\n{JOBS}  static_configs: [{{targets: ['{address}']}}]\n"
    )
}

/// An agent and a Prometheus that have scraped the target.
struct Pair {
    agent: Running,
    prometheus: Prometheus,
    _target: Server,
    _dir: TempDir,
}

impl Pair {
    async fn new() -> Self {
        let reply = Reply::with("200 OK", &["Content-Type: application/openmetrics-text; version=1.0.0"], BODY);
        let target = Server::start(Talk::Plain(always(reply)));
        let (text, dir) = (config(&target), TempDir::new().expect("a directory"));
        let (agent, prometheus) = tokio::join!(agent::start(dir.path(), &text), Prometheus::with_config(&text));
        let pair = Self { agent, prometheus, _target: target, _dir: dir };
        eventually("both have scraped", async || {
            let all = pair.both("/api/v1/targets?state=active").await;
            let up = |answer: &Value| {
                let targets = answer["data"]["activeTargets"].as_array().expect("a list");
                targets.len() == 2 && targets.iter().all(|target| target["health"] == "up")
            };
            all.iter().all(up).then_some(())
        })
        .await;
        pair
    }

    async fn ask(&self, path: &str) -> [Answer; 2] {
        let (ours, theirs) =
            tokio::join!(http::get(self.agent.api(), path), http::get(self.prometheus.address(), path));
        [ours.expect("the agent answers"), theirs.expect("Prometheus answers")]
    }

    async fn both(&self, path: &str) -> [Value; 2] {
        self.ask(path).await.map(|answer| answer.json())
    }
}

/// Lists, which Prometheus leaves in any order, sorted.
fn sorted(mut answer: Value) -> Value {
    if let Some(list) = answer["data"].as_array_mut() {
        list.sort_by_key(ToString::to_string);
    }
    answer
}

/// Which targets an answer lists, by what both say of them, and how many were dropped.
fn listed(answer: Value) -> Value {
    let of = |list: &str| {
        let all = answer["data"][list].as_array().expect("a list").iter();
        let mut all: Vec<String> = all
            .map(|target| {
                format!("{} {} {}", target["scrapePool"], target["labels"], target["discoveredLabels"]["__address__"])
            })
            .collect();
        all.sort();
        all
    };
    json!({"active": of("activeTargets"), "dropped": of("droppedTargets"), "counts": answer["data"]["droppedTargetCounts"]})
}

/// The keys that an object has.
fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_as_that_of_prometheus() {
    let mut pair = Pair::new().await;
    for path in [
        "/api/v1/scrape_pools",
        "/api/v1/status/walreplay",
        "/api/v1/notifications",
        "/api/v1/targets/metadata",
        "/api/v1/targets/metadata?metric=beans",
        "/api/v1/targets/metadata?match_target=%7Bjob%3D%22one%22%7D",
        "/api/v1/targets/metadata?match_target=%7Bjob%3D~%22o.*%22%2Chost%3D%22127.0.0.1%22%7D&metric=fill_ratio",
        "/api/v1/targets/metadata?match_target=%7Bjob%3D%22none%22%7D",
        "/api/v1/targets/metadata?limit=0",
        "/api/v1/metadata",
        "/api/v1/metadata?metric=beans",
        "/api/v1/metadata?metric=none",
        "/api/v1/metadata?limit=0",
        "/api/v1/metadata?limit_per_metric=1",
        "/api/v1/metadata?limit_per_metric=0",
    ] {
        let [ours, theirs] = pair.both(path).await.map(sorted);
        assert_eq!(ours, theirs, "{path}");
        assert_eq!(ours["status"], "success", "{path}");
    }
    // Which of them Prometheus gives is open.
    let [ours, theirs] = pair.both("/api/v1/targets/metadata?limit=2").await;
    assert_eq!(ours["data"].as_array().map(Vec::len), theirs["data"].as_array().map(Vec::len));

    for path in [
        "/api/v1/targets/metadata?limit=x",
        "/api/v1/metadata?limit=x",
        "/api/v1/metadata?limit_per_metric=x",
        "/api/v1/targets/metadata?match_target=%7Bjob%7D",
    ] {
        let [ours, theirs] = pair.ask(path).await;
        assert_eq!(ours.status, theirs.status, "{path}");
        assert_eq!(ours.json()["errorType"], theirs.json()["errorType"], "{path}");
        assert_eq!(keys(&ours.json()), keys(&theirs.json()), "{path}");
    }
    for path in ["/api/v1/status/buildinfo", "/api/v1/status/runtimeinfo", "/api/v1/status/config"] {
        let [ours, theirs] = pair.both(path).await;
        let (ours, theirs) = (keys(&ours["data"]), keys(&theirs["data"]));
        assert!(ours.is_superset(&theirs), "{path}: {:?}", theirs.difference(&ours).collect::<Vec<_>>());
    }
    for query in [
        "",
        "?scrapePool=",
        "?scrapePool=one",
        "?scrapePool=none",
        "?scrapePool=ONE",
        "?scrapePool=one&scrapePool=another",
        "?state=",
        "?state=any",
        "?state=Any",
        "?state=active",
        "?state=ACTIVE&scrapePool=another",
        "?state=dropped",
        "?state=Dropped",
        "?state=active&state=dropped",
        "?state=other",
        "?State=active",
        "?health=up&unknown=%ff",
    ] {
        let path = format!("/api/v1/targets{query}");
        let [ours, theirs] = pair.both(&path).await.map(listed);
        assert_eq!(ours, theirs, "{path}");
    }
    let [ours, theirs] = pair.both("/api/v1/targets").await;
    let target = |answer: &Value| keys(&answer["data"]["activeTargets"][0]);
    assert!(target(&ours).is_superset(&target(&theirs)));
    let [ours, _] = pair.both("/api/v1/status/config").await;
    assert!(ours["data"]["yaml"].as_str().expect("a text").contains("job_name: another"), "{ours}");

    pair.agent.reload("nonsense: 1").await.expect_err("a configuration that cannot be used");
    for path in ["/", "/config"] {
        let page = http::get(pair.agent.api(), path).await.expect("the page answers");
        assert!(page.text().contains("nonsense"), "{path} says what is wrong: {}", page.text());
    }
    let [ours, _] = pair.both("/api/v1/notifications").await;
    let told = &ours["data"][0];
    assert_eq!((&told["text"], &told["active"]), (&json!("Configuration reload has failed."), &json!(true)), "{ours}");
    assert!(told["date"].as_str().is_some_and(|date| date.starts_with("20")), "{ours}");
    pair.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_has_not_is_refused_in_the_words_of_prometheus_and_probes_are_there() {
    let (pair, theirs) = tokio::join!(Pair::new(), Prometheus::agent());
    for path in [
        "query?query=up",
        "query_range?query=up",
        "query_exemplars?query=up",
        "format_query?query=up",
        "parse_query?query=up",
        "labels",
        "label/job/values",
        "series?match[]=up",
        "rules",
        "alerts",
        "alertmanagers",
        "status/tsdb",
    ] {
        let path = format!("/api/v1/{path}");
        let (answer, agent) = tokio::join!(http::get(pair.agent.api(), &path), http::get(theirs.address(), &path));
        let (answer, agent) = (answer.expect("an answer"), agent.expect("an answer"));
        assert_eq!((answer.status, answer.json()), (agent.status, agent.json()), "{path}");
        assert_eq!(answer.status, 422, "{path}");
    }
    for path in ["/-/healthy", "/-/ready", "/metrics", "/version"] {
        assert_eq!(http::get(pair.agent.api(), path).await.expect("an answer").status, 200, "{path}");
    }
    pair.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relabelling_is_told_rule_by_rule() {
    let pair = Pair::new().await;
    let ask = async |query: &str| {
        let path = format!("/api/v1/targets/relabel_steps{query}");
        http::get(pair.agent.api(), &path).await.expect("an answer")
    };
    // {"__address__":"h:1","x_a":"b"}
    let kept = ask("?scrapePool=one&labels=%7B%22__address__%22%3A%22h%3A1%22%2C%22x_a%22%3A%22b%22%7D").await.json();
    assert_eq!(
        kept["data"]["steps"],
        json!([
            {
                "rule": {"source_labels": ["__address__"], "separator": ";", "regex": "(.*):.*", "target_label": "host",
                         "replacement": "$1", "action": "replace"},
                "output": {"__address__": "h:1", "host": "h", "x_a": "b"},
                "keep": true
            },
            {
                "rule": {"source_labels": ["drop"], "separator": ";", "regex": "me", "replacement": "$1", "action": "drop"},
                "output": {"__address__": "h:1", "host": "h", "x_a": "b"},
                "keep": true
            },
            {
                "rule": {"separator": ";", "regex": "x_(.+)", "replacement": "$1", "action": "labelmap"},
                "output": {"__address__": "h:1", "a": "b", "host": "h", "x_a": "b"},
                "keep": true
            }
        ])
    );
    let dropped = ask("?scrapePool=one&labels=%7B%22drop%22%3A%22me%22%7D").await.json();
    let steps = dropped["data"]["steps"].as_array().expect("a list");
    let told: Vec<_> = steps.iter().map(|step| (&step["keep"], &step["output"])).collect();
    assert_eq!(
        told,
        [(&json!(true), &json!({"drop": "me"})), (&json!(false), &json!({})), (&json!(false), &json!({}))]
    );
    for (query, error) in [
        ("", "no scrapePool parameter provided"),
        ("?scrapePool=one", "no labels parameter provided"),
        ("?scrapePool=x&labels=%7B%7D", "error retrieving scrape config: scrape pool \"x\" not found"),
    ] {
        let answer = ask(query).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!(error)), "{query}");
    }
    let answer = ask("?scrapePool=one&labels=%5B").await;
    assert_eq!((answer.status, &answer.json()["errorType"]), (400, &json!("bad_data")));
    pair.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quitting_over_http_is_asked_for_twice() {
    let dir = TempDir::new().expect("a directory");
    let stop = CancellationToken::new();
    let (reload, _asked) = lifecycle::reload();
    let control = lifecycle::Control { reload, stop: stop.clone() };
    let change = |options: Options| Options { control: Some(control), ..options };
    let agent = agent::start_so(dir.path(), "scrape_configs: []\n", change).await;
    let ask = async |headers: &[(&str, &str)]| {
        http::post(agent.api(), "/-/quit", headers, "").await.expect("an answer").status
    };
    assert_eq!(ask(&[]).await, 403);
    assert_eq!(ask(&[("x-meshscrape", "reload")]).await, 403);
    assert!(!stop.is_cancelled());
    assert_eq!(ask(&[("x-meshscrape", "quit")]).await, 200);
    assert!(stop.is_cancelled());
    agent.stop().await;

    let agent = agent::start(dir.path(), "scrape_configs: []\n").await;
    let answer = http::post(agent.api(), "/-/quit", &[("x-meshscrape", "quit")], "").await.expect("an answer");
    assert!(answer.status == 403 && answer.text().contains("--enable-lifecycle"), "{}", answer.text());
    agent.stop().await;
}
