//! Role `endpoints`: one target for each address and port behind a service, in the deprecated form, and one for each
//! further port of the pods there.

use std::sync::Arc;

use super::behind::{Behind, Port, attach_node, node_referred_to};
use super::meta::{self, Draft, with_port};
use super::object::{EndpointAddress, EndpointPort, Endpoints};
use super::surroundings::Surroundings;
use crate::model::Candidate;

/// The targets of an Endpoints object.
pub(super) fn candidates(endpoints: &Endpoints, around: &Surroundings<'_>) -> Vec<Candidate> {
    let metadata = &endpoints.metadata;
    let mut group = Draft::new(around.names);
    around.set_namespace(&mut group, metadata);
    group.set_metadata(&meta::ENDPOINTS, metadata);
    if let Some(service) = around.service(&metadata.namespace, &metadata.name) {
        group.set_metadata(&meta::SERVICE, &service.metadata);
    }
    let source: Arc<str> = format!("endpoints/{}/{}", metadata.namespace, metadata.name).into();
    let mut behind = Behind::new(around);
    let mut candidates = Vec::new();
    for subset in &endpoints.subsets {
        for port in &subset.ports {
            let ready = subset.addresses.iter().map(|address| (address, true));
            let all = ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false)));
            for (address, ready) in all {
                let mut own = group.clone();
                set_endpoint(&mut own, address, port, ready);
                let node = if address.node_name.is_empty() {
                    node_referred_to(address.target_ref.as_ref())
                } else {
                    Some(&*address.node_name)
                };
                if let Some(node) = node {
                    attach_node(&mut own, around, node);
                }
                let dialled = Port { number: port.port, protocol: Some(&port.protocol) };
                let pod = behind.set_pod(&mut own, address.target_ref.as_ref(), Some(&dialled));
                candidates.push(own.into_candidate(&with_port(&address.ip, port.port), &source, pod.as_ref()));
            }
        }
    }
    candidates.extend(behind.uncovered(&group, &source));
    candidates
}

fn set_endpoint(draft: &mut Draft<'_>, address: &EndpointAddress, port: &EndpointPort, ready: bool) {
    draft.set("__meta_kubernetes_endpoint_port_name", &port.name);
    draft.set("__meta_kubernetes_endpoint_port_protocol", &port.protocol);
    draft.set_flag("__meta_kubernetes_endpoint_ready", ready);
    draft.set("__meta_kubernetes_endpoint_node_name", &address.node_name);
    draft.set("__meta_kubernetes_endpoint_hostname", &address.hostname);
    if let Some(reference) = &address.target_ref {
        draft.set("__meta_kubernetes_endpoint_address_target_kind", &reference.kind);
        draft.set("__meta_kubernetes_endpoint_address_target_name", &reference.name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{
        Others, WEB_POD_LABELS, add, addresses, assert_labels, object, value, values, web, web_pod,
    };
    use super::*;

    fn endpoints() -> Value {
        json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"e": "1"}, "annotations": {"f": ""}},
            "subsets": [{
                "addresses": [{
                    "ip": "10.1.0.9", "hostname": "web-0", "nodeName": "node-1",
                    "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "w0"}
                }],
                "notReadyAddresses": [{"ip": "10.1.0.10"}],
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]
            }]
        })
    }

    fn found(json: Value) -> Vec<Candidate> {
        candidates(&object(json), &web().around())
    }

    /// The targets with one thing changed in the object.
    fn changed(change: impl FnOnce(&mut Value)) -> Vec<Candidate> {
        let mut endpoints = endpoints();
        change(&mut endpoints);
        found(endpoints)
    }

    const GROUP: &str = "
        m:namespace shop
        m:namespace_label_team t
        m:namespace_labelpresent_team true
        m:endpoints_name web
        m:endpoints_label_e 1
        m:endpoints_labelpresent_e true
        m:endpoints_annotationpresent_f true
        m:service_name web
        m:service_label_s 1
        m:service_labelpresent_s true
        m:service_annotation_t_u 2
        m:service_annotationpresent_t_u true
    ";

    #[test]
    fn every_label_of_an_address_with_a_pod_behind_it() {
        let found = found(endpoints());
        let own = "
            __address__ 10.1.0.9:8080
            m:endpoint_port_name http
            m:endpoint_port_protocol TCP
            m:endpoint_ready true
            m:endpoint_address_target_kind Pod
            m:endpoint_address_target_name web-0
            m:endpoint_node_name node-1
            m:endpoint_hostname web-0
            m:node_name node-1
            m:node_label_zone a
            m:node_labelpresent_zone true
            m:pod_container_name web
            m:pod_container_image web:1
            m:pod_container_init false
            m:pod_container_port_name http
            m:pod_container_port_number 8080
            m:pod_container_port_protocol TCP
        ";
        assert_labels(&found[0], &format!("{GROUP}{own}{WEB_POD_LABELS}"));
        assert_eq!(&*found[0].source, "endpoints/shop/web");
        assert_eq!(found[0].pod.as_deref().map(|pod| (&*pod.name, &*pod.uid)), Some(("shop/web-0", "w0")));
    }

    #[test]
    fn every_label_of_an_address_with_nobody_behind_it() {
        let own = "
            __address__ 10.1.0.10:8080
            m:endpoint_port_name http
            m:endpoint_port_protocol TCP
            m:endpoint_ready false
        ";
        let found = found(endpoints());
        assert_labels(&found[1], &format!("{GROUP}{own}"));
        assert_eq!((&*found[1].source, &found[1].pod), ("endpoints/shop/web", &None));
    }

    #[test]
    fn every_label_of_a_port_that_is_not_covered() {
        let found = found(endpoints());
        assert_eq!(addresses(&found), ["10.1.0.9:8080", "10.1.0.10:8080", "10.1.0.9:9000", "10.1.0.9:15090"]);
        let own = "
            __address__ 10.1.0.9:15090
            m:pod_container_name proxy
            m:pod_container_image proxy:1
            m:pod_container_init true
            m:pod_container_port_name prom
            m:pod_container_port_number 15090
            m:pod_container_port_protocol TCP
        ";
        assert_labels(&found[3], &format!("{GROUP}{own}{WEB_POD_LABELS}"));
        assert_eq!(&*found[3].source, "endpoints/shop/web");
        assert_eq!(found[3].pod.as_deref().map(|pod| &*pod.uid), Some("w0"));
    }

    #[test]
    fn a_subset_is_each_address_with_each_port() {
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::2"}],
                "ports": [{"name": "a", "port": 1, "protocol": "TCP"}, {"port": 2, "protocol": "UDP"}]},
            {"notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 3}]},
            {"addresses": [{"ip": "10.0.0.4"}], "ports": null},
            {"addresses": null, "notReadyAddresses": null, "ports": [{"port": 5}]}
        ]);
        let found = changed(|endpoints| endpoints["subsets"] = subsets);
        assert_eq!(addresses(&found), ["10.0.0.1:1", "[fd00::2]:1", "10.0.0.1:2", "[fd00::2]:2", "10.0.0.3:3"]);
        assert_eq!(values(&found, "m:endpoint_port_name"), ["a", "a", "", "", ""]);
        assert_eq!(values(&found, "m:endpoint_port_protocol"), ["TCP", "TCP", "UDP", "UDP", ""]);
        assert_eq!(values(&found, "m:endpoint_ready"), ["true", "true", "true", "true", "false"]);
        assert!(changed(|endpoints| endpoints["subsets"] = Value::Null).is_empty());
    }

    #[test]
    fn a_port_counts_as_covered_in_whatever_subset_it_stands() {
        let found = changed(|endpoints| {
            let mut second = endpoints["subsets"][0].clone();
            second["ports"] = json!([{"port": 9000}, {"port": 15090}]);
            endpoints["subsets"].as_array_mut().expect("a list").push(second);
        });
        let with_pod: Vec<&str> =
            found.iter().filter(|found| found.pod.is_some()).map(|found| found.labels.value("__address__")).collect();
        assert_eq!(with_pod, ["10.1.0.9:8080", "10.1.0.9:9000", "10.1.0.9:15090"]);
        assert_eq!(values(&found, "m:pod_container_name"), ["web", "", "web", "", "proxy", ""]);
    }

    #[test]
    fn a_container_is_found_by_the_number_alone() {
        let found = changed(|endpoints| {
            endpoints["subsets"][0]["ports"] = json!([{"name": "x", "port": 9000, "protocol": "UDP"}]);
        });
        assert_eq!(value(&found, "m:pod_container_port_name"), "admin");
        assert_eq!(value(&found, "m:pod_container_port_protocol"), "UDP", "what the endpoint says");
        // One that is not declared leaves the labels of the pod, and covers nothing.
        let found = changed(|endpoints| endpoints["subsets"][0]["ports"] = json!([{"port": 1}]));
        assert_eq!(value(&found, "m:pod_name"), "web-0");
        assert_eq!(value(&found, "m:pod_container_name"), "");
        assert_eq!(
            addresses(&found)[2..],
            ["10.1.0.9:8080", "10.1.0.9:8080", "10.1.0.9:9000", "10.1.0.9:15090"],
            "8080 is declared twice"
        );
    }

    #[test]
    fn of_several_containers_with_one_port_the_last_is_told() {
        let mut others = web();
        let mut pod = web_pod();
        pod["spec"]["containers"][1]["ports"] = json!([{"name": "second", "containerPort": 8080}]);
        pod["spec"]["initContainers"][0]["ports"] = json!([{"name": "third", "containerPort": 8080}]);
        add(&mut others.pods, pod);
        let found = candidates(&object(endpoints()), &others.around());
        assert_eq!(value(&found, "m:pod_container_name"), "proxy");
        assert_eq!(value(&found, "m:pod_container_init"), "true");
        assert_eq!(value(&found, "m:pod_container_port_name"), "third");
    }

    #[test]
    fn what_is_not_covered_gives_one_target_for_each_container_that_declares_it() {
        let mut others = web();
        let mut pod = web_pod();
        pod["spec"]["containers"][1]["ports"] = json!([{"containerPort": 9000, "protocol": "TCP"}]);
        add(&mut others.pods, pod.clone());
        let found = candidates(&object(endpoints()), &others.around());
        assert_eq!(addresses(&found)[2..], ["10.1.0.9:9000", "10.1.0.9:9000", "10.1.0.9:15090"]);
        assert_eq!(values(&found, "m:pod_container_name")[2..], ["web", "plain", "proxy"]);
        assert_eq!(values(&found, "m:pod_container_port_protocol")[2..], ["SCTP", "TCP", "TCP"]);
        // A pod without an address has none of them.
        pod["status"]["podIP"] = "".into();
        add(&mut others.pods, pod);
        assert_eq!(candidates(&object(endpoints()), &others.around()).len(), 2);
    }

    #[test]
    fn only_a_known_pod_is_behind_an_address() {
        for reference in [
            json!({"kind": "Pod", "namespace": "shop", "name": "other"}),
            json!({"kind": "Pod", "namespace": "other", "name": "web-0"}),
            json!({"kind": "VirtualMachine", "namespace": "shop", "name": "web-0"}),
            Value::Null,
        ] {
            let found = changed(|endpoints| endpoints["subsets"][0]["addresses"][0]["targetRef"] = reference.clone());
            assert_eq!((found.len(), &found[0].pod), (2, &None), "{reference}");
            assert_eq!(value(&found, "m:pod_name"), "");
            let name = reference["name"].as_str().unwrap_or_default();
            assert_eq!(value(&found, "m:endpoint_address_target_name"), name);
        }
    }

    #[test]
    fn the_node_is_that_of_the_address_and_else_the_one_it_refers_to() {
        let node = json!({"kind": "Node", "name": "node-2"});
        let found = changed(|endpoints| {
            let with = |name: Value| json!({"ip": "10.0.0.1", "nodeName": name, "targetRef": node});
            let nodes = [json!("node-1"), Value::Null, json!("unknown")];
            endpoints["subsets"][0]["addresses"] = nodes.map(with).to_vec().into();
        });
        assert_eq!(values(&found, "m:node_label_zone"), ["a", "b", "", ""]);
        assert_eq!(values(&found, "m:node_name"), ["node-1", "node-2", "", ""]);
        assert_eq!(values(&found, "m:node_provider_id"), [""; 4]);
        assert_eq!(values(&found, "m:node_condition_ready"), [""; 4]);
        assert_eq!(values(&found, "m:endpoint_node_name"), ["node-1", "", "unknown", ""]);
    }

    #[test]
    fn nothing_is_attached_that_is_not_asked_for_or_not_known() {
        let mut others = web();
        others.attach = crate::config::AttachMetadata::default();
        let found = candidates(&object(endpoints()), &others.around());
        for name in ["m:node_name", "m:namespace_label_team", "m:pod_deployment_name"] {
            assert_eq!(value(&found, name), "", "{name}");
        }
        assert_eq!(value(&found, "m:service_name"), "web");
        let found = candidates(&object(endpoints()), &web().nothing_around());
        assert_eq!(addresses(&found), ["10.1.0.9:8080", "10.1.0.10:8080"]);
        for name in ["m:service_name", "m:pod_name", "m:node_name", "m:namespace_label_team"] {
            assert_eq!(value(&found, name), "", "{name}");
        }
    }

    #[test]
    fn the_service_is_the_one_of_the_same_name() {
        let found = changed(|endpoints| endpoints["metadata"]["name"] = "web2".into());
        assert_eq!(value(&found, "m:service_name"), "");
        assert_eq!(found.len(), 4);
        let others = Others::default();
        assert_eq!(candidates(&object(endpoints()), &others.around()).len(), 2);
    }
}
