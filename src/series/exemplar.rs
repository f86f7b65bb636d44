//! The exemplars of a pass: which of them are new, and their bytes.
//!
//! What always holds: of one series they are sent in the order of their times, none of them twice; what one pass may hold
//! is bounded. They are a help and no measurement: whatever is wrong with one, or too many, costs only the exemplar.

use std::collections::HashMap;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use super::table::{FUTURE_MS, SeriesIndex};
use crate::model::Exemplar;
use crate::wire;

/// What the exemplars of one scrape may take, in bytes: about a hundred thousand of them.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// What one takes besides its text.
const BYTES_OF_NONE: usize = 64;

/// The last exemplar of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    timestamp_ms: i64,
    value: f64,
    labels_hash: u64,
    /// Whether its time is its own.
    dated: bool,
}

/// Those that a pass has accepted.
#[derive(Default)]
pub(super) struct Exemplars {
    /// Encoded, each with the number of the point that it stands behind, in that order.
    pub(super) encoded: Vec<(usize, Box<[u8]>)>,
    /// The last one of each series that has one in this pass.
    pub(super) newest: HashMap<SeriesIndex, Newest, RandomState>,
    bytes: usize,
}

/// The point whose exemplars are judged.
#[derive(Clone, Copy)]
pub(super) struct Occasion {
    /// Its number in the pass.
    pub(super) point: usize,
    pub(super) series: SeriesIndex,
    pub(super) timestamp_ms: i64,
    /// The time of the scrape.
    pub(super) at_ms: i64,
}

impl Exemplars {
    /// What they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes those of a point that are new; `known` is the last one of the passes before. False if all came too late.
    pub(super) fn take(
        &mut self,
        mut exemplars: Vec<Exemplar>,
        occasion: Occasion,
        known: Option<Newest>,
        hasher: &RandomState,
    ) -> bool {
        let judged = |exemplar: &Exemplar| Newest {
            timestamp_ms: exemplar.timestamp_ms.unwrap_or(occasion.timestamp_ms),
            value: exemplar.value,
            labels_hash: hasher.hash_one(&exemplar.labels),
            dated: exemplar.timestamp_ms.is_some(),
        };
        exemplars.sort_by_cached_key(|exemplar| {
            let Newest { timestamp_ms, value, labels_hash, .. } = judged(exemplar);
            (timestamp_ms, total_order(value), labels_hash)
        });
        let mut too_late = 0;
        for exemplar in &exemplars {
            let new = judged(exemplar);
            if new.timestamp_ms > occasion.at_ms.saturating_add(FUTURE_MS) {
                continue;
            }
            if let Some(last) = self.newest.get(&occasion.series).copied().or(known) {
                if last.is(new) {
                    continue;
                }
                if !last.is_before(new) {
                    too_late += 1;
                    continue;
                }
            }
            let encoded = wire::encode_exemplar(&exemplar.labels, new.value, new.timestamp_ms).into_boxed_slice();
            self.bytes += encoded.len() + BYTES_OF_NONE;
            if self.bytes > MAX_BYTES {
                break;
            }
            self.newest.insert(occasion.series, new);
            self.encoded.push((occasion.point, encoded));
        }
        too_late == 0 || too_late < exemplars.len()
    }
}

impl Newest {
    /// As in Prometheus, one without a time of its own is the same whenever it is seen.
    fn is(self, other: Self) -> bool {
        let same_time = self.timestamp_ms == other.timestamp_ms || !(self.dated || other.dated);
        same_time && self.labels_hash == other.labels_hash && self.value.total_cmp(&other.value).is_eq()
    }

    fn is_before(self, other: Self) -> bool {
        let key = |one: Self| (one.timestamp_ms, total_order(one.value), one.labels_hash);
        key(self) < key(other)
    }
}

/// A number in the order of the values, of which `f64::total_cmp` is the definition.
fn total_order(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}
