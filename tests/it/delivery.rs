//! Delivery: what goes into the spool comes out at a receiver, in order, at least once, and costs nobody else anything
//! when the receiver is down, slow, hostile, or somebody else.
//!
//! Over real sockets. Time is real, because the clients' sockets are; pauses are made short by configuration, and only
//! lower bounds of a time are asserted.

mod again;
mod narrowing;
mod received;
mod refusing;
mod retrying;
mod searching;
mod secrecy;
mod tenants;
mod too_large;
mod verified;
mod version2;
mod window;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meshscrape::clock::Clock;
use meshscrape::config::{MetadataConfig, OrdinaryTls, QueueConfig, ReceiverSecurity, RemoteWrite, SpiffeReceiver};
use meshscrape::identity::Credentials;
use meshscrape::model::{Block, Labels, Metadata, MetricType, Sample, TargetId, WriteFormat};
use meshscrape::send::{self, HistogramsDropped, Monitor, Prepared, ReceiverSnapshot, TroubleKind, Undelivered};
use meshscrape::spool::{self, DiskSettings, QueueSettings, Spool};
use meshscrape::wire::v2::{Dictionary, Draft, What};
use meshscrape::wire::{self, compress, encode_labels, push_sample};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::agent::eventually;
use crate::support::receiver::{Answer, Receiver, always, script};

/// How long anything is waited for before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A receiver's configuration that retries fast and does not wait for company.
fn remote(name: &str, url: &str) -> RemoteWrite {
    RemoteWrite {
        name: name.to_owned(),
        url: url.parse().expect("a URL"),
        headers: Vec::new(),
        http_headers: Vec::new(),
        tenant: None,
        proxies: None,
        remote_timeout: Duration::from_secs(20),
        auth: None,
        oauth2: None,
        message: WriteFormat::V1,
        security: ReceiverSecurity::Ordinary(OrdinaryTls::default()),
        follow_redirects: true,
        enable_http2: false,
        send_native_histograms: false,
        send_exemplars: false,
        write_relabel: Vec::new(),
        metadata: MetadataConfig::default(),
        queue: QueueConfig {
            batch_send_deadline: Duration::from_millis(1),
            min_backoff: Duration::from_millis(5),
            max_backoff: Duration::from_millis(20),
            ..QueueConfig::default()
        },
    }
}

/// The same for whoever gets requests of so many samples, and no smaller one before the end.
fn filling(url: &str, samples: usize) -> RemoteWrite {
    let mut remote = remote("main", url);
    remote.queue.max_samples_per_send = samples;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    remote
}

/// What every receiver is told of metric families, a minute after its start if no test says otherwise.
fn family(name: &str) -> Arc<Metadata> {
    let (family, help) = (name.into(), "How full it is".into());
    Arc::new(Metadata { family, kind: MetricType::Gauge, help, unit: Arc::default() })
}

/// What one scrape of one target gives: `series` samples, numbered by `scrape`.
fn block_of(target: u64, scrape: u32, series: u32) -> Block {
    let timestamp_ms = Clock::system().now_ms() + i64::from(scrape);
    let mut message = Vec::new();
    for n in 0..series {
        let labels: Labels =
            [("__name__", "probe"), ("target", &target.to_string()), ("n", &n.to_string())].into_iter().collect();
        push_sample(&mut message, &encode_labels(&labels), Sample { value: f64::from(scrape), timestamp_ms });
    }
    Block {
        target: TargetId(target),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: series,
        min_ms: timestamp_ms,
        max_ms: timestamp_ms,
        raw_len: message.len() as u32,
        elements: Bytes::from(compress(&message).expect("a small message")),
    }
}

/// The same as remote write 2.0 has it.
fn block2_of(target: u64, scrape: u32, series: u32) -> Block {
    let of_1 = block_of(target, scrape, series);
    let mut dictionary = Dictionary::default();
    let mut encode = |n: u32| {
        let labels = [("__name__", "probe"), ("target", &target.to_string()), ("n", &n.to_string())];
        dictionary.encode(&labels.into_iter().collect())
    };
    let labels: Vec<_> = (0..series).map(&mut encode).collect();
    let metadata = family("probe");
    let mut draft = Draft::new(&dictionary);
    for labels in &labels {
        let what = What { labels, metadata: Some(&metadata) };
        draft.push_sample(what, Sample { value: f64::from(scrape), timestamp_ms: of_1.min_ms }, None);
    }
    in_format_2(of_1, &draft.finish())
}

/// The block with this message of remote write 2.0 in it instead.
fn in_format_2(block: Block, message: &[u8]) -> Block {
    let elements = Bytes::from(compress(message).expect("a small message"));
    Block { format: WriteFormat::V2, raw_len: message.len() as u32, elements, ..block }
}

/// The values that arrived for one target, in order.
fn values_of(target: u64, samples: &[(Labels, Sample)]) -> Vec<f64> {
    let target = target.to_string();
    samples.iter().filter(|(labels, _)| labels.get("target") == Some(&target)).map(|(_, sample)| sample.value).collect()
}

/// Waits until a receiver is seen to be so.
async fn until(monitor: &Monitor, enough: impl Fn(&ReceiverSnapshot) -> bool) -> ReceiverSnapshot {
    let wait = async {
        loop {
            let seen = monitor.snapshot();
            if enough(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    seen.unwrap_or_else(|_| panic!("it did not come so: {:?}", monitor.snapshot()))
}

/// Waits until there is trouble of this kind, and gives what is said of it.
async fn trouble(monitor: &Monitor, kind: TroubleKind) -> String {
    let so = |seen: &ReceiverSnapshot| seen.trouble.as_ref().is_some_and(|(_, trouble)| trouble.kind == kind);
    until(monitor, so).await.trouble.expect("just seen").1.detail
}

/// Spool and senders, as the agent puts them together.
struct Pipe {
    inlet: mpsc::Sender<Block>,
    monitors: Vec<Monitor>,
    running: Vec<JoinHandle<Undelivered>>,
    give_up: CancellationToken,
    registry: Registry,
}

impl Pipe {
    /// For ordinary receivers.
    fn to(remotes: Vec<RemoteWrite>) -> Self {
        Self::with(remotes, Clock::system(), |_| unreachable!("no receiver here is verified by SPIFFE ID"))
    }

    fn with(
        remotes: Vec<RemoteWrite>,
        clock: Clock,
        credentials: impl Fn(&SpiffeReceiver) -> watch::Receiver<Arc<Credentials>>,
    ) -> Self {
        let mut registry = Registry::default();
        let spool = Spool::new(spool::Metrics::new(&mut registry));
        Self::over(spool, None, registry, remotes, clock, credentials)
    }

    /// With what is on disk.
    fn over(
        spool: Spool,
        disk: Option<DiskSettings>,
        mut registry: Registry,
        remotes: Vec<RemoteWrite>,
        clock: Clock,
        credentials: impl Fn(&SpiffeReceiver) -> watch::Receiver<Arc<Credentials>>,
    ) -> Self {
        let metrics = send::Metrics::new(&mut registry);
        let (inlet, blocks) = mpsc::channel(16);
        tokio::spawn(spool.clone().run(blocks));
        let give_up = CancellationToken::new();
        let (mut monitors, mut running) = (Vec::new(), Vec::new());
        for (number, remote) in remotes.into_iter().enumerate() {
            let settings = QueueSettings {
                name: remote.name.clone(),
                labels: send::labels(&remote),
                capacity_bytes: remote.queue.max_memory,
                disk: disk.clone(),
            };
            let outlet = spool.open(number, settings);
            let prepared = Prepared::new(Arc::new(remote)).expect("usable");
            let sender = prepared.sender(
                outlet,
                &credentials,
                clock.clone(),
                &metrics,
                Arc::new(|| vec![family("fill"), family("fullness")]),
                HistogramsDropped::default(),
            );
            monitors.push(sender.monitor());
            running.push(tokio::spawn(sender.run(give_up.clone())));
        }
        Self { inlet, monitors, running, give_up, registry }
    }

    async fn push(&self, block: Block) {
        self.inlet.send(block).await.expect("the spool runs");
    }

    /// Scraping has ended: everything that is left is delivered, or given up.
    async fn end(self) -> Vec<Undelivered> {
        drop(self.inlet);
        let mut left = Vec::new();
        for one in self.running {
            let ended = tokio::time::timeout(PATIENCE, one).await;
            left.push(ended.expect("senders end once the spool is dry").expect("no panic"));
        }
        left
    }

    /// What `/metrics` says of one metric; the first line that begins so.
    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("into memory");
        text
    }
}

#[tokio::test]
async fn a_request_is_what_the_specification_says() {
    let receiver = Receiver::start(script([Answer::status(500)])).await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    pipe.push(block_of(1, 1, 3)).await;

    let recorded = receiver.requests(2).await;
    for one in &recorded {
        assert_eq!((one.method.as_str(), one.path_and_query.as_str()), ("POST", "/api/v1/write"));
        for (name, value) in [
            ("content-encoding", "snappy"),
            ("content-type", "application/x-protobuf"),
            ("x-prometheus-remote-write-version", "0.1.0"),
            ("user-agent", concat!("meshscrape/", env!("CARGO_PKG_VERSION"))),
            ("content-length", &one.body.len().to_string()),
        ] {
            assert_eq!(one.header(name), Some(value), "{name}");
        }
        assert_eq!(one.samples.len(), 3);
    }
    assert_eq!(recorded[0].header("retry-attempt"), None);
    assert_eq!(recorded[1].header("retry-attempt"), Some("1"));
    assert_eq!(recorded[0].body, recorded[1].body);
    assert_eq!(recorded[0].connection, recorded[1].connection, "connections are kept");
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

#[tokio::test]
async fn many_small_targets_share_a_request() {
    let receiver = Receiver::start(script([])).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    remote.queue.max_samples_per_send = 100;
    let pipe = Pipe::to(vec![remote]);
    for target in 0..25 {
        pipe.push(block_of(target, 1, 5)).await;
    }

    let first = &receiver.requests(1).await[0];
    assert_eq!(first.samples.len(), 100, "a full request goes without waiting");
    pipe.end().await;
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    assert_eq!(sizes, [100, 25], "and the rest goes when the end is near");
}

#[tokio::test]
async fn metrics_carry_the_names_that_alerts_ask_for() {
    let receiver = Receiver::start(script([Answer::status(503)])).await;
    let pipe = Pipe::to(vec![remote("main", &format!("{}?token=canary", receiver.url()))]);
    let block = block_of(1, 1, 7);
    let newest = block.max_ms as f64 / 1000.0;
    pipe.push(block).await;
    receiver.samples(7).await;
    let monitor = pipe.monitors[0].clone();
    until(&monitor, |seen| seen.delivered_samples == 7).await;

    let labels = format!("{{remote_name=\"main\",url=\"{}\"}}", receiver.url());
    let value = |name: &str| pipe.metric(&format!("prometheus_remote_storage_{name}{labels}"));
    assert_eq!(value("samples_total"), 14.0, "every attempt counts");
    assert_eq!(value("samples_retried_total"), 7.0);
    assert_eq!(value("samples_failed_total"), 0.0);
    assert_eq!(value("samples_pending"), 0.0);
    assert_eq!(value("bytes_total"), 2.0 * receiver.recorded()[0].body.len() as f64);
    assert_eq!(value("sent_batch_duration_seconds_count"), 2.0);
    assert_eq!(value("queue_highest_sent_timestamp_seconds"), newest);
    assert_eq!(value("max_samples_per_send"), 2000.0);
    assert_eq!((value("shards_min"), value("shards_max")), (1.0, 4.0));
    assert!(value("shards") <= 4.0 && value("shards_desired") >= 0.0);
    assert_eq!(pipe.metric("prometheus_remote_storage_highest_timestamp_in_seconds "), newest);
    let dropped =
        format!("prometheus_remote_storage_samples_dropped_total{},reason=\"too_old\"}}", &labels[..labels.len() - 1]);
    assert_eq!(pipe.metric(&dropped), 0.0);
    assert!(!pipe.metrics().contains("canary"));
}

#[tokio::test]
async fn one_dead_receiver_costs_the_other_nothing() {
    let (alive, hanging) = (Receiver::start(script([])).await, Receiver::start(always(Answer::hang())).await);
    let pipe = Pipe::to(vec![remote("alive", &alive.url()), remote("hanging", &hanging.url())]);
    for scrape in 0..200 {
        for receiver in 0..2 {
            pipe.push(Block { receiver, ..block_of(1, scrape, 10) }).await;
        }
    }
    let samples = alive.samples(2000).await;
    assert!(values_of(1, &samples).is_sorted());
    until(&pipe.monitors[0], |seen| seen.queue.pending_samples == 0).await;
    until(&pipe.monitors[1], |seen| seen.queue.pending_samples == 2000).await;
    pipe.give_up.cancel();
    assert_eq!(pipe.end().await[0], Undelivered::default());
}

#[tokio::test]
async fn a_shutdown_delivers_what_is_left_without_waiting_for_more() {
    let receiver = Receiver::start(script([Answer::status(503), Answer::cut()])).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..10 {
        pipe.push(block_of(1, scrape, 10)).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(receiver.samples(100).await.len(), 100);
}

#[tokio::test]
async fn a_shutdown_ends_at_its_deadline_and_says_what_is_lost() {
    let receiver = Receiver::start(script([Answer::ok(), Answer::hang()])).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 10;
    let (log, _guard) = secrecy::capture();
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..5 {
        pipe.push(Block { histograms: 3, exemplars: 2, ..block_of(1, scrape, 10) }).await;
    }
    receiver.requests(2).await;
    pipe.give_up.cancel();
    eventually("the sender has ended", async || pipe.running[0].is_finished().then_some(())).await;
    let failed = ["samples", "histograms", "exemplars"]
        .map(|kind| pipe.metric(&format!("prometheus_remote_storage_{kind}_failed_total")));
    assert_eq!(failed, [28.0, 12.0, 8.0]);
    assert_eq!(pipe.end().await, [Undelivered { blocks: 4, samples: 40 }], "one was delivered, one is cut off");
    let said = log.text();
    let line = said.lines().find(|line| line.contains("these samples are lost")).expect("it is said");
    assert!(line.contains("blocks=4") && line.contains("samples=40"), "{line}");
}
