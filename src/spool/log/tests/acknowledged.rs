//! What a log promises of what is acknowledged.

use super::*;
use crate::spool::acknowledged::write_slot;

#[test]
fn what_is_acknowledged_does_not_come_again_and_whole_segments_go() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    for position in [0, 2, 4, 6, 1] {
        log.finish(position, count(1));
    }
    log.finish(1, count(1));
    log.collect(0).expect("deleted");
    assert_eq!((log.pending(), disk.names(".log").len()), (count(3), 2));
    log.save_done().expect("written");
    let mut log = open(&disk);
    assert_eq!((log.pending(), all(&mut log)), (count(3), vec![3, 5, 7]));
    [3, 5, 7].into_iter().for_each(|position| log.finish(position, count(1)));
    log.collect(0).expect("deleted");
    assert_eq!(disk.names(".log").len(), 0);
    log.save_done().expect("written");
    assert_eq!(open(&disk).next(), 8, "no position is used again");
}

#[test]
fn what_is_acknowledged_before_it_is_written_does_not_keep_its_segment() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..5);
    log.finish(5, count(1));
    append(&mut log, 5..6);
    (0..5).for_each(|position| log.finish(position, count(1)));
    assert_eq!((log.pending(), all(&mut log)), (count(0), vec![]));
    log.seal();
    log.collect(0).expect("deleted");
    assert_eq!(disk.names(".log").len(), 0);
}

#[test]
fn without_its_acknowledgements_everything_comes_again() {
    for spoil in [(|bytes| bytes.clear()) as fn(&mut Vec<u8>), |bytes| bytes.fill(255)] {
        let disk = Memory::default();
        let mut log = written(&disk, 0..8);
        log.finish(1, count(1));
        log.save_done().expect("written");
        disk.change(DONE_FILE, spoil);
        assert_eq!(all(&mut open(&disk)), Vec::from_iter(0..8));
    }
}

#[test]
fn a_torn_write_of_the_acknowledgements_leaves_those_before() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    for position in 0..6 {
        log.finish(position, count(1));
        log.save_done().expect("written");
        assert!(log.take_unsynced().0.sync().is_ok());
    }
    // The newer of the two slots.
    let slots = |bytes: &[u8]| [bytes[16], bytes[65_536 + 16]];
    disk.change(DONE_FILE, |bytes| {
        let newer = usize::from(slots(bytes)[1] > slots(bytes)[0]);
        bytes[newer * 65_536 + 33] ^= 1;
    });
    assert_eq!(all(&mut open(&disk)), [5, 6, 7]);
}

/// The pages of a write that was not synced may each be there or not, and several are written between two syncs.
#[test]
fn whatever_a_loss_of_power_leaves_what_was_acknowledged_before_the_last_sync_is_known() {
    let disk = Memory::default();
    let mut log = open(&disk);
    (0..10_000).step_by(2).for_each(|position| log.finish(position, count(1)));
    for round in 0..4 {
        log.save_done().expect("written");
        log.take_unsynced().0.sync().map_err(|failed| log.are_not_synced(failed)).expect("synced");
        let synced = log.done.clone();
        for save in 0..3 {
            // All ranges behind it lie elsewhere in the slot from now on.
            log.finish(round * 20 + save * 4 + 1, count(1));
            log.save_done().expect("written");
            for luck in (0..=255).step_by(17) {
                let disk = disk.copy();
                disk.lose_power(luck);
                let Ok(Found::Done(said)) = load_done(&disk) else { panic!("{round} {save} {luck}: nothing is known") };
                let is_there = |range: Range<u64>| said.done.missing(range).is_empty();
                assert!(synced.ranges().all(is_there), "{round} {save} {luck}: it is forgotten");
            }
        }
    }
}

/// As where a refused tenant has a block in each scrape of others.
#[test]
fn thousands_of_blocks_that_are_passed_over_make_nothing_come_again() {
    let disk = Memory::default();
    let mut log = open(&disk);
    let blocks: Vec<_> = (0..10_000).map(|number| (number, block(number))).collect();
    blocks.chunks(100).for_each(|some| log.append(some, 0).expect("it is written"));
    for position in (0..10_000).step_by(2) {
        log.finish(position, count(1));
        if position % 100 == 0 {
            log.save_done().expect("written");
        }
    }
    log.save_done().expect("written");
    drop(log);
    assert_eq!(all(&mut open(&disk)), Vec::from_iter((1..10_000).step_by(2)));
}

#[test]
fn acknowledgements_as_they_were_written_at_first_are_read_and_written_anew() {
    let (first, whole) = (Memory::default(), 2 * 65_536);
    drop(written(&first, 0..8));
    let mut done = Done::default();
    [0, 2, 5].into_iter().for_each(|position| done.insert(position..position + 1));
    let slot = |sequence| write_slot(&done, Version::One, sequence, LIMITS.max_age);
    first.change(DONE_FILE, |bytes| *bytes = [slot(4), slot(5)].concat());
    for fault in [None, Some(Fault::Full)] {
        let disk = first.copy();
        disk.fail(fault);
        let mut log = open(&disk);
        assert_eq!(all(&mut log), [1, 3, 4, 6, 7]);
        log.finish(1, count(1));
        log.save_done().expect("its place is there");
        assert_eq!(disk.names("").iter().filter(|name| name.starts_with(DONE_FILE)).count(), 1);
        disk.change(DONE_FILE, |bytes| assert_eq!(bytes.len() == whole, fault.is_none()));
        disk.fail(None);
        assert_eq!(all(&mut open(&disk)), [3, 4, 6, 7], "{fault:?}");
        disk.change(DONE_FILE, |bytes| assert_eq!(bytes.len(), whole));
    }
}

#[test]
fn what_is_not_ours_in_the_place_of_the_acknowledgements_is_moved_aside() {
    let disk = Memory::default();
    drop(written(&disk, 0..8));
    disk.change(DONE_FILE, |bytes| *bytes = b"somebody's notes".to_vec());
    let mut log = open(&disk);
    assert_eq!((all(&mut log), log.wrongs().damaged), (Vec::from_iter(0..8), 1));
    disk.change("acknowledged.corrupt", |bytes| assert_eq!(*bytes, b"somebody's notes"));
    log.finish(0, count(1));
    log.save_done().expect("written");
    assert_eq!((open(&disk).pending(), open(&disk).wrongs()), (count(7), Wrongs::default()));
}

#[test]
fn what_is_behind_a_range_is_neither_read_nor_missed() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..9);
    let read = |log: &mut Log<Memory>, range| {
        let batch = log.read(range, u64::MAX).expect("it is read");
        (batch.blocks.iter().map(|(position, _)| *position).collect::<Vec<_>>(), batch.next, batch.lost)
    };
    assert_eq!(read(&mut log, 0..4), (vec![0, 1, 2, 3], 4, vec![]));
    assert_eq!(read(&mut log, 4..5), (vec![4], 5, vec![]));
    // Of the third segment nothing is left but its first record.
    disk.change(&name_of(6), |bytes| bytes.truncate(segment::HEADER as usize + record::len(&block(6))));
    assert_eq!(read(&mut log, 5..8), (vec![5, 6], 8, vec![(7, count(1))]));
    assert_eq!(log.pending(), count(8), "8 is not missed");
    disk.fail(Some(Fault::Broken));
    assert_eq!(log.give_up(0..2).lost, [(0, count(1)), (1, count(1))]);
    assert_eq!(log.pending(), count(6), "2 is in the same file");
}

#[test]
fn what_is_done_is_scattered_once_it_hardly_has_room_in_its_file() {
    let mut log = written(&Memory::default(), 0..1);
    for position in 0..super::MAX_PARTS as u64 {
        log.finish(2 * position, count(1));
    }
    assert!(!log.is_scattered());
    log.finish(2 * super::MAX_PARTS as u64, count(1));
    assert!(log.is_scattered());
    log.finish(1, count(1));
    assert!(!log.is_scattered(), "two of them are one");
}

#[test]
fn acknowledgements_whose_file_was_deleted_are_written_anew() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    log.finish(0, count(1));
    log.save_done().expect("written");
    assert!(log.take_unsynced().0.sync().is_ok());
    disk.remove(DONE_FILE).expect("somebody deletes it");
    assert!(!log.check_names().expect("it is looked at"));
    assert!(log.is_unsaved());
    log.save_done().expect("written");
    assert!(log.check_names().expect("it is looked at"));
    assert!(log.take_unsynced().0.sync().is_ok());
    disk.lose_power(0);
    assert_eq!(all(&mut open(&disk)), Vec::from_iter(1..8));
}
