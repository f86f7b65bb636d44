//! The unit of delivery: what one scrape of one target gives one receiver, ready to send.
//!
//! A block is made once, by the task of its target. The spool moves it without looking inside; the sender joins blocks
//! into a request by concatenation, which both protobuf repeated fields and snappy elements allow.

use bytes::Bytes;

use super::TargetId;

/// Encoded samples with what the spool and the sender need to know of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The target that was scraped: two requests with blocks of one target are never in flight together.
    pub target: TargetId,
    /// Which receiver it is for: the position of its entry in the configuration.
    pub receiver: usize,
    /// How many samples and histograms are inside.
    pub samples: u32,
    /// The oldest timestamp inside, milliseconds since the Unix epoch.
    pub min_ms: i64,
    /// The newest timestamp inside, milliseconds since the Unix epoch.
    pub max_ms: i64,
    /// The length of the encoded message before compression.
    pub raw_len: u32,
    /// The message, compressed: snappy elements *without* the length prefix of the block format.
    pub elements: Bytes,
}
