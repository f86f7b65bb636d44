//! What following a cluster counts. Names are Prometheus' own where it has them.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::object::Object;
use crate::config::KubernetesRole;

type LabelSet = Vec<(&'static str, Arc<str>)>;

/// The metrics of all watches. Clones count the same.
#[derive(Clone)]
pub(in crate::discover) struct Metrics {
    events: Family<LabelSet, Counter>,
    failures: Counter,
    requests: Family<LabelSet, Counter>,
    bytes: Family<LabelSet, Counter>,
}

impl Metrics {
    pub(in crate::discover) fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics {
            events: Family::default(),
            failures: Counter::default(),
            requests: Family::default(),
            bytes: Family::default(),
        };
        for role in KubernetesRole::ALL {
            for event in ["add", "update", "delete"] {
                drop(metrics.events.get_or_create(&vec![("role", role.as_str().into()), ("event", event.into())]));
            }
        }
        registry.register(
            "prometheus_sd_kubernetes_events",
            "Objects that were added, updated or deleted, by the role they belong to",
            metrics.events.clone(),
        );
        registry.register(
            "prometheus_sd_kubernetes_failures",
            "Lists and watches that failed",
            metrics.failures.clone(),
        );
        registry.register(
            "meshscrape_kubernetes_requests",
            "Requests to the API server, by resource, verb and HTTP status; 0 is no answer",
            metrics.requests.clone(),
        );
        registry.register(
            "meshscrape_kubernetes_received_bytes",
            "Bytes of lists and watches that the API server sent, by resource",
            metrics.bytes.clone(),
        );
        metrics
    }

    /// Objects came, changed or went.
    pub(super) fn happened<T: Object>(&self, event: &'static str, count: usize) {
        let Some(role) = T::ROLE else { return };
        let labels = vec![("role", role.as_str().into()), ("event", event.into())];
        self.events.get_or_create(&labels).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn requested(&self, resource: &'static str, verb: &'static str, code: u16) {
        let labels = vec![("resource", resource.into()), ("verb", verb.into()), ("code", code.to_string().into())];
        self.requests.get_or_create(&labels).inc();
        // Also where nothing came: a rate needs the zero before the first bytes.
        drop(self.bytes.get_or_create(&vec![("resource", resource.into())]));
    }

    pub(super) fn received(&self, resource: &'static str, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.get_or_create(&vec![("resource", resource.into())]).inc_by(bytes);
    }
}
