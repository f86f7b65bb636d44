//! What sending counts, under the names that Prometheus' dashboards and alerts use.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::kinds::Kinds;
use super::labels;
use crate::config::RemoteWrite;

type LabelSet = Vec<(String, String)>;

/// Prometheus' buckets for requests: its default ones, and some for receivers that take their time.
const SECONDS: [f64; 15] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    remote_name: String,
    url: String,
    reason: &'static str,
}

impl Dropped {
    fn too_old(remote: &RemoteWrite) -> Self {
        Self { remote_name: remote.name.clone(), url: remote.shown_url(), reason: "too_old" }
    }
}

/// One for each kind.
#[derive(Clone, Default)]
pub(super) struct ByKind<T> {
    samples: T,
    histograms: T,
    exemplars: T,
}

impl ByKind<Family<LabelSet, Counter>> {
    fn of(&self, labels: &LabelSet) -> ByKind<Counter> {
        let Self { samples, histograms, exemplars } = self;
        ByKind {
            samples: samples.get_or_create_owned(labels),
            histograms: histograms.get_or_create_owned(labels),
            exemplars: exemplars.get_or_create_owned(labels),
        }
    }
}

impl ByKind<Counter> {
    pub(super) fn add(&self, more: Kinds) {
        self.samples.inc_by(more.samples);
        self.histograms.inc_by(more.histograms);
        self.exemplars.inc_by(more.exemplars);
    }
}

/// Where it is counted that histograms are not sent to a receiver; some are dropped before they come here.
#[derive(Clone, Default)]
pub struct HistogramsDropped {
    /// With listed bounds, which its message cannot hold.
    pub listed_bounds: Counter,
    /// They grew older than `sample_age_limit`.
    pub too_old: Counter,
}

/// The metrics of all receivers. Clones count the same.
#[derive(Clone)]
pub struct Metrics {
    sent: ByKind<Family<LabelSet, Counter>>,
    failed: ByKind<Family<LabelSet, Counter>>,
    retried: ByKind<Family<LabelSet, Counter>>,
    samples_dropped: Family<Dropped, Counter>,
    exemplars_dropped: Family<Dropped, Counter>,
    enqueue_retries: Family<LabelSet, Counter>,
    bytes: Family<LabelSet, Counter>,
    metadata: Family<LabelSet, Counter>,
    metadata_failed: Family<LabelSet, Counter>,
    metadata_retried: Family<LabelSet, Counter>,
    metadata_bytes: Family<LabelSet, Counter>,
    duration: Family<LabelSet, Histogram, fn() -> Histogram>,
    highest_sent: Family<LabelSet, Gauge<f64, AtomicU64>>,
    max_samples_per_send: Family<LabelSet, Gauge>,
    shard_capacity: Family<LabelSet, Gauge>,
    shards: Family<LabelSet, Gauge>,
    shards_min: Family<LabelSet, Gauge>,
    shards_max: Family<LabelSet, Gauge>,
    shards_desired: Family<LabelSet, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            sent: ByKind::default(),
            failed: ByKind::default(),
            retried: ByKind::default(),
            samples_dropped: Family::default(),
            exemplars_dropped: Family::default(),
            enqueue_retries: Family::default(),
            bytes: Family::default(),
            metadata: Family::default(),
            metadata_failed: Family::default(),
            metadata_retried: Family::default(),
            metadata_bytes: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            highest_sent: Family::default(),
            max_samples_per_send: Family::default(),
            shard_capacity: Family::default(),
            shards: Family::default(),
            shards_min: Family::default(),
            shards_max: Family::default(),
            shards_desired: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("prometheus_remote_storage");
        let ByKind { samples, histograms, exemplars } = &metrics.sent;
        registry.register("samples", "Samples sent, every attempt counts", samples.clone());
        registry.register("histograms", "Native histograms sent, every attempt counts", histograms.clone());
        registry.register("exemplars", "Exemplars sent, every attempt counts", exemplars.clone());
        let ByKind { samples, histograms, exemplars } = &metrics.failed;
        registry.register(
            "samples_failed",
            "Samples that the receiver rejected or says not to have written, or that were left at the end",
            samples.clone(),
        );
        registry.register(
            "histograms_failed",
            "Native histograms that the receiver rejected or says not to have written, or that were left at the end",
            histograms.clone(),
        );
        registry.register(
            "exemplars_failed",
            "Exemplars that the receiver rejected or says not to have written, or that were left at the end",
            exemplars.clone(),
        );
        let ByKind { samples, histograms, exemplars } = &metrics.retried;
        registry.register("samples_retried", "Samples that had to be sent again", samples.clone());
        registry.register("histograms_retried", "Native histograms that had to be sent again", histograms.clone());
        registry.register("exemplars_retried", "Exemplars that had to be sent again", exemplars.clone());
        registry.register("samples_dropped", "Samples that were not sent, by reason", metrics.samples_dropped.clone());
        registry.register(
            "exemplars_dropped",
            "Exemplars that were not sent, by reason",
            metrics.exemplars_dropped.clone(),
        );
        registry.register(
            "enqueue_retries",
            "Always 0: to take samples in never waits for a receiver",
            metrics.enqueue_retries.clone(),
        );
        registry.register("bytes", "Bytes of requests, compressed, every attempt counts", metrics.bytes.clone());
        registry.register("metadata", "Descriptions of metric families sent", metrics.metadata.clone());
        registry.register(
            "metadata_failed",
            "Descriptions of metric families that the receiver did not take; they are sent again with the next ones",
            metrics.metadata_failed.clone(),
        );
        registry.register(
            "metadata_retried",
            "Always 0: what a receiver did not take is told again with the next ones",
            metrics.metadata_retried.clone(),
        );
        registry.register(
            "metadata_bytes",
            "Bytes of requests with metadata, compressed",
            metrics.metadata_bytes.clone(),
        );
        registry.register_with_unit(
            "sent_batch_duration",
            "Time from the start of a request to the end of its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "queue_highest_sent_timestamp",
            "Newest timestamp that the receiver has answered for good",
            Unit::Seconds,
            metrics.highest_sent.clone(),
        );
        registry.register("max_samples_per_send", "Most samples of one request", metrics.max_samples_per_send.clone());
        registry.register(
            "shard_capacity",
            "Most samples of one of the shards: each has the samples of one request",
            metrics.shard_capacity.clone(),
        );
        registry.register(
            "shards",
            "Leases of samples that are under way now, each with one request at a time",
            metrics.shards.clone(),
        );
        registry.register(
            "shards_min",
            "Fewest of them that are possible while there are samples",
            metrics.shards_min.clone(),
        );
        registry.register("shards_max", "Most of them, max_requests_in_flight", metrics.shards_max.clone());
        registry.register(
            "shards_desired",
            "How many of them the receiver would need to keep up, by the time that its requests take",
            metrics.shards_desired.clone(),
        );
        metrics
    }

    /// This receiver is sent only what is left, so that there is nothing to wait for. What was sent and lost stays counted.
    pub fn forget(&self, remote: &RemoteWrite) {
        let labels = labels(remote);
        self.highest_sent.remove(&labels);
        for gauges in
            [&self.max_samples_per_send, &self.shard_capacity, &self.shards, &self.shards_min, &self.shards_max]
        {
            gauges.remove(&labels);
        }
        self.shards_desired.remove(&labels);
    }

    /// Nothing more will be counted of this receiver: nothing is left of it.
    pub fn remove(&self, remote: &RemoteWrite) {
        self.forget(remote);
        let labels = labels(remote);
        for ByKind { samples, histograms, exemplars } in [&self.sent, &self.failed, &self.retried] {
            for counters in [samples, histograms, exemplars] {
                counters.remove(&labels);
            }
        }
        for counters in [
            &self.bytes,
            &self.enqueue_retries,
            &self.metadata,
            &self.metadata_failed,
            &self.metadata_retried,
            &self.metadata_bytes,
        ] {
            counters.remove(&labels);
        }
        self.samples_dropped.remove(&Dropped::too_old(remote));
        self.exemplars_dropped.remove(&Dropped::too_old(remote));
        self.duration.remove(&labels);
    }

    /// The handles of one receiver; they exist from now on, so that a rate can be taken from the start. `old_histograms`
    /// counts what of these grew too old.
    pub(super) fn of(&self, remote: &RemoteWrite, old_histograms: Counter) -> ReceiverMetrics {
        let labels = labels(remote);
        self.shards_min.get_or_create(&labels).set(1);
        let in_flight = i64::try_from(remote.queue.max_requests_in_flight).unwrap_or(i64::MAX);
        self.shards_max.get_or_create(&labels).set(in_flight);
        let max_samples = i64::try_from(remote.queue.max_samples_per_send).unwrap_or(i64::MAX);
        self.max_samples_per_send.get_or_create(&labels).set(max_samples);
        self.shard_capacity.get_or_create(&labels).set(max_samples);
        // They stay at 0.
        drop(self.enqueue_retries.get_or_create(&labels));
        drop(self.metadata_retried.get_or_create(&labels));
        ReceiverMetrics {
            sent: self.sent.of(&labels),
            failed: self.failed.of(&labels),
            retried: self.retried.of(&labels),
            too_old: ByKind {
                samples: self.samples_dropped.get_or_create_owned(&Dropped::too_old(remote)),
                histograms: old_histograms,
                exemplars: self.exemplars_dropped.get_or_create_owned(&Dropped::too_old(remote)),
            },
            bytes: self.bytes.get_or_create_owned(&labels),
            metadata: self.metadata.get_or_create_owned(&labels),
            metadata_failed: self.metadata_failed.get_or_create_owned(&labels),
            metadata_bytes: self.metadata_bytes.get_or_create_owned(&labels),
            duration: self.duration.get_or_create_owned(&labels),
            highest_sent: self.highest_sent.get_or_create_owned(&labels),
            shards: self.shards.get_or_create_owned(&labels),
            desired: self.shards_desired.get_or_create_owned(&labels),
        }
    }
}

/// The metrics of one receiver.
pub(super) struct ReceiverMetrics {
    pub(super) sent: ByKind<Counter>,
    pub(super) failed: ByKind<Counter>,
    pub(super) retried: ByKind<Counter>,
    pub(super) too_old: ByKind<Counter>,
    pub(super) bytes: Counter,
    pub(super) metadata: Counter,
    pub(super) metadata_failed: Counter,
    pub(super) metadata_bytes: Counter,
    pub(super) duration: Histogram,
    highest_sent: Gauge<f64, AtomicU64>,
    shards: Gauge,
    desired: Gauge<f64, AtomicU64>,
}

impl ReceiverMetrics {
    /// So many would have to be.
    pub(super) fn show_desired(&self, leases: f64) {
        self.desired.set(leases);
    }

    /// So many leases are under way.
    pub(super) fn show_in_flight(&self, leases: usize) {
        self.shards.set(i64::try_from(leases).unwrap_or(i64::MAX));
    }

    /// The receiver has answered for samples up to this time.
    pub(super) fn settled(&self, newest_ms: i64) {
        let seconds = newest_ms as f64 / 1000.0;
        if seconds > self.highest_sent.get() {
            self.highest_sent.set(seconds);
        }
    }
}
