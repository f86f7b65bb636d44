//! The file that says which positions of a log are done with.
//!
//! ```text
//! two slots of 64 KiB:
//!  0  "MSHACKED"  8
//!  8  version     4  2
//! 12  checksum    4  CRC-32 of all the rest of the slot that is used
//! 16  sequence    8  the slot with the higher one is the newer one; even in the first slot, odd in the second
//! 24  length      4  of the ranges, in bytes
//! 28  kept for    4  seconds: how long what is not done was to be kept; 0 where that is not known
//! 32  ranges: how many positions lie before it, behind the range before, and how many it has; each number as LEB128
//! ```
//! A slot has several pages, and is written more often than it is synced. Of what was not, the machine's loss of power leaves
//! some pages and others not. So a slot is written over and over until a sync of it has succeeded, and only then the other one,
//! which till then is as it was synced: one of the two is always whole. While the file is being synced it is not written.
//!
//! Numbers but those of the ranges are little-endian. Both slots are there from the beginning, so that an acknowledgement needs
//! no space on a disk that is full; of a slot as many pages of 4 KiB are written as are used. What does not fit are the ranges
//! of the highest positions, more than 16,000 of them behind the first: then blocks would come twice after a restart. That is
//! also what becomes of a file that cannot be read, never that a block is taken for done that is not.
//!
//! Version 1 has slots of 4 KiB, with the number of ranges in place of their length, at most 254, and of each the first position
//! and the one behind the last as numbers of 8 bytes; its checksum is that of the whole slot. It is read, and another file put
//! in its place; as long as there is no space for that it is written as it is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::done::Done;
use super::record::Fields;
use super::storage::StoredFile;

const MAGIC: [u8; 8] = *b"MSHACKED";
const HEADER: usize = 32;
const PAGE: usize = 4096;

/// How the file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// As it was at first.
    One = 1,
    /// As it is now.
    Two = 2,
}

impl Version {
    const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The bytes of one slot.
    const fn slot(self) -> usize {
        match self {
            Version::One => PAGE,
            Version::Two => 16 * PAGE,
        }
    }
}

/// What a file of these says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Of the newest slot.
    pub(super) sequence: u64,
    /// How the file is laid out.
    pub(super) version: Version,
    /// What is done.
    pub(super) done: Done,
    /// How long the rest was to be kept.
    pub(super) kept_for: Option<Duration>,
}

/// The file that a set is kept in.
pub(super) struct DoneFile<F> {
    file: F,
    version: Version,
    /// Of the slot that was written last.
    sequence: u64,
    progress: Arc<Progress>,
}

/// What its writer and whoever syncs it, on another thread, know of each other.
struct Progress {
    /// The sequence up to which it is written.
    written: AtomicU64,
    /// The one that it had when a sync began that succeeded.
    synced: AtomicU64,
    is_being_synced: AtomicBool,
}

/// No slot has this sequence.
const NEVER: u64 = u64::MAX;

/// The file, for whoever syncs it.
pub(super) struct ToSync<F> {
    file: F,
    progress: Arc<Progress>,
}

impl<F: StoredFile> ToSync<F> {
    /// The file itself.
    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Makes durable what is written.
    pub(super) fn sync(&self) -> io::Result<()> {
        let Progress { written, synced, is_being_synced } = &*self.progress;
        is_being_synced.store(true, Ordering::SeqCst);
        // What a write that has begun writes from here on may be durable or not: then this is not the last sequence.
        let sequence = written.load(Ordering::SeqCst);
        let outcome = self.file.sync();
        if outcome.is_ok() {
            synced.store(sequence, Ordering::SeqCst);
        }
        is_being_synced.store(false, Ordering::SeqCst);
        outcome
    }
}

impl<F: StoredFile> DoneFile<F> {
    /// What `file` says, if it says anything.
    pub(super) fn load(file: &F) -> io::Result<Option<Said>> {
        let mut newest: Option<Said> = None;
        for version in Version::ALL {
            for place in [0, version.slot()] {
                let mut slot = vec![0; version.slot()];
                // The last one may be missing, or a part of it.
                let read = file.read_at(&mut slot, place as u64)?;
                if let Some(found) = read_slot(&slot[..read], version)
                    && newest.as_ref().is_none_or(|known| known.sequence < found.sequence)
                {
                    newest = Some(found);
                }
            }
            // What lies elsewhere in a file of one version is none of the other's slots.
            if newest.is_some() {
                break;
            }
        }
        Ok(newest)
    }

    /// Whether `file`, which says nothing, is one of which the first write was interrupted.
    pub(super) fn was_begun(file: &F) -> io::Result<bool> {
        let mut all = vec![0; 2 * Version::Two.slot()];
        let read = file.read_at(&mut all, 0)?;
        let is_ours = all[..read.min(MAGIC.len())].iter().zip(&MAGIC).all(|(found, ours)| found == ours);
        let is_blank = all[..read].iter().all(|byte| *byte == 0);
        let is_whole = Version::ALL.iter().any(|version| read == 2 * version.slot());
        Ok(is_blank && file.len()? <= all.len() as u64 || is_ours && !is_whole)
    }

    /// In this file, in which both slots are written.
    ///
    /// # Errors
    /// If there is no place for both.
    pub(super) fn begin(file: F, done: &Done, kept_for: Duration) -> io::Result<Self> {
        let mut begun = Self::at(file, Version::Two, 0);
        for sequence in 0..2 {
            let mut slot = write_slot(done, begun.version, sequence, kept_for);
            slot.resize(begun.version.slot(), 0);
            begun.put(&slot, sequence)?;
        }
        Ok(begun)
    }

    /// In this file, which says what is done up to a sequence.
    pub(super) fn go_on(file: F, said: &Said) -> Self {
        Self::at(file, said.version, said.sequence)
    }

    fn at(file: F, version: Version, sequence: u64) -> Self {
        let progress = Progress {
            written: AtomicU64::new(sequence),
            synced: AtomicU64::new(NEVER),
            is_being_synced: AtomicBool::new(false),
        };
        Self { file, version, sequence, progress: Arc::new(progress) }
    }

    /// Writes down `done`, and how long the rest is kept: in the place of what was written last, unless that was synced.
    pub(super) fn write(&mut self, done: &Done, kept_for: Duration) -> io::Result<()> {
        let is_synced = self.progress.synced.load(Ordering::SeqCst) == self.sequence;
        let sequence = self.sequence.saturating_add(if is_synced { 1 } else { 2 });
        self.put(&write_slot(done, self.version, sequence, kept_for), sequence)
    }

    fn put(&mut self, slot: &[u8], sequence: u64) -> io::Result<()> {
        let place = (sequence % 2) * self.version.slot() as u64;
        self.file.write_at(slot, place)?;
        self.sequence = sequence;
        self.progress.written.store(sequence, Ordering::SeqCst);
        Ok(())
    }

    /// The file itself.
    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// The file, to be synced by somebody else.
    pub(super) fn to_sync(&self) -> ToSync<F> {
        ToSync { file: self.file.clone(), progress: Arc::clone(&self.progress) }
    }

    /// Whether somebody is syncing it: what would be written now might have to be written over and over in its place.
    pub(super) fn is_being_synced(&self) -> bool {
        self.progress.is_being_synced.load(Ordering::SeqCst)
    }
}

/// Whole pages with what such a slot is to say.
pub(super) fn write_slot(done: &Done, version: Version, sequence: u64, kept_for: Duration) -> Vec<u8> {
    let mut slot = vec![0; HEADER];
    let (mut count, mut behind) = (0, 0);
    for range in done.ranges() {
        let before = slot.len();
        match version {
            Version::One => {
                slot.extend_from_slice(&range.start.to_le_bytes());
                slot.extend_from_slice(&range.end.to_le_bytes());
            }
            Version::Two => {
                push_number(&mut slot, range.start - behind);
                push_number(&mut slot, range.end - range.start);
            }
        }
        if slot.len() > version.slot() {
            slot.truncate(before);
            break;
        }
        behind = range.end;
        count += 1;
    }
    let size: u32 = match version {
        Version::One => count,
        // At most that of a slot.
        Version::Two => (slot.len() - HEADER) as u32,
    };
    let seconds = u32::try_from(kept_for.as_secs()).unwrap_or(u32::MAX).max(1);
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..12].copy_from_slice(&(version as u32).to_le_bytes());
    slot[16..24].copy_from_slice(&sequence.to_le_bytes());
    slot[24..28].copy_from_slice(&size.to_le_bytes());
    slot[28..32].copy_from_slice(&seconds.to_le_bytes());
    let used = slot.len();
    slot.resize(used.next_multiple_of(PAGE), 0);
    let checked = if version == Version::One { slot.len() } else { used };
    let checksum = checksum(&slot[..checked]);
    slot[12..16].copy_from_slice(&checksum.to_le_bytes());
    slot
}

/// What a slot says, of which there is so much.
pub(super) fn read_slot(slot: &[u8], version: Version) -> Option<Said> {
    let mut fields = Fields(slot.get(8..HEADER)?);
    let (found, expected, sequence) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let (size, seconds) = (fields.u32()? as usize, fields.u32()?);
    let bytes = match version {
        Version::One => size.checked_mul(16)?,
        Version::Two => size,
    };
    let used = HEADER.checked_add(bytes)?;
    let ranges = slot.get(HEADER..used)?;
    let checked = if version == Version::One { slot.get(..PAGE)? } else { &slot[..used] };
    if slot[..8] != MAGIC || found != version as u32 || expected != checksum(checked) {
        return None;
    }
    let mut done = Done::default();
    let (mut rest, mut behind) = (Fields(ranges), 0u64);
    while !rest.0.is_empty() {
        let (start, end) = match version {
            Version::One => (rest.u64()?, rest.u64()?),
            Version::Two => {
                let start = behind.checked_add(take_number(&mut rest.0)?)?;
                (start, start.checked_add(take_number(&mut rest.0)?)?)
            }
        };
        behind = end;
        done.insert(start..end);
    }
    Some(Said { sequence, version, done, kept_for: (seconds > 0).then(|| Duration::from_secs(seconds.into())) })
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        number |= part << shift;
        if part << shift >> shift != part {
            return None;
        }
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn checksum(slot: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..12]);
    hasher.update(&slot[16..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;

    use super::super::memory::Memory;
    use super::super::storage::Storage;
    use super::*;

    const KEPT: Duration = Duration::from_secs(7200);

    fn done(ranges: impl IntoIterator<Item = (u64, u64)>) -> Done {
        let mut done = Done::default();
        ranges.into_iter().for_each(|(start, len)| done.insert(start..start + len));
        done
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ranges in proptest::collection::vec((0u64..1 << 62, 0u64..1 << 20), 0..200)) {
            let done = done(ranges);
            for version in Version::ALL {
                let said = Said { sequence: 9, version, done: done.clone(), kept_for: Some(KEPT) };
                prop_assert_eq!(read_slot(&write_slot(&done, version, 9, KEPT), version), Some(said));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        for (version, all, at_least) in [(Version::One, 300, 254), (Version::Two, 40_000, 32_700)] {
            let slot = write_slot(&done((0..all).map(|n| (n * 2, 1))), version, 0, KEPT);
            assert_eq!(slot.len(), version.slot());
            let read = read_slot(&slot, version).expect("a good slot").done;
            let count = read.ranges().count() as u64;
            assert!((at_least..all).contains(&count), "{count}");
            assert!(read.contains(count * 2 - 2) && !read.contains(count * 2));
        }
    }

    #[test]
    fn what_is_written_while_it_is_synced_is_not_taken_for_synced() {
        let disk = Memory::default();
        let file = disk.create("acknowledged").expect("created");
        let second = || {
            let mut slot = vec![0; Version::Two.slot()];
            file.read_at(&mut slot, Version::Two.slot() as u64).expect("read");
            slot
        };
        let begun = DoneFile::begin(file.clone(), &Done::default(), KEPT).expect("begun");
        let (to_sync, begun) = (begun.to_sync(), Arc::new(Mutex::new(begun)));
        let write = |until| begun.lock().expect("none panics").write(&done([(0, until)]), KEPT).expect("written");
        to_sync.sync().expect("synced");
        let safe = second();
        write(1);
        disk.before_sync({
            let begun = Arc::clone(&begun);
            move || {
                let mut begun = begun.lock().expect("none panics");
                assert!(begun.is_being_synced());
                // As if that had begun before.
                begun.write(&done([(0, 2)]), KEPT).expect("written");
            }
        });
        to_sync.sync().expect("synced");
        write(3);
        assert!(second() == safe, "the other slot may be torn");
        disk.before_sync(|| {});
        to_sync.sync().expect("synced");
        write(4);
        assert!(second() != safe && !begun.lock().expect("none panics").is_being_synced());
        assert_eq!(DoneFile::load(&file).expect("read").map(|said| said.done), Some(done([(0, 4)])));
    }

    #[test]
    fn no_flipped_bit_of_what_counts_goes_unseen() {
        for version in Version::ALL {
            let slot = write_slot(&done([(0, 17), (300, 1 << 40)]), version, 4, KEPT);
            assert_eq!(slot.len(), PAGE);
            let used = if version == Version::One { PAGE } else { HEADER + 2 + 2 + 6 };
            for at in 0..used * 8 {
                let mut flipped = slot.clone();
                flipped[at / 8] ^= 1 << (at % 8);
                assert_eq!(read_slot(&flipped, version), None, "bit {at}");
            }
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_none() {
        for bytes in [&[0xff; 10][..], &[0x80; 3], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2]] {
            assert_eq!(take_number(&mut &bytes[..]), None, "{bytes:?}");
        }
        let mut bytes = Vec::new();
        push_number(&mut bytes, u64::MAX);
        assert_eq!(take_number(&mut &bytes[..]), Some(u64::MAX));
    }
}
