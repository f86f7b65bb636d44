//! What scraping tells of itself on `/metrics`.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::model::Reason;
use crate::series::{Counts, Output};

use super::merge::Part;

/// Counters of all jobs; label values are job names from the configuration and the closed list of reasons.
#[derive(Clone, Debug, Default)]
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
    targets: Family<PoolLabel, Gauge>,
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
    /// Registers the counters.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
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
        registry.register("prometheus_target_scrape_pool_targets", "Targets of a job", m.targets);
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
            _ => 0,
        };
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
        self.targets.remove(&PoolLabel { scrape_job: job.to_owned() });
    }

    pub(super) fn over_target_limit(&self) {
        self.over_target_limit.inc();
    }
}
