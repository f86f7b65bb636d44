//! How a log is opened: every segment is read once, and whatever is found, it opens.

use std::io;

use super::{ASIDE_SUFFIX, DONE_FILE, Log, LogLimits, POSITIONS, SEGMENT_SUFFIX, Segment, Wrongs, name_of};
use crate::spool::done::{Done, DoneFile};
use crate::spool::segment::{self, End, Walk};
use crate::spool::storage::{Storage, StoredFile};

impl<S: Storage> Log<S> {
    /// Finds what there is. With `tolerant`, what cannot be read for an error of the disk counts as damage.
    pub(in crate::spool) fn open(storage: S, limits: LogLimits, receiver: usize, tolerant: bool) -> io::Result<Self> {
        let (mut found, mut set_aside) = (Vec::new(), Vec::new());
        for (name, len) in storage.list()? {
            if let Some(first) = position_in(&name, SEGMENT_SUFFIX) {
                found.push((first, len));
            } else if position_in(&name, ASIDE_SUFFIX).is_some() {
                set_aside.push((name, len));
            }
        }
        found.sort_unstable();
        set_aside.sort_unstable();
        let (sequence, done) = match load_done(&storage) {
            Ok(known) => known,
            Err(_) if tolerant => (None, Done::default()),
            Err(error) => return Err(error),
        };
        // Numbers that nobody comes to are nobody's.
        let done = if done.end() < POSITIONS { done } else { Done::default() };
        let mut log = Self {
            storage,
            limits,
            receiver,
            segments: <_>::default(),
            writer: None,
            cursor: None,
            next: 0,
            done_file: None,
            done,
            done_changed: true,
            doomed: Vec::new(),
            set_aside: set_aside.into(),
            unsynced: Vec::new(),
            names_changed: true,
            wrongs: Wrongs::default(),
            scratch: Vec::new(),
        };
        let highest = found.last().map_or(0, |(first, _)| first + 1).max(log.done.end());
        for (first, len) in found {
            match log.recover(first, len) {
                Ok(()) => {}
                Err(_) if tolerant => {
                    log.wrongs.damaged += 1;
                    log.doomed.push((name_of(first), true));
                }
                Err(error) => return Err(error),
            }
        }
        let end = log.next.max(highest);
        log.done.insert(log.next..end);
        log.next = end;
        // On a disk that cannot be written this is tried again with the next acknowledgement.
        log.done_file = log.done_file_from(sequence).ok();
        Ok(log)
    }

    /// Takes in a segment that was found.
    fn recover(&mut self, first: u64, len: u64) -> io::Result<()> {
        let name = name_of(first);
        let file = self.storage.open(&name)?;
        // Whoever wrote it may have been killed before it was synced. If that fails it is as durable as it was.
        let _ = file.sync();
        let Some(mut walk) = Walk::new(file, len, self.receiver)? else {
            // Begun and not written, or not ours.
            let damaged = len > segment::HEADER;
            self.wrongs.damaged += u64::from(damaged);
            self.doomed.push((name, damaged));
            return Ok(());
        };
        let mut segment = Segment::empty(first, walk.marker());
        let mut in_order = true;
        while in_order && let Some((meta, _)) = walk.next()? {
            // A copy of another segment, say: what would break the order is not read.
            in_order = meta.position >= self.next.max(first) && meta.position < POSITIONS;
            if !in_order {
                break;
            }
            self.done.insert(self.next..meta.position);
            self.next = meta.position + 1;
            segment.took(meta.position, meta.arrived_ms, meta.min_ms);
            segment.len = walk.offset();
            if !self.done.contains(meta.position) {
                segment.pending.blocks += 1;
                segment.pending.samples += u64::from(meta.samples);
            }
        }
        match (in_order, if in_order { walk.end()? } else { End::Damaged }) {
            (_, End::Clean) => {}
            (_, End::Torn) => {
                self.wrongs.torn += 1;
                // If it cannot be cut off now, it is the next time.
                let _ = self.storage.open_to_write(&name).and_then(|file| file.truncate(walk.offset()));
            }
            (_, End::Damaged) => {
                self.wrongs.damaged += 1;
                segment.damaged = true;
            }
        }
        self.wrongs.damaged += walk.damage();
        segment.damaged |= walk.damage() > 0;
        match segment.end > segment.first {
            true => self.segments.push_back(segment),
            false => self.doomed.push((name, segment.damaged)),
        }
        Ok(())
    }
}

/// What the file of what is done says, with its sequence.
pub(super) fn load_done<S: Storage>(storage: &S) -> io::Result<(Option<u64>, Done)> {
    match storage.open(DONE_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((None, Done::default())),
        opened => Ok(match DoneFile::load(&opened?)? {
            Some((sequence, done)) => (Some(sequence), done),
            None => (None, Done::default()),
        }),
    }
}

/// Whether a file with this name is of a log: nothing else in a directory is ever touched.
pub(in crate::spool) fn is_of_a_log(name: &str) -> bool {
    name == DONE_FILE || [SEGMENT_SUFFIX, ASIDE_SUFFIX].iter().any(|suffix| position_in(name, suffix).is_some())
}

/// Whether it is one that was damaged and set aside.
pub(in crate::spool) fn is_aside(name: &str) -> bool {
    position_in(name, ASIDE_SUFFIX).is_some()
}

fn position_in(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|first| *first < POSITIONS && name_of(*first)[..16] == *digits)
}
