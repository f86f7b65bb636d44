//! Within which bounds a log stays.

use super::*;

/// What so many earlier processes leave that wrote one block each.
fn of_one_block_each(processes: u64) -> Memory {
    let disk = Memory::default();
    for position in 0..processes {
        let mut bytes = segment::header(position).to_vec();
        record::write(&mut bytes, position, position, 0, &block(position));
        disk.create(&name_of(position)).and_then(|file| file.write_at(&bytes, 0)).expect("written");
    }
    disk
}

#[test]
fn a_restart_drops_nothing_of_a_large_backlog_that_has_room() {
    let limits = LogLimits { max_bytes: 5_000_000, ..LIMITS };
    let disk = Memory::default();
    let mut log = Log::open(disk.clone(), limits, 4, false).expect("it opens");
    for first in (0..3 * 4_200).step_by(3) {
        let blocks: Vec<_> = (first..first + 3).map(|position| (position, block(position))).collect();
        log.append(&blocks, 0).expect("written");
    }
    drop(log);
    assert_eq!(disk.names(".log").len(), 4_200);
    let log = Log::open(disk, limits, 4, false).expect("it opens");
    assert_eq!((log.overdue(0, 0), log.pending()), (None, count(3 * 4_200)));
}

#[test]
fn who_is_restarted_all_the_time_leaves_so_many_small_files_and_no_more() {
    let limits = LogLimits { segment_bytes: 1 << 20, max_bytes: 16 << 20, ..LIMITS };
    let most = MAX_SEGMENTS as u64;
    let mut log = Log::open(of_one_block_each(most + 2), limits, 4, false).expect("it opens");
    let mut dropped = 0;
    while log.overdue(0, 0) == Some(Overdue::Bytes) {
        dropped += log.drop_oldest().map_or(0, |(_, pending)| pending.blocks);
    }
    assert_eq!((dropped, log.pending()), (2, count(most)));
}
