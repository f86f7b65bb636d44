//! From the spool to the receivers: one task each, one request at a time.
//!
//! ```text
//! lease ─▶ join ─▶ POST ─▶ Verdict ─┬─ Delivered ─▶ ack
//!   ▲                 ▲             ├─ Retry ─▶ pause (Backoff, Retry-After) ─┐
//!   │                 └─────────────┼────────────────────────────────────────┘
//!   └── spool                       └─ Rejected ─▶ by target, once; then dropped, counted, said ─▶ ack
//! ```
//!
//! What always holds:
//! - samples of one target leave in the order in which they came, and a block is acknowledged only when the receiver
//!   has it, refused it for good, or it grew older than `sample_age_limit`: at least once, in order;
//! - a receiver that answers 415 to remote write 2.0 gets the same samples as 1.0, as long as that connection lasts;
//! - what an answer means is decided in one place, [`Verdict`];
//! - receivers know nothing of each other: each has its task, its queue and its client;
//! - what metric families are is told between requests of samples, which wait for one such request at most, and for none
//!   once the queue is closed;
//! - one bad block costs itself and no other target: a request that is rejected for its content is sent again target by
//!   target, and who was rejected alone goes alone for a while;
//! - a receiver cannot make us wait longer than five minutes at a time, read more than 64 KiB, talk to another origin or
//!   show what it should not: credentials and queries are in no log, no metric and no snapshot.
//!
//! This room does not know targets, jobs or what is inside a block.

mod backoff;
mod client;
mod complaints;
mod describe;
mod message;
mod metrics;
mod parts;
mod post;
mod progress;
mod sender;
mod verdict;

pub use backoff::{Backoff, BackoffError, Pauses};
pub use describe::MetadataSource;
pub use metrics::Metrics;
pub use progress::{Monitor, ReceiverSnapshot, Refusal};
pub use sender::{Prepared, SendError, Sender, Undelivered};
pub use verdict::{Trouble, TroubleKind, Verdict};

use crate::config::RemoteWrite;

/// What all metrics of a receiver carry, here and in the spool, as Prometheus names it.
pub fn labels(remote: &RemoteWrite) -> Vec<(String, String)> {
    vec![("remote_name".to_owned(), remote.name.clone()), ("url".to_owned(), remote.shown_url())]
}
