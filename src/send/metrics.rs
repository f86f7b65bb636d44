//! What sending counts, under the names that Prometheus' dashboards and alerts use.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

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

/// The metrics of all receivers. Clones count the same.
#[derive(Clone)]
pub struct Metrics {
    samples: Family<LabelSet, Counter>,
    failed: Family<LabelSet, Counter>,
    retried: Family<LabelSet, Counter>,
    dropped: Family<Dropped, Counter>,
    bytes: Family<LabelSet, Counter>,
    metadata: Family<LabelSet, Counter>,
    metadata_failed: Family<LabelSet, Counter>,
    metadata_bytes: Family<LabelSet, Counter>,
    duration: Family<LabelSet, Histogram, fn() -> Histogram>,
    highest_sent: Family<LabelSet, Gauge<f64, AtomicU64>>,
    max_samples_per_send: Family<LabelSet, Gauge>,
    shards: Family<LabelSet, Gauge>,
    shards_min: Family<LabelSet, Gauge>,
    shards_max: Family<LabelSet, Gauge>,
    shards_desired: Family<LabelSet, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            samples: Family::default(),
            failed: Family::default(),
            retried: Family::default(),
            dropped: Family::default(),
            bytes: Family::default(),
            metadata: Family::default(),
            metadata_failed: Family::default(),
            metadata_bytes: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            highest_sent: Family::default(),
            max_samples_per_send: Family::default(),
            shards: Family::default(),
            shards_min: Family::default(),
            shards_max: Family::default(),
            shards_desired: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("prometheus_remote_storage");
        registry.register("samples", "Samples sent, every attempt counts", metrics.samples.clone());
        registry.register(
            "samples_failed",
            "Samples that the receiver rejected, or that were left at the end",
            metrics.failed.clone(),
        );
        registry.register("samples_retried", "Samples that had to be sent again", metrics.retried.clone());
        registry.register("samples_dropped", "Samples that were not sent, by reason", metrics.dropped.clone());
        registry.register("bytes", "Bytes of requests, compressed, every attempt counts", metrics.bytes.clone());
        registry.register("metadata", "Descriptions of metric families sent", metrics.metadata.clone());
        registry.register(
            "metadata_failed",
            "Descriptions of metric families that the receiver did not take; they are sent again with the next ones",
            metrics.metadata_failed.clone(),
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
        for gauges in [&self.max_samples_per_send, &self.shards, &self.shards_min, &self.shards_max] {
            gauges.remove(&labels);
        }
        self.shards_desired.remove(&labels);
    }

    /// Nothing more will be counted of this receiver: nothing is left of it.
    pub fn remove(&self, remote: &RemoteWrite) {
        self.forget(remote);
        let labels = labels(remote);
        for counters in [
            &self.samples,
            &self.failed,
            &self.retried,
            &self.bytes,
            &self.metadata,
            &self.metadata_failed,
            &self.metadata_bytes,
        ] {
            counters.remove(&labels);
        }
        self.dropped.remove(&Dropped::too_old(remote));
        self.duration.remove(&labels);
    }

    /// The handles of one receiver; they exist from now on, so that a rate can be taken from the start.
    pub(super) fn of(&self, remote: &RemoteWrite) -> ReceiverMetrics {
        let labels = labels(remote);
        self.shards_min.get_or_create(&labels).set(1);
        let in_flight = i64::try_from(remote.queue.max_requests_in_flight).unwrap_or(i64::MAX);
        self.shards_max.get_or_create(&labels).set(in_flight);
        let max_samples = i64::try_from(remote.queue.max_samples_per_send).unwrap_or(i64::MAX);
        self.max_samples_per_send.get_or_create(&labels).set(max_samples);
        ReceiverMetrics {
            samples: self.samples.get_or_create_owned(&labels),
            failed: self.failed.get_or_create_owned(&labels),
            retried: self.retried.get_or_create_owned(&labels),
            too_old: self.dropped.get_or_create_owned(&Dropped::too_old(remote)),
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
    pub(super) samples: Counter,
    pub(super) failed: Counter,
    pub(super) retried: Counter,
    pub(super) too_old: Counter,
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
