//! What both say of metric families: TYPE, HELP and UNIT of every format, once each, as long as it is known.

use super::PLAIN;
use super::cases;
use super::recorder::{MetricMetadata, metadata};
use super::stage::{Way, play_for_metadata};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metric_families_are_described_alike() {
    let cases = cases::parse("metadata", include_str!("../../fixtures/beside/metadata.cases"));
    let enough = |recorded: &[Recorded]| conclusion(recorded).is_some();
    let recorded = play_for_metadata(cases, Way { interval: "1s", ..PLAIN }, enough).await;
    let [theirs, ours] = recorded.map(|recorded| conclusion(&recorded).expect("it was waited for"));
    assert!(theirs.len() > 20, "{theirs:#?}");
    for known in ["gone_lately", "e_before"] {
        assert!(theirs.iter().any(|told| told.family == known), "{known} is remembered for a while");
    }
    assert_eq!(theirs, ours);
    assert!(ours.is_sorted_by(|one, other| one < other), "nothing is told twice");
}
