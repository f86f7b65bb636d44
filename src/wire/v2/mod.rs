//! The bytes of remote write 2.0: `io.prometheus.write.v2.Request`.
//!
//! A request has one table of texts, its symbols, and everything else refers to them by number. Number 0 is the empty text;
//! no text stands there twice; the table is made anew for each request and holds what the request uses and nothing else.
//!
//! ```text
//! raw      = symbol* entry*
//! symbol   = 22 len text                                                (Request.symbols)
//! entry    = 2a len labels one [ metadata ]                             (Request.timeseries)
//! labels   = 0a len ( varint(name) varint(value) )*                     (TimeSeries.labels_refs)
//! one      = 12 len 09 value-little-endian 10 varint(timestamp)         (TimeSeries.samples)
//!                   [ 18 varint(start) ]
//!            or 1a len histogram                                        (TimeSeries.histograms)
//!            or 22 len 0a len labels [ 11 value ] [ 18 timestamp ]      (TimeSeries.exemplars)
//! metadata = 2a len [ 08 type ] [ 18 help ] [ 20 unit ]                 (TimeSeries.metadata)
//! ```
//!
//! As Prometheus writes it, an entry holds one sample, one histogram or one exemplar, and an exemplar follows the entry of
//! its sample. As in 1.0 both fields of a sample are always written, zero or not.
//!
//! *From a target to its block.* A target keeps a [`Dictionary`] of the texts of its series, in whose numbers the labels of
//! each series are encoded once. A [`Draft`] is a block that is being made: it copies the numbers of an entry and gives each
//! its number in the block, new at its first use. So a sample costs no hashing and no comparing of texts.
//!
//! *From blocks to a request.* A block is a whole message with a table of its own, so one block alone is sent as it is. Of
//! several, [`join`](crate::wire::join()) merges the tables and copies the entries, in which it renumbers what refers to a text and nothing
//! else; samples are not decoded:
//!
//! ```text
//! block 1   0 ""  1 __name__  2 up  3 job  4 cart    entries 1,2,3,4 …        1 2 3 4
//! block 2   0 ""  1 __name__  2 up  3 job  4 shop    entries 1,2,3,4 …        │ │ │ │
//!                                                                             1 2 3 5
//! request   0 ""  1 __name__  2 up  3 job  4 cart  5 shop    entries 1,2,3,4 …  1,2,3,5 …
//! ```
//!
//! What is joined is decompressed and compressed again. [`recode()`] makes a block of 1.0 of one of 2.0, for a receiver that
//! turns out not to know it.

mod compact;
mod dictionary;
mod draft;
mod join;
pub mod proto;
mod recode;
mod table;

#[cfg(test)]
mod tests;

pub(super) use compact::compact;
pub use dictionary::Dictionary;
pub use draft::{Draft, What};
pub(super) use join::{join, symbol, text_of};
pub use recode::{Recoded, recode};

use super::WireError;
use super::encode::push_varint;
use super::fields::take_varint;

/// `Request.symbols`: field 4, length-delimited.
const SYMBOL: u8 = 0x22;
/// `Request.timeseries`: field 5, length-delimited.
const ENTRY: u8 = 0x2a;
/// `TimeSeries.labels_refs` and `Exemplar.labels_refs`: field 1, packed.
const LABELS: u8 = 0x0a;
/// `TimeSeries.exemplars`: field 4, length-delimited.
const EXEMPLAR: u8 = 0x22;
/// `TimeSeries.metadata`: field 5, length-delimited.
const METADATA: u8 = 0x2a;
/// `Metadata.type`: field 1, varint.
const TYPE: u8 = 0x08;
/// `Metadata.help_ref`: field 3, varint.
const HELP: u8 = 0x18;
/// `Metadata.unit_ref`: field 4, varint.
const UNIT: u8 = 0x20;

/// Appends a field whose content is there already.
fn push_field(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    push_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// Appends a number, unless it is 0.
fn push_number(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number != 0 {
        out.push(tag);
        push_varint(out, number);
    }
}

/// Copies packed references, each as the number that `place` has for it; `None` if it has none.
fn renumber(mut packed: &[u8], out: &mut Vec<u8>, mut place: impl FnMut(u32) -> Option<u32>) -> Option<()> {
    out.reserve(packed.len());
    while !packed.is_empty() {
        let number = u32::try_from(take_varint(&mut packed)?).ok()?;
        push_varint(out, place(number)?.into());
    }
    Some(())
}

const UNKNOWN: WireError = WireError::Damaged("a reference leads to no symbol");
