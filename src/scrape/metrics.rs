//! What scraping tells of itself on `/metrics`.
//!
//! Two families that Prometheus has as summaries are histograms here: `_sum` and `_count`, by which dashboards go, are alike.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::model::Reason;
use crate::series::{Counts, Output};

use super::merge::Part;

/// Counters of all jobs; label values are job names and intervals from the configuration and the closed list of reasons.
#[derive(Clone, Debug)]
pub struct Metrics {
    scrapes: Family<JobLabel, Counter>,
    failures: Family<FailureLabels, Counter>,
    samples: Family<JobLabel, Counter>,
    weaker_matches: Family<JobLabel, Counter>,
    partial_merges: Family<PartLabels, Counter>,
    handshakes: Family<JobLabel, Counter>,
    forged: Counter,
    duplicates: Counter,
    out_of_order: Counter,
    out_of_bounds: Counter,
    exemplars_out_of_order: Counter,
    over_sample_limit: Counter,
    over_bucket_limit: Counter,
    over_body_limit: Counter,
    over_target_limit: Counter,
    over_label_limits: Counter,
    targets: Family<PoolLabel, Gauge>,
    intervals: Family<IntervalLabel, Histogram, fn() -> Histogram>,
    syncs: Family<PoolLabel, Histogram, fn() -> Histogram>,
    held_bytes: Gauge,
    samples_in: Counter,
    histograms_in: Counter,
    exemplars_in: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabel {
    job: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabel {
    scrape_job: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct IntervalLabel {
    interval: String,
}

/// From the shortest intervals that anybody uses to the longest.
fn interval_lengths() -> Histogram {
    Histogram::new([0.1, 0.5, 1.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0])
}

/// From a few targets to thousands of which all have changed.
fn sync_lengths() -> Histogram {
    Histogram::new([0.000_1, 0.001, 0.01, 0.1, 1.0, 10.0])
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailureLabels {
    job: String,
    reason: ReasonLabel,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartLabels {
    job: String,
    part: Part,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.name().encode(encoder)
    }
}

impl Metrics {
    fn unregistered() -> Self {
        Self {
            scrapes: Family::default(),
            failures: Family::default(),
            samples: Family::default(),
            weaker_matches: Family::default(),
            partial_merges: Family::default(),
            handshakes: Family::default(),
            forged: Counter::default(),
            duplicates: Counter::default(),
            out_of_order: Counter::default(),
            out_of_bounds: Counter::default(),
            exemplars_out_of_order: Counter::default(),
            over_sample_limit: Counter::default(),
            over_bucket_limit: Counter::default(),
            over_body_limit: Counter::default(),
            over_target_limit: Counter::default(),
            over_label_limits: Counter::default(),
            targets: Family::default(),
            intervals: Family::new_with_constructor(interval_lengths),
            syncs: Family::new_with_constructor(sync_lengths),
            held_bytes: Gauge::default(),
            samples_in: Counter::default(),
            histograms_in: Counter::default(),
            exemplars_in: Counter::default(),
        }
    }

    /// Registers the counters.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::unregistered();
        let m = metrics.clone();
        registry.register("meshscrape_scrapes", "Scrapes attempted", m.scrapes);
        registry.register("meshscrape_scrape_failures", "Scrapes that failed, by reason", m.failures);
        registry.register("meshscrape_samples_scraped", "Samples in successful scrapes", m.samples);
        registry.register(
            "meshscrape_weaker_identity_matches",
            "Scrapes accepted only because the job's match asks for less than the whole SPIFFE ID",
            m.weaker_matches,
        );
        registry.register(
            "meshscrape_partial_merges",
            "Scrapes that told that Istio's agent had left a part out of merged answers since the scrape before",
            m.partial_merges,
        );
        registry.register(
            "meshscrape_handshakes",
            "New connections of scrapes whose peer was verified; other scrapes went over kept ones",
            m.handshakes,
        );
        registry.register(
            "meshscrape_forged_synthetic_samples",
            "Samples dropped because they claimed to be up or another series that only the scraper writes",
            m.forged,
        );
        registry.register(
            "prometheus_target_scrapes_sample_duplicate_timestamp",
            "Samples dropped because their series already had one in the scrape",
            m.duplicates,
        );
        registry.register(
            "prometheus_target_scrapes_sample_out_of_order",
            "Samples dropped because their series has a newer one",
            m.out_of_order,
        );
        registry.register(
            "prometheus_target_scrapes_sample_out_of_bounds",
            "Samples dropped because they lie more than ten minutes ahead",
            m.out_of_bounds,
        );
        registry.register(
            "prometheus_target_scrapes_exemplar_out_of_order",
            "Samples all of whose exemplars were dropped because their series has a newer one",
            m.exemplars_out_of_order,
        );
        registry.register(
            "prometheus_target_scrapes_exceeded_sample_limit",
            "Scrapes rejected by sample_limit",
            m.over_sample_limit,
        );
        registry.register(
            "prometheus_target_scrapes_exceeded_native_histogram_bucket_limit",
            "Scrapes rejected by native_histogram_bucket_limit",
            m.over_bucket_limit,
        );
        registry.register(
            "prometheus_target_scrapes_exceeded_body_size_limit",
            "Scrapes rejected by body_size_limit",
            m.over_body_limit,
        );
        registry.register(
            "prometheus_target_scrape_pool_exceeded_target_limit",
            "Times a job exceeded target_limit",
            m.over_target_limit,
        );
        registry.register(
            "prometheus_target_scrape_pool_exceeded_label_limits",
            "Scrapes rejected by label_limit, label_name_length_limit or label_value_length_limit",
            m.over_label_limits,
        );
        registry.register("prometheus_target_scrape_pool_targets", "Targets of a job", m.targets);
        registry.register_with_unit(
            "prometheus_target_interval_length",
            "Time from the beginning of a scrape to that of the next, by the interval that the target has",
            Unit::Seconds,
            m.intervals,
        );
        registry.register_with_unit(
            "prometheus_target_sync_length",
            "Time that it took to follow what discovery said of the targets of a job",
            Unit::Seconds,
            m.syncs,
        );
        registry.register_with_unit(
            "meshscrape_scrape_memory",
            "Bytes that all scrapes under way hold until their answers prove good; scrape_memory_limit bounds them",
            Unit::Bytes,
            m.held_bytes,
        );
        registry.register(
            "prometheus_remote_storage_samples_in",
            "Samples scraped for receivers, each counted once however many there are",
            m.samples_in,
        );
        registry.register(
            "prometheus_remote_storage_histograms_in",
            "Native histograms scraped for receivers, each counted once however many there are",
            m.histograms_in,
        );
        registry.register(
            "prometheus_remote_storage_exemplars_in",
            "Exemplars scraped for receivers, each counted once however many there are",
            m.exemplars_in,
        );
        metrics
    }

    /// Shows what a [`Budget`](super::Budget) has given away.
    pub(super) fn held_bytes(&self) -> Gauge {
        self.held_bytes.clone()
    }

    pub(super) fn succeeded(&self, job: &str, counts: &Counts, exact: bool) {
        let label = JobLabel { job: job.to_owned() };
        self.scrapes.get_or_create(&label).inc();
        self.samples.get_or_create(&label).inc_by(counts.scraped as u64);
        if !exact {
            self.weaker_matches.get_or_create(&label).inc();
        }
        self.forged.inc_by(counts.forged as u64);
        self.duplicates.inc_by(counts.duplicates as u64);
        self.out_of_order.inc_by(counts.out_of_order as u64);
        self.out_of_bounds.inc_by(counts.out_of_bounds as u64);
        self.exemplars_out_of_order.inc_by(counts.exemplars_out_of_order as u64);
    }

    /// A target gave this.
    pub(super) fn gave(&self, output: Output) {
        self.samples_in.inc_by(output.samples);
        self.histograms_in.inc_by(output.histograms);
        self.exemplars_in.inc_by(output.exemplars);
    }

    pub(super) fn merged_in_part(&self, job: &str, missing: &[Part]) {
        for part in missing {
            self.partial_merges.get_or_create(&PartLabels { job: job.to_owned(), part: *part }).inc();
        }
    }

    pub(super) fn failed(&self, job: &str, reason: Reason) {
        self.scrapes.get_or_create(&JobLabel { job: job.to_owned() }).inc();
        self.failures.get_or_create(&FailureLabels { job: job.to_owned(), reason: ReasonLabel(reason) }).inc();
        match reason {
            Reason::SampleLimit => self.over_sample_limit.inc(),
            Reason::BucketLimit => self.over_bucket_limit.inc(),
            Reason::BodyTooLarge => self.over_body_limit.inc(),
            Reason::LabelLimit => self.over_label_limits.inc(),
            _ => 0,
        };
    }

    /// A scrape began so long after the one before; `interval` is how long it should be.
    pub(super) fn began(&self, interval: Duration, since: Duration) {
        let label = IntervalLabel { interval: as_go_writes(interval) };
        self.intervals.get_or_create(&label).observe(since.as_secs_f64());
    }

    /// The targets of a job are followed, which took so long.
    pub(super) fn synced(&self, job: &str, took: Duration) {
        self.syncs.get_or_create(&PoolLabel { scrape_job: job.to_owned() }).observe(took.as_secs_f64());
    }

    pub(super) fn shook_hands(&self, job: &str) {
        self.handshakes.get_or_create(&JobLabel { job: job.to_owned() }).inc();
    }

    /// A job and the number of its targets. Its counters exist from now on: a rate needs the zero before the first event.
    pub(super) fn pool(&self, job: &str, targets: usize) {
        let name = JobLabel { job: job.to_owned() };
        for counter in [&self.scrapes, &self.samples, &self.weaker_matches, &self.handshakes] {
            drop(counter.get_or_create(&name));
        }
        for part in Part::ALL {
            drop(self.partial_merges.get_or_create(&PartLabels { job: job.to_owned(), part }));
        }
        let label = PoolLabel { scrape_job: job.to_owned() };
        self.targets.get_or_create(&label).set(i64::try_from(targets).unwrap_or(i64::MAX));
    }

    /// A job is gone, and so is the state of it; what was counted stays.
    pub(super) fn forget(&self, job: &str) {
        let label = PoolLabel { scrape_job: job.to_owned() };
        self.targets.remove(&label);
        self.syncs.remove(&label);
    }

    pub(super) fn over_target_limit(&self) {
        self.over_target_limit.inc();
    }
}

/// A duration as Prometheus writes it in the label `interval`: as Go does, `1m0s` and not `1m`.
fn as_go_writes(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    // Rust leaves out the zeros at its end, as Go does.
    let rest = (duration - Duration::from_secs(seconds - seconds % 60)).as_secs_f64();
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_go_writes_them() {
        for (ms, text) in [
            (200, "200ms"),
            (1_500, "1.5s"),
            (15_000, "15s"),
            (60_000, "1m0s"),
            (90_250, "1m30.25s"),
            (3_661_000, "1h1m1s"),
        ] {
            assert_eq!(as_go_writes(Duration::from_millis(ms)), text);
        }
    }
}
