//! The status page: what the person on call sees, asked for as a browser does, and in one.

mod browser;
mod stage;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::TcpStream;

use self::stage::{CANARY, REASONS, Stage, renew};
use crate::support::agent::{self, eventually};
use crate::support::http::{self, Answer};
use crate::support::tls_server::{Asked, Reply, Server, Talk};

const VIEWS: [&str; 6] = ["/", "/targets", "/service-discovery", "/identity", "/remote-write", "/config"];

/// The first link of a view whose text is `name`.
fn link(page: &Answer, name: &str) -> String {
    let text = page.text();
    let end = text.find(&format!("\">{name}</a>")).unwrap_or_else(|| panic!("no link {name}: {text}"));
    let (_, url) = text[..end].rsplit_once("href=\"").expect("the link's address");
    url.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_the_api_says_and_in_the_same_words() {
    let stage = Stage::with(250).await;
    let targets = stage.agent.targets().await;
    let overview = stage.get("/").await;
    assert_eq!((overview.status, overview.header("content-type")), (200, "text/html; charset=utf-8"));
    for reason in REASONS {
        let target = targets.iter().find(|target| target["reason"] == reason).unwrap_or_else(|| panic!("{reason}"));
        let text = |name: &str| escaped(target[name].as_str().expect("a text"));
        assert!(overview.text().contains(&text("hint")), "{reason}: {}", text("hint"));
        let page = stage.get(&format!("/targets/{}", text("id"))).await;
        assert_eq!(page.status, 200);
        for name in ["reason", "hint", "expectedIdentity", "presentedIdentity"] {
            assert!(page.text().contains(&text(name)), "{reason} {name}: {}\n{}", text(name), page.text());
        }
        let list = stage.get(&format!("/targets?reason={reason}&state=down")).await;
        for other in &targets {
            let listed = list.text().contains(&format!("href=\"/targets/{}\"", other["id"].as_str().expect("an id")));
            // While this runs more of the large job are scraped, and refused.
            assert!(listed == (other["reason"] == reason) || other["scrapePool"] == "many", "{reason}: {other}");
        }
    }
    let well = targets.iter().find(|target| target["health"] == "up" && target["scrapePool"] == "shop").expect("one");
    let page = stage.get(&format!("/targets/{}", well["id"].as_str().expect("an id"))).await;
    assert!(page.text().contains("exactly this SPIFFE ID") && page.text().contains("TLSv1.3"), "{}", page.text());
    assert!(page.text().contains("role=\"img\" aria-label=\"Last "), "{}", page.text());

    let receivers = stage.get("/remote-write").await;
    for words in ["takes samples", "rejects samples", "takes nothing", "out of order: &lt;img src=x", "of them on disk"]
    {
        assert!(receivers.text().contains(words), "{words}: {}", receivers.text());
    }
    renew(&stage.mesh);
    eventually("the page tells of another certificate", async || {
        let page = stage.get("/identity").await;
        let told = page.text().contains("our certificate<span class=\"muted\">, generation ");
        told.then_some(())
    })
    .await;

    let unknown = stage.get("/targets/0000000000000000").await;
    assert_eq!((unknown.status, unknown.text().contains("No such target")), (404, true));
    let unknown = stage.get("/service-discovery/%3Cscript%3E").await;
    assert_eq!((unknown.status, unknown.text().contains("<script>")), (404, false));
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_why_a_pod_is_not_a_target() {
    let stage = Stage::with(250).await;
    let list = stage.get("/service-discovery?search=batch").await;
    assert!(list.text().contains("by relabel rule 1"), "{}", list.text());
    let page = stage.get(&link(&list, "shop/batch-28401-done")).await;
    for words in ["Why shop/batch-28401-done is not a target", "dropped here", "not reached", ".*-done"] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let list = stage.get("/service-discovery?state=malformed").await;
    assert!(list.text().contains("may not stand in an address") && !list.text().contains("batch"), "{}", list.text());
    // Of three one is remembered, and all are counted.
    let page = stage.get("/service-discovery?job=few").await;
    let count = "3 found: <a href=\"/targets?job=few\">0 targets</a>, 3 dropped by rules";
    for words in [count, "Of 2 more that rules drop only the number is known", "<td class=\"number\">3</td>"] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    let page = stage.get("/").await;
    let dropped = "<a href=\"/service-discovery?state=dropped\">4</a>";
    let others = "<a href=\"/service-discovery?state=malformed\">1</a> not fit";
    assert!(page.text().contains(dropped) && page.text().contains(others), "{}", page.text());
    for (path, to) in [("/agent", "/"), ("/status", "/"), ("/flags", "/config#command-line")] {
        let answer = stage.get(path).await;
        assert_eq!((answer.status, answer.header("location")), (303, to), "{path}");
    }
    assert!(stage.get("/config").await.text().contains(" id=\"command-line\""));
    let page = stage.get("/service-discovery?search=cart-5d9f").await;
    assert!(page.text().contains("1 target like that"), "who is a target is said to be one: {}", page.text());
    let page = stage.get("/service-discovery?search=nobody-knows").await;
    for words in ["None is like that.", "What is in none of the lists was not found", "the file "] {
        assert!(page.text().contains(words), "{words}: {}", page.text());
    }
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_use_it_and_it_gives_nothing_away() {
    let stage = Stage::with(250).await;
    let long_lived = ["/page/style.css", "/page/page.js", "/page/icon.svg"];
    let missing = ["/targets/0000000000000000"];
    for path in VIEWS.iter().chain(&long_lived).chain(&missing) {
        let answer = stage.get(path).await;
        assert_eq!(answer.status, if missing.contains(path) { 404 } else { 200 }, "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        let text = answer.text();
        assert!(!text.contains(CANARY), "{path} holds a secret");
        assert!(
            !text.contains('\u{202e}') && !text.contains('\u{1b}'),
            "{path} holds what steers a terminal or a text"
        );
        assert!(!text.contains("<img src=x"), "{path} holds an element of a stranger");

        let ask = async |method: &'static str, headers: &[(&'static str, &'static str)]| {
            let stream = TcpStream::connect(stage.agent.api()).await.expect("a connection");
            http::exchange(stream, method, path, headers, Bytes::new()).await.expect("an answer")
        };
        let head = ask("HEAD", &[]).await;
        assert_eq!((head.status, head.body.len()), (answer.status, 0), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            assert_eq!(ask(method, &[]).await.status, 405, "{method} {path}");
        }
        assert_eq!(ask("GET", &[("origin", "https://evil.example")]).await.status, 403, "{path}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: rebound.example\r\nConnection: close\r\n\r\n");
        assert_eq!(http::status_line(stage.agent.api(), &request).await, "HTTP/1.1 403 Forbidden", "{path}");
        let outside = http::get(stage.agent.listen(), path).await.expect("an answer");
        assert_eq!(outside.status, 404, "the pod's own port does not serve {path}");
    }
    stage.agent.stop().await;
}

/// A target that is well now: what it did within the time that an alert looks back is told, and then no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_did_a_moment_ago_is_told_as_long_as_an_alert_may_fire() {
    let asked = AtomicUsize::new(0);
    // The second merged answer tells that the first lacked the application; then nothing is lacking any more.
    let script = move |_: &Asked| {
        let n = asked.fetch_add(1, Ordering::Relaxed) + 1;
        let lacked = n.min(2);
        Reply::ok(&format!(
            "istio_agent_scrape_failures_total{{type=\"application\"}} {lacked}\nistio_agent_scrapes_total {n}\nenvoy_server_live{{}} 1\n"
        ))
    };
    let server = Server::start(Talk::Plain(Arc::new(script)));
    let dir = TempDir::new().expect("a directory");
    let config = format!(
        "scrape_configs: [{{job_name: shop, scrape_interval: 1s, static_configs: [{{targets: ['{}']}}]}}]\n",
        server.address()
    );
    let agent = agent::start(dir.path(), &config).await;
    agent
        .until_all("it is well again", |target| {
            target["scrapesSucceeded"].as_u64() >= Some(4) && target["reason"] == "" && target["lack"] == ""
        })
        .await;
    let told = async || {
        let page = http::get(agent.api(), "/").await.expect("the page answers");
        page.text().contains("1 target lacking something within the last 10m, and not so now")
    };
    assert!(told().await);
    agent.clock.shift(5 * 60 * 1000);
    assert!(told().await, "it was five minutes ago");
    agent.clock.shift(6 * 60 * 1000);
    assert!(!told().await, "the alert is over, too");
    agent.stop().await;
}

/// As a text stands in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
