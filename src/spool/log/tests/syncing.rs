//! What a log promises of its files: which are written again before they are synced, and when they are closed.

use super::*;

/// A volume that makes nothing durable is in trouble already.
#[test]
fn little_at_a_time_is_written_again_of_what_could_not_be_synced() {
    let disk = Memory::default();
    let limits = LogLimits { segment_bytes: 1 << 20, max_bytes: 1 << 30, ..LIMITS };
    let mut log = Log::open(disk.clone(), limits, 4, false).expect("it opens");
    for number in 0..10 {
        let block = Block { elements: Bytes::from(vec![0; 900 << 10]), ..block(number) };
        log.append(&[(number, block)], 0).expect("it is written");
    }
    disk.fail(Some(Fault::Unsyncable));
    let mut tried = Vec::new();
    for _ in 0..=log.parts_to_sync() + 10 {
        let files = log.take_unsynced().0;
        tried.push(files.files().count());
        files.sync().map_err(|failed| log.are_not_synced(failed)).expect_err("it makes nothing durable");
    }
    // The acknowledgements and the names are small.
    assert_eq!((tried[0], tried[1..].iter().max()), (10 + 2, Some(&(2 + 2))));
    disk.fail(None);
    for _ in 0..log.parts_to_sync() {
        assert!(log.take_unsynced().0.sync().is_ok());
    }
    assert!(log.take_unsynced().0.is_empty());
}

/// To drop is done under the lock of the queue, and a volume in the network may take its time to close a file.
#[test]
fn no_file_is_closed_before_it_is_collected() {
    for blocks in [8, 2] {
        let disk = Memory::default();
        let mut log = written(&disk, 0..blocks);
        let holders = disk.holders();
        log.drop_oldest();
        assert!(disk.holders() >= holders, "of {blocks}");
        log.collect(0).expect("deleted");
        assert!(disk.holders() < holders, "of {blocks}");
    }
}

/// Whose deletion would give no room before that.
#[test]
fn what_is_deleted_is_closed_with_that() {
    let disk = Memory::default();
    let mut log = written(&disk, 0..8);
    let holders = disk.holders();
    (0..3).for_each(|position| log.finish(position, count(1)));
    log.collect(0).expect("deleted");
    assert_eq!(disk.names(".log").len(), 2);
    assert!(disk.holders() < holders);
}
