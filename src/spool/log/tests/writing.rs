//! What a log promises of what is written, and of what cannot be.

use super::*;

/// The first of its blocks are whole, and written again to the next segment.
#[test]
fn what_a_failed_write_leaves_behind_costs_nothing_that_is_written_later() {
    let batch = |numbers: Range<u64>| numbers.map(|number| (number, block(number))).collect::<Vec<_>>();
    let disk = Memory::default();
    let mut log = written(&disk, 0..1);
    disk.fail(Some(Fault::Uncuttable));
    log.append(&batch(1..3), 0).expect_err("there is no space");
    disk.fail(None);
    log.append(&batch(1..3), 0).expect("there is again");
    append(&mut log, 3..6);
    assert_eq!(disk.names(".log"), [name_of(0), name_of(1), name_of(4)]);
    assert_eq!(all(&mut log), Vec::from_iter(0..6));
    let mut log = open(&disk);
    assert_eq!((all(&mut log), log.wrongs().damaged), (Vec::from_iter(0..6), 0));
    assert_eq!(log.pending(), count(6), "each counts once");

    // Where the segment before had nothing else and could not be deleted, and its first block was delivered meanwhile.
    let (disk, other) = (Memory::default(), Memory::default());
    let mut log = written(&disk, 1..5);
    log.save_done().expect("written");
    drop(written(&other, 0..2));
    let mut left = Vec::new();
    other.change(&name_of(0), |bytes| left.clone_from(bytes));
    disk.create(&name_of(0)).expect("a file").write_at(&left, 0).expect("written");
    let mut log = open(&disk);
    assert_eq!((all(&mut log), log.wrongs().damaged), (Vec::from_iter(1..5), 0));
}

#[test]
fn a_large_block_is_not_remembered() {
    let disk = Memory::default();
    let limits = LogLimits { segment_bytes: 16 << 20, max_bytes: 1 << 30, ..LIMITS };
    let mut log = Log::open(disk.clone(), limits, 4, false).expect("it opens");
    let large = |number| Block { elements: Bytes::from(vec![0; 4 << 20]), ..block(number) };
    log.append(&[(0, large(0))], 0).expect("it is written");
    assert!(log.scratch.capacity() <= 1 << 20, "{} bytes", log.scratch.capacity());
    disk.fail(Some(Fault::Full));
    log.append(&[(1, large(1))], 0).expect_err("there is no space");
    assert!(log.scratch.capacity() <= 1 << 20, "{} bytes", log.scratch.capacity());
}
