//! How a log is opened: every segment is read once, and whatever is found, it opens.

use std::io;
use std::ops::Range;
use std::time::Duration;

use super::bounds::Doomed;
use super::known::{Fate, Segment};
use super::{
    CORRUPT_SUFFIX, DONE_FILE, DONE_FILE_BEGUN, Log, LogLimits, POSITIONS, SEGMENT_SUFFIX, UNREAD_SUFFIX, Wrongs,
    name_of,
};
use crate::spool::acknowledged::{DoneFile, Said};
use crate::spool::done::Done;
use crate::spool::segment::{self, End, Walk};
use crate::spool::storage::{Storage, StoredFile, is_shortage};

/// What claims to be at this position or behind it is not ours: nobody comes there, and whoever goes on behind it needs room.
const BELIEVED: u64 = POSITIONS / 2;

/// How many positions a last segment that cannot be read may have: far more than a process gives away while it writes one.
const UNREAD_POSITIONS: u64 = 1 << 32;

impl<S: Storage> Log<S> {
    /// Finds what there is. With `tolerant`, acknowledgements that cannot be read count as none, unless the machine lacks
    /// what it takes to read them.
    ///
    /// # Errors
    /// Those of the disk, if it does not say which files there are, or not what is done.
    pub(in crate::spool) fn open(storage: S, limits: LogLimits, receiver: usize, tolerant: bool) -> io::Result<Self> {
        let (mut found, mut set_aside) = (Vec::new(), Vec::new());
        for name in storage.list()? {
            if let Some(first) = position_in(&name, SEGMENT_SUFFIX) {
                found.push(first);
            } else if is_aside(&name) {
                let bytes = storage.open(&name).and_then(|file| file.len());
                set_aside.push((name, bytes.unwrap_or_default()));
            }
        }
        found.sort_unstable();
        set_aside.sort_unstable();
        let acknowledged = match load_done(&storage) {
            Ok(found) => found,
            Err(error) if tolerant && !is_shortage(&error) => Found::Foreign,
            Err(error) => return Err(error),
        };
        // Numbers that nobody comes to are nobody's.
        let done = acknowledged.done().filter(|done| done.end() < BELIEVED).unwrap_or_default();
        let mut log = Self {
            storage,
            limits,
            receiver,
            segments: <_>::default(),
            began: 0,
            writer: None,
            cursor: None,
            next: 0,
            done_file: None,
            done,
            done_changed: true,
            doomed: Vec::new(),
            set_aside: set_aside.into(),
            unsynced: <_>::default(),
            let_go: Vec::new(),
            given_up_ms: None,
            done_unsynced: true,
            names_changed: true,
            newest_ms: None,
            wrongs: Wrongs::default(),
            scratch: Vec::new(),
        };
        log.wrongs.damaged += u64::from(matches!(acknowledged, Found::Foreign));
        let highest = found.last().map_or(0, |first| first + 1).max(log.done.end());
        for first in found {
            log.recover(first);
        }
        let mut end = log.next.max(highest);
        let last = log.segments.back_mut().and_then(|last| last.unread.as_mut());
        match last {
            Some(unread) => {
                end = (end + UNREAD_POSITIONS).min(POSITIONS - 1);
                unread.to = end;
            }
            None => log.done.insert(log.next..end),
        }
        (log.next, log.began) = (end, end);
        // On a disk that cannot be written this is tried again with the next acknowledgement.
        log.done_file = log.done_file_from(&acknowledged).ok();
        Ok(log)
    }

    /// Takes in a segment that was found.
    fn recover(&mut self, first: u64) {
        if let Some(last) = self.segments.back_mut()
            && let Some(unread) = &mut last.unread
        {
            // What is in there is below what comes.
            unread.to = unread.to.max(first);
            self.next = self.next.max(unread.to);
            if unread.to == last.end {
                // No position is left for anything.
                last.settle_unread();
                last.fate = last.fate.max(Fate::KeptUnread);
            }
        }
        // Nothing is between two segments.
        self.done.insert(self.next..first);
        self.next = self.next.max(first);
        let after_ms = self.newest_ms;
        let (segment, outcome) = self.examine(first, self.next..BELIEVED, (after_ms, i64::MAX));
        self.newest_ms = self.newest_ms.max(segment.arrived_ms.map(|(_, newest)| newest));
        match (segment, outcome) {
            (segment, Ok(())) if segment.is_empty() => self.doomed.push(Doomed::from(segment)),
            (segment, Ok(())) => {
                self.next = segment.end;
                self.segments.push_back(segment);
            }
            // Somebody is deleting files.
            (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            (mut segment, Err(_)) => {
                let file_bytes = self.storage.open(&segment.name()).and_then(|file| file.len());
                segment.is_not_read_to_its_end(file_bytes, after_ms);
                self.next = self.next.max(segment.end);
                self.segments.push_back(segment);
            }
        }
    }

    /// Reads a segment from its beginning, in which only these positions are believed: what was read of it, and whether
    /// that is all. What is missing between two of them is done. Whatever they say, they arrived no sooner than the block
    /// before them and no later than the one behind.
    pub(super) fn examine(
        &mut self,
        first: u64,
        believed: Range<u64>,
        arrived: (Option<i64>, i64),
    ) -> (Segment, io::Result<()>) {
        let mut segment = Segment::empty(first, 0);
        let outcome = self.examine_into(&mut segment, believed, arrived);
        (segment, outcome)
    }

    fn examine_into(
        &mut self,
        segment: &mut Segment,
        believed: Range<u64>,
        (mut newest_ms, no_later_ms): (Option<i64>, i64),
    ) -> io::Result<()> {
        let name = segment.name();
        let file = self.storage.open(&name)?;
        let len = file.len()?;
        // Whoever wrote it may have been killed before it was synced. If that fails it is as durable as it was.
        let _ = file.sync();
        let Some(mut walk) = Walk::new(file, len, self.receiver)? else {
            // Begun and not written, or not ours.
            segment.len = len;
            if len > segment::HEADER {
                self.wrongs.damaged += 1;
                segment.fate = Fate::KeptCorrupt;
            }
            return Ok(());
        };
        segment.marker = walk.marker();
        let mut next = believed.start;
        let mut in_order = true;
        while in_order && let Some((meta, _)) = walk.next()? {
            if segment.is_empty() && (segment.first..next).contains(&meta.position) {
                // A write of it and others has failed and left it in the segment before, too, from where it is read.
                segment.len = walk.offset();
                continue;
            }
            // A copy of another segment, say: what would break the order is not read.
            in_order = (next.max(segment.first)..believed.end).contains(&meta.position);
            if !in_order {
                break;
            }
            self.done.insert(next..meta.position);
            next = meta.position + 1;
            // Whatever clock that was by, no block arrived before those in front of it.
            let arrived_ms = newest_ms.map_or(meta.arrived_ms, |newest| newest.max(meta.arrived_ms)).min(no_later_ms);
            newest_ms = Some(arrived_ms);
            segment.took(meta.position, arrived_ms, meta.min_ms);
            segment.len = walk.offset();
            if !self.done.contains(meta.position) {
                segment.pending += meta.count;
            }
        }
        let end = if in_order { walk.end()? } else { End::Damaged };
        segment.beyond = len.saturating_sub(segment.len);
        match end {
            End::Clean => {}
            End::Torn => {
                self.wrongs.torn += 1;
                // If it cannot be cut off now, it is the next time.
                if self.storage.open_to_write(&name).and_then(|file| file.truncate(walk.offset())).is_ok() {
                    segment.beyond = 0;
                }
            }
            End::Damaged => {
                self.wrongs.damaged += 1;
                segment.fate = Fate::KeptCorrupt;
            }
        }
        self.wrongs.damaged += walk.damage();
        if walk.damage() > 0 {
            segment.fate = Fate::KeptCorrupt;
        }
        Ok(())
    }
}

/// What lies where the acknowledgements belong.
pub(super) enum Found {
    /// Nothing that says anything.
    Nothing,
    /// What is done.
    Done(Said),
    /// Something else, or nothing that can be read.
    Foreign,
}

impl Found {
    fn done(&self) -> Option<Done> {
        match self {
            Found::Done(said) => Some(said.done.clone()),
            Found::Nothing | Found::Foreign => None,
        }
    }
}

/// What the file of what is done says.
pub(super) fn load_done<S: Storage>(storage: &S) -> io::Result<Found> {
    let file = match storage.open(DONE_FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // A directory or a pipe, a link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Found::Foreign),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Found::Foreign),
        Err(error) => return Err(error),
    };
    Ok(match DoneFile::load(&file)? {
        Some(said) => Found::Done(said),
        // As a crash leaves it, or a full disk.
        None if DoneFile::was_begun(&file)? => Found::Nothing,
        None => Found::Foreign,
    })
}

/// How long what is not done was to be kept in this log, if it says so.
pub(in crate::spool) fn kept_for<S: Storage>(storage: &S) -> io::Result<Option<Duration>> {
    Ok(match load_done(storage)? {
        Found::Done(said) => said.kept_for,
        Found::Nothing | Found::Foreign => None,
    })
}

/// Whether a file with this name is of a log: nothing else in a directory is ever touched.
pub(in crate::spool) fn is_of_a_log(name: &str) -> bool {
    name == DONE_FILE || name == DONE_FILE_BEGUN || is_aside(name) || position_in(name, SEGMENT_SUFFIX).is_some()
}

/// Whether it is one that was set aside.
pub(in crate::spool) fn is_aside(name: &str) -> bool {
    name.strip_suffix(CORRUPT_SUFFIX) == Some(DONE_FILE)
        || [CORRUPT_SUFFIX, UNREAD_SUFFIX].iter().any(|suffix| position_in(name, suffix).is_some())
}

fn position_in(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|first| *first < BELIEVED && name_of(*first)[..16] == *digits)
}
