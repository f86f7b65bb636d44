//! One entry of `kubernetes_sd_configs`: waits for the caches that it needs, and makes groups of candidates of them.
//!
//! What always holds: nothing is said of a namespace before all that its role needs has been listed once, so that no
//! target appears with half of its labels; a group is the same `Arc` as long as it says the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::meta::Names;
use super::object::{
    EndpointSlice, Endpoints, Ingress, Job, Namespace, Node, Object, ObjectKey, Pod, ReplicaSet, Service,
};
use super::shared::Held;
use super::surroundings::Surroundings;
use super::watch::{Cache, State};
use super::{endpoints, endpointslice, ingress, node, pod, service};
use crate::config::{AttachMetadata, KubernetesSd};
use crate::discover::{Answer, Group, Problem, Waiting};
use crate::model::{Candidate, clean};

/// How long changes are gathered: a rollout changes many pods at once.
const GATHER: Duration = Duration::from_millis(50);

pub(super) struct Source {
    config: KubernetesSd,
    scopes: Vec<Scope>,
    unknown_namespace: Option<String>,
    names: Arc<Names>,
    woken: Arc<Notify>,
}

/// The caches of one namespace, or of all namespaces.
pub(super) struct Scope {
    pub(super) primary: Primary,
    pub(super) pods: Option<Arc<Held<Pod>>>,
    pub(super) services: Option<Arc<Held<Service>>>,
    pub(super) nodes: Option<Arc<Held<Node>>>,
    pub(super) namespaces: Option<Arc<Held<Namespace>>>,
    pub(super) replica_sets: Option<Arc<Held<ReplicaSet>>>,
    pub(super) jobs: Option<Arc<Held<Job>>>,
}

/// The objects that become targets.
pub(super) enum Primary {
    Pods(Made<Pod>),
    Nodes(Made<Node>),
    Services(Made<Service>),
    Endpoints(Made<Endpoints>),
    Slices(Made<EndpointSlice>),
    Ingresses(Made<Ingress>),
}

impl Primary {
    pub(super) fn pods(cache: Arc<Held<Pod>>) -> Self {
        Self::Pods(Made::of(cache))
    }

    pub(super) fn nodes(cache: Arc<Held<Node>>) -> Self {
        Self::Nodes(Made::of(cache))
    }

    pub(super) fn services(cache: Arc<Held<Service>>) -> Self {
        Self::Services(Made::of(cache))
    }

    pub(super) fn endpoints(cache: Arc<Held<Endpoints>>) -> Self {
        Self::Endpoints(Made::of(cache))
    }

    pub(super) fn slices(cache: Arc<Held<EndpointSlice>>) -> Self {
        Self::Slices(Made::of(cache))
    }

    pub(super) fn ingresses(cache: Arc<Held<Ingress>>) -> Self {
        Self::Ingresses(Made::of(cache))
    }

    fn tell(&self, listener: &Arc<Notify>) {
        match self {
            Primary::Pods(made) => made.cache.tell(listener),
            Primary::Nodes(made) => made.cache.tell(listener),
            Primary::Services(made) => made.cache.tell(listener),
            Primary::Endpoints(made) => made.cache.tell(listener),
            Primary::Slices(made) => made.cache.tell(listener),
            Primary::Ingresses(made) => made.cache.tell(listener),
        }
    }
}

/// Objects, and the groups that were made of them.
pub(super) struct Made<T> {
    cache: Arc<Held<T>>,
    groups: BTreeMap<ObjectKey, (Arc<T>, Group)>,
    /// The versions of the surroundings, added up, when they were made.
    surroundings: u64,
}

impl<T: Object> Made<T> {
    fn of(cache: Arc<Held<T>>) -> Self {
        Self { cache, groups: BTreeMap::new(), surroundings: 0 }
    }

    /// Makes the groups of objects that are new or have changed, and all of them if the surroundings have. `make` says
    /// `None` where an object says nothing that can be used: its group stays as it was.
    fn renew(&mut self, surroundings: u64, make: impl Fn(&T) -> Option<Vec<Candidate>>) {
        let store = self.cache.state().store;
        let all = std::mem::replace(&mut self.surroundings, surroundings) != surroundings;
        self.groups.retain(|key, _| store.contains_key(key));
        for (key, object) in &*store {
            let known = self.groups.get_mut(key);
            match known {
                Some((made_of, _)) if !all && Arc::ptr_eq(made_of, object) => {}
                Some((made_of, group)) => {
                    *made_of = Arc::clone(object);
                    if let Some(candidates) = make(object).filter(|candidates| *candidates != **group) {
                        *group = Arc::new(candidates);
                    }
                }
                None => {
                    let group = Arc::new(make(object).unwrap_or_default());
                    self.groups.insert(key.clone(), (Arc::clone(object), group));
                }
            }
        }
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().map(|(_, group)| group).filter(|group| !group.is_empty())
    }
}

impl Source {
    pub(super) fn new(
        config: KubernetesSd,
        scopes: Vec<Scope>,
        unknown_namespace: Option<String>,
        names: Arc<Names>,
    ) -> Self {
        let woken = Arc::new(Notify::new());
        for scope in &scopes {
            scope.tell(&woken);
        }
        Self { config, scopes, unknown_namespace, names, woken }
    }

    /// Reports every change, and once in any case.
    pub(super) async fn run<R: Future<Output = bool>>(mut self, report: impl Fn(Answer) -> R) {
        let mut last = None;
        loop {
            let answer = self.answer();
            if last.as_ref() != Some(&answer) {
                last = Some(answer.clone());
                if !report(answer).await {
                    return;
                }
            }
            self.woken.notified().await;
            sleep(GATHER).await;
        }
    }

    fn answer(&mut self) -> Answer {
        let mut answer = Answer { complete: self.unknown_namespace.is_none(), ..Answer::default() };
        let of = |what: &str| format!("kubernetes_sd_configs, role {}: {what}", self.config.role.as_str());
        if let Some(message) = &self.unknown_namespace {
            answer.problems.push(Problem { source: of("own_namespace"), message: message.clone() });
        }
        for scope in &mut self.scopes {
            let health = scope.health();
            answer.complete &= health.synced;
            answer.unconfirmed = answer.unconfirmed.into_iter().chain(health.unconfirmed).min();
            answer.problems.extend(
                health.problems.into_iter().map(|(resource, message)| Problem { source: of(resource), message }),
            );
            if health.synced {
                scope.renew(self.config.attach, &self.names);
            }
            scope.waiting(&mut answer.waiting);
            answer.problems.extend(scope.cut().map(|message| Problem { source: of("pods"), message }));
            answer.groups.extend(scope.groups().cloned());
        }
        answer
    }
}

/// How the caches of a scope are.
struct Health {
    synced: bool,
    /// Since when what is known may be wrong.
    unconfirmed: Option<Instant>,
    problems: Vec<(&'static str, String)>,
}

impl Health {
    fn count<T: Object>(&mut self, cache: &Cache<T>) {
        let state = cache.state();
        self.synced &= state.synced;
        let doubtful = state.unconfirmed.then(|| state.confirmed.into_std());
        self.unconfirmed = self.unconfirmed.into_iter().chain(doubtful).min();
        self.problems.extend(state.problem.map(|problem| (T::PLURAL, problem)));
    }
}

impl Scope {
    fn tell(&self, listener: &Arc<Notify>) {
        self.primary.tell(listener);
        self.pods.iter().for_each(|cache| cache.tell(listener));
        self.services.iter().for_each(|cache| cache.tell(listener));
        self.nodes.iter().for_each(|cache| cache.tell(listener));
        self.namespaces.iter().for_each(|cache| cache.tell(listener));
        self.replica_sets.iter().for_each(|cache| cache.tell(listener));
        self.jobs.iter().for_each(|cache| cache.tell(listener));
    }

    fn health(&self) -> Health {
        let mut health = Health { synced: true, unconfirmed: None, problems: Vec::new() };
        match &self.primary {
            Primary::Pods(made) => health.count(&made.cache),
            Primary::Nodes(made) => health.count(&made.cache),
            Primary::Services(made) => health.count(&made.cache),
            Primary::Endpoints(made) => health.count(&made.cache),
            Primary::Slices(made) => health.count(&made.cache),
            Primary::Ingresses(made) => health.count(&made.cache),
        }
        self.pods.iter().for_each(|cache| health.count(cache));
        self.services.iter().for_each(|cache| health.count(cache));
        self.nodes.iter().for_each(|cache| health.count(cache));
        self.namespaces.iter().for_each(|cache| health.count(cache));
        self.replica_sets.iter().for_each(|cache| health.count(cache));
        self.jobs.iter().for_each(|cache| health.count(cache));
        health
    }

    fn renew(&mut self, attach: AttachMetadata, names: &Names) {
        let pods = self.pods.as_ref().map(|cache| cache.state());
        let services = self.services.as_ref().map(|cache| cache.state());
        let nodes = self.nodes.as_ref().map(|cache| cache.state());
        let namespaces = self.namespaces.as_ref().map(|cache| cache.state());
        let replica_sets = self.replica_sets.as_ref().map(|cache| cache.state());
        let jobs = self.jobs.as_ref().map(|cache| cache.state());
        let version = version(pods.as_ref())
            + version(services.as_ref())
            + version(nodes.as_ref())
            + version(namespaces.as_ref())
            + version(replica_sets.as_ref())
            + version(jobs.as_ref());
        let around = Surroundings {
            names,
            attach,
            pods: pods.as_ref().map(|state| &*state.store),
            services: services.as_ref().map(|state| &*state.store),
            nodes: nodes.as_ref().map(|state| &*state.store),
            namespaces: namespaces.as_ref().map(|state| &*state.store),
            replica_sets: replica_sets.as_ref().map(|state| &*state.store),
            jobs: jobs.as_ref().map(|state| &*state.store),
        };
        match &mut self.primary {
            Primary::Pods(made) => made.renew(version, |object| Some(pod::candidates(object, &around))),
            Primary::Nodes(made) => made.renew(version, |object| node::candidates(object, &around)),
            Primary::Services(made) => made.renew(version, |object| Some(service::candidates(object, &around))),
            Primary::Endpoints(made) => made.renew(version, |object| Some(endpoints::candidates(object, &around))),
            Primary::Slices(made) => made.renew(version, |object| Some(endpointslice::candidates(object, &around))),
            Primary::Ingresses(made) => made.renew(version, |object| Some(ingress::candidates(object, &around))),
        }
    }

    /// The pods that have no targets yet.
    fn waiting(&self, waiting: &mut Waiting) {
        let Primary::Pods(made) = &self.primary else { return };
        // What was evicted, say, is there for long and waits for nothing.
        for (pod, _) in made.groups.values().filter(|(pod, group)| group.is_empty() && !pod::has_ended(pod)) {
            let name = || format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
            waiting.add(|| (name(), pod::waits_for(pod)));
        }
    }

    /// Which pods have more ports than may become targets.
    fn cut(&self) -> Option<String> {
        let Primary::Pods(made) = &self.primary else { return None };
        let is_cut = |(pod, group): &&(Arc<Pod>, Group)| !group.is_empty() && group.len() < pod::declared(pod);
        let mut cut = made.groups.values().filter(is_cut).map(|(pod, group)| (&pod.metadata, group.len()));
        let (first, left) = cut.next()?;
        let name = format!("{}/{}", first.namespace, first.name);
        let others = match cut.count() {
            0 => String::new(),
            count => format!(", and so it is with {count} more pods"),
        };
        Some(format!(
            "pod {} has so many ports and labels that only its first {left} ports become targets{others}",
            clean(&name)
        ))
    }

    fn groups(&self) -> Box<dyn Iterator<Item = &Group> + '_> {
        match &self.primary {
            Primary::Pods(made) => Box::new(made.groups()),
            Primary::Nodes(made) => Box::new(made.groups()),
            Primary::Services(made) => Box::new(made.groups()),
            Primary::Endpoints(made) => Box::new(made.groups()),
            Primary::Slices(made) => Box::new(made.groups()),
            Primary::Ingresses(made) => Box::new(made.groups()),
        }
    }
}

fn version<T>(state: Option<&State<T>>) -> u64 {
    state.map_or(0, |state| state.version)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use serde_json::json;

    use super::super::fixtures::{Others, object};
    use super::super::metrics::Metrics;
    use super::super::watch::{Query, Watch};
    use super::*;
    use crate::clock::Clock;
    use crate::config::KubernetesAccess;

    /// What is known of these pods.
    fn scope(pods: impl IntoIterator<Item = serde_json::Value>, others: &Others) -> Scope {
        let query = Query { namespace: None, label: String::new(), field: String::new() };
        let metrics = Metrics::new(&mut Registry::default());
        let (_, cache) = Watch::new(KubernetesAccess::InCluster, true, query, Clock::system(), metrics);
        let stop = tokio_util::sync::CancellationToken::new().drop_guard();
        let mut made = Made::of(Arc::new(Held::new(cache, stop)));
        for pod in pods {
            let pod: Pod = object(pod);
            let group = Arc::new(pod::candidates(&pod, &others.around()));
            made.groups.insert(pod.metadata.key(), (Arc::new(pod), group));
        }
        Scope {
            primary: Primary::Pods(made),
            pods: None,
            services: None,
            nodes: None,
            namespaces: None,
            replica_sets: None,
            jobs: None,
        }
    }

    #[tokio::test]
    async fn a_pod_whose_ports_are_left_out_is_named() {
        let pods = [("a", 3), ("greedy", 20_000), ("more", 20_000)].map(|(name, ports)| {
            let ports: Vec<_> = (1..=ports).map(|port| json!({"containerPort": port})).collect();
            json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"containers": [{"name": "c", "ports": ports}]},
                "status": {"podIP": "10.0.0.1"},
            })
        });
        let said = scope(pods, &Others::default()).cut().expect("two are cut");
        assert!(said.starts_with("pod shop/greedy has so many ports and labels that only its first "), "{said}");
        assert!(said.ends_with(" ports become targets, and so it is with 1 more pods"), "{said}");
    }

    #[tokio::test]
    async fn a_pod_that_has_no_targets_says_what_it_waits_for() {
        let pod = |name: &str, status: serde_json::Value| {
            json!({
                "metadata": {"name": name, "namespace": "shop"},
                "spec": {"containers": [{"name": "c"}], "nodeName": "n\u{1b}1"},
                "status": status,
            })
        };
        let pods = [
            pod("found", json!({"podIP": "10.0.0.1", "phase": "Running"})),
            pod("new", json!({"phase": "Pending"})),
            pod("evicted", json!({"phase": "Failed"})),
            pod("done", json!({"phase": "Succeeded"})),
            pod("bare", serde_json::Value::Null),
        ];
        let said = |others: &Others| {
            let mut waiting = Waiting::default();
            scope(pods.clone(), others).waiting(&mut waiting);
            waiting.pods.into_iter().map(|(pod, why)| format!("{pod}: {why}")).collect::<Vec<_>>()
        };
        let unplaced =
            ["shop/bare: it has no address yet (phase unknown)", "shop/new: it has no address yet (phase Pending)"];
        assert_eq!(said(&Others::default()), unplaced);
        let attach = AttachMetadata { node: true, ..AttachMetadata::default() };
        let said = said(&Others { attach, ..Others::default() });
        let node = "shop/found: its node \"n\\\\u{1b}1\", whose labels are to be attached, is not known yet";
        assert_eq!(said, [unplaced[0], node, unplaced[1]]);
    }
}
