//! The bytes of remote write, as pure functions: 1.0 here, 2.0 in [`v2`].
//!
//! A request of 1.0 is a protobuf `prometheus.WriteRequest` in the snappy block format. Two properties of these formats carry
//! the whole way of delivery, and the tests of this room hold them:
//!
//! - *Labels are cacheable.* [`encode_labels`] gives the label fields of a series once; [`push_sample`] puts them in
//!   front of every sample. One entry holds one sample, and both of its fields are always written, zero or not, so an
//!   entry of a known series differs from the last one in the eight bytes of the value and in the timestamp only.
//! - *Blocks are joinable.* Repeated protobuf fields concatenate, and a snappy element refers to what stands before it
//!   by distance, never by position. So [`compress`] leaves the length prefix out, and [`join`] makes a whole request
//!   of many blocks by putting one prefix before their concatenation, without compressing anything twice.
//!
//! ```text
//! request = varint(raw_len of all blocks) elements(block 1) elements(block 2) …      (one snappy block)
//! raw     = entry*             entry  = 0a len labels sample                         (WriteRequest.timeseries)
//! labels  = label*             label  = 0a len 0a len name 12 len value              (TimeSeries.labels)
//! sample  = 12 len 09 value-little-endian 10 varint(timestamp)                       (TimeSeries.samples)
//!           or 22 len histogram                                                      (TimeSeries.histograms)
//!           or 1a len exemplar                                                       (TimeSeries.exemplars)
//!           or, in requests without series, 1a len metadata for entry                (WriteRequest.metadata)
//! ```
//!
//! Nothing here knows time, receivers, targets or what a label means. [`decode`] and [`decode_v2`] with the types of a
//! protobuf library are the independent way back: the oracle of the tests and the reader of the demo's receiver, not part of
//! the hot path.

mod encode;
mod fields;
mod histogram;
mod part;
pub mod proto;
mod snappy;
pub mod v2;

#[cfg(test)]
mod tests;

pub use encode::{encode_exemplar, encode_labels, push_exemplars, push_metadata, push_sample};
pub use histogram::push_histogram;
pub use part::{part, series_of};
pub use snappy::{MAX_DECODED_BYTES, compress, decode, decode_v2, join, pack};

use thiserror::Error;

/// What no message of ours has.
const UNKNOWN_FIELD: WireError = WireError::Damaged("a request has a field that is none of its own");

/// Why bytes could not be written or read.
#[derive(Debug, Error)]
pub enum WireError {
    /// A message that the block format cannot hold.
    #[error("the message has {len} bytes, a snappy block holds at most {limit}")]
    TooLong {
        /// The bytes of the message.
        len: usize,
        /// What fits.
        limit: u64,
    },
    /// A request that claims to be larger than anybody should read.
    #[error("the request claims {claimed} bytes decompressed, at most {limit} are read")]
    ClaimsTooMuch {
        /// The bytes that the length prefix announces.
        claimed: usize,
        /// What is read at most.
        limit: usize,
    },
    /// Not a snappy block.
    #[error("the body is not a snappy block")]
    Snappy(#[source] snap::Error),
    /// Not the message.
    #[error("the body does not hold the message of its version of remote write")]
    Protobuf(#[source] prost::DecodeError),
    /// A block that is not as it was made, or a request that refers to what it has not.
    #[error("the message is damaged: {0}")]
    Damaged(&'static str),
    /// Blocks that cannot be in one request.
    #[error("BUG: blocks of different formats in one request")]
    Mixed,
}
