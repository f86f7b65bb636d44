//! What of a log is not durable yet, and who makes it so.
//!
//! Files are handed out to be synced by somebody who has the time for it, who says which could not be. Those are tried again
//! with all others, few at a time, so that a disk that makes nothing durable for hours costs few open files; and the segment
//! that is written is ended, because what the system makes of a page that it could not write is unknown, but not over and
//! over, so that it costs few segments.
//!
//! Linux takes a page that it could not write for written, so that the next sync succeeds and proves nothing. What could not be
//! synced is therefore written again before that is tried again: the same bytes in the same place, as they are read back,
//! which by then are still in the system's memory as a rule.

use std::io;

use super::{Log, name_of};
use crate::spool::acknowledged::{DoneFile, ToSync};
use crate::spool::storage::{Storage, StoredFile};

/// How many segments are synced at a time, and how many of those that wait for that are kept open.
const MAX_AT_ONCE: usize = 32;

/// How soon after one segment was ended because it could not be synced the next one is, in milliseconds, unless it has got
/// a part of its size.
const GIVE_UP_EVERY_MS: i64 = 60_000;

/// How much of all that has failed is written again before it is tried again, and what of one segment goes beyond that: a
/// volume that makes nothing durable is not to be kept busy with it.
const AGAIN_BYTES: u64 = 1 << 20;

/// How much of it is in memory at a time.
const CHUNK: usize = 256 << 10;

/// The part: one in so many.
pub(super) const PART: u64 = 16;

/// An ended segment, by its first position.
pub(super) struct Sealed<F> {
    first: u64,
    /// To be opened if it is not.
    file: Option<F>,
    /// A sync of it has failed.
    has_failed: bool,
}

/// A segment that is to be synced.
struct Part<F> {
    first: u64,
    file: F,
    /// So many bytes are to be written again before, which nobody changes any more.
    again: Option<u64>,
}

/// What is to be synced.
pub(in crate::spool) struct Unsynced<F> {
    segments: Vec<Part<F>>,
    done: Option<ToSync<F>>,
    names: Option<F>,
}

/// What could not be, and why.
pub(in crate::spool) struct NotSynced {
    error: io::Error,
    segments: Vec<u64>,
    done: bool,
    names: bool,
}

impl<S: Storage> Log<S> {
    /// A segment has ended.
    pub(super) fn must_sync(&mut self, first: u64, file: S::File, has_failed: bool) {
        let file = Some(file).filter(|_| self.unsynced.len() < MAX_AT_ONCE);
        self.unsynced.push_back(Sealed { first, file, has_failed });
    }

    /// It is gone. Gives its file, if it was kept open for that.
    pub(super) fn need_not_sync(&mut self, first: u64) -> Option<S::File> {
        let at = self.unsynced.iter().position(|sealed| sealed.first == first)?;
        self.unsynced.remove(at)?.file
    }

    /// What was written since this was asked last, to be synced by whoever has the time; if that is much, a part of it. With
    /// it, whether a file could not be opened; that one comes again.
    pub(in crate::spool) fn take_unsynced(&mut self) -> (Unsynced<S::File>, io::Result<()>) {
        let mut unsynced = Unsynced { segments: Vec::new(), done: None, names: None };
        let (mut opened, mut again_bytes) = (Ok(()), 0);
        for _ in 0..self.unsynced.len().min(MAX_AT_ONCE) {
            let Some(Sealed { first, file, has_failed }) = self.unsynced.pop_front() else { break };
            if has_failed && again_bytes >= AGAIN_BYTES {
                self.unsynced.push_back(Sealed { first, file, has_failed });
                continue;
            }
            let open = || match has_failed {
                true => self.storage.open_to_write(&name_of(first)),
                false => self.storage.open(&name_of(first)),
            };
            let known = self.segments.iter().find(|segment| segment.first == first);
            let again = known.filter(|_| has_failed).map(|segment| segment.len);
            again_bytes += again.unwrap_or_default();
            match file.map_or_else(open, Ok) {
                Ok(file) => unsynced.segments.push(Part { first, file, again }),
                // Somebody has deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.unsynced.push_back(Sealed { first, file: None, has_failed });
                    opened = Err(error);
                }
            }
        }
        if let (Some(writer), Some(last)) = (&mut self.writer, self.segments.back())
            && std::mem::take(&mut writer.unsynced)
        {
            let again = std::mem::take(&mut writer.has_failed).then_some(last.len);
            unsynced.segments.push(Part { first: last.first, file: writer.file.clone(), again });
        }
        if self.names_changed {
            match self.storage.names() {
                Ok(names) => {
                    unsynced.names = Some(names);
                    self.names_changed = false;
                }
                Err(error) => opened = Err(error),
            }
        }
        let done = self.done_file.as_ref().filter(|_| std::mem::take(&mut self.done_unsynced));
        unsynced.done = done.map(DoneFile::to_sync);
        (unsynced, opened)
    }

    /// How often [`Log::take_unsynced`] is to be asked until it has handed out all once, whatever becomes of it.
    pub(in crate::spool) fn parts_to_sync(&self) -> usize {
        let failed = self.unsynced.iter().filter(|sealed| sealed.has_failed);
        let segments = failed.filter_map(|sealed| self.segments.iter().find(|segment| segment.first == sealed.first));
        let again: u64 = segments.map(|segment| segment.len).sum();
        self.unsynced.len().div_ceil(MAX_AT_ONCE).max(1) + usize::try_from(again / AGAIN_BYTES).unwrap_or_default()
    }

    /// Syncing these has failed: why.
    pub(in crate::spool) fn are_not_synced(&mut self, failed: NotSynced) -> io::Error {
        let NotSynced { error, segments, done, names } = failed;
        self.done_unsynced |= done;
        self.done_changed |= done;
        self.names_changed |= names;
        for first in segments {
            if self.writer.is_some() && self.segments.back().is_some_and(|last| last.first == first) {
                self.writer.iter_mut().for_each(|writer| (writer.unsynced, writer.has_failed) = (true, true));
                if self.should_give_up() {
                    self.given_up_ms = self.newest_ms;
                    self.seal();
                }
            } else if self.segments.iter().any(|segment| segment.first == first) {
                // It may have been ended meanwhile.
                drop(self.need_not_sync(first));
                self.unsynced.push_back(Sealed { first, file: None, has_failed: true });
            }
        }
        error
    }

    /// Whether the segment that is written, which could not be synced, is to be ended for that.
    fn should_give_up(&self) -> bool {
        let is_long_ago = |(given_up, now): (i64, i64)| now.saturating_sub(given_up) >= GIVE_UP_EVERY_MS;
        let len = self.segments.back().map_or(0, |last| last.len);
        self.given_up_ms.zip(self.newest_ms).is_none_or(is_long_ago) || len >= self.limits.segment_bytes / PART
    }
}

impl<F: StoredFile> Part<F> {
    fn sync(&self) -> io::Result<()> {
        let (mut at, end) = (0, self.again.unwrap_or_default());
        let mut buffer = vec![0; CHUNK.min(usize::try_from(end).unwrap_or(CHUNK))];
        while at < end {
            let wanted = buffer.len().min(usize::try_from(end - at).unwrap_or(CHUNK));
            let read = self.file.read_at(&mut buffer[..wanted], at)?;
            // Somebody has cut it off.
            if read == 0 {
                break;
            }
            self.file.write_at(&buffer[..read], at)?;
            at += read as u64;
        }
        self.file.sync()
    }
}

impl<F: StoredFile> Unsynced<F> {
    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = &F> {
        let segments = self.segments.iter().map(|part| &part.file);
        segments.chain(self.done.as_ref().map(ToSync::file)).chain(&self.names)
    }

    /// Whether there is nothing to be done.
    pub(in crate::spool) fn is_empty(&self) -> bool {
        self.files().next().is_none()
    }

    /// Syncs each, whatever becomes of the others.
    ///
    /// # Errors
    /// Which could not be.
    pub(in crate::spool) fn sync(&self) -> Result<(), NotSynced> {
        let mut last = None;
        let mut fails = |outcome: io::Result<()>| outcome.map_err(|error| last = Some(error)).is_err();
        let segments = self.segments.iter().filter(|part| fails(part.sync())).map(|part| part.first).collect();
        let done = self.done.as_ref().is_some_and(|done| fails(done.sync()));
        let names = self.names.as_ref().is_some_and(|names| fails(names.sync()));
        last.map_or(Ok(()), |error| Err(NotSynced { error, segments, done, names }))
    }

    /// None of them is.
    pub(in crate::spool) fn failed(&self, error: io::Error) -> NotSynced {
        let segments = self.segments.iter().map(|part| part.first).collect();
        NotSynced { error, segments, done: self.done.is_some(), names: self.names.is_some() }
    }
}
