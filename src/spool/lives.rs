//! What a queue on disk promises from one process to the next, on a disk in memory: through wrong clocks, and disks that do
//! not give what is on them.

mod writing;

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use prometheus_client::registry::Registry;

use super::disk::{Disk, DiskLimits, Next, READ_PATIENCE, Ticks};
use super::memory::{Fault, Memory};
use super::*;
use crate::model::{TargetId, WriteFormat};

const MAX_AGE: Duration = Duration::from_secs(7200);
const YEARS: i64 = 10 * 365 * 24 * 3600 * 1000;

fn block(number: i64) -> Block {
    Block {
        target: TargetId(1),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: 10,
        min_ms: number,
        max_ms: number,
        raw_len: 100,
        elements: Bytes::from(vec![number as u8; 1_000]),
    }
}

fn limits(max_bytes: u64) -> DiskLimits {
    DiskLimits { max_bytes, max_age: MAX_AGE }
}

fn settings(max_bytes: u64) -> QueueSettings {
    QueueSettings {
        name: "one".into(),
        labels: Vec::new(),
        capacity_bytes: 100_000,
        disk: Some(DiskSettings { directory: "one".into(), limits: limits(max_bytes), newest_first: false }),
    }
}

/// A process.
struct Life {
    queue: Arc<Queue>,
    seen: Box<dyn Fn() -> QueueSnapshot>,
    outlet: Option<Outlet>,
    disk: Disk<Memory>,
}

impl Life {
    /// Where the wall clock says `now_ms`.
    fn begin(storage: &Memory, now_ms: i64) -> Self {
        let storage = storage.clone();
        Self::at(Box::new(move || Ok(storage.clone())), now_ms)
    }

    fn at(place: disk::Place<Memory>, now_ms: i64) -> Self {
        Self::with_segments(place, now_ms, 5_000)
    }

    /// Where segments are so large.
    fn with_segments(place: disk::Place<Memory>, now_ms: i64, segment_bytes: u64) -> Self {
        let queue = Arc::new(Queue::new(settings(1 << 30), &Metrics::new(&mut Registry::default())));
        let mut log_limits = limits(1 << 30).of_log();
        log_limits.segment_bytes = segment_bytes;
        // Of this place it cannot be said that nothing is there.
        let place = (place, "/".into());
        let disk = Disk::new(Arc::clone(&queue), place, log_limits, 0, Ticks::from(now_ms), false);
        let outlet = Outlet::new(Arc::clone(&queue));
        Self { seen: Box::new(outlet.observer()), outlet: Some(outlet), queue, disk }
    }

    /// From now on there is less room.
    fn set_max_bytes(&mut self, max_bytes: u64) {
        assert!(self.queue.reopen(settings(max_bytes), &Metrics::new(&mut Registry::default())));
    }

    fn push(&mut self, numbers: std::ops::Range<i64>) {
        for number in numbers {
            self.queue.push(block(number));
            self.work();
        }
    }

    /// All that is due, and what would be in a second.
    fn work(&mut self) -> bool {
        self.disk.hurry();
        matches!(self.disk.settle(), Next::Within(_))
    }

    /// The numbers of all that comes out now.
    fn take(&mut self) -> Vec<i64> {
        let mut taken = Vec::new();
        for _ in 0..100 {
            self.work();
            taken.extend(self.take_some());
        }
        taken
    }

    /// The numbers of what comes out before the disk has done anything.
    fn take_some(&mut self) -> Vec<i64> {
        let limits = LeaseLimits { max_samples: 50, max_message_bytes: u64::MAX, linger: Duration::ZERO };
        let mut taken = Vec::new();
        if let Some(Some(lease)) = self.outlet.as_mut().expect("there is one").lease(limits).now_or_never() {
            taken.extend(lease.blocks().map(|block| block.min_ms));
            lease.ack();
        }
        taken
    }

    fn seen(&self) -> QueueSnapshot {
        (self.seen)()
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_or_set_makes_nothing_old() {
    let storage = Memory::default();
    let mut pushed = 0;
    // As of a machine that finds out what time it is after it has started.
    for now_ms in [0, YEARS, -YEARS, 3 * YEARS, 0] {
        let mut life = Life::begin(&storage, now_ms);
        assert!(life.work());
        assert_eq!((life.seen().pending_blocks, life.seen().dropped_blocks), (pushed as u64, 0), "at {now_ms}");
        life.push(pushed..pushed + 10);
        pushed += 10;
    }
    assert_eq!(Life::begin(&storage, YEARS).take(), Vec::from_iter(0..50));
}

#[tokio::test]
async fn what_waits_for_too_long_goes_also_through_several_processes() {
    let storage = Memory::default();
    let mut life = Life::begin(&storage, 0);
    life.push(0..10);
    life.disk.age(MAX_AGE / 2);
    life.push(10..20);
    drop(life);
    // The time between them is nobody's.
    let mut life = Life::begin(&storage, YEARS);
    life.work();
    assert_eq!(life.seen().pending_blocks, 20);
    life.disk.age(MAX_AGE * 3 / 4);
    life.work();
    assert_eq!(life.seen().dropped_blocks, 10);
    assert_eq!(life.take(), Vec::from_iter(10..20));
}

#[tokio::test]
async fn what_is_read_late_is_as_old_as_it_is() {
    let storage = Memory::default();
    let mut life = Life::begin(&storage, 0);
    life.push(0..8);
    life.disk.age(MAX_AGE * 3 / 4);
    life.push(8..12);
    drop(life);
    let names = storage.names(".log");
    for hidden in &names[..2] {
        let storage = storage.copy();
        storage.hide(hidden, 0);
        let mut life = Life::begin(&storage, 0);
        life.work();
        storage.unhide();
        life.work();
        assert_eq!((life.seen().pending_blocks, life.seen().dropped_blocks), (12, 0));
        life.disk.age(MAX_AGE / 2);
        life.work();
        assert_eq!((life.seen().pending_blocks, life.seen().dropped_blocks), (4, 8), "{hidden}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_at_first_holds_up_what_is_newer() {
    let storage = Memory::default();
    let mut before = Life::begin(&storage, 0);
    before.push(0..20);
    let names = storage.names(".log");
    for name in [&names[0], &names[2]] {
        let storage = storage.copy();
        storage.hide(name, 0);
        let mut life = Life::begin(&storage, 0);
        life.push(20..30);
        let mut taken = life.take();
        assert!(taken.len() < 20 && life.seen().dropped_blocks == 0, "{taken:?}");
        assert_eq!(life.seen().kept_blocks, life.seen().pending_blocks, "what is new is safe meanwhile");
        storage.unhide();
        taken.extend(life.take());
        assert_eq!(taken, Vec::from_iter(0..30), "{name}");
        assert_eq!((life.seen().pending_samples, life.seen().dropped_blocks), (0, 0));
    }
}

#[tokio::test]
async fn what_cannot_be_read_for_too_long_is_given_up_and_kept() {
    let storage = Memory::default();
    let mut before = Life::begin(&storage, 0);
    before.push(0..20);
    let names = storage.names(".log");
    storage.hide(&names[1], 0);
    let mut life = Life::begin(&storage, 0);
    life.push(20..30);
    life.disk.lose_patience();
    let taken = life.take();
    assert!(taken.is_sorted() && taken.ends_with(&Vec::from_iter(20..30)) && taken.len() < 30, "{taken:?}");
    assert!(life.seen().dropped_samples > 0 && life.seen().pending_samples == 0, "{:?}", life.seen());
    assert_eq!(storage.names(".unread").len(), 1);
    storage.unhide();
    assert_eq!(Life::begin(&storage, 0).take(), [0; 0], "it does not come behind what is newer");
}

/// A process that cannot read the second and the third file of what one before it was given; and the name of the second.
fn behind_two_hidden_files() -> (Memory, Life, String) {
    let storage = Memory::default();
    Life::begin(&storage, 0).push(0..20);
    let names = storage.names(".log");
    names[1..3].iter().for_each(|name| storage.hide(name, 0));
    let life = Life::begin(&storage, 0);
    (storage, life, names[1].clone())
}

#[tokio::test(start_paused = true)]
async fn each_file_that_cannot_be_read_has_its_own_time() {
    let (storage, mut life, _) = behind_two_hidden_files();
    let first = life.take();
    tokio::time::advance(READ_PATIENCE - Duration::from_millis(1)).await;
    assert_eq!((life.take(), life.seen().dropped_blocks), (Vec::new(), 0));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(life.take(), [0; 0]);
    assert_eq!(storage.names(".unread").len(), 1, "only the first has had its time");
    tokio::time::advance(READ_PATIENCE - Duration::from_millis(1)).await;
    assert_eq!(life.take(), [0; 0]);
    storage.unhide();
    let behind = Vec::from_iter(2 * first.len() as i64..20);
    assert_eq!(life.take(), behind);
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_file_that_was_dropped_has_its_own_time() {
    let (storage, mut life, hidden) = behind_two_hidden_files();
    let first = life.take();
    tokio::time::advance(READ_PATIENCE - Duration::from_millis(1)).await;
    assert_eq!(life.take(), [0; 0]);
    life.set_max_bytes(storage.bytes() - 1_000);
    assert_eq!(life.take(), [0; 0]);
    assert!(!storage.names(".log").contains(&hidden), "it has made room");
    tokio::time::advance(READ_PATIENCE - Duration::from_millis(1)).await;
    assert_eq!((life.take(), storage.names(".unread").len()), (Vec::new(), 0));
    storage.unhide();
    assert_eq!(life.take(), Vec::from_iter(2 * first.len() as i64..20));
}

#[tokio::test(start_paused = true)]
async fn where_no_more_files_can_be_opened_none_is_given_up() {
    let storage = Memory::default();
    Life::begin(&storage, 0).push(0..200);
    let mut life = Life::begin(&storage, 0);
    life.work();
    storage.fail(Some(Fault::NoFiles));
    let mut taken = life.take();
    assert!(taken.len() < 200, "the rest is still on disk");
    tokio::time::advance(READ_PATIENCE * 3).await;
    taken.extend(life.take());
    assert_eq!((life.seen().dropped_blocks, storage.names(".unread").len()), (0, 0));
    storage.fail(None);
    taken.extend(life.take());
    assert_eq!(taken, Vec::from_iter(0..200));
}

/// The acknowledgements cannot be read, which is given up in the end; the segments can.
#[tokio::test(start_paused = true)]
async fn newer_blocks_wait_for_the_last_attempt_to_open_the_log() {
    for is_pressed in [false, true] {
        let storage = Memory::default();
        Life::begin(&storage, 0).push(0..10);
        storage.hide(super::log::DONE_FILE, 0);
        let mut life = Life::begin(&storage, 0);
        // The disk begins later than the queue.
        tokio::time::advance(Duration::from_secs(5)).await;
        life.push(10..20);
        assert_eq!(life.take_some(), [0; 0]);
        if is_pressed {
            (20..60).for_each(|number| life.queue.push(block(number)));
        } else {
            tokio::time::advance(READ_PATIENCE - Duration::from_secs(3)).await;
        }
        assert_eq!(life.take_some(), [0; 0], "nobody knows what is there: {is_pressed}");
        if !is_pressed {
            assert_eq!(life.take(), [0; 0]);
            tokio::time::advance(Duration::from_secs(3)).await;
        }
        // What fills more than half of the memory may have had no room.
        let taken = life.take();
        assert!(taken.is_sorted() && taken.starts_with(&Vec::from_iter(0..10)), "{is_pressed}: {taken:?}");
        assert_eq!(taken.last(), Some(if is_pressed { &59 } else { &19 }));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_written_down_while_a_backlog_leaves_as_fast_as_it_is_read() {
    let storage = Memory::default();
    Life::begin(&storage, 0).push(0..400);
    let mut life = Life::begin(&storage, 0);
    life.work();
    while life.seen().waiting_bytes > 10_000 {
        life.take_some();
    }
    let acknowledged = || {
        let mut all = Vec::new();
        storage.change(super::log::DONE_FILE, |bytes| all.clone_from(bytes));
        all
    };
    let before = acknowledged();
    let mut outlet = life.outlet.take().expect("there is one");
    storage.before_read(move || {
        let limits = LeaseLimits { max_samples: u64::MAX, max_message_bytes: u64::MAX, linger: Duration::ZERO };
        if let Some(Some(lease)) = outlet.lease(limits).now_or_never() {
            lease.ack();
        }
        // The clock is set at once, whoever waits for it.
        let _ = tokio::time::advance(Duration::from_millis(20)).now_or_never();
    });
    assert!(matches!(life.disk.step(), Next::Within(Duration::ZERO)));
    assert!(life.seen().pending_blocks > 100, "{:?}", life.seen());
    assert!(acknowledged() != before);
}

/// As a network volume may be for hours, which takes everything and can make nothing durable.
#[tokio::test(start_paused = true)]
async fn a_disk_that_syncs_nothing_costs_neither_blocks_nor_many_files() {
    let storage = Memory::default();
    let place = {
        let storage = storage.clone();
        move || Ok(storage.clone())
    };
    let mut life = Life::with_segments(Box::new(place), 0, 1 << 20);
    life.disk.settle();
    let holders = storage.holders();
    storage.fail(Some(Fault::Unsyncable));
    for second in 0..5_000 {
        life.queue.push(block(second));
        tokio::time::advance(Duration::from_secs(1)).await;
        life.disk.settle();
        assert!(storage.holders() <= holders + 40, "{} files are open", storage.holders() - holders);
    }
    let files = storage.names(".log").len();
    assert!((2..200).contains(&files), "{files} files");
    assert_eq!((life.seen().pending_blocks, life.seen().dropped_blocks), (5_000, 0));
    storage.fail(None);
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(1)).await;
        life.disk.settle();
    }
    storage.lose_power(0);
    let mut life = Life::begin(&storage, 0);
    life.work();
    assert_eq!(life.seen().pending_blocks, 5_000, "what could not be synced is later");
}

/// Linux takes pages that it could not write for written: to sync them again proves nothing.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_synced_is_written_again_before_that_is_tried_again() {
    let storage = Memory::default();
    let mut life = Life::begin(&storage, 0);
    life.push(0..40);
    assert_eq!(life.take_some(), [0, 1, 2, 3, 4]);
    storage.fail(Some(Fault::Forgotten));
    life.push(40..80);
    assert_eq!(life.take_some(), [5, 6, 7, 8, 9]);
    for _ in 0..3 {
        life.work();
    }
    storage.fail(None);
    for _ in 0..5 {
        life.work();
    }
    storage.lose_power(0);
    assert_eq!(Life::begin(&storage, 0).take(), Vec::from_iter(10..80));
}

#[tokio::test(start_paused = true)]
async fn one_file_that_cannot_be_synced_keeps_no_other_from_that_at_the_end() {
    let storage = Memory::default();
    let mut life = Life::begin(&storage, 0);
    for number in 0..160 {
        life.queue.push(block(number));
        life.disk.settle();
    }
    let names = storage.names(".log");
    assert!(names.len() >= 40, "{} files, which nobody has synced yet", names.len());
    storage.keep_from_durable(&names[3]);
    life.queue.close();
    life.outlet = None;
    assert!(!life.work(), "it is over");
    storage.lose_power(0);
    let taken = Life::begin(&storage, 0).take();
    assert_eq!(taken, Vec::from_iter((0..12).chain(16..160)), "those of one file are lost");
}

#[tokio::test]
async fn a_disk_that_neither_gives_nor_takes_does_not_cost_what_is_new() {
    let storage = Memory::default();
    Life::begin(&storage, 0).push(0..10);
    storage.fail(Some(Fault::Broken));
    let mut life = Life::begin(&storage, 0);
    life.push(10..40);
    assert_eq!(life.take(), [0; 0], "nobody knows what is there");
    // Half of the memory is filled with what cannot be written.
    life.push(40..60);
    assert_eq!(life.take(), Vec::from_iter(10..60));
}

#[tokio::test]
async fn the_end_waits_for_a_directory_that_is_about_to_be_free() {
    let (storage, asked) = (Memory::default(), Arc::new(AtomicU32::new(0)));
    let place = {
        let (storage, asked) = (storage.clone(), Arc::clone(&asked));
        move || match asked.fetch_add(1, Ordering::Relaxed) {
            0..3 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(storage.clone()),
        }
    };
    let mut life = Life::at(Box::new(place), 0);
    life.queue.push(block(1));
    life.queue.close();
    life.outlet = None;
    while life.work() {}
    assert_eq!((life.seen().dropped_blocks, life.seen().kept_blocks), (0, 1));
    assert_eq!(Life::begin(&storage, 0).take(), [1]);
}

#[tokio::test]
async fn what_the_disk_does_not_take_at_the_end_is_counted() {
    let storage = Memory::default();
    let mut life = Life::begin(&storage, 0);
    life.push(0..1);
    storage.fail(Some(Fault::Full));
    life.push(1..3);
    life.queue.close();
    life.outlet = None;
    assert!(!life.work(), "it is over");
    assert_eq!((life.seen().pending_blocks, life.seen().kept_blocks, life.seen().dropped_samples), (1, 1, 20));
}

#[tokio::test]
async fn where_the_newest_go_first_what_is_done_does_not_become_scattered_without_end() {
    let storage = Memory::default();
    let mut life = Life::with_segments(Box::new(move || Ok(storage.clone())), 0, 1 << 20);
    life.queue.ask(|window| window.set_newest_first(true));
    let limits = LeaseLimits { max_samples: 1 << 20, max_message_bytes: u64::MAX, linger: Duration::ZERO };
    let (mut pushed, mut taken) = (0, Vec::new());
    // Of what comes in every other block goes out, and its neighbours are left to the disk before long.
    let backlog = loop {
        (pushed..pushed + 20).for_each(|number| life.queue.push(block(number)));
        pushed += 20;
        life.disk.settle();
        let lease = life.outlet.as_mut().expect("there is one").lease(limits).now_or_never();
        let mut lease = lease.flatten().expect("some are fresh");
        if lease.blocks().any(|block| block.min_ms < pushed - 100) {
            break lease;
        }
        let out = lease.take_out(|block| block.min_ms % 2 == 0).expect("every other one");
        taken.extend(out.blocks().map(|block| block.min_ms));
        out.ack();
        assert!(pushed < 40_000, "it never ends");
    };
    assert!((16_000..17_000).contains(&pushed), "{pushed}: their file has room for as many holes twice");
    assert_eq!(backlog.blocks().next().map(|block| block.min_ms), Some(1), "the oldest goes first");
    drop(backlog);
    while life.seen().pending_blocks > 0 {
        life.work();
        taken.extend(life.take_some());
    }
    taken.sort_unstable();
    assert_eq!(taken, Vec::from_iter(0..pushed));
}
