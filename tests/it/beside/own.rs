//! What both say of remote write on their own `/metrics`: the same names, types and labels, and counts that mean the same; and
//! external labels that begin with underscores, which tell replicas apart, leave both of them alike.

use std::collections::{BTreeMap, BTreeSet};

use super::stage::{Watched, play_watched};
use super::{PLAIN, Way, cases};
use crate::support::agent::eventually;
use crate::support::http;

const PREFIX: &str = "prometheus_remote_storage_";

/// What only Prometheus has: a cache of its memory.
const ONLY_THEIRS: [&str; 1] = ["string_interner_zero_reference_releases_total"];

/// A counter, and a histogram with an exemplar that is new in the first scrape.
const CASE: &str = "== one
> protobuf
| name: \"c\" type: COUNTER metric { counter { value: 1 } }
| name: \"h\" type: HISTOGRAM metric { histogram { sample_count: 3 sample_sum: 18.5 schema: 3 positive_span { offset: 0 length: 2 } positive_delta: [1, 1] exemplars { label { name: \"n\" value: \"1\" } value: 1 timestamp { seconds: 1700000001 } } } }
";

/// The type and the labels of each family.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_prefix(PREFIX)) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        // Prometheus says its own metrics in the text format, we say ours in OpenMetrics.
        let name = match kind {
            "counter" => format!("{}_total", name.trim_end_matches("_total")),
            _ => name.to_owned(),
        };
        let series: Vec<_> = text
            .lines()
            .filter(|line| {
                line.strip_prefix(PREFIX)
                    .and_then(|line| line.strip_prefix(name.as_str()))
                    .is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
            })
            .collect();
        let labels = series
            .iter()
            .filter_map(|line| line.split_once('{'))
            .flat_map(|(_, rest)| rest.split("\",").collect::<Vec<_>>());
        let labels = labels.filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
        families.insert(name, (kind.to_owned(), labels.filter(|label| label != "le").collect()));
    }
    families
}

/// The value of the only series of a family, once there is one.
fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter(|line| {
        line.strip_prefix(PREFIX)
            .and_then(|line| line.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    Some(lines.next()?.rsplit(' ').next().expect("a value").parse().expect("a number"))
}

async fn texts(watched: &Watched) -> [String; 2] {
    let theirs = http::get(watched.prometheus, "/metrics").await.expect("/metrics answers").text().to_owned();
    [theirs, watched.ours.metrics().await]
}

/// Six samples and a histogram a scrape, and one exemplar in all. Prometheus counts one that it has sent already as come in
/// again.
fn adds_up(text: &str) -> bool {
    // Prometheus has them once it has begun to read what it is to send.
    let of = |kind: &str, what: &str| value(text, &format!("{kind}_{what}total")).unwrap_or_default();
    let points = |what: &str| of("histograms", what) >= 2.0 && of("samples", what) == 6.0 * of("histograms", what);
    points("") && points("in_") && of("exemplars", "") == 1.0 && of("exemplars", "in_") >= 1.0
}

async fn compared(version2: bool) {
    let way = Way { native: true, version2, ..PLAIN };
    let watched = play_watched(cases::parse("own", CASE), way, "{ cluster: c1, __replica__: r1 }").await;
    eventually("what is counted of both adds up", async || {
        // Not at every moment: what one scrape gives is not read and sent at once.
        texts(&watched).await.iter().all(|text| adds_up(text)).then_some(())
    })
    .await;
    let [theirs, ours] = texts(&watched).await.map(|text| families(&text));
    for (name, family) in theirs.iter().filter(|(name, _)| !ONLY_THEIRS.contains(&name.as_str())) {
        assert_eq!(ours.get(name), Some(family), "{name}");
    }
    for name in ONLY_THEIRS {
        assert!(theirs.contains_key(name) && !ours.contains_key(name), "{name}");
    }
    for receiver in &watched.receivers {
        let recorded = receiver.recorded();
        let mut labels = recorded.iter().flat_map(|one| &one.samples).map(|(labels, _)| labels);
        assert!(labels.all(|labels| labels.value("cluster") == "c1" && labels.value("__replica__") == "r1"));
        assert!(recorded.iter().any(|one| !one.samples.is_empty()));
    }
    watched.ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn own_metrics_of_remote_write_are_those_of_prometheus() {
    tokio::join!(compared(false), compared(true));
}
