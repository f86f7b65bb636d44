//! Objects as `kubectl get -o json` prints them, and what is around them, for the tests of the roles.
//! Names of labels are written short: `m:` is `__meta_kubernetes_`.

use std::sync::Arc;

use serde_json::Value;

use super::meta::Names;
use super::object::{Job, Namespace, Node, Object, Pod, ReplicaSet, Service, Store};
use super::surroundings::Surroundings;
use crate::config::AttachMetadata;
use crate::model::Candidate;

/// An object from its JSON.
pub(super) fn object<T: Object>(json: Value) -> T {
    serde_json::from_str(&json.to_string()).unwrap_or_else(|error| panic!("{error} in {json:#}"))
}

/// Other objects.
#[derive(Default)]
pub(super) struct Others {
    pub(super) names: Names,
    pub(super) attach: AttachMetadata,
    pub(super) nodes: Store<Node>,
    pub(super) namespaces: Store<Namespace>,
    pub(super) replica_sets: Store<ReplicaSet>,
    pub(super) jobs: Store<Job>,
    pub(super) pods: Store<Pod>,
    pub(super) services: Store<Service>,
}

impl Others {
    /// With all that a role may look at.
    pub(super) fn around(&self) -> Surroundings<'_> {
        Surroundings {
            names: &self.names,
            attach: self.attach,
            nodes: Some(&self.nodes),
            namespaces: Some(&self.namespaces),
            replica_sets: Some(&self.replica_sets),
            jobs: Some(&self.jobs),
            pods: Some(&self.pods),
            services: Some(&self.services),
        }
    }

    /// With nothing to look at.
    pub(super) fn nothing_around(&self) -> Surroundings<'_> {
        Surroundings {
            nodes: None,
            namespaces: None,
            replica_sets: None,
            jobs: None,
            pods: None,
            services: None,
            ..self.around()
        }
    }
}

/// Puts an object into a store.
pub(super) fn add<T: Object>(store: &mut Store<T>, json: Value) {
    let object: T = object(json);
    store.insert(object.metadata().key(), Arc::new(object));
}

/// The addresses of candidates, in their order.
pub(super) fn addresses(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|found| found.labels.value("__address__")).collect()
}

/// The values of one label, in the order of the candidates; empty where it is absent.
pub(super) fn values<'c>(candidates: &'c [Candidate], name: &str) -> Vec<&'c str> {
    candidates.iter().map(|found| found.labels.value(&long(name))).collect()
}

/// The value of one label of the first candidate; empty if it is absent.
pub(super) fn value<'c>(candidates: &'c [Candidate], name: &str) -> &'c str {
    values(candidates, name)[0]
}

/// Compares all labels of a candidate with `name value` in lines.
#[track_caller]
pub(super) fn assert_labels(candidate: &Candidate, expected: &str) {
    let found: Vec<String> = candidate.labels.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let mut expected: Vec<String> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).map(long).collect();
    expected.sort_by(|one, other| one.split(' ').next().cmp(&other.split(' ').next()));
    assert_eq!(found, expected);
}

fn long(name: &str) -> String {
    match name.strip_prefix("m:") {
        Some(rest) => format!("__meta_kubernetes_{rest}"),
        None => name.to_owned(),
    }
}
