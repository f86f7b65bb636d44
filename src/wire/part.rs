//! A block in parts: the slow path for what a receiver does not want as a whole.
//!
//! Entries are copied as they are, so that every bit of a value stays. A part of 2.0 has the symbols that it needs.

use super::fields::{Content, Field, Fields, take_varint};
use super::snappy::{compress, message_of};
use super::v2::{compact, symbol, text_of};
use super::{UNKNOWN_FIELD, WireError};
use crate::model::{Block, Labels, WriteFormat};

/// The series of each entry of a block, in order.
///
/// # Errors
/// The block is not as it was made.
pub fn series_of(block: &Block) -> Result<Vec<Labels>, WireError> {
    let message = message_of(block)?;
    let (mut symbols, mut series) = (Vec::new(), Vec::new());
    for field in Fields::of(&message) {
        match (block.format, field?) {
            (WriteFormat::V1, Field { number: 1, content: Content::Bytes(entry), .. }) => {
                series.push(labels_of_1(entry)?);
            }
            (WriteFormat::V2, Field { number: 4, content: Content::Bytes(text), .. }) => symbols.push(text_of(text)?),
            (WriteFormat::V2, Field { number: 5, content: Content::Bytes(entry), .. }) => {
                series.push(labels_of_2(entry, &symbols)?);
            }
            _ => return Err(UNKNOWN_FIELD),
        }
    }
    Ok(series)
}

/// The entries of a block for whose places `wanted` is true, as a block; `None` if they hold no samples. Its times are those
/// of the whole block.
///
/// # Errors
/// The block is not as it was made.
pub fn part(block: &Block, wanted: impl Fn(usize) -> bool) -> Result<Option<Block>, WireError> {
    let message = message_of(block)?;
    let (mut raw, mut held, mut at) = (Vec::new(), Held::default(), 0);
    for field in Fields::of(&message) {
        let field = field?;
        let Content::Bytes(entry) = field.content else { return Err(UNKNOWN_FIELD) };
        let is_symbol = block.format == WriteFormat::V2 && field.number == 4;
        if !is_symbol {
            at += 1;
            if !wanted(at - 1) {
                continue;
            }
            held.add(block.format, entry)?;
        }
        raw.extend_from_slice(field.whole);
    }
    let Held { samples, histograms, exemplars } = held;
    if samples == 0 {
        return Ok(None);
    }
    if block.format == WriteFormat::V2 {
        raw = compact(&raw)?;
    }
    let raw_len =
        u32::try_from(raw.len()).map_err(|_| WireError::TooLong { len: raw.len(), limit: u32::MAX.into() })?;
    let elements = compress(&raw)?.into();
    Ok(Some(Block { samples, histograms, exemplars, raw_len, elements, ..block.clone() }))
}

/// What is in some entries, counted as a block counts.
#[derive(Clone, Copy, Default)]
struct Held {
    samples: u32,
    histograms: u32,
    exemplars: u32,
}

impl Held {
    fn add(&mut self, format: WriteFormat, entry: &[u8]) -> Result<(), WireError> {
        let (histogram, exemplar) = match format {
            WriteFormat::V1 => (4, 3),
            WriteFormat::V2 => (3, 4),
        };
        for field in Fields::of(entry) {
            let number = field?.number;
            self.samples += u32::from(number == 2 || number == histogram);
            self.histograms += u32::from(number == histogram);
            self.exemplars += u32::from(number == exemplar);
        }
        Ok(())
    }
}

fn labels_of_1(entry: &[u8]) -> Result<Labels, WireError> {
    let mut labels = Vec::new();
    for field in Fields::of(entry) {
        let Field { number: 1, content: Content::Bytes(label), .. } = field? else { continue };
        let mut pair = ["", ""];
        for field in Fields::of(label) {
            match field? {
                Field { number: 1, content: Content::Bytes(text), .. } => pair[0] = text_of(text)?,
                Field { number: 2, content: Content::Bytes(text), .. } => pair[1] = text_of(text)?,
                _ => return Err(UNKNOWN_FIELD),
            }
        }
        labels.push(pair);
    }
    Ok(labels.into_iter().map(|[name, value]| (name, value)).collect())
}

fn labels_of_2(entry: &[u8], symbols: &[&str]) -> Result<Labels, WireError> {
    let mut labels = Vec::new();
    for field in Fields::of(entry) {
        let Field { number: 1, content: Content::Bytes(mut packed), .. } = field? else { continue };
        while !packed.is_empty() {
            let mut text = || {
                let number = take_varint(&mut packed).ok_or(WireError::Damaged("a number is cut off"))?;
                symbol(symbols, number)
            };
            labels.push((text()?, text()?));
        }
    }
    Ok(labels.into_iter().collect())
}
