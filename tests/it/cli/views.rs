//! What `meshscrape scrape` shows of an exposition: a selection, what would be forwarded, what has changed, and why.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use super::{meshscrape, scrape, text};
use crate::support::agent::eventually;
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::program::Program;
use crate::support::tls_server::{Asked, Reply, Server, Talk, always};

const BODY: &str = "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\",pod=\"x\"} 3\nbeans_total{kind=\"robusta\"} 4\n\
                    # TYPE cups gauge\ncups 7\nbeansprouts 1\n";

/// A pod that answers always the same.
fn pod(mesh: &Mesh) -> Server {
    Server::start(Talk::Tls(mesh.cart(), always(Reply::ok(BODY))))
}

/// A pod that counts its answers.
fn counting(mesh: &Mesh) -> Server {
    let answers = AtomicUsize::new(0);
    let reply = move |_: &Asked| match answers.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::ok("a_total 1\ngone 1\nsame 1\n"),
        n => Reply::ok(&format!("a_total {}\nnew{{n=\"1\"}} 1\nsame 1\n", n * 10)),
    };
    Server::start(Talk::Tls(mesh.cart(), std::sync::Arc::new(reply)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_shown_with_what_is_said_of_its_families_and_no_other() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let url = format!("https://{}", pod.address());
    for (selectors, shown) in [
        (
            &["beans_total{kind=~\"ara.*\"}"][..],
            "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\",pod=\"x\"} 3\n",
        ),
        (&["cups", "beansprouts"], "# TYPE cups gauge\ncups 7\nbeansprouts 1\n"),
        (
            &["{kind!=\"\"}"],
            "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{kind=\"arabica\",pod=\"x\"} 3\nbeans_total{kind=\"robusta\"} 4\n",
        ),
        (&["nothing"], ""),
    ] {
        let mut more = vec!["--spiffe-id", CART];
        more.extend(selectors.iter().flat_map(|selector| ["--match", selector]));
        let output = scrape(&mesh.certs, &url, &more).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), shown, "{selectors:?}");
        assert!(text(&output.stderr).contains("samples     4 in 3 families"), "the report is on all of it");
    }
    let output = scrape(&mesh.certs, &url, &["--match", "{kind}"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("one of = != =~ !~ is expected at character 6"), "{}", text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_forwarded_is_shown_and_what_not_with_the_rule() {
    let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
    let pod = pod(&mesh);
    let (url, instance) = (format!("https://{}", pod.address()), pod.address().to_string());
    let file = dir.path().join("c.yaml");
    let config = "scrape_configs:\n- job_name: mesh\n  metric_relabel_configs:\n  - {action: drop, source_labels: [kind], regex: robusta}\n  \
                  - {action: labeldrop, regex: pod}\n- job_name: other\n";
    std::fs::write(&file, config).expect("written");
    let file = file.to_str().expect("UTF-8");

    let output =
        scrape(&mesh.certs, &url, &["--spiffe-id", CART, "--relabel", "--config", file, "--job", "mesh"]).await;
    let report = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(
        text(&output.stdout),
        format!(
            "# HELP beans Beans.\n# TYPE beans counter\nbeans_total{{instance=\"{instance}\",job=\"mesh\",kind=\"arabica\"}} 3\n\
             # TYPE cups gauge\ncups{{instance=\"{instance}\",job=\"mesh\"}} 7\nbeansprouts{{instance=\"{instance}\",job=\"mesh\"}} 1\n\
             # not forwarded: beans_total{{kind=\"robusta\"}}, by metric relabel rule 1: {{action: drop, source_labels: [kind], regex: 'robusta'}}\n"
        )
    );
    assert!(
        report.contains("samples     4 in 3 families\n  forwarded   3 series, 1 dropped by relabelling"),
        "{report}"
    );

    let json = ["--spiffe-id", CART, "--relabel", "--config", file, "--job", "mesh", "--output", "json"];
    let output = scrape(&mesh.certs, &url, &json).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["dropped"][0]["labels"]["kind"], "robusta");
    assert_eq!(document["samples"].as_array().map(Vec::len), Some(3));

    for (more, says) in [
        (&["--relabel"][..], "give --config FILE"),
        (&["--relabel", "--config", file], "say with --job which of these counts: mesh, other"),
        (&["--relabel", "--config", file, "--job", "x"], "has no job \"x\"; it has mesh, other"),
        (&["--relabel", "--config", "/nowhere.yaml"], "run `meshscrape check config /nowhere.yaml`"),
        (&["--config", file], "--relabel"),
    ] {
        let output = scrape(&mesh.certs, &url, more).await;
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(text(&output.stderr).contains(says), "{more:?}: {}", text(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_scrapes_are_compared() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = counting(&mesh);
    let url = format!("https://{}", pod.address());
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART, "--diff=200ms"]).await;
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(shown.starts_with("- gone 1\n+ new{n=\"1\"} 1\n~ a_total 1 -> 10 (+9, "), "{shown}");
    let (_, took) = shown.split_once("1 series changed, 1 appeared, 1 vanished, 1 as before in ").expect(&shown);
    let seconds: f64 = took.strip_suffix(" s\n").expect(took).parse().expect(took);
    assert!(seconds >= 0.2, "{shown}");
    assert_eq!(pod.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_sees_a_line_a_scrape_until_the_end() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = counting(&mesh);
    let (url, dir) = (format!("https://{}", pod.address()), mesh.certs.path().display().to_string());
    let arguments = ["scrape", &url, "--certs-dir", &dir, "--spiffe-id", CART, "--watch=50ms", "--output", "json"];
    let program = Program::start(&arguments);
    eventually("four scrapes", async || (pod.requests().len() >= 4).then_some(())).await;
    program.signal("INT");
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert!(lines.len() >= 3, "{lines:?}");
    assert_eq!(lines[0]["changes"], Value::Null);
    assert_eq!(lines[1]["changes"]["appeared"][0]["labels"]["__name__"], "new");
    assert!(lines.iter().all(|line| line["ok"] == true && line.get("samples").is_none()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_a_target_that_fails_is_told_each_time_and_at_the_end() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let (url, dir) = (format!("https://{}", pod.address()), mesh.certs.path().display().to_string());
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let program = Program::start(&["scrape", &url, "--certs-dir", &dir, "--spiffe-id", other, "--watch=50ms"]);
    eventually("three connections", async || (pod.connections() >= 3).then_some(())).await;
    program.signal("TERM");
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(4));
    let shown = text(&output.stdout);
    assert!(shown.lines().count() >= 2, "{shown}");
    assert!(shown.lines().all(|line| line.contains("  identity_mismatch  ") && line.ends_with("answered")), "{shown}");
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", other, "--diff=50ms"]).await;
    assert_eq!(output.status.code(), Some(4), "nothing to compare");
}

/// A pod whose Istio's agent says in its third answer that it left the application out of the second one, as of one long ago.
fn merging(mesh: &Mesh) -> Server {
    let answers = AtomicUsize::new(0);
    let reply = move |_: &Asked| {
        let n = answers.fetch_add(1, Ordering::Relaxed);
        let (failures, all) = (if n < 2 { 1 } else { 2 }, 340 + n);
        Reply::ok(&format!(
            "istio_agent_scrape_failures_total{{type=\"application\"}} {failures}\nistio_agent_scrapes_total {all}\na 1\n"
        ))
    };
    Server::start(Talk::Tls(mesh.cart(), std::sync::Arc::new(reply)))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_is_told_what_an_answer_lacks_when_it_happens() {
    let mesh = Mesh::new(ONLY_13).await;
    let dir = mesh.certs.path().display().to_string();
    let told = ["of 340 answers so far, 1 ", "", "since the scrape before, the agent gave 1 merged answers, 1 ", ""]
        .map(
            |words| {
                if words.is_empty() { String::new() } else { format!("{words}without the part of the application") }
            },
        );
    for json in [false, true] {
        let pod = merging(&mesh);
        let url = format!("https://{}", pod.address());
        let mut arguments = vec!["scrape", &url, "--certs-dir", &dir, "--spiffe-id", CART, "--watch=50ms"];
        arguments.extend(if json { &["--output", "json"][..] } else { &[] });
        let program = Program::start(&arguments);
        eventually("five scrapes", async || (pod.requests().len() >= 5).then_some(())).await;
        program.signal("INT");
        let output = program.end().await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let shown = text(&output.stdout);
        for (line, told) in shown.lines().zip(&told) {
            if json {
                let document: Value = serde_json::from_str(line).expect("a document a line");
                assert_eq!(document["lack"]["detail"].as_str().unwrap_or_default(), told, "{shown}");
            } else {
                let lacking = line.split_once("  partial_merge: ").map_or("", |(_, detail)| detail);
                assert_eq!(lacking, told, "{shown}");
            }
        }
        assert!(shown.lines().count() >= told.len(), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_lacks_is_explained() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = merging(&mesh);
    let url = format!("https://{}", pod.address());
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART, "--explain", "--output", "summary"]).await;
    let shown = text(&output.stdout);
    let verdict =
        "scraped\npartial_merge: of 340 answers so far, 1 without the part of the application\nhint: look at the port";
    let means = "\nwhat it means: Istio's agent left the part of the application, of Envoy or of its own out of merged answers;";
    assert!(shown.contains(verdict) && shown.contains(means), "{shown}");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_is_explained_step_by_step() {
    let mesh = Mesh::new(ONLY_13).await;
    let pod = pod(&mesh);
    let url = format!("https://{}", pod.address());
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", CART, "--explain", "--output", "summary"]).await;
    let shown = text(&output.stdout);
    for part in [
        &format!("  ok    who must answer   exactly {CART}: no certificate of another"),
        "  ok    connection        TCP in ",
        "  ok    TLS and identity  TLSv1.3 TLS_",
        "  ok    answer            status 200",
        "  ok    exposition        ",
        "scraped\n",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    let other = "spiffe://cluster.local/ns/shop/sa/other";
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", other, "--explain", "--output", "summary"]).await;
    let shown = text(&output.stdout);
    for part in [
        "  ok    connection        TCP in ",
        "  FAIL  TLS and identity  the handshake ended without an identity that may answer",
        "  -     answer            not reached\n  -     exposition        not reached\n",
        "identity_mismatch: expected spiffe://cluster.local/ns/shop/sa/other, but ",
        "what it means: The certificate is valid and belongs to somebody else.",
    ] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    let output = scrape(&mesh.certs, &url, &["--spiffe-id", other, "--explain", "--output", "json"]).await;
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let states: Vec<_> = document["steps"].as_array().expect("a list").iter().map(|step| &step["state"]).collect();
    assert_eq!(states, ["ok", "ok", "failed", "not_reached", "not_reached"]);
    let output = meshscrape(&["scrape", "http://127.0.0.1:1/metrics", "--explain"]).await;
    assert!(text(&output.stderr).contains("  FAIL  connection        no TCP connection came about\n"));
}
