//! What the spool counts. Names are Prometheus' own where it has them, so that its dashboards and alerts work.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

type LabelSet = Vec<(String, String)>;

/// The metrics of all queues. Clones count the same.
#[derive(Clone)]
pub struct Metrics {
    highest_in_seconds: Gauge<f64, AtomicU64>,
    pending_samples: Family<LabelSet, Gauge>,
    waiting_bytes: Family<LabelSet, Gauge>,
    capacity_bytes: Family<LabelSet, Gauge>,
    dropped_blocks: Family<LabelSet, Counter>,
    dropped_samples: Family<LabelSet, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            highest_in_seconds: Gauge::default(),
            pending_samples: Family::default(),
            waiting_bytes: Family::default(),
            capacity_bytes: Family::default(),
            dropped_blocks: Family::default(),
            dropped_samples: Family::default(),
        };
        registry.register_with_unit(
            "prometheus_remote_storage_highest_timestamp_in",
            "Newest timestamp of all samples that came in for a receiver",
            Unit::Seconds,
            metrics.highest_in_seconds.clone(),
        );
        registry.register(
            "prometheus_remote_storage_samples_pending",
            "Samples that wait for a receiver or are on their way to it",
            metrics.pending_samples.clone(),
        );
        registry.register_with_unit(
            "meshscrape_spool_waiting",
            "Bytes of blocks that wait for a receiver",
            Unit::Bytes,
            metrics.waiting_bytes.clone(),
        );
        registry.register_with_unit(
            "meshscrape_spool_capacity",
            "Bytes of blocks that may wait for a receiver before the oldest are dropped",
            Unit::Bytes,
            metrics.capacity_bytes.clone(),
        );
        registry.register(
            "meshscrape_spool_dropped_blocks",
            "Blocks that were dropped because the queue of their receiver was full",
            metrics.dropped_blocks.clone(),
        );
        registry.register(
            "meshscrape_spool_dropped_samples",
            "Samples of blocks that were dropped because the queue of their receiver was full",
            metrics.dropped_samples.clone(),
        );
        metrics
    }

    /// The queue with these labels takes nothing any more, and its state is nobody's business. What was lost stays counted.
    pub(super) fn forget(&self, labels: &LabelSet) {
        self.pending_samples.remove(labels);
        self.waiting_bytes.remove(labels);
        self.capacity_bytes.remove(labels);
    }

    /// Nothing more will be counted of queues with these labels: nothing is left of them.
    pub fn remove(&self, labels: &LabelSet) {
        self.forget(labels);
        self.dropped_blocks.remove(labels);
        self.dropped_samples.remove(labels);
    }

    /// The handles of one queue.
    pub(super) fn queue(&self, labels: &LabelSet) -> QueueMetrics {
        QueueMetrics {
            highest_in_seconds: self.highest_in_seconds.clone(),
            pending_samples: self.pending_samples.get_or_create_owned(labels),
            waiting_bytes: self.waiting_bytes.get_or_create_owned(labels),
            capacity_bytes: self.capacity_bytes.get_or_create_owned(labels),
            dropped_blocks: self.dropped_blocks.get_or_create_owned(labels),
            dropped_samples: self.dropped_samples.get_or_create_owned(labels),
        }
    }
}

/// The metrics of one queue.
pub(super) struct QueueMetrics {
    highest_in_seconds: Gauge<f64, AtomicU64>,
    pub(super) pending_samples: Gauge,
    pub(super) waiting_bytes: Gauge,
    pub(super) capacity_bytes: Gauge,
    pub(super) dropped_blocks: Counter,
    pub(super) dropped_samples: Counter,
}

impl QueueMetrics {
    /// A sample of this time came in.
    pub(super) fn saw(&self, timestamp_ms: i64) {
        let seconds = timestamp_ms as f64 / 1000.0;
        if seconds > self.highest_in_seconds.get() {
            self.highest_in_seconds.set(seconds);
        }
    }
}
