//! What is lost on the way from a series to a receiver.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::config::RemoteWrite;

/// The counters of all receivers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    histograms_dropped: Family<Dropped, Counter>,
    without_tenant: Family<Vec<(String, String)>, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    remote_name: String,
    url: String,
    reason: &'static str,
}

impl Metrics {
    /// Registers the counters.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "prometheus_remote_storage_histograms_dropped",
            "Native histograms that were not sent, by reason",
            metrics.histograms_dropped.clone(),
        );
        registry.register(
            "meshscrape_samples_without_tenant",
            "Samples that were not sent to a receiver with tenants, because their target belongs to none of them",
            metrics.without_tenant.clone(),
        );
        metrics
    }

    /// Histograms with listed bounds, which the message of this receiver cannot hold.
    pub fn listed_bounds(&self, remote: &RemoteWrite) -> Counter {
        self.histograms_dropped.get_or_create_owned(&Dropped::listed_bounds(remote))
    }

    /// Histograms that grew too old before this receiver had them.
    pub fn too_old(&self, remote: &RemoteWrite) -> Counter {
        self.histograms_dropped.get_or_create_owned(&Dropped::too_old(remote))
    }

    /// Samples of targets that belong to no tenant of this receiver; it is shown only if the receiver has tenants.
    pub fn without_tenant(&self, remote: &RemoteWrite) -> Counter {
        match remote.tenant {
            Some(_) => self.without_tenant.get_or_create_owned(&labels(remote)),
            None => Counter::default(),
        }
    }

    /// Nothing more will be counted of this receiver: nothing is left of it.
    pub fn remove(&self, remote: &RemoteWrite) {
        self.histograms_dropped.remove(&Dropped::listed_bounds(remote));
        self.histograms_dropped.remove(&Dropped::too_old(remote));
        self.without_tenant.remove(&labels(remote));
    }
}

fn labels(remote: &RemoteWrite) -> Vec<(String, String)> {
    vec![("remote_name".to_owned(), remote.name.clone()), ("url".to_owned(), remote.shown_url())]
}

impl Dropped {
    fn listed_bounds(remote: &RemoteWrite) -> Self {
        Self::of(remote, "nhcb_in_rw1_not_supported")
    }

    fn too_old(remote: &RemoteWrite) -> Self {
        Self::of(remote, "too_old")
    }

    fn of(remote: &RemoteWrite, reason: &'static str) -> Self {
        Self { remote_name: remote.name.clone(), url: remote.shown_url(), reason }
    }
}
