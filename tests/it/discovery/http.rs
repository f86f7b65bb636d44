//! Lists of targets over HTTP: what is asked, what is taken, and that nothing else moves a target.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meshscrape::discover::Problem;

use super::{Discovering, directory, poll, write};
use crate::support::ca::{Ca, Leaf, LeafSpec, Name};
use crate::support::tls_server::{Reply, Script, Server, Talk, Then, closed_port};

/// How often lists are asked for here.
const OFTEN: &str = "refresh_interval: 200ms";
/// So that a test sees the first request and no other.
const ONCE: &str = "refresh_interval: 1h";

/// A server whose answer can be changed.
struct Lists {
    server: Server,
    reply: Arc<Mutex<Reply>>,
}

impl Lists {
    fn over_http(reply: Reply) -> Self {
        Self::start(Talk::Plain, reply)
    }

    fn over_https(leaf: &Leaf, reply: Reply) -> Self {
        let tls = leaf.open_server();
        Self::start(|script| Talk::Tls(tls, script), reply)
    }

    fn start(talk: impl FnOnce(Script) -> Talk, reply: Reply) -> Self {
        let reply = Arc::new(Mutex::new(reply));
        let said = Arc::clone(&reply);
        let script: Script = Arc::new(move |_| said.lock().unwrap_or_else(PoisonError::into_inner).clone());
        Self { server: Server::start(talk(script)), reply }
    }

    fn say(&self, reply: Reply) {
        *self.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/targets?env=prod", self.server.port())
    }
}

/// A list with these headers.
fn json_with(headers: &[&str], body: &str) -> Reply {
    let mut all = vec!["Content-Type: application/json"];
    all.extend(headers);
    Reply::with("200 OK", &all, body)
}

/// A list.
fn json(body: &str) -> Reply {
    json_with(&[], body)
}

fn targets(addresses: &[&str]) -> Reply {
    json(&format!("[{{\"targets\": {addresses:?}}}]"))
}

/// An entry with this URL and some more keys; a request may take as long as the time until the next one.
fn entry(url: &str, more: &str) -> String {
    format!("{{url: '{url}', {more}}}")
}

/// An entry that is asked for often.
fn often(url: &str) -> String {
    entry(url, OFTEN)
}

/// Starts discovery of one job with these entries; files are in `directory`.
fn start_in(directory: &Path, entries: &[String]) -> Discovering {
    let text = format!("scrape_configs: [{{job_name: j, http_sd_configs: [{}]}}]", entries.join(", "));
    Discovering::start(directory, &text)
}

fn start(entries: &[String]) -> Discovering {
    start_in(Path::new("."), entries)
}

/// The problem with `part` in it, once there is one.
async fn problem(running: &Discovering, part: &str) -> Problem {
    let found = || {
        let snapshot = running.discovery.snapshot();
        snapshot.problems.iter().find(|problem| problem.message.contains(part)).cloned()
    };
    let waited = tokio::time::timeout(super::PATIENCE, async {
        loop {
            match found() {
                Some(problem) => return problem,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    let problems = || running.discovery.snapshot().problems.clone();
    waited.await.unwrap_or_else(|_| panic!("{part:?} expected, {:?} found", problems()))
}

async fn no_problem(running: &Discovering) {
    poll("the end of the problem", || running.discovery.snapshot().problems.is_empty()).await;
}

#[tokio::test]
async fn the_request_is_prometheus_own() {
    let lists = Lists::over_http(targets(&["a:1"]));
    let mut running = start(&[entry(&lists.url("http"), "refresh_interval: 1s500ms")]);
    running.until(&["a:1"]).await;
    let asked = &lists.server.requests()[0];
    assert!(asked.head.starts_with("GET /targets?env=prod HTTP/1.1\r\n"), "{}", asked.head);
    let mut names: Vec<String> =
        asked.head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_ascii_lowercase())).collect();
    names.sort();
    assert_eq!(names, ["accept", "host", "user-agent", "x-prometheus-refresh-interval-seconds"]);
    for (name, value) in [
        ("accept", "application/json"),
        ("host", lists.server.address().to_string().as_str()),
        ("user-agent", concat!("meshscrape/", env!("CARGO_PKG_VERSION"))),
        ("x-prometheus-refresh-interval-seconds", "1.5"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_list_replaces_the_one_before_it() {
    let lists = Lists::over_http(json(
        r#"[{"targets": ["a:1", "b:1"], "labels": {"env": "prod", "__meta_url": "forged"}}, {"targets": ["c:1"]}]"#,
    ));
    let mut running = start(&[often(&lists.url("http"))]);
    running.until(&["a:1", "b:1", "c:1"]).await;
    let set = running.targets.borrow().clone();
    let first = set.active().next().expect("a target");
    assert_eq!(first.labels.to_string(), r#"{env="prod", instance="a:1", job="j"}"#);
    assert_eq!(first.discovered.value("__meta_url"), lists.url("http"));
    lists.say(targets(&["a:1"]));
    running.until(&["a:1"]).await;
    for (nothing, then) in [("[]", "d:1"), ("null", "e:1"), ("[{}]", "f:1")] {
        lists.say(json(nothing));
        running.until(&[]).await;
        lists.say(targets(&[then]));
        running.until(&[then]).await;
    }
    assert_eq!(running.discovery.snapshot().problems, []);
}

#[tokio::test]
async fn whatever_goes_wrong_the_targets_stay_and_the_problem_is_told() {
    let good = r#"[{"targets": ["a:1"]}]"#;
    let lists = Lists::over_http(json(good));
    let mut running = start(&[often(&lists.url("http"))]);
    running.until(&["a:1"]).await;
    let other = r#"[{"targets": ["other:1"]}]"#;
    let gzip = [0x1f_u8, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let gzipped =
        [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n", &gzip[..]].concat();
    let cut = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n[{\"targets\"";
    for (reply, part) in [
        (Reply::with("503 Service Unavailable", &["Content-Type: application/json"], other), "status 503"),
        (Reply::with("500 Internal Server Error", &["Content-Type: application/json"], other), "status 500"),
        (Reply::with("404 Not Found", &["Content-Type: application/json"], other), "status 404"),
        (Reply::with("203 Non-Authoritative", &["Content-Type: application/json"], other), "status 203"),
        (Reply::with("200 OK", &["Content-Type: text/html"], other), "content type \"text/html\""),
        (Reply::with("200 OK", &["Content-Type: application/json; charset=latin1"], other), "charset=latin1"),
        (Reply::with("200 OK", &[], other), "content type \"\""),
        (json_with(&["Content-Encoding: gzip"], other), "encoded as \"gzip\""),
        (Reply::raw(gzipped, Then::Keep), "not UTF-8"),
        (json("[{\"targets\": [\"other:1\"]}"), "line 1 column"),
        (json("[{\"targets\": [\"other:1\"]}] x"), "trailing"),
        (json("[null]"), "null"),
        (json("[{\"targets\": [\"other:1\"]}, {\"target\": []}]"), "unknown field `target`"),
        (json("[{\"targets\": [\"other:1\"], \"labels\": {\"a\": 1}}]"), "line 1 column"),
        (json("[{\"targets\": [\"other:1\"], \"labels\": {\"\": \"a\"}}]"), "a label name is empty"),
        (Reply::raw(cut, Then::Close), "http_protocol"),
        (Reply::raw("", Then::Close), "http_protocol"),
        (Reply::raw("", Then::Hang), "timeout"),
        (Reply::raw(cut, Then::Keep).drip(" "), "timeout"),
    ] {
        lists.say(reply);
        let problem = problem(&running, part).await;
        assert_eq!(problem.source, format!("http://127.0.0.1:{}/targets", lists.server.port()));
        running.until(&["a:1"]).await;
        lists.say(json(good));
        no_problem(&running).await;
    }
    let metrics = running.metrics();
    for name in ["prometheus_sd_http_failures_total ", "prometheus_sd_refresh_failures_total{mechanism=\"http\"} "] {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        assert!(line.parse::<u64>().expect("a count") >= 19, "{name}{line}");
    }
    assert!(metrics.contains("prometheus_sd_refresh_duration_seconds_count{mechanism=\"http\"} "), "{metrics}");
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_was_known_and_others_do_not_wait() {
    let (_socket, closed) = closed_port();
    let lists = Lists::over_http(targets(&["a:1"]));
    let refused = often(&format!("http://{closed}/targets"));
    let mut running = start(&[refused, often(&lists.url("http"))]);
    running.until(&["a:1"]).await;
    let problem = problem(&running, "connect_refused").await;
    assert!(!running.discovery.first_pass_done(), "what it lists is not known");
    assert_eq!(problem.source, format!("http://{closed}/targets"));
}

#[tokio::test]
async fn a_body_without_end_is_not_read_to_the_end() {
    let endless = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let lists = Lists::over_http(Reply::raw(endless, Then::Keep).flood(chunk));
    let running = start(&[entry(&lists.url("http"), ONCE)]);
    problem(&running, "more than 64 MiB").await;
}

#[tokio::test]
async fn redirects_stay_within_the_origin() {
    let elsewhere = Lists::over_http(targets(&["other:1"]));
    let other_port = format!("http://127.0.0.1:{}/targets?env=prod", elsewhere.server.port());
    let lists = Lists::over_http(Reply::redirect(307, "/targets"));
    let path_decides: Script = {
        let reply = Arc::clone(&lists.reply);
        Arc::new(move |asked| match asked.path() {
            "/list" => targets(&["a:1"]),
            _ => reply.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        })
    };
    let first = Server::start(Talk::Plain(path_decides));
    let url = format!("http://user:canary@127.0.0.1:{}/targets", first.port());
    let here = format!("http://127.0.0.1:{}/list", first.port());
    lists.say(Reply::redirect(301, "/list"));
    let mut running = start(&[often(&url)]);
    running.until(&["a:1"]).await;
    assert_eq!(first.requests()[1].header("authorization"), first.requests()[0].header("authorization"));
    let by_name = here.replace("127.0.0.1", "localhost");
    let over_tls = here.replace("http://", "https://");
    for status in [301, 302, 303, 307, 308] {
        lists.say(Reply::redirect(status, "/targets"));
        problem(&running, "circle").await;
        for place in [&other_port, &by_name, &over_tls] {
            lists.say(Reply::redirect(status, place));
            let problem = problem(&running, &format!("{status} to ")).await;
            assert!(problem.message.starts_with("redirect_refused: "), "{problem:?}");
            assert!(!problem.message.contains("canary"), "{problem:?}");
            lists.say(Reply::redirect(status, &here));
            no_problem(&running).await;
        }
    }
    assert_eq!(elsewhere.server.connections(), 0);
    running.until(&["a:1"]).await;
}

#[tokio::test]
async fn redirects_are_not_followed_where_they_are_switched_off() {
    let lists = Lists::over_http(Reply::redirect(302, "/list"));
    let running = start(&[entry(&lists.url("http"), &format!("{OFTEN}, follow_redirects: false"))]);
    problem(&running, "status 302").await;
    assert!(lists.server.requests().iter().all(|asked| asked.path() == "/targets?env=prod"));
}

#[tokio::test]
async fn credentials_are_read_for_each_request_and_the_url_may_hold_some() {
    let dir = directory();
    let token = dir.path().join("token");
    write(&token, " one\n");
    let lists = Lists::over_http(targets(&["a:1"]));
    let both = "authorization: {credentials_file: token}, http_headers: {X-Key: {values: [a], files: [token]}}";
    let with_token = entry(&lists.url("http"), &format!("{OFTEN}, {both}"));
    let mut running = start_in(dir.path(), &[with_token]);
    running.until(&["a:1"]).await;
    let sent = |header: &str| lists.server.requests().iter().any(|asked| asked.header("authorization") == Some(header));
    assert!(sent("Bearer one"));
    let keys = |keys: &str| lists.server.requests().iter().any(|asked| asked.headers("x-key").join(" ") == keys);
    assert!(keys("a one"));
    write(&token, "two");
    poll("the new token", || sent("Bearer two")).await;
    std::fs::remove_file(&token).expect("removing a file");
    let problem = problem(&running, "credentials_unreadable").await;
    assert!(problem.message.contains(&token.display().to_string()), "{problem:?}");
    running.until(&["a:1"]).await;
    write(&token, "three");
    no_problem(&running).await;
    assert!(sent("Bearer three") && keys("a three"));

    let lists = Lists::over_http(targets(&["b:1"]));
    let url = lists.url("http").replace("://", "://us%40er:canary@");
    let mut running = start(&[often(&url)]);
    running.until(&["b:1"]).await;
    // base64 of us@er:canary
    assert_eq!(lists.server.requests()[0].header("authorization"), Some("Basic dXNAZXI6Y2FuYXJ5"));
    let set = running.targets.borrow().clone();
    let label = set.active().next().expect("a target").discovered.value("__meta_url").to_owned();
    assert_eq!(label, lists.url("http"));
    lists.say(Reply::with("500 Internal Server Error", &[], "canary"));
    super::poll("a problem", || !running.discovery.snapshot().problems.is_empty()).await;
    for text in [format!("{set:?}"), format!("{:?}", running.discovery.snapshot()), running.metrics()] {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn https_is_verified_and_its_files_may_change() {
    let (right, wrong) = (Ca::new("site.example"), Ca::new("site.example"));
    let dir = directory();
    let ca_file = dir.path().join("ca.pem");
    write(&ca_file, &wrong.pem());
    let leaf = right.issue(&LeafSpec::named(vec![Name::Ip([127, 0, 0, 1].into())]));
    let lists = Lists::over_https(&leaf, targets(&["a:1"]));
    let verified = |url: &str| entry(url, &format!("{OFTEN}, tls_config: {{ca_file: ca.pem}}"));
    let mut running = start_in(dir.path(), &[verified(&lists.url("https"))]);
    problem(&running, "unknown_authority").await;
    assert_eq!(lists.server.requests().len(), 0, "nothing is asked of somebody unknown");
    write(&ca_file, &right.pem());
    running.until(&["a:1"]).await;
    no_problem(&running).await;
    write(&ca_file, &wrong.pem());
    problem(&running, "unknown_authority").await;
    running.until(&["a:1"]).await;

    write(&ca_file, &right.pem());
    let stranger = Lists::over_https(&right.issue(&LeafSpec::named(vec![Name::dns("other.example")])), json("[]"));
    let plain = Lists::over_http(json("[]"));
    // Nor does anything lead from a verified server to one that is not.
    lists.say(Reply::redirect(302, &plain.url("http")));
    let urls = [&stranger, &plain, &lists].map(|lists| verified(&lists.url("https")));
    let running = start_in(dir.path(), &urls);
    for part in ["host_name_mismatch", "plaintext_server", "redirect_refused"] {
        problem(&running, part).await;
    }
    assert_eq!(plain.server.requests().len(), 0);
}

#[tokio::test]
async fn equal_entries_are_asked_for_once() {
    let lists = Lists::over_http(targets(&["a:1"]));
    let entry = entry(&lists.url("http"), ONCE);
    let text = format!(
        "scrape_configs: [{{job_name: one, http_sd_configs: [{entry}]}},
            {{job_name: two, http_sd_configs: [{entry}, {entry}]}}]"
    );
    let mut running = Discovering::start(Path::new("."), &text);
    running.until(&["a:1", "a:1"]).await;
    assert_eq!(lists.server.requests().len(), 1);
}

#[tokio::test]
async fn a_host_that_cannot_be_dialled_is_a_problem_and_no_more() {
    let lists = Lists::over_http(targets(&["a:1"]));
    let mut running = start(&[often("http://a+b/targets"), often(&lists.url("http"))]);
    let problem = problem(&running, "'+' may not stand in an address").await;
    assert_eq!(problem.source, "http://a+b/targets");
    running.until(&["a:1"]).await;
}

#[tokio::test]
async fn the_end_is_seen_while_a_server_hangs() {
    let lists = Lists::over_http(Reply::raw("", Then::Hang));
    let mut running = start(&[entry(&lists.url("http"), ONCE)]);
    lists.server.hanging().await;
    running.cancel.cancel();
    let ended = tokio::time::timeout(super::PATIENCE, async { while running.targets.changed().await.is_ok() {} });
    ended.await.expect("discovery ends");
}
