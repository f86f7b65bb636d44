//! Bytes that somebody made up, read as the files of a log are when it is opened; for `tests/fuzz`.
//!
//! What it asserts is what whoever opens a log relies on: a walk over a segment goes forward, ends, and gives no more than is
//! there; acknowledgements are ranges in order and apart from each other, and say the same once they are written again.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::acknowledged::{DoneFile, read_slot, write_slot};
use super::segment::Walk;
use super::storage::StoredFile;

/// A file that holds these, and can only be read.
#[derive(Clone)]
struct MadeUp(Bytes);

impl StoredFile for MadeUp {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let read = buffer.len().min(rest.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// Reads these bytes as a segment and as acknowledgements.
///
/// # Panics
/// If what always holds does not.
#[doc(hidden)]
pub fn read_made_up(bytes: &[u8]) {
    let file = MadeUp(Bytes::copy_from_slice(bytes));
    walk(&file).and_then(|()| acknowledged(&file)).expect("reading memory does not fail");
}

fn walk(file: &MadeUp) -> io::Result<()> {
    let len = file.len()?;
    let Some(mut walk) = Walk::new(file.clone(), len, 0)? else { return Ok(()) };
    let (mut offset, mut held) = (walk.offset(), 0);
    while let Some((meta, block)) = walk.next()? {
        assert!(offset + meta.len as u64 <= walk.offset(), "a record of {} bytes from {offset} on", meta.len);
        offset = walk.offset();
        held += block.elements.len() as u64;
        assert!(offset <= len && held <= len, "at {offset}, {held} bytes of {len}");
    }
    walk.end().map(drop)
}

fn acknowledged(file: &MadeUp) -> io::Result<()> {
    let Some(said) = DoneFile::load(file)? else { return DoneFile::was_begun(file).map(drop) };
    let ranges: Vec<_> = said.done.ranges().collect();
    assert!(ranges.len() as u64 <= file.len()? && ranges.iter().all(|range| range.start < range.end));
    assert!(ranges.is_sorted_by(|one, next| one.end < next.start), "{ranges:?}");
    let again = write_slot(&said.done, said.version, said.sequence, said.kept_for.unwrap_or(Duration::ZERO));
    assert_eq!(read_slot(&again, said.version).map(|said| said.done), Some(said.done));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::acknowledged::Version;
    use super::super::done::Done;
    use super::super::{record, segment};
    use super::*;
    use crate::model::{Block, TargetId, Tenant, WriteFormat};

    /// A segment with two blocks, and acknowledgements of both versions.
    fn files() -> [Vec<u8>; 3] {
        let mut segment = segment::header(42).to_vec();
        for (position, tenant) in [(7, None), (9, Tenant::parse("shop").ok())] {
            let block = Block {
                target: TargetId(position),
                receiver: 0,
                tenant,
                format: WriteFormat::V1,
                samples: 3,
                histograms: 1,
                exemplars: 2,
                min_ms: 5,
                max_ms: 6,
                raw_len: 70,
                elements: Bytes::from_static(b"anything"),
            };
            record::write(&mut segment, 42, position, 1_000, &block);
        }
        let mut done = Done::default();
        [0..3, 5..6, 900..70_000].into_iter().for_each(|range| done.insert(range));
        let slot = |version| write_slot(&done, version, 3, Duration::from_secs(60));
        [segment, slot(Version::One), slot(Version::Two)]
    }

    proptest! {
        #[test]
        fn whatever_is_made_of_good_files_is_read(
            which in 0..3usize,
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
            len in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = files()[which].clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            read_made_up(&bytes[..=len.index(bytes.len())]);
            read_made_up(&bytes);
        }
    }
}
