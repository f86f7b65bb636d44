//! What a log promises, on a disk in memory.

mod acknowledged;
mod bounds;
mod syncing;
mod writing;

use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::memory::{Fault, Memory};
use super::*;
use crate::model::{TargetId, WriteFormat};

const LIMITS: LogLimits = LogLimits { segment_bytes: 1_000, max_bytes: 10_000, max_age: Duration::from_secs(7200) };

/// Three of these fill a segment of [`LIMITS`].
fn block(number: u64) -> Block {
    Block {
        target: TargetId(number % 3),
        receiver: 4,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: 10,
        min_ms: number as i64,
        max_ms: number as i64 + 1,
        raw_len: 500,
        elements: Bytes::from(format!("{number:-<241}")),
    }
}

fn open(disk: &Memory) -> Log<Memory> {
    Log::open(disk.clone(), LIMITS, 4, false).expect("it opens")
}

fn append(log: &mut Log<Memory>, numbers: Range<u64>) {
    for number in numbers {
        log.append(&[(number, block(number))], 0).expect("it is written");
    }
}

/// A log on `disk` with these, each written alone.
fn written(disk: &Memory, numbers: Range<u64>) -> Log<Memory> {
    let mut log = open(disk);
    append(&mut log, numbers);
    log
}

/// The positions of all that can be read, each with the right block.
fn all(log: &mut Log<Memory>) -> Vec<u64> {
    let batch = log.read(0..u64::MAX, u64::MAX).expect("it is read");
    assert_eq!(batch.next, log.next());
    assert!(batch.blocks.iter().all(|(position, found)| *found == block(*position)));
    batch.blocks.iter().map(|(position, _)| *position).collect()
}

fn count(blocks: u64) -> Count {
    Count { blocks, samples: blocks * 10, ..Count::default() }
}

#[test]
fn what_was_written_is_there_again_and_goes_on_behind() {
    let disk = Memory::default();
    drop(written(&disk, 0..8));
    assert_eq!(disk.names(".log").len(), 3);
    let mut log = open(&disk);
    assert_eq!((log.next(), log.pending(), log.wrongs()), (8, count(8), Wrongs::default()));
    append(&mut log, 8..10);
    assert_eq!(all(&mut log), Vec::from_iter(0..10));
    assert_eq!(log.bytes(), disk.bytes());
}

#[test]
fn reading_goes_past_what_is_done_a_part_at_a_time() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..30);
    (0..29).for_each(|position| log.finish(position, count(1)));
    let (mut batch, mut parts) = (Batch::default(), 0);
    while batch.blocks.is_empty() {
        batch = log.read(batch.next..u64::MAX, 300).expect("it is read");
        assert!(batch.next <= 30, "{batch:?}");
        parts += 1;
    }
    assert_eq!(batch.blocks, [(29, block(29))]);
    assert!(parts > 2, "{parts} parts");
}

#[test]
fn reading_goes_on_where_it_stopped() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    let (mut position, mut seen) = (0, Vec::new());
    while position < log.next() {
        let batch = log.read(position..u64::MAX, 1).expect("it is read");
        seen.extend(batch.blocks.iter().map(|(position, _)| *position));
        position = batch.next;
    }
    assert_eq!(seen, Vec::from_iter(0..8));
}

#[test]
fn a_torn_end_is_cut_off() {
    let whole = {
        let disk = Memory::default();
        drop(written(&disk, 0..2));
        disk.bytes() as usize
    };
    let second = record::len(&block(1));
    for cut in 1..second {
        let disk = Memory::default();
        drop(written(&disk, 0..2));
        disk.change(&name_of(0), |bytes| bytes.truncate(whole - cut));
        let mut log = open(&disk);
        assert_eq!(log.wrongs(), Wrongs { torn: 1, damaged: 0 }, "{cut}");
        assert_eq!(disk.bytes() as usize, whole - second, "{cut}");
        let next = log.next();
        append(&mut log, next..next + 1);
        assert_eq!(all(&mut open(&disk)), [0, 1], "{cut}");
    }
}

#[test]
fn a_flipped_bit_anywhere_costs_its_block_at_most() {
    let mut whole = Vec::new();
    let disk = Memory::default();
    drop(written(&disk, 0..3));
    disk.change(&name_of(0), |bytes| whole.clone_from(bytes));
    for bit in (0..whole.len() * 8).step_by(3) {
        let disk = Memory::default();
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        disk.create(&name_of(0)).expect("a file").write_at(&flipped, 0).expect("written");
        let mut log = open(&disk);
        let hit = (bit as u64 / 8).checked_sub(segment::HEADER).map(|at| at / record::len(&block(0)) as u64);
        let expected: Vec<_> = (0..3).filter(|position| Some(*position) != hit).collect();
        assert_eq!(all(&mut log), expected, "bit {bit}");
        // A last record that claims to be longer looks like one that was cut off.
        let Wrongs { torn, damaged } = log.wrongs();
        assert_eq!((torn + damaged, torn == 0 || hit == Some(2)), (u64::from(hit.is_some()), true), "bit {bit}");
    }
}

#[test]
fn a_bit_that_flips_while_the_log_is_open_is_found_when_it_is_read() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    disk.change(&name_of(0), |bytes| bytes[400] ^= 1);
    let batch = log.read(0..u64::MAX, u64::MAX).expect("it is read");
    assert_eq!(batch.lost, [(1, count(1))]);
    assert_eq!((log.pending(), log.wrongs().damaged), (count(7), 1));
    (0..8).for_each(|position| log.finish(position, count(1)));
    log.collect(0).expect("set aside");
    assert_eq!(disk.names(".corrupt"), [format!("{:016x}.corrupt", 0)]);
}

#[test]
fn what_is_no_segment_is_set_aside_and_few_of_them_are_kept() {
    let disk = Memory::default();
    for number in 0..5u64 {
        let file = disk.create(&name_of(number)).expect("a file");
        file.write_at(&[b'x'; 100], 0).expect("written");
    }
    let mut log = open(&disk);
    assert_eq!((log.wrongs().damaged, log.next()), (5, 5));
    log.collect(0).expect("set aside");
    assert_eq!((disk.names(".log").len(), disk.names(".corrupt").len()), (0, MAX_SET_ASIDE));
    append(&mut log, 5..7);
    assert_eq!(all(&mut open(&disk)), [5, 6]);
}

#[test]
fn a_copied_segment_does_not_break_the_order() {
    let disk = Memory::default();
    drop(written(&disk, 0..3));
    let bytes = {
        let file = disk.open(&name_of(0)).expect("a segment");
        let mut bytes = vec![0; disk.bytes() as usize];
        file.read_at(&mut bytes, 0).expect("read");
        bytes
    };
    disk.create(&name_of(2)).expect("a file").write_at(&bytes, 0).expect("written");
    let mut log = open(&disk);
    assert_eq!((all(&mut log), log.wrongs().damaged), (vec![0, 1, 2], 1));
}

#[test]
fn the_oldest_segments_are_overdue_by_bytes_and_by_age() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..30);
    assert_eq!(log.overdue(0, 0), None);
    let more = LIMITS.max_bytes - log.bytes() - segment::HEADER;
    assert_eq!((log.overdue(more, 0), log.overdue(more + 1, 0)), (None, Some(Overdue::Bytes)));
    let age = LIMITS.max_age.as_millis() as i64;
    assert_eq!((log.overdue(0, age), log.overdue(0, age + 1)), (None, Some(Overdue::Age)));
    assert_eq!(log.drop_oldest(), Some((0..3, count(3))));
    log.collect(0).expect("deleted");
    assert_eq!((all(&mut log), log.bytes()), (Vec::from_iter(3..30), disk.bytes()));
    log.save_done().expect("written");
    assert_eq!(all(&mut open(&disk)), Vec::from_iter(3..30));
}

#[test]
fn a_segment_is_ended_by_age_so_that_age_can_be_bounded() {
    let disk = Memory::default();
    let mut log = open(&disk);
    let eighth = LIMITS.max_age.as_millis() as i64 / 8;
    for (number, now_ms) in [(0, 0), (1, eighth), (2, eighth + 1)] {
        log.append(&[(number, block(number))], now_ms).expect("written");
    }
    assert_eq!(disk.names(".log"), [name_of(0), name_of(2)]);
}

#[test]
fn a_full_disk_takes_nothing_and_loses_nothing() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..1);
    log.save_done().expect("written");
    disk.fail(Some(Fault::Full));
    log.append(&[(1, block(1)), (2, block(2))], 0).expect_err("there is no space");
    log.finish(0, count(1));
    log.save_done().expect("its place is there");
    disk.fail(None);
    append(&mut log, 1..3);
    assert_eq!((all(&mut log), all(&mut open(&disk))), (vec![1, 2], vec![1, 2]));
    assert_eq!(open(&disk).wrongs(), Wrongs::default());
}

#[test]
fn a_disk_that_can_only_be_read_is_read() {
    let disk = Memory::default();
    drop(written(&disk, 0..8));
    disk.change(&disk.names(".log")[2], |bytes| bytes.truncate(200));
    disk.fail(Some(Fault::ReadOnly));
    let mut log = open(&disk);
    assert_eq!(all(&mut log), Vec::from_iter(0..6));
    let next = log.next();
    log.append(&[(next, block(next))], 0).expect_err("it is read-only");
    log.finish(0, count(1));
    log.save_done().expect_err("it is read-only");
    disk.fail(None);
    log.save_done().expect("it is not any more");
    append(&mut log, next..next + 1);
    assert_eq!(all(&mut open(&disk)), Vec::from_iter((1..6).chain([next])));
}

#[test]
fn a_broken_disk_is_an_error_until_it_is_given_up() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    disk.fail(Some(Fault::Broken));
    assert!(Log::open(disk.clone(), LIMITS, 4, false).is_err());
    log.read(0..u64::MAX, u64::MAX).expect_err("it is broken");
    let lost = log.give_up(1..u64::MAX).lost;
    assert_eq!(lost, [(1, count(1)), (2, count(1))], "the rest of the segment, and no other");
    disk.fail(None);
    assert_eq!(all(&mut log), [0, 3, 4, 5, 6, 7]);
    assert_eq!(log.wrongs(), Wrongs::default(), "nothing that was read was wrong");
    (0..8).for_each(|position| log.finish(position, count(1)));
    log.collect(0).expect("set aside");
    assert_eq!(disk.names(".unread"), [format!("{:016x}.unread", 0)]);
}

/// The bytes of two records, and of a part of the third.
fn into_the_third() -> u64 {
    segment::HEADER + 2 * record::len(&block(0)) as u64 + 10
}

#[test]
fn what_cannot_be_read_when_a_log_is_opened_is_no_damage_and_comes_once_it_can() {
    for (hidden, from) in [(0, 0), (3, 0), (3, into_the_third()), (6, 0), (6, into_the_third() - 20)] {
        let disk = Memory::default();
        let mut log = written(&disk, 0..8);
        log.finish(4, count(1));
        log.save_done().expect("written");
        disk.hide(&name_of(hidden), from);
        let mut log = open(&disk);
        assert_eq!(log.wrongs(), Wrongs::default());
        let next = log.next();
        append(&mut log, next..next + 1);
        // What is before it, and of it, comes, and nothing from behind.
        let (mut position, mut seen) = (0, Vec::new());
        while let Ok(batch) = log.read(position..u64::MAX, u64::MAX) {
            seen.extend(batch.blocks.iter().map(|(position, _)| *position));
            position = batch.next;
        }
        let whole = Vec::from_iter([0, 1, 2, 3, 5, 6, 7, next]);
        assert!(whole.starts_with(&seen) && seen.len() < 7, "{hidden} {from}: {seen:?}");
        log.collect(0).expect("nothing is in the way");
        log.save_done().expect("written");
        // The next process finds the same.
        let mut other = open(&disk.copy());
        assert!(other.next() > next && other.pending().blocks > 0);
        assert_eq!(all(&mut other), whole, "{hidden} {from}: as if it never was");
        disk.unhide();
        let batch = log.read(position..u64::MAX, u64::MAX).expect("it can be read again");
        seen.extend(batch.blocks.iter().map(|(position, _)| *position));
        assert_eq!((seen, batch.lost), (whole, Vec::new()), "{hidden} {from}");
        assert_eq!(log.pending(), count(8), "{hidden} {from}: and no guess is left");
        assert_eq!(batch.counted_anew.0.blocks, 1);
    }
}

#[test]
fn what_cannot_be_read_is_given_up_when_somebody_says_so_and_its_file_is_kept() {
    for from in [0, into_the_third()] {
        let disk = Memory::default();
        drop(written(&disk, 0..8));
        disk.hide(&name_of(3), from);
        let mut log = open(&disk);
        let batch = log.read(0..u64::MAX, u64::MAX).expect("what is before it");
        let given_up = log.give_up(batch.next..u64::MAX);
        assert_eq!(given_up.lost.len(), 1, "nobody knows how much it was");
        assert_eq!(given_up.next, 6);
        let rest: Vec<_> =
            log.read(6..u64::MAX, u64::MAX).expect("read").blocks.iter().map(|(position, _)| *position).collect();
        assert_eq!(rest, [6, 7]);
        (0..8).for_each(|position| log.finish(position, count(1)));
        log.collect(0).expect("set aside");
        log.save_done().expect("written");
        disk.unhide();
        let [kept] = &disk.names(".unread")[..] else { panic!("one file") };
        assert_eq!(disk.open(kept).and_then(|file| file.len()).expect("it is there"), into_the_third() - 10 + 318);
        let mut log = open(&disk);
        assert_eq!((log.pending(), all(&mut log)), (Count::default(), vec![]), "it does not come late");
        assert_eq!(log.bytes(), disk.bytes());
        // It goes when its room is needed.
        log.collect(LIMITS.max_bytes - 100).expect("deleted");
        assert_eq!(disk.names(".unread").len(), 0);
    }
}

#[test]
fn files_that_cannot_be_deleted_count() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..3);
    disk.fail(Some(Fault::Undeletable));
    let mut refused = 0;
    for number in 3..100 {
        while log.overdue(400, 0).is_some() {
            log.drop_oldest();
            log.collect(400).expect_err("nothing can be deleted");
        }
        refused += u64::from(log.append(&[(log.next(), block(number))], 0).is_err());
        assert!(disk.bytes() <= LIMITS.max_bytes, "{}", disk.bytes());
    }
    assert!(refused > 50, "{refused}");
    disk.fail(None);
    log.collect(400).expect("deleted");
    let next = log.next();
    append(&mut log, next..next + 1);
    assert_eq!(log.bytes(), disk.bytes());
}

#[test]
fn one_file_that_cannot_be_deleted_keeps_no_other_from_making_room() {
    // One that was set aside, and one that is done.
    for (first, done) in [(0x10, 0..0), (0, 0..3)] {
        let disk = Memory::default();
        for position in 1..5 {
            let file = disk.create(&format!("{position:016x}.unread")).expect("created");
            file.write_at(&[0; 1_500], 0).expect("written");
        }
        let mut log = open(&disk);
        append(&mut log, first..first + 6);
        disk.fail(Some(Fault::FirstUndeletable));
        done.for_each(|position| log.finish(position, count(1)));
        log.collect(4_000).expect_err("one cannot be deleted");
        assert!(disk.bytes() + 4_000 <= LIMITS.max_bytes, "{} bytes", disk.bytes());
        assert_eq!(log.bytes(), disk.bytes());
        disk.fail(None);
        log.collect(10_000).expect("deleted");
        assert_eq!(disk.names(".unread").len(), 0);
    }
}

#[test]
fn what_is_to_be_synced_is_there_once() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..30);
    let files = log.take_unsynced().0.files().count();
    assert_eq!(files, 10 + 2, "ten segments, the acknowledgements and the names");
    for position in 0..27 {
        log.finish(position, count(1));
        log.save_done().expect("written");
    }
    append(&mut log, 30..60);
    (27..54).for_each(|position| log.finish(position, count(1)));
    log.collect(0).expect("deleted");
    let files = log.take_unsynced().0.files().count();
    assert_eq!(files, 2 + 2, "what is deleted needs no more");
}

#[test]
fn where_no_more_files_can_be_opened_no_segment_is_ended_for_that() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..1);
    disk.fail(Some(Fault::NoFiles));
    let (files, opened) = log.take_unsynced();
    assert!(opened.is_err(), "the names cannot be looked at");
    assert_eq!((files.files().count(), files.sync().is_ok()), (1 + 1, true), "the segment and the acknowledgements");
    append(&mut log, 1..2);
    disk.fail(None);
    let (files, opened) = log.take_unsynced();
    assert!(opened.is_ok());
    assert_eq!(files.files().count(), 1 + 1, "the segment again, and the names, which are not forgotten");
    assert_eq!(disk.names(".log").len(), 1);
}

#[test]
fn a_deleted_file_is_noticed() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    assert!(log.check_names().expect("known"));
    for name in disk.names(".log") {
        disk.remove(&name).expect("deleted");
    }
    assert!(!log.check_names().expect("known"));
    append(&mut log, 8..9);
    assert_eq!(disk.names(".log").len(), 1);
    let batch = log.read(0..u64::MAX, u64::MAX).expect("read");
    assert_eq!((batch.blocks.len(), batch.lost.len()), (1, 8));
}

#[test]
fn a_length_of_gibibytes_allocates_nothing() {
    let disk = Memory::default();
    drop(written(&disk, 0..2));
    disk.change(&name_of(0), |bytes| {
        let at = segment::HEADER as usize + 8;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    });
    assert_eq!(all(&mut open(&disk)), [1]);
}

proptest! {
    /// Whatever the files say: it opens, what is read is in order, and what is appended is read.
    #[test]
    fn no_bytes_keep_a_log_from_opening(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..12),
        whole in any::<bool>(),
    ) {
        let disk = Memory::default();
        let mut log = written(&disk, 0..5);
        log.finish(2, count(1));
        log.save_done().expect("written");
        for name in disk.names("") {
            disk.change(&name, |bytes| {
                if whole {
                    bytes.clone_from(&noise);
                }
                let len = bytes.len();
                for (at, value) in changes.iter().filter(|_| len > 0) {
                    bytes[at.index(len)] = *value;
                }
            });
        }
        let mut log = open(&disk);
        let next = log.next();
        log.append(&[(next, block(7))], 0).expect("written");
        let found: Vec<_> = log.read(0..u64::MAX, u64::MAX).expect("read").blocks.iter().map(|(position, _)| *position).collect();
        prop_assert!(found.is_sorted_by(|one, other| one < other));
        prop_assert_eq!(found.last(), Some(&next));
    }
}
