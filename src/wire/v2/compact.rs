//! A message without the symbols that nothing in it refers to: what is left of one of which entries were taken out.

use super::join::{rewrite, symbol, text_of};
use super::table::Table;
use super::{ENTRY, UNKNOWN, push_field};
use crate::wire::fields::{Content, Field, Fields, take_varint};
use crate::wire::{UNKNOWN_FIELD, WireError};

/// The same entries under a table of their own.
///
/// # Errors
/// The message is not what [`Draft`](super::Draft) made.
pub(in crate::wire) fn compact(message: &[u8]) -> Result<Vec<u8>, WireError> {
    let (mut symbols, mut entries) = (Vec::new(), Vec::new());
    for field in Fields::of(message) {
        match field? {
            Field { number: 4, content: Content::Bytes(text), .. } => symbols.push(text_of(text)?),
            Field { number: 5, content: Content::Bytes(entry), .. } => entries.push(entry),
            _ => return Err(UNKNOWN_FIELD),
        }
    }
    let mut table = Table::new();
    // Number 0 is the empty text, here as there; what is not used is never asked for.
    let mut numbers = vec![0; symbols.len()];
    let (mut out, mut rewritten, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        each_reference(entry, &mut |number| {
            let text: &str = symbol(&symbols, number)?;
            numbers[number as usize] = table.place(text);
            Ok(())
        })?;
        rewritten.clear();
        rewrite(entry, &numbers, &mut rewritten, &mut scratch)?;
        push_field(&mut out, ENTRY, &rewritten);
    }
    Ok([table.encoded(), &out].concat())
}

/// Calls `with` with the number of each symbol that an entry refers to.
fn each_reference(entry: &[u8], with: &mut impl FnMut(u64) -> Result<(), WireError>) -> Result<(), WireError> {
    for field in Fields::of(entry) {
        let field = field?;
        match (field.number, field.content) {
            (1, Content::Bytes(packed)) => each_number(packed, with)?,
            (4, Content::Bytes(exemplar)) => {
                for field in Fields::of(exemplar) {
                    if let Field { number: 1, content: Content::Bytes(packed), .. } = field? {
                        each_number(packed, with)?;
                    }
                }
            }
            (5, Content::Bytes(metadata)) => {
                for field in Fields::of(metadata) {
                    if let Field { number: 3 | 4, content: Content::Varint(number), .. } = field? {
                        with(number)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn each_number(mut packed: &[u8], with: &mut impl FnMut(u64) -> Result<(), WireError>) -> Result<(), WireError> {
    while !packed.is_empty() {
        with(take_varint(&mut packed).ok_or(UNKNOWN)?)?;
    }
    Ok(())
}
