//! A block of 2.0 as one of 1.0, for a receiver that does not know 2.0.
//!
//! Field by field, so that every bit of a value stays as it is. What 1.0 has no place for is left out: histograms with listed
//! bounds, which are counted; what a series is, which 1.0 tells in requests of its own; start timestamps.

use super::join::{symbol, text_of};
use super::{UNKNOWN, push_field};
use crate::model::{Block, CUSTOM_SCHEMA, WriteFormat};
use crate::wire::encode::{push_label, push_varint};
use crate::wire::fields::{Content, Field, Fields, take_varint};
use crate::wire::histogram::zigzag;
use crate::wire::snappy::{compress, message_of};
use crate::wire::{UNKNOWN_FIELD, WireError};

/// `WriteRequest.timeseries`: field 1, length-delimited.
const ENTRY: u8 = 0x0a;
/// `TimeSeries.samples`: field 2, length-delimited.
const SAMPLE: u8 = 0x12;
/// `TimeSeries.exemplars`: field 3, length-delimited.
const EXEMPLAR: u8 = 0x1a;
/// `TimeSeries.histograms`: field 4, length-delimited.
const HISTOGRAM: u8 = 0x22;
/// How [`CUSTOM_SCHEMA`] is written in `Histogram.schema`.
const CUSTOM: u64 = zigzag(CUSTOM_SCHEMA as i64);

/// What comes of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recoded {
    /// What could be taken over.
    pub block: Block,
    /// How many histograms could not, for they have listed bounds.
    pub listed_bounds: u32,
}

/// Makes a block of 1.0 of one of 2.0.
///
/// # Errors
/// The block is not what [`Draft`](super::Draft) made.
pub fn recode(block: &Block) -> Result<Recoded, WireError> {
    let message = message_of(block)?;
    let (mut symbols, mut raw, mut listed_bounds) = (Vec::new(), Vec::new(), 0);
    for field in Fields::of(&message) {
        match field? {
            Field { number: 4, content: Content::Bytes(text), .. } => symbols.push(text_of(text)?),
            Field { number: 5, content: Content::Bytes(entry), .. } => {
                if !recode_entry(entry, &symbols, &mut raw)? {
                    listed_bounds += 1;
                }
            }
            _ => return Err(UNKNOWN_FIELD),
        }
    }
    let block = Block {
        format: WriteFormat::V1,
        samples: block.samples.saturating_sub(listed_bounds),
        histograms: block.histograms.saturating_sub(listed_bounds),
        raw_len: u32::try_from(raw.len()).map_err(|_| WireError::TooLong { len: raw.len(), limit: u32::MAX.into() })?,
        elements: compress(&raw)?.into(),
        ..block.clone()
    };
    Ok(Recoded { block, listed_bounds })
}

/// Appends the entry, unless it holds a histogram that 1.0 cannot: then it is false.
fn recode_entry(entry: &[u8], symbols: &[&str], out: &mut Vec<u8>) -> Result<bool, WireError> {
    let (mut labels, mut one) = (Vec::new(), Vec::new());
    for field in Fields::of(entry) {
        match field? {
            Field { number: 1, content: Content::Bytes(packed), .. } => push_labels(packed, symbols, &mut labels)?,
            Field { number: 2, content: Content::Bytes(sample), .. } => {
                push_without(sample, SAMPLE, |field| field.number > 2, &mut one)?;
            }
            Field { number: 3, content: Content::Bytes(histogram), .. } => {
                if has_listed_bounds(histogram)? {
                    return Ok(false);
                }
                push_without(histogram, HISTOGRAM, |field| field.number > 15, &mut one)?;
            }
            Field { number: 4, content: Content::Bytes(exemplar), .. } => {
                push_exemplar(exemplar, symbols, &mut one)?;
            }
            _ => {}
        }
    }
    out.push(ENTRY);
    push_varint(out, (labels.len() + one.len()) as u64);
    out.extend_from_slice(&labels);
    out.extend_from_slice(&one);
    Ok(true)
}

fn has_listed_bounds(histogram: &[u8]) -> Result<bool, WireError> {
    for field in Fields::of(histogram) {
        if let Field { number: 4, content: Content::Varint(CUSTOM), .. } = field? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn push_exemplar(exemplar: &[u8], symbols: &[&str], out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut content = Vec::with_capacity(2 * exemplar.len());
    for field in Fields::of(exemplar) {
        match field? {
            Field { number: 1, content: Content::Bytes(packed), .. } => push_labels(packed, symbols, &mut content)?,
            Field { whole, .. } => content.extend_from_slice(whole),
        }
    }
    push_field(out, EXEMPLAR, &content);
    Ok(())
}

fn push_labels(mut packed: &[u8], symbols: &[&str], out: &mut Vec<u8>) -> Result<(), WireError> {
    while !packed.is_empty() {
        let mut text = || symbol(symbols, take_varint(&mut packed).ok_or(UNKNOWN)?);
        let (name, value) = (text()?, text()?);
        push_label(out, name, value);
    }
    Ok(())
}

/// Appends a message without some of its fields.
fn push_without(
    message: &[u8],
    tag: u8,
    unwanted: impl Fn(&Field<'_>) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    let mut content = Vec::with_capacity(message.len());
    for field in Fields::of(message) {
        let field = field?;
        if !unwanted(&field) {
            content.extend_from_slice(field.whole);
        }
    }
    push_field(out, tag, &content);
    Ok(())
}
