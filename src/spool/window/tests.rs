//! Tenants in a window.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::model::WriteFormat;
use crate::spool::log::Batch;

const LIMITS: LeaseLimits = LeaseLimits { max_samples: 30, max_message_bytes: u64::MAX, linger: Duration::ZERO };
const MIB: u64 = 1 << 20;

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).expect("a tenant")
}

/// The only one of its target, of 64 KiB.
fn block(number: i64, of: &str) -> Block {
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

fn numbers(blocks: &[Waiting]) -> Vec<i64> {
    blocks.iter().map(|one| one.block.min_ms).collect()
}

fn take(window: &mut Window, refused: &str) -> Vec<Waiting> {
    match window.take(LIMITS, &|tenant| tenant.as_str() == refused) {
        Take::Blocks(blocks) => blocks,
        Take::Overdue(blocks) => panic!("overdue: {:?}", numbers(&blocks)),
        Take::Until(_) | Take::Nothing | Take::Over => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_of_one_tenant_and_the_first_full_one_goes_first_until_another_has_waited_long_enough() {
    const LINGER: Duration = Duration::from_secs(5);
    let mut window = Window::new(64 * MIB, false);
    let take = |window: &mut Window| match window.take(LeaseLimits { linger: LINGER, ..LIMITS }, &|_| false) {
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
    assert_eq!(take(&mut window), [1, 3, 16], "as much as there is of his");
    assert_eq!(take(&mut window), [6]);
    assert_eq!(take(&mut window), [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn those_who_are_refused_are_passed_over_and_keep_their_order() {
    let mut window = Window::new(64 * MIB, false);
    for (number, of) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
        window.push(block(number, of));
    }
    assert_eq!(numbers(&take(&mut window, "a")), [2]);
    assert_eq!(numbers(&take(&mut window, "a")), [4]);
    assert!(take(&mut window, "a").is_empty());
    assert_eq!(numbers(&take(&mut window, "")), [1, 3]);
}

/// What is in a window with a disk that takes everything at once and gives it back when it is asked.
struct Disked {
    window: Window,
    written: BTreeMap<u64, Block>,
}

impl Disked {
    fn new(capacity: u64) -> Self {
        let mut window = Window::new(capacity, true);
        window.opened(FIRST, Count::default(), None);
        Self { window, written: BTreeMap::new() }
    }

    fn push(&mut self, block: Block) {
        self.window.push(block);
        let batch = self.window.next_to_write(u64::MAX);
        let end = batch.last().expect("what was pushed").0 + 1;
        self.written.extend(batch);
        self.window.wrote(end);
        self.read();
    }

    fn read(&mut self) {
        while let Some((from, wanted)) = self.window.next_to_read() {
            let (mut bytes, mut blocks, mut next) = (0, Vec::new(), from);
            for (number, block) in self.written.range(from..) {
                bytes += block.elements.len() as u64;
                blocks.push((*number, block.clone()));
                next = number + 1;
                if bytes >= wanted {
                    break;
                }
            }
            self.window.has_read(from, Batch { blocks, next, ..Batch::default() }, Lost::Damage);
        }
    }

    /// Takes and settles all that can be had while "a" is refused: what was delivered, and what was given up.
    fn drain(&mut self) -> (Vec<i64>, Vec<i64>) {
        let (mut delivered, mut given_up) = (Vec::new(), Vec::new());
        loop {
            match self.window.take(LIMITS, &|tenant| tenant.as_str() == "a") {
                Take::Blocks(blocks) => {
                    delivered.extend(numbers(&blocks));
                    self.window.forget(&blocks);
                }
                Take::Overdue(blocks) => {
                    assert!(blocks.iter().all(|one| one.block.tenant == Some(tenant("a"))));
                    given_up.extend(numbers(&blocks));
                    self.window.forget(&blocks);
                }
                Take::Until(_) | Take::Nothing | Take::Over => return (delivered, given_up),
            }
            self.read();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn others_do_not_wait_behind_a_refused_tenant_and_memory_stays_bounded() {
    let mut disked = Disked::new(16 * MIB);
    let (mut delivered, mut given_up) = (Vec::new(), Vec::new());
    // 50 MiB of one that is refused, among them now and then one of another.
    for number in 0..800 {
        let of = if number % 10 == 9 { "b" } else { "a" };
        disked.push(block(number, of));
        let (taken, lost) = disked.drain();
        delivered.extend(taken);
        given_up.extend(lost);
        disked.read();
        assert!(disked.window.waiting_bytes() <= 13 * MIB, "{number}: {}", disked.window.waiting_bytes());
        assert!(number % 10 != 9 || delivered.last() == Some(&number), "{number} is held up");
    }
    assert_eq!(delivered, (0..800).filter(|number| number % 10 == 9).collect::<Vec<_>>());
    assert!(given_up.is_sorted(), "the oldest go: {given_up:?}");
    let of_a: Vec<_> = (0..800).filter(|number| number % 10 != 9).collect();
    assert_eq!(given_up, of_a[..given_up.len()]);
    // Half of the memory is his.
    let kept = (of_a.len() - given_up.len()) as u64 * (64 << 10);
    assert!((7 * MIB..13 * MIB).contains(&kept), "{kept}");

    // When he is taken again, he gets all that is left, in order.
    let mut rest = Vec::new();
    loop {
        let blocks = take(&mut disked.window, "");
        if blocks.is_empty() {
            break;
        }
        rest.extend(numbers(&blocks));
        disked.window.forget(&blocks);
        disked.read();
    }
    assert_eq!(rest, of_a[given_up.len()..]);
}
