//! Side by side: one configuration, one scripted exporter, a real Prometheus in agent mode and this agent, both writing
//! to a recorder. What was recorded must be the same: label sets, values bit by bit, order within a series, staleness
//! markers, and what is said of the scrapes themselves.
//!
//! The two do not scrape at the same moment, so times are compared as what they are times of: the n-th scrape (every
//! scrape writes `up`), or a time that the exporter wrote into its n-th answer.

mod cases;
mod recorder;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshscrape::clock::Clock;
use rustls::version::TLS13;
use tempfile::TempDir;

use self::cases::{Case, Moment};
use self::recorder::{Series, Written, by_case};
use crate::support::agent;
use crate::support::ca::{Ca, CertsDir};
use crate::support::mesh::{CART, SCRAPER};
use crate::support::process::Process;
use crate::support::receiver::{Answer as Taken, Receiver, Recorded, always};
use crate::support::tls_server::{Asked, Script, Server, Talk};

/// Cases that come out differently on purpose, each with its reason.
const DIFFERENCES: &str = include_str!("../fixtures/beside/differences");

const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Long enough for a scrape on a loaded machine: nothing here depends on how often is scraped.
const INTERVAL: &str = "2s";

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
    times: Vec<(i64, String)>,
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

    fn answer(&self, asked: &Asked) -> crate::support::tls_server::Reply {
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
        let now_ms = Clock::system().now_ms();
        let first_ms = *told.first_ms.get_or_insert(now_ms);
        answer.reply(&mut Moment { number: told.answers, first_ms, now_ms, written: &mut told.times })
    }

    /// How long the longest script is.
    fn longest(&self) -> usize {
        self.cases.values().map(|case| case.answers.len()).max().expect("cases")
    }
}

/// What both made of a case, in comparable form.
type Story = BTreeMap<Series, Vec<String>>;

/// Runs the cases over plain HTTP or mTLS, and gives the cases whose two stories differ, with how.
async fn run(cases: Vec<Case>, tls: bool) -> BTreeMap<String, String> {
    let ca = Ca::new("cluster.local");
    let dir = TempDir::new().expect("a directory");
    let certs = CertsDir::at(dir.path());
    certs.write(&ca.leaf(SCRAPER), &[&ca]);
    let cases: BTreeMap<_, _> = cases.into_iter().map(|case| (case.name.clone(), case)).collect();
    let exporter = Arc::new(Exporter { cases, ..Exporter::default() });
    let talk = match tls {
        false => Talk::Plain(exporter.script()),
        true => Talk::Tls(ca.leaf(CART).server(&[&ca], &[&TLS13]), exporter.script()),
    };
    let server = Server::start(talk);
    let receivers = [Receiver::start(always(Taken::ok())).await, Receiver::start(always(Taken::ok())).await];
    let config = |side, receiver| config(side, &exporter, &server, tls.then_some(&certs), receiver);
    let began_ms = Clock::system().now_ms();
    let ours = agent::start(dir.path(), &config(Side::Meshscrape, &receivers[1])).await;
    let theirs = prometheus(&config(Side::Prometheus, &receivers[0])).await;
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
    let mut differences = BTreeMap::new();
    for (name, case) in &exporter.cases {
        let story = |side: Side, written: &Written| {
            let times = told.get(&(name.clone(), side)).map(|told| told.times.as_slice()).unwrap_or_default();
            story(written, times, case.answers.len(), began_ms)
        };
        let [theirs, ours] = [story(Side::Prometheus, &theirs[name]), story(Side::Meshscrape, &ours[name])];
        if theirs != ours {
            differences.insert(name.clone(), difference(&theirs, &ours));
        }
    }
    differences
}

/// The times of its scrapes.
fn scraped_at(written: &Written) -> Vec<i64> {
    let up = |series: &Series| series.iter().any(|(name, value)| name == "__name__" && value == "up");
    let times = written.iter().filter(|(series, _)| up(series)).flat_map(|(_, samples)| samples);
    times.filter(|(_, bits)| *bits != STALE).map(|(at, _)| *at).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What was written of the first scrapes, each sample as `scrape 2: 4.5`.
fn story(written: &Written, times: &[(i64, String)], scrapes: usize, began_ms: i64) -> Story {
    let scraped = scraped_at(written);
    let mut story = Story::new();
    for (series, samples) in written {
        let duration = series.iter().any(|(name, value)| name == "__name__" && value == "scrape_duration_seconds");
        let mut lines = Vec::new();
        for (at, bits) in samples {
            let when = match (times.iter().find(|(time, _)| time == at), scraped.binary_search(at)) {
                (Some((_, words)), _) => words.clone(),
                (None, Ok(scrape)) if scrape < scrapes => format!("scrape {}", scrape + 1),
                (None, Ok(_)) => continue,
                // Prometheus sends nothing that is older than itself.
                (None, Err(_)) if *at < began_ms => continue,
                (None, Err(_)) => at.to_string(),
            };
            let number: Option<usize> = when.rsplit_once(' ').and_then(|(_, number)| number.parse().ok());
            if number.is_some_and(|number| number > scrapes) {
                continue;
            }
            let value = match f64::from_bits(*bits) {
                _ if *bits == STALE => "stale".to_owned(),
                value if value.is_nan() => format!("NaN {bits:x}"),
                _ if duration => "some time".to_owned(),
                value => format!("{value:?}"),
            };
            lines.push(format!("{when}: {value}"));
        }
        if !lines.is_empty() {
            story.insert(series.clone(), lines);
        }
    }
    story
}

/// Series by series, what only one of the two wrote.
fn difference(theirs: &Story, ours: &Story) -> String {
    let mut words = String::new();
    for series in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let [theirs, ours] = [theirs.get(series), ours.get(series)];
        if theirs != ours {
            let shown: Vec<_> = series.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            words += &format!("  {{{}}}\n    Prometheus {theirs:?}\n    meshscrape {ours:?}\n", shown.join(", "));
        }
    }
    words
}

/// The configuration that both read, but for where to write, and but for the consent that we want where a target may choose
/// its own labels.
fn config(side: Side, exporter: &Exporter, server: &Server, certs: Option<&CertsDir>, receiver: &Receiver) -> String {
    let mut text = format!(
        "global: {{ scrape_interval: {INTERVAL}, scrape_timeout: {INTERVAL} }}
remote_write:
  - url: {}
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
        if let Some(certs) = certs {
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
        for line in &case.config {
            text += &format!("    {line}\n");
        }
        text += &format!("    static_configs:\n      - targets: ['{}']\n        labels:\n", server.socket());
        text += &format!("          case: {}\n          instance: exporter\n", case.name);
        if certs.is_some() {
            text += &format!("          __spiffe_id__: {CART}\n");
        }
        for line in &case.labels {
            text += &format!("          {line}\n");
        }
    }
    text
}

/// A real Prometheus in agent mode.
async fn prometheus(config: &str) -> Process {
    let dir = TempDir::new().expect("a directory");
    std::fs::write(dir.path().join("prometheus.yml"), config).expect("its configuration");
    let arguments =
        ["--agent", "--config.file=prometheus.yml", "--storage.agent.path=data", "--web.listen-address=127.0.0.1:0"];
    let mut process = Process::start("prometheus", dir, &arguments);
    process.says("Agent WAL storage started").await;
    process
}

/// The differences must be those on purpose, and these must be.
fn judge(found: &BTreeMap<String, String>, cases: &BTreeSet<String>) {
    let lines = || DIFFERENCES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let reasons = lines().filter(|line| line.starts_with("== ")).count();
    assert!(reasons <= 10, "differences on purpose are few");
    let on_purpose: BTreeSet<&str> = lines().filter(|line| !line.starts_with("== ")).collect();
    let mut words = Vec::new();
    for (case, how) in found.iter().filter(|(case, _)| !on_purpose.contains(case.as_str())) {
        words.push(format!("{case}\n{how}"));
    }
    for case in on_purpose.iter().filter(|case| cases.contains(**case) && !found.contains_key(**case)) {
        words.push(format!("{case} is the same now, and is still listed as a difference\n"));
    }
    assert!(words.is_empty(), "{} cases differ:\n{}", words.len(), words.concat());
}

fn all() -> Vec<Case> {
    let files = [
        ("answers", include_str!("../fixtures/beside/answers.cases")),
        ("labels", include_str!("../fixtures/beside/labels.cases")),
        ("limits", include_str!("../fixtures/beside/limits.cases")),
        ("relabel", include_str!("../fixtures/beside/relabel.cases")),
        ("staleness", include_str!("../fixtures/beside/staleness.cases")),
    ];
    files.iter().flat_map(|(file, text)| cases::parse(file, text)).collect()
}

/// The tables of what the parser makes of a body.
fn expositions() -> Vec<Case> {
    let text = "text/plain; version=0.0.4";
    let files = [
        ("text", text, include_str!("../fixtures/exposition/text.cases")),
        ("openmetrics", "application/openmetrics-text", include_str!("../fixtures/exposition/openmetrics.cases")),
        ("more", text, include_str!("../fixtures/exposition/more.cases")),
    ];
    files.iter().flat_map(|(file, kind, text)| cases::of_expositions(file, kind, text)).collect()
}

async fn check(cases: Vec<Case>, tls: bool) {
    let names = cases.iter().map(|case| case.name.clone()).collect();
    let mut found = run(cases.clone(), tls).await;
    // A difference is one each time. What a machine was too slow for is none, and is played again with less beside it.
    let again: Vec<Case> = cases.into_iter().filter(|case| found.contains_key(&case.name)).collect();
    let still = if again.is_empty() { BTreeMap::new() } else { run(again, tls).await };
    found.retain(|case, _| still.contains_key(case));
    judge(&found, &names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_plain_http() {
    check(all(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_mtls() {
    check(all(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_of_the_tables() {
    check(expositions(), false).await;
}
