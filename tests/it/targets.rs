//! Targets that come, change, fail and go, through a whole agent: what each leaves behind at the receiver, and whom the
//! agent talks to meanwhile.
//!
//! The targets stand in a file that the tests replace; the servers do as they are told, in the clear or as workloads of a
//! mesh; the receiver writes down every sample in the order in which it comes.

mod failing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshscrape::model::{Labels, Sample, is_stale};
use tempfile::TempDir;

use crate::support::agent::{self, Running};
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::receiver::{Answer, Receiver, Recorded, always as answering};
use crate::support::tls_server::{Reply, Script, Server, Talk, Then, always};

/// What a target exposes when all is well.
const BODY: &str = "beans 1\ncups 2\nmilk 3\n";
/// The series in it.
const SERIES: [&str; 3] = ["beans", "cups", "milk"];
/// What the scraper adds to them.
const OWN: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// How targets are reached.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    Mtls,
}

/// A receiver, a file of targets, and servers to put into it.
struct Stage {
    dir: TempDir,
    mesh: Option<Mesh>,
    receiver: Receiver,
}

impl Stage {
    async fn new(way: Way) -> Self {
        let mesh = match way {
            Way::Plain => None,
            Way::Mtls => Some(Mesh::new(ONLY_13).await),
        };
        let receiver = Receiver::start(answering(Answer::ok())).await;
        Self { dir: TempDir::new().expect("a directory"), mesh, receiver }
    }

    fn serve(&self, script: Script) -> Server {
        Server::start(match &self.mesh {
            None => Talk::Plain(script),
            Some(mesh) => Talk::Tls(mesh.cart(), script),
        })
    }

    /// One target for the file, with labels of its own (`a: b, c: d`).
    fn entry(&self, address: impl std::fmt::Display, labels: &str) -> String {
        let identity = if self.mesh.is_some() { format!("__spiffe_id__: '{CART}', ") } else { String::new() };
        format!("- {{targets: ['{address}'], labels: {{{identity}{labels}}}}}\n")
    }

    /// Replaces the file of targets, as a whole.
    fn list(&self, entries: &[String]) {
        let new = self.dir.path().join("targets.new");
        let text = if entries.is_empty() { "[]\n".to_owned() } else { entries.concat() };
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.dir.path().join("targets.yaml")).expect("renamed");
    }

    /// The agent with one job `j`, which has these lines of its own; `global` are lines of that section.
    async fn agent(&self, interval: &str, job: &str, global: &str) -> Running {
        let security = self.mesh.as_ref().map_or(String::new(), |mesh| {
            format!("  scheme: https\n  tls_config: {{certs_dir: '{}', spiffe: {{}}}}\n", mesh.certs.path().display())
        });
        let config = format!(
            "global:\n  scrape_interval: {interval}\n  scrape_timeout: {interval}\n{global}\
             scrape_configs:\n- job_name: j\n  file_sd_configs: [{{files: ['{}']}}]\n{security}{job}\
             remote_write:\n- url: {}\n  queue_config: {{batch_send_deadline: 20ms}}\n",
            self.dir.path().join("targets.yaml").display(),
            self.receiver.url()
        );
        agent::start(self.dir.path(), &config).await
    }

    /// Waits until what the receiver has taken is enough, and gives it.
    async fn until(&self, what: &str, enough: impl Fn(&Story) -> bool) -> Story {
        Story::of(&self.receiver.until(what, |recorded| enough(&Story::of(recorded))).await)
    }

    /// Stops the agent and gives everything that the receiver has taken.
    async fn end(&self, agent: Running) -> Story {
        assert_eq!(agent.stop().await.undelivered, 0);
        Story::of(&self.receiver.recorded())
    }
}

/// All samples that the receiver took, in the order in which they came.
struct Story(Vec<(Labels, Sample)>);

impl Story {
    fn of(recorded: &[Recorded]) -> Self {
        Self(recorded.iter().filter(|one| one.was_taken()).flat_map(|one| one.samples.clone()).collect())
    }

    /// The series that have this label, by the name of the metric: no metric here has two series with one such label.
    fn with(&self, label: &str, value: impl ToString) -> Life {
        let value = value.to_string();
        let mut series: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for (labels, sample) in self.0.iter().filter(|(labels, _)| labels.value(label) == value) {
            series.entry(labels.value("__name__").to_owned()).or_default().push(*sample);
        }
        Life(series)
    }

    fn target(&self, server: &Server) -> Life {
        self.with("instance", server.address())
    }

    /// Where the first and the last sample with this label stand.
    fn span(&self, label: &str, value: &str) -> (usize, usize) {
        let mut places = self.0.iter().enumerate().filter(|(_, (labels, _))| labels.value(label) == value);
        let first = places.next().expect("a sample with the label").0;
        (first, places.next_back().map_or(first, |(last, _)| last))
    }
}

/// What came of one target, by metric.
struct Life(BTreeMap<String, Vec<Sample>>);

impl Life {
    fn names(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    fn samples(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, Vec::len)
    }

    /// How many attempts ended with this value of `up`.
    fn attempts(&self, up: f64) -> usize {
        self.0.get("up").map_or(0, |samples| samples.iter().filter(|sample| sample.value == up).count())
    }

    /// Whether exactly these metrics have come, and a marker is the last of each.
    fn has_ended(&self, names: impl IntoIterator<Item = &'static str>) -> bool {
        let last_is_marker = |samples: &Vec<Sample>| samples.last().is_some_and(|last| is_stale(last.value));
        self.names() == names.into_iter().collect() && self.0.values().all(last_is_marker)
    }

    /// How many markers each metric has.
    fn markers(&self) -> BTreeMap<&str, usize> {
        let count = |samples: &[Sample]| samples.iter().filter(|sample| is_stale(sample.value)).count();
        self.0.iter().map(|(name, samples)| (name.as_str(), count(samples))).collect()
    }

    /// What was stored for this moment; a marker is `None`.
    fn at(&self, timestamp_ms: i64) -> BTreeMap<&str, Option<f64>> {
        let mut stored = BTreeMap::new();
        for (name, samples) in &self.0 {
            for sample in samples.iter().filter(|sample| sample.timestamp_ms == timestamp_ms) {
                let value = (!is_stale(sample.value)).then_some(sample.value);
                assert!(stored.insert(name.as_str(), value).is_none(), "{name} has two samples of one time");
            }
        }
        stored
    }

    /// The time of the first attempt that failed after one that succeeded, if another has succeeded since.
    fn failure_between_successes(&self) -> Option<i64> {
        let ups = self.0.get("up")?;
        let good = ups.iter().position(|sample| sample.value == 1.0)?;
        let bad = good + ups[good..].iter().position(|sample| sample.value == 0.0)?;
        ups[bad..].iter().any(|sample| sample.value == 1.0).then(|| ups[bad].timestamp_ms)
    }
}

fn everything() -> impl Iterator<Item = &'static str> {
    SERIES.into_iter().chain(OWN)
}

/// A script that knows how many requests were answered before.
fn counting(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Script {
    let answered = AtomicUsize::new(0);
    Arc::new(move |_| reply(answered.fetch_add(1, Ordering::SeqCst)))
}

/// The beginning of a good answer: one sample and a half of the three.
fn half(then: Then) -> Reply {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
    Reply::raw(format!("{head}Content-Length: {}\r\n\r\n{}", BODY.len(), &BODY[..10]), then)
}

async fn a_removed_target_ends(way: Way) {
    let stage = Stage::new(way).await;
    let (goes, stays) = (stage.serve(always(Reply::ok(BODY))), stage.serve(always(Reply::ok(BODY))));
    stage.list(&[stage.entry(goes.address(), ""), stage.entry(stays.address(), "")]);
    let agent = stage.agent("2s", "", "").await;
    let scraped = |story: &Story| [&goes, &stays].iter().all(|server| story.target(server).attempts(1.0) >= 2);
    stage.until("both targets are scraped", scraped).await;

    stage.list(&[stage.entry(stays.address(), "")]);
    let story = stage.until("the end of every series", |story| story.target(&goes).has_ended(everything())).await;
    let seen = story.target(&stays).attempts(1.0);
    stage.until("the other one is scraped on", |story| story.target(&stays).attempts(1.0) > seen + 1).await;
    let targets = agent.targets().await;
    assert_eq!(targets.iter().map(agent::instance).collect::<Vec<_>>(), [stays.address().to_string()]);
    let requests = goes.requests().len();

    let story = stage.end(agent).await;
    assert_eq!(story.target(&goes).markers(), everything().map(|name| (name, 1)).collect());
    assert!(story.target(&goes).has_ended(everything()), "nothing follows the markers");
    assert_eq!(story.target(&stays).markers(), everything().map(|name| (name, 0)).collect());
    assert_eq!(goes.requests().len(), requests, "nobody asks it any more");
    assert_eq!(stays.connections(), 1, "the other one is not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_target_ends_with_all_its_series() {
    a_removed_target_ends(Way::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_workload_ends_with_all_its_series() {
    a_removed_target_ends(Way::Mtls).await;
}

async fn a_target_removed_in_the_middle_of_a_scrape_ends(way: Way) {
    let stage = Stage::new(way).await;
    let script = counting(|answered| if answered == 0 { Reply::ok(BODY) } else { half(Then::Hang) });
    let server = stage.serve(script);
    stage.list(&[stage.entry(server.address(), "")]);
    let agent = stage.agent("2s", "", "").await;
    server.hanging().await;
    stage.list(&[]);
    stage.until("the end of every series", |story| story.target(&server).has_ended(everything())).await;
    assert_eq!(agent.targets().await.len(), 0);
    let story = stage.end(agent).await;
    assert!(story.target(&server).has_ended(everything()), "nothing follows the markers");
    assert_eq!(story.target(&server).attempts(1.0), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_removed_in_the_middle_of_a_scrape_ends_with_all_its_series() {
    a_target_removed_in_the_middle_of_a_scrape_ends(Way::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_removed_in_the_middle_of_a_scrape_ends_with_all_its_series() {
    a_target_removed_in_the_middle_of_a_scrape_ends(Way::Mtls).await;
}

async fn another_label_set_is_another_target(way: Way, scrape_in_progress: bool) {
    let stage = Stage::new(way).await;
    let script = counting(move |answered| match answered {
        1 if scrape_in_progress => half(Then::Hang),
        _ => Reply::ok(BODY),
    });
    let server = stage.serve(script);
    stage.list(&[stage.entry(server.address(), "team: blue")]);
    let agent = stage.agent("2s", "", "").await;
    if scrape_in_progress {
        server.hanging().await;
    } else {
        stage.until("a scrape", |story| story.with("team", "blue").attempts(1.0) >= 1).await;
    }
    stage.list(&[stage.entry(server.address(), "team: red")]);
    stage.until("a scrape under the new label", |story| story.with("team", "red").attempts(1.0) >= 1).await;

    let story = stage.end(agent).await;
    let blue = story.with("team", "blue");
    assert!(blue.has_ended(everything()), "{:?}", blue.markers());
    let (_, last_of_blue) = story.span("team", "blue");
    let (first_of_red, _) = story.span("team", "red");
    assert!(last_of_blue < first_of_red, "the old series end before the new ones begin");
    assert!(story.0[last_of_blue].1.timestamp_ms <= story.0[first_of_red].1.timestamp_ms);
    assert_eq!(story.with("team", "red").names(), everything().collect());
    assert_eq!(server.connections(), 2, "the new target does not inherit the connection of the old one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_under_another_label_begins_when_the_old_one_has_ended() {
    another_label_set_is_another_target(Way::Plain, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_under_another_label_begins_when_the_old_one_has_ended() {
    another_label_set_is_another_target(Way::Mtls, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_relabelled_in_the_middle_of_a_scrape_begins_when_the_old_one_has_ended() {
    another_label_set_is_another_target(Way::Mtls, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_moves_to_another_path_goes_on_with_its_series() {
    let stage = Stage::new(Way::Mtls).await;
    let server = stage.serve(always(Reply::ok(BODY)));
    stage.list(&[stage.entry(server.address(), "__metrics_path__: /old")]);
    let agent = stage.agent("1s", "", "").await;
    stage.until("a scrape", |story| story.target(&server).attempts(1.0) >= 1).await;
    stage.list(&[stage.entry(server.address(), "__metrics_path__: /new")]);
    let asked = || server.requests().iter().filter(|asked| asked.path() == "/new").count();
    stage.until("two scrapes of the new path", |story| asked() >= 2 && story.target(&server).attempts(1.0) >= 3).await;

    let story = stage.end(agent).await;
    let life = story.target(&server);
    assert_eq!(life.markers(), everything().map(|name| (name, 0)).collect(), "nothing has ended");
    for (name, samples) in &life.0 {
        assert!(samples.is_sorted_by_key(|sample| sample.timestamp_ms), "{name}: {samples:?}");
    }
    let requests = server.requests();
    let paths: Vec<&str> = requests.iter().map(|asked| asked.path()).collect();
    let moved_at = paths.iter().position(|path| *path == "/new").expect("the new path was asked for");
    assert!(paths[..moved_at].iter().all(|path| *path == "/old"), "{paths:?}");
    assert!(paths[moved_at..].iter().all(|path| *path == "/new"), "{paths:?}");
}

async fn what_nobody_stores_does_not_disturb(way: Way) {
    let stage = Stage::new(way).await;
    let (server, newcomer) = (stage.serve(always(Reply::ok(BODY))), stage.serve(always(Reply::ok(BODY))));
    stage.list(&[stage.entry(server.address(), "__meta_note: one")]);
    let agent = stage.agent("2s", "", "").await;
    stage.until("a scrape", |story| story.target(&server).attempts(1.0) >= 1).await;

    // That the newcomer is scraped shows that the edit has arrived.
    stage.list(&[stage.entry(server.address(), "__meta_note: two"), stage.entry(newcomer.address(), "")]);
    let story = stage.until("the newcomer", |story| story.target(&newcomer).attempts(1.0) >= 1).await;
    let seen = story.target(&server).attempts(1.0);
    stage.until("two more scrapes", |story| story.target(&server).attempts(1.0) >= seen + 2).await;
    let targets = agent.targets().await;
    let edited = targets.iter().find(|target| agent::instance(target) == server.address().to_string());
    assert_eq!(edited.expect("listed")["discoveredLabels"]["__meta_note"], "two", "people see the edit");

    let story = stage.end(agent).await;
    assert_eq!(story.target(&server).markers(), everything().map(|name| (name, 0)).collect());
    assert_eq!(server.connections(), 1, "the target goes on as if nothing had happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_label_that_is_not_stored_does_not_disturb_a_target() {
    what_nobody_stores_does_not_disturb(Way::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_label_that_is_not_stored_does_not_disturb_a_workload() {
    what_nobody_stores_does_not_disturb(Way::Mtls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_target_limit_nobody_is_asked_and_below_it_everybody_again() {
    let stage = Stage::new(Way::Plain).await;
    let servers: Vec<Server> = (0..3).map(|_| stage.serve(always(Reply::ok(BODY)))).collect();
    let list = |count: usize| {
        let entries: Vec<_> = servers[..count].iter().map(|server| stage.entry(server.address(), "")).collect();
        stage.list(&entries);
    };
    let failed = |target: &serde_json::Value| target["scrapesFailed"].as_u64().expect("a number");
    list(3);
    let agent = stage.agent("1s", "  target_limit: 2\n", "").await;
    let targets = agent.until_all("every target was judged twice", |target| failed(target) >= 2).await;
    assert_eq!(targets.len(), 3);
    for target in &targets {
        assert_eq!((&target["health"], &target["reason"]), (&"down".into(), &"target_limit".into()), "{target:#}");
    }
    let judged = |story: &Story| servers.iter().all(|server| story.target(server).attempts(0.0) >= 2);
    let story = stage.until("up 0 of every target", judged).await;
    for server in &servers {
        assert_eq!((server.connections(), story.target(server).attempts(1.0)), (0, 0));
        assert_eq!(story.target(server).names(), OWN.into());
    }

    list(2);
    let scraped = |story: &Story| servers[..2].iter().all(|server| story.target(server).attempts(1.0) >= 1);
    stage.until("two targets are within the limit", scraped).await;
    stage.until("the third one has ended", |story| story.target(&servers[2]).has_ended(OWN)).await;
    assert_eq!(servers[2].connections(), 0);

    list(3);
    let refused = |target: &serde_json::Value| target["reason"] == "target_limit";
    let before = agent.until_all("three are too many again", refused).await;
    let asked: Vec<usize> = servers.iter().map(|server| server.requests().len()).collect();
    let failures: BTreeMap<String, u64> =
        before.iter().map(|target| (agent::instance(target), failed(target))).collect();
    agent.until_all("they stay so", |target| failed(target) >= failures[&agent::instance(target)] + 2).await;
    assert_eq!(servers.iter().map(|server| server.requests().len()).collect::<Vec<_>>(), asked);
    assert_eq!(servers[2].connections(), 0);
    assert!(agent.metric("prometheus_target_scrape_pool_exceeded_target_limit_total").await >= 2.0);

    let story = stage.end(agent).await;
    for server in &servers[..2] {
        let life = story.target(server);
        for name in SERIES {
            assert_eq!(life.markers()[name], 1, "{name}: the refusal ends it, once");
            assert!(is_stale(life.0[name].last().expect("samples").value), "{name}");
        }
        assert_eq!(life.markers()["up"], 0, "it is still a target");
    }
}
