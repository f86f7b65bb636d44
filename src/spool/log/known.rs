//! What a log knows of one of its segments: a few numbers, and no block.

use std::io;

use super::{CORRUPT_SUFFIX, UNREAD_SUFFIX, name_of};
use crate::spool::count::Count;
use crate::spool::segment;

/// Of what could not be read, one sample is thought to be in so many bytes.
const BYTES_OF_A_SAMPLE: u64 = 64;

/// One segment.
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) marker: u64,
    /// The position behind the last record, as far as it was read.
    pub(super) end: u64,
    /// The bytes up to there.
    pub(super) len: u64,
    /// The bytes behind that, which hold nothing or are unread.
    pub(super) beyond: u64,
    /// When the first and the last block arrived.
    pub(super) arrived_ms: Option<(i64, i64)>,
    /// The oldest timestamp inside.
    pub(super) min_ms: Option<i64>,
    /// What is not done; of what was not read a guess.
    pub(super) pending: Count,
    /// What becomes of the file, once nothing of it is needed.
    pub(super) fate: Fate,
    /// The rest that could not be read yet.
    pub(super) unread: Option<Unread>,
}

/// The rest of a segment that could not be read.
#[derive(Clone, Copy)]
pub(super) struct Unread {
    /// Its positions are below this one.
    pub(super) to: u64,
    /// How much is thought to be in it.
    pub(super) guess: Count,
    /// When the newest block before the segment arrived.
    pub(super) after_ms: Option<i64>,
}

/// What becomes of a file that is no part of the log any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Deleted,
    /// Kept for a look at it, because it was damaged.
    KeptCorrupt,
    /// Kept because it may be whole: it could not be read.
    KeptUnread,
}

impl Fate {
    /// How the name of a file that is kept ends.
    pub(super) fn suffix(self) -> Option<&'static str> {
        match self {
            Fate::Deleted => None,
            Fate::KeptCorrupt => Some(CORRUPT_SUFFIX),
            Fate::KeptUnread => Some(UNREAD_SUFFIX),
        }
    }
}

impl Segment {
    pub(super) fn empty(first: u64, marker: u64) -> Self {
        Self {
            first,
            marker,
            end: first,
            len: segment::HEADER,
            beyond: 0,
            arrived_ms: None,
            min_ms: None,
            pending: Count::default(),
            fate: Fate::Deleted,
            unread: None,
        }
    }

    pub(super) fn name(&self) -> String {
        name_of(self.first)
    }

    /// Whether it is known to hold no record.
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_none() && self.end == self.first
    }

    /// The position behind all that may be in it.
    pub(super) fn reaches(&self) -> u64 {
        self.unread.map_or(self.end, |unread| unread.to)
    }

    /// How many bytes its file has.
    pub(super) fn bytes(&self) -> u64 {
        self.len + self.beyond
    }

    pub(super) fn took(&mut self, position: u64, arrived_ms: i64, min_ms: i64) {
        self.end = position + 1;
        let (oldest, newest) = self.arrived_ms.unwrap_or((arrived_ms, arrived_ms));
        self.arrived_ms = Some((oldest, newest.max(arrived_ms)));
        self.min_ms = Some(self.min_ms.map_or(min_ms, |known| known.min(min_ms)));
    }

    pub(super) fn lose(&mut self, lost: Count) {
        self.pending = self.pending.less(lost);
    }

    /// Behind what was read of it there may be more, in a file of so many bytes; when the newest block before it arrived.
    pub(super) fn is_not_read_to_its_end(&mut self, file_bytes: io::Result<u64>, after_ms: Option<i64>) {
        self.beyond = file_bytes.unwrap_or_default().saturating_sub(self.len);
        let guess = Count { blocks: 1, samples: (self.beyond / BYTES_OF_A_SAMPLE).max(1), ..Count::default() };
        self.unread = Some(Unread { to: self.end, guess, after_ms });
        self.pending += guess;
    }

    /// The rest was read, or was given up.
    pub(super) fn settle_unread(&mut self) -> Option<Unread> {
        let unread = self.unread.take()?;
        self.lose(unread.guess);
        Some(unread)
    }
}
