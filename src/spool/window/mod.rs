//! What of a queue is in memory, and what of it is known to be on disk only.
//!
//! Every block gets a number when it comes in, one higher than the last. A lease is some of the oldest blocks in order of
//! their numbers, without those of targets of which another lease has something; returned blocks go back to where their
//! numbers put them. So the blocks of one target leave in order, whatever becomes of each lease. In order of numbers a queue with a disk looks so:
//!
//! ```text
//!            floor                gap_from          written_to
//!   no more    │       front         │      gap         │       tail        next
//!   on disk    │ in memory, on disk  │   on disk only   │  in memory only    │
//!   ───────────┴─────────────────────┴──────────────────┴────────────────────┘
//! ```
//! A receiver that keeps up has no gap. If it falls behind, the front is kept small: its newest blocks are left to the disk,
//! and come back when the front runs empty. What cannot be written stays in the tail. Without a disk all is tail.
//!
//! A lease has blocks of one tenant only. Tenants that the receiver refuses are passed over, whoever says which these are, and so
//! are targets of which a lease does not end. What waits for these in the front may take half of the memory besides, so that the
//! others do not wait behind it. Beyond that nothing more is read, and the others wait. Nothing is given up for them, but of
//! tenants for which it is said to be time.
//!
//! Where the newest are to go first, what comes in goes before the front and the gap: [`fresh`] draws that.
//!
//! What always holds: the bytes in memory are bounded (besides what is leased), and what is dropped for it is the oldest
//! that is nowhere else, and counted; a block is in one of front, gap, tail and leases. All of this is done under a lock, so
//! nothing here touches a file, and nothing waits.

mod behind;
mod disk;
mod fresh;
mod lanes;
mod take;

#[cfg(test)]
mod against_plain;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use super::count::Count;
use super::lost::Lost;
use crate::model::{Block, TargetId};
use behind::Behind;
use fresh::Fresh;
use lanes::Lanes;

pub(super) use take::Take;
pub use take::{LeaseLimits, Refused};

/// The number of the first block that comes in. What a log holds from before has lower ones.
pub(super) const FIRST: u64 = 1 << 63;

/// The most bytes of the front.
const FRONT_BYTES: u64 = 4 << 20;

/// How long a disk that does not answer keeps blocks from being handed out. Where it answers, its thread says sooner what is
/// on it, or that this is given up: it must come first, lest newer blocks overtake what its last attempt finds.
const OPEN_PATIENCE: Duration = Duration::from_secs(90);

/// A block in the queue.
#[derive(Clone)]
pub(super) struct Waiting {
    pub(super) number: u64,
    /// When it came in; unknown if it was read from disk, where it has waited long enough.
    arrived: Option<Instant>,
    pub(super) block: Block,
}

impl Waiting {
    /// Whether it was in the log when that was opened.
    pub(super) fn is_earlier(&self) -> bool {
        self.number < FIRST
    }

    /// What it costs to keep it in memory.
    fn bytes(&self) -> u64 {
        (self.block.elements.len() + size_of::<Self>()) as u64
    }

    fn count(&self) -> Count {
        Count::of(&self.block)
    }
}

/// Blocks in memory, summed up.
#[derive(Clone, Copy, Default)]
struct Sum {
    count: Count,
    message_bytes: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, one: &Waiting) {
        self.count += one.count();
        self.message_bytes += u64::from(one.block.raw_len);
        self.bytes += one.bytes();
    }

    /// `one` was added before.
    fn remove(&mut self, one: &Waiting) {
        self.count -= one.count();
        self.message_bytes -= u64::from(one.block.raw_len);
        self.bytes -= one.bytes();
    }

    fn add_all(&mut self, others: &Sum) {
        self.count += others.count;
        self.message_bytes += others.message_bytes;
        self.bytes += others.bytes;
    }

    /// `others` were added before.
    fn remove_all(&mut self, others: &Sum) {
        self.count -= others.count;
        self.message_bytes -= others.message_bytes;
        self.bytes -= others.bytes;
    }

    fn reaches(&self, limits: LeaseLimits) -> bool {
        self.count.samples >= limits.max_samples || self.message_bytes >= limits.max_message_bytes
    }

    fn exceeds(&self, limits: LeaseLimits) -> bool {
        self.count.samples > limits.max_samples || self.message_bytes > limits.max_message_bytes
    }
}

/// The blocks of one queue. Its owner says where a block is allowed to be, this keeps the books.
pub(super) struct Window {
    /// Front and tail, by their numbers.
    waiting: BTreeMap<u64, Waiting>,
    /// Those of them that a lease may have: all below `reach`.
    lanes: Lanes,
    /// Where the gap was when it was looked at last; without one there is no end. Where the newest go first, the first of
    /// those.
    reach: u64,
    /// What goes before the front, where the newest go first: all that waits from `reach` on.
    fresh: Option<Fresh>,
    next: u64,
    sum: Sum,
    leased: BTreeMap<u64, Leased>,
    leased_sum: Count,
    /// No more blocks will come.
    pub(super) closed: bool,
    capacity_bytes: u64,
    /// How many bytes the front may have.
    front_bytes: u64,
    /// How many bytes of it were of refused tenants when it was looked through last.
    refused_bytes: u64,
    /// How many were behind leases that had been out for long, when nothing else could go.
    stuck_bytes: u64,
    /// What has something in the gap.
    behind: Behind,
    dropped: BTreeMap<Lost, Count>,
    disk: Option<OnDisk>,
}

#[derive(Clone, Copy)]
struct Leased {
    target: TargetId,
    since: Instant,
    min_ms: i64,
    count: Count,
}

/// What is known of the disk's part.
struct OnDisk {
    /// Whether it is known which older blocks are there. Before that nothing is handed out, until it is given up to wait
    /// for that.
    settled: bool,
    settled_by: Instant,
    /// Opening the log has failed.
    fails: bool,
    floor: u64,
    gap_from: u64,
    written_to: u64,
    /// What is being written goes up to here.
    writing_to: u64,
    /// What is not written, also if it is leased; all at `written_to` or behind.
    unwritten: VecDeque<Waiting>,
    unwritten_bytes: u64,
    /// What is in the gap, without what is leased of it.
    stored: Count,
    stored_oldest_ms: Option<i64>,
    /// What was read last, from this number on and with so much room, had no place in the front.
    no_room: Option<(u64, u64)>,
    /// What is done lies so scattered among what is not that it must not become worse.
    is_scattered: bool,
    /// Written blocks that are done with, and what is in them; the log does not know it yet.
    finished: Vec<(u64, Count)>,
}

impl Window {
    /// Empty. With a disk, it is to be told what is there before anything is handed out.
    pub(super) fn new(capacity_bytes: u64, with_disk: bool) -> Self {
        let disk = OnDisk {
            settled: false,
            settled_by: Instant::now() + OPEN_PATIENCE,
            fails: false,
            floor: FIRST,
            gap_from: FIRST,
            written_to: FIRST,
            writing_to: FIRST,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            stored: Count::default(),
            stored_oldest_ms: None,
            no_room: None,
            is_scattered: false,
            finished: Vec::new(),
        };
        Self {
            waiting: BTreeMap::new(),
            lanes: Lanes::default(),
            reach: u64::MAX,
            fresh: None,
            next: FIRST,
            sum: Sum::default(),
            leased: BTreeMap::new(),
            leased_sum: Count::default(),
            closed: false,
            capacity_bytes,
            front_bytes: FRONT_BYTES.min(capacity_bytes / 2),
            refused_bytes: 0,
            stuck_bytes: 0,
            behind: Behind::default(),
            dropped: BTreeMap::new(),
            disk: with_disk.then_some(disk),
        }
    }

    /// How many bytes may be in memory from now on.
    pub(super) fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
        self.set_front_bytes(FRONT_BYTES.min(bytes / 2));
    }

    /// How many bytes the front may have from now on.
    pub(super) fn set_front_bytes(&mut self, bytes: u64) {
        self.front_bytes = bytes;
        self.make_room();
    }

    /// A block comes in.
    pub(super) fn push(&mut self, block: Block) {
        let one = Waiting { number: self.next, arrived: Some(Instant::now()), block };
        self.next += 1;
        if let Some(disk) = &mut self.disk {
            disk.unwritten_bytes += one.bytes();
            disk.unwritten.push_back(one.clone());
        }
        self.put(one);
        self.make_room();
    }

    /// Leased blocks are done with.
    pub(super) fn forget(&mut self, blocks: &[Waiting]) {
        for one in blocks {
            self.unlease(one);
            self.finish(one.number, one.count());
        }
        self.make_room();
    }

    /// Leased blocks go back to their places.
    pub(super) fn give_back(&mut self, blocks: Vec<Waiting>) {
        for one in blocks {
            self.unlease(&one);
            match self.gap() {
                Some(gap) if gap.contains(&one.number) => self.store(&one),
                _ => self.put(one),
            }
        }
        self.make_room();
    }

    fn unlease(&mut self, one: &Waiting) {
        self.leased_sum -= one.count();
        self.leased.remove(&one.number);
        self.lanes.unlease(one.block.target);
        if let Some(fresh) = &mut self.fresh {
            fresh.lanes.unlease(one.block.target);
        }
    }

    /// A block is not needed any more, on disk neither.
    fn finish(&mut self, number: u64, count: Count) {
        let Some(disk) = &mut self.disk else { return };
        if number >= disk.written_to {
            let at = disk.unwritten.partition_point(|other| other.number < number);
            if disk.unwritten.get(at).is_some_and(|other| other.number == number)
                && let Some(one) = disk.unwritten.remove(at)
            {
                disk.unwritten_bytes -= one.bytes();
            }
        }
        // What was never written the log need not know.
        if number < disk.written_to.max(disk.writing_to) {
            disk.finished.push((number, count));
        }
    }

    /// What is on disk only; `None` if nothing is.
    fn gap(&self) -> Option<Range<u64>> {
        let disk = self.disk.as_ref().filter(|disk| disk.stored.blocks > 0)?;
        Some(disk.gap_from..self.gap_end())
    }

    /// A block waits from now on.
    fn put(&mut self, one: Waiting) {
        self.sum.add(&one);
        if one.number < self.reach {
            self.lanes.add(&one);
        } else if let Some(fresh) = &mut self.fresh {
            fresh.add(&one);
        }
        self.waiting.insert(one.number, one);
    }

    /// A block waits no longer, if it did.
    fn take_away(&mut self, number: u64) -> Option<Waiting> {
        let one = self.waiting.remove(&number)?;
        self.sum.remove(&one);
        if number < self.reach {
            self.lanes.remove(&one);
        } else if let Some(fresh) = &mut self.fresh {
            fresh.remove(&one);
        }
        Some(one)
    }

    /// The gap may be elsewhere: what is behind it a lease may not have.
    fn look_at_gap(&mut self) {
        if self.fresh.is_some() {
            return;
        }
        let reach = self.gap().map_or(u64::MAX, |gap| gap.start);
        let before = std::mem::replace(&mut self.reach, reach);
        if reach < before {
            self.waiting.range(reach..before).for_each(|(_, one)| self.lanes.remove(one));
        } else {
            self.waiting.range(before..reach).for_each(|(_, one)| self.lanes.add(one));
        }
    }

    /// Leaves to the disk what is there and does not belong into memory, and drops the oldest of what is too much.
    fn make_room(&mut self) {
        self.bound_fresh();
        while self.bytes_in_front() > self.front_limit() && self.leave_to_disk() {}
        while self.is_full() && self.waiting.len() > 1 {
            if self.leave_to_disk() || self.let_one_go() {
                continue;
            }
            // What is on disk as well is not worth dropping.
            let from = match (&self.disk, self.oldest()) {
                (Some(disk), Some(oldest)) if oldest.number >= disk.floor => disk.written_to,
                _ => 0,
            };
            let oldest = self.waiting.range(from..).next().map(|(number, _)| *number);
            let Some(oldest) = oldest.and_then(|number| self.take_away(number)) else { break };
            self.finish(oldest.number, oldest.count());
            self.lose(Lost::Memory, oldest.count());
        }
        let end = self.gap_end();
        if let Some(disk) = &mut self.disk
            && disk.stored.blocks == 0
        {
            disk.gap_from = end;
            disk.stored_oldest_ms = None;
            self.behind.forget_all();
        }
        self.look_at_gap();
    }

    fn oldest(&self) -> Option<&Waiting> {
        self.waiting.first_key_value().map(|(_, oldest)| oldest)
    }

    /// Whether there is too much in memory. Where blocks are on disk only, there must be room for them to come back.
    fn is_full(&self) -> bool {
        let reserved = match &self.disk {
            Some(disk) if disk.stored.blocks > 0 => self.front_bytes.saturating_sub(self.bytes_in_front()),
            _ => 0,
        };
        self.sum.bytes + reserved > self.capacity_bytes
    }

    /// How many bytes the front may have: besides what waits in it for refused tenants and behind leases that do not end, and
    /// not beyond what the tail has left of the memory, lest what is read is put back at once.
    fn front_limit(&self) -> u64 {
        let left = self.capacity_bytes.saturating_sub(self.front_bytes).saturating_sub(self.bytes_behind());
        self.front_bytes + (self.refused_bytes + self.stuck_bytes).min(self.capacity_bytes / 2).min(left)
    }

    /// How many bytes are in memory besides those of the tail.
    fn bytes_in_front(&self) -> u64 {
        self.disk.as_ref().map_or(0, |_| self.sum.bytes.saturating_sub(self.bytes_behind()))
    }

    /// Forgets the newest block of the front, which then is in the gap; not the last one, which would come back at once.
    /// Whether there was one.
    fn leave_to_disk(&mut self) -> bool {
        let Some(disk) = &self.disk else { return false };
        // Without a gap it begins at the end of what is written.
        let end = if disk.stored.blocks > 0 { disk.gap_from } else { self.gap_end() };
        let Some((&number, _)) = self.waiting.range(..end).next_back() else { return false };
        if number < disk.floor || self.oldest().is_some_and(|oldest| oldest.number == number) {
            return false;
        }
        self.leave(number);
        true
    }

    /// Forgets a block next to the gap, which then is in it.
    fn leave(&mut self, number: u64) {
        let (Some(one), Some(disk)) = (self.take_away(number), &mut self.disk) else { return };
        disk.gap_from = if disk.stored.blocks > 0 { disk.gap_from.min(number) } else { number };
        self.store(&one);
    }

    /// A block is in the gap from now on.
    fn store(&mut self, one: &Waiting) {
        let Some(disk) = &mut self.disk else { return };
        disk.stored += one.count();
        disk.stored_oldest_ms = Some(disk.stored_oldest_ms.unwrap_or(i64::MAX).min(one.block.min_ms));
        self.behind.note(one, disk.gap_from);
    }

    fn lose(&mut self, why: Lost, lost: Count) {
        *self.dropped.entry(why).or_default() += lost;
    }

    /// What was dropped so far.
    pub(super) fn dropped(&self, why: Lost) -> Count {
        self.dropped.get(&why).copied().unwrap_or_default()
    }

    /// What waits or is leased.
    pub(super) fn pending(&self) -> Count {
        let stored = self.disk.as_ref().map_or_else(Count::default, |disk| disk.stored);
        [self.sum.count, self.leased_sum, stored].into_iter().sum()
    }

    /// Whether anything that was in the log when it was opened waits or is leased.
    pub(super) fn holds_earlier(&self) -> bool {
        self.oldest().is_some_and(Waiting::is_earlier)
            || self.leased.first_key_value().is_some_and(|(number, _)| *number < FIRST)
            || self.gap().is_some_and(|gap| gap.start < FIRST)
    }

    /// What would be lost with this process.
    pub(super) fn in_memory_only(&self) -> Count {
        let Some(disk) = &self.disk else { return self.pending() };
        let waiting = self.waiting.values().filter(|one| one.number >= disk.written_to || one.number < disk.floor);
        let leased = self.leased.iter().filter(|(number, _)| **number >= disk.written_to || **number < disk.floor);
        waiting.map(Waiting::count).chain(leased.map(|(_, one)| one.count)).sum()
    }

    /// The bytes that wait in memory.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.sum.bytes
    }

    /// The oldest timestamp of all that waits or is leased.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        let waiting = self.waiting.values().map(|one| one.block.min_ms);
        let leased = self.leased.values().map(|one| one.min_ms);
        waiting.chain(leased).chain(self.disk.as_ref().and_then(|disk| disk.stored_oldest_ms)).min()
    }
}
