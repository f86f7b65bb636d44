//! The blocks of one receiver on disk: an append-only log in segments.
//!
//! ```text
//! <directory of the receiver>/
//!   00000000000004d2.log      a segment (segment.rs), named by its first position, in hexadecimal digits
//!   0000000000000a00.log      the last one is being written
//!   00000000000002ee.corrupt  was damaged; kept for a look at it, two of them at most
//!   acknowledged              which positions are done with (done.rs)
//! ```
//! - *Append.* A batch of blocks goes to the end of the last segment in one `write`. If that fails, the file is cut off where
//!   it was; if that fails as well, the segment is ended and another one begun. So a record is whole or it is the last thing
//!   in its file.
//! - *Acknowledge.* Positions become done in memory at once and in their file with [`Log::save_done`]. A segment of which all
//!   is done is deleted.
//! - *Bounds.* [`Log::overdue`] says when the oldest segment has to go, because of bytes or age, whoever still waits for it.
//! - *Open.* Every segment is read once. A torn end is cut off, damage is passed over and counted, a file that is no segment
//!   is set aside, and what is missing between two records counts as done: nothing that is found can keep a log from opening.
//!   Each process begins a segment of its own, at a position higher than all that was ever used.
//!
//! What always holds: records are in the order of their positions, within a segment and from one to the next; the log holds
//! no block in memory, and of each segment a few numbers; all file access may block and none may panic.
//!
//! Durability is the caller's: [`Log::take_unsynced`] hands out what is to be synced. It knows no queue, and time only as a
//! number that it is given.

mod bounds;
mod recover;

pub(super) use recover::{is_aside, is_of_a_log};

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use self::recover::load_done;
use super::done::{Done, DoneFile};
use super::record::{self, Meta};
use super::segment::{self, Walk};
use super::storage::{Storage, StoredFile};
use crate::model::Block;

/// Positions are below this one: who numbers them can add to them without overflow.
pub(super) const POSITIONS: u64 = 1 << 62;

/// How many damaged files are kept.
const MAX_SET_ASIDE: usize = 2;

/// How many segments there may be; the oldest has to go if there are more. Only a process that is restarted all the time
/// gets near.
const MAX_SEGMENTS: usize = 4096;

const DONE_FILE: &str = "acknowledged";
const SEGMENT_SUFFIX: &str = ".log";
const ASIDE_SUFFIX: &str = ".corrupt";

/// How large and how old a log may become.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    /// How large a segment may become; one record that is larger has a segment of its own.
    pub(super) segment_bytes: u64,
    /// All files together.
    pub(super) max_bytes: u64,
    /// Since a block arrived, to the precision of a segment.
    pub(super) max_age: Duration,
}

/// Blocks and the samples in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) blocks: u64,
    pub(super) samples: u64,
}

/// What was wrong with the files of a log since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrongs {
    /// Torn ends that were cut off.
    pub(super) torn: u64,
    /// Damaged places within segments, and files that are no segments.
    pub(super) damaged: u64,
}

/// Why the oldest segment has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Bytes,
    Age,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Blocks that are not done, with their positions.
    pub(super) blocks: Vec<(u64, Block)>,
    /// Everything before this position has been read.
    pub(super) next: u64,
    /// Positions that should have been there, and about how many samples each had.
    pub(super) lost: Vec<(u64, u64)>,
}

struct Segment {
    first: u64,
    marker: u64,
    /// The position behind the last record.
    end: u64,
    len: u64,
    /// When the first and the last block arrived.
    arrived_ms: (i64, i64),
    /// The oldest timestamp inside.
    min_ms: i64,
    pending: Count,
    damaged: bool,
}

impl Segment {
    fn empty(first: u64, marker: u64) -> Self {
        let (arrived_ms, min_ms, pending) = ((0, 0), 0, Count::default());
        Self { first, marker, end: first, len: segment::HEADER, arrived_ms, min_ms, pending, damaged: false }
    }

    fn name(&self) -> String {
        name_of(self.first)
    }

    fn took(&mut self, position: u64, arrived_ms: i64, min_ms: i64) {
        if self.end == self.first {
            self.arrived_ms = (arrived_ms, arrived_ms);
            self.min_ms = min_ms;
        }
        self.end = position + 1;
        self.arrived_ms.1 = arrived_ms.max(self.arrived_ms.1);
        self.min_ms = self.min_ms.min(min_ms);
    }

    fn lose(&mut self, samples: u64) {
        self.pending.blocks = self.pending.blocks.saturating_sub(1);
        self.pending.samples = self.pending.samples.saturating_sub(samples);
    }
}

struct Writer<F> {
    file: F,
    /// Whether something was written that was not handed out to be synced.
    unsynced: bool,
}

/// Where reading goes on: behind the last block that was read.
struct Cursor {
    segment: u64,
    offset: u64,
    position: u64,
}

/// A log that was opened.
pub(super) struct Log<S: Storage> {
    storage: S,
    limits: LogLimits,
    /// What the blocks that are read are numbered with.
    receiver: usize,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Of the last one, once this process has begun it.
    writer: Option<Writer<S::File>>,
    cursor: Option<Cursor>,
    next: u64,
    done: Done,
    done_file: Option<DoneFile<S::File>>,
    done_changed: bool,
    /// Files that are no part of the log any more and are still there.
    doomed: Vec<(String, bool)>,
    set_aside: VecDeque<(String, u64)>,
    unsynced: Vec<S::File>,
    names_changed: bool,
    wrongs: Wrongs,
    scratch: Vec<u8>,
}

impl<S: Storage> Log<S> {
    /// Where its files are.
    pub(super) fn into_storage(self) -> S {
        self.storage
    }

    /// How large and old it may become from now on.
    pub(super) fn set_limits(&mut self, limits: LogLimits) {
        self.limits = limits;
    }

    /// The lowest position that the next block may have.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The lowest position of a block that is kept.
    pub(super) fn first(&self) -> u64 {
        self.segments.front().map_or(self.next, |segment| segment.first)
    }

    /// What is not done.
    pub(super) fn pending(&self) -> Count {
        let mut sum = Count::default();
        for segment in &self.segments {
            sum.blocks += segment.pending.blocks;
            sum.samples += segment.pending.samples;
        }
        sum
    }

    /// The bytes of all files but the one of what is done.
    pub(super) fn bytes(&self) -> u64 {
        let aside: u64 = self.set_aside.iter().map(|(_, len)| len).sum();
        self.segments.iter().map(|segment| segment.len).sum::<u64>() + aside
    }

    /// When the oldest block that is not done arrived, to the precision of a segment.
    pub(super) fn oldest_arrival_ms(&self) -> Option<i64> {
        self.segments.iter().find(|segment| segment.pending.blocks > 0).map(|segment| segment.arrived_ms.0)
    }

    /// The oldest timestamp in blocks from `position` on, to the precision of a segment.
    pub(super) fn oldest_ms(&self, position: u64) -> Option<i64> {
        let waiting = self.segments.iter().filter(|segment| segment.end > position && segment.pending.blocks > 0);
        waiting.map(|segment| segment.min_ms).min()
    }

    /// What was found to be wrong.
    pub(super) fn wrongs(&self) -> Wrongs {
        self.wrongs
    }

    /// Writes blocks, which are at positions that follow one another and are not lower than [`Log::next`].
    ///
    /// # Errors
    /// If the disk does not take them; then none of them is in the log.
    pub(super) fn append(&mut self, blocks: &[(u64, Block)], now_ms: i64) -> io::Result<()> {
        let Some(first) = blocks.first().map(|(position, _)| *position) else { return Ok(()) };
        let len: u64 = blocks.iter().map(|(_, block)| record::len(block) as u64).sum();
        if self.should_roll(len, now_ms) {
            self.seal();
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin(first)?,
        };
        let Some(segment) = self.segments.back_mut() else { return Err(io::Error::other("BUG: no segment")) };
        self.scratch.clear();
        for (position, block) in blocks {
            record::write(&mut self.scratch, segment.marker, *position, now_ms, block);
        }
        if let Err(error) = writer.file.write_at(&self.scratch, segment.len) {
            // Without that the rest of the record stays, and must stay the last thing in the file.
            match writer.file.truncate(segment.len) {
                Ok(()) => self.writer = Some(writer),
                Err(_) => self.seal(),
            }
            return Err(error);
        }
        segment.len += len;
        for (position, block) in blocks {
            self.done.insert(self.next..*position);
            self.next = position + 1;
            segment.took(*position, now_ms, block.min_ms);
            segment.pending.blocks += 1;
            segment.pending.samples += u64::from(block.samples);
        }
        writer.unsynced = true;
        self.writer = Some(writer);
        // One large block must not be remembered for ever.
        if self.scratch.capacity() > self.limits.segment_bytes as usize {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Whether the segment that is written is full, or so old that age could not be bounded.
    fn should_roll(&self, more: u64, now_ms: i64) -> bool {
        let Some(segment) = self.segments.back().filter(|segment| self.writer.is_some() && segment.end > segment.first)
        else {
            return false;
        };
        let part_of_age_ms = i64::try_from(self.limits.max_age.as_millis() / 8).unwrap_or(i64::MAX);
        segment.len + more > self.limits.segment_bytes || now_ms.saturating_sub(segment.arrived_ms.0) > part_of_age_ms
    }

    fn begin(&mut self, first: u64) -> io::Result<Writer<S::File>> {
        let (name, marker) = (name_of(first), rand::random());
        let file = self.storage.create(&name)?;
        if let Err(error) = file.write_at(&segment::header(marker), 0) {
            // A file without records is deleted by whoever opens the log next.
            let _ = self.storage.remove(&name);
            return Err(error);
        }
        self.names_changed = true;
        // One that was begun at this position and held nothing had the same name.
        self.doomed.retain(|(doomed, _)| *doomed != name);
        self.segments.push_back(Segment::empty(first, marker));
        Ok(Writer { file, unsynced: true })
    }

    /// Ends the segment that is written: the next block goes to another one.
    pub(super) fn seal(&mut self) {
        if let Some(Writer { file, .. }) = self.writer.take() {
            self.unsynced.push(file);
        }
        if let Some(empty) = self.segments.pop_back_if(|last| last.end == last.first) {
            self.doomed.push((empty.name(), false));
        }
    }

    /// Whether the segment that is written still has its name; the next block goes to another one if not.
    pub(super) fn check_name(&mut self) -> io::Result<bool> {
        let Some(writer) = &self.writer else { return Ok(true) };
        let has_name = writer.file.has_name()?;
        if !has_name {
            self.seal();
        }
        Ok(has_name)
    }

    /// Reads blocks that are not done from `position` on, about `max_bytes` of them.
    ///
    /// # Errors
    /// Those of the disk; nothing is lost then, and it can be tried again.
    pub(super) fn read(&mut self, position: u64, max_bytes: u64) -> io::Result<Batch> {
        let mut batch = Batch { next: position, ..Batch::default() };
        let mut bytes = 0;
        while bytes < max_bytes {
            let Some(at) = self.segments.iter().position(|segment| segment.end > batch.next) else {
                batch.next = self.next;
                break;
            };
            match self.read_segment(at, &mut batch, &mut bytes, max_bytes) {
                // What was read before is worth having; the error comes again with what is behind it.
                Err(_) if !batch.blocks.is_empty() => break,
                outcome => outcome?,
            }
        }
        Ok(batch)
    }

    fn read_segment(&mut self, at: usize, batch: &mut Batch, bytes: &mut u64, max_bytes: u64) -> io::Result<()> {
        let Segment { first, marker, end, len, .. } = self.segments[at];
        let walk = match self.storage.open(&name_of(first)) {
            // Somebody has deleted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(Walk::known(opened?, len, marker, self.receiver)),
        };
        let Some(mut walk) = walk else {
            self.pass(at, end, batch);
            return Ok(());
        };
        match self.cursor.take() {
            Some(known) if known.segment == first && known.position == batch.next => walk.skip_to(known.offset),
            _ => {}
        }
        while *bytes < max_bytes {
            let Some((Meta { position, .. }, block)) = walk.next()? else {
                // What is missing at the end, if anything.
                self.pass(at, end, batch);
                return Ok(());
            };
            if position < batch.next || position >= end {
                continue;
            }
            self.pass(at, position, batch);
            batch.next = position + 1;
            if !self.done.contains(position) {
                *bytes += record::len(&block) as u64;
                batch.blocks.push((position, block));
            }
        }
        self.cursor = Some(Cursor { segment: first, offset: walk.offset(), position: batch.next });
        Ok(())
    }

    /// Reading comes to `position`: what was not found before it is lost.
    fn pass(&mut self, at: usize, position: u64, batch: &mut Batch) {
        let missing: Vec<u64> = (batch.next..position).filter(|one| !self.done.contains(*one)).collect();
        batch.next = batch.next.max(position);
        if missing.is_empty() {
            return;
        }
        self.wrongs.damaged += 1;
        let segment = &mut self.segments[at];
        segment.damaged = true;
        let each = segment.pending.samples / segment.pending.blocks.max(1);
        for one in missing {
            segment.lose(each);
            self.done.insert(one..one + 1);
            batch.lost.push((one, each));
        }
        self.done_changed = true;
    }

    /// Gives up what cannot be read from `position` to the end of its segment.
    pub(super) fn give_up(&mut self, position: u64) -> Batch {
        let mut batch = Batch { next: position, ..Batch::default() };
        if let Some(at) = self.segments.iter().position(|segment| segment.end > position) {
            self.pass(at, self.segments[at].end, &mut batch);
        }
        batch
    }

    /// The block at `position`, which has so many samples, is done with, whether it was written or not.
    pub(super) fn finish(&mut self, position: u64, samples: u64) {
        if self.done.contains(position) {
            return;
        }
        self.done.insert(position..position + 1);
        self.done_changed = true;
        let at = self.segments.partition_point(|segment| segment.end <= position);
        if let Some(segment) = self.segments.get_mut(at).filter(|segment| segment.first <= position) {
            segment.lose(samples);
        }
    }

    /// Writes down what is done, if that has changed.
    pub(super) fn save_done(&mut self) -> io::Result<()> {
        if !self.done_changed {
            return Ok(());
        }
        if self.done_file.is_none() {
            let sequence = load_done(&self.storage)?.0;
            self.done_file = Some(self.done_file_from(sequence)?);
        }
        let Some(file) = &mut self.done_file else { return Ok(()) };
        if let Err(error) = file.write(&self.done) {
            // Opened anew the next time: it may be another file then.
            self.done_file = None;
            return Err(error);
        }
        self.unsynced.push(file.file().clone());
        self.done_changed = false;
        Ok(())
    }

    /// The file of what is done, with both its slots.
    fn done_file_from(&self, sequence: Option<u64>) -> io::Result<DoneFile<S::File>> {
        let opened = match self.storage.open_to_write(DONE_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.storage.create(DONE_FILE),
            opened => opened,
        };
        let mut file = DoneFile::new(opened?, sequence);
        // The first write is to the older slot; and if there was none, to both.
        file.write(&self.done)?;
        if sequence.is_none() {
            file.write(&self.done)?;
        }
        Ok(file)
    }

    /// The files that were written since this was asked last, to be synced by whoever has the time.
    pub(super) fn take_unsynced(&mut self) -> io::Result<Vec<S::File>> {
        if self.names_changed {
            self.unsynced.push(self.storage.names()?);
            self.names_changed = false;
        }
        if let Some(writer) = &mut self.writer
            && std::mem::take(&mut writer.unsynced)
        {
            self.unsynced.push(writer.file.clone());
        }
        Ok(std::mem::take(&mut self.unsynced))
    }
}

fn name_of(first: u64) -> String {
    format!("{first:016x}{SEGMENT_SUFFIX}")
}
