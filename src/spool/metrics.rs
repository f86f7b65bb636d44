//! What the spool counts. Names are Prometheus' own where it has them, so that its dashboards and alerts work.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::QueueSettings;
use super::count::Count;
use super::lost::Lost;
use super::queue::gauge;

type LabelSet = Vec<(String, String)>;

/// What is pending, by kind, in the order of [`QueueMetrics::pending`].
const KINDS: [(&str, &str); 3] = [
    ("prometheus_remote_storage_samples_pending", "Samples that wait for a receiver or are on their way to it"),
    ("prometheus_remote_storage_histograms_pending", "Histograms that wait for a receiver or are on their way to it"),
    ("prometheus_remote_storage_exemplars_pending", "Exemplars that wait for a receiver or are on their way to it"),
];

/// The metrics of all queues. Clones count the same.
#[derive(Clone)]
pub struct Metrics {
    highest_in_seconds: Gauge<f64, AtomicU64>,
    queue_highest: Family<LabelSet, Gauge<f64, AtomicU64>>,
    pending: [Family<LabelSet, Gauge>; KINDS.len()],
    waiting_bytes: Family<LabelSet, Gauge>,
    capacity_bytes: Family<LabelSet, Gauge>,
    dropped_blocks: Family<LabelSet, Counter>,
    dropped_samples: Family<LabelSet, Counter>,
    on_disk: Family<LabelSet, Gauge>,
    disk_bytes: Family<LabelSet, Gauge>,
    disk_capacity_bytes: Family<LabelSet, Gauge>,
    oldest_age: Family<LabelSet, Gauge<f64, AtomicU64>>,
    damaged: Family<LabelSet, Counter>,
    torn: Family<LabelSet, Counter>,
    disk_errors: Family<LabelSet, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            highest_in_seconds: Gauge::default(),
            queue_highest: Family::default(),
            pending: <_>::default(),
            waiting_bytes: Family::default(),
            capacity_bytes: Family::default(),
            dropped_blocks: Family::default(),
            dropped_samples: Family::default(),
            on_disk: Family::default(),
            disk_bytes: Family::default(),
            disk_capacity_bytes: Family::default(),
            oldest_age: Family::default(),
            damaged: Family::default(),
            torn: Family::default(),
            disk_errors: Family::default(),
        };
        registry.register_with_unit(
            "prometheus_remote_storage_highest_timestamp_in",
            "Newest timestamp of all samples that came in for a receiver",
            Unit::Seconds,
            metrics.highest_in_seconds.clone(),
        );
        registry.register_with_unit(
            "prometheus_remote_storage_queue_highest_timestamp",
            "Newest timestamp of all samples that came in for this receiver",
            Unit::Seconds,
            metrics.queue_highest.clone(),
        );
        for ((name, help), pending) in KINDS.into_iter().zip(&metrics.pending) {
            registry.register(name, help, pending.clone());
        }
        registry.register_with_unit(
            "meshscrape_spool_waiting",
            "Bytes of blocks that wait in memory for a receiver",
            Unit::Bytes,
            metrics.waiting_bytes.clone(),
        );
        registry.register_with_unit(
            "meshscrape_spool_capacity",
            "Bytes of blocks that may wait in memory for a receiver before the oldest are dropped",
            Unit::Bytes,
            metrics.capacity_bytes.clone(),
        );
        registry.register(
            "meshscrape_spool_dropped_blocks",
            "Blocks that were dropped before their receiver had them, by reason",
            metrics.dropped_blocks.clone(),
        );
        registry.register(
            "meshscrape_spool_dropped_samples",
            "Samples of blocks that were dropped before their receiver had them, by reason",
            metrics.dropped_samples.clone(),
        );
        metrics.register_disk(registry);
        metrics
    }

    fn register_disk(&self, registry: &mut Registry) {
        registry.register(
            "meshscrape_spool_on_disk",
            "1 if the blocks for a receiver are written to disk, 0 if they are kept in memory only",
            self.on_disk.clone(),
        );
        registry.register_with_unit(
            "meshscrape_spool_disk",
            "Bytes of the files that hold the blocks for a receiver",
            Unit::Bytes,
            self.disk_bytes.clone(),
        );
        registry.register_with_unit(
            "meshscrape_spool_disk_capacity",
            "Bytes that these files may have before the oldest blocks are dropped",
            Unit::Bytes,
            self.disk_capacity_bytes.clone(),
        );
        registry.register_with_unit(
            "meshscrape_spool_oldest_age",
            "How long the oldest block that is on disk and not delivered has been there while an agent ran, to the precision of a segment",
            Unit::Seconds,
            self.oldest_age.clone(),
        );
        registry.register(
            "meshscrape_spool_damaged_records",
            "Places on disk that held no valid record",
            self.damaged.clone(),
        );
        registry.register(
            "meshscrape_spool_torn_writes",
            "Records whose write was interrupted, found when the files were opened",
            self.torn.clone(),
        );
        registry.register(
            "meshscrape_spool_disk_errors",
            "Operations on these files that failed, by operation",
            self.disk_errors.clone(),
        );
    }

    /// The queue with these labels takes nothing any more, and its state is nobody's business. What was lost stays counted.
    pub(super) fn forget(&self, labels: &LabelSet) {
        let gauges =
            [&self.waiting_bytes, &self.capacity_bytes, &self.on_disk, &self.disk_bytes, &self.disk_capacity_bytes];
        for gauge in self.pending.iter().chain(gauges) {
            gauge.remove(labels);
        }
        self.oldest_age.remove(labels);
        self.queue_highest.remove(labels);
    }

    /// Nothing more will be counted of queues with these labels: nothing is left of them.
    pub fn remove(&self, labels: &LabelSet) {
        self.forget(labels);
        for why in Lost::ALL {
            let labels = with(labels, "reason", why.name());
            self.dropped_blocks.remove(&labels);
            self.dropped_samples.remove(&labels);
        }
        for operation in OPERATIONS {
            self.disk_errors.remove(&with(labels, "operation", operation));
        }
        self.damaged.remove(labels);
        self.torn.remove(labels);
    }

    /// The handles of one queue.
    pub(super) fn queue(&self, settings: &QueueSettings) -> QueueMetrics {
        let labels = &settings.labels;
        let capacity_bytes = self.capacity_bytes.get_or_create_owned(labels);
        capacity_bytes.set(gauge(settings.capacity_bytes));
        let on_disk = self.on_disk.get_or_create_owned(labels);
        on_disk.set(0);
        QueueMetrics {
            highest_in_seconds: self.highest_in_seconds.clone(),
            queue_highest: self.queue_highest.get_or_create_owned(labels),
            pending: self.pending.each_ref().map(|pending| pending.get_or_create_owned(labels)),
            waiting_bytes: self.waiting_bytes.get_or_create_owned(labels),
            dropped: Lost::ALL
                .into_iter()
                // Without a disk there is one reason.
                .filter(|why| settings.disk.is_some() || *why == Lost::Memory)
                .map(|why| {
                    let labels = with(labels, "reason", why.name());
                    let blocks = self.dropped_blocks.get_or_create_owned(&labels);
                    (why, blocks, self.dropped_samples.get_or_create_owned(&labels))
                })
                .collect(),
            on_disk,
            disk: settings.disk.as_ref().map(|disk| {
                let disk_capacity_bytes = self.disk_capacity_bytes.get_or_create_owned(labels);
                disk_capacity_bytes.set(gauge(disk.limits.max_bytes));
                DiskMetrics {
                    bytes: self.disk_bytes.get_or_create_owned(labels),
                    oldest_age: self.oldest_age.get_or_create_owned(labels),
                    damaged: self.damaged.get_or_create_owned(labels),
                    torn: self.torn.get_or_create_owned(labels),
                    errors: OPERATIONS
                        .into_iter()
                        .map(|what| (what, self.disk_errors.get_or_create_owned(&with(labels, "operation", what))))
                        .collect(),
                }
            }),
        }
    }
}

fn with(labels: &LabelSet, name: &str, value: &str) -> LabelSet {
    let mut more = labels.clone();
    more.push((name.to_owned(), value.to_owned()));
    more
}

/// What is done to files, as the metric of errors names it.
const OPERATIONS: [&str; 6] = ["open", "write", "read", "delete", "acknowledge", "sync"];

/// The metrics of one queue.
pub(super) struct QueueMetrics {
    highest_in_seconds: Gauge<f64, AtomicU64>,
    queue_highest: Gauge<f64, AtomicU64>,
    pending: [Gauge; KINDS.len()],
    pub(super) waiting_bytes: Gauge,
    dropped: Vec<(Lost, Counter, Counter)>,
    pub(super) on_disk: Gauge,
    /// Where there is one.
    pub(super) disk: Option<DiskMetrics>,
}

/// The metrics of the disk part of one queue.
pub(super) struct DiskMetrics {
    pub(super) bytes: Gauge,
    pub(super) oldest_age: Gauge<f64, AtomicU64>,
    pub(super) damaged: Counter,
    pub(super) torn: Counter,
    errors: Vec<(&'static str, Counter)>,
}

impl QueueMetrics {
    /// A sample of this time came in.
    pub(super) fn saw(&self, timestamp_ms: i64) {
        let seconds = timestamp_ms as f64 / 1000.0;
        for highest in [&self.highest_in_seconds, &self.queue_highest] {
            if seconds > highest.get() {
                highest.set(seconds);
            }
        }
    }

    /// So much waits or is leased.
    pub(super) fn pending(&self, pending: Count) {
        let Count { blocks: _, samples, histograms, exemplars } = pending;
        // What was read before it was known which are histograms counts as samples.
        for (gauge, now) in self.pending.iter().zip([samples.saturating_sub(histograms), histograms, exemplars]) {
            gauge.set(super::queue::gauge(now));
        }
    }

    /// So much more was dropped.
    pub(super) fn lost(&self, why: Lost, lost: Count) {
        if let Some((_, blocks, samples)) = self.dropped.iter().find(|(known, ..)| *known == why)
            && lost != Count::default()
        {
            blocks.inc_by(lost.blocks);
            samples.inc_by(lost.samples);
        }
    }
}

impl DiskMetrics {
    /// An operation has failed.
    pub(super) fn failed(&self, operation: &str) {
        if let Some((_, counter)) = self.errors.iter().find(|(known, _)| *known == operation) {
            counter.inc();
        }
    }
}
