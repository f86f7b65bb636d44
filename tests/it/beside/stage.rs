//! The stage: the exporter that plays the cases, the two scrapers, and the recorder of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshscrape::clock::Clock;
use rustls::version::TLS13;
use tempfile::TempDir;

use super::cases::{Case, Moment};
use super::recorder::{Written, by_case};
use super::story::{Pair, Story, scraped_at, story};
use crate::support::agent;
use crate::support::ca::{Ca, CertsDir};
use crate::support::mesh::{CART, SCRAPER};
use crate::support::process::Process;
use crate::support::receiver::{Answer as Taken, Receiver, Recorded, Rule, always};
use crate::support::tls_server::{Asked, Reply, Script, Server, Talk};

/// How the cases are played.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) tls: bool,
    /// Whether native histograms are read and sent: we by a key, Prometheus 3.5 by a flag.
    pub(super) native: bool,
    /// Whether the additional series of a scrape are made: we by a key, Prometheus 3.5 by a flag.
    pub(super) extra: bool,
    /// Whether both write by remote write 2.0.
    pub(super) version2: bool,
    /// Whether Prometheus also writes what series are: that is a flag, and the agent mode of 3.5 has it without effect.
    pub(super) described: bool,
    /// How often is scraped, which is also how long a scrape may take: nothing but time depends on it.
    pub(super) interval: &'static str,
}

impl Way {
    /// What Prometheus is told outside its configuration.
    fn flags(self) -> Vec<String> {
        let features = [
            (self.native, "native-histograms"),
            (self.extra, "extra-scrape-metrics"),
            (self.described, "metadata-wal-records"),
        ];
        let features: Vec<_> = features.into_iter().filter_map(|(on, feature)| on.then_some(feature)).collect();
        let mode: &[&str] = match self.described {
            true => &["--storage.tsdb.path=data"],
            false => &["--agent", "--storage.agent.path=data"],
        };
        let features = (!features.is_empty()).then(|| format!("--enable-feature={}", features.join(",")));
        mode.iter().map(|flag| (*flag).to_owned()).chain(features).collect()
    }
}

/// Takes everything; whoever writes by 2.0 must be told that it was written.
fn takes_everything() -> Rule {
    always(Taken::status(204).header("x-prometheus-remote-write-samples-written", "1000000"))
}

/// Answers by script, and knows who was answered what.
#[derive(Default)]
struct Exporter {
    cases: BTreeMap<String, Case>,
    /// By case and scraper: how often it was asked, and which times were written into answers.
    told: Mutex<BTreeMap<(String, Side), Told>>,
}

#[derive(Default)]
struct Told {
    answers: usize,
    first_ms: Option<i64>,
    times: Vec<(i64, String, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Prometheus,
    Meshscrape,
}

impl Exporter {
    fn script(self: &Arc<Self>) -> Script {
        let exporter = Arc::clone(self);
        Arc::new(move |asked| exporter.answer(asked))
    }

    fn answer(&self, asked: &Asked) -> Reply {
        let side = match asked.header("user-agent") {
            Some(agent) if agent.starts_with("Prometheus/") => Side::Prometheus,
            Some(agent) if agent.starts_with("meshscrape/") => Side::Meshscrape,
            other => panic!("who is {other:?}?"),
        };
        let name = asked.path().split(['/', '?']).nth(1).unwrap_or_default();
        let case = self.cases.get(name).unwrap_or_else(|| panic!("no case for {}", asked.path()));
        let mut told = self.told.lock().expect("nobody panicked");
        let told = told.entry((name.to_owned(), side)).or_default();
        told.answers += 1;
        let answer = case.answers.get(told.answers - 1).or(case.answers.last()).expect("a case has answers");
        // A scrape begins before it is answered: a time that is told is never taken for that of the scrape.
        let now_ms = Clock::system().now_ms() + 1;
        let first_ms = *told.first_ms.get_or_insert(now_ms);
        answer.reply(&mut Moment { number: told.answers, first_ms, now_ms, asked, written: &mut told.times })
    }

    /// How long the longest script is.
    fn longest(&self) -> usize {
        self.cases.values().map(|case| case.answers.len()).max().expect("cases")
    }
}

/// Plays the cases to both, and gives both stories of each.
pub(super) async fn play(cases: Vec<Case>, way: Way) -> BTreeMap<String, Pair> {
    let ca = Ca::new("cluster.local");
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    let cases: BTreeMap<_, _> = cases.into_iter().map(|case| (case.name.clone(), case)).collect();
    let exporter = Arc::new(Exporter { cases, ..Exporter::default() });
    let talk = match way.tls {
        false => Talk::Plain(exporter.script()),
        true => Talk::Tls(ca.leaf(CART).server(&[&ca], &[&TLS13]), exporter.script()),
    };
    let server = Server::start(talk);
    let receivers = [Receiver::start(takes_everything()).await, Receiver::start(takes_everything()).await];
    let config = |side, receiver| config(side, &exporter, &server, way, &certs, receiver);
    let began_ms = Clock::system().now_ms();
    let ours = agent::start(dir.path(), &config(Side::Meshscrape, &receivers[1])).await;
    let theirs = prometheus(&config(Side::Prometheus, &receivers[0]), way).await;
    let scrapes = exporter.longest() + 1;
    let done = |recorded: &[Recorded]| {
        let written = by_case(recorded);
        exporter.cases.keys().all(|case| written.get(case).is_some_and(|written| scraped_at(written).len() >= scrapes))
    };
    let patience = Duration::from_secs(60 + 4 * scrapes as u64);
    let ours_recorded = receivers[1].until_within(patience, "every script was played to us", done).await;
    let theirs_recorded = receivers[0].until_within(patience, "every script was played to Prometheus", done).await;
    ours.stop().await;
    drop(theirs);

    let [ours, theirs] = [by_case(&ours_recorded), by_case(&theirs_recorded)];
    let told = exporter.told.lock().expect("nobody panicked");
    let pair = |(name, case): (&String, &Case)| {
        let story = |side: Side, written: &Written| -> Story {
            let times = told.get(&(name.clone(), side)).map(|told| told.times.as_slice()).unwrap_or_default();
            story(written, times, case.answers.len(), began_ms)
        };
        let [theirs, ours] = [story(Side::Prometheus, &theirs[name]), story(Side::Meshscrape, &ours[name])];
        (name.clone(), Pair { theirs, ours })
    };
    exporter.cases.iter().map(pair).collect()
}

/// Plays the cases over plain HTTP to both, which say every two seconds what metric families are, until what each wrote is
/// `enough`; gives what Prometheus wrote, and what we did.
pub(super) async fn play_for_metadata(
    cases: Vec<Case>,
    way: Way,
    enough: impl Fn(&[Recorded]) -> bool,
) -> [Vec<Recorded>; 2] {
    let cases = cases.into_iter().map(|case| (case.name.clone(), case)).collect();
    let exporter = Arc::new(Exporter { cases, ..Exporter::default() });
    let server = Server::start(Talk::Plain(exporter.script()));
    let receivers = [Receiver::start(takes_everything()).await, Receiver::start(takes_everything()).await];
    let dir = TempDir::new().expect("a directory");
    let config = |side, receiver| {
        let config = config(side, &exporter, &server, way, &CertsDir::at(dir.path()), receiver);
        let metadata = "    metadata_config: { send_interval: 2s, max_samples_per_send: 7 }\n    queue_config";
        config.replace("    queue_config", metadata)
    };
    let ours = agent::start(dir.path(), &config(Side::Meshscrape, &receivers[1])).await;
    let _prometheus = prometheus(&config(Side::Prometheus, &receivers[0]), way).await;
    let patience = Duration::from_secs(60);
    let theirs_recorded = receivers[0].until_within(patience, "Prometheus said what is expected", &enough).await;
    let ours_recorded = receivers[1].until_within(patience, "we said what is expected", &enough).await;
    ours.stop().await;
    [theirs_recorded, ours_recorded]
}

/// What both wrote, and how each is asked for its own metrics.
pub(super) struct Watched {
    pub(super) receivers: [Receiver; 2],
    pub(super) prometheus: SocketAddr,
    pub(super) ours: agent::Running,
    _kept: (Process, Server, TempDir),
}

/// Plays the cases over plain HTTP to both, with these external labels, until nobody watches any more.
pub(super) async fn play_watched(cases: Vec<Case>, way: Way, external: &str) -> Watched {
    let cases = cases.into_iter().map(|case| (case.name.clone(), case)).collect();
    let exporter = Arc::new(Exporter { cases, ..Exporter::default() });
    let server = Server::start(Talk::Plain(exporter.script()));
    let receivers = [Receiver::start(takes_everything()).await, Receiver::start(takes_everything()).await];
    let dir = TempDir::new().expect("a directory");
    let config = |side, receiver| {
        let config = config(side, &exporter, &server, way, &CertsDir::at(dir.path()), receiver);
        config.replace("global: { ", &format!("global: {{ external_labels: {external}, "))
    };
    let ours = agent::start(dir.path(), &config(Side::Meshscrape, &receivers[1])).await;
    let mut process = prometheus(&config(Side::Prometheus, &receivers[0]), way).await;
    let address = process.says("\"Listening on\" component=web address=").await;
    let prometheus = address.parse().expect("an address");
    Watched { receivers, prometheus, ours, _kept: (process, server, dir) }
}

/// The configuration that both read, but for where to write, for what is a flag of Prometheus, and for the consent that we
/// want where a target may choose its own labels.
fn config(side: Side, exporter: &Exporter, server: &Server, way: Way, certs: &CertsDir, receiver: &Receiver) -> String {
    let Way { interval, native, extra, version2, .. } = way;
    let message = if version2 { "io.prometheus.write.v2.Request" } else { "prometheus.WriteRequest" };
    let global = match side {
        Side::Prometheus => String::new(),
        Side::Meshscrape => format!(", scrape_native_histograms: {native}, extra_scrape_metrics: {extra}"),
    };
    let mut text = format!(
        "global: {{ scrape_interval: {interval}, scrape_timeout: {interval}{global} }}
remote_write:
  - url: {}
    send_native_histograms: {native}
    send_exemplars: true
    protobuf_message: {message}
    queue_config: {{ batch_send_deadline: 500ms, min_shards: 1, max_shards: 1 }}
scrape_configs:
",
        receiver.url()
    );
    for case in exporter.cases.values() {
        text += &format!("  - job_name: {}\n", case.name);
        if !case.config.iter().any(|line| line.starts_with("metrics_path:")) {
            text += &format!("    metrics_path: /{}\n", case.name);
        }
        if way.tls {
            let file = |name: &str| certs.path().join(name).display().to_string();
            text += &format!(
                "    scheme: https\n    tls_config: {{ ca_file: {}, cert_file: {}, key_file: {}, insecure_skip_verify: true }}\n",
                file("root-cert.pem"),
                file("cert-chain.pem"),
                file("key.pem"),
            );
            if side == Side::Meshscrape && case.config.iter().any(|line| line == "honor_labels: true") {
                text += "    trust_target_labels: true\n";
            }
        }
        if !way.tls {
            text += "    scheme: http\n";
        }
        for line in &case.config {
            text += &format!("    {line}\n");
        }
        text += &format!("    static_configs:\n      - targets: ['{}']\n        labels:\n", server.socket());
        text += &format!("          case: {}\n          instance: exporter\n", case.name);
        if way.tls {
            text += &format!("          __spiffe_id__: {CART}\n");
        }
        for line in &case.labels {
            text += &format!("          {line}\n");
        }
    }
    text
}

/// A real Prometheus that only scrapes and forwards.
pub(super) async fn prometheus(config: &str, way: Way) -> Process {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("prometheus.yml"), config).expect("its configuration");
    let flags = way.flags();
    let arguments = ["--config.file=prometheus.yml", "--web.listen-address=127.0.0.1:0"];
    let arguments: Vec<_> = arguments.into_iter().chain(flags.iter().map(String::as_str)).collect();
    let mut process = Process::start("prometheus", dir, &arguments);
    process.says(if way.described { "TSDB started" } else { "Agent WAL storage started" }).await;
    process
}
