//! What a queue promises, under paused time.

use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::model::{TargetId, WriteFormat};

const LINGER: Duration = Duration::from_secs(5);

fn limits(max_samples: u64) -> LeaseLimits {
    LeaseLimits { max_samples, max_message_bytes: u64::MAX, linger: LINGER }
}

/// A block that is known by its timestamp, the only one of its target.
fn block(number: i64) -> Block {
    Block {
        target: TargetId(number.unsigned_abs()),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: 10,
        min_ms: number,
        max_ms: number,
        raw_len: 100,
        elements: Bytes::from(vec![0; 50]),
    }
}

fn settings(capacity_bytes: u64) -> QueueSettings {
    QueueSettings { name: "one".into(), labels: vec![("remote_name".into(), "one".into())], capacity_bytes, disk: None }
}

fn spool(capacity_bytes: u64) -> (Spool, Outlet) {
    let spool = Spool::new(Metrics::new(&mut Registry::default()));
    let outlet = spool.open(0, settings(capacity_bytes));
    (spool, outlet)
}

fn numbers(lease: &Lease) -> Vec<i64> {
    lease.blocks().map(|block| block.min_ms).collect()
}

async fn next(outlet: &mut Outlet, max_samples: u64) -> Lease {
    outlet.lease(limits(max_samples)).await.expect("the spool is open, or holds blocks")
}

/// What one test block costs in a queue.
fn cost() -> u64 {
    let (spool, outlet) = spool(u64::MAX);
    spool.push(block(0));
    outlet.snapshot().waiting_bytes
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_goes_at_once() {
    let (spool, mut outlet) = spool(u64::MAX);
    let start = Instant::now();
    (1..=5).for_each(|n| spool.push(block(n)));
    let lease = next(&mut outlet, 30).await;
    assert_eq!(numbers(&lease), [1, 2, 3]);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_partial_batch_waits_from_its_first_block_on() {
    let (spool, mut outlet) = spool(u64::MAX);
    spool.push(block(1));
    tokio::time::advance(Duration::from_secs(3)).await;
    spool.push(block(2));
    let start = Instant::now();
    let lease = next(&mut outlet, 1_000).await;
    assert_eq!(numbers(&lease), [1, 2]);
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_outlet_wakes_when_the_batch_fills() {
    let (spool, mut outlet) = spool(u64::MAX);
    spool.push(block(1));
    let filled = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        spool.push(block(2));
    };
    let start = Instant::now();
    let (lease, ()) = tokio::join!(next(&mut outlet, 20), filled);
    assert_eq!(numbers(&lease), [1, 2]);
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn bytes_limit_a_lease_and_a_large_block_goes_alone() {
    let (spool, mut outlet) = spool(u64::MAX);
    (1..=4).for_each(|n| spool.push(block(n)));
    let by_bytes = LeaseLimits { max_samples: u64::MAX, max_message_bytes: 250, linger: LINGER };
    assert_eq!(numbers(&outlet.lease(by_bytes).await.expect("open")), [1, 2]);
    assert_eq!(numbers(&next(&mut outlet, 3).await), [1], "more samples than the limit");
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_lease_returns_to_its_place() {
    let (spool, mut outlet) = spool(u64::MAX);
    (1..=6).for_each(|n| spool.push(block(n)));
    let (first, second) = (next(&mut outlet, 20).await, next(&mut outlet, 20).await);
    drop(first);
    drop(second);
    let all = next(&mut outlet, 60).await;
    assert_eq!(numbers(&all), [1, 2, 3, 4, 5, 6]);
    all.ack();
    assert_eq!(outlet.snapshot().pending_blocks, 0);
}

/// The same of this target.
fn block_of(target: u64, number: i64) -> Block {
    Block { target: TargetId(target), ..block(number) }
}

#[tokio::test(start_paused = true)]
async fn two_leases_never_have_blocks_of_one_target() {
    let (spool, mut outlet) = spool(u64::MAX);
    for (target, number) in [(1, 1), (2, 2), (1, 3), (3, 4), (2, 5)] {
        spool.push(block_of(target, number));
    }
    let (of_1, of_2) = (next(&mut outlet, 10).await, next(&mut outlet, 10).await);
    assert_eq!((numbers(&of_1), numbers(&of_2)), (vec![1], vec![2]));
    let of_3 = next(&mut outlet, 10).await;
    assert_eq!(numbers(&of_3), [4], "of a target that is free");
    let rest = tokio::time::timeout(LINGER * 2, outlet.lease(limits(10))).await;
    assert!(rest.is_err(), "all that waits is of targets that are busy");
    drop(of_1);
    let of_1 = next(&mut outlet, 20).await;
    assert_eq!(numbers(&of_1), [1, 3], "it went back to its place");
    of_2.ack();
    assert_eq!(numbers(&next(&mut outlet, 20).await), [5]);
    drop((of_1, of_3));
    assert_eq!(numbers(&next(&mut outlet, 100).await), [1, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_lease_is_settled_by_itself() {
    let (spool, mut outlet) = spool(u64::MAX);
    for (target, number) in [(1, 1), (2, 2), (1, 3)] {
        spool.push(block_of(target, number));
    }
    let mut lease = next(&mut outlet, 30).await;
    let of_1 = lease.take_out(|block| block.target == TargetId(1)).expect("there are some");
    assert_eq!((numbers(&of_1), numbers(&lease)), (vec![1, 3], vec![2]));
    assert!(lease.take_out(|_| false).is_none());
    of_1.ack();
    spool.push(block_of(1, 4));
    spool.push(block_of(2, 5));
    assert_eq!(numbers(&next(&mut outlet, 10).await), [4], "this target is free again");
    drop(lease);
    assert_eq!(numbers(&next(&mut outlet, 100).await), [2, 4, 5]);
    assert_eq!(outlet.snapshot().pending_blocks, 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_its_oldest_and_counts_them() {
    let (spool, mut outlet) = spool(3 * cost());
    (1..=5).for_each(|n| spool.push(block(n)));
    let seen = outlet.snapshot();
    assert_eq!((seen.pending_blocks, seen.pending_samples), (3, 30));
    assert_eq!((seen.dropped_blocks, seen.dropped_samples), (2, 20));
    assert_eq!(seen.oldest_ms, Some(3));
    assert!(seen.waiting_bytes <= seen.capacity_bytes);
    assert_eq!(numbers(&next(&mut outlet, 30).await), [3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn it_is_known_how_long_ago_something_was_dropped_last() {
    let (spool, mut outlet) = spool(2 * cost());
    (1..=2).for_each(|n| spool.push(block(n)));
    assert_eq!(outlet.snapshot().since_drop, None);
    spool.push(block(3));
    assert_eq!(outlet.snapshot().since_drop, Some(Duration::ZERO));
    next(&mut outlet, 30).await.ack();
    tokio::time::advance(Duration::from_secs(90)).await;
    spool.push(block(4));
    assert!(outlet.snapshot().since_drop >= Some(Duration::from_secs(90)), "there was room for this one");
}

#[tokio::test(start_paused = true)]
async fn the_newest_block_is_kept_whatever_its_size() {
    let (spool, mut outlet) = spool(0);
    spool.push(block(1));
    spool.push(block(2));
    assert_eq!(numbers(&next(&mut outlet, 1).await), [2]);
}

#[tokio::test(start_paused = true)]
async fn what_returns_to_a_full_queue_is_dropped_first() {
    let (spool, mut outlet) = spool(2 * cost());
    spool.push(block(1));
    spool.push(block(2));
    let lease = next(&mut outlet, 20).await;
    spool.push(block(3));
    assert_eq!(outlet.snapshot().oldest_ms, Some(1), "what is leased still counts as pending");
    drop(lease);
    assert_eq!(outlet.snapshot().dropped_blocks, 1);
    assert_eq!(numbers(&next(&mut outlet, 20).await), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn queues_know_nothing_of_each_other() {
    let spool = Spool::new(Metrics::new(&mut Registry::default()));
    let outlets = [spool.open(0, settings(cost())), spool.open(1, settings(u64::MAX))];
    (1..=3).for_each(|n| spool.push(block(n)));
    (1..=3).for_each(|n| spool.push(Block { receiver: 1, ..block(n) }));
    spool.push(Block { receiver: 2, ..block(9) });
    assert_eq!(outlets[0].snapshot().dropped_blocks, 2);
    assert_eq!(outlets[1].snapshot().pending_blocks, 3);
    assert_eq!(outlets[1].snapshot().dropped_blocks, 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_spool_runs_dry_without_waiting() {
    let (spool, mut outlet) = spool(u64::MAX);
    let (sender, blocks) = mpsc::channel(1);
    let running = tokio::spawn(spool.run(blocks));
    for n in 1..=3 {
        sender.send(block(n)).await.expect("the spool runs");
    }
    drop(sender);
    running.await.expect("no panic");

    let start = Instant::now();
    let first = next(&mut outlet, 20).await;
    assert_eq!(numbers(&first), [1, 2]);
    let rest = next(&mut outlet, 20).await;
    assert_eq!(numbers(&rest), [3]);
    rest.ack();
    // The first lease may still come back, so this is not the end yet.
    let end = outlet.lease(limits(20));
    tokio::pin!(end);
    assert!(tokio::time::timeout(Duration::from_secs(60), &mut end).await.is_err());
    first.ack();
    assert!(end.await.is_none());
    assert_eq!(start.elapsed(), Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_replaced_hands_out_what_it_has_and_the_new_one_the_rest() {
    let mut registry = Registry::default();
    let spool = Spool::new(Metrics::new(&mut registry));
    let mut old = spool.open(7, settings(u64::MAX));
    spool.push(Block { receiver: 7, ..block(1) });
    let mut new = spool.open(7, settings(u64::MAX));
    spool.push(Block { receiver: 7, ..block(2) });
    let lease = next(&mut old, 100).await;
    assert_eq!(numbers(&lease), [1]);
    lease.ack();
    assert!(old.lease(limits(100)).await.is_none());
    assert_eq!(numbers(&next(&mut new, 100).await), [2]);

    spool.close(7);
    spool.push(Block { receiver: 7, ..block(3) });
    let lease = next(&mut new, 100).await;
    assert_eq!(numbers(&lease), [2], "what was leased and not delivered is there again, what came too late is not");
    lease.ack();
    assert!(new.lease(limits(100)).await.is_none());
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("into memory");
    let state = |line: &&str| line.contains("one") && !line.contains("dropped");
    assert_eq!(text.lines().find(state), None, "a queue that is gone has no state");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_takes_nothing() {
    let (spool, mut outlet) = spool(u64::MAX);
    spool.push(block(1));
    assert!(tokio::time::timeout(Duration::from_secs(1), outlet.lease(limits(100))).await.is_err());
    assert_eq!(numbers(&next(&mut outlet, 100).await), [1]);
}

/// Between two looks at what nobody uses.
#[tokio::test]
async fn what_a_receiver_leaves_that_was_back_for_a_while_is_new() {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::take(dir.path()).expect("nobody has it");
    let spool = Spool::at(home, Clock::system(), Metrics::new(&mut Registry::default()));
    let max_age = Duration::from_secs(3600);
    let limits = DiskLimits { max_bytes: 1 << 30, max_age };
    let settings = QueueSettings {
        disk: Some(DiskSettings { directory: "one".into(), limits, newest_first: false }),
        ..settings(1_000_000)
    };
    let leave = async |number| {
        drop(spool.open(0, settings.clone()));
        spool.push(block(number));
        spool.close(0);
        assert_eq!(spool.finish().await, Undelivered::default());
    };
    let disks = spool.disks.as_ref().expect("it is on disk");
    let (began, mut known) = (Instant::now(), strays::Known::default());
    leave(1).await;
    disks.look_after_strays(began, &mut known);
    leave(2).await;
    disks.look_after_strays(began + max_age * 2, &mut known);
    assert!(spool.has("one"), "it is not older than when it was left");
    disks.look_after_strays(began + max_age * 4, &mut known);
    assert!(!spool.has("one"));
}

#[tokio::test(start_paused = true)]
async fn metrics_follow() {
    let mut registry = Registry::default();
    let spool = Spool::new(Metrics::new(&mut registry));
    let mut outlet = spool.open(0, settings(2 * cost()));
    (1..=3).for_each(|n| spool.push(block(n * 1_000)));
    next(&mut outlet, 10).await.ack();

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("into memory");
    for line in [
        "prometheus_remote_storage_highest_timestamp_in_seconds 3.0".to_owned(),
        "prometheus_remote_storage_samples_pending{remote_name=\"one\"} 10".to_owned(),
        format!("meshscrape_spool_waiting_bytes{{remote_name=\"one\"}} {}", cost()),
        format!("meshscrape_spool_capacity_bytes{{remote_name=\"one\"}} {}", 2 * cost()),
        "meshscrape_spool_dropped_blocks_total{remote_name=\"one\",reason=\"memory_full\"} 1".to_owned(),
        "meshscrape_spool_dropped_samples_total{remote_name=\"one\",reason=\"memory_full\"} 10".to_owned(),
    ] {
        assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
    }
}

/// As behind a receiver that answers 503, and in the process after that.
#[tokio::test]
async fn what_is_pending_is_counted_by_kind_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let max_age = Duration::from_secs(3600);
    let bounds = DiskLimits { max_bytes: 1 << 30, max_age };
    let disk = DiskSettings { directory: "one".into(), limits: bounds, newest_first: false };
    let at_once = LeaseLimits { linger: Duration::ZERO, ..limits(100) };
    for life in 0..2 {
        let mut registry = Registry::default();
        let home = Home::take(dir.path()).expect("nobody has it");
        let spool = Spool::at(home, Clock::system(), Metrics::new(&mut registry));
        let mut outlet = spool.open(0, QueueSettings { disk: Some(disk.clone()), ..settings(1_000_000) });
        if life == 0 {
            spool.push(Block { histograms: 4, exemplars: 3, ..block(1) });
        }
        drop(outlet.lease(at_once).await.expect("it is open"));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("into memory");
        for (kind, count) in [("samples", 6), ("histograms", 4), ("exemplars", 3)] {
            let line = format!("prometheus_remote_storage_{kind}_pending{{remote_name=\"one\"}} {count}");
            assert!(text.lines().any(|own| own == line), "{line} is not in\n{text}");
        }
        spool.close(0);
        drop(outlet);
        assert_eq!(spool.finish().await, Undelivered::default());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Lease(u64),
    Ack(usize),
    Return(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Push),
        2 => (1..60u64).prop_map(Step::Lease),
        1 => any::<usize>().prop_map(Step::Ack),
        1 => any::<usize>().prop_map(Step::Return),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    /// Whatever happens to leases: every block is acknowledged once, dropped once, or still there; each lease is in order;
    /// and the blocks of each target are acknowledged in order.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in steps(), room in 1..8u64, targets in 1..6i64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let (spool, mut outlet) = spool(room * cost());
            let (mut pushed, mut acked, mut out) = (0, Vec::new(), Vec::<Lease>::new());
            for step in steps {
                match step {
                    Step::Push => {
                        pushed += 1;
                        spool.push(block_of((pushed % targets).unsigned_abs(), pushed));
                    }
                    Step::Lease(max) => {
                        let lease = tokio::time::timeout(LINGER * 2, outlet.lease(limits(max))).await;
                        out.extend(lease.ok().flatten());
                    }
                    Step::Ack(which) if !out.is_empty() => {
                        let lease = out.swap_remove(which % out.len());
                        acked.extend(numbers(&lease));
                        lease.ack();
                    }
                    Step::Return(which) if !out.is_empty() => drop(out.swap_remove(which % out.len())),
                    Step::Ack(_) | Step::Return(_) => {}
                }
                prop_assert!(out.iter().all(|lease| numbers(lease).is_sorted()));
                let leased = out.iter().map(|lease| lease.blocks().map(|one| one.target).collect::<HashSet<_>>());
                let (sum, of_any) = leased.fold((0, HashSet::new()), |(sum, mut all): (_, HashSet<TargetId>), one| {
                    all.extend(&one);
                    (sum + one.len(), all)
                });
                prop_assert_eq!(sum, of_any.len(), "two leases have something of one target");
                let seen = outlet.snapshot();
                prop_assert!(seen.waiting_bytes <= seen.capacity_bytes);
                let known = acked.len() as u64 + seen.dropped_blocks + seen.pending_blocks;
                prop_assert_eq!(known, pushed as u64);
            }
            drop(out);
            spool.close(0);
            let before = acked.len();
            while let Some(lease) = outlet.lease(limits(1)).await {
                acked.extend(numbers(&lease));
                lease.ack();
            }
            prop_assert!(acked[before..].is_sorted());
            for target in 0..targets {
                prop_assert!(acked.iter().filter(|one| **one % targets == target).is_sorted(), "{acked:?}");
            }
            let mut unique = acked.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), acked.len());
            prop_assert_eq!(acked.len() as u64 + outlet.snapshot().dropped_blocks, pushed as u64);
            Ok(())
        })?;
    }
}
