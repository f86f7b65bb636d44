//! What both say of metric families: TYPE, HELP and UNIT of every format, once each, as long as it is known.

use super::PLAIN;
use super::cases;
use super::recorder::{Descriptions, MetricMetadata, Series, by_case, descriptions, metadata};
use super::stage::{Way, play_for_metadata};
use super::story::{name, scraped_at};
use crate::support::receiver::Recorded;

/// The most families of one request, as both are told.
const AT_ONCE: usize = 7;

/// What was told each time. A request that is not full ends a round: the number of families must not be a multiple of what
/// a request holds.
fn rounds(recorded: &[Recorded]) -> Vec<Vec<MetricMetadata>> {
    let requests = metadata(recorded);
    let mut rounds: Vec<_> = requests.split_inclusive(|request| request.len() < AT_ONCE).map(<[_]>::concat).collect();
    // The last one may not have ended.
    rounds.pop_if(|_| requests.last().is_some_and(|request| request.len() == AT_ONCE));
    rounds
}

/// The first round in which everything had been played and what is gone for long was forgotten, in order.
fn conclusion(recorded: &[Recorded]) -> Option<Vec<MetricMetadata>> {
    let of = |round: &[MetricMetadata], family: &str| round.iter().any(|told| told.family == family);
    let mut found =
        rounds(recorded).into_iter().find(|round| of(round, "last_of_all") && !of(round, "gone_for_long"))?;
    found.sort();
    Some(found)
}

/// What was played, once more if it is not alike: a difference is one each time, what a machine was too slow for is none.
async fn alike_or_again<T>(played: impl AsyncFn() -> [T; 2], alike: impl Fn(&[T; 2]) -> bool) -> [T; 2] {
    let both = played().await;
    if alike(&both) { both } else { played().await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metric_families_are_described_alike() {
    let cases = cases::parse("metadata", include_str!("../../fixtures/beside/metadata.cases"));
    let enough = |recorded: &[Recorded]| conclusion(recorded).is_some();
    let played = async || {
        let recorded = play_for_metadata(cases.clone(), Way { interval: "1s", ..PLAIN }, enough).await;
        recorded.map(|recorded| conclusion(&recorded).expect("it was waited for"))
    };
    let [theirs, ours] = alike_or_again(played, |[theirs, ours]| theirs == ours).await;
    assert!(theirs.len() > 20, "{theirs:#?}");
    for known in ["gone_lately", "e_before"] {
        assert!(theirs.iter().any(|told| told.family == known), "{known} is remembered for a while");
    }
    assert_eq!(theirs, ours);
    assert!(ours.is_sorted_by(|one, other| one < other), "nothing is told twice");
}

/// By remote write 2.0, where each series says it; Prometheus does behind a flag.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_series_is_described_alike() {
    let cases = cases::parse("described", include_str!("../../fixtures/beside/described.cases"));
    let way = Way { interval: "1s", version2: true, described: true, ..PLAIN };
    let count = cases.len();
    let enough = |recorded: &[Recorded]| {
        let written = by_case(recorded);
        written.len() == count && written.values().all(|written| scraped_at(written).len() >= 5)
    };
    let played = async || play_for_metadata(cases.clone(), way, enough).await.map(|recorded| descriptions(&recorded));
    // Of its own series Prometheus says nothing yet.
    let differ = |[theirs, ours]: &[Descriptions; 2]| {
        let differ = theirs.iter().filter(|(series, _)| !is_synthetic(series));
        let differ = differ.filter(|(series, described)| ours.get(*series) != Some(*described));
        let words = differ.map(|(series, theirs)| format!("{series:?}: {theirs:?}, ours {:?}\n", ours.get(series)));
        words.collect::<String>()
    };
    let same_series = |[theirs, ours]: &[Descriptions; 2]| ours.keys().eq(theirs.keys());
    let both = alike_or_again(played, |both| differ(both).is_empty() && same_series(both)).await;
    let words = differ(&both);
    assert!(words.is_empty(), "{words}");
    assert!(same_series(&both), "the same series");
    let [theirs, ours] = both;
    assert!(theirs.values().flatten().count() > 20, "Prometheus described {theirs:#?}");
    assert!(ours.iter().filter(|(series, _)| is_synthetic(series)).all(|(_, described)| described.is_some()));
}

fn is_synthetic(series: &Series) -> bool {
    name(series) == "up" || name(series).starts_with("scrape_")
}
