//! Blocks put together and taken apart for requests.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::{Block, Labels, Tenant};
use crate::spool::Lease;
use crate::wire::{self, WireError};

pub(super) fn samples_of(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| u64::from(block.samples)).sum()
}

/// Before compression, which is what receivers limit.
pub(super) fn bytes_of(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| u64::from(block.raw_len)).sum()
}

pub(super) fn spans_targets(blocks: &[Block]) -> bool {
    blocks.windows(2).any(|pair| pair[0].target != pair[1].target)
}

/// The blocks of each target, in order, the targets in the order of their first blocks.
pub(super) fn by_target(lease: Lease) -> Vec<Lease> {
    parted(lease, |block| block.target)
}

/// The same by tenant.
pub(super) fn by_tenant(lease: Lease) -> Vec<Lease> {
    parted(lease, |block| block.tenant.clone())
}

fn parted<T: PartialEq>(mut lease: Lease, by: impl Fn(&Block) -> T) -> Vec<Lease> {
    let mut parts = Vec::new();
    while let Some(one) = first(&lease, &by) {
        parts.extend(lease.take_out(|block| by(block) == one));
    }
    parts
}

/// Whose these blocks are, all of which are of one tenant.
pub(super) fn tenant_of(blocks: &[Block]) -> Option<&Tenant> {
    blocks.first()?.tenant.as_ref()
}

/// Runs of blocks that are encoded alike, in order: only these can share a request. There is more than one only after the
/// receiver was configured otherwise.
pub(super) fn by_format(mut lease: Lease) -> Vec<Lease> {
    let mut parts = Vec::new();
    while let Some(format) = first(&lease, |block| block.format) {
        let mut goes_on = true;
        parts.extend(lease.take_out(|block| {
            goes_on &= block.format == format;
            goes_on
        }));
    }
    parts
}

fn first<T>(lease: &Lease, what: impl Fn(&Block) -> T) -> Option<T> {
    lease.blocks().next().map(what)
}

/// The blocks in two halves, each a request of its own, with different series. `None` if there is but one.
pub(super) fn halves(blocks: &[Block]) -> Result<Option<[Vec<Block>; 2]>, WireError> {
    let series = all_series(blocks)?;
    let mut known = HashSet::new();
    let mut distinct: Vec<_> = series.iter().flatten().filter(|one| known.insert(*one)).collect();
    if distinct.len() < 2 {
        return Ok(None);
    }
    let second: HashSet<_> = distinct.split_off(distinct.len() / 2).into_iter().collect();
    apart(blocks, &series, |one| second.contains(one)).map(Some)
}

/// The blocks without the series that are unwanted, and these alone.
pub(super) fn without(blocks: &[Block], is_unwanted: impl Fn(&Labels) -> bool) -> Result<[Vec<Block>; 2], WireError> {
    apart(blocks, &all_series(blocks)?, is_unwanted)
}

/// Whether there are several series in the blocks, as far as they can be looked into.
pub(super) fn spans_series(blocks: &[Block]) -> bool {
    let series: HashSet<_> = all_series(blocks).unwrap_or_default().into_iter().flatten().collect();
    series.len() > 1
}

/// So many series of the blocks, far from each other, the first of them in the place of this `turn`; all turns come to each of
/// them. None if there is but one.
pub(super) fn some_series(blocks: &[Block], turn: usize, count: usize) -> Result<Vec<Labels>, WireError> {
    let (all, mut known) = (all_series(blocks)?, HashSet::new());
    let distinct: Vec<_> = all.iter().flatten().filter(|one| known.insert(*one)).collect();
    if distinct.len() < 2 {
        return Ok(Vec::new());
    }
    let mut chosen: Vec<usize> = Vec::new();
    for turn in (turn as u64).. {
        // Multiples of the golden section modulo 1: each is far from those shortly before it.
        let place = (u128::from(turn.wrapping_mul(0x9E37_79B9_7F4A_7C15)) * distinct.len() as u128) >> 64;
        if !chosen.contains(&(place as usize)) {
            chosen.push(place as usize);
        }
        if chosen.len() == count.min(distinct.len()) {
            break;
        }
    }
    Ok(chosen.into_iter().map(|at| distinct[at].clone()).collect())
}

/// What is remembered of a series instead of its labels, where there may be thousands. Who makes those of two series the same
/// has them sent together, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SeriesId(u64);

pub(super) fn id_of(series: &Labels) -> SeriesId {
    let mut hasher = DefaultHasher::new();
    series.hash(&mut hasher);
    SeriesId(hasher.finish())
}

/// The first series that any of the blocks holds.
pub(super) fn first_series(blocks: &[Block]) -> Option<Labels> {
    let series = wire::series_of(blocks.first()?).ok()?;
    series.into_iter().next()
}

fn all_series(blocks: &[Block]) -> Result<Vec<Vec<Labels>>, WireError> {
    blocks.iter().map(wire::series_of).collect()
}

/// Those for whose series it is false, and those for which it is true, in order.
fn apart(
    blocks: &[Block],
    series: &[Vec<Labels>],
    is_second: impl Fn(&Labels) -> bool,
) -> Result<[Vec<Block>; 2], WireError> {
    let mut parts = [Vec::new(), Vec::new()];
    for (block, series) in blocks.iter().zip(series) {
        for (second, part) in [false, true].into_iter().zip(&mut parts) {
            part.extend(wire::part(block, |at| series.get(at).is_some_and(|one| is_second(one) == second))?);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::model::{Sample, TargetId, WriteFormat};
    use crate::spool::{self, LeaseLimits, Outlet, QueueSettings, Spool};

    /// With these series.
    fn block(target: u64, number: i64, series: &[&str]) -> Block {
        let mut message = Vec::new();
        for name in series {
            let labels = [("__name__", *name)].into_iter().collect();
            wire::push_sample(&mut message, &wire::encode_labels(&labels), Sample { value: 1.0, timestamp_ms: number });
        }
        Block {
            target: TargetId(target),
            receiver: 0,
            tenant: None,
            histograms: 0,
            exemplars: 0,
            format: WriteFormat::V1,
            samples: series.len() as u32,
            min_ms: number,
            max_ms: number,
            raw_len: message.len() as u32,
            elements: Bytes::from(wire::compress(&message).expect("it is small")),
        }
    }

    async fn leased(blocks: &[Block]) -> (Lease, Outlet) {
        let spool = Spool::new(spool::Metrics::new(&mut Registry::default()));
        let settings = QueueSettings { name: "one".into(), labels: Vec::new(), capacity_bytes: u64::MAX, disk: None };
        let mut outlet = spool.open(0, settings);
        blocks.iter().for_each(|block| spool.push(block.clone()));
        spool.close(0);
        let limits = LeaseLimits { max_samples: u64::MAX, max_message_bytes: u64::MAX, linger: Default::default() };
        (outlet.lease(limits).await.expect("blocks"), outlet)
    }

    fn numbers(parts: &[Lease]) -> Vec<Vec<i64>> {
        parts.iter().map(|part| part.blocks().map(|block| block.min_ms).collect()).collect()
    }

    #[tokio::test]
    async fn blocks_are_parted_by_target_and_stay_in_order() {
        let blocks = [(7, 1), (3, 2), (7, 3), (5, 4), (3, 5)].map(|(target, number)| block(target, number, &["a"]));
        assert!(spans_targets(&blocks));
        let (lease, _outlet) = leased(&blocks).await;
        let parts = by_target(lease);
        assert_eq!(numbers(&parts), [vec![1, 3], vec![2, 5], vec![4]]);
        assert!(!parts.iter().any(|part| spans_targets(&part.blocks().cloned().collect::<Vec<_>>())));
    }

    #[tokio::test]
    async fn blocks_of_one_request_are_encoded_alike_and_stay_in_order() {
        let of_2 = |number| Block { format: WriteFormat::V2, ..block(1, number, &["a"]) };
        let blocks = [block(1, 1, &["a"]), block(2, 2, &["a"]), of_2(3), of_2(4), block(1, 5, &["a"])];
        let (lease, _outlet) = leased(&blocks).await;
        assert_eq!(numbers(&by_format(lease)), [vec![1, 2], vec![3, 4], vec![5]]);
    }

    /// What is in the blocks: number and name of each series.
    fn held(blocks: &[Block]) -> Vec<String> {
        let of = |block: &Block| {
            let series = wire::series_of(block).expect("ours");
            series.into_iter().map(|one| format!("{}{}", one.value("__name__"), block.min_ms)).collect::<Vec<_>>()
        };
        blocks.iter().flat_map(of).collect()
    }

    #[test]
    fn halves_have_different_series() {
        let blocks = [block(1, 1, &["a", "b", "c", "d"]), block(1, 2, &["d", "a", "e"])];
        let [first, second] = halves(&blocks).expect("ours").expect("several series");
        assert_eq!(
            (held(&first), held(&second)),
            (["a1", "b1", "a2"].map(str::to_owned).to_vec(), ["c1", "d1", "d2", "e2"].map(str::to_owned).to_vec())
        );
        assert_eq!((samples_of(&first), samples_of(&second)), (3, 4));
        let one = [block(1, 1, &["a"]), block(1, 2, &["a"]), block(1, 3, &["a"])];
        assert!(halves(&one).expect("ours").is_none());
        assert!(spans_series(&blocks) && !spans_series(&one));
    }

    #[test]
    fn some_series_are_far_from_each_other_and_all_have_their_turn() {
        let names: Vec<_> = (0..20).map(|n| format!("n{n:02}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let blocks = [block(1, 1, &names), block(1, 2, &names)];
        let mut seen = HashSet::new();
        for turn in 0..40 {
            let some = some_series(&blocks, turn, 3).expect("ours");
            let mut places: Vec<_> =
                some.iter().map(|one| names.binary_search(&one.value("__name__")).expect("one of them")).collect();
            seen.extend(places.iter().copied());
            places.sort_unstable();
            assert!(places.len() == 3 && places.windows(2).all(|two| two[1] - two[0] >= 4), "{turn}: {places:?}");
        }
        assert_eq!(seen.len(), 20);
        assert_eq!(some_series(&[block(1, 1, &["a", "b"])], 7, 3).expect("ours").len(), 2);
        assert_eq!(some_series(&[block(1, 1, &["a"])], 0, 3).expect("ours").len(), 0);
    }

    #[test]
    fn series_are_taken_out_of_all_blocks() {
        let blocks = [block(1, 1, &["a", "b"]), block(1, 2, &["b"])];
        let bad: Labels = [("__name__", "b")].into_iter().collect();
        let [good, bad] = without(&blocks, |series| *series == bad).expect("ours");
        assert_eq!((held(&good), held(&bad)), (vec!["a1".to_owned()], vec!["b1".to_owned(), "b2".to_owned()]));
        assert_eq!(first_series(&bad).expect("one").value("__name__"), "b");
    }
}
