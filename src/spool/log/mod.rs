//! The blocks of one receiver on disk: an append-only log in segments.
//!
//! ```text
//! <directory of the receiver>/
//!   00000000000004d2.log      a segment (segment.rs), named by its first position, in hexadecimal digits
//!   0000000000000a00.log      the last one is being written
//!   00000000000002ee.corrupt  was damaged; kept for a look at it, two of them at most
//!   00000000000001c8.unread   could not be read for so long that it was given up; kept as long as there is room
//!   acknowledged              which positions are done with (acknowledged.rs)
//!   acknowledged.new          becomes the one of an earlier version
//!   acknowledged.corrupt      was found in its place and is not ours
//! ```
//! - *Append.* A batch of blocks goes to the end of the last segment in one `write`. If that fails, the file is cut off where
//!   it was; if that fails as well, the segment is ended and another one begun. So a record is whole or it is the last thing
//!   in its file. The first records of a batch that was not cut off may be whole, and come again at the beginning of the next
//!   segment: whoever opens the log takes those of the first.
//! - *Acknowledge.* Positions become done in memory at once and in their file with [`Log::save_done`]. A segment of which all
//!   is done is deleted.
//! - *Bounds.* [`Log::overdue`] says when the oldest segment has to go, because of bytes or age, whoever still waits for it.
//! - *Open.* Every segment is read once. A torn end is cut off, damage is passed over and counted, a file that is no segment
//!   is set aside, and what is missing between two records counts as done: nothing that is found can keep a log from opening.
//!   Each process begins a segment of its own, at a position higher than all that was ever used.
//! - *What cannot be read* for an error of the disk may be whole: damage is only what was read and is wrong. The log opens
//!   without it, keeps what it has read of that file, leaves the file where it is, and looks again whenever reading comes
//!   there. Nothing behind it is read before that was settled, so that nothing overtakes it; how long that may take its
//!   caller says, with [`Log::give_up`].
//! - *Time* is the log's own: it goes on where the newest block says, and passes only while a process has the log open. What
//!   any wall clock says between two processes makes nothing old.
//!
//! What always holds: records are in the order of their positions, within a segment and from one to the next; the log holds
//! no block in memory, and of each segment a few numbers; all file access may block and none may panic.
//!
//! Durability is the caller's: [`Log::take_unsynced`] hands out what is to be synced. It knows no queue, and time only as a
//! number that it is given.

mod bounds;
mod known;
mod reading;
mod recover;
mod syncing;

pub(super) use reading::Batch;
pub(super) use recover::{is_aside, is_of_a_log, kept_for};
pub(super) use syncing::{NotSynced, Unsynced};

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use self::bounds::Doomed;
use self::known::Segment;
use self::reading::Cursor;
use self::recover::{Found, load_done};
use self::syncing::Sealed;
use super::acknowledged::{DoneFile, Version};
use super::count::Count;
use super::done::Done;
use super::record;
use super::segment;
use super::storage::{Storage, StoredFile};
use crate::model::Block;

/// Positions are below this one: who numbers them can add to them without overflow.
pub(super) const POSITIONS: u64 = 1 << 62;

/// How many damaged files are kept.
const MAX_SET_ASIDE: usize = 2;

/// How much of the memory that a write took is kept for the next.
const SCRATCH_BYTES: usize = 1 << 20;

/// How many segments of earlier processes there may be however small they are; the oldest has to go if there are more. Only
/// one that is restarted all the time gets near.
const MAX_SEGMENTS: usize = 4096;

/// What is done should not be in more ranges than these. Their file has room for twice as many.
const MAX_PARTS: usize = 8192;

pub(super) const DONE_FILE: &str = "acknowledged";
/// What takes its place, until it does.
const DONE_FILE_BEGUN: &str = "acknowledged.new";
const SEGMENT_SUFFIX: &str = ".log";
const CORRUPT_SUFFIX: &str = ".corrupt";
const UNREAD_SUFFIX: &str = ".unread";

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

struct Writer<F> {
    file: F,
    /// Whether something was written that was not handed out to be synced.
    unsynced: bool,
    /// A sync of it has failed since it was handed out.
    has_failed: bool,
}

/// A log that was opened.
pub(super) struct Log<S: Storage> {
    storage: S,
    limits: LogLimits,
    /// What the blocks that are read are numbered with.
    receiver: usize,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The position from which on they are of this process.
    began: u64,
    /// Of the last one, once this process has begun it.
    writer: Option<Writer<S::File>>,
    cursor: Option<Cursor>,
    next: u64,
    done: Done,
    done_file: Option<DoneFile<S::File>>,
    done_changed: bool,
    /// Files that are no part of the log any more and are still there.
    doomed: Vec<Doomed>,
    set_aside: VecDeque<(String, u64)>,
    /// Ended segments that are not synced.
    unsynced: VecDeque<Sealed<S::File>>,
    /// Of segments that were taken out of the log, to be closed with their deletion, which may take its time.
    let_go: Vec<S::File>,
    /// When the last one was ended because it could not be.
    given_up_ms: Option<i64>,
    done_unsynced: bool,
    names_changed: bool,
    /// When the newest block arrived.
    newest_ms: Option<i64>,
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
        self.segments.iter().map(|segment| segment.pending).sum()
    }

    /// When the newest block arrived, by the log's own time.
    pub(super) fn newest_arrival_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    /// When the oldest block that is not done arrived, to the precision of a segment.
    pub(super) fn oldest_arrival_ms(&self) -> Option<i64> {
        self.segments
            .iter()
            .filter(|segment| segment.pending.blocks > 0)
            .find_map(|segment| Some(segment.arrived_ms?.0))
    }

    /// The oldest timestamp in blocks from `position` on, to the precision of a segment, as far as it is known.
    pub(super) fn oldest_ms(&self, position: u64) -> Option<i64> {
        let waiting = self.segments.iter().filter(|segment| segment.reaches() > position && segment.pending.blocks > 0);
        waiting.filter_map(|segment| segment.min_ms).min()
    }

    /// What was found to be wrong.
    pub(super) fn wrongs(&self) -> Wrongs {
        self.wrongs
    }

    /// Writes blocks, which are at positions that follow one another and are not lower than [`Log::next`].
    ///
    /// # Errors
    /// If the disk does not take them; then none of them is in the log. Who opens it anew may find the first of them.
    pub(super) fn append(&mut self, blocks: &[(u64, Block)], now_ms: i64) -> io::Result<()> {
        let Some(first) = blocks.first().map(|(position, _)| *position) else { return Ok(()) };
        let len: u64 = blocks.iter().map(|(_, block)| record::len(block) as u64).sum();
        if self.is_out_of_room(len) {
            self.collect(len)?;
        }
        if self.is_out_of_room(len) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "files that cannot be deleted leave no room"));
        }
        if self.should_roll(len, now_ms) {
            self.seal();
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin(first)?,
        };
        let Some(segment) = self.segments.back_mut() else { return Err(io::Error::other("BUG: no segment")) };
        for (position, block) in blocks {
            record::write(&mut self.scratch, segment.marker, *position, now_ms, block);
        }
        let written = writer.file.write_at(&self.scratch, segment.len);
        // One large block must not be remembered for ever.
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES);
        if let Err(error) = written {
            // Without that the rest of the record stays, and must stay the last thing in the file.
            match writer.file.truncate(segment.len) {
                Ok(()) => self.writer = Some(writer),
                Err(_) => {
                    segment.beyond = len;
                    self.writer = Some(writer);
                    self.seal();
                }
            }
            return Err(error);
        }
        segment.len += len;
        for (position, block) in blocks {
            self.done.insert(self.next..*position);
            self.next = position + 1;
            segment.took(*position, now_ms, block.min_ms);
            // It may have been delivered while it was on its way here.
            if !self.done.contains(*position) {
                segment.pending += Count::of(block);
            }
        }
        self.newest_ms = self.newest_ms.max(Some(now_ms));
        writer.unsynced = true;
        self.writer = Some(writer);
        Ok(())
    }

    /// Whether the segment that is written is full, or so old that age could not be bounded.
    fn should_roll(&self, more: u64, now_ms: i64) -> bool {
        let Some(segment) = self.segments.back().filter(|segment| self.writer.is_some() && segment.end > segment.first)
        else {
            return false;
        };
        let part_of_age_ms = i64::try_from(self.limits.max_age.as_millis() / 8).unwrap_or(i64::MAX);
        let age_ms = segment.arrived_ms.map_or(0, |(oldest, _)| now_ms.saturating_sub(oldest));
        segment.len + more > self.limits.segment_bytes || age_ms > part_of_age_ms
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
        self.doomed.retain(|doomed| doomed.name != name);
        self.segments.push_back(Segment::empty(first, marker));
        Ok(Writer { file, unsynced: true, has_failed: false })
    }

    /// Ends the segment that is written: the next block goes to another one.
    pub(super) fn seal(&mut self) {
        let Some(Writer { file, has_failed, .. }) = self.writer.take() else { return };
        match self.segments.pop_back_if(|last| last.is_empty()) {
            Some(empty) => self.doomed.push(empty.into()),
            None => {
                let first = self.segments.back().map(|last| last.first);
                first.into_iter().for_each(|first| self.must_sync(first, file.clone(), has_failed));
            }
        }
    }

    /// Whether the files that are written still have their names. If not, the next block goes to another segment, and what is
    /// done to another file.
    pub(super) fn check_names(&mut self) -> io::Result<bool> {
        let has_name = |file: Option<&S::File>| file.map_or(Ok(true), StoredFile::has_name);
        let of_segment = has_name(self.writer.as_ref().map(|writer| &writer.file));
        let of_done = has_name(self.done_file.as_ref().map(DoneFile::file));
        if let Ok(false) = of_segment {
            self.seal();
        }
        if let Ok(false) = of_done {
            self.done_file = None;
            (self.done_changed, self.names_changed) = (true, true);
        }
        Ok(of_segment? && of_done?)
    }

    /// The block at `position`, of which so much is in it, is done with, whether it was written or not.
    pub(super) fn finish(&mut self, position: u64, one: Count) {
        if self.done.contains(position) {
            return;
        }
        self.done.insert(position..position + 1);
        self.done_changed = true;
        let at = self.segments.partition_point(|segment| segment.reaches() <= position);
        if let Some(segment) = self.segments.get_mut(at).filter(|segment| segment.first <= position) {
            segment.lose(one);
        }
    }

    /// Whether what is done lies so scattered among what is not that it hardly has room in its file.
    pub(super) fn is_scattered(&self) -> bool {
        self.done.parts() > MAX_PARTS
    }

    /// Whether what is done is not written down: that has failed, or was put off.
    pub(super) fn is_unsaved(&self) -> bool {
        self.done_changed
    }

    /// Writes down what is done, if that has changed; not while it is being synced.
    pub(super) fn save_done(&mut self) -> io::Result<()> {
        if !self.done_changed {
            return Ok(());
        }
        if self.done_file.is_none() {
            let found = load_done(&self.storage)?;
            self.done_file = Some(self.done_file_from(&found)?);
        }
        let Some(file) = self.done_file.as_mut().filter(|file| !file.is_being_synced()) else { return Ok(()) };
        if let Err(error) = file.write(&self.done, self.limits.max_age) {
            // Opened anew the next time: it may be another file then.
            self.done_file = None;
            return Err(error);
        }
        self.done_unsynced = true;
        self.done_changed = false;
        Ok(())
    }

    /// The file of what is done, with both its slots.
    fn done_file_from(&mut self, found: &Found) -> io::Result<DoneFile<S::File>> {
        if matches!(found, Found::Foreign) {
            let aside = format!("{DONE_FILE}{CORRUPT_SUFFIX}");
            self.storage.rename(DONE_FILE, &aside)?;
            self.names_changed = true;
            let bytes = self.storage.open(&aside).and_then(|file| file.len());
            self.set_aside.push_back((aside, bytes.unwrap_or_default()));
        }
        let kept_for = self.limits.max_age;
        let said = match found {
            Found::Done(said) if said.version == Version::Two => said,
            Found::Done(said) => match self.renewed_done_file() {
                Ok(file) => return Ok(file),
                Err(_) => said,
            },
            Found::Nothing | Found::Foreign => {
                let opened = match self.storage.open_to_write(DONE_FILE) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => self.storage.create(DONE_FILE),
                    opened => opened,
                };
                return DoneFile::begin(opened?, &self.done, kept_for);
            }
        };
        let mut file = DoneFile::go_on(self.storage.open_to_write(DONE_FILE)?, said);
        // Whoever wrote the newer slot may have been killed before it was synced. If that fails it is written over.
        let _ = file.to_sync().sync();
        file.write(&self.done, kept_for)?;
        Ok(file)
    }

    /// A new one, in place of one of an earlier version.
    fn renewed_done_file(&mut self) -> io::Result<DoneFile<S::File>> {
        let begun = self.storage.create(DONE_FILE_BEGUN).and_then(|file| {
            let begun = DoneFile::begin(file, &self.done, self.limits.max_age)?;
            // What takes the place of the other must be whole.
            begun.to_sync().sync()?;
            self.storage.rename(DONE_FILE_BEGUN, DONE_FILE)?;
            Ok(begun)
        });
        match &begun {
            Ok(_) => self.names_changed = true,
            // There is no space for both, say: the earlier one does as well.
            Err(_) => drop(self.storage.remove(DONE_FILE_BEGUN)),
        }
        begun
    }
}

fn name_of(first: u64) -> String {
    format!("{first:016x}{SEGMENT_SUFFIX}")
}
