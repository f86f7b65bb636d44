//! From samples to send-ready blocks, one receiver's view at a time.

use crate::model::{Block, CUSTOM_SCHEMA, Histogram, Sample, TargetId, WriteFormat};
use crate::wire;

use super::View;

/// A block of so many bytes takes nothing more, however few samples they are.
const FULL_BYTES: usize = 4 << 20;

/// What a series has at one time.
#[derive(Clone, Copy)]
pub(super) enum PointRef<'a> {
    Float(Sample),
    /// With its time.
    Histogram(&'a Histogram, i64),
}

/// Gathers the samples of one view and closes a block whenever it is full.
pub(super) struct BlockBuilder<'v> {
    view: &'v View,
    target: TargetId,
    raw: Vec<u8>,
    samples: usize,
    min_ms: i64,
    max_ms: i64,
    done: Vec<Block>,
}

impl<'v> BlockBuilder<'v> {
    pub(super) fn new(view: &'v View, target: TargetId) -> Self {
        Self { view, target, raw: Vec::new(), samples: 0, min_ms: i64::MAX, max_ms: i64::MIN, done: Vec::new() }
    }

    /// Adds one point of the series with these encoded labels and its encoded exemplars, as far as they are for the
    /// receivers of the view.
    pub(super) fn push(&mut self, labels: &[u8], point: PointRef<'_>, exemplars: &[(usize, Box<[u8]>)]) {
        let time = self.push_point(labels, point);
        // As in Prometheus, also those of a histogram that is not for these receivers.
        if self.view.exemplars && !exemplars.is_empty() {
            wire::push_exemplars(&mut self.raw, labels, exemplars.iter().map(|(_, exemplar)| &**exemplar));
        }
        let Some(timestamp_ms) = time else { return };
        self.samples += 1;
        self.min_ms = self.min_ms.min(timestamp_ms);
        self.max_ms = self.max_ms.max(timestamp_ms);
        if self.samples >= self.view.max_samples || self.raw.len() >= FULL_BYTES {
            self.close();
        }
    }

    /// Its time; `None` if it is not for these receivers.
    fn push_point(&mut self, labels: &[u8], point: PointRef<'_>) -> Option<i64> {
        match point {
            PointRef::Float(sample) => {
                wire::push_sample(&mut self.raw, labels, sample);
                Some(sample.timestamp_ms)
            }
            PointRef::Histogram(..) if !self.view.histograms => None,
            PointRef::Histogram(histogram, _) if histogram.schema == CUSTOM_SCHEMA => {
                for dropped in &self.view.listed_bounds {
                    dropped.inc();
                }
                None
            }
            PointRef::Histogram(histogram, timestamp_ms) => {
                wire::push_histogram(&mut self.raw, labels, histogram, timestamp_ms);
                Some(timestamp_ms)
            }
        }
    }

    /// The blocks for all receivers of the view, in the order of the samples.
    pub(super) fn finish(mut self) -> Vec<Block> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.samples == 0 {
            return;
        }
        match wire::compress(&self.raw) {
            Ok(elements) => {
                let block = Block {
                    target: self.target,
                    receiver: 0,
                    format: WriteFormat::V1,
                    samples: u32::try_from(self.samples).unwrap_or(u32::MAX),
                    min_ms: self.min_ms,
                    max_ms: self.max_ms,
                    raw_len: u32::try_from(self.raw.len()).unwrap_or(u32::MAX),
                    elements: elements.into(),
                };
                self.done.extend(self.view.receivers.iter().map(|&receiver| Block { receiver, ..block.clone() }));
            }
            // Only a length of 4 GiB and more cannot be compressed, and a block is closed long before.
            Err(error) => tracing::error!(%error, "BUG: a block cannot be encoded; its samples are dropped"),
        }
        (self.samples, self.min_ms, self.max_ms) = (0, i64::MAX, i64::MIN);
        self.raw.clear();
    }
}
