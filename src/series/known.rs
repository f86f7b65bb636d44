//! One series as the table of its target remembers it.

use std::collections::HashSet;
use std::sync::Arc;

use super::View;
use super::exemplar::Newest;
use super::metadata::bytes_of;
use super::table::FUTURE_MS;
use crate::model::{Labels, Metadata};
use crate::wire::v2::Dictionary;

/// What the descriptions that the series of one target hold may take, in bytes: twice what a target may say at one time.
const MAX_DESCRIBED_BYTES: usize = 2 << 20;

/// What the series of one target are said to be, each description once: a copy, because what the target has ceased to say
/// must not be held by its series.
#[derive(Default)]
pub(super) struct Described {
    known: HashSet<Arc<Metadata>>,
    bytes: usize,
}

impl Described {
    /// The copy of this description; `None` if there is no room for it beside all that series hold.
    pub(super) fn copy_of(&mut self, family: &Metadata) -> Option<Arc<Metadata>> {
        if let Some(known) = self.known.get(family) {
            return Some(Arc::clone(known));
        }
        let more = bytes_of(family);
        if self.bytes + more > MAX_DESCRIBED_BYTES {
            self.known.retain(|copy| Arc::strong_count(copy) > 1);
            self.bytes = self.known.iter().map(|copy| bytes_of(copy)).sum();
        }
        if self.bytes + more > MAX_DESCRIBED_BYTES {
            return None;
        }
        let copy = Arc::new(family.clone());
        self.known.insert(Arc::clone(&copy));
        self.bytes += more;
        Some(copy)
    }
}

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
