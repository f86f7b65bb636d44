//! One file of a log: a header, then records.
//!
//! ```text
//!  0  "MSHSPOOL"  8
//!  8  version     4  1
//! 12  checksum    4  CRC-32 of the rest of the header
//! 16  marker      8  random; every record of this file begins with it
//! 24  records (record.rs), one behind the other, to the end of the file
//! ```
//! A file is only ever appended to, and begun anew by each process. So whatever is wrong is one of two things: the end of the
//! file is a *torn* record, whose write was interrupted, or there is *damage*. Behind damage the next record is found by its
//! marker; what lies between is lost and nothing else. A damaged header costs nothing as long as the first record is whole.
//!
//! What always holds: whatever the bytes are, a walk ends, in time that grows with their number only, and holds one record
//! in memory at most.

use std::io;

use memchr::memmem;

use super::record::{self, Fields, Meta, PREFIX};
use super::storage::StoredFile;
use crate::model::Block;

/// The bytes of the header.
pub(super) const HEADER: u64 = 24;

const MAGIC: [u8; 8] = *b"MSHSPOOL";
const VERSION: u32 = 1;

/// How much is read at a time, if no record is longer.
const CHUNK: usize = 256 << 10;

/// How many false beginnings are tried behind damage in one file. There are none by accident; whoever makes them could
/// otherwise make us check the same bytes over and over.
const MAX_FALSE_BEGINNINGS: u32 = 64;

/// The header of a segment with this marker.
pub(super) fn header(marker: u64) -> [u8; HEADER as usize] {
    let mut bytes = [0; HEADER as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..].copy_from_slice(&marker.to_le_bytes());
    let checksum = checksum(&bytes);
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn checksum(header: &[u8; HEADER as usize]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    hasher.finalize()
}

/// A walk over the records of a segment, from its beginning or from a known place on.
pub(super) struct Walk<F> {
    file: F,
    len: u64,
    marker: u64,
    offset: u64,
    receiver: usize,
    damage: u64,
    false_beginnings: u32,
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// What stands behind the last record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Clean,
    /// The beginning of a record.
    Torn,
    /// Something else.
    Damaged,
}

impl<F: StoredFile> Walk<F> {
    /// Over the first `len` bytes of `file`. `None` if that is no segment, or one of another version.
    pub(super) fn new(file: F, len: u64, receiver: usize) -> io::Result<Option<Self>> {
        let mut walk = Self::known(file, len, 0, receiver);
        let Some(found) = walk.window(0, HEADER as usize)?.first_chunk::<{ HEADER as usize }>().copied() else {
            return Ok(None);
        };
        let mut fields = Fields(&found[8..]);
        let (version, sum, marker) = (fields.u32(), fields.u32(), fields.u64().unwrap_or_default());
        walk.marker = marker;
        if sum == Some(checksum(&found)) {
            return Ok((found[..8] == MAGIC && version == Some(VERSION)).then_some(walk));
        }
        // The first record tells, if there is one.
        let Some(first) = walk.window(HEADER, 8)?.first_chunk().copied() else { return Ok(None) };
        walk.marker = u64::from_le_bytes(first);
        Ok(walk.record_at(HEADER)?.is_some().then_some(walk))
    }

    /// The same over a segment whose marker is known, whatever became of its header.
    pub(super) fn known(file: F, len: u64, marker: u64, receiver: usize) -> Self {
        Self {
            file,
            len,
            marker,
            offset: HEADER,
            receiver,
            damage: 0,
            false_beginnings: 0,
            buffer: Vec::new(),
            buffer_at: 0,
        }
    }

    /// What every record begins with.
    pub(super) fn marker(&self) -> u64 {
        self.marker
    }

    /// Goes on at `offset`, where a record begins.
    pub(super) fn skip_to(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// Where the next record begins, as far as is known.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many damaged places were passed.
    pub(super) fn damage(&self) -> u64 {
        self.damage
    }

    /// The next record, past any damage.
    pub(super) fn next(&mut self) -> io::Result<Option<(Meta, Block)>> {
        if let Some((meta, block)) = self.record_at(self.offset)? {
            self.offset += meta.len as u64;
            return Ok(Some((meta, block)));
        }
        if self.offset >= self.len {
            return Ok(None);
        }
        let mut from = self.offset + 1;
        while let Some(at) = self.find_marker(from)? {
            if let Some((meta, block)) = self.record_at(at)? {
                self.damage += 1;
                self.offset = at + meta.len as u64;
                return Ok(Some((meta, block)));
            }
            self.false_beginnings += 1;
            if self.false_beginnings > MAX_FALSE_BEGINNINGS {
                break;
            }
            from = at + 1;
        }
        Ok(None)
    }

    /// What stands behind the last record, once there is no next one.
    pub(super) fn end(&mut self) -> io::Result<End> {
        let (marker, room) = (self.marker.to_le_bytes(), self.len - self.offset.min(self.len));
        let tail = self.window(self.offset, PREFIX)?;
        if tail.is_empty() {
            return Ok(End::Clean);
        }
        let begins = tail.iter().zip(&marker).all(|(found, wanted)| found == wanted);
        let cut = match tail.get(8..12).and_then(|length| length.first_chunk()) {
            Some(length) => PREFIX as u64 + u64::from(u32::from_le_bytes(*length)) > room,
            None => true,
        };
        Ok(if begins && cut { End::Torn } else { End::Damaged })
    }

    fn record_at(&mut self, offset: u64) -> io::Result<Option<(Meta, Block)>> {
        let (marker, receiver, room) = (self.marker, self.receiver, self.len - offset.min(self.len));
        let Some(head) = self.window(offset, PREFIX)?.first_chunk::<PREFIX>().copied() else { return Ok(None) };
        let Some((length, checksum)) = record::prefix(&head, marker, room) else { return Ok(None) };
        let body = self.window(offset + PREFIX as u64, length)?;
        Ok(record::read(body, checksum, receiver))
    }

    fn find_marker(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        let marker = self.marker.to_le_bytes();
        while from + marker.len() as u64 <= self.len {
            let part = self.window(from, CHUNK)?;
            if let Some(at) = memmem::find(part, &marker) {
                return Ok(Some(from + at as u64));
            }
            if part.len() < marker.len() {
                break;
            }
            // The marker may lie across the border.
            from += (part.len() - (marker.len() - 1)) as u64;
        }
        Ok(None)
    }

    /// The `wanted` bytes from `offset` on, fewer at the end.
    fn window(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
        let held = self.buffer_at..self.buffer_at + self.buffer.len() as u64;
        if !(held.contains(&offset) && offset + wanted as u64 <= held.end) {
            let size = wanted.max(CHUNK).min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX));
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(size, 0);
            let read = match self.file.read_at(&mut buffer, offset) {
                // What was to be read ahead may be what cannot be.
                Err(_) if size > wanted => self.file.read_at(&mut buffer[..wanted], offset)?,
                read => read?,
            };
            buffer.truncate(read);
            self.buffer = buffer;
            self.buffer_at = offset;
        }
        let from = usize::try_from(offset.saturating_sub(self.buffer_at)).unwrap_or(usize::MAX).min(self.buffer.len());
        Ok(&self.buffer[from..(from + wanted).min(self.buffer.len())])
    }
}
