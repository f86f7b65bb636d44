//! What a queue on disk promises of its room, and of what it says once it works again.

use super::*;

/// A segment is dropped as a whole, and those of the larger queue may be all that there is room for.
#[tokio::test]
async fn a_queue_that_is_given_less_room_goes_on_to_drop_little_at_a_time() {
    const ROOM: u64 = 1 << 20;
    let storage = Memory::default();
    let place = {
        let storage = storage.clone();
        move || Ok(storage.clone())
    };
    let mut life = Life::with_segments(Box::new(place), 0, 16 << 20);
    life.set_max_bytes(ROOM);
    for round in 0..100 {
        (round * 20..(round + 1) * 20).for_each(|number| life.queue.push(block(number)));
        life.work();
        assert!(storage.bytes() <= ROOM + (128 << 10));
        let seen = life.seen();
        let kept = seen.pending_blocks * record::len(&block(0)) as u64;
        assert!(seen.dropped_blocks == 0 || kept >= ROOM / 16 * 14, "{kept} bytes are left");
    }
    assert!(life.seen().dropped_blocks > 500);
}

#[tokio::test]
async fn a_disk_works_again_once_all_that_waits_is_on_it() {
    let storage = Memory::default();
    let mut life = Life::begin(&storage, 0);
    storage.fail(Some(Fault::Full));
    life.push(0..20);
    storage.fail(None);
    // It writes a part, and then something else is due.
    life.disk.hurry();
    assert!(matches!(life.disk.step(), Next::Within(Duration::ZERO)));
    assert!(life.disk.is_in_trouble());
    life.work();
    assert!(!life.disk.is_in_trouble());
}
