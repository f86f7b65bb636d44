//! One series as the table of its target remembers it.

use std::sync::Arc;

use super::View;
use super::exemplar::Newest;
use super::table::FUTURE_MS;
use crate::model::{Labels, Metadata};
use crate::wire::v2::Dictionary;

/// A series as it is stored, in every view.
pub(super) struct Series {
    pub(super) labels_hash: u64,
    /// The encoded labels for each view; `None` where the view drops the series. Views that came after the series was met
    /// last are still missing at the end.
    pub(super) encoded: Box<[Option<Box<[u8]>>]>,
    /// The pass that met it first.
    pub(super) born: u64,
    /// The pass whose lines meant it last.
    pub(super) seen: u64,
    /// The pass, perhaps unfinished, in which it last had a sample whose end deserves a marker.
    pub(super) tracked: u64,
    /// The last finished pass that exposed it so.
    pub(super) exposed: u64,
    /// The pass in which it last had a sample at the scrape's own time.
    pub(super) sampled: u64,
    /// The newest timestamp that was committed, markers included.
    pub(super) committed_ms: i64,
    /// What it is, as it was announced last; only where a receiver is told with each series.
    pub(super) metadata: Option<Arc<Metadata>>,
    /// The last exemplar that was committed.
    pub(super) exemplar: Option<Box<Newest>>,
    /// The newest timestamp of the pass `pending`.
    pub(super) pending_ms: i64,
    /// The pass, perhaps unfinished, in which it last had a sample; 0 if it never had one.
    pub(super) pending: u64,
}

impl Series {
    pub(super) fn new(
        written: &Labels,
        labels_hash: u64,
        views: &[View],
        dictionary: &mut Dictionary,
        born: u64,
    ) -> Self {
        Self {
            labels_hash,
            encoded: views.iter().map(|view| view.encode(written, dictionary)).collect(),
            born,
            seen: born,
            tracked: 0,
            exposed: 0,
            sampled: 0,
            committed_ms: i64::MIN,
            metadata: None,
            exemplar: None,
            pending_ms: i64::MIN,
            pending: 0,
        }
    }

    /// The newest timestamp that was committed, as far as it binds a scrape at `at_ms`: one from far ahead was made by a
    /// clock that has been set right since, and must not silence the series until then.
    pub(super) fn newest_ms(&self, at_ms: i64) -> i64 {
        if self.committed_ms > at_ms.saturating_add(FUTURE_MS) { i64::MIN } else { self.committed_ms }
    }

    /// What remembering it costs, about.
    pub(super) fn bytes(&self) -> usize {
        let exemplar = self.exemplar.as_ref().map_or(0, |_| size_of::<Newest>());
        size_of::<Self>() + exemplar + self.encoded.iter().flatten().map(|labels| labels.len()).sum::<usize>()
    }
}
