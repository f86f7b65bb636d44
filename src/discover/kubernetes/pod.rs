//! Role `pod`: one target for each declared port of each container.
//!
//! A container without ports gives one target without a port; init containers, and so native sidecars, follow the
//! regular ones; ephemeral containers are not looked at. Nothing is left out because of its phase, readiness or
//! protocol: that is for relabel rules to say. Only where a pod's ports and labels together come to more than any pod
//! needs, the last ports are left out: every port has all the labels, and an object of 1 MiB could ask for gigabytes.

use std::sync::Arc;

use super::meta::{self, Draft, with_port};
use super::object::{Container, ContainerPort, Pod};
use super::surroundings::Surroundings;
use crate::model::{self, Candidate, clean};

/// How many labels all targets of a pod may have together: enough for some thousand ports of an ordinary pod.
const MAX_LABELS: usize = 1 << 17;

/// The targets of a pod; none while it has no address, or while the node that is to be attached is not known.
pub(super) fn candidates(pod: &Pod, around: &Surroundings<'_>) -> Vec<Candidate> {
    if pod.status.pod_ip.is_empty() {
        return Vec::new();
    }
    let mut group = Draft::new(around.names);
    around.set_namespace(&mut group, &pod.metadata);
    set_labels(&mut group, pod, around);
    if around.attach.node {
        let Some(node) = around.node(&pod.spec.node_name) else { return Vec::new() };
        group.set_metadata(&meta::NODE, &node.metadata);
    }
    let source = format!("pod/{}/{}", pod.metadata.namespace, pod.metadata.name).into();
    let behind = Arc::new(known_as(pod));
    let mut candidates = Vec::new();
    let mut labels = 0;
    for (container, init) in containers(pod) {
        if labels > MAX_LABELS {
            break;
        }
        let mut own = group.clone();
        set_container(&mut own, container, init);
        if let Some(id) = container_id(pod, container, init) {
            own.set("__meta_kubernetes_pod_container_id", id);
        }
        for port in &container.ports {
            let mut of_port = own.clone();
            set_container_port(&mut of_port, port, &port.protocol);
            let address = with_port(&pod.status.pod_ip, port.container_port);
            let candidate = of_port.into_candidate(&address, &source, Some(&behind));
            labels += candidate.labels.iter().len();
            candidates.push(candidate);
            if labels > MAX_LABELS {
                break;
            }
        }
        if container.ports.is_empty() {
            let candidate = own.into_candidate(&pod.status.pod_ip, &source, Some(&behind));
            labels += candidate.labels.iter().len();
            candidates.push(candidate);
        }
    }
    candidates
}

/// Whether nothing of it will run any more.
pub(super) fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Why a pod that has no targets has none, safe to show.
pub(super) fn waits_for(pod: &Pod) -> String {
    if pod.status.pod_ip.is_empty() {
        let phase = if pod.status.phase.is_empty() { "unknown" } else { &pod.status.phase };
        return format!("it has no address yet (phase {})", clean(phase));
    }
    format!("its node {:?}, whose labels are to be attached, is not known yet", clean(&pod.spec.node_name))
}

/// How many targets a pod would have if there were no bound.
pub(super) fn declared(pod: &Pod) -> usize {
    containers(pod).map(|(container, _)| container.ports.len().max(1)).sum()
}

/// Sets the labels that say which pod it is and how it is.
pub(super) fn set_labels(draft: &mut Draft<'_>, pod: &Pod, around: &Surroundings<'_>) {
    draft.set_metadata(&meta::POD, &pod.metadata);
    draft.set("__meta_kubernetes_pod_uid", &pod.metadata.uid);
    draft.set("__meta_kubernetes_pod_ip", &pod.status.pod_ip);
    draft.set("__meta_kubernetes_pod_host_ip", &pod.status.host_ip);
    draft.set("__meta_kubernetes_pod_phase", &pod.status.phase);
    draft.set("__meta_kubernetes_pod_node_name", &pod.spec.node_name);
    draft.set_flag("__meta_kubernetes_pod_host_network", pod.spec.host_network);
    match pod.spec.service_account_name.as_str() {
        "" => draft.set_word("__meta_kubernetes_pod_service_account_name", "default"),
        _ => draft.set("__meta_kubernetes_pod_service_account_name", &pod.spec.service_account_name),
    }
    set_ready(draft, pod);
    set_controllers(draft, pod, around);
}

/// The containers of a pod, regular ones first; `true` with an init container.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let regular = pod.spec.containers.iter().map(|container| (container, false));
    regular.chain(pod.spec.init_containers.iter().map(|container| (container, true)))
}

/// Sets the labels of a container.
pub(super) fn set_container(draft: &mut Draft<'_>, container: &Container, init: bool) {
    draft.set("__meta_kubernetes_pod_container_name", &container.name);
    draft.set("__meta_kubernetes_pod_container_image", &container.image);
    draft.set_flag("__meta_kubernetes_pod_container_init", init);
}

/// Sets the labels of a container's port.
pub(super) fn set_container_port(draft: &mut Draft<'_>, port: &ContainerPort, protocol: &Arc<str>) {
    draft.set("__meta_kubernetes_pod_container_port_name", &port.name);
    draft.set_made("__meta_kubernetes_pod_container_port_number", &port.container_port.to_string());
    draft.set("__meta_kubernetes_pod_container_port_protocol", protocol);
}

/// What scraping must know of a pod, whatever relabelling makes of its labels.
pub(super) fn known_as(pod: &Pod) -> model::Pod {
    model::Pod {
        name: format!("{}/{}", pod.metadata.namespace, pod.metadata.name).into(),
        uid: Arc::clone(&pod.metadata.uid),
        ip: pod.status.pod_ip.parse().ok(),
        created: pod.metadata.created,
        host_network: pod.spec.host_network,
        finished: has_ended(pod),
        terminating: pod.metadata.terminating,
    }
}

fn set_ready(draft: &mut Draft<'_>, pod: &Pod) {
    let condition = pod.status.conditions.iter().find(|condition| condition.kind.as_str() == "Ready");
    let status = draft.lower(condition.map_or("Unknown", |condition| condition.status.as_str()));
    draft.set("__meta_kubernetes_pod_ready", &status);
}

fn set_controllers(draft: &mut Draft<'_>, pod: &Pod, around: &Surroundings<'_>) {
    let Some(controller) = &pod.metadata.controller else { return };
    draft.set("__meta_kubernetes_pod_controller_kind", &controller.kind);
    draft.set("__meta_kubernetes_pod_controller_name", &controller.name);
    let is_job = controller.kind.as_str() == "Job";
    if is_job && around.attach.job {
        draft.set("__meta_kubernetes_pod_job_name", &controller.name);
    }
    let Some(above) = around.controller_of_controller(&pod.metadata) else { return };
    if around.attach.deployment && above.kind.as_str() == "Deployment" {
        draft.set("__meta_kubernetes_pod_deployment_name", &above.name);
    }
    if is_job && around.attach.cronjob && above.kind.as_str() == "CronJob" {
        draft.set("__meta_kubernetes_pod_cronjob_name", &above.name);
    }
}

fn container_id<'p>(pod: &'p Pod, container: &Container, init: bool) -> Option<&'p Arc<str>> {
    let statuses = if init { &pod.status.init_container_statuses } else { &pod.status.container_statuses };
    statuses.iter().find(|status| status.name == container.name).map(|status| &*status.container_id)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{Others, add, addresses, assert_labels, object, value, values};
    use super::*;
    use crate::config::AttachMetadata;

    /// A pod of a Deployment in a mesh, trimmed of nothing that `kubectl` prints at these places.
    fn cart() -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "cart-7d9c-x2x",
                "generateName": "cart-7d9c-",
                "namespace": "shop",
                "uid": "0b1c",
                "resourceVersion": "4711",
                "creationTimestamp": "2024-01-01T00:00:10Z",
                "labels": {"app.kubernetes.io/name": "cart", "pod-template-hash": "7d9c", "empty": ""},
                "annotations": {
                    "prometheus.istio.io/secure-port": "15092",
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"a\":\"ü\"}",
                    "sidecar.istio.io/inject": ""
                },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-7d9c", "uid": "77",
                    "controller": true, "blockOwnerDeletion": true
                }],
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]
            },
            "spec": {
                "nodeName": "node-1",
                "serviceAccountName": "cart-sa",
                "containers": [
                    {
                        "name": "app", "image": "shop/cart:1.2", "resources": {},
                        "ports": [
                            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                            {"containerPort": 5353, "protocol": "UDP"}
                        ]
                    },
                    {"name": "helper", "image": "helper"}
                ],
                "initContainers": [
                    {"name": "init", "image": "init"},
                    {
                        "name": "istio-proxy", "image": "istio/proxyv2:1.31", "restartPolicy": "Always",
                        "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}]
                    }
                ],
                "ephemeralContainers": [{"name": "debug", "image": "busybox", "ports": [{"containerPort": 9}]}],
                "volumes": [{"name": "v", "emptyDir": {}}]
            },
            "status": {
                "phase": "Running",
                "hostIP": "192.168.0.1",
                "podIP": "10.1.0.7",
                "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}],
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:12Z"}
                ],
                "containerStatuses": [
                    {"name": "helper", "containerID": "containerd://h", "image": "resolved", "ready": true},
                    {"name": "app", "containerID": "containerd://a", "image": "resolved", "ready": true}
                ],
                "initContainerStatuses": [{"name": "istio-proxy", "containerID": "containerd://p"}],
                "qosClass": "Burstable"
            }
        })
    }

    fn found(json: Value, others: &Others) -> Vec<Candidate> {
        candidates(&object(json), &others.around())
    }

    /// The targets of a pod with one thing changed in it.
    fn changed(change: impl FnOnce(&mut Value)) -> Vec<Candidate> {
        let mut pod = cart();
        change(&mut pod);
        found(pod, &Others::default())
    }

    #[test]
    fn every_label_of_a_pod() {
        let found = found(cart(), &Others::default());
        assert_labels(
            &found[0],
            "__address__ 10.1.0.7:8080
            m:namespace shop
            m:pod_name cart-7d9c-x2x
            m:pod_uid 0b1c
            m:pod_ip 10.1.0.7
            m:pod_host_ip 192.168.0.1
            m:pod_phase Running
            m:pod_ready true
            m:pod_node_name node-1
            m:pod_host_network false
            m:pod_service_account_name cart-sa
            m:pod_controller_kind ReplicaSet
            m:pod_controller_name cart-7d9c
            m:pod_label_app_kubernetes_io_name cart
            m:pod_label_pod_template_hash 7d9c
            m:pod_labelpresent_app_kubernetes_io_name true
            m:pod_labelpresent_pod_template_hash true
            m:pod_labelpresent_empty true
            m:pod_annotation_prometheus_istio_io_secure_port 15092
            m:pod_annotation_kubectl_kubernetes_io_last_applied_configuration {\"a\":\"ü\"}
            m:pod_annotationpresent_prometheus_istio_io_secure_port true
            m:pod_annotationpresent_kubectl_kubernetes_io_last_applied_configuration true
            m:pod_annotationpresent_sidecar_istio_io_inject true
            m:pod_container_name app
            m:pod_container_image shop/cart:1.2
            m:pod_container_id containerd://a
            m:pod_container_init false
            m:pod_container_port_name http
            m:pod_container_port_number 8080
            m:pod_container_port_protocol TCP",
        );
        assert_eq!(&*found[0].source, "pod/shop/cart-7d9c-x2x");
        let pod = found[0].pod.as_deref().expect("a pod");
        let expected = model::Pod {
            name: "shop/cart-7d9c-x2x".into(),
            uid: "0b1c".into(),
            ip: "10.1.0.7".parse().ok(),
            created: 1_704_067_210,
            host_network: false,
            finished: false,
            terminating: false,
        };
        assert_eq!(*pod, expected);
    }

    #[test]
    fn one_target_for_each_port_and_one_without_for_a_container_that_has_none() {
        let found = found(cart(), &Others::default());
        assert_eq!(addresses(&found), ["10.1.0.7:8080", "10.1.0.7:5353", "10.1.0.7", "10.1.0.7", "10.1.0.7:15090"]);
        let of = |name| values(&found, name);
        assert_eq!(of("m:pod_container_name"), ["app", "app", "helper", "init", "istio-proxy"]);
        assert_eq!(of("m:pod_container_init"), ["false", "false", "false", "true", "true"]);
        assert_eq!(of("m:pod_container_port_name"), ["http", "", "", "", "http-envoy-prom"]);
        assert_eq!(of("m:pod_container_port_number"), ["8080", "5353", "", "", "15090"]);
        assert_eq!(of("m:pod_container_port_protocol"), ["TCP", "UDP", "", "", "TCP"]);
        assert_eq!(
            of("m:pod_container_id"),
            ["containerd://a", "containerd://a", "containerd://h", "", "containerd://p"]
        );
        let sources: Vec<&str> = found.iter().map(|found| &*found.source).collect();
        assert_eq!(sources, ["pod/shop/cart-7d9c-x2x"; 5]);
    }

    #[test]
    fn no_pod_fills_the_memory_with_its_ports() {
        let labels = 20_000;
        let found = changed(|pod| {
            let names: serde_json::Map<_, _> = (0..labels).map(|at| (format!("a{at}"), "x".into())).collect();
            pod["metadata"]["annotations"] = names.into();
            let ports: Vec<Value> = (1..=10_000).map(|port| json!({"containerPort": port})).collect();
            pod["spec"]["containers"][0]["ports"] = ports.into();
        });
        let all: usize = found.iter().map(|found| found.labels.iter().len()).sum();
        assert!(all < MAX_LABELS + 3 * labels, "{all} labels");
        assert_eq!(found[0].labels.value("__address__"), "10.1.0.7:1", "the first ones are there");

        let many = changed(|pod| {
            let ports: Vec<Value> = (1..=2_000).map(|port| json!({"containerPort": port})).collect();
            pod["spec"]["containers"][0]["ports"] = ports.into();
        });
        assert_eq!(many.len(), 2_003, "an ordinary pod may have many ports");
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets_only_before_a_port() {
        let found = changed(|pod| pod["status"]["podIP"] = "fd00::7".into());
        assert_eq!(addresses(&found)[..3], ["[fd00::7]:8080", "[fd00::7]:5353", "fd00::7"]);
        assert_eq!(value(&found, "m:pod_ip"), "fd00::7");
        assert_eq!(found[0].pod.as_ref().and_then(|pod| pod.ip), "fd00::7".parse().ok());
    }

    #[test]
    fn a_pod_without_an_address_has_no_targets() {
        for absent in [Value::Null, "".into()] {
            assert!(changed(|pod| pod["status"]["podIP"] = absent).is_empty());
        }
        assert!(changed(|pod| pod["status"] = Value::Null).is_empty());
    }

    #[test]
    fn no_phase_keeps_a_pod_out() {
        for (phase, finished) in
            [("Pending", false), ("Running", false), ("Succeeded", true), ("Failed", true), ("Unknown", false)]
        {
            let found = changed(|pod| pod["status"]["phase"] = phase.into());
            assert_eq!(found.len(), 5, "{phase}");
            assert_eq!(value(&found, "m:pod_phase"), phase);
            assert_eq!(found[0].pod.as_ref().map(|pod| pod.finished), Some(finished), "{phase}");
        }
    }

    #[test]
    fn a_pod_whose_deletion_has_begun_stays_and_says_so() {
        let found = changed(|pod| pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:01:00Z".into());
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|found| found.pod.as_ref().is_some_and(|pod| pod.terminating)));
    }

    #[test]
    fn readiness_is_that_of_the_condition_and_else_unknown() {
        for (conditions, expected) in [
            (json!([{"type": "Ready", "status": "False"}]), "false"),
            (json!([{"type": "Ready", "status": "Unknown"}]), "unknown"),
            (json!([{"type": "Ready", "status": "Odd"}]), "odd"),
            (json!([{"type": "ContainersReady", "status": "True"}]), "unknown"),
            (json!([]), "unknown"),
            (Value::Null, "unknown"),
        ] {
            let found = changed(|pod| pod["status"]["conditions"] = conditions.clone());
            assert_eq!(value(&found, "m:pod_ready"), expected, "{conditions}");
        }
    }

    #[test]
    fn only_an_owner_that_controls_is_a_controller() {
        let owners = json!([{"kind": "A", "name": "a"}, {"kind": "", "name": "b", "controller": true}]);
        let found = changed(|pod| pod["metadata"]["ownerReferences"] = owners);
        assert_eq!(value(&found, "m:pod_controller_kind"), "");
        assert_eq!(value(&found, "m:pod_controller_name"), "b");
        let found = changed(|pod| pod["metadata"]["ownerReferences"] = Value::Null);
        assert_eq!(value(&found, "m:pod_controller_name"), "");
    }

    #[test]
    fn the_service_account_and_the_network_of_the_node_are_told() {
        for absent in [Value::Null, "".into()] {
            let found = changed(|pod| pod["spec"]["serviceAccountName"] = absent);
            assert_eq!(value(&found, "m:pod_service_account_name"), "default");
        }
        let found = changed(|pod| pod["spec"]["hostNetwork"] = true.into());
        assert_eq!(value(&found, "m:pod_host_network"), "true");
        assert_eq!(found[0].pod.as_ref().map(|pod| pod.host_network), Some(true));
    }

    #[test]
    fn nulls_are_empty() {
        let bare = json!({
            "metadata": {"name": "p", "namespace": "n", "labels": null, "annotations": null},
            "spec": {"containers": [{"name": "c", "ports": null}], "initContainers": null, "nodeName": null},
            "status": {"podIP": "10.0.0.1", "conditions": null, "containerStatuses": null}
        });
        assert_labels(
            &found(bare, &Others::default())[0],
            "__address__ 10.0.0.1
            m:namespace n
            m:pod_name p
            m:pod_ip 10.0.0.1
            m:pod_ready unknown
            m:pod_host_network false
            m:pod_service_account_name default
            m:pod_container_name c
            m:pod_container_init false",
        );
    }

    #[test]
    fn an_attached_node_must_be_known() {
        let mut others = Others { attach: AttachMetadata { node: true, ..Default::default() }, ..Default::default() };
        assert!(found(cart(), &others).is_empty());
        assert!(candidates(&object(cart()), &others.nothing_around()).is_empty());
        let node = json!({
            "metadata": {"name": "node-1", "labels": {"zone": "a"}, "annotations": {"x/y": "z"}},
            "spec": {"providerID": "cloud://1"}
        });
        add(&mut others.nodes, node);
        let found = found(cart(), &others);
        assert_eq!(found.len(), 5);
        for (name, expected) in [
            ("m:node_name", "node-1"),
            ("m:node_label_zone", "a"),
            ("m:node_labelpresent_zone", "true"),
            ("m:node_annotation_x_y", "z"),
            ("m:node_annotationpresent_x_y", "true"),
            ("m:node_provider_id", ""),
        ] {
            assert_eq!(value(&found, name), expected, "{name}");
        }
        others.attach.node = false;
        assert_eq!(value(&super::candidates(&object(cart()), &others.around()), "m:node_name"), "");
    }

    #[test]
    fn an_attached_namespace_may_be_missing() {
        let mut others =
            Others { attach: AttachMetadata { namespace: true, ..Default::default() }, ..Default::default() };
        assert_eq!(found(cart(), &others).len(), 5);
        assert_eq!(candidates(&object(cart()), &others.nothing_around()).len(), 5);
        add(
            &mut others.namespaces,
            json!({"metadata": {"name": "shop", "labels": {"a": "1"}, "annotations": {"b": ""}}}),
        );
        let found = found(cart(), &others);
        assert_eq!(value(&found, "m:namespace_label_a"), "1");
        assert_eq!(value(&found, "m:namespace_labelpresent_a"), "true");
        assert_eq!(value(&found, "m:namespace_annotationpresent_b"), "true");
        assert_eq!(value(&found, "m:namespace_name"), "");
    }

    #[test]
    fn controllers_of_controllers_are_named_where_they_are_asked_for() {
        let mut others = Others::default();
        let owned = |kind: &str, name: &str, owner: &str, by: &str| {
            json!({"kind": kind, "metadata": {"name": name, "namespace": "shop",
                "ownerReferences": [{"kind": by, "name": owner, "controller": true}]}})
        };
        add(&mut others.replica_sets, owned("ReplicaSet", "cart-7d9c", "cart", "Deployment"));
        add(&mut others.replica_sets, owned("ReplicaSet", "rolled", "roll", "Rollout"));
        add(&mut others.jobs, owned("Job", "nightly-1", "nightly", "CronJob"));
        add(&mut others.jobs, json!({"metadata": {"name": "once", "namespace": "shop"}}));
        let of = |others: &Others, kind: &str, name: &str| {
            let mut pod = owned("Pod", "p", name, kind);
            pod["spec"] = json!({"containers": [{"name": "c"}]});
            pod["status"] = json!({"podIP": "10.0.0.1"});
            let found = found(pod, others);
            let names = ["m:pod_deployment_name", "m:pod_job_name", "m:pod_cronjob_name"];
            names.map(|name| value(&found, name).to_owned())
        };
        assert_eq!(of(&others, "ReplicaSet", "cart-7d9c"), ["", "", ""]);
        others.attach = AttachMetadata { deployment: true, job: true, cronjob: true, ..Default::default() };
        assert_eq!(of(&others, "ReplicaSet", "cart-7d9c"), ["cart", "", ""]);
        assert_eq!(of(&others, "ReplicaSet", "rolled"), ["", "", ""]);
        assert_eq!(of(&others, "ReplicaSet", "unknown"), ["", "", ""]);
        assert_eq!(of(&others, "Job", "nightly-1"), ["", "nightly-1", "nightly"]);
        assert_eq!(of(&others, "Job", "once"), ["", "once", ""]);
        assert_eq!(of(&others, "Job", "unknown"), ["", "unknown", ""]);
        assert_eq!(of(&others, "StatefulSet", "cart"), ["", "", ""]);
        others.attach = AttachMetadata { cronjob: true, ..Default::default() };
        assert_eq!(of(&others, "Job", "nightly-1"), ["", "", "nightly"]);
    }

    #[test]
    fn the_targets_of_a_pod_share_their_texts() {
        let found = found(cart(), &Others::default());
        let shared = |found: &Candidate| {
            let name = "__meta_kubernetes_pod_uid";
            found
                .labels
                .iter_shared()
                .find(|(own, _)| &***own == name)
                .map(|(name, value)| (name.as_ptr(), value.as_ptr()))
        };
        assert_eq!(shared(&found[0]), shared(&found[4]));
    }
}
