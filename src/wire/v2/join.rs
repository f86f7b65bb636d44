//! One request of several blocks, and the fields of an entry on the way.

use super::table::Table;
use super::{ENTRY, EXEMPLAR, HELP, LABELS, METADATA, UNIT, UNKNOWN, push_field, push_number, renumber};
use crate::model::Block;
use crate::wire::fields::{Content, Field, Fields};
use crate::wire::snappy::{concatenated, message_of, pack};
use crate::wire::{UNKNOWN_FIELD, WireError};

/// The body of a request that holds what all `blocks` hold, in their order.
///
/// # Errors
/// A block that is not what [`Draft`](super::Draft) made, or together more than a snappy block can hold.
pub(in crate::wire) fn join(blocks: &[&Block]) -> Result<Vec<u8>, WireError> {
    if blocks.len() == 1 {
        return Ok(concatenated(blocks));
    }
    let mut table = Table::new();
    let mut entries = Vec::new();
    for block in blocks {
        add(&message_of(block)?, &mut table, &mut entries)?;
    }
    pack(&[table.encoded(), &entries].concat())
}

/// Takes a message over. Symbols stand before what refers to them.
fn add(message: &[u8], table: &mut Table, entries: &mut Vec<u8>) -> Result<(), WireError> {
    let mut numbers = Vec::new();
    let (mut entry, mut scratch) = (Vec::new(), Vec::new());
    for field in Fields::of(message) {
        match field? {
            Field { number: 4, content: Content::Bytes(text), .. } => numbers.push(table.place(text_of(text)?)),
            Field { number: 5, content: Content::Bytes(content), .. } => {
                entry.clear();
                rewrite(content, &numbers, &mut entry, &mut scratch)?;
                push_field(entries, ENTRY, &entry);
            }
            _ => return Err(UNKNOWN_FIELD),
        }
    }
    Ok(())
}

/// Copies the fields of an entry; `inner` is room for the content of one.
pub(super) fn rewrite(entry: &[u8], numbers: &[u32], out: &mut Vec<u8>, inner: &mut Vec<u8>) -> Result<(), WireError> {
    for field in Fields::of(entry) {
        let Field { number, content, whole } = field?;
        inner.clear();
        match (number, content) {
            (1, Content::Bytes(packed)) => {
                renumber(packed, inner, place_in(numbers)).ok_or(UNKNOWN)?;
                push_field(out, LABELS, inner);
            }
            (4, Content::Bytes(exemplar)) => {
                rewrite_exemplar(exemplar, numbers, inner)?;
                push_field(out, EXEMPLAR, inner);
            }
            (5, Content::Bytes(metadata)) => {
                rewrite_metadata(metadata, numbers, inner)?;
                push_field(out, METADATA, inner);
            }
            _ => out.extend_from_slice(whole),
        }
    }
    Ok(())
}

fn rewrite_exemplar(exemplar: &[u8], numbers: &[u32], out: &mut Vec<u8>) -> Result<(), WireError> {
    for field in Fields::of(exemplar) {
        match field? {
            Field { number: 1, content: Content::Bytes(packed), .. } => {
                let mut labels = Vec::with_capacity(packed.len());
                renumber(packed, &mut labels, place_in(numbers)).ok_or(UNKNOWN)?;
                push_field(out, LABELS, &labels);
            }
            Field { whole, .. } => out.extend_from_slice(whole),
        }
    }
    Ok(())
}

fn rewrite_metadata(metadata: &[u8], numbers: &[u32], out: &mut Vec<u8>) -> Result<(), WireError> {
    for field in Fields::of(metadata) {
        let Field { number, content, whole } = field?;
        match (number, content) {
            (3, Content::Varint(help)) => push_number(out, HELP, symbol(numbers, help)?.into()),
            (4, Content::Varint(unit)) => push_number(out, UNIT, symbol(numbers, unit)?.into()),
            _ => out.extend_from_slice(whole),
        }
    }
    Ok(())
}

/// What stands in `symbols` under the number that a message gives.
pub(in crate::wire) fn symbol<S: Copy>(symbols: &[S], number: u64) -> Result<S, WireError> {
    usize::try_from(number).ok().and_then(|at| symbols.get(at)).copied().ok_or(UNKNOWN)
}

fn place_in(numbers: &[u32]) -> impl Fn(u32) -> Option<u32> {
    |number| numbers.get(number as usize).copied()
}

pub(in crate::wire) fn text_of(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Damaged("a symbol is not UTF-8"))
}
