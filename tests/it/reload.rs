//! Another configuration while the agent runs: taken as a whole or not at all, and what is the same in it goes on as if
//! nothing had happened.

mod asking;
mod receivers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meshscrape::model::is_stale;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::agent::{self, Running, eventually};
use crate::support::http;
use crate::support::mesh::{CART, Mesh, ONLY_13};
use crate::support::receiver::{Answer, Receiver, Recorded, always};
use crate::support::tls_server::{Reply, Script, Server, Talk, Then};

/// An agent with a pod of the mesh and a receiver.
struct Stage {
    agent: Running,
    pod: Server,
    receiver: Receiver,
    mesh: Mesh,
    dir: TempDir,
}

impl Stage {
    /// `config` is made of the parts that stay.
    async fn new(script: Script, config: impl Fn(&Parts) -> String) -> Self {
        let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
        let pod = Server::start(Talk::Tls(mesh.cart(), script));
        let receiver = Receiver::start(always(Answer::ok())).await;
        let text = config(&Parts { mesh: &mesh, pod: &pod, receiver: &receiver });
        Self { agent: agent::start(dir.path(), &text).await, pod, receiver, mesh, dir }
    }

    async fn reload(&mut self, config: impl Fn(&Parts) -> String) {
        let text = config(&Parts { mesh: &self.mesh, pod: &self.pod, receiver: &self.receiver });
        self.agent.reload(&text).await.unwrap_or_else(|error| panic!("{error} in\n{text}"));
    }

    /// What the receiver has of each series, by its text, once it is enough.
    async fn stored(&self, what: &str, enough: impl Fn(&Story) -> bool) -> Story {
        story(&self.receiver.until(what, |recorded| enough(&story(recorded))).await)
    }
}

/// What configurations are written from.
struct Parts<'s> {
    mesh: &'s Mesh,
    pod: &'s Server,
    receiver: &'s Receiver,
}

impl Parts<'_> {
    /// A job that scrapes the pod every second, with more lines of its own.
    fn job(&self, name: &str, lines: &str) -> String {
        let interval = if lines.contains("scrape_interval") { "" } else { "  scrape_interval: 1s\n" };
        format!(
            "- job_name: {name}
  scheme: https
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  static_configs: [{{targets: ['{}'], labels: {{__spiffe_id__: '{CART}', instance: pod}}}}]
{interval}{lines}
",
            self.mesh.certs.path().display(),
            self.pod.address()
        )
    }

    fn config(&self, global: &str, jobs: &str) -> String {
        format!(
            "global: {{scrape_timeout: 1s{global}}}
remote_write: [{{url: '{}', queue_config: {{batch_send_deadline: 50ms}}}}]
scrape_configs:
{jobs}",
            self.receiver.url()
        )
    }
}

/// Series by their texts, with the values and times of their samples; NaN is a marker.
type Story = BTreeMap<String, Vec<(i64, f64)>>;

fn story(recorded: &[Recorded]) -> Story {
    let mut story = Story::new();
    for (labels, sample) in recorded.iter().filter(|one| one.was_taken()).flat_map(|one| &one.samples) {
        let mut labels = labels.clone();
        let name = labels.remove("__name__").expect("named");
        story.entry(format!("{name}{labels}")).or_default().push((sample.timestamp_ms, sample.value));
    }
    story
}

/// The values of a series.
fn values(story: &Story, series: &str) -> Vec<f64> {
    story.get(series).into_iter().flatten().map(|(_, value)| *value).collect()
}

fn markers(story: &Story) -> Vec<&str> {
    let marked = |samples: &Vec<(i64, f64)>| samples.iter().any(|(_, value)| is_stale(*value));
    story.iter().filter(|(_, samples)| marked(samples)).map(|(series, _)| &**series).collect()
}

/// What every target of the pod counts.
fn number(job: &str) -> String {
    format!(r#"number{{instance="pod", job="{job}"}}"#)
}

/// Numbers its answers, and has two more series.
fn counting() -> Script {
    let count = AtomicU64::new(0);
    Arc::new(move |_| Reply::ok(&format!("number {}\nx 1\ny 1\n", count.fetch_add(1, Ordering::SeqCst) + 1)))
}

/// Nothing was left out and nothing was stored twice.
fn assert_consecutive(numbers: &[f64]) {
    let expected: Vec<f64> = (1..=numbers.len()).map(|number| number as f64).collect();
    assert_eq!(numbers, expected);
}

/// How far behind its beat a scrape may be and still count as one of it.
const LATE_MS: i64 = 20;

/// The moment within the interval at which most of the samples were scraped, and how many were. A late scrape has its own
/// time, so not every one is on the beat.
fn beat(samples: &[(i64, f64)], interval_ms: i64) -> (i64, usize) {
    let phases = || samples.iter().map(|(at, _)| at.rem_euclid(interval_ms));
    let on_it = |phase: i64| phases().filter(|other| (other - phase).rem_euclid(interval_ms) <= LATE_MS).count();
    phases().map(|phase| (phase, on_it(phase))).max_by_key(|(_, count)| *count).expect("samples")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_the_same_keeps_its_beat_its_connection_and_its_series() {
    let mut stage = Stage::new(counting(), |parts| parts.config("", &parts.job("mesh", ""))).await;
    let after = |count: usize| move |story: &Story| values(story, &number("mesh")).len() >= count;
    stage.stored("some scrapes", after(4)).await;
    // Other jobs before and behind it, which find no pod, and other rules for its own.
    let other = "- {job_name: other, static_configs: [{targets: ['127.0.0.1:1']}]}\n";
    let last = "- {job_name: last, static_configs: [{targets: ['127.0.0.1:2']}]}\n";
    stage.reload(|parts| parts.config("", &[other, &parts.job("mesh", ""), last].concat())).await;
    stage.stored("more scrapes", after(8)).await;
    stage
        .reload(|parts| parts.config("", &parts.job("mesh", "  relabel_configs: [{action: labeldrop, regex: z}]")))
        .await;
    let stored = stage.stored("and more", after(12)).await;

    assert_consecutive(&values(&stored, &number("mesh")));
    assert_eq!(stage.pod.connections(), 1);
    let of_the_pod = |series: &&&str| series.contains("pod");
    assert_eq!(markers(&stored).iter().filter(of_the_pod).count(), 0, "{:?}", markers(&stored));
    let samples = &stored[&number("mesh")];
    let (before, now) = (beat(&samples[..4], 1000).0, beat(&samples[8..], 1000).0);
    let apart = (before - now).rem_euclid(1000);
    assert!(apart.min(1000 - apart) <= LATE_MS, "{samples:?}");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_another_interval_the_series_go_on() {
    let mut stage = Stage::new(counting(), |parts| parts.config("", &parts.job("mesh", ""))).await;
    let after = |count: usize| move |story: &Story| values(story, &number("mesh")).len() >= count;
    stage.stored("some scrapes", after(3)).await;
    let before = stage.agent.targets().await;
    stage.reload(|parts| parts.config("", &parts.job("mesh", "  scrape_interval: 1500ms\n  sample_limit: 100"))).await;
    let targets = stage.agent.targets().await;
    assert_eq!((&targets[0]["scrapeInterval"], targets.len()), (&"1s500ms".into(), 1));
    assert!(targets[0]["scrapesSucceeded"].as_u64() >= before[0]["scrapesSucceeded"].as_u64(), "{targets:?}");
    let stored = stage.stored("more scrapes", after(8)).await;
    assert_consecutive(&values(&stored, &number("mesh")));
    assert_eq!(stage.pod.connections(), 1);
    assert_eq!(markers(&stored), [""; 0]);
    let added = values(&stored, r#"scrape_series_added{instance="pod", job="mesh"}"#);
    assert_eq!(added.iter().sum::<f64>(), 6.0, "{added:?}");
    let samples = &stored[&number("mesh")];
    let last = &samples[samples.len() - 4..];
    let gap = last.windows(2).map(|two| two[1].0 - two[0].0).min().expect("gaps");
    // On a beat of a second it would be two of them.
    assert!(beat(last, 1500).1 >= 3 && gap < 2250, "{samples:?}");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_other_rules_for_samples_only_what_they_drop_ends() {
    let mut stage = Stage::new(counting(), |parts| parts.config("", &parts.job("mesh", ""))).await;
    let after = |count: usize| move |story: &Story| values(story, &number("mesh")).len() >= count;
    stage.stored("some scrapes", after(3)).await;
    let rules = "  metric_relabel_configs: [{source_labels: [__name__], regex: x, action: drop}]";
    stage.reload(|parts| parts.config("", &parts.job("mesh", rules))).await;
    let stored = stage.stored("more scrapes", after(6)).await;
    assert_consecutive(&values(&stored, &number("mesh")));
    assert_eq!(stage.pod.connections(), 1);
    assert_eq!(markers(&stored), [r#"x{instance="pod", job="mesh"}"#]);
    let x = values(&stored, r#"x{instance="pod", job="mesh"}"#);
    assert_eq!(x.iter().filter(|value| is_stale(**value)).count(), 1, "{x:?}");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_gone_ends_and_one_that_is_new_begins() {
    let mut stage = Stage::new(counting(), |parts| parts.config("", &parts.job("old", ""))).await;
    stage.stored("some scrapes", |story| values(story, &number("old")).len() >= 2).await;
    let pool = "prometheus_target_scrape_pool_targets{scrape_job=\"old\"}";
    assert_eq!(stage.agent.metric(pool).await, 1.0);
    stage.reload(|parts| parts.config("", &parts.job("new", ""))).await;
    let stored = stage.stored("the other job", |story| values(story, &number("new")).len() >= 2).await;
    let old: Vec<_> = stored.keys().filter(|series| series.contains(r#"job="old""#)).collect();
    assert_eq!(old.len(), 8, "three of its own and five of the scraper: {old:?}");
    assert_eq!(markers(&stored), old);
    assert!(old.iter().all(|series| is_stale(stored[*series].last().expect("samples").1)));
    assert_eq!(stage.agent.targets().await.len(), 1);
    assert!(!stage.agent.metrics().await.contains(pool));
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_external_labels_are_other_series() {
    let labelled = |zone: &str| format!(", external_labels: {{zone: {zone}}}");
    let mut stage = Stage::new(counting(), |parts| parts.config(&labelled("a"), &parts.job("mesh", ""))).await;
    let of = |zone: &str| format!(r#"number{{instance="pod", job="mesh", zone="{zone}"}}"#);
    stage.stored("some scrapes", |story| values(story, &of("a")).len() >= 2).await;
    stage.reload(|parts| parts.config(&labelled("b"), &parts.job("mesh", ""))).await;
    let stored = stage.stored("more scrapes", |story| values(story, &of("b")).len() >= 2).await;
    let (mut a, b) = (values(&stored, &of("a")), values(&stored, &of("b")));
    assert!(a.pop().is_some_and(is_stale), "{a:?}");
    assert_consecutive(&[a, b].concat());
    let old: Vec<_> = stored.keys().filter(|series| series.contains(r#"zone="a""#)).collect();
    assert_eq!((old.len(), markers(&stored)), (8, old.iter().map(|series| &***series).collect()));
    assert_eq!(stage.pod.connections(), 1);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    let mut stage = Stage::new(counting(), |parts| parts.config("", &parts.job("mesh", ""))).await;
    let succeeded = "prometheus_config_last_reload_successful";
    let at = "prometheus_config_last_reload_success_timestamp_seconds";
    let started = stage.agent.metric(at).await;
    assert!(started > 1.7e9, "{started}");
    let parts = Parts { mesh: &stage.mesh, pod: &stage.pod, receiver: &stage.receiver };
    let good = parts.config("", &parts.job("other", ""));
    std::fs::write(stage.dir.path().join("jobs.yaml"), "scrape_configs: [{job_name: j, color: red}]").expect("a file");
    let unusable_receiver = good.replace("batch_send_deadline: 50ms", "min_backoff: 10s, max_backoff: 1s");
    for (text, complaint) in [
        (good.replace("scheme: https", "scheme: gopher"), "gopher"),
        ("[".to_owned(), "this is not YAML"),
        (format!("{good}\nscrape_config_files: [jobs.yaml]\n"), "color"),
        (unusable_receiver, "max_backoff"),
    ] {
        let error = stage.agent.reload(&text).await.expect_err(&text).to_string();
        assert!(error.contains(complaint), "{complaint} is not in {error}");
        assert_eq!((stage.agent.metric(succeeded).await, stage.agent.metric(at).await), (0.0, started));
    }
    let stored = stage.stored("scrapes go on", |story| values(story, &number("mesh")).len() >= 3).await;
    assert_consecutive(&values(&stored, &number("mesh")));
    assert_eq!((stage.pod.connections(), markers(&stored).len()), (1, 0));
    stage.agent.reload(&good).await.expect("a good one");
    assert_eq!(stage.agent.metric(succeeded).await, 1.0);
    assert!(stage.agent.metric(at).await > started);
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_asked_of_somebody_else_does_not_count() {
    let finish = Arc::new(Notify::new());
    let (hung, later) = (AtomicU64::new(0), Arc::clone(&finish));
    let script: Script = Arc::new(move |_| match hung.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnumb", Then::Keep)
            .later(Arc::clone(&later), "er 1\n"),
        _ => Reply::ok("number 2\n"),
    });
    let expecting =
        |parts: &Parts, id: &str| parts.config("", &parts.job("mesh", "")).replace(": 1s", ": 5s").replace(CART, id);
    let mut stage = Stage::new(script, |parts| expecting(parts, CART)).await;
    stage.pod.hanging().await;
    let asked_ms = stage.agent.clock.now_ms();
    stage.reload(|parts| expecting(parts, "spiffe://cluster.local/ns/shop/sa/wolf")).await;
    finish.notify_one();
    // The scrape under way is made anew, at once and of the one who is expected now.
    let refused = |target: &serde_json::Value| target["reason"] == "identity_mismatch";
    stage.agent.until_all("it is refused", refused).await;
    let up = r#"up{instance="pod", job="mesh"}"#;
    let stored = stage.stored("up is 0", |story| !values(story, up).is_empty()).await;
    assert_eq!((values(&stored, up), values(&stored, &number("mesh"))), (vec![0.0], vec![]));
    assert!(stored[up][0].0 < asked_ms + 4_000, "not only at the next beat");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn until_a_new_source_has_answered_the_old_targets_are_scraped() {
    let dir = TempDir::new().expect("a directory");
    let target = Server::start(Talk::Plain(counting()));
    let receiver = Receiver::start(always(Answer::ok())).await;
    let list = format!(r#"[{{"targets": ["{}"], "labels": {{"instance": "pod"}}}}]"#, target.address());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", list.len());
    let say = Arc::new(Notify::new());
    let later = Arc::clone(&say);
    let lists = Server::start(Talk::Plain(Arc::new(move |_| {
        Reply::raw(head.clone(), Then::Keep).later(Arc::clone(&later), list.clone())
    })));
    let config = |timeout: &str, job: &str| {
        format!(
            "global: {{scrape_interval: 1s, scrape_timeout: {timeout}}}
remote_write: [{{url: '{}', queue_config: {{batch_send_deadline: 50ms}}}}]
scrape_configs: [{{job_name: mesh, {job}}}]
",
            receiver.url()
        )
    };
    let fixed = format!("static_configs: [{{targets: ['{}'], labels: {{instance: pod}}}}]", target.address());
    let found = format!("http_sd_configs: [{{url: 'http://{}/'}}]", lists.address());
    let mut agent = agent::start(dir.path(), &config("1s", &fixed)).await;
    let stored = async |what: &str, count: usize| {
        story(&receiver.until(what, |recorded| values(&story(recorded), &number("mesh")).len() >= count).await)
    };
    stored("some scrapes", 2).await;
    let scraped = target.requests().len();
    let text = config("1s", &found);
    let slowly = async {
        lists.hanging().await;
        eventually("scrapes go on", async || (target.requests().len() >= scraped + 3).then_some(())).await;
        say.notify_one();
    };
    let (reloaded, ()) = tokio::join!(agent.reload(&text), slowly);
    reloaded.expect("a good one");
    let story = stored("more scrapes", scraped + 5).await;
    assert_consecutive(&values(&story, &number("mesh")));
    assert_eq!((markers(&story), target.connections()), (vec![], 1));

    // A source that is the same is not asked again.
    agent.reload(&config("900ms", &found)).await.expect("a good one");
    agent.reload(&(config("900ms", &found) + "scrape_config_files: []\n")).await.expect("a good one");
    stored("more scrapes", scraped + 8).await;
    assert_eq!(lists.requests().len(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_reloads_in_a_row_lose_no_scrape_and_write_nothing_twice() {
    const TARGETS: usize = 30;
    let (mesh, dir) = (Mesh::new(ONLY_13).await, TempDir::new().expect("a directory"));
    let pods: Vec<_> = (0..TARGETS).map(|_| Server::start(Talk::Tls(mesh.cart(), counting()))).collect();
    let receiver = Receiver::start(always(Answer::ok())).await;
    let targets: Vec<_> = pods.iter().enumerate().map(|(at, pod)| (at, pod.address())).collect();
    let config = |round: usize| {
        let mut text = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s}}
remote_write: [{{url: '{}', queue_config: {{batch_send_deadline: {}ms}}}}]
scrape_configs:
- job_name: mesh
  scheme: https
  tls_config: {{certs_dir: '{}', spiffe: {{}}}}
  sample_limit: {}
  metric_relabel_configs: [{{source_labels: [__name__], regex: nothing{}, action: drop}}]
  static_configs:
",
            receiver.url(),
            50 + round % 2,
            mesh.certs.path().display(),
            100 + round % 3,
            round % 4,
        );
        for (at, address) in &targets {
            writeln!(text, "  - {{targets: ['{address}'], labels: {{__spiffe_id__: '{CART}', instance: '{at}'}}}}")
                .expect("memory");
        }
        text
    };
    let mut agent = agent::start(dir.path(), &config(0)).await;
    let scraped = |count: usize| {
        let pods = &pods;
        move || pods.iter().all(|pod| pod.requests().len() >= count)
    };
    eventually("everybody is scraped", async || scraped(1)().then_some(())).await;
    for round in 1..=20 {
        agent.reload(&config(round)).await.expect("a good one");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let count = pods.iter().map(|pod| pod.requests().len()).max().expect("pods") + 1;
    eventually("everybody is scraped once more", async || scraped(count)().then_some(())).await;
    assert_eq!(agent.stop().await.undelivered, 0);

    let stored = story(&receiver.recorded());
    assert_eq!(markers(&stored), [""; 0]);
    for (at, pod) in pods.iter().enumerate() {
        let series = format!(r#"number{{instance="{at}", job="mesh"}}"#);
        assert_consecutive(&values(&stored, &series));
        let missing = pod.requests().len() - values(&stored, &series).len();
        assert!(missing <= 1, "only a scrape that the end cut off is not stored: {missing} are missing of {series}");
        assert_eq!(pod.connections(), 1);
        assert!(stored[&series].is_sorted_by(|a, b| a.0 < b.0), "{:?}", stored[&series]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_nobody_needs_is_not_waited_for() {
    let mut stage = Stage::new(counting(), |parts| parts.config("", &parts.job("mesh", ""))).await;
    let elsewhere = |parts: &Parts| {
        let job = parts.job("other", "");
        let certs = parts.mesh.certs.path().display().to_string();
        parts.config("", &[parts.job("mesh", ""), job.replace(&certs, "/nowhere").replace(": pod", ": other")].concat())
    };
    stage.reload(elsewhere).await;
    let ready = http::get(stage.agent.listen(), "/-/ready").await.expect("an answer");
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("/nowhere"), "{}", ready.text());
    stage.reload(|parts| parts.config("", &parts.job("mesh", ""))).await;
    let ready = http::get(stage.agent.listen(), "/-/ready").await.expect("an answer");
    assert_eq!(ready.status, 200, "{}", ready.text());
    stage.agent.stop().await;
}
