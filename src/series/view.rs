//! How receivers see a series: after their own `write_relabel_configs`.
//!
//! Receivers with the same wishes share a view, so their blocks are encoded once. Whose samples they are is no such wish:
//! it is said of a block, not in it.

use prometheus_client::metrics::counter::Counter;

use super::Metrics;
use crate::config::RemoteWrite;
use crate::model::{Labels, TenantRule, WriteFormat};
use crate::relabel::{self, Rule};
use crate::wire;
use crate::wire::v2::Dictionary;

/// One way in which series are written, and the receivers that want it so.
#[derive(Debug)]
pub struct View {
    /// Who gets them so.
    pub(super) recipients: Vec<Recipient>,
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
}

/// A receiver, as far as it matters to what is made for it.
#[derive(Debug)]
pub(super) struct Recipient {
    pub(super) number: usize,
    /// Under which is counted what is dropped.
    name: String,
    /// By which rule the samples of a target belong to one of its tenants, if it has any.
    pub(super) tenants: Option<TenantRule>,
    /// Samples of targets that belong to none of them.
    pub(super) without_tenant: Counter,
    /// Histograms with listed bounds, which remote write 1.0 cannot hold.
    pub(super) listed_bounds: Counter,
}

/// Of receivers with the same numbers, which stay with their URLs, and the same names the counters are the same ones.
impl PartialEq for Recipient {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number && self.name == other.name && self.tenants == other.tenants
    }
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
        let recipient = Recipient {
            number,
            name: receiver.name.clone(),
            tenants: receiver.tenant.as_ref().map(|tenant| tenant.rule.clone()),
            without_tenant: metrics.without_tenant(receiver),
            listed_bounds: metrics.listed_bounds(receiver),
        };
        let format = receiver.message;
        let metadata = receiver.metadata.send && format == WriteFormat::V2;
        let wishes =
            (format, &receiver.write_relabel, receiver.send_native_histograms, receiver.send_exemplars, metadata);
        match views.iter_mut().find(|view| view.wishes() == wishes) {
            Some(view) => {
                view.recipients.push(recipient);
                view.max_samples = view.max_samples.min(max_samples);
            }
            None => views.push(View {
                recipients: vec![recipient],
                format,
                rules: receiver.write_relabel.clone(),
                max_samples,
                histograms: receiver.send_native_histograms,
                exemplars: receiver.send_exemplars,
                metadata,
            }),
        }
    }
    views.sort_by_key(|view| view.place_in(before).unwrap_or(usize::MAX));
    views
}

impl PartialEq for View {
    fn eq(&self, other: &Self) -> bool {
        let Self { recipients, max_samples, .. } = self;
        *recipients == other.recipients && *max_samples == other.max_samples && self.wishes() == other.wishes()
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
