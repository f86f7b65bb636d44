//! How receivers see a series: after their own `write_relabel_configs`.
//!
//! Receivers with the same wishes share a view, so their blocks are encoded once.

use prometheus_client::metrics::counter::Counter;

use super::Metrics;
use crate::config::RemoteWrite;
use crate::model::{Labels, WriteFormat};
use crate::relabel::{self, Rule};
use crate::wire;
use crate::wire::v2::Dictionary;

/// One way in which series are written, and the receivers that want it so.
#[derive(Debug)]
pub struct View {
    /// The numbers of the receivers.
    pub receivers: Vec<usize>,
    /// Their names, under which is counted what is dropped.
    names: Vec<String>,
    /// As which message they get them.
    pub(super) format: WriteFormat,
    /// `write_relabel_configs`.
    rules: Vec<Rule>,
    /// The most samples a block may hold: the smallest `max_samples_per_send` of the receivers.
    pub max_samples: usize,
    /// Whether native histograms are for these receivers.
    pub(super) histograms: bool,
    /// Whether exemplars are for these receivers.
    pub(super) exemplars: bool,
    /// Whether each series says what it is: only remote write 2.0 has a place for it.
    pub(super) metadata: bool,
    /// For each receiver, the histograms with listed bounds, which remote write 1.0 cannot hold.
    pub(super) listed_bounds: Vec<Counter>,
}

/// The views of all receivers, each with its number. Those that are in `before` keep its order and the others come behind
/// them: so a table that was encoded for `before` has only to add what is new.
pub fn views_of<'r>(
    receivers: impl IntoIterator<Item = (usize, &'r RemoteWrite)>,
    before: &[View],
    metrics: &Metrics,
) -> Vec<View> {
    let mut views: Vec<View> = Vec::new();
    for (number, receiver) in receivers {
        let max_samples = receiver.queue.max_samples_per_send.max(1);
        let listed_bounds = metrics.listed_bounds(receiver);
        let format = receiver.message;
        let metadata = receiver.metadata.send && format == WriteFormat::V2;
        let wishes =
            (format, &receiver.write_relabel, receiver.send_native_histograms, receiver.send_exemplars, metadata);
        match views.iter_mut().find(|view| view.wishes() == wishes) {
            Some(view) => {
                view.receivers.push(number);
                view.names.push(receiver.name.clone());
                view.listed_bounds.push(listed_bounds);
                view.max_samples = view.max_samples.min(max_samples);
            }
            None => views.push(View {
                receivers: vec![number],
                names: vec![receiver.name.clone()],
                format,
                rules: receiver.write_relabel.clone(),
                max_samples,
                histograms: receiver.send_native_histograms,
                exemplars: receiver.send_exemplars,
                metadata,
                listed_bounds: vec![listed_bounds],
            }),
        }
    }
    views.sort_by_key(|view| view.place_in(before).unwrap_or(usize::MAX));
    views
}

/// Of receivers with the same numbers, which stay with their URLs, and the same names the counters are the same ones.
impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        let Self { receivers, names, max_samples, .. } = self;
        *receivers == other.receivers
            && *names == other.names
            && *max_samples == other.max_samples
            && self.wishes() == other.wishes()
    }
}

impl View {
    /// Where among `others` series are seen in the same way.
    pub(super) fn place_in(&self, others: &[View]) -> Option<usize> {
        others.iter().position(|other| other.wishes() == self.wishes())
    }

    /// What receivers that share a view have in common.
    fn wishes(&self) -> (WriteFormat, &Vec<Rule>, bool, bool, bool) {
        (self.format, &self.rules, self.histograms, self.exemplars, self.metadata)
    }

    /// The encoded labels of a series in this view, for 2.0 in the numbers of its target's dictionary; `None` if the view
    /// drops it. `written` has its external labels.
    pub(super) fn encode(&self, written: &Labels, dictionary: &mut Dictionary) -> Option<Box<[u8]>> {
        let mut encode = |labels: &Labels| match self.format {
            WriteFormat::V1 => wire::encode_labels(labels).into_boxed_slice(),
            WriteFormat::V2 => dictionary.encode(labels).into_boxed_slice(),
        };
        if self.rules.is_empty() {
            return Some(encode(written));
        }
        let mut labels = written.clone();
        let kept = relabel::apply(&self.rules, &mut labels) && !labels.is_empty();
        kept.then(|| encode(&labels))
    }
}
