//! How fast a backlog is delivered, and whether anybody else notices.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use meshscrape::clock::Clock;
use meshscrape::config;
use meshscrape::model::{Block, Labels, Sample, TargetId, WriteFormat};
use meshscrape::send;
use meshscrape::spool::{DiskLimits, DiskSettings, Home, Metrics, QueueSettings, Spool};
use meshscrape::wire::{compress, encode_labels, push_sample};
use prometheus_client::registry::Registry;

use super::*;
use crate::support::tls_server::{Reply, Server, Talk};

/// How often the live target is scraped.
const INTERVAL: Duration = Duration::from_millis(500);

/// What one scrape of one target gives.
fn scrape(target: usize, labels: &[Vec<u8>], timestamp_ms: i64) -> Block {
    let mut message = Vec::new();
    for (n, labels) in labels.iter().enumerate() {
        push_sample(&mut message, labels, Sample { value: n as f64, timestamp_ms });
    }
    Block {
        target: TargetId(target as u64),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: labels.len() as u32,
        min_ms: timestamp_ms,
        max_ms: timestamp_ms,
        raw_len: message.len() as u32,
        elements: Bytes::from(compress(&message).expect("a small message")),
    }
}

/// Leaves a backlog of one scrape a second on disk, as an agent that was ended leaves it; how many samples.
async fn leave_backlog(data: &Path, directory: String, targets: usize, series: usize, seconds: usize) -> u64 {
    let home = Home::take(data).expect("nobody has it");
    let spool = Spool::at(home, Clock::system(), Metrics::new(&mut Registry::default()));
    let limits = DiskLimits { max_bytes: 8 << 30, max_age: Duration::from_secs(7200) };
    let disk = Some(DiskSettings { directory, limits });
    let settings = QueueSettings { name: "one".to_owned(), labels: Vec::new(), capacity_bytes: 64 << 20, disk };
    let outlet = spool.open(0, settings);
    let encoded = |target: usize| {
        let labels = move |n: usize| -> Labels {
            let (workload, n) = (format!("workload-{}", n / 40), n.to_string());
            let instance = format!("10.0.0.{target}:15092");
            let labels = [("__name__", "istio_requests_total"), ("instance", &instance), ("job", "mesh")];
            labels.into_iter().chain([("destination_workload", &*workload), ("series", &*n)]).collect()
        };
        (0..series).map(|n| encode_labels(&labels(n))).collect::<Vec<_>>()
    };
    let encoded: Vec<_> = (0..targets).map(encoded).collect();
    let begin = Clock::system().now_ms() - 1000 * seconds as i64;
    for second in 0..seconds {
        for (target, labels) in encoded.iter().enumerate() {
            spool.push(scrape(target, labels, begin + 1000 * second as i64));
        }
        eventually("it is on disk", async || {
            let seen = outlet.snapshot();
            (seen.kept_blocks == seen.pending_blocks).then_some(())
        })
        .await;
    }
    assert_eq!(outlet.snapshot().dropped_blocks, 0);
    spool.close(0);
    drop(outlet);
    spool.finish().await;
    (targets * series * seconds) as u64
}

/// Counts the samples of the backlog, and those that are older than the last one of their series.
fn counting(backlog: Arc<AtomicU64>, out_of_order: Arc<AtomicU64>) -> Rule {
    let (hasher, mut last) = (RandomState::new(), HashMap::new());
    Box::new(move |request| {
        for (labels, sample) in &request.samples {
            let newest = last.entry(hasher.hash_one(labels)).or_insert(i64::MIN);
            if sample.timestamp_ms < *newest {
                out_of_order.fetch_add(1, Ordering::Relaxed);
            }
            *newest = sample.timestamp_ms.max(*newest);
            if labels.value("job") == "mesh" {
                backlog.fetch_add(1, Ordering::Relaxed);
            }
        }
        Answer::ok().forgetting()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_ten_times_as_fast_as_it_came_while_scraping_keeps_its_interval() {
    let (targets, series, seconds) = scale((10, 100, 60), (30, 2_000, 300));
    let dir = TempDir::new().expect("a directory");
    let (backlog, out_of_order) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let receiver = Receiver::start(counting(Arc::clone(&backlog), Arc::clone(&out_of_order))).await;
    let answered = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&answered);
    let target = Server::start(Talk::Plain(Arc::new(move |_| {
        record.lock().expect("no panic while it is held").push(Instant::now());
        Reply::ok("live 1\n")
    })));
    let file = dir.path().join("meshscrape.yaml");
    let text = format!(
        "scrape_configs:
- {{job_name: live, scrape_interval: 500ms, scrape_timeout: 500ms, static_configs: [{{targets: ['{}']}}]}}
remote_write:
- url: {}
  queue_config: {{batch_send_deadline: 100ms, max_disk: 8GiB}}
",
        target.address(),
        receiver.url(),
    );
    std::fs::write(&file, text).expect("a configuration");
    let loaded = config::load(&file, &|_| None).config.expect("it is good");
    let (data, directory) = (dir.path().join("data"), send::spool_name(&loaded.remote_write[0]));
    let samples = leave_backlog(&data, directory, targets, series, seconds).await;

    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let (file, data) = (path(&file), path(&data));
    let arguments = ["run", "--config", &file, "--data-dir", &data, "--listen", "127.0.0.1:0"];
    let began = Instant::now();
    let program = Program::start(&[&arguments[..], &["--api-listen", "127.0.0.1:0"]].concat());
    eventually("the backlog is delivered", async || (backlog.load(Ordering::Relaxed) >= samples).then_some(())).await;
    let took = began.elapsed();
    // Some more, so that there are intervals to look at.
    tokio::time::sleep(INTERVAL * 4).await;
    let watched = began.elapsed();
    drop(program);

    assert_eq!(backlog.load(Ordering::Relaxed), samples, "nothing comes twice");
    assert_eq!(out_of_order.load(Ordering::Relaxed), 0);
    let live = (targets * series) as f64;
    let rate = samples as f64 / took.as_secs_f64();
    println!("{samples} samples in {took:.2?}: {:.1} times as fast as they came", rate / live);
    assert!(rate >= 10.0 * live, "{rate:.0} samples a second, they came at {live}");
    let answered = answered.lock().expect("nobody panicked");
    let expected = watched.as_secs_f64() / INTERVAL.as_secs_f64();
    assert!(answered.len() as f64 >= expected / 2.0 - 2.0, "{} scrapes in {watched:?}", answered.len());
    let gaps: Vec<_> = answered.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let longest = gaps.iter().max().expect("some scrapes");
    println!("the longest pause between two scrapes was {longest:.2?}, of {INTERVAL:?}");
}
