//! Tools that are made for Prometheus, used on the agent as they are.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::config;
use crate::support::agent::{self, eventually};
use crate::support::ca::{Ca, CertsDir};
use crate::support::http;
use crate::support::mesh::SCRAPER;
use crate::support::process::find;
use crate::support::prometheus::Prometheus;

/// What promtool says with these arguments, and whether it is content.
fn promtool(arguments: &[&str], input: &[u8]) -> (bool, String) {
    let mut child = Command::new(find("promtool"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    // It reads all of it before it says a word.
    child.stdin.take().expect("its input").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

async fn asked(arguments: Vec<String>, input: Vec<u8>) -> (bool, String) {
    let ask = move || promtool(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &input);
    tokio::task::spawn_blocking(ask).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_the_agent_well_and_reads_its_metrics() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let certs = CertsDir::at(certs.path());
    let agent = agent::start(dir.path(), &config(&certs)).await;
    let check = async |what: &str, at: SocketAddr| {
        asked(["check", what, "--url", &format!("http://{at}")].map(str::to_owned).to_vec(), Vec::new()).await
    };
    for at in [agent.listen(), agent.api()] {
        let (well, said) = check("healthy", at).await;
        assert!(well, "{said}");
        let (ready, said) = check("ready", at).await;
        assert!(!ready && said.contains("503"), "it has no certificates: {said}");
    }
    let ca = Ca::new("cluster.local");
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    eventually("it is ready", async || check("ready", agent.listen()).await.0.then_some(())).await;

    let metrics = http::get(agent.listen(), "/metrics").await.expect("an answer");
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let (well, said) = asked(vec!["check".to_owned(), "metrics".to_owned()], metrics.body.to_vec()).await;
    assert!(well && said.is_empty(), "{said}");
    agent.stop().await;
}

/// One Prometheus scrapes the agent by the newer and by the older text format.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_gets_the_same_series_in_both_formats() {
    let (dir, certs) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let agent = agent::start(dir.path(), &config(&CertsDir::at(certs.path()))).await;
    let job = |format: &str| {
        format!(
            "- {{job_name: {format}, scrape_protocols: [{format}], scrape_interval: 1s, static_configs: [{{targets: ['{}']}}]}}\n",
            agent.listen()
        )
    };
    let formats = ["OpenMetricsText1.0.0", "PrometheusText0.0.4"];
    let prometheus = Prometheus::with_config(&format!("scrape_configs:\n{}", formats.map(job).concat())).await;
    let series = async |format: &str| {
        let all = prometheus.read(&format!("/api/v1/series?match[]=%7Bjob=%22{format}%22%7D")).await;
        let all = all.as_array().expect("a list").iter().cloned().map(|mut labels| {
            labels.as_object_mut().expect("labels").remove("job");
            labels.to_string()
        });
        all.collect::<BTreeSet<String>>()
    };
    let types = async |format: &str| {
        let path = format!("/api/v1/targets/metadata?match_target=%7Bjob=%22{format}%22%7D");
        let all = prometheus.read(&path).await;
        let text = |one: &serde_json::Value| format!("{} {} {}", one["metric"], one["type"], one["help"]);
        all.as_array().expect("a list").iter().map(text).collect::<BTreeSet<String>>()
    };
    eventually("the series are the same", async || {
        let [newer, older] = [series(formats[0]).await, series(formats[1]).await];
        (newer.len() > 50 && newer == older).then_some(())
    })
    .await;
    // OpenMetrics calls a counter by the name of its family.
    let bare = |types: BTreeSet<String>| types.into_iter().map(|one| one.replacen("_total\" ", "\" ", 1)).collect();
    let [newer, older]: [BTreeSet<String>; 2] = [bare(types(formats[0]).await), bare(types(formats[1]).await)];
    assert_eq!(newer, older);
    agent.stop().await;
}
