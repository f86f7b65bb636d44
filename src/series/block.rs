//! From samples to send-ready blocks, one receiver's view at a time.

use std::sync::Arc;

use crate::model::{Block, CUSTOM_SCHEMA, Histogram, Metadata, Sample, TargetId, Tenants, WriteFormat};
use crate::wire;
use crate::wire::v2::{Dictionary, Draft, What};

use super::View;
use super::view::Recipient;

/// A block of so many bytes takes nothing more, however few samples they are.
const FULL_BYTES: usize = 4 << 20;

/// What a series has at one time.
#[derive(Clone, Copy)]
pub(super) enum PointRef<'a> {
    Float(Sample),
    /// With its time.
    Histogram(&'a Histogram, i64),
}

/// A series with what it has at one time, as a builder takes it.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    /// Its labels, encoded for the view.
    pub(super) labels: &'a [u8],
    /// What it is, as far as that is known.
    pub(super) metadata: Option<&'a Arc<Metadata>>,
    pub(super) point: PointRef<'a>,
    /// Since when it counts, if that is known: only remote write 2.0 has a place for it.
    pub(super) start_ms: Option<i64>,
    /// Encoded, each with the number of the point.
    pub(super) exemplars: &'a [(usize, Box<[u8]>)],
}

/// The message that is being made.
enum Message<'v> {
    V1(Vec<u8>),
    V2(Draft<'v>),
}

impl PointRef<'_> {
    fn timestamp_ms(&self) -> i64 {
        match self {
            PointRef::Float(sample) => sample.timestamp_ms,
            PointRef::Histogram(_, timestamp_ms) => *timestamp_ms,
        }
    }
}

/// Gathers the samples of one view and closes a block whenever it is full.
pub(super) struct BlockBuilder<'v> {
    view: &'v View,
    target: TargetId,
    tenants: &'v Tenants,
    message: Message<'v>,
    samples: usize,
    histograms: usize,
    exemplars: usize,
    min_ms: i64,
    max_ms: i64,
    done: Vec<Block>,
}

impl<'v> BlockBuilder<'v> {
    /// Of the target that is called `target` and belongs to `tenants`. For 2.0, labels must be encoded by `dictionary`.
    pub(super) fn new(view: &'v View, target: TargetId, tenants: &'v Tenants, dictionary: &'v Dictionary) -> Self {
        let message = match view.format {
            WriteFormat::V1 => Message::V1(Vec::new()),
            WriteFormat::V2 => Message::V2(Draft::new(dictionary)),
        };
        let (samples, histograms, exemplars) = (0, 0, 0);
        let (min_ms, max_ms) = (i64::MAX, i64::MIN);
        Self { view, target, tenants, message, samples, histograms, exemplars, min_ms, max_ms, done: Vec::new() }
    }

    /// Adds one point of a series and its exemplars, as far as they are for the receivers of the view.
    pub(super) fn push(&mut self, written: Written<'_>) {
        let pushed = self.push_point(written);
        // As in Prometheus, also those of a histogram that is not for these receivers.
        let exemplified = self.view.exemplars && !written.exemplars.is_empty();
        if exemplified {
            self.exemplars += written.exemplars.len();
            let exemplars = written.exemplars.iter().map(|(_, exemplar)| &**exemplar);
            match &mut self.message {
                Message::V1(raw) => wire::push_exemplars(raw, written.labels, exemplars),
                Message::V2(draft) => {
                    let what = what(written, self.view);
                    exemplars.for_each(|exemplar| draft.push_exemplar(what, exemplar));
                }
            }
        }
        if !pushed && !exemplified {
            return;
        }
        let timestamp_ms = written.point.timestamp_ms();
        self.samples += usize::from(pushed);
        self.histograms += usize::from(pushed && matches!(written.point, PointRef::Histogram(..)));
        self.min_ms = self.min_ms.min(timestamp_ms);
        self.max_ms = self.max_ms.max(timestamp_ms);
        if self.samples >= self.view.max_samples || self.message.len() >= FULL_BYTES {
            self.close();
        }
    }

    /// False if it is not for these receivers.
    fn push_point(&mut self, written: Written<'_>) -> bool {
        match (written.point, &mut self.message) {
            (PointRef::Float(sample), message) => {
                match message {
                    Message::V1(raw) => wire::push_sample(raw, written.labels, sample),
                    Message::V2(draft) => draft.push_sample(what(written, self.view), sample, written.start_ms),
                }
                true
            }
            (PointRef::Histogram(..), _) if !self.view.histograms => false,
            (PointRef::Histogram(histogram, _), Message::V1(_)) if histogram.schema == CUSTOM_SCHEMA => {
                for recipient in &self.view.recipients {
                    recipient.listed_bounds.inc();
                }
                false
            }
            (PointRef::Histogram(histogram, timestamp_ms), message) => {
                match message {
                    Message::V1(raw) => wire::push_histogram(raw, written.labels, histogram, timestamp_ms),
                    Message::V2(draft) => {
                        draft.push_histogram(what(written, self.view), histogram, timestamp_ms, written.start_ms);
                    }
                }
                true
            }
        }
    }

    /// The blocks for all receivers of the view, in the order of the samples.
    pub(super) fn finish(mut self) -> Vec<Block> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.message.is_empty() {
            return;
        }
        let raw = self.message.take();
        match wire::compress(&raw) {
            Ok(elements) => {
                let block = Block {
                    target: self.target,
                    receiver: 0,
                    tenant: None,
                    format: self.view.format,
                    samples: number(self.samples),
                    histograms: number(self.histograms),
                    exemplars: number(self.exemplars),
                    min_ms: self.min_ms,
                    max_ms: self.max_ms,
                    raw_len: number(raw.len()),
                    elements: elements.into(),
                };
                self.done.extend(self.view.recipients.iter().filter_map(|one| block_for(one, self.tenants, &block)));
            }
            // Only a length of 4 GiB and more cannot be compressed, and a block is closed long before.
            Err(error) => tracing::error!(%error, "BUG: a block cannot be encoded; its samples are dropped"),
        }
        (self.samples, self.histograms, self.exemplars) = (0, 0, 0);
        (self.min_ms, self.max_ms) = (i64::MAX, i64::MIN);
    }
}

impl Message<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Message::V1(raw) => raw.is_empty(),
            Message::V2(draft) => draft.is_empty(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Message::V1(raw) => raw.len(),
            Message::V2(draft) => draft.len(),
        }
    }

    /// Begins another one.
    fn take(&mut self) -> Vec<u8> {
        match self {
            Message::V1(raw) => std::mem::take(raw),
            Message::V2(draft) => draft.finish(),
        }
    }
}

/// A block as this receiver gets it; `None`, and counted, where nobody says whose it would be there.
fn block_for(recipient: &Recipient, tenants: &Tenants, block: &Block) -> Option<Block> {
    let tenant = match &recipient.tenants {
        None => None,
        Some(rule) => match tenants.by(rule) {
            Some(tenant) => Some(tenant.clone()),
            None => {
                recipient.without_tenant.inc_by(block.samples.into());
                return None;
            }
        },
    };
    Some(Block { receiver: recipient.number, tenant, ..block.clone() })
}

/// A block is closed long before that overflows.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A series as remote write 2.0 has it.
fn what<'a>(written: Written<'a>, view: &View) -> What<'a> {
    What { labels: written.labels, metadata: written.metadata.filter(|_| view.metadata) }
}
