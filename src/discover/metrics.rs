//! What discovery counts. Names are Prometheus' own, so that its dashboards and alerts work.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::kubernetes;

/// The mechanism of `http_sd_configs`.
pub(super) const HTTP: &str = "http";
/// The buckets of the time that a list takes. Prometheus has a summary of this name; its sum and count are these.
const REFRESH_SECONDS: [f64; 8] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

type LabelSet = Vec<(&'static str, Arc<str>)>;

/// The metrics of discovery. Clones count the same.
#[derive(Clone)]
pub struct Metrics {
    discovered: Family<LabelSet, Gauge>,
    received: Family<LabelSet, Counter>,
    published: Family<LabelSet, Counter>,
    failed: Family<LabelSet, Counter>,
    refresh_failures: Family<LabelSet, Counter>,
    refresh_duration: Family<LabelSet, Histogram>,
    file_mtime: Family<LabelSet, Gauge<f64, AtomicU64>>,
    pub(super) file_read_errors: Counter,
    pub(super) file_watcher_errors: Counter,
    pub(super) http_failures: Counter,
    pub(super) kubernetes: kubernetes::Metrics,
    unconfirmed: Family<LabelSet, Gauge>,
    malformed: Family<LabelSet, Gauge>,
    over_limit: Family<LabelSet, Gauge>,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            discovered: Family::default(),
            received: Family::default(),
            published: Family::default(),
            failed: Family::default(),
            refresh_failures: Family::default(),
            refresh_duration: Family::new_with_constructor(|| Histogram::new(REFRESH_SECONDS)),
            file_mtime: Family::default(),
            file_read_errors: Counter::default(),
            file_watcher_errors: Counter::default(),
            http_failures: Counter::default(),
            kubernetes: kubernetes::Metrics::new(registry),
            unconfirmed: Family::default(),
            malformed: Family::default(),
            over_limit: Family::default(),
        };
        registry.register(
            "meshscrape_discovery_unconfirmed",
            "1 while for too long nothing was heard of whether the pods of a job are still where they were",
            metrics.unconfirmed.clone(),
        );
        registry.register(
            "meshscrape_targets_malformed",
            "What discovery has found for a job now and no target can be made of",
            metrics.malformed.clone(),
        );
        registry.register(
            "meshscrape_targets_over_limit",
            "Targets that are not scraped now because their namespaces have more than namespace_target_limit",
            metrics.over_limit.clone(),
        );
        registry.register(
            "prometheus_sd_discovered_targets",
            "Targets that discovery found, before relabelling",
            metrics.discovered.clone(),
        );
        registry.register(
            "prometheus_sd_received_updates",
            "Changes that sources of targets reported",
            metrics.received.clone(),
        );
        registry.register(
            "prometheus_sd_updates",
            "Sets of targets that were handed to scraping",
            metrics.published.clone(),
        );
        registry.register(
            "prometheus_target_sync_failed",
            "Targets that could not be made of what was discovered, counted at every pass",
            metrics.failed.clone(),
        );
        registry.register_with_unit(
            "prometheus_sd_file_mtime",
            "When a file of targets was last modified, since 1970",
            Unit::Seconds,
            metrics.file_mtime.clone(),
        );
        registry.register(
            "prometheus_sd_file_read_errors",
            "Files of targets that could not be read or not be understood",
            metrics.file_read_errors.clone(),
        );
        registry.register(
            "prometheus_sd_file_watcher_errors",
            "Directories of target files that could not be watched and are only polled",
            metrics.file_watcher_errors.clone(),
        );
        registry.register(
            "prometheus_sd_http_failures",
            "Lists of targets that could not be fetched over HTTP or not be understood",
            metrics.http_failures.clone(),
        );
        registry.register(
            "prometheus_sd_refresh_failures",
            "Lists of targets that could not be brought up to date",
            metrics.refresh_failures.clone(),
        );
        registry.register_with_unit(
            "prometheus_sd_refresh_duration",
            "How long it took to bring a list of targets up to date",
            Unit::Seconds,
            metrics.refresh_duration.clone(),
        );
        metrics
    }

    /// A list that is fetched from time to time was fetched, or could not be.
    pub(super) fn refreshed(&self, mechanism: &'static str, took: Duration, failed: bool) {
        let labels = vec![("mechanism", mechanism.into())];
        self.refresh_duration.get_or_create(&labels).observe(took.as_secs_f64());
        // Also where nothing failed: an alert on the first failure needs the zero before it.
        self.refresh_failures.get_or_create(&labels).inc_by(u64::from(failed));
    }

    /// A job's targets before relabelling.
    pub(super) fn discovered(&self, job: &Arc<str>, count: usize) {
        let labels = vec![("name", "scrape".into()), ("config", Arc::clone(job))];
        self.discovered.get_or_create(&labels).set(gauge(count));
    }

    /// Whether what is known of a job's pods may be wrong.
    pub(super) fn unconfirmed(&self, job: &Arc<str>, unconfirmed: bool) {
        self.unconfirmed.get_or_create(&vec![("config", Arc::clone(job))]).set(unconfirmed.into());
    }

    /// A job is gone.
    pub(super) fn forget(&self, job: &Arc<str>) {
        self.discovered.remove(&vec![("name", "scrape".into()), ("config", Arc::clone(job))]);
        self.unconfirmed.remove(&vec![("config", Arc::clone(job))]);
        self.failed.remove(&vec![("scrape_job", Arc::clone(job))]);
        self.malformed.remove(&vec![("job", Arc::clone(job))]);
        self.over_limit.remove(&vec![("job", Arc::clone(job))]);
    }

    /// A source reported something.
    pub(super) fn received(&self) {
        self.received.get_or_create(&vec![("name", "scrape".into())]).inc();
    }

    /// A set was handed on.
    pub(super) fn published(&self) {
        self.published.get_or_create(&vec![("name", "scrape".into())]).inc();
    }

    /// Malformed targets of one pass over a job.
    pub(super) fn failed(&self, job: &Arc<str>, count: usize) {
        self.failed
            .get_or_create(&vec![("scrape_job", Arc::clone(job))])
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// What a job has that is no target now though no rule drops it: malformed, and more than its namespaces may have.
    pub(super) fn left_out(&self, job: &Arc<str>, malformed: usize, over_limit: usize) {
        let labels = vec![("job", Arc::clone(job))];
        self.malformed.get_or_create(&labels).set(gauge(malformed));
        self.over_limit.get_or_create(&labels).set(gauge(over_limit));
    }

    /// A file was read.
    pub(super) fn file_mtime(&self, path: &str, seconds: f64) {
        self.file_mtime.get_or_create(&vec![("filename", path.into())]).set(seconds);
    }

    /// A file is gone.
    pub(super) fn file_gone(&self, path: &str) {
        self.file_mtime.remove(&vec![("filename", path.into())]);
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
