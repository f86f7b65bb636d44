//! Who may ask the program to read its configuration again: a signal, a request where it is allowed, a changed file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::agent::eventually;
use crate::support::http::{self, Answer};
use crate::support::program::Program;

/// The program with a configuration of one job, and where it listens.
struct Stage {
    program: Program,
    file: PathBuf,
    listen: SocketAddr,
    api: SocketAddr,
    _dir: TempDir,
}

const RELOAD: (&str, &str) = ("x-meshscrape", "reload");

fn config(job: &str) -> String {
    format!("scrape_configs: [{{job_name: {job}, static_configs: [{{targets: ['127.0.0.1:1']}}]}}]\n")
}

impl Stage {
    async fn new(flags: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let file = dir.path().join("meshscrape.yaml");
        std::fs::write(&file, config("first")).expect("a configuration");
        let path = file.to_str().expect("a path in UTF-8");
        let arguments = ["run", "--config", path, "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
        let program = Program::start(&[&arguments[..], flags].concat());
        let (listen, api) = (program.listen().await, program.api());
        let stage = Self { program, file, listen, api, _dir: dir };
        stage.until("first").await;
        stage
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.file, text).expect("a configuration");
    }

    async fn ask(&self, method: &str, headers: &[(&str, &str)]) -> Answer {
        let stream = TcpStream::connect(self.api).await.expect("it listens");
        http::exchange(stream, method, "/-/reload", headers, Bytes::new()).await.expect("an answer")
    }

    /// Its only job.
    async fn job(&self) -> Option<String> {
        let document: Value = http::get(self.api, "/api/v1/targets").await.ok()?.json();
        let targets = document["data"]["activeTargets"].as_array()?;
        assert!(targets.len() <= 1, "{targets:?}");
        Some(targets.first()?["scrapePool"].as_str()?.to_owned())
    }

    async fn until(&self, job: &str) {
        eventually(job, async || (self.job().await.as_deref() == Some(job)).then_some(())).await;
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let text = http::get(self.listen, "/metrics").await.expect("an answer").text().to_owned();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Stops it, and gives its log.
    async fn end(self) -> String {
        self.program.signal("TERM");
        let output = self.program.end().await;
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).expect("text") + &String::from_utf8(output.stdout).expect("text")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_it_again() {
    const SUCCESSFUL: &str = "prometheus_config_last_reload_successful ";
    let stage = Stage::new(&[]).await;
    stage.write(&config("second"));
    stage.program.signal("HUP");
    stage.until("second").await;
    stage.write("scrape_configs: [{job_name: third, color: red}]\n");
    stage.program.signal("HUP");
    let failed = async || (stage.metric(SUCCESSFUL).await == Some(0.0)).then_some(());
    eventually("it says that it failed", failed).await;
    assert_eq!(stage.job().await.as_deref(), Some("second"));
    // However often it is asked, in the end it has what the file says in the end.
    for round in 0..30 {
        stage.write(&config(&format!("round{round}")));
        stage.program.signal("HUP");
    }
    stage.until("round29").await;
    let log = stage.end().await;
    assert!(log.contains("color"), "{log}");
    assert!(log.contains("the last good one stays in force"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_only_where_it_is_allowed_and_from_whom() {
    let stage = Stage::new(&[]).await;
    stage.write(&config("second"));
    for method in ["POST", "PUT"] {
        let refused = stage.ask(method, &[RELOAD]).await;
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.text().contains("--enable-lifecycle"), "{refused:?}");
    }
    assert_eq!(stage.job().await.as_deref(), Some("first"));
    stage.end().await;

    let stage = Stage::new(&["--enable-lifecycle"]).await;
    stage.write(&config("second"));
    for (method, headers, status) in [
        ("POST", &[][..], 403),
        ("POST", &[("x-meshscrape", "scrape")], 403),
        ("POST", &[RELOAD, ("origin", "http://evil.example")], 403),
        ("GET", &[RELOAD], 405),
        ("DELETE", &[RELOAD], 405),
    ] {
        let answer = stage.ask(method, headers).await;
        assert_eq!(answer.status, status, "{method} {headers:?}: {answer:?}");
    }
    let rebound = "POST /-/reload HTTP/1.1\r\nHost: evil.example\r\nX-Meshscrape: reload\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(stage.api).await.expect("it listens");
    stream.write_all(rebound.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let elsewhere = http::post(stage.listen, "/-/reload", &[RELOAD], "").await.expect("an answer");
    assert_eq!(elsewhere.status, 404, "the pod's port tells and does nothing");
    assert_eq!(stage.job().await.as_deref(), Some("first"));

    for (method, job) in [("POST", "second"), ("PUT", "third")] {
        stage.write(&config(job));
        let answer = stage.ask(method, &[RELOAD]).await;
        assert_eq!((answer.status, answer.text()), (200, "the configuration has been reloaded\n"));
        assert_eq!(stage.job().await.as_deref(), Some(job), "it is in force when the answer comes");
    }
    stage.write("scrape_configs: [{job_name: fourth, color: red}]\n");
    let answer = stage.ask("POST", &[RELOAD]).await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("color"), "{answer:?}");
    assert_eq!(stage.job().await.as_deref(), Some("third"));
    stage.end().await;
}

/// Puts another file in place as editors and the kubelet do.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(new, file).expect("the same directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_read_again_where_that_is_wanted() {
    let stage = Stage::new(&["--watch-config"]).await;
    replace(&stage.file, &config("second"));
    stage.until("second").await;
    // One that cannot be used, and the way back.
    replace(&stage.file, "scrape_configs: [{color: red}]\n");
    let failed = async || (stage.metric("prometheus_config_last_reload_successful ").await == Some(0.0)).then_some(());
    eventually("it says that it failed", failed).await;
    // Jobs in a file of their own: there are none yet, then there is one, then it is another one.
    let jobs = stage.file.with_file_name("jobs");
    std::fs::create_dir(&jobs).expect("a directory");
    replace(&stage.file, "scrape_config_files: [jobs/*.yaml]\n");
    let succeeded =
        async || (stage.metric("prometheus_config_last_reload_successful ").await == Some(1.0)).then_some(());
    eventually("it can be used again", succeeded).await;
    for job in ["third", "fourth"] {
        replace(&jobs.join("j.yaml"), &config(job));
        stage.until(job).await;
    }
    let log = stage.end().await;
    assert_eq!(log.matches("the last good one stays in force").count(), 1, "what is wrong is told once:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_is_left_alone_where_nobody_asks() {
    let stage = Stage::new(&[]).await;
    replace(&stage.file, &config("second"));
    let read = stage.metric("prometheus_config_last_reload_success_timestamp_seconds ").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(stage.metric("prometheus_config_last_reload_success_timestamp_seconds ").await, read);
    assert_eq!(stage.job().await.as_deref(), Some("first"));
    stage.end().await;
}
