//! Which positions of a log are done with: acknowledged, dropped, or never written. Kept in a file of its own.
//!
//! ```text
//! two slots of 4096 bytes, written in turns, so that a torn write leaves the other one:
//!  0  "MSHACKED"  8
//!  8  version     4  1
//! 12  checksum    4  CRC-32 of the rest of the slot
//! 16  sequence    8  the slot with the higher one is the newer one
//! 24  count       4  of ranges, at most 254
//! 28  kept for    4  seconds: how long what is not done was to be kept; 0 where that is not known
//! 32  ranges: first position (8) and the one behind the last (8), in order and apart from each other
//! ```
//! Both slots are there from the beginning, so that an acknowledgement needs no space on a disk that is full. If more than
//! 254 ranges are apart, those of the highest positions are left out: then blocks would come twice after a restart. That is
//! also what becomes of a file that cannot be read, never that a block is taken for done that is not.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

use super::record::Fields;
use super::storage::StoredFile;

/// The bytes of one slot.
const SLOT: usize = 4096;

const MAGIC: [u8; 8] = *b"MSHACKED";
const VERSION: u32 = 1;
const HEADER: usize = 32;
const MAX_RANGES: usize = (SLOT - HEADER) / 16;

/// A set of positions, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// First position, and the one behind the last; apart from each other, and none is empty.
    ranges: BTreeMap<u64, u64>,
}

impl Done {
    /// Whether `position` is in it.
    pub(super) fn contains(&self, position: u64) -> bool {
        self.ranges.range(..=position).next_back().is_some_and(|(_, end)| position < *end)
    }

    /// Adds these.
    pub(super) fn insert(&mut self, Range { mut start, mut end }: Range<u64>) {
        if start >= end {
            return;
        }
        if let Some((&before, &until)) = self.ranges.range(..=start).next_back()
            && until >= start
        {
            start = before;
            end = end.max(until);
        }
        while let Some((&first, &last)) = self.ranges.range(start..=end).next() {
            self.ranges.remove(&first);
            end = end.max(last);
        }
        self.ranges.insert(start, end);
    }

    /// The position behind the highest one.
    pub(super) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Those of `range` that are not in it.
    pub(super) fn missing(&self, range: Range<u64>) -> Vec<u64> {
        let (mut missing, mut next) = (Vec::new(), range.start);
        let first = self.ranges.range(..=next).next_back().map_or(next, |(first, _)| *first);
        for (&start, &end) in self.ranges.range(first..range.end.max(first)) {
            missing.extend(next..start);
            next = next.max(end);
        }
        missing.extend(next..range.end);
        missing
    }

    fn slot(&self, sequence: u64, kept_for: Duration) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        let mut count = 0u32;
        for ((start, end), place) in self.ranges.iter().zip(slot[HEADER..].chunks_exact_mut(16)) {
            place[..8].copy_from_slice(&start.to_le_bytes());
            place[8..].copy_from_slice(&end.to_le_bytes());
            count += 1;
        }
        slot[..8].copy_from_slice(&MAGIC);
        slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
        slot[16..24].copy_from_slice(&sequence.to_le_bytes());
        slot[24..28].copy_from_slice(&count.to_le_bytes());
        let seconds = u32::try_from(kept_for.as_secs()).unwrap_or(u32::MAX).max(1);
        slot[28..32].copy_from_slice(&seconds.to_le_bytes());
        let checksum = checksum(&slot);
        slot[12..16].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    /// What a slot says.
    fn read(slot: &[u8; SLOT]) -> Option<Said> {
        let mut fields = Fields(&slot[8..]);
        let (version, expected, sequence) = (fields.u32()?, fields.u32()?, fields.u64()?);
        let (count, seconds) = (fields.u32()? as usize, fields.u32()?);
        if slot[..8] != MAGIC || version != VERSION || expected != checksum(slot) || count > MAX_RANGES {
            return None;
        }
        let mut done = Self::default();
        for _ in 0..count {
            done.insert(fields.u64()?..fields.u64()?);
        }
        Some(Said { sequence, done, kept_for: (seconds > 0).then(|| Duration::from_secs(seconds.into())) })
    }
}

/// What a file of these says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Of the newest slot.
    pub(super) sequence: u64,
    /// What is done.
    pub(super) done: Done,
    /// How long the rest was to be kept.
    pub(super) kept_for: Option<Duration>,
}

fn checksum(slot: &[u8; SLOT]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..12]);
    hasher.update(&slot[16..]);
    hasher.finalize()
}

/// The file that a set is kept in.
pub(super) struct DoneFile<F> {
    file: F,
    sequence: u64,
}

impl<F: StoredFile> DoneFile<F> {
    /// What `file` says, if it says anything.
    pub(super) fn load(file: &F) -> io::Result<Option<Said>> {
        let mut newest: Option<Said> = None;
        for at in [0, SLOT as u64] {
            let mut slot = [0; SLOT];
            if file.read_at(&mut slot, at)? == SLOT
                && let Some(found) = Done::read(&slot)
                && newest.as_ref().is_none_or(|known| known.sequence < found.sequence)
            {
                newest = Some(found);
            }
        }
        Ok(newest)
    }

    /// Whether `file`, which says nothing, is one of which the first write was interrupted.
    pub(super) fn was_begun(file: &F) -> io::Result<bool> {
        let mut all = [0; 2 * SLOT];
        let read = file.read_at(&mut all, 0)?;
        let is_ours = all[..read.min(MAGIC.len())].iter().zip(&MAGIC).all(|(found, ours)| found == ours);
        let is_blank = all[..read].iter().all(|byte| *byte == 0);
        Ok(is_blank && file.len()? <= all.len() as u64 || is_ours && read < all.len())
    }

    /// In this file, which says what is done up to `sequence`, or nothing yet.
    pub(super) fn new(file: F, sequence: Option<u64>) -> Self {
        Self { file, sequence: sequence.map_or(0, |known| known.saturating_add(1)) }
    }

    /// Writes down `done`, and how long the rest is kept, in the place of what was written the time before last.
    pub(super) fn write(&mut self, done: &Done, kept_for: Duration) -> io::Result<()> {
        let place = (self.sequence % 2) * SLOT as u64;
        self.file.write_at(&done.slot(self.sequence, kept_for), place)?;
        self.sequence = self.sequence.saturating_add(1);
        Ok(())
    }

    /// The file itself.
    pub(super) fn file(&self) -> &F {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const KEPT: Duration = Duration::from_secs(7200);

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(ranges in proptest::collection::vec((0u64..60, 0u64..8), 0..24)) {
            let (mut done, mut plain) = (Done::default(), BTreeSet::new());
            for (start, len) in ranges {
                done.insert(start..start + len);
                plain.extend(start..start + len);
            }
            prop_assert_eq!((0..70).filter(|one| done.contains(*one)).collect::<BTreeSet<_>>(), plain.clone());
            prop_assert_eq!(done.end(), plain.last().map_or(0, |last| last + 1));
            let ranges: Vec<_> = done.ranges.iter().collect();
            prop_assert!(ranges.windows(2).all(|two| two[0].1 < two[1].0));
            prop_assert_eq!(done.missing(3..61), (3..61).filter(|one| !plain.contains(one)).collect::<Vec<_>>());
            let said = Said { sequence: 9, done: done.clone(), kept_for: Some(KEPT) };
            prop_assert_eq!(Done::read(&done.slot(9, KEPT)), Some(said));
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let mut done = Done::default();
        (0..300).for_each(|n| done.insert(n * 2..n * 2 + 1));
        let read = Done::read(&done.slot(0, KEPT)).expect("a good slot").done;
        assert_eq!(read.ranges.len(), MAX_RANGES);
        assert!(read.contains(0) && read.contains(506) && !read.contains(508));
    }

    #[test]
    fn no_flipped_bit_of_what_counts_goes_unseen() {
        let mut done = Done::default();
        done.insert(0..17);
        let slot = done.slot(4, KEPT);
        for at in 0..SLOT * 8 {
            let mut flipped = slot;
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(Done::read(&flipped), None, "bit {at}");
        }
    }
}
