//! What identities tell of themselves on `/metrics`: how long certificates last, and how their files fare.
//!
//! The values are read off the snapshots at the moment when somebody asks: they cannot lag behind the files, and are gone
//! with their identity. Times are those written in the certificates, so that an alert can be about the time left. Nothing
//! here judges; the labels are paths from the configuration, never a text from a certificate.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::{CertificateFacts, IdentitySnapshot};
use crate::clock::unix_ms;

/// Registers the metrics of the identities that `list` gives whenever it is asked.
pub fn register_metrics(registry: &mut Registry, list: impl Fn() -> Vec<IdentitySnapshot> + Send + Sync + 'static) {
    registry.register_collector(Box::new(Identities { list: Box::new(list) }));
}

struct Identities {
    list: Box<dyn Fn() -> Vec<IdentitySnapshot> + Send + Sync>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identities").finish_non_exhaustive()
    }
}

/// The files by the configuration's names for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Files {
    cert_file: String,
    ca_file: String,
}

impl Files {
    fn of(snapshot: &IdentitySnapshot) -> Self {
        let files = &snapshot.files;
        Self { cert_file: files.chain.display().to_string(), ca_file: files.root.display().to_string() }
    }
}

impl Collector for Identities {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut identities: Vec<_> = (self.list)().into_iter().map(|one| (Files::of(&one), one)).collect();
        // Two may read the same certificates and differ in what the configuration says of their trust domain. A series
        // stands once, so the one that is in trouble speaks for both.
        identities.sort_by_cached_key(|(files, one)| (files.clone(), one.not_ready.is_none()));
        identities.dedup_by(|(later, _), (first, _)| later == first);

        let mut gauge = |name, help, unit: Option<Unit>, value: &dyn Fn(&IdentitySnapshot) -> Option<f64>| {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (files, one) in &identities {
                if let Some(value) = value(one) {
                    ConstGauge::new(value).encode(family.encode_family(files)?)?;
                }
            }
            Ok::<_, fmt::Error>(())
        };
        gauge(
            "meshscrape_identity_ready",
            "1 if a handshake can be tried with these certificates, else 0",
            None,
            &|one| Some(one.not_ready.is_none().into()),
        )?;
        gauge(
            "meshscrape_identity_certificate_expiry_timestamp",
            "When our own certificate ends, since 1970; the last good one, so it may lie in the past",
            Some(Unit::Seconds),
            &|one| one.own.first().map(|leaf| seconds(leaf.not_after)),
        )?;
        gauge(
            "meshscrape_identity_certificate_start_timestamp",
            "When that certificate began, since 1970: its issuer renews it after half or two thirds of its time",
            Some(Unit::Seconds),
            &|one| one.own.first().map(|leaf| seconds(leaf.not_before)),
        )?;
        gauge(
            "meshscrape_identity_certificate_trusted",
            "1 if our own certificate leads to the roots, else 0: then peers with the same roots refuse us",
            None,
            &|one| (!one.own.is_empty()).then(|| one.own_certificate_untrusted.is_none().into()),
        )?;
        gauge(
            "meshscrape_identity_root_expiry_timestamp",
            "When the last of the roots ends, since 1970; from then on nobody can be verified",
            Some(Unit::Seconds),
            &|one| last_root(one).map(|root| seconds(root.not_after)),
        )?;
        gauge(
            "meshscrape_identity_root_start_timestamp",
            "When that root began, since 1970",
            Some(Unit::Seconds),
            &|one| last_root(one).map(|root| seconds(root.not_before)),
        )?;
        gauge(
            "meshscrape_identity_file_problems",
            "What is wrong with the files as they are now; what is good in them, or was last, is in use, if anything ever was",
            None,
            &|one| Some(one.problems.len() as f64),
        )?;
        gauge(
            "meshscrape_identity_last_reload_timestamp",
            "When other certificates or roots were last taken, since 1970",
            Some(Unit::Seconds),
            &|one| one.changed_at.map(seconds),
        )?;

        let mut counter = |name, help, value: &dyn Fn(&IdentitySnapshot) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (files, one) in &identities {
                ConstCounter::new(value(one)).encode(family.encode_family(files)?)?;
            }
            Ok::<_, fmt::Error>(())
        };
        counter(
            "meshscrape_identity_reloads",
            "Times that other certificates or roots were taken, the first time included",
            &|one| one.changes,
        )?;
        counter(
            "meshscrape_identity_reload_refusals",
            "Times that changed files were refused, in whole or in part; also between two steps of a rotation",
            &|one| one.refusals,
        )
    }
}

/// The root that ends last.
fn last_root(one: &IdentitySnapshot) -> Option<&CertificateFacts> {
    one.roots.iter().max_by_key(|root| root.not_after)
}

fn seconds(time: SystemTime) -> f64 {
    unix_ms(time) as f64 / 1000.0
}
