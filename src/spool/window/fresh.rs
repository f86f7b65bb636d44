//! What goes before a backlog, where the newest are to go first.
//!
//! That is for receivers that take samples in any order: after an outage they are sent what comes in at once, and beside it,
//! oldest first, what waits. In order of numbers a queue looks so then:
//!
//! ```text
//!            floor                gap_from              reach             written_to
//!   no more    │       front         │        gap         │       fresh        │     fresh      next
//!   on disk    │ in memory, on disk  │    on disk only    │ in memory, on disk │ in memory only │
//!   ───────────┴─────────────────────┴────────────────────┴────────────────────┴────────────────┘
//! ```
//! A lease is of the fresh ones, oldest first, as if there was nothing else: a full one, or one that has waited long enough.
//! Where there is none of these it is of the front. So a backlog gets all that a receiver takes beyond what comes in, and
//! nothing if that is nothing. Reading ends at `reach`, and what is done lies on both sides of the gap.
//!
//! What is fresh stays so for a while only. If it waits longer, or there is too much of it, the oldest of it goes to the front,
//! or falls into the gap if that has something or the front is full. It can be left to the disk only once it is written: where
//! the disk takes nothing all that comes in stays fresh, within the bounds of the memory.
//!
//! What falls into the gap while what came in with it goes out is a hole in what is done: that of a target that does not
//! answer, or of a tenant that is refused. Once there are thousands of them a backlog goes first, until there are fewer; but what
//! is fresh does not wait for a backlog of which nothing can go. So there may be a hole for each block on disk, and no more.
//!
//! What always holds: what waits from `reach` on is fresh, and no more of it than its bound is on disk; `reach` is never beyond
//! what is written, and never goes back; a target that has something leased, from whichever side, has nothing ready on either.

use std::time::Duration;

use tokio::time::Instant;

use super::LeaseLimits;
use super::lanes::Lanes;
use super::{Waiting, Window};

/// How long a block is fresh beyond the time that it may wait for company. A receiver that is asked in vain for longer is to
/// be sent first what is newer than that.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(10);

/// How many times as much as the front may be fresh, as long as that is no more than a quarter of the memory.
const FRONTS: u64 = 4;

/// What is fresh.
pub(super) struct Fresh {
    pub(super) lanes: Lanes,
    pub(super) bytes: u64,
}

impl Fresh {
    pub(super) fn add(&mut self, one: &Waiting) {
        self.bytes += one.bytes();
        self.lanes.add(one);
    }

    /// `one` was added before.
    pub(super) fn remove(&mut self, one: &Waiting) {
        self.bytes -= one.bytes();
        self.lanes.remove(one);
    }
}

impl Window {
    /// Whether what comes in goes before a backlog from now on. Without a disk there is none.
    pub(in crate::spool) fn set_newest_first(&mut self, newest_first: bool) {
        let Some(disk) = self.disk.as_ref().filter(|_| newest_first != self.fresh.is_some()) else { return };
        let written_to = disk.written_to;
        if newest_first {
            let mut fresh = Fresh { lanes: self.lanes.leased_alike(), bytes: 0 };
            for one in self.waiting.range(written_to..).map(|(_, one)| one) {
                if one.number < self.reach {
                    self.lanes.remove(one);
                }
                fresh.add(one);
            }
            (self.fresh, self.reach) = (Some(fresh), written_to);
        } else {
            // Behind a gap only what is not written is in memory.
            if self.gap().is_some() {
                let written: Vec<_> = self.waiting.range(self.reach..written_to).map(|(number, _)| *number).collect();
                written.into_iter().for_each(|number| self.leave(number));
            }
            self.fresh = None;
        }
        self.make_room();
    }

    /// Whether what is done lies so scattered among what is not that it must not become worse.
    pub(in crate::spool) fn set_scattered(&mut self, is_scattered: bool) {
        if let Some(disk) = &mut self.disk {
            disk.is_scattered = is_scattered;
        }
    }

    /// From which number on what waits is fresh.
    #[cfg(test)]
    pub(in crate::spool) fn first_fresh(&self) -> Option<u64> {
        self.fresh.as_ref().map(|_| self.reach)
    }

    /// Whether what is fresh goes only where nothing of the front can.
    pub(super) fn is_held(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.is_scattered)
    }

    /// Where the gap ends, if there is one, and what is on disk and in memory otherwise.
    pub(super) fn gap_end(&self) -> u64 {
        match (&self.fresh, &self.disk) {
            (None, Some(disk)) => disk.written_to,
            _ => self.reach,
        }
    }

    /// How many bytes the tail has: what is not written, and what else is fresh.
    pub(super) fn bytes_behind(&self) -> u64 {
        match (&self.fresh, &self.disk) {
            (Some(fresh), _) => fresh.bytes,
            (None, Some(disk)) => disk.unwritten_bytes,
            (None, None) => 0,
        }
    }

    /// What has been fresh for too long is so no more.
    pub(super) fn let_old_go(&mut self, limits: LeaseLimits) {
        if self.fresh.is_none() {
            return;
        }
        let (now, fresh_for) = (Instant::now(), limits.linger + FRESH_FOR);
        let is_old = |one: &Waiting| one.arrived.is_none_or(|arrived| arrived + fresh_for <= now);
        let mut any_went = false;
        while self.waiting.range(self.reach..).next().is_some_and(|(_, one)| is_old(one)) && self.let_one_go() {
            any_went = true;
        }
        if any_went {
            self.make_room();
        }
    }

    /// So is what is too much.
    pub(super) fn bound_fresh(&mut self) {
        let most_bytes = (FRONTS * self.front_bytes).min(self.capacity_bytes / 4);
        while self.fresh.as_ref().is_some_and(|fresh| fresh.bytes > most_bytes) && self.let_one_go() {}
    }

    /// The oldest of what is fresh is so no more: it goes to the front, if that comes up to it and has room, and is left to
    /// the disk otherwise. Whether there was one that is written.
    pub(super) fn let_one_go(&mut self) -> bool {
        let Some(disk) = self.disk.as_ref().filter(|_| self.fresh.is_some()) else { return false };
        let Some((&number, oldest)) = self.waiting.range(self.reach..disk.written_to).next() else { return false };
        let has_place = disk.stored.blocks == 0 && self.bytes_in_front() + oldest.bytes() <= self.front_limit();
        if !has_place {
            self.leave(number);
        }
        self.raise_reach(number + 1);
        true
    }

    /// What waits below this number is not fresh, as far as it is written.
    pub(super) fn raise_reach(&mut self, to: u64) {
        let (Some(fresh), Some(disk)) = (&mut self.fresh, &self.disk) else { return };
        let to = to.min(disk.written_to).max(self.reach);
        for one in self.waiting.range(self.reach..to).map(|(_, one)| one) {
            fresh.remove(one);
            self.lanes.add(one);
        }
        self.reach = to;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Disked, LIMITS, MIB, block, numbers, refused, take};
    use super::super::*;
    use super::FRESH_FOR;
    use crate::model::TargetId;

    fn newest_first(capacity: u64) -> Disked {
        let mut disked = Disked::new(capacity);
        disked.window.set_newest_first(true);
        disked
    }

    /// Nobody is refused.
    fn next(disked: &mut Disked) -> Vec<Waiting> {
        take(&mut disked.window, &[])
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_goes_first_and_the_backlog_goes_beside_it_oldest_first() {
        let mut disked = newest_first(16 * MIB);
        // 19 MiB, while nothing goes out.
        (0..300).for_each(|number| disked.push(block(number, "a")));
        assert!(disked.window.gap().is_some());
        assert!(disked.window.waiting_bytes() <= 9 * MIB, "{}", disked.window.waiting_bytes());
        let mut delivered = Vec::new();
        for number in 300..340 {
            for _ in 0..3 {
                let blocks = next(&mut disked);
                delivered.extend(numbers(&blocks));
                disked.window.forget(&blocks);
                disked.read();
            }
            disked.push(block(number, "a"));
        }
        delivered.extend(disked.drain(&[]));
        // Four of these MiB are fresh, which is not quite 64 blocks.
        let first = delivered[0];
        assert!((230..240).contains(&first), "{first}");
        let (backlog, fresh): (Vec<_>, Vec<_>) = delivered.iter().partition(|number| **number < first);
        assert_eq!((backlog, fresh), ((0..first).collect(), (first..340).collect()));
        let last_of_backlog = delivered.iter().position(|number| *number == first - 1).expect("it came");
        let (began, now) = (delivered.iter().position(|number| *number == 0).expect("it came"), 330);
        let came = delivered.iter().position(|number| *number == now).expect("it came");
        assert!(began < came && came < last_of_backlog, "{delivered:?}");
        assert_eq!(disked.window.pending(), Count::default());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_long_is_fresh_no_more() {
        let mut disked = newest_first(16 * MIB);
        (0..3).for_each(|number| disked.push(block(number, "a")));
        tokio::time::advance(FRESH_FOR).await;
        disked.push(block(3, "a"));
        let limits = LeaseLimits { max_samples: 10, ..LIMITS };
        let order: Vec<_> = std::iter::from_fn(|| match disked.window.take(limits, &refused(&[], false)) {
            Take::Blocks(blocks) => numbers(&blocks).first().copied(),
            _ => None,
        })
        .collect();
        assert_eq!(order, [3, 0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_fresh_waits_for_company_and_meanwhile_the_backlog_goes() {
        let mut disked = newest_first(16 * MIB);
        disked.push(block(0, "a"));
        tokio::time::advance(FRESH_FOR * 2).await;
        disked.push(block(1, "a"));
        let began = Instant::now();
        let limits = LeaseLimits { linger: FRESH_FOR, ..LIMITS };
        let mut take = || disked.window.take(limits, &refused(&[], false));
        assert!(matches!(take(), Take::Blocks(blocks) if numbers(&blocks) == [0]));
        assert!(matches!(take(), Take::Until(until) if until == began + FRESH_FOR));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_in_one_lease_at_a_time_whether_it_is_of_the_backlog_or_fresh() {
        let mut disked = newest_first(16 * MIB);
        let of_one_target = |number| Block { target: TargetId(1), ..block(number, "a") };
        disked.push(of_one_target(0));
        tokio::time::advance(FRESH_FOR).await;
        let earlier = next(&mut disked);
        disked.push(of_one_target(1));
        assert!(next(&mut disked).is_empty());
        disked.window.give_back(earlier);
        let newer = next(&mut disked);
        assert_eq!(numbers(&newer), [1]);
        assert!(next(&mut disked).is_empty());
        // Whoever begins to let the newest go first knows what is out.
        disked.window.set_newest_first(false);
        disked.window.set_newest_first(true);
        disked.push(of_one_target(2));
        assert!(next(&mut disked).is_empty());
        disked.window.forget(&newer);
        assert_eq!(disked.drain(&[]), [2, 0], "what is on disk is no more fresh than it was");
    }

    #[tokio::test(start_paused = true)]
    async fn where_what_is_done_lies_scattered_the_backlog_goes_first() {
        let mut disked = newest_first(16 * MIB);
        (0..300).for_each(|number| disked.push(block(number, "a")));
        disked.window.set_scattered(true);
        disked.push(block(300, "a"));
        assert_eq!(disked.drain(&[]), Vec::from_iter(0..=300));
    }

    /// The holes get no fewer by waiting.
    #[tokio::test(start_paused = true)]
    async fn however_scattered_what_is_done_is_what_is_fresh_does_not_wait_for_what_cannot_go() {
        let of_one_target = |number| Block { target: TargetId(1), ..block(number, "a") };
        for is_refused in [true, false] {
            let mut disked = newest_first(16 * MIB);
            (0..300).for_each(|number| disked.push(of_one_target(number)));
            let (stuck, who): (_, &[&str]) = match is_refused {
                true => (Vec::new(), &["a"]),
                false => (next(&mut disked), &[]),
            };
            disked.drain(who);
            disked.window.set_scattered(true);
            for number in 300..330 {
                disked.push(block(number, "b"));
                assert_eq!(disked.drain(who), [number], "is refused: {is_refused}");
            }
            disked.window.give_back(stuck);
            disked.push(block(330, "b"));
            let all = disked.drain(&[]);
            assert_eq!((all.len(), all.last()), (301, Some(&330)), "a backlog that can go goes first");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_for_long_gives_up_nothing_for_others_whose_samples_are_fresh() {
        let mut disked = newest_first(16 * MIB);
        for number in 0..400 {
            disked.push(block(number, "a"));
            disked.read();
        }
        for number in 400..500 {
            disked.push(block(number, "b"));
            assert_eq!(disked.drain(&["a"]), [number], "b does not wait");
        }
        assert!(disked.give_up(&["a"]).is_empty(), "nobody else waits");
        // More than is fresh.
        (500..600).for_each(|number| disked.push(block(number, "b")));
        assert!(disked.drain(&["a"]).len() < 100, "some are behind what is refused");
        assert!(!disked.give_up(&["a"]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_behind_whom_is_known_after_the_order_is_another_one() {
        let mut disked = newest_first(16 * MIB);
        for number in 0..240 {
            disked.push(block(number, "a"));
            assert!(disked.drain(&["a"]).is_empty());
        }
        disked.push(block(240, "b"));
        assert!(disked.window.gap().is_none());
        disked.window.set_newest_first(false);
        assert!(
            disked.window.gap().is_some_and(|gap| gap.contains(&(FIRST + 240))),
            "what was fresh is left to the disk"
        );
        assert!(disked.drain(&["a"]).is_empty());
        assert!(!disked.give_up(&["a"]).is_empty(), "b waits");

        let mut disked = Disked::new(16 * MIB);
        for number in 0..300 {
            disked.push(block(number, "a"));
            assert!(disked.drain(&["a"]).is_empty());
        }
        // It is not written yet.
        disked.window.push(block(300, "b"));
        assert!(!disked.give_up(&["a"]).is_empty(), "b waits");
        disked.window.set_newest_first(true);
        assert!(take(&mut disked.window, &["a", "b"]).is_empty());
        assert!(disked.give_up(&["a", "b"]).is_empty(), "all are refused");
        assert_eq!(disked.drain(&["a"]), [300], "it is fresh");
        assert!(disked.give_up(&["a"]).is_empty(), "nobody waits any more");
        disked.window.push(block(301, "b"));
        let leased = next(&mut disked);
        assert_eq!(numbers(&leased), [301]);
        assert!(disked.give_up(&["a"]).is_empty(), "nothing of b waits");
    }

    #[tokio::test(start_paused = true)]
    async fn another_order_takes_nothing_away() {
        for begins_with in [true, false] {
            let mut disked = Disked::new(16 * MIB);
            disked.window.set_newest_first(begins_with);
            (0..300).for_each(|number| disked.push(block(number, "a")));
            disked.window.set_newest_first(!begins_with);
            disked.read();
            (300..310).for_each(|number| disked.push(block(number, "a")));
            let mut delivered = disked.drain(&[]);
            assert_eq!(delivered[0], if begins_with { 0 } else { 300 });
            delivered.sort_unstable();
            assert_eq!(delivered, Vec::from_iter(0..310));
        }
    }
}
