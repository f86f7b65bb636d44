//! One block as it lies in a segment.
//!
//! ```text
//!  0  marker         8  the segment's own random number: where a record begins can be found again behind damage, and
//!                       nobody who chooses what is in a block can forge a beginning
//!  8  length         4  of everything behind the checksum
//! 12  checksum       4  CRC-32 of the length and of everything behind the checksum
//! 16  version        1  1; of another version nothing behind is known
//! 17  format         1  the message that the samples are written as: 1 of remote write 1.0, 2 of 2.0
//! 18  header length  2  from the version to the elements: 52
//! 20  samples        4
//! 24  raw length     4  of the message before compression
//! 28  position       8  one higher with each block of the receiver, with gaps where blocks were never written
//! 36  arrived        8  milliseconds since the Unix epoch, by a clock that does not step while the process runs
//! 44  target         8
//! 52  oldest         8  timestamp inside, milliseconds since the Unix epoch
//! 60  newest         8
//! 68  elements
//! ```
//! Numbers are little-endian. What comes to blocks later, a tenant say, gets its place behind `newest` and a version of its
//! own: who reads must not deliver a block of which it does not understand all.
//!
//! What always holds: nothing is allocated by what an unchecked length says, and what does not add up is no record.

use bytes::Bytes;

use crate::model::{Block, TargetId, WriteFormat};

/// The bytes before the version: marker, length, checksum.
pub(super) const PREFIX: usize = 16;

/// The bytes before the elements.
pub(super) const HEAD: usize = 68;

/// The most bytes of one record; far more than a scrape within the hard limits gives.
pub(super) const MAX_RECORD: usize = 64 << 20;

const VERSION: u8 = 1;

/// What a log knows of a record without its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) position: u64,
    pub(super) arrived_ms: i64,
    pub(super) samples: u32,
    pub(super) min_ms: i64,
}

/// How many bytes the record of `block` has.
pub(super) fn len(block: &Block) -> usize {
    HEAD + block.elements.len()
}

/// Appends the record of `block`, which must not be longer than [`MAX_RECORD`].
pub(super) fn write(out: &mut Vec<u8>, marker: u64, position: u64, arrived_ms: i64, block: &Block) {
    // The receiver is whose log it is.
    let Block { target: TargetId(target), receiver: _, format, samples, min_ms, max_ms, raw_len, elements } = block;
    let start = out.len();
    let length = (len(block) - PREFIX) as u32;
    out.extend_from_slice(&marker.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[VERSION, *format as u8]);
    out.extend_from_slice(&((HEAD - PREFIX) as u16).to_le_bytes());
    out.extend_from_slice(&samples.to_le_bytes());
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(&position.to_le_bytes());
    out.extend_from_slice(&arrived_ms.to_le_bytes());
    out.extend_from_slice(&target.to_le_bytes());
    out.extend_from_slice(&min_ms.to_le_bytes());
    out.extend_from_slice(&max_ms.to_le_bytes());
    out.extend_from_slice(elements);
    let checksum = checksum(length, &out[start + PREFIX..]);
    out[start + 12..start + PREFIX].copy_from_slice(&checksum.to_le_bytes());
}

/// The length and checksum that a prefix names, if it begins with `marker` and the length can be that of a record which
/// ends within `room` bytes from the prefix on.
pub(super) fn prefix(bytes: &[u8; PREFIX], marker: u64, room: u64) -> Option<(usize, u32)> {
    let mut fields = Fields(bytes);
    let (found, length, checksum) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let length = length as usize;
    let fits = (HEAD - PREFIX..=MAX_RECORD - PREFIX).contains(&length) && (PREFIX + length) as u64 <= room;
    (found == marker && fits).then_some((length, checksum))
}

/// The block whose record has this behind its checksum, if that is so and the record of a version that is known. It is for
/// the receiver with the number `receiver`.
pub(super) fn read(body: &[u8], expected: u32, receiver: usize) -> Option<(Meta, Block)> {
    let length = u32::try_from(body.len()).ok()?;
    if checksum(length, body) != expected {
        return None;
    }
    let mut fields = Fields(body);
    if fields.u8()? != VERSION {
        return None;
    }
    let format = match fields.u8()? {
        1 => WriteFormat::V1,
        2 => WriteFormat::V2,
        _ => return None,
    };
    if usize::from(fields.u16()?) != HEAD - PREFIX {
        return None;
    }
    let (samples, raw_len, position, arrived_ms) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.i64()?);
    let (target, min_ms, max_ms) = (TargetId(fields.u64()?), fields.i64()?, fields.i64()?);
    let elements = Bytes::copy_from_slice(fields.0);
    let meta = Meta { position, arrived_ms, samples, min_ms };
    Some((meta, Block { target, receiver, format, samples, min_ms, max_ms, raw_len, elements }))
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// Little-endian numbers, one after the other; what is left is `.0`.
pub(super) struct Fields<'b>(pub(super) &'b [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Block {
        let elements = Bytes::from_static(b"anything at all");
        Block {
            target: TargetId(7),
            receiver: 3,
            format: WriteFormat::V2,
            samples: 5,
            min_ms: -1,
            max_ms: 9,
            raw_len: 77,
            elements,
        }
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, 42, 1_000, 123, &block());
        bytes
    }

    fn read_back(bytes: &[u8]) -> Option<(Meta, Block)> {
        let (head, body) = bytes.split_first_chunk::<PREFIX>()?;
        let (length, checksum) = prefix(head, 42, bytes.len() as u64)?;
        read(body.get(..length)?, checksum, 3)
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written();
        assert_eq!(bytes.len(), len(&block()));
        let meta = Meta { position: 1_000, arrived_ms: 123, samples: 5, min_ms: -1 };
        assert_eq!(read_back(&bytes), Some((meta, block())));
    }

    #[test]
    fn no_flipped_bit_and_no_missing_byte_goes_unseen() {
        let bytes = written();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(read_back(&flipped), None, "bit {at}");
        }
        for end in 0..bytes.len() {
            assert_eq!(read_back(&bytes[..end]), None, "cut off behind {end} bytes");
        }
    }

    #[test]
    fn a_record_of_another_version_is_not_delivered_as_if_it_were_understood() {
        for (at, value) in [(16, 2), (17, 3), (18, 53)] {
            let mut bytes = written();
            bytes[at] = value;
            let checksum = checksum((bytes.len() - PREFIX) as u32, &bytes[PREFIX..]);
            bytes[12..PREFIX].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(read_back(&bytes), None, "byte {at}");
        }
    }
}
