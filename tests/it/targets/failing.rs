//! Scrapes that go wrong, answers that lie, and answers that take their time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshscrape::model::is_stale;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{BODY, Life, OWN, SERIES, Stage, Story, Way, counting, half};
use crate::support::tls_server::{Reply, Then, always};

/// One scrape, a bad one, and good ones again: gives the target's life, and the time of the bad one.
async fn one_bad_scrape(way: Way, bad: Reply, after: &'static str, reason: &str) -> (Life, i64) {
    let stage = Stage::new(way).await;
    let server = stage.serve(counting(move |answered| match answered {
        0 => Reply::ok(BODY),
        1 => bad.clone(),
        _ => Reply::ok(after),
    }));
    stage.list(&[stage.entry(server.address(), "")]);
    let agent = stage.agent("1s", "", "").await;
    let recovered = |story: &Story| story.target(&server).failure_between_successes().is_some();
    stage.until("a good scrape, a bad one, a good one", recovered).await;
    let series = format!("meshscrape_scrape_failures_total{{job=\"j\",reason=\"{reason}\"}}");
    assert!(agent.metric(&series).await >= 1.0, "{series}");
    let life = stage.end(agent).await.target(&server);
    let at = life.failure_between_successes().expect("waited for");
    assert_eq!(life.at(at)["up"], Some(0.0));
    (life, at)
}

/// The answer did not come to its end: all series end, whether the part that came had them or not.
async fn an_answer_without_an_end_is_none(way: Way, then: Then, reason: &str) {
    let (life, at) = one_bad_scrape(way, half(then), BODY, reason).await;
    let stored = life.at(at);
    for name in SERIES {
        assert_eq!(stored.get(name), Some(&None), "{name} has a marker: {stored:?}");
        assert_eq!(life.markers()[name], 1, "{name}");
        assert!(!is_stale(life.0[name].last().expect("samples").value), "{name} goes on when the target is well again");
    }
    assert_eq!(stored["scrape_samples_scraped"], Some(0.0));
    assert_eq!(stored["scrape_samples_post_metric_relabeling"], Some(0.0));
    assert_eq!(stored["scrape_series_added"], Some(0.0));
    assert_eq!(life.markers()["up"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_ends_every_series() {
    an_answer_without_an_end_is_none(Way::Plain, Then::Cut, "http_protocol").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_workload_that_is_cut_off_ends_every_series() {
    an_answer_without_an_end_is_none(Way::Mtls, Then::Cut, "http_protocol").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_hangs_ends_every_series() {
    an_answer_without_an_end_is_none(Way::Plain, Then::Hang, "timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_workload_that_hangs_ends_every_series() {
    an_answer_without_an_end_is_none(Way::Mtls, Then::Hang, "timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cannot_be_read_ends_the_series_behind_it() {
    let bad = Reply::ok("beans 1\ncups two\nmilk 3\n");
    let (life, at) = one_bad_scrape(Way::Plain, bad, "cups 2\nmilk 3\n", "parse").await;
    let stored = life.at(at);
    assert_eq!(stored.get("beans"), None, "it was there: neither sample nor marker: {stored:?}");
    assert_eq!(stored.get("cups"), Some(&None), "{stored:?}");
    assert_eq!(stored.get("milk"), Some(&None), "{stored:?}");
    assert_eq!(stored["scrape_samples_scraped"], Some(1.0));
    // The next scrape is without it.
    assert_eq!(life.markers()["beans"], 1);
    assert!(life.0["beans"].last().is_some_and(|last| is_stale(last.value) && last.timestamp_ms > at));
}

/// Nothing that a target exposes may look like what the scraper says of it, once the receiver's labels are on it.
async fn what_a_target_says_of_itself_is_dropped(job: &str, forged: &str) {
    let stage = Stage::new(Way::Mtls).await;
    let server = stage.serve(always(Reply::ok(&format!("honest 1\n{forged}"))));
    stage.list(&[stage.entry(server.address(), "")]);
    let agent = stage.agent("2s", job, "  external_labels: {cluster: c}\n").await;
    stage.until("two scrapes", |story| story.with("__name__", "honest").samples("honest") >= 2).await;
    let dropped = agent.metric("meshscrape_forged_synthetic_samples_total").await;
    let lines = forged.lines().count() as f64;
    let story = stage.end(agent).await;

    let mut own: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (labels, sample) in &story.0 {
        let names: Vec<&str> = labels.iter().map(|(name, _)| name).collect();
        if names == ["__name__", "cluster", "instance", "job"] && labels.value("cluster") == "c" {
            own.entry(labels.value("__name__").to_owned()).or_default().push(sample.value);
        }
    }
    assert_eq!(own.keys().map(String::as_str).collect::<BTreeSet<_>>(), OWN.into_iter().chain(["honest"]).collect());
    let scrapes = own["honest"].len();
    for name in OWN {
        assert_eq!(own[name].len(), scrapes, "{name}: one sample a scrape, our own: {:?}", own[name]);
        assert!(!own[name].contains(&777.0), "{name}: {:?}", own[name]);
    }
    assert_eq!(own["up"], vec![1.0; scrapes]);
    assert!(dropped >= 2.0 * lines, "each forged sample of each scrape is counted: {dropped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_up_is_dropped_where_external_labels_are_protected() {
    what_a_target_says_of_itself_is_dropped("", "up 777\nscrape_samples_scraped 777\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_up_is_dropped_where_external_labels_may_be_exposed() {
    let job = "  protect_external_labels: false\n";
    what_a_target_says_of_itself_is_dropped(job, "up{cluster=\"c\"} 777\nscrape_samples_scraped 777\n").await;
}

/// A forged external label steps aside, so what carries it is a series of the target's own and no twin of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_external_label_never_makes_a_twin_of_up() {
    let stage = Stage::new(Way::Mtls).await;
    let server = stage.serve(always(Reply::ok("honest{cluster=\"d\"} 1\nup{cluster=\"c\"} 777\n")));
    stage.list(&[stage.entry(server.address(), "")]);
    let agent = stage.agent("1s", "", "  external_labels: {cluster: c}\n").await;
    stage.until("two scrapes", |story| story.with("__name__", "honest").samples("honest") >= 2).await;
    let story = stage.end(agent).await;
    for (labels, sample) in &story.0 {
        assert_eq!(labels.value("cluster"), "c", "{labels}");
        if labels.value("__name__") == "honest" {
            assert_eq!(labels.value("exported_cluster"), "d", "{labels}");
        }
        assert!(sample.value != 777.0 || labels.value("exported_cluster") == "c", "{labels}");
    }
}

/// Takes 3 s for its first answer and 300 ms for each later one, and tells of each request whether another was still
/// waiting for its answer when it came.
async fn sluggish(listener: TcpListener, requests: mpsc::UnboundedSender<bool>) {
    let mut delay = Duration::from_secs(3);
    let mut overlapping = false;
    let mut incoming = None;
    loop {
        let mut stream = match incoming.take() {
            Some(stream) => stream,
            None => listener.accept().await.expect("a connection").0,
        };
        while read_head(&mut stream).await {
            _ = requests.send(overlapping);
            overlapping = false;
            let due = Instant::now() + delay;
            delay = Duration::from_millis(300);
            let mut byte = [0];
            tokio::select! {
                biased;
                // The client has given up.
                _ = stream.read(&mut byte) => break,
                accepted = listener.accept() => {
                    // It may have given up just before, and both have become known at once.
                    let gave_up = timeout(Duration::from_millis(500), stream.read(&mut byte)).await;
                    overlapping = gave_up.is_err();
                    incoming = Some(accepted.expect("a connection").0);
                    break;
                }
                () = sleep_until(due) => {
                    let answer = Reply::ok(BODY).bytes;
                    if stream.write_all(&answer).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// Reads a request; false if the connection ends instead.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_scrape_never_overlaps_the_next_one() {
    let stage = Stage::new(Way::Plain).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, mut requests) = mpsc::unbounded_channel();
    let server = tokio::spawn(sluggish(listener, sender));
    stage.list(&[stage.entry(address, "")]);
    let agent = stage.agent("1s", "", "").await;
    let done = |story: &Story| {
        let life = story.with("instance", address);
        life.attempts(0.0) >= 1 && life.attempts(1.0) >= 2
    };
    stage.until("a scrape that takes too long, and two that take long", done).await;
    stage.end(agent).await;
    server.abort();
    let mut seen = Vec::new();
    while let Ok(overlapping) = requests.try_recv() {
        seen.push(overlapping);
    }
    assert!(seen.len() >= 3 && !seen.contains(&true), "{seen:?}");
}
