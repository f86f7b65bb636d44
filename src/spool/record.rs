//! One block as it lies in a segment.
//!
//! ```text
//!  0  marker         8  the segment's own random number: where a record begins can be found again behind damage, and
//!                       nobody who chooses what is in a block can forge a beginning
//!  8  length         4  of everything behind the checksum
//! 12  checksum       4  CRC-32 of the length and of everything behind the checksum
//! 16  version        1  2; of one that is not known nothing behind is known either
//! 17  format         1  the message that the samples are written as: 1 of remote write 1.0, 2 of 2.0
//! 18  header length  2  from the version to the elements: 61 and the tenant
//! 20  samples        4
//! 24  raw length     4  of the message before compression
//! 28  position       8  one higher with each block of the receiver, with gaps where blocks were never written
//! 36  arrived        8  milliseconds since the Unix epoch, by a clock that does not step while the process runs
//! 44  target         8
//! 52  oldest         8  timestamp inside, milliseconds since the Unix epoch
//! 60  newest         8
//! 68  histograms     4  among the samples
//! 72  exemplars      4
//! 76  tenant length  1  0: it is nobody's in particular
//! 77  tenant
//!     elements
//! ```
//! Numbers are little-endian. What comes to blocks later gets its place behind the tenant and a version of its own: who reads
//! must not deliver a block of which it does not understand all. Version 1 ends behind `newest`, with a header of 52 bytes, and
//! is still read: what it holds belongs to no tenant, and how many of its samples are histograms is not known.
//!
//! What always holds: nothing is allocated by what an unchecked length says, and what does not add up is no record.

use bytes::Bytes;

use super::count::Count;
use crate::model::{Block, TargetId, Tenant, WriteFormat};

/// The bytes before the version: marker, length, checksum.
pub(super) const PREFIX: usize = 16;

/// The bytes before the elements, without the tenant.
const HEAD: usize = 77;

/// The same in version 1.
const HEAD_1: usize = 68;

/// The most bytes of one record; far more than a scrape within the hard limits gives.
pub(super) const MAX_RECORD: usize = 64 << 20;

const VERSION: u8 = 2;

/// What a log knows of a record without its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) position: u64,
    pub(super) arrived_ms: i64,
    pub(super) count: Count,
    pub(super) min_ms: i64,
    /// The bytes of the record.
    pub(super) len: usize,
}

/// How many bytes the record of `block` has once it is written.
pub(super) fn len(block: &Block) -> usize {
    HEAD + tenant_of(block).len() + block.elements.len()
}

/// At most 150 bytes.
fn tenant_of(block: &Block) -> &str {
    block.tenant.as_ref().map_or("", Tenant::as_str)
}

/// Appends the record of `block`, which must not be longer than [`MAX_RECORD`].
pub(super) fn write(out: &mut Vec<u8>, marker: u64, position: u64, arrived_ms: i64, block: &Block) {
    // The receiver is whose log it is.
    let Block {
        target: TargetId(target),
        receiver: _,
        tenant: _,
        format,
        samples,
        histograms,
        exemplars,
        min_ms,
        max_ms,
        raw_len,
        elements,
    } = block;
    let tenant = tenant_of(block);
    let start = out.len();
    let length = (len(block) - PREFIX) as u32;
    out.extend_from_slice(&marker.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[VERSION, *format as u8]);
    out.extend_from_slice(&((HEAD - PREFIX + tenant.len()) as u16).to_le_bytes());
    out.extend_from_slice(&samples.to_le_bytes());
    out.extend_from_slice(&raw_len.to_le_bytes());
    out.extend_from_slice(&position.to_le_bytes());
    out.extend_from_slice(&arrived_ms.to_le_bytes());
    out.extend_from_slice(&target.to_le_bytes());
    out.extend_from_slice(&min_ms.to_le_bytes());
    out.extend_from_slice(&max_ms.to_le_bytes());
    out.extend_from_slice(&histograms.to_le_bytes());
    out.extend_from_slice(&exemplars.to_le_bytes());
    out.push(tenant.len() as u8);
    out.extend_from_slice(tenant.as_bytes());
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
    let fits = (HEAD_1 - PREFIX..=MAX_RECORD - PREFIX).contains(&length) && (PREFIX + length) as u64 <= room;
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
    let version = fields.u8()?;
    let format = match fields.u8()? {
        1 => WriteFormat::V1,
        2 => WriteFormat::V2,
        _ => return None,
    };
    let head = usize::from(fields.u16()?);
    let (samples, raw_len, position, arrived_ms) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.i64()?);
    let (target, min_ms, max_ms) = (TargetId(fields.u64()?), fields.i64()?, fields.i64()?);
    let (histograms, exemplars, tenant) = match version {
        1 => (0, 0, None),
        VERSION => (fields.u32()?, fields.u32()?, fields.tenant()?),
        _ => return None,
    };
    if body.len() - fields.0.len() != head {
        return None;
    }
    let elements = Bytes::copy_from_slice(fields.0);
    let block =
        Block { target, receiver, tenant, format, samples, histograms, exemplars, min_ms, max_ms, raw_len, elements };
    let meta = Meta { position, arrived_ms, count: Count::of(&block), min_ms, len: PREFIX + body.len() };
    Some((meta, block))
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

    /// `None` if there stands what is no tenant.
    fn tenant(&mut self) -> Option<Option<Tenant>> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        match text {
            [] => Some(None),
            text => Tenant::parse(std::str::from_utf8(text).ok()?).ok().map(Some),
        }
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
            tenant: Tenant::parse("shop").ok(),
            format: WriteFormat::V2,
            samples: 5,
            histograms: 2,
            exemplars: 6,
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
        let count = Count { blocks: 1, samples: 5, histograms: 2, exemplars: 6 };
        let meta = Meta { position: 1_000, arrived_ms: 123, count, min_ms: -1, len: bytes.len() };
        assert_eq!(read_back(&bytes), Some((meta, block())));
    }

    /// `bytes` with a checksum and a length that are right again.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let length = (bytes.len() - PREFIX) as u32;
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(length, &bytes[PREFIX..]);
        bytes[12..PREFIX].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn what_was_written_before_there_were_tenants_is_read() {
        let mut bytes = written();
        bytes.drain(HEAD_1..HEAD + "shop".len());
        (bytes[16], bytes[18]) = (1, 52);
        let bytes = sealed(bytes);
        let (meta, read) = read_back(&bytes).expect("it is understood");
        assert_eq!(meta.len, bytes.len());
        assert_eq!(read, Block { tenant: None, histograms: 0, exemplars: 0, ..block() });
    }

    #[test]
    fn what_names_no_tenant_is_delivered_to_nobody() {
        for (at, value) in [(HEAD, b'|'), (HEAD - 1, 200), (HEAD - 1, 3)] {
            let mut bytes = written();
            bytes[at] = value;
            assert_eq!(read_back(&sealed(bytes)), None, "byte {at}");
        }
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
        for (at, value) in [(16, 3), (16, 0), (17, 3), (18, 53)] {
            let mut bytes = written();
            bytes[at] = value;
            assert_eq!(read_back(&sealed(bytes)), None, "byte {at}");
        }
    }
}
