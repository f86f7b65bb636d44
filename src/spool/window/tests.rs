//! Tenants in a window.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::model::{TargetId, Tenant, WriteFormat};
use crate::spool::log::Batch;

pub(super) const LIMITS: LeaseLimits =
    LeaseLimits { max_samples: 30, max_message_bytes: u64::MAX, linger: Duration::ZERO };
pub(super) const MIB: u64 = 1 << 20;

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).expect("a tenant")
}

/// The only one of its target, of 64 KiB.
pub(super) fn block(number: i64, of: &str) -> Block {
    Block {
        target: TargetId(number.unsigned_abs()),
        receiver: 0,
        tenant: Some(tenant(of)),
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: 10,
        min_ms: number,
        max_ms: number,
        raw_len: 100,
        elements: Bytes::from(vec![0; 64 << 10]),
    }
}

pub(super) fn numbers(blocks: &[Waiting]) -> Vec<i64> {
    blocks.iter().map(|one| one.block.min_ms).collect()
}

/// These are refused; `overdue`: for long.
pub(super) fn refused(names: &[&str], overdue: bool) -> Refused {
    let tenants: HashSet<_> = names.iter().map(|name| tenant(name)).collect();
    Refused { overdue: if overdue { tenants.clone() } else { HashSet::new() }, tenants }
}

pub(super) fn take(window: &mut Window, who: &[&str]) -> Vec<Waiting> {
    match window.take(LIMITS, &refused(who, false)) {
        Take::Blocks(blocks) => blocks,
        Take::Overdue(blocks) => panic!("overdue: {:?}", numbers(&blocks)),
        Take::Until(_) | Take::Nothing | Take::Over => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_of_one_tenant_and_the_first_full_one_goes_first_until_another_has_waited_long_enough() {
    const LINGER: Duration = Duration::from_secs(5);
    let mut window = Window::new(64 * MIB, false);
    let take = |window: &mut Window| match window.take(LeaseLimits { linger: LINGER, ..LIMITS }, &Refused::default()) {
        Take::Blocks(blocks) => numbers(&blocks),
        _ => Vec::new(),
    };
    for (number, of) in [(1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "b"), (6, "c")] {
        window.push(block(number, of));
    }
    assert_eq!(take(&mut window), [2, 4, 5]);
    assert!(take(&mut window).is_empty(), "the others may wait for more");
    tokio::time::advance(LINGER).await;
    // Somebody always has enough for a lease.
    for number in 7..=15 {
        window.push(block(number, "b"));
    }
    window.push(block(16, "a"));
    assert_eq!(take(&mut window), [1, 3, 16], "as much as there is of a");
    assert_eq!(take(&mut window), [6]);
    assert_eq!(take(&mut window), [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn those_who_are_refused_are_passed_over_and_keep_their_order() {
    let mut window = Window::new(64 * MIB, false);
    for (number, of) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        window.push(block(number, of));
    }
    assert_eq!(numbers(&take(&mut window, &["a"])), [2]);
    assert_eq!(numbers(&take(&mut window, &["a"])), [4]);
    assert!(take(&mut window, &["a"]).is_empty());
    assert_eq!(numbers(&take(&mut window, &[])), [1, 3]);
}

/// What is in a window with a disk that takes everything at once and gives it back when it is asked.
pub(super) struct Disked {
    pub(super) window: Window,
    written: BTreeMap<u64, Block>,
}

impl Disked {
    pub(super) fn new(capacity: u64) -> Self {
        let mut window = Window::new(capacity, true);
        window.opened(FIRST, Count::default(), None);
        Self { window, written: BTreeMap::new() }
    }

    pub(super) fn push(&mut self, block: Block) {
        self.window.push(block);
        let batch = self.window.next_to_write(u64::MAX);
        let end = batch.last().expect("what was pushed").0 + 1;
        self.written.extend(batch);
        self.window.wrote(end);
        self.read();
    }

    /// Reads once; whether there was anything to be read.
    fn read_some(&mut self) -> bool {
        let Some((range, wanted)) = self.window.next_to_read() else { return false };
        let from = range.start;
        let (mut bytes, mut blocks, mut next) = (0, Vec::new(), from);
        for (number, block) in self.written.range(range) {
            bytes += block.elements.len() as u64;
            blocks.push((*number, block.clone()));
            next = number + 1;
            if bytes >= wanted {
                break;
            }
        }
        self.window.has_read(from, Batch { blocks, next, ..Batch::default() }, Lost::Damage);
        true
    }

    pub(super) fn read(&mut self) {
        for _ in 0..1_000 {
            if !self.read_some() {
                return;
            }
        }
        panic!("there is always more to be read");
    }

    /// Takes and settles all that can be had while these are refused: the numbers of what was delivered.
    pub(super) fn drain(&mut self, who: &[&str]) -> Vec<i64> {
        let mut delivered = Vec::new();
        loop {
            let blocks = take(&mut self.window, who);
            if blocks.is_empty() {
                return delivered;
            }
            delivered.extend(numbers(&blocks));
            self.window.forget(&blocks);
            self.read();
        }
    }

    /// What is given up of these, who are refused for long, if it is one lease at most.
    pub(super) fn give_up(&mut self, who: &[&str]) -> Vec<i64> {
        let Take::Overdue(blocks) = self.window.take(LIMITS, &refused(who, true)) else { return Vec::new() };
        self.window.forget(&blocks);
        self.read();
        numbers(&blocks)
    }
}

#[tokio::test(start_paused = true)]
async fn others_do_not_wait_behind_a_refused_tenant_as_long_as_there_is_memory_and_nothing_is_lost_beyond_it() {
    let mut disked = Disked::new(16 * MIB);
    let mut delivered = Vec::new();
    // 50 MiB of one that is refused, among them now and then one of another.
    let of = |number: i64| if number % 10 == 9 { "b" } else { "a" };
    for number in 0..800 {
        disked.push(block(number, of(number)));
        delivered.extend(disked.drain(&["a"]));
        // It looks whether there is something to be read, as its thread does, whoever asks how often.
        disked.read();
        assert!(disked.window.waiting_bytes() <= 13 * MIB, "{number}: {}", disked.window.waiting_bytes());
    }
    let of_b: Vec<_> = (0..800).filter(|number| of(*number) == "b").collect();
    // 8 MiB of the other are 128 blocks.
    assert!(delivered.len() >= 12 && delivered.len() < of_b.len(), "{delivered:?}");
    assert_eq!(delivered, of_b[..delivered.len()]);
    assert_eq!(disked.window.pending().blocks, 800 - delivered.len() as u64, "what is on disk stays there");

    // When it is taken again, all that is left goes, in order.
    let (rest_of_b, rest_of_a): (Vec<_>, Vec<_>) = disked.drain(&[]).into_iter().partition(|number| of(*number) == "b");
    assert_eq!(rest_of_b, of_b[delivered.len()..]);
    assert_eq!(rest_of_a, (0..800).filter(|number| of(*number) == "a").collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_for_long_gives_up_his_oldest_only_if_others_wait_behind_him() {
    let mut disked = Disked::new(16 * MIB);
    for number in 0..300 {
        disked.push(block(number, "a"));
        disked.drain(&["a"]);
        disked.read();
    }
    assert!(disked.give_up(&["a"]).is_empty(), "nobody else waits");
    disked.push(block(300, "b"));
    assert!(disked.drain(&["a"]).is_empty(), "b waits");
    assert!(disked.give_up(&["a", "b"]).is_empty(), "all are refused");
    let mut given_up = Vec::new();
    while disked.drain(&["a"]).is_empty() {
        let one = disked.give_up(&["a"]);
        assert!((1..=3).contains(&one.len()), "one lease: {one:?}");
        given_up.extend(one);
    }
    assert_eq!(given_up, (0..given_up.len() as i64).collect::<Vec<_>>(), "the oldest");
    assert!(disked.give_up(&["a"]).is_empty(), "nobody waits any more");
}

/// Nothing is read that has no room: the disk's thread would do nothing else any more.
#[tokio::test(start_paused = true)]
async fn where_the_disk_takes_nothing_a_refused_backlog_does_not_go_to_and_fro() {
    let mut disked = Disked::new(16 * MIB);
    for number in 0..800 {
        disked.push(block(number, "a"));
        disked.drain(&["a"]);
        disked.read();
    }
    for number in 800..1_300 {
        disked.window.push(block(number, "a"));
    }
    assert!(disked.window.dropped(Lost::Memory).blocks > 0, "the memory is full");
    let rounds = (0..50).take_while(|_| {
        assert!(take(&mut disked.window, &["a"]).is_empty());
        disked.read_some()
    });
    assert!(rounds.count() < 50, "there is always more to be read");
    assert!(disked.window.waiting_bytes() <= 16 * MIB);
}

/// The memory is full of what cannot be written, so that little of the backlog is read at a time.
#[tokio::test(start_paused = true)]
async fn where_the_disk_takes_nothing_who_is_refused_for_long_is_given_up_as_well() {
    let mut disked = Disked::new(16 * MIB);
    for number in 0..400 {
        disked.push(block(number, "a"));
        disked.drain(&["a"]);
        disked.read();
    }
    for number in 400..700 {
        disked.window.push(block(number, if number == 699 { "b" } else { "a" }));
    }
    assert!(disked.window.dropped(Lost::Memory).blocks > 0, "the memory is full");
    disked.read();
    let mut given_up = Vec::new();
    let delivered = loop {
        let delivered = disked.drain(&["a"]);
        if !delivered.is_empty() {
            break delivered;
        }
        let one = disked.give_up(&["a"]);
        assert!((1..=3).contains(&one.len()), "one lease: {one:?} after {}", given_up.len());
        given_up.extend(one);
    };
    assert_eq!(delivered, [699]);
    assert!(given_up.is_sorted() && given_up.len() <= 400, "the oldest, and of what is on disk only: {given_up:?}");
    assert!(disked.give_up(&["a"]).is_empty(), "nobody waits any more");
}

/// As where a receiver answers 503 for ever to what is in that lease.
#[tokio::test(start_paused = true)]
async fn targets_with_a_lease_that_does_not_end_hold_up_no_other_as_long_as_there_is_memory() {
    let mut disked = Disked::new(16 * MIB);
    let is_stuck = |number: i64| number % 4 == 0;
    let push = |disked: &mut Disked, number| {
        let block = Block { tenant: None, ..block(number, "a") };
        disked.push(if is_stuck(number) { Block { target: TargetId(0), ..block } } else { block });
    };
    push(&mut disked, 0);
    let stuck = take(&mut disked.window, &[]);
    assert_eq!(numbers(&stuck), [0]);
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut delivered = Vec::new();
    // What comes in while nothing is asked for is more than the front has room for, again and again.
    for number in 1..800 {
        push(&mut disked, number);
        if number % 100 == 99 {
            delivered.extend(disked.drain(&[]));
            // It looks whether there is something to be read, as its thread does, whoever asks how often.
            disked.read();
            delivered.extend(disked.drain(&[]));
        }
        assert!(disked.window.waiting_bytes() <= 13 * MIB, "{number}: {}", disked.window.waiting_bytes());
    }
    let others: Vec<_> = (0..800).filter(|number| !is_stuck(*number)).collect();
    // 8 MiB of the stuck one are 128 blocks.
    assert!(delivered.len() >= 3 * 128 && delivered.len() < others.len(), "{}", delivered.len());
    assert_eq!(delivered, others[..delivered.len()]);
    disked.window.give_back(stuck);
    let (rest_of_stuck, rest): (Vec<_>, Vec<_>) = disked.drain(&[]).into_iter().partition(|number| is_stuck(*number));
    assert_eq!(rest, others[delivered.len()..]);
    assert_eq!(rest_of_stuck, (0..800).filter(|number| is_stuck(*number)).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_lease_takes_no_more_memory_if_nobody_else_waits() {
    let mut disked = Disked::new(16 * MIB);
    let of_one_target = |number| Block { target: TargetId(1), ..block(number, "a") };
    disked.push(of_one_target(0));
    let leased = take(&mut disked.window, &[]);
    for number in 1..400 {
        disked.push(of_one_target(number));
        assert!(disked.drain(&[]).is_empty());
        disked.read();
        assert!(disked.window.waiting_bytes() <= 4 * MIB, "{number}: {}", disked.window.waiting_bytes());
    }
    disked.window.forget(&leased);
    disked.read();
    assert_eq!(disked.drain(&[]), Vec::from_iter(1..400));
}

/// As where a backlog is delivered, request by request.
#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_is_waited_for_rather_than_more_read() {
    let mut disked = Disked::new(16 * MIB);
    // One that has been out for long, and for which nobody waits.
    disked.push(block(999, "b"));
    let _other = take(&mut disked.window, &[]);
    tokio::time::advance(Duration::from_secs(60)).await;
    for number in 0..200 {
        let target = if number < 150 { 1 } else { 2 };
        disked.push(Block { target: TargetId(target), ..block(number, "a") });
    }
    let leased = take(&mut disked.window, &[]);
    let Take::Until(until) = disked.window.take(LIMITS, &Refused::default()) else { panic!("it does not end") };
    assert_eq!(until, tokio::time::Instant::now() + Duration::from_secs(10));
    disked.read();
    assert!(disked.drain(&[]).is_empty());
    assert!(disked.window.waiting_bytes() <= 4 * MIB, "{}", disked.window.waiting_bytes());
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut delivered = Vec::new();
    for _ in 0..4 {
        delivered.extend(disked.drain(&[]));
        disked.read();
    }
    assert_eq!(delivered, Vec::from_iter(150..200));
    assert!(disked.window.waiting_bytes() <= 12 * MIB, "{}", disked.window.waiting_bytes());
    disked.window.forget(&leased);
    disked.read();
    assert_eq!(disked.drain(&[]), Vec::from_iter(leased.len() as i64..150));
}

#[tokio::test(start_paused = true)]
async fn for_those_who_are_refused_no_more_memory_is_taken_behind_a_lease() {
    let mut disked = Disked::new(16 * MIB);
    let of_one_target = |number| Block { target: TargetId(1), ..block(number, "b") };
    disked.push(of_one_target(0));
    let _leased = take(&mut disked.window, &[]);
    tokio::time::advance(Duration::from_secs(60)).await;
    for number in 1..200 {
        disked.push(if number < 190 { of_one_target(number) } else { block(number, "a") });
        assert!(disked.drain(&["a"]).is_empty());
        disked.read();
        assert!(disked.window.waiting_bytes() <= 4 * MIB, "{number}: {}", disked.window.waiting_bytes());
    }
    assert!(disked.drain(&[]).is_empty(), "it is not known to be there before it is read");
    disked.read();
    assert!(disked.window.waiting_bytes() > 4 * MIB, "{}", disked.window.waiting_bytes());
}

/// Others wait behind the gap, but it is not the refused blocks that keep them there.
#[tokio::test(start_paused = true)]
async fn who_is_refused_for_long_gives_up_nothing_while_others_fill_the_front() {
    let mut disked = Disked::new(16 * MIB);
    disked.push(block(0, "a"));
    let of_one_target = |number| Block { target: TargetId(1), ..block(number, "b") };
    disked.push(of_one_target(1));
    let leased = take(&mut disked.window, &["a"]);
    assert_eq!(numbers(&leased), [1]);
    for number in 2..200 {
        disked.push(of_one_target(number));
    }
    assert!(disked.window.gap().is_some() && disked.window.next_to_read().is_none());
    assert!(disked.give_up(&["a"]).is_empty(), "they go on once the lease is over");
    disked.window.forget(&leased);
    disked.read();
    assert_eq!(disked.drain(&["a"]), Vec::from_iter(2..200));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_the_rest_of_the_front_waits_until_there_is_room() {
    let mut disked = Disked::new(16 * MIB);
    // The front has 4 MiB: with the first one there is no room for the others.
    for (number, mib) in [(0, 1), (1, 3), (2, 3), (3, 3)] {
        let elements = Bytes::from(vec![0; (mib * MIB) as usize + (900 << 10)]);
        disked.push(Block { elements, ..block(number, "a") });
    }
    assert_eq!(disked.drain(&[]), [0, 1, 2, 3]);
}

#[tokio::test]
async fn it_knows_whether_anything_of_an_earlier_run_is_left() {
    let mut window = Window::new(1 << 20, true);
    assert!(!window.holds_earlier());
    window.opened(FIRST - 1, Count { blocks: 1, samples: 1, ..Count::default() }, None);
    assert!(window.holds_earlier(), "on disk");
    let batch = Batch { blocks: vec![(FIRST - 1, block(0, "a"))], next: FIRST, ..Batch::default() };
    window.has_read(FIRST - 1, batch, Lost::Damage);
    window.push(block(1, "b"));
    assert!(window.holds_earlier(), "in memory");
    let earlier = take(&mut window, &["b"]);
    assert_eq!(numbers(&earlier), [0]);
    let newer = take(&mut window, &["a"]);
    window.forget(&newer);
    assert!(window.holds_earlier(), "leased");
    window.forget(&earlier);
    assert!(!window.holds_earlier());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_of_a_hundred_thousand_tenants_once_all_of_theirs_is_settled() {
    const TENANTS: i64 = 100_000;
    let of =
        |number: i64| Block { elements: Bytes::from_static(&[0; 64]), ..block(number, &format!("tenant-{number}")) };
    let is_empty = |window: &Window| {
        let all_lanes = [Some(&window.lanes), window.fresh.as_ref().map(|fresh| &fresh.lanes)];
        window.waiting.is_empty()
            && window.leased.is_empty()
            && all_lanes.into_iter().flatten().all(Lanes::is_empty)
            && window.behind.len() == 0
    };

    let mut window = Window::new(64 * MIB, false);
    (0..TENANTS).for_each(|number| window.push(of(number)));
    let leases: Vec<_> = (0..TENANTS).map(|_| take(&mut window, &[])).collect();
    assert!(window.waiting.is_empty() && leases.iter().all(|lease| lease.len() == 1));
    for (number, lease) in leases.into_iter().enumerate() {
        match number % 2 {
            0 => window.forget(&lease),
            _ => window.give_back(lease),
        }
    }
    while let lease @ [_, ..] = &*take(&mut window, &[]) {
        window.forget(lease);
    }
    assert!(is_empty(&window));

    for (newest_first, tenants) in [(false, TENANTS), (true, TENANTS / 2)] {
        let mut disked = Disked::new(8 * MIB);
        disked.window.set_newest_first(newest_first);
        (0..tenants).for_each(|number| disked.push(of(number)));
        assert!(disked.window.behind.len() > TENANTS as usize / 10, "much is on disk only");
        assert_eq!(disked.drain(&[]).len() as i64, tenants);
        assert!(is_empty(&disked.window), "newest first: {newest_first}");
    }
}
