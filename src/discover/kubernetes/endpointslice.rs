//! Role `endpointslice`: one target for each address and port behind a service, and one for each further port of the
//! pods there. Nothing is left out because an endpoint is not ready, not serving or terminating.

use std::sync::Arc;

use super::behind::{Behind, Port, attach_node, node_referred_to};
use super::meta::{self, Draft, with_port};
use super::object::{EndpointSlice, Service, SliceEndpoint, SlicePort};
use super::surroundings::Surroundings;
use crate::model::Candidate;

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The targets of a slice.
pub(super) fn candidates(slice: &EndpointSlice, around: &Surroundings<'_>) -> Vec<Candidate> {
    let metadata = &slice.metadata;
    let mut group = Draft::new(around.names);
    around.set_namespace(&mut group, metadata);
    group.set_metadata(&meta::ENDPOINT_SLICE, metadata);
    group.set("__meta_kubernetes_endpointslice_address_type", &slice.address_type);
    let service = metadata.labels.get(SERVICE_NAME).and_then(|name| around.service(&metadata.namespace, name));
    if let Some(service) = service {
        if is_second_family(slice, service) {
            return Vec::new();
        }
        group.set_metadata(&meta::SERVICE, &service.metadata);
    }
    let source: Arc<str> = format!("endpointslice/{}/{}", metadata.namespace, metadata.name).into();
    let mut behind = Behind::new(around);
    let mut candidates = Vec::new();
    for endpoint in &slice.endpoints {
        for port in &slice.ports {
            for address in &endpoint.addresses {
                let mut own = group.clone();
                set_port(&mut own, port);
                set_endpoint(&mut own, endpoint);
                let node = node_referred_to(endpoint.target_ref.as_ref()).unwrap_or(&endpoint.node_name);
                attach_node(&mut own, around, node);
                let dialled = port.port.map(|number| Port { number, protocol: None });
                let pod = behind.set_pod(&mut own, endpoint.target_ref.as_ref(), dialled.as_ref());
                let address = port.port.map_or_else(|| address.to_string(), |number| with_port(address, number));
                candidates.push(own.into_candidate(&address, &source, pod.as_ref()));
            }
        }
    }
    candidates.extend(behind.uncovered(&group, &source));
    candidates
}

/// Whether the slice holds the second addresses of endpoints whose first ones stand in another slice.
fn is_second_family(slice: &EndpointSlice, service: &Service) -> bool {
    let dual = matches!(service.spec.ip_family_policy.as_str(), "PreferDualStack" | "RequireDualStack");
    dual && service.spec.ip_families.first().is_some_and(|first| *first != slice.address_type)
}

fn set_port(draft: &mut Draft<'_>, port: &SlicePort) {
    if let Some(number) = port.port {
        draft.set_made("__meta_kubernetes_endpointslice_port", &number.to_string());
    }
    draft.set("__meta_kubernetes_endpointslice_port_name", &port.name);
    draft.set("__meta_kubernetes_endpointslice_port_protocol", &port.protocol);
    draft.set("__meta_kubernetes_endpointslice_port_app_protocol", &port.app_protocol);
}

fn set_endpoint(draft: &mut Draft<'_>, endpoint: &SliceEndpoint) {
    let conditions = &endpoint.conditions;
    for (name, value) in [
        ("__meta_kubernetes_endpointslice_endpoint_conditions_ready", conditions.ready),
        ("__meta_kubernetes_endpointslice_endpoint_conditions_serving", conditions.serving),
        ("__meta_kubernetes_endpointslice_endpoint_conditions_terminating", conditions.terminating),
    ] {
        if let Some(value) = value {
            draft.set_flag(name, value);
        }
    }
    draft.set("__meta_kubernetes_endpointslice_endpoint_hostname", &endpoint.hostname);
    draft.set("__meta_kubernetes_endpointslice_endpoint_node_name", &endpoint.node_name);
    draft.set("__meta_kubernetes_endpointslice_endpoint_zone", &endpoint.zone);
    if let Some(reference) = &endpoint.target_ref {
        draft.set("__meta_kubernetes_endpointslice_address_target_kind", &reference.kind);
        draft.set("__meta_kubernetes_endpointslice_address_target_name", &reference.name);
    }
    draft.set_pairs(
        "__meta_kubernetes_endpointslice_endpoint_topology_",
        "__meta_kubernetes_endpointslice_endpoint_topology_present_",
        &endpoint.deprecated_topology,
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{WEB_POD_LABELS, add, addresses, assert_labels, object, value, values, web};
    use super::*;

    fn slice() -> Value {
        json!({
            "metadata": {
                "name": "web-abc", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"}, "annotations": {"f": ""}
            },
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": ["10.1.0.9"],
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "hostname": "web-0", "nodeName": "node-1", "zone": "zone-a",
                    "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "w0"},
                    "deprecatedTopology": {"topology.kubernetes.io/region": "r", "empty": ""}
                },
                {"addresses": ["10.1.0.10", "10.1.0.11"], "conditions": {"ready": false}}
            ],
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"}]
        })
    }

    fn found(json: Value) -> Vec<Candidate> {
        candidates(&object(json), &web().around())
    }

    /// The targets with one thing changed in the object.
    fn changed(change: impl FnOnce(&mut Value)) -> Vec<Candidate> {
        let mut slice = slice();
        change(&mut slice);
        found(slice)
    }

    const GROUP: &str = "
        m:namespace shop
        m:namespace_label_team t
        m:namespace_labelpresent_team true
        m:endpointslice_name web-abc
        m:endpointslice_address_type IPv4
        m:endpointslice_label_kubernetes_io_service_name web
        m:endpointslice_labelpresent_kubernetes_io_service_name true
        m:endpointslice_annotationpresent_f true
        m:service_name web
        m:service_label_s 1
        m:service_labelpresent_s true
        m:service_annotation_t_u 2
        m:service_annotationpresent_t_u true
    ";

    const PORT: &str = "
        m:endpointslice_port 8080
        m:endpointslice_port_name http
        m:endpointslice_port_protocol TCP
        m:endpointslice_port_app_protocol kubernetes.io/h2c
    ";

    #[test]
    fn every_label_of_an_address_with_a_pod_behind_it() {
        let own = "
            __address__ 10.1.0.9:8080
            m:endpointslice_endpoint_conditions_ready true
            m:endpointslice_endpoint_conditions_serving true
            m:endpointslice_endpoint_conditions_terminating false
            m:endpointslice_endpoint_hostname web-0
            m:endpointslice_endpoint_node_name node-1
            m:endpointslice_endpoint_zone zone-a
            m:endpointslice_address_target_kind Pod
            m:endpointslice_address_target_name web-0
            m:endpointslice_endpoint_topology_topology_kubernetes_io_region r
            m:endpointslice_endpoint_topology_present_topology_kubernetes_io_region true
            m:endpointslice_endpoint_topology_present_empty true
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
        let found = found(slice());
        assert_labels(&found[0], &format!("{GROUP}{PORT}{own}{WEB_POD_LABELS}"));
        assert_eq!(&*found[0].source, "endpointslice/shop/web-abc");
        assert_eq!(found[0].pod.as_deref().map(|pod| &*pod.uid), Some("w0"));
    }

    #[test]
    fn every_label_of_an_address_with_nobody_behind_it() {
        let own = "
            __address__ 10.1.0.11:8080
            m:endpointslice_endpoint_conditions_ready false
        ";
        let found = found(slice());
        assert_labels(&found[2], &format!("{GROUP}{PORT}{own}"));
        assert_eq!((&*found[2].source, &found[2].pod), ("endpointslice/shop/web-abc", &None));
    }

    #[test]
    fn every_label_of_a_port_that_is_not_covered() {
        let found = found(slice());
        let expected = ["10.1.0.9:8080", "10.1.0.10:8080", "10.1.0.11:8080", "10.1.0.9:9000", "10.1.0.9:15090"];
        assert_eq!(addresses(&found), expected);
        let own = "
            __address__ 10.1.0.9:9000
            m:pod_container_name web
            m:pod_container_image web:1
            m:pod_container_init false
            m:pod_container_port_name admin
            m:pod_container_port_number 9000
            m:pod_container_port_protocol SCTP
        ";
        assert_labels(&found[3], &format!("{GROUP}{own}{WEB_POD_LABELS}"));
        assert_eq!(&*found[3].source, "endpointslice/shop/web-abc");
    }

    #[test]
    fn the_protocol_of_a_container_port_is_the_containers_own() {
        let found = changed(|slice| slice["ports"] = json!([{"port": 9000, "protocol": "UDP"}]));
        assert_eq!(value(&found, "m:endpointslice_port_protocol"), "UDP");
        assert_eq!(value(&found, "m:pod_container_port_protocol"), "SCTP");
    }

    #[test]
    fn a_slice_is_each_address_with_each_port_in_whatever_state() {
        let found = changed(|slice| {
            slice["endpoints"] = json!([
                {"addresses": ["10.0.0.1", "10.0.0.2"], "conditions": {"ready": null, "terminating": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"serving": false}},
                {"addresses": ["10.0.0.4"], "conditions": null},
                {"addresses": null}
            ]);
            slice["ports"] = json!([{"port": 1}, {"name": "", "port": 2}]);
        });
        let expected = [
            "10.0.0.1:1",
            "10.0.0.2:1",
            "10.0.0.1:2",
            "10.0.0.2:2",
            "10.0.0.3:1",
            "10.0.0.3:2",
            "10.0.0.4:1",
            "10.0.0.4:2",
        ];
        assert_eq!(addresses(&found), expected);
        let of = |name: &str| values(&found, &format!("m:endpointslice_endpoint_conditions_{name}"));
        assert_eq!(of("ready"), [""; 8]);
        assert_eq!(of("serving"), ["", "", "", "", "false", "false", "", ""]);
        assert_eq!(of("terminating"), ["true", "true", "true", "true", "", "", "", ""]);
    }

    #[test]
    fn without_endpoints_or_ports_there_are_no_targets() {
        for (key, none) in [("endpoints", Value::Null), ("ports", Value::Null), ("ports", json!([]))] {
            assert!(changed(|slice| slice[key] = none.clone()).is_empty(), "{key} {none}");
        }
    }

    #[test]
    fn a_port_without_a_number_is_left_to_the_rules() {
        let found = changed(|slice| {
            slice["addressType"] = "IPv6".into();
            slice["endpoints"][1]["addresses"] = json!(["fd00::1"]);
            slice["ports"] = json!([{"name": "any", "port": null}, {"port": 7}]);
        });
        assert_eq!(addresses(&found)[..4], ["10.1.0.9", "10.1.0.9:7", "fd00::1", "[fd00::1]:7"]);
        assert_eq!(values(&found, "m:endpointslice_port")[..2], ["", "7"]);
        // No container is found by it, and nothing is covered.
        assert_eq!(value(&found, "m:pod_name"), "web-0");
        assert_eq!(value(&found, "m:pod_container_name"), "");
        assert_eq!(addresses(&found)[4..].len(), 4);
    }

    #[test]
    fn names_are_addresses_too() {
        let found = changed(|slice| {
            slice["addressType"] = "FQDN".into();
            slice["endpoints"] = json!([{"addresses": ["db.example.com"]}]);
        });
        assert_eq!(addresses(&found), ["db.example.com:8080"]);
        assert_eq!(value(&found, "m:endpointslice_address_type"), "FQDN");
    }

    #[test]
    fn a_slice_may_be_without_a_service() {
        let found = changed(|slice| slice["metadata"]["labels"] = Value::Null);
        assert_eq!((found.len(), value(&found, "m:service_name")), (5, ""));
        let found = changed(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] = "gone".into());
        assert_eq!((found.len(), value(&found, "m:service_name")), (5, ""));
    }

    #[test]
    fn of_a_dual_stack_service_only_the_first_family_is_dialled() {
        for (policy, families, address_type, expected) in [
            ("PreferDualStack", json!(["IPv4", "IPv6"]), "IPv4", 5),
            ("PreferDualStack", json!(["IPv4", "IPv6"]), "IPv6", 0),
            ("RequireDualStack", json!(["IPv6", "IPv4"]), "IPv6", 5),
            ("RequireDualStack", json!(["IPv6", "IPv4"]), "IPv4", 0),
            ("RequireDualStack", json!(["IPv6", "IPv4"]), "FQDN", 0),
            ("SingleStack", json!(["IPv4"]), "IPv6", 5),
            ("PreferDualStack", Value::Null, "IPv6", 5),
            ("", json!(["IPv4", "IPv6"]), "IPv6", 5),
        ] {
            let mut others = web();
            let service = json!({"metadata": {"name": "web", "namespace": "shop"},
                "spec": {"ipFamilyPolicy": policy, "ipFamilies": families}});
            add(&mut others.services, service);
            let mut slice = slice();
            slice["addressType"] = address_type.into();
            let found = candidates(&object(slice.clone()), &others.around());
            assert_eq!(found.len(), expected, "{policy} {families} {address_type}");
            // A service that is not known leaves both families.
            others.services.clear();
            assert_eq!(candidates(&object(slice), &others.around()).len(), 5);
        }
    }

    #[test]
    fn the_node_that_is_referred_to_goes_before_the_one_that_is_named() {
        let found = changed(|slice| {
            let reference = json!({"kind": "Node", "name": "node-2"});
            slice["endpoints"] = json!([
                {"addresses": ["10.0.0.1"], "nodeName": "node-1", "targetRef": reference},
                {"addresses": ["10.0.0.2"], "nodeName": "node-1"},
                {"addresses": ["10.0.0.3"], "nodeName": "unknown"},
                {"addresses": ["10.0.0.4"]}
            ]);
        });
        assert_eq!(values(&found, "m:node_label_zone"), ["b", "a", "", ""]);
        assert_eq!(values(&found, "m:node_name"), ["node-2", "node-1", "", ""]);
        assert_eq!(values(&found, "m:endpointslice_endpoint_node_name"), ["node-1", "node-1", "unknown", ""]);
    }

    #[test]
    fn nothing_is_attached_that_is_not_watched() {
        let found = candidates(&object(slice()), &web().nothing_around());
        assert_eq!(addresses(&found), ["10.1.0.9:8080", "10.1.0.10:8080", "10.1.0.11:8080"]);
        for name in ["m:service_name", "m:pod_name", "m:node_name", "m:namespace_label_team"] {
            assert_eq!(value(&found, name), "", "{name}");
        }
    }
}
