//! Scraping: which targets run, when each is read, and what is made of the answer.
//!
//! The [`Manager`](spawn) follows the target set and keeps one task a target; a task owns everything of its target: its
//! beat, its connection, its series. What always holds: a target that is gone has ended, with staleness markers,
//! before a new one starts; one whose labels and pod are the same goes on, whatever else about it or in the configuration
//! has changed, with as much of its beat, connection and series as that leaves; nothing of a response goes on before the whole of it proved good and whatever verified the
//! connection still stands; all scrapes under way share one [`Budget`] of memory; every attempt of a task leaves `up` and its companions. A [`Probe`] is a scrape for a person:
//! it leaves nothing.
//!
//! The room does not know where targets came from (Kubernetes, files) nor where blocks go.

mod body;
mod budget;
mod exchange;
mod leaving;
mod manager;
mod merge;
mod metrics;
mod orders;
mod past;
mod probe;
mod recent;
mod request;
mod schedule;
mod state;
mod task;
mod transcript;

pub use budget::{Budget, Share};
pub use exchange::{Exchange, Gather, MAX_BODY_BYTES, exchange};
pub use manager::{Context, Handle, Job, PoolSnapshot, Setup, TargetSnapshot, spawn};
pub use merge::{MergeCounts, MergeReader};
pub use metrics::Metrics;
pub use past::{Event, Past};
pub use probe::{MAX_PROBE_TIME, Probe, ProbeError, Wanted};
pub use recent::{Beat, Recent};
pub use request::RequestHead;
pub use task::TargetStatus;
pub use transcript::DroppedSeries;
