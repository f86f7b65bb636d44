//! How blocks are read back from a log, and what becomes of those that cannot be.

use std::io;
use std::ops::Range;

use super::known::Fate;
use super::{Log, name_of};
use crate::model::Block;
use crate::spool::count::Count;
use crate::spool::record::{self, Meta};
use crate::spool::segment::Walk;
use crate::spool::storage::Storage;

/// How many times as much as it is asked for one reading goes past in what is done, before it ends for now: whoever reads has
/// other things to do.
const MOST_PAST: u64 = 8;

/// What was read.
#[derive(Debug, Default)]
pub(in crate::spool) struct Batch {
    /// Blocks that are not done, with their positions.
    pub(in crate::spool) blocks: Vec<(u64, Block)>,
    /// Everything before this position has been read.
    pub(in crate::spool) next: u64,
    /// Positions that should have been there, and about how much each had.
    pub(in crate::spool) lost: Vec<(u64, Count)>,
    /// What was thought to be in files that could not be read, and are read now; and what is.
    pub(in crate::spool) counted_anew: (Count, Count),
}

/// Where reading goes on: behind the last block that was read.
pub(super) struct Cursor {
    segment: u64,
    offset: u64,
    position: u64,
}

impl<S: Storage> Log<S> {
    /// Reads blocks that are not done and in `range`, about `max_bytes` of them, or fewer where much lies between them that is
    /// done: none, too. What is missing behind it is not missed.
    ///
    /// # Errors
    /// Those of the disk; nothing is lost then, and it can be tried again.
    pub(in crate::spool) fn read(&mut self, range: Range<u64>, max_bytes: u64) -> io::Result<Batch> {
        let mut batch = Batch { next: range.start, ..Batch::default() };
        let mut bytes = 0;
        while bytes < max_bytes && batch.next < range.end {
            let Some(at) = self.segments.iter().position(|segment| segment.reaches() > batch.next) else {
                batch.next = self.next.min(range.end);
                break;
            };
            let outcome = match self.segments[at].unread {
                None => self.read_segment(at, range.end, &mut batch, &mut bytes, max_bytes),
                Some(_) => match self.look_again(at, &mut batch) {
                    // What was read of it before is there.
                    Err(_) if batch.next < self.segments[at].end => {
                        self.read_segment(at, range.end, &mut batch, &mut bytes, max_bytes)
                    }
                    outcome => outcome,
                },
            };
            match outcome {
                // What was read before is worth having; the error comes again with what is behind it.
                Err(_) if !batch.blocks.is_empty() || batch.counted_anew != <_>::default() => break,
                outcome => outcome?,
            }
        }
        Ok(batch)
    }

    fn read_segment(
        &mut self,
        at: usize,
        until: u64,
        batch: &mut Batch,
        bytes: &mut u64,
        max_bytes: u64,
    ) -> io::Result<()> {
        let (first, marker) = (self.segments[at].first, self.segments[at].marker);
        let (end, len) = (self.segments[at].end.min(until), self.segments[at].len);
        let walk = match self.storage.open(&name_of(first)) {
            // Somebody has deleted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(Walk::known(opened?, len, marker, self.receiver)),
        };
        let Some(mut walk) = walk else {
            self.pass(at, end, batch, Fate::KeptCorrupt);
            return Ok(());
        };
        match self.cursor.take() {
            Some(known) if known.segment == first && known.position == batch.next => walk.skip_to(known.offset),
            _ => {}
        }
        let mut offset = walk.offset();
        while *bytes < max_bytes {
            let Some((Meta { position, .. }, block)) = walk.next()? else {
                // What is missing at the end, if anything.
                self.pass(at, end, batch, Fate::KeptCorrupt);
                return Ok(());
            };
            if position >= until {
                self.pass(at, end, batch, Fate::KeptCorrupt);
                break;
            }
            offset = walk.offset();
            if position < batch.next || position >= end {
                continue;
            }
            self.pass(at, position, batch, Fate::KeptCorrupt);
            batch.next = position + 1;
            let len = record::len(&block) as u64;
            if self.done.contains(position) {
                *bytes += len.div_ceil(MOST_PAST);
            } else {
                *bytes += len;
                batch.blocks.push((position, block));
            }
        }
        self.cursor = Some(Cursor { segment: first, offset, position: batch.next });
        Ok(())
    }

    /// Reads a segment that could not be read to its end before.
    fn look_again(&mut self, at: usize, batch: &mut Batch) -> io::Result<()> {
        let (first, to) = (self.segments[at].first, self.segments[at].reaches());
        let from = at.checked_sub(1).map_or(0, |before| self.segments[before].reaches()).max(first);
        // The log has gone on since it was opened: that makes nothing younger.
        let after_ms = self.segments[at].unread.and_then(|unread| unread.after_ms);
        let behind_ms =
            self.segments.iter().skip(at + 1).find_map(|segment| segment.arrived_ms).map(|(oldest, _)| oldest);
        let no_later_ms = behind_ms.or(self.newest_ms).unwrap_or(i64::MAX);
        let mut known = match self.examine(first, from..to, (after_ms, no_later_ms)) {
            (known, Ok(())) => known,
            // Somebody has deleted it: what was known of it is missed when reading comes there.
            (mut known, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                known.fate = Fate::KeptCorrupt;
                known
            }
            (_, Err(error)) => return Err(error),
        };
        let segment = &mut self.segments[at];
        let Some(unread) = segment.settle_unread() else { return Ok(()) };
        if known.end < segment.end {
            // Less than there was.
            (known.end, known.len, known.marker) = (segment.end, segment.len, segment.marker);
            known.beyond = segment.beyond;
            known.pending = segment.pending;
        }
        let (thought, found) = &mut batch.counted_anew;
        *thought += unread.guess;
        *found += known.pending.less(segment.pending);
        self.done.insert(known.end..to);
        self.done_changed = true;
        self.cursor = None;
        *segment = known;
        batch.next = batch.next.max(from);
        Ok(())
    }

    /// Reading comes to `position`: what was not found before it is lost.
    fn pass(&mut self, at: usize, position: u64, batch: &mut Batch, fate: Fate) {
        let missing = self.done.missing(batch.next..position);
        batch.next = batch.next.max(position);
        if missing.is_empty() {
            return;
        }
        let segment = &mut self.segments[at];
        if fate == Fate::KeptCorrupt {
            self.wrongs.damaged += 1;
        }
        segment.fate = segment.fate.max(fate);
        let each = segment.pending.each();
        for one in missing {
            segment.lose(each);
            self.done.insert(one..one + 1);
            batch.lost.push((one, each));
        }
        self.done_changed = true;
    }

    /// Gives up what cannot be read of the first segment that has any of `range`. Its file is kept beside the log.
    pub(in crate::spool) fn give_up(&mut self, range: Range<u64>) -> Batch {
        let mut batch = Batch { next: range.start, ..Batch::default() };
        let Some(at) = self.segments.iter().position(|segment| segment.reaches() > range.start) else { return batch };
        let unread = self.segments[at].settle_unread();
        self.pass(at, self.segments[at].end.min(range.end), &mut batch, Fate::KeptUnread);
        if let Some(unread) = unread {
            let segment = &mut self.segments[at];
            batch.lost.push((segment.end, unread.guess));
            batch.next = unread.to;
            self.done.insert(segment.end..unread.to);
            self.done_changed = true;
            (segment.end, segment.fate) = (unread.to, Fate::KeptUnread);
        }
        batch
    }
}
