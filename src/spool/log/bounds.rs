//! How a log stays within its bounds, and how its files go.

use std::io;
use std::ops::Range;

use super::known::{Fate, Segment};
use super::syncing::PART;
use super::{CORRUPT_SUFFIX, Log, MAX_SEGMENTS, MAX_SET_ASIDE, Overdue, SEGMENT_SUFFIX};
use crate::spool::count::Count;
use crate::spool::segment;
use crate::spool::storage::Storage;

/// A file that is to go.
pub(super) struct Doomed {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) fate: Fate,
}

impl From<Segment> for Doomed {
    fn from(segment: Segment) -> Self {
        Self { name: segment.name(), bytes: segment.bytes(), fate: segment.fate }
    }
}

/// What is written may begin a segment.
fn with_header(more: u64) -> u64 {
    if more > 0 { more.saturating_add(segment::HEADER) } else { 0 }
}

impl<S: Storage> Log<S> {
    /// The bytes of all files but the one of what is done.
    pub(in crate::spool) fn bytes(&self) -> u64 {
        self.bytes_of_segments() + self.bytes_of_others()
    }

    fn bytes_of_segments(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    fn bytes_of_others(&self) -> u64 {
        let doomed: u64 = self.doomed.iter().map(|doomed| doomed.bytes).sum();
        doomed + self.set_aside.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Whether the oldest segment has to go before `more` bytes are written.
    pub(in crate::spool) fn overdue(&self, more: u64, now_ms: i64) -> Option<Overdue> {
        let oldest = self.segments.front().filter(|oldest| !oldest.is_empty())?;
        let max_age_ms = i64::try_from(self.limits.max_age.as_millis()).unwrap_or(i64::MAX);
        // How old is what could not be read, what comes behind it may tell.
        let newest_ms = match oldest.unread {
            None => oldest.arrived_ms.map(|(_, newest)| newest),
            Some(_) => self.segments.get(1).and_then(|next| next.arrived_ms).map(|(oldest, _)| oldest),
        };
        if newest_ms.is_some_and(|newest_ms| now_ms.saturating_sub(newest_ms) > max_age_ms) {
            return Some(Overdue::Age);
        }
        // Of the other files nothing gets less by that: they go first, or cannot go.
        let bytes = self.bytes_of_segments().saturating_add(with_header(more));
        let earlier = self.segments.partition_point(|segment| segment.first < self.began);
        (bytes > self.limits.max_bytes || earlier > self.most_earlier()).then_some(Overdue::Bytes)
    }

    /// How many segments of earlier processes there may be: as many as have room, if none is smaller than it is without a
    /// restart.
    fn most_earlier(&self) -> usize {
        let with_room = self.limits.max_bytes / (self.limits.segment_bytes / PART).max(1);
        usize::try_from(with_room).unwrap_or(usize::MAX).max(MAX_SEGMENTS)
    }

    /// Whether files that should be gone take the place of `more` bytes.
    pub(super) fn is_out_of_room(&self, more: u64) -> bool {
        self.bytes_of_others() > 0 && self.bytes().saturating_add(with_header(more)) > self.limits.max_bytes
    }

    /// Takes the oldest segment out of the log: its positions, and what of it was not done. It touches no file;
    /// [`Log::collect`] deletes it.
    pub(in crate::spool) fn drop_oldest(&mut self) -> Option<(Range<u64>, Count)> {
        if self.segments.len() == 1 {
            self.let_go.extend(self.writer.as_ref().map(|writer| writer.file.clone()));
            self.seal();
        }
        let oldest = self.segments.pop_front()?;
        let (range, pending) = (oldest.first..oldest.reaches(), oldest.pending);
        self.done.insert(range.clone());
        self.done_changed = true;
        self.doom(oldest);
        Some((range, pending))
    }

    /// Deletes the files of which nothing is needed any more, and of those that were set aside what has no room beside
    /// `more` bytes.
    pub(in crate::spool) fn collect(&mut self, more: u64) -> io::Result<()> {
        let written = self.writer.as_ref().and(self.segments.back()).map(|segment| segment.first);
        while let Some(done) =
            self.segments.iter().position(|segment| segment.pending.blocks == 0 && Some(segment.first) != written)
        {
            if let Some(segment) = self.segments.remove(done) {
                self.doom(segment);
            }
        }
        // What is open has no room on a full disk, though it is deleted.
        self.let_go.clear();
        // Each by itself: one that cannot be deleted keeps no other.
        let mut outcome = Ok(());
        for doomed in std::mem::take(&mut self.doomed) {
            match self.carry_out(&doomed) {
                // Should it come back because that was not durable, all of it is done, as soon as that is synced.
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    outcome = Err(error);
                    self.doomed.push(doomed);
                }
            }
        }
        // What was set aside is worth less than what is to be delivered.
        let (mut stays, mut bytes) = (Vec::new(), 0);
        while let Some(one) = self.superfluous(more, bytes).and_then(|at| self.set_aside.remove(at)) {
            if let Err(error) = self.storage.remove(&one.0)
                && error.kind() != io::ErrorKind::NotFound
            {
                outcome = Err(error);
                bytes += one.1;
                stays.push(one);
            }
        }
        stays.into_iter().rev().for_each(|one| self.set_aside.push_front(one));
        outcome
    }

    fn doom(&mut self, segment: Segment) {
        let file = self.need_not_sync(segment.first);
        self.let_go.extend(file);
        self.doomed.push(segment.into());
    }

    fn carry_out(&mut self, doomed: &Doomed) -> io::Result<()> {
        let Doomed { name, bytes, fate } = doomed;
        let Some(suffix) = fate.suffix() else { return self.storage.remove(name) };
        let aside = format!("{}{suffix}", name.trim_end_matches(SEGMENT_SUFFIX));
        self.storage.rename(name, &aside)?;
        self.names_changed = true;
        self.set_aside.push_back((aside, *bytes));
        Ok(())
    }

    /// The oldest of those set aside that has to go, if one has to; so many bytes are in others that cannot.
    fn superfluous(&self, more: u64, stay: u64) -> Option<usize> {
        let more = more.max(self.limits.segment_bytes).saturating_add(stay);
        if self.bytes().saturating_add(more) > self.limits.max_bytes {
            return (!self.set_aside.is_empty()).then_some(0);
        }
        let is_corrupt = |(name, _): &(String, u64)| name.ends_with(CORRUPT_SUFFIX);
        let corrupt = self.set_aside.iter().filter(|one| is_corrupt(one)).count();
        (corrupt > MAX_SET_ASIDE).then(|| self.set_aside.iter().position(is_corrupt)).flatten()
    }
}
