//! Objects as `kubectl get -o json` prints them, and what is around them, for the tests of the roles.
//! Names of labels are written short: `m:` is `__meta_kubernetes_`.

use std::sync::Arc;

use serde_json::{Value, json};

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

/// A pod behind a service, with two containers and a sidecar that declare ports.
pub(super) fn web_pod() -> Value {
    json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "w0", "labels": {"app": "web"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {"name": "web", "image": "web:1", "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "again", "containerPort": 8080, "protocol": "UDP"},
                    {"name": "admin", "containerPort": 9000, "protocol": "SCTP"}
                ]},
                {"name": "plain", "image": "plain:1"}
            ],
            "initContainers": [
                {"name": "proxy", "image": "proxy:1", "restartPolicy": "Always",
                    "ports": [{"name": "prom", "containerPort": 15090, "protocol": "TCP"}]}
            ]
        },
        "status": {"phase": "Running", "podIP": "10.1.0.9", "hostIP": "192.168.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "containerID": "containerd://w"}]}
    })
}

/// The labels of that pod and of all that is attached to it, in [`assert_labels`]'s form.
pub(super) const WEB_POD_LABELS: &str = "
    m:pod_name web-0
    m:pod_uid w0
    m:pod_ip 10.1.0.9
    m:pod_host_ip 192.168.0.1
    m:pod_phase Running
    m:pod_ready true
    m:pod_node_name node-1
    m:pod_host_network false
    m:pod_service_account_name default
    m:pod_controller_kind ReplicaSet
    m:pod_controller_name web-1
    m:pod_deployment_name web
    m:pod_label_app web
    m:pod_labelpresent_app true
";

/// The pod above, its service, node, namespace and ReplicaSet, all attached.
pub(super) fn web() -> Others {
    let attach = AttachMetadata { node: true, namespace: true, deployment: true, job: true, cronjob: true };
    let mut others = Others { attach, ..Others::default() };
    add(&mut others.pods, web_pod());
    add(
        &mut others.services,
        json!({"metadata": {"name": "web", "namespace": "shop", "labels": {"s": "1"}, "annotations": {"t/u": "2"}},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}),
    );
    for (node, zone) in [("node-1", "a"), ("node-2", "b")] {
        add(
            &mut others.nodes,
            json!({"metadata": {"name": node, "labels": {"zone": zone}},
            "spec": {"providerID": "cloud"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
    }
    add(&mut others.namespaces, json!({"metadata": {"name": "shop", "labels": {"team": "t"}}}));
    add(
        &mut others.replica_sets,
        json!({"metadata": {"name": "web-1", "namespace": "shop",
            "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": true}]}}),
    );
    others
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
