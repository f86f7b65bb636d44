//! What is in requests: a target for each test, scraped by one agent that writes both versions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use meshscrape::clock::Clock;
use meshscrape::model::Labels;
use meshscrape::wire;
use tempfile::TempDir;

use super::expositions::{CASES, Case, WITHOUT_SAMPLES};
use super::{Entry, entries, message, rules};
use crate::support::agent;
use crate::support::prometheus::Prometheus;
use crate::support::protobuf::stream;
use crate::support::receiver::{Answer, OF_2, Receiver, Recorded, always};
use crate::support::tls_server::{Asked, Reply, Server, Talk, Then};

/// How often each target is scraped before the agent is asked to stop.
pub(super) const SCRAPES: usize = 3;

/// What came for one test.
pub(super) struct Told<'a> {
    entries: &'a [Entry],
}

impl Told<'_> {
    /// The entries of a metric.
    pub(super) fn of(&self, name: &str) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| entry.name() == name).collect()
    }

    /// The values of its samples, which must be there for each scrape.
    pub(super) fn values(&self, name: &str) -> Vec<f64> {
        let values: Vec<_> = self.of(name).iter().flat_map(|entry| &entry.samples).map(|one| one.value).collect();
        if values.len() < SCRAPES { Vec::new() } else { values }
    }

    /// Whether it has this value, to the bit, each time.
    pub(super) fn is(&self, name: &str, expected: f64) -> bool {
        let values = self.values(name);
        !values.is_empty() && values.iter().all(|value| value.to_bits() == expected.to_bits())
    }

    /// Type and help of all its entries, which must be the same each time.
    pub(super) fn described(&self, name: &str) -> Option<(i32, &str)> {
        let of = self.of(name);
        let first = of.first()?.metadata.as_ref()?;
        let same = of.iter().all(|entry| entry.metadata.as_ref() == Some(first));
        same.then_some((first.0, first.1.as_str()))
    }

    /// How many series it has.
    pub(super) fn series(&self, name: &str) -> usize {
        self.of(name).iter().map(|entry| &entry.labels).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// The most entries that one request holds.
    pub(super) fn most_in_a_request(&self) -> usize {
        let mut counts = BTreeMap::<usize, usize>::new();
        self.entries.iter().for_each(|entry| *counts.entry(entry.request).or_default() += 1);
        counts.into_values().max().unwrap_or(0)
    }

    /// Whether all samples of a scrape are in one request.
    pub(super) fn whole_scrapes(&self) -> bool {
        let mut requests = BTreeMap::new();
        let mut times =
            self.entries.iter().flat_map(|entry| entry.samples.iter().map(move |one| (one.timestamp, entry)));
        times.all(|(at, entry)| *requests.entry(at).or_insert(entry.request) == entry.request)
    }
}

/// As the suite's target: OpenMetrics where there are exemplars. Protobuf where families are written as it has them.
fn reply(case: &Case) -> Reply {
    let body = (case.exposition)();
    if body.starts_with("name: ") {
        return Reply::raw(protobuf(&body), Then::Keep);
    }
    if body.contains("# {") {
        let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";
        return Reply::with("200 OK", &[kind], &format!("{body}# EOF\n"));
    }
    Reply::with("200 OK", &["Content-Type: text/plain; version=0.0.4; charset=utf-8"], &body)
}

/// A whole answer in protobuf, of families as its text format has them.
fn protobuf(families: &str) -> Vec<u8> {
    let body = stream(families.as_bytes());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
         encoding=delimited\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// How often a case is scraped, which is also how long that may take: on a loaded machine no scrape is to run out of time.
fn interval(case: &Case) -> &'static str {
    match (case.exposition)().lines().count() {
        10_000.. => "5s",
        _ => "3s",
    }
}

fn config(
    cases: &[Case],
    interval: fn(&Case) -> &'static str,
    target: &Server,
    of_2: &Receiver,
    of_1: &Receiver,
) -> String {
    let mut text = format!(
        "global: {{ scrape_native_histograms: true }}
remote_write:
  - {{ url: {}, name: two, protobuf_message: io.prometheus.write.v2.Request, send_exemplars: true, send_native_histograms: true }}
  - {{ url: {}, name: one, send_exemplars: true }}
scrape_configs:
",
        of_2.url(),
        of_1.url()
    );
    for (at, case) in cases.iter().enumerate() {
        let protocols = "[PrometheusProto, OpenMetricsText1.0.0, PrometheusText0.0.4]";
        writeln!(
            text,
            "  - {{ job_name: '{}', metrics_path: /{at}, scrape_interval: {interval}, scrape_timeout: {interval}, \
             scrape_protocols: {protocols}, static_configs: [{{ targets: ['{}'] }}] }}",
            case.name,
            target.socket(),
            interval = interval(case)
        )
        .expect("into memory");
    }
    text
}

/// The entries of requests of 2.0, by their job.
fn by_case(recorded: &[Recorded]) -> BTreeMap<String, Vec<Entry>> {
    let mut cases = BTreeMap::<String, Vec<Entry>>::new();
    for entry in recorded.iter().enumerate().flat_map(|(at, one)| entries(at, &message(one))) {
        cases.entry(entry.label("job").to_owned()).or_default().push(entry);
    }
    cases
}

/// Scrapes a target for each test, at least so often, and stops. Gives what came by 2.0 and by 1.0.
async fn play(cases: &'static [Case], scrapes: usize, interval: fn(&Case) -> &'static str) -> [Vec<Recorded>; 2] {
    let number = |asked: &Asked| asked.path().trim_start_matches('/').parse::<usize>().expect("the number of a case");
    let target = Server::start(Talk::Plain(Arc::new(move |asked| reply(&cases[number(asked)]))));
    let confirmed = Answer::ok().header("x-prometheus-remote-write-samples-written", "1000000");
    let (of_2, of_1) = (Receiver::start(always(confirmed)).await, Receiver::start(always(Answer::ok())).await);
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &config(cases, interval, &target, &of_2, &of_1)).await;
    agent::eventually("every target is scraped so often", async || {
        let mut asked = vec![0; cases.len()];
        target.requests().iter().for_each(|request| asked[number(request)] += 1);
        asked.iter().all(|count| *count > scrapes).then_some(())
    })
    .await;
    // What waits must be flushed: most requests wait for five seconds.
    assert_eq!(agent.stop().await.undelivered, 0);
    [of_2.recorded(), of_1.recorded()]
}

/// Holds every case against what came by 2.0.
fn judge(cases: &[Case], recorded: &[Recorded]) {
    assert!(recorded.iter().all(|one| one.header("content-type") == Some(OF_2)));
    let mut failed = rules::broken(recorded);
    let came = by_case(recorded);
    for case in cases {
        let told = Told { entries: came.get(case.name).map(Vec::as_slice).unwrap_or_default() };
        if !(case.holds)(&told) {
            println!("{}: {:#?}", case.name, told.entries.iter().take(20).collect::<Vec<_>>());
            failed.push(case.name);
        }
    }
    assert_eq!(failed, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_hold_what_the_list_asks_for() {
    let [of_2, of_1] = play(CASES, SCRAPES, interval).await;
    judge(CASES, &of_2);
    of_1_is_as_ever(&of_1, &by_case(&of_2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_without_samples_wait_for_company() {
    // Several scrapes are to go into the five seconds that a request waits.
    let [of_2, _] = play(WITHOUT_SAMPLES, SCRAPES + 2, |_| "1s").await;
    judge(WITHOUT_SAMPLES, &of_2);
}

/// Each has a start but the gauge; that of the last counter is in the future.
const COUNTING: &str = "\
name: \"hits_total\" type: COUNTER metric { counter { value: 3 start_timestamp { seconds: 1700000000 nanos: 250000000 } } }
name: \"level\" type: GAUGE metric { gauge { value: 1 } }
name: \"took\" type: SUMMARY metric { summary { sample_count: 2 sample_sum: 5 quantile { quantile: 0.5 value: 2 } start_timestamp { seconds: 1700000001 } } }
name: \"size\" type: HISTOGRAM metric { histogram { sample_count: 2 sample_sum: 3 bucket { cumulative_count: 1 upper_bound: 1 } start_timestamp { seconds: 1700000002 } } }
name: \"lag\" type: HISTOGRAM metric { histogram { sample_count: 1 sample_sum: 1 schema: 0 zero_threshold: 0.01 positive_span { offset: 0 length: 1 } positive_delta: 1 start_timestamp { seconds: 1700000003 } } }
name: \"early_total\" type: COUNTER metric { counter { value: 1 start_timestamp { seconds: 4102444800 } } }
";

/// Since when something counts is sent by 2.0, where the target tells it and it can be so. A real receiver takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn since_when_something_counts_is_sent_if_that_is_known() {
    let answer = protobuf(COUNTING);
    let target = Server::start(Talk::Plain(Arc::new(move |_| Reply::raw(answer.clone(), Then::Keep))));
    let (of_2, prometheus) = tokio::join!(Receiver::start(always(Answer::ok())), Prometheus::start());
    let config = format!(
        "remote_write:
  - {{ url: {}, name: two, protobuf_message: io.prometheus.write.v2.Request, send_native_histograms: true, queue_config: &soon {{ batch_send_deadline: 200ms }} }}
  - {{ url: {}, name: real, protobuf_message: io.prometheus.write.v2.Request, queue_config: *soon }}
scrape_configs:
  - {{ job_name: counting, scrape_interval: 2s, scrape_timeout: 2s, scrape_native_histograms: true, static_configs: [{{ targets: ['{}'] }}] }}
",
        of_2.url(),
        prometheus.write_url(),
        target.socket()
    );
    let dir = TempDir::new().expect("a directory");
    let agent = agent::start(dir.path(), &config).await;
    let recorded = of_2.until("the last series", |all| came(all, "early_total")).await;
    assert_eq!(rules::broken(&recorded), [""; 0]);
    let mut starts = BTreeMap::new();
    for entry in by_case(&recorded).remove("counting").expect("its entries") {
        let start = entry.samples.iter().map(|one| one.start_timestamp);
        let start = start.chain(entry.histograms.iter().map(|one| one.start_timestamp)).next().expect("one of them");
        let known = starts.insert(entry.name().to_owned(), start);
        assert!(known.is_none_or(|known| known == start), "{}: {known:?}, {start}", entry.name());
    }
    starts.retain(|name, _| !name.starts_with("scrape_"));
    let expected = [
        ("early_total", 0),
        ("hits_total", 1_700_000_000_250),
        ("lag", 1_700_000_003_000),
        ("level", 0),
        ("size_bucket", 1_700_000_002_000),
        ("size_count", 1_700_000_002_000),
        ("size_sum", 1_700_000_002_000),
        ("took", 0),
        ("took_count", 1_700_000_001_000),
        ("took_sum", 1_700_000_001_000),
        ("up", 0),
    ];
    assert_eq!(starts, expected.map(|(name, start)| (name.to_owned(), start)).into());
    let clock = Clock::system();
    agent::eventually("Prometheus has it", async || {
        (!prometheus.instant("hits_total == 3", clock.now_ms()).await.is_empty()).then_some(())
    })
    .await;
    agent.stop().await;
}

fn came(recorded: &[Recorded], name: &str) -> bool {
    recorded.iter().any(|one| one.samples.iter().any(|(labels, _)| labels.value("__name__") == name))
}

/// `TestRemoteWrite1Compatibility` and `TestRemoteWrite1Configuration`: what the same agent writes by 1.0.
fn of_1_is_as_ever(recorded: &[Recorded], of_2: &BTreeMap<String, Vec<Entry>>) {
    let mut samples = 0;
    for one in recorded {
        // rw1_version_header, rw1_content_type
        assert_eq!(one.header("x-prometheus-remote-write-version"), Some("0.1.0"));
        assert_eq!(one.header("content-type"), Some("application/x-protobuf"));
        // rw1_symbol_table_not_used: read as 2.0 it is empty, as the reserved numbers of its fields are meant to make it.
        let read_as_2 = message(one);
        assert!(read_as_2.symbols.is_empty() && read_as_2.timeseries.is_empty());
        let request = wire::decode(&one.body).expect("a request of 1.0");
        // rw1_metadata_handling
        assert!(request.metadata.is_empty() || request.timeseries.is_empty());
        for series in &request.timeseries {
            // rw1_labels_encoding
            assert!(series.labels.is_sorted_by(|one, other| one.name < other.name));
            // rw1_no_native_histograms; a sample of 1.0 has no start timestamp (rw1_no_start_timestamp).
            assert!(series.histograms.is_empty());
            samples += series.samples.len();
        }
    }
    // rw1_samples_encoding: the same samples as by 2.0.
    let of_2: usize = of_2.values().flatten().map(|entry| entry.samples.len()).sum();
    assert_eq!(samples, of_2);
    let first: Labels = recorded[0].samples[0].0.clone();
    assert!(first.contains("__name__") && first.contains("job") && first.contains("instance"));
}
