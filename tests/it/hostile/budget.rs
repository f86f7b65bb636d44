//! Targets that answer much at one time, each within its own limits: the largest one fails, and nobody else.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::support::agent::{self, eventually};
use crate::support::tls_server::{Reply, Server, Talk, Then};

const LIMIT: f64 = 8.0 * 1024.0 * 1024.0;

/// An exposition of so many series.
fn exposition(series: usize) -> String {
    let mut text = String::new();
    for number in 0..series {
        writeln!(text, "held{{number=\"{number}\"}} 1").expect("into memory");
    }
    text
}

/// A target that sends nearly all of its answer and then waits for the end, until `open` says that it need not.
fn target(series: usize, open: &Arc<AtomicBool>, end: &Arc<Notify>) -> Server {
    let (body, open, end) = (exposition(series), Arc::clone(open), Arc::clone(end));
    Server::start(Talk::Plain(Arc::new(move |_| {
        if open.load(Ordering::SeqCst) {
            return Reply::ok(&body);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        let (first, last) = body.split_at(body.len() - 1);
        Reply::raw(format!("{head}{first}"), Then::Keep).later(Arc::clone(&end), last)
    })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_scrapes_that_hold_too_much_together_the_largest_fails() {
    let (open, end, never) = (Arc::<AtomicBool>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
    let small = [target(14_000, &open, &end), target(14_000, &open, &end)];
    let large = target(32_000, &open, &never);
    let text = format!(
        "global: {{scrape_interval: 5s, scrape_timeout: 5s, scrape_memory_limit: 8MiB}}
scrape_configs:
- {{job_name: small, static_configs: [{{targets: ['{}', '{}']}}]}}
- {{job_name: large, static_configs: [{{targets: ['{}']}}]}}
",
        small[0].address(),
        small[1].address(),
        large.address()
    );
    let dir = tempfile::tempdir().expect("a directory");
    let agent = agent::start(dir.path(), &text).await;

    let failed = "meshscrape_scrape_failures_total{job=\"large\",reason=\"memory_budget\"}";
    eventually("the large one has failed", async || (agent.metric(failed).await > 0.0).then_some(())).await;
    let large_one = |target: &serde_json::Value| target["labels"]["job"] == "large";
    let targets = agent.targets().await;
    let error = targets.iter().find(|target| large_one(target)).expect("it is a target")["lastError"].to_string();
    assert!(error.contains("scrape_memory_limit") && error.contains("8388608"), "{error}");

    // The others are still held, and may end.
    eventually("no more than the limit is held", async || {
        let held = agent.metric("meshscrape_scrape_memory_bytes").await;
        (held > LIMIT / 4.0 && held <= LIMIT).then_some(())
    })
    .await;
    open.store(true, Ordering::SeqCst);
    end.notify_one();
    end.notify_one();
    agent.until_all("all are scraped, the large one at a better time", |target| target["health"] == "up").await;
    assert!(!agent.metrics().await.contains("{job=\"small\",reason=\"memory_budget\"}"));
    eventually("what was held is given back", async || {
        (agent.metric("meshscrape_scrape_memory_bytes").await == 0.0).then_some(())
    })
    .await;
    agent.stop().await;
}
