//! The unit of delivery: what one scrape of one target gives one receiver, ready to send.
//!
//! A block is made once, by the task of its target, as a message that could be sent as it stands. The spool moves it without
//! looking inside; the sender joins blocks of one format into a request.

use bytes::Bytes;

use super::{TargetId, Tenant};

/// As which message of remote write the samples of a block are written. The numbers are those on disk and never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WriteFormat {
    /// `prometheus.WriteRequest`, the message of remote write 1.0.
    #[default]
    V1 = 1,
    /// `io.prometheus.write.v2.Request`, the message of remote write 2.0.
    V2 = 2,
}

/// Encoded samples with what the spool and the sender need to know of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whose series they are ([`Target::series_id`](super::Target::series_id)): two requests with blocks of one target are
    /// never in flight together.
    pub target: TargetId,
    /// Which receiver it is for: the position of its entry in the configuration.
    pub receiver: usize,
    /// Whose samples they are, all of them; `None` where the receiver has no tenants, or tells them in another way.
    pub tenant: Option<Tenant>,
    /// As which message they are encoded.
    pub format: WriteFormat,
    /// How many samples and histograms are inside.
    pub samples: u32,
    /// How many of these are histograms.
    pub histograms: u32,
    /// How many exemplars are inside.
    pub exemplars: u32,
    /// The oldest timestamp inside, milliseconds since the Unix epoch.
    pub min_ms: i64,
    /// The newest timestamp inside, milliseconds since the Unix epoch.
    pub max_ms: i64,
    /// The length of the encoded message before compression.
    pub raw_len: u32,
    /// The message, compressed: snappy elements *without* the length prefix of the block format.
    pub elements: Bytes,
}
