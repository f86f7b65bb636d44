//! The files of a queue on disk, whatever became of them, read as a segment and as acknowledgements.
//!
//! The first byte says which checksums are made right, which mutation would never do: its lowest bit those of a segment, the
//! next one that of the first slot of the acknowledgements. The rest is the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshscrape::spool::read_made_up;

fuzz_target!(|data: &[u8]| {
    let Some((flags, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if flags & 1 != 0 {
        mend_segment(&mut file);
    }
    if flags & 2 != 0 {
        mend_slot(&mut file);
    }
    read_made_up(&file);
});

/// A header, then records, as far as they follow one another.
fn mend_segment(file: &mut [u8]) {
    let Some((header, mut rest)) = file.split_at_mut_checked(24) else { return };
    let sum = checksum(&[&header[..12], &header[16..]]);
    header[12..16].copy_from_slice(&sum);
    while let Some(length) = number(rest, 8) {
        let Some((record, behind)) = rest.split_at_mut_checked(16usize.saturating_add(length)) else { return };
        let sum = checksum(&[&record[8..12], &record[16..]]);
        record[12..16].copy_from_slice(&sum);
        rest = behind;
    }
}

/// Of version 1 the whole slot counts, of version 2 what is used.
fn mend_slot(file: &mut [u8]) {
    let used = match (number(file, 8), number(file, 24)) {
        (Some(1), _) => 4096,
        (_, Some(length)) => 32usize.saturating_add(length),
        _ => return,
    };
    if let Some(slot) = file.get_mut(..used) {
        let sum = checksum(&[&slot[..12], &slot[16..]]);
        slot[12..16].copy_from_slice(&sum);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn checksum(parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().to_le_bytes()
}
