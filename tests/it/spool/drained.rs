//! How fast a backlog is delivered, and whether anybody else notices.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use foldhash::quality::RandomState;
use meshscrape::clock::Clock;
use meshscrape::config;
use meshscrape::model::{Block, Labels, Sample, TargetId, WriteFormat};
use meshscrape::send;
use meshscrape::spool::{DiskLimits, DiskSettings, Home, Metrics, QueueSettings, Spool};
use meshscrape::wire::{compress, encode_labels, proto, push_sample};
use prometheus_client::registry::Registry;
use prost::Message;

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
    let disk = Some(DiskSettings { directory, limits, newest_first: false });
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

/// `prometheus.WriteRequest` with labels left as the bytes they are, which costs a receiver a fraction.
#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<Series>,
}

/// `prometheus.TimeSeries`.
#[derive(Clone, PartialEq, Message)]
struct Series {
    /// Each a `prometheus.Label`.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    labels: Vec<Bytes>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<proto::Sample>,
}

/// The bytes of a label.
fn label(name: &str, value: &str) -> Vec<u8> {
    proto::Label { name: name.to_owned(), value: value.to_owned() }.encode_to_vec()
}

/// What a receiver has seen.
#[derive(Default)]
struct Seen {
    backlog: AtomicU64,
    /// Of the backlog.
    series: AtomicU64,
    /// Those that were not newer than the last one of their series.
    out_of_order: AtomicU64,
    /// The answers of the live target, by their numbers.
    answers: Mutex<Vec<u64>>,
    /// Its `up`: when, and whether.
    up: Mutex<Vec<(i64, bool)>>,
}

/// Counts the samples of the backlog, and those that do not follow the last one of their series.
fn counting(seen: Arc<Seen>) -> Rule {
    let (hasher, mut last) = (RandomState::default(), HashMap::<_, _, RandomState>::default());
    let (backlog, live, up) = (label("job", "mesh"), label("__name__", "live"), label("__name__", "up"));
    let mut plain = snap::raw::Decoder::new();
    Box::new(move |request| {
        let message = plain.decompress_vec(&request.body).expect("a snappy block");
        let message = Request::decode(Bytes::from(message)).expect("a request");
        for series in &message.timeseries {
            let is = |label: &Vec<u8>| series.labels.iter().any(|one| one == label);
            let kind = [&backlog, &live, &up].into_iter().position(is);
            for sample in series.samples.iter().filter(|sample| !is_stale(sample.value)) {
                let before = last.insert(hasher.hash_one(&series.labels), sample.timestamp);
                if before.is_some_and(|before| sample.timestamp <= before) {
                    seen.out_of_order.fetch_add(1, Ordering::Relaxed);
                }
                match kind {
                    Some(0) => {
                        seen.series.fetch_add(u64::from(before.is_none()), Ordering::Relaxed);
                        seen.backlog.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(1) => seen.answers.lock().expect("no panic while it is held").push(sample.value as u64),
                    Some(2) => {
                        let up = (sample.timestamp, sample.value == 1.0);
                        seen.up.lock().expect("no panic while it is held").push(up);
                    }
                    _ => {}
                }
            }
        }
        Answer::ok().forgetting()
    })
}

/// Notices when this machine lets a thread wait that has next to nothing to do.
struct Watch {
    stop: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<Vec<(i64, i64)>>,
}

impl Watch {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let watching = std::thread::spawn(move || {
            let (clock, mut stalls) = (Clock::system(), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let (before, nap) = (clock.now_ms(), 10);
                std::thread::sleep(Duration::from_millis(nap));
                let after = clock.now_ms();
                if after - before > nap as i64 + 25 {
                    stalls.push((before, after));
                }
            }
            stalls
        });
        Self { stop, watching }
    }

    /// From when to when it did.
    fn stalls(self) -> Vec<(i64, i64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().expect("no panic")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_drains_ten_times_as_fast_as_it_came_while_scraping_keeps_its_interval() {
    let (targets, series, seconds) = scale((10, 100, 60), (30, 2_000, 300));
    let dir = TempDir::new().expect("a directory");
    let seen = Arc::new(Seen::default());
    let receiver = Receiver::unread(counting(Arc::clone(&seen))).await;
    let answered = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&answered);
    let target = Server::start(Talk::Plain(Arc::new(move |_| {
        Reply::ok(&format!("live {}\n", count.fetch_add(1, Ordering::SeqCst) + 1))
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
    let (began, watch) = (Instant::now(), Watch::start());
    let program = Program::start(&[&arguments[..], &["--api-listen", "127.0.0.1:0"]].concat());
    let drained = async || (seen.backlog.load(Ordering::Relaxed) >= samples).then_some(());
    eventually("the backlog is delivered", drained).await;
    let took = began.elapsed();
    // Some more, so that there are intervals to look at.
    let enough = answered.load(Ordering::SeqCst) + 4;
    eventually("more scrapes", async || (answered.load(Ordering::SeqCst) >= enough).then_some(())).await;
    program.signal("TERM");
    let ended = program.end().await;
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    let stalls = watch.stalls();

    assert_eq!(seen.backlog.load(Ordering::Relaxed), samples, "nothing comes twice");
    assert_eq!(seen.series.load(Ordering::Relaxed), (targets * series) as u64);
    assert_eq!(seen.out_of_order.load(Ordering::Relaxed), 0);
    let live = (targets * series) as f64;
    let rate = samples as f64 / took.as_secs_f64();
    println!("{samples} samples in {took:.2?}: {:.1} times as fast as they came", rate / live);
    assert!(rate >= 10.0 * live, "{rate:.0} samples a second, they came at {live}");

    let (answers, up) = (seen.answers.lock().expect("no panic"), seen.up.lock().expect("no panic"));
    // No scrape fails and no beat is left out but where the machine had no time for a thread that does nothing, either.
    let interval = INTERVAL.as_millis() as i64;
    let stalled = |from: i64, to: i64| stalls.iter().any(|stall| stall.0 < to + interval && stall.1 > from - interval);
    let failed: Vec<_> = up.iter().filter(|(_, up)| !up).map(|(at, _)| *at).collect();
    let excused = failed.iter().filter(|at| stalled(**at, **at + interval)).count();
    let given = answered.load(Ordering::SeqCst);
    let missing: Vec<_> = (1..=given).filter(|number| !answers.contains(number)).collect();
    // The one under way when it was asked to end may be missing.
    let may_miss = excused + usize::from(missing.last() == Some(&given));
    assert!(answers.is_sorted_by(|one, next| one < next), "{answers:?}");
    assert!(missing.len() <= may_miss, "of {given} answers {missing:?} are missing; {up:?}; stalls: {stalls:?}");
    assert!(failed.len() <= may_miss, "{up:?}; stalls: {stalls:?}");
    let times: Vec<_> = up.iter().map(|(at, _)| *at).collect();
    let late = times.windows(2).filter(|pair| pair[1] - pair[0] > interval * 3 / 2);
    let unexplained: Vec<_> = late.filter(|pair| !stalled(pair[0], pair[1])).collect();
    assert!(unexplained.is_empty(), "{unexplained:?} among {times:?}; stalls: {stalls:?}");
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("some scrapes");
    println!("the longest pause between two scrapes was {longest} ms, of {INTERVAL:?}; {} stalls", stalls.len());
}
