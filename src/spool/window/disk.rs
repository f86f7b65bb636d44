//! The window as whoever writes the disk sees it: what is to be written and read, and what became of it.

use std::collections::HashSet;
use std::ops::Range;

use super::{Lost, Waiting, Window};
use crate::model::Block;
use crate::spool::count::Count;
use crate::spool::log::Batch;

impl Window {
    /// The log was opened: this is in it, from the number `first` on.
    pub(in crate::spool) fn opened(&mut self, first: u64, pending: Count, oldest_ms: Option<i64>) {
        let Some(disk) = &mut self.disk else { return };
        disk.settled = true;
        (disk.floor, disk.gap_from) = (first, first);
        (disk.stored, disk.stored_oldest_ms) = (pending, oldest_ms);
        self.make_room();
    }

    /// The log cannot be opened for now; `is_settled`: nothing older is to be waited for, because there is none or because
    /// it has been tried for too long.
    pub(in crate::spool) fn not_opened(&mut self, is_settled: bool) {
        if let Some(disk) = &mut self.disk {
            disk.settled |= is_settled;
            disk.fails = true;
        }
    }

    /// Whether what waits to be written fills so much of the memory that older blocks cannot be waited for any longer.
    pub(in crate::spool) fn is_pressed(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.unwritten_bytes > self.capacity_bytes / 2)
    }

    /// Which blocks are done with since this was asked last.
    pub(in crate::spool) fn take_finished(&mut self) -> Vec<(u64, Count)> {
        self.disk.as_mut().map(|disk| std::mem::take(&mut disk.finished)).unwrap_or_default()
    }

    /// The oldest blocks that are to be written, about `max_bytes` of them, one at least.
    pub(in crate::spool) fn next_to_write(&mut self, max_bytes: u64) -> Vec<(u64, Block)> {
        let Some(disk) = &mut self.disk else { return Vec::new() };
        let mut bytes = 0;
        let mut batch = Vec::new();
        for one in &disk.unwritten {
            bytes += one.bytes();
            if bytes > max_bytes && !batch.is_empty() {
                break;
            }
            batch.push((one.number, one.block.clone()));
            disk.writing_to = one.number + 1;
        }
        batch
    }

    /// What [`Window::next_to_write`] gave is written, up to the number `end`.
    pub(in crate::spool) fn wrote(&mut self, end: u64) {
        // Behind a gap there is no front: what is written there is left to the disk, unless it is to go first.
        let is_behind_gap = self.gap().is_some() && self.fresh.is_none();
        while let Some(one) = self.disk.as_mut().and_then(|disk| disk.unwritten.pop_front_if(|one| one.number < end)) {
            if let Some(disk) = &mut self.disk {
                disk.unwritten_bytes -= one.bytes();
            }
            if is_behind_gap && let Some(one) = self.take_away(one.number) {
                self.store(&one);
            }
        }
        let Some(disk) = &mut self.disk else { return };
        disk.written_to = end.max(disk.written_to);
        self.make_room();
    }

    /// A block that is to be written is too large for that.
    pub(in crate::spool) fn too_large(&mut self, number: u64) {
        if let Some(one) = self.take_away(number) {
            self.lose(Lost::Size, one.count());
        }
        // If it is leased, it may still be delivered.
        if let Some(disk) = &mut self.disk {
            while let Some(one) = disk.unwritten.pop_front_if(|one| one.number <= number) {
                disk.unwritten_bytes -= one.bytes();
            }
        }
    }

    /// It is over, and the disk has not taken all: this was lost by it.
    pub(in crate::spool) fn lose_unwritten(&mut self) -> Count {
        let Some(disk) = &mut self.disk else { return Count::default() };
        let kept = disk.floor..disk.written_to;
        disk.unwritten.clear();
        disk.unwritten_bytes = 0;
        let mut lost = Count::default();
        let gone: Vec<_> = self.waiting.keys().copied().filter(|number| !kept.contains(number)).collect();
        for one in gone.into_iter().filter_map(|number| self.take_away(number)) {
            lost += one.count();
        }
        if lost.blocks > 0 {
            self.lose(Lost::Unwritten, lost);
        }
        lost
    }

    /// From which number on and up to which one blocks are to be read, and how many bytes; `None` if none are needed.
    pub(in crate::spool) fn next_to_read(&self) -> Option<(Range<u64>, u64)> {
        let (gap, missing) = (self.gap()?, self.missing());
        let has_front = self.oldest().is_some_and(|one| one.number < gap.start);
        let is_tried = |(from, room): (u64, u64)| from == gap.start && missing <= room;
        let is_in_vain = self.disk.as_ref().and_then(|disk| disk.no_room).is_some_and(is_tried);
        (!has_front || missing > self.front_bytes / 2 && !is_in_vain).then_some((gap, missing.max(1)))
    }

    /// How many bytes the front has room for.
    fn missing(&self) -> u64 {
        self.front_limit().saturating_sub(self.bytes_in_front())
    }

    /// What was read from the number `from` on; what was not there is lost, because of `why`.
    pub(in crate::spool) fn has_read(&mut self, from: u64, batch: Batch, why: Lost) {
        let Batch { blocks, next, lost, counted_anew: (thought, found) } = batch;
        let (has_found, end) = (!blocks.is_empty(), self.gap_end());
        let Some(disk) = &mut self.disk else { return };
        // What is on its way out, or has come there while this was read, is not in the gap.
        let finished: HashSet<_> = disk.finished.iter().map(|(number, _)| *number).collect();
        let is_new = |number: &u64| !self.leased.contains_key(number) && !finished.contains(number);
        let mut damaged: Count = lost.iter().filter(|(number, _)| is_new(number)).map(|(_, one)| *one).sum();
        disk.stored = disk.stored.less(thought);
        disk.stored += found;
        damaged = damaged.at_most(disk.stored);
        disk.stored -= damaged;
        let mut come = Vec::new();
        // Otherwise more was left to the disk meanwhile, and reading begins before that.
        if disk.gap_from == from {
            for (number, block) in blocks.into_iter().filter(|(number, _)| is_new(number)) {
                let one = Waiting { number, arrived: None, block };
                disk.stored = disk.stored.less(one.count());
                come.push(one);
            }
            disk.gap_from = next.min(end);
            if disk.gap_from == end {
                // Nothing is left to be read.
                damaged += disk.stored;
                disk.stored = Count::default();
            }
        }
        come.into_iter().for_each(|one| self.put(one));
        if damaged.blocks > 0 {
            self.lose(why, damaged);
        }
        self.make_room();
        let missing = self.missing();
        if let Some(disk) = &mut self.disk {
            disk.no_room = (has_found && disk.gap_from == from).then_some((from, missing));
        }
    }

    /// The oldest timestamp in the gap, as the log knows it.
    pub(in crate::spool) fn set_stored_oldest(&mut self, oldest_ms: impl FnOnce(u64) -> Option<i64>) {
        if let (Some(gap), Some(disk)) = (self.gap(), &mut self.disk) {
            disk.stored_oldest_ms = oldest_ms(gap.start);
        }
    }

    /// The log drops these, of which so much was not done. What of it is leased may still be delivered.
    pub(in crate::spool) fn trimmed(&mut self, range: Range<u64>, pending: Count, why: Lost) {
        let mut rest = pending;
        for one in self.leased.range(range.clone()).map(|(_, one)| one) {
            rest = rest.less(one.count);
        }
        let mut lost = Count::default();
        let gone: Vec<_> = self.waiting.range(range.clone()).map(|(number, _)| *number).collect();
        for one in gone.into_iter().filter_map(|number| self.take_away(number)) {
            rest = rest.less(one.count());
            lost += one.count();
        }
        self.raise_reach(range.end);
        let end = self.gap_end();
        if let Some(disk) = &mut self.disk {
            rest = rest.at_most(disk.stored);
            disk.stored -= rest;
            disk.floor = disk.floor.max(range.end);
            disk.gap_from = disk.gap_from.max(range.end).min(end);
        }
        lost += rest;
        if lost.blocks > 0 {
            self.lose(why, lost);
        }
        self.make_room();
    }
}
