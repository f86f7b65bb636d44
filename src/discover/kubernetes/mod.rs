//! Targets in Kubernetes: `kubernetes_sd_configs`, and with them `istio_sd_configs`.
//!
//! ```text
//! API server ─▶ watch ─▶ cache of objects ─┬─▶ source (one a config entry) ─▶ role: object → candidates ─▶ Answer
//!               one a question asked       └─▶ another source that needs the same objects
//! ```
//!
//! Whoever asks the same server the same question shares one watch, however many jobs there are, and it runs as long as
//! somebody does. The roles are pure functions from an object and its surroundings to candidates; one object is one group,
//! made anew only if the object or what surrounds it has changed. What always holds: trouble with the API server never takes
//! a target away; it is told (as a problem, in metrics, in the log), and when nothing was heard for too long the targets are
//! called unconfirmed.

mod access;
mod behind;
mod endpoints;
mod endpointslice;
#[cfg(test)]
mod fixtures;
mod ingress;
mod meta;
mod metrics;
mod node;
mod object;
mod pod;
mod service;
mod shared;
mod source;
mod surroundings;
mod watch;
mod words;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::meta::Names;
use self::object::{EndpointSlice, Endpoints, Ingress, Job, Namespace, Node, Pod, ReplicaSet, Service};
use self::shared::{Asked, Shared, Starter};
use self::watch::Query;
use super::Answer;
use crate::clock::Clock;
use crate::config::{KubernetesRole, KubernetesSd};

pub(super) use self::metrics::Metrics;
pub use self::words::client_error;

/// Where a pod's own namespace stands.
const OWN_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// All watches of this process, by what they ask.
pub(super) struct Watches {
    pods: Shared<Pod>,
    nodes: Shared<Node>,
    services: Shared<Service>,
    endpoints: Shared<Endpoints>,
    slices: Shared<EndpointSlice>,
    ingresses: Shared<Ingress>,
    namespaces: Shared<Namespace>,
    replica_sets: Shared<ReplicaSet>,
    jobs: Shared<Job>,
    names: Arc<Names>,
    clock: Clock,
    metrics: Metrics,
}

impl Watches {
    /// No watch yet.
    pub(super) fn new(clock: Clock, metrics: Metrics) -> Self {
        Self {
            pods: Shared::default(),
            nodes: Shared::default(),
            services: Shared::default(),
            endpoints: Shared::default(),
            slices: Shared::default(),
            ingresses: Shared::default(),
            namespaces: Shared::default(),
            replica_sets: Shared::default(),
            jobs: Shared::default(),
            names: Arc::default(),
            clock,
            metrics,
        }
    }

    /// Starts what `config` needs and is not there yet, and reports each change of what it comes to, until `cancel` or until
    /// `report` says that nobody listens. `https_only`: see [`access::Api::new`].
    pub(super) fn spawn<R: Future<Output = bool> + Send>(
        &mut self,
        config: KubernetesSd,
        https_only: bool,
        cancel: CancellationToken,
        report: impl Fn(Answer) -> R + Send + 'static,
    ) {
        let mut namespaces: Vec<Option<String>> = config.namespaces.iter().cloned().map(Some).collect();
        let mut unknown_namespace = None;
        if config.own_namespace {
            match std::fs::read_to_string(OWN_NAMESPACE) {
                Ok(name) => namespaces.push(Some(name)),
                Err(error) => unknown_namespace = Some(format!("{OWN_NAMESPACE} cannot be read: {error}")),
            }
        } else if namespaces.is_empty() {
            namespaces.push(None);
        }
        let scopes = namespaces.iter().map(|namespace| self.scope(&config, https_only, namespace.as_deref())).collect();
        let source = source::Source::new(config, scopes, unknown_namespace, Arc::clone(&self.names));
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = source.run(report) => {}
            }
        });
    }

    /// Everything that is needed to make the targets of one namespace, or of all.
    fn scope(&mut self, config: &KubernetesSd, https_only: bool, namespace: Option<&str>) -> source::Scope {
        use KubernetesRole as Role;
        let selected = |role: Role, namespace: Option<&str>| {
            let selector = config.selectors.iter().find(|selector| selector.role == role);
            let (label, field) = selector.map(|s| (s.label.clone(), s.field.clone())).unwrap_or_default();
            let query = Query { namespace: namespace.map(str::to_owned), label, field };
            Asked { access: config.access.clone(), https_only, query }
        };
        let whole = |namespace: Option<&str>| Asked {
            access: config.access.clone(),
            https_only,
            query: Query { namespace: namespace.map(str::to_owned), label: String::new(), field: String::new() },
        };
        let starter = Starter { clock: &self.clock, metrics: &self.metrics };
        let behind_services = matches!(config.role, Role::Endpoints | Role::EndpointSlice);
        let of_pods = behind_services || config.role == Role::Pod;
        let attach = config.attach;
        let primary = match config.role {
            Role::Pod => source::Primary::pods(starter.get(&mut self.pods, selected(Role::Pod, namespace))),
            Role::Node => source::Primary::nodes(starter.get(&mut self.nodes, selected(Role::Node, None))),
            Role::Service => {
                source::Primary::services(starter.get(&mut self.services, selected(Role::Service, namespace)))
            }
            Role::Endpoints => {
                source::Primary::endpoints(starter.get(&mut self.endpoints, selected(Role::Endpoints, namespace)))
            }
            Role::EndpointSlice => {
                source::Primary::slices(starter.get(&mut self.slices, selected(Role::EndpointSlice, namespace)))
            }
            Role::Ingress => {
                source::Primary::ingresses(starter.get(&mut self.ingresses, selected(Role::Ingress, namespace)))
            }
        };
        source::Scope {
            primary,
            pods: behind_services.then(|| starter.get(&mut self.pods, selected(Role::Pod, namespace))),
            services: behind_services.then(|| starter.get(&mut self.services, selected(Role::Service, namespace))),
            nodes: (of_pods && attach.node).then(|| starter.get(&mut self.nodes, selected(Role::Node, None))),
            namespaces: (config.role != Role::Node && attach.namespace)
                .then(|| starter.get(&mut self.namespaces, whole(None))),
            replica_sets: (of_pods && attach.deployment).then(|| starter.get(&mut self.replica_sets, whole(namespace))),
            jobs: (of_pods && (attach.job || attach.cronjob)).then(|| starter.get(&mut self.jobs, whole(namespace))),
        }
    }
}
