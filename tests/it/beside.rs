//! Side by side: one configuration, one scripted exporter, a real Prometheus in agent mode and this agent, both writing
//! to a recorder. What was recorded must be the same: label sets, values bit by bit, order within a series, staleness
//! markers, and what is said of the scrapes themselves.
//!
//! The two do not scrape at the same moment, so times are compared as what they are times of: the n-th scrape (every
//! scrape writes `up`), or a time that the exporter wrote into its n-th answer.

mod cases;
mod generate;
mod metadata;
mod nhcb;
mod own;
mod recorder;
mod reload;
mod stage;
mod story;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use self::cases::Case;
use self::stage::{Way, play};
use self::story::Pair;
use crate::support::scale;

/// Cases that come out differently on purpose, each with its reason.
const DIFFERENCES: &str = include_str!("../fixtures/beside/differences");

/// Slow enough for a loaded machine.
const PLAIN: Way = Way { tls: false, native: false, extra: false, version2: false, described: false, interval: "2s" };

/// The cases that come out differently on purpose.
fn on_purpose() -> BTreeSet<&'static str> {
    let lines = || DIFFERENCES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let reasons = lines().filter(|line| line.starts_with("== ")).count();
    assert!(reasons <= 10, "differences on purpose are few");
    lines().filter(|line| !line.starts_with("== ")).collect()
}

/// The differences must be those on purpose, and these must be.
fn judge(found: &BTreeMap<String, String>, cases: &BTreeSet<String>) {
    let on_purpose = on_purpose();
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
        ("exemplars", include_str!("../fixtures/beside/exemplars.cases")),
        ("labels", include_str!("../fixtures/beside/labels.cases")),
        ("limits", include_str!("../fixtures/beside/limits.cases")),
        ("merged", include_str!("../fixtures/beside/merged.cases")),
        ("protobuf", include_str!("../fixtures/beside/protobuf.cases")),
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

/// Plays the cases and gives how those differ that do, each time.
async fn differences(
    cases: Vec<Case>,
    way: Way,
    on_purpose: &BTreeSet<&str>,
    what_counts: impl Fn(Pair) -> Pair,
) -> BTreeMap<String, String> {
    let differ = |pairs: BTreeMap<String, Pair>| -> BTreeMap<String, String> {
        pairs.into_iter().filter_map(|(name, pair)| Some((name, what_counts(pair).difference()?))).collect()
    };
    let mut found = differ(play(cases.clone(), way).await);
    // A difference is one each time. What a machine was too slow for is none, and is played again with less beside it.
    let unclear = |name: &str| found.contains_key(name) && !on_purpose.contains(name);
    let again: Vec<Case> = cases.into_iter().filter(|case| unclear(&case.name)).collect();
    if !again.is_empty() {
        let still = differ(play(again, way).await);
        found.retain(|name, _| on_purpose.contains(name.as_str()) || still.contains_key(name));
    }
    found
}

async fn check(cases: Vec<Case>, way: Way) {
    let names = cases.iter().map(|case| case.name.clone()).collect();
    judge(&differences(cases, way, &on_purpose(), |pair| pair).await, &names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_plain_http() {
    check(all(), PLAIN).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_mtls() {
    check(all(), Way { tls: true, ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_additional_series_of_a_scrape() {
    check(all(), Way { extra: true, ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_native_histograms() {
    let files = [
        ("native", include_str!("../fixtures/beside/native.cases")),
        ("nhcb", include_str!("../fixtures/beside/nhcb.cases")),
        ("native_exemplars", include_str!("../fixtures/beside/native_exemplars.cases")),
    ];
    let cases = files.iter().flat_map(|(file, text)| cases::parse(file, text)).collect();
    check(cases, Way { native: true, ..PLAIN }).await;
}

/// Listed bounds among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_remote_write_2() {
    let files = [
        ("exemplars", include_str!("../fixtures/beside/exemplars.cases")),
        ("labels", include_str!("../fixtures/beside/labels.cases")),
        ("native", include_str!("../fixtures/beside/native.cases")),
        ("nhcb", include_str!("../fixtures/beside/nhcb.cases")),
        ("native_exemplars", include_str!("../fixtures/beside/native_exemplars.cases")),
        ("staleness", include_str!("../fixtures/beside/staleness.cases")),
    ];
    let cases = files.iter().flat_map(|(file, text)| cases::parse(file, text)).collect();
    check(cases, Way { native: true, version2: true, ..PLAIN }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_of_the_tables() {
    check(expositions(), PLAIN).await;
}

/// An ordinary run plays what it always plays, a long one something new, and says what: `MESHSCRAPE_SEED` plays it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expositions_and_configurations_at_random() {
    let (rounds, targets, answers) = scale((1, 200, 10), (25, 200, 20));
    let seed: u64 = match std::env::var("MESHSCRAPE_SEED") {
        Ok(seed) => seed.parse().expect("MESHSCRAPE_SEED is a number"),
        Err(_) => scale(1, rand::random::<u32>().into()),
    };
    let mut shown: Vec<String> = Vec::new();
    for seed in seed..seed + rounds {
        println!("MESHSCRAPE_SEED={seed}");
        let cases = generate::cases(seed, targets, answers);
        let way = Way { interval: "1s", ..PLAIN };
        let found = differences(cases.clone(), way, &BTreeSet::new(), generate::what_counts).await;
        let differ = cases.iter().filter_map(|case| Some(format!("{case}\n{}", found.get(&case.name)?)));
        shown.extend(differ.inspect(|case| println!("{case}")));
    }
    assert!(shown.is_empty(), "{} cases differ:\n{}", shown.len(), shown.join("\n"));
}
