//! Role `node`: one target for each node, its kubelet.

use super::meta::{self, Draft, with_port};
use super::object::Node;
use super::surroundings::Surroundings;
use crate::model::Candidate;

/// The kinds of addresses by which a node may be dialled, best first.
const ADDRESS_KINDS: [&str; 6] = ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];

/// The target of a node, whatever state it is in; `None` while it has no address: what it was before still holds.
pub(super) fn candidates(node: &Node, around: &Surroundings<'_>) -> Option<Vec<Candidate>> {
    let addresses = &node.status.addresses;
    let best = ADDRESS_KINDS.iter().find_map(|kind| addresses.iter().find(|address| address.kind.as_str() == *kind))?;
    let mut draft = Draft::new(around.names);
    draft.set_metadata(&meta::NODE, &node.metadata);
    draft.set("__meta_kubernetes_node_provider_id", &node.spec.provider_id);
    for condition in &node.status.conditions {
        let status = draft.lower(&condition.status);
        draft.set_keyed("__meta_kubernetes_node_condition_", &condition.kind.to_lowercase(), &status);
    }
    // The first address of each kind is set last, and stays.
    for address in addresses.iter().rev() {
        draft.set_keyed("__meta_kubernetes_node_address_", &address.kind, &address.address);
    }
    draft.set("instance", &node.metadata.name);
    let source = format!("node/{}", node.metadata.name).into();
    let address = with_port(&best.address, node.status.daemon_endpoints.kubelet_endpoint.port);
    Some(vec![draft.into_candidate(&address, &source, None)])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{Others, addresses, assert_labels, object, value};
    use super::*;
    use crate::config::AttachMetadata;

    fn node() -> Value {
        json!({
            "metadata": {
                "name": "node-1", "uid": "n", "labels": {"kubernetes.io/os": "linux", "empty": ""},
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
            },
            "spec": {"podCIDR": "10.1.0.0/24", "providerID": "cloud:///zone/i-1", "unschedulable": true,
                "taints": [{"key": "k", "effect": "NoSchedule"}]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "node-1.local"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                    {"type": "InternalIP", "address": "192.168.0.1"},
                    {"type": "InternalIP", "address": "fd00::1"},
                    {"type": "Odd Type", "address": "odd"}
                ],
                "conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"},
                    {"type": "example.com/Odd", "status": "True"}
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "images": [{"names": ["a", "b"], "sizeBytes": 7}]
            }
        })
    }

    fn found(json: Value) -> Option<Vec<Candidate>> {
        let everything = AttachMetadata { node: true, namespace: true, deployment: true, job: true, cronjob: true };
        candidates(&object(json), &Others { attach: everything, ..Others::default() }.around())
    }

    #[test]
    fn every_label_of_a_node() {
        let found = found(node()).expect("an address");
        assert_labels(
            &found[0],
            "__address__ 192.168.0.1:10250
            instance node-1
            m:node_name node-1
            m:node_provider_id cloud:///zone/i-1
            m:node_label_kubernetes_io_os linux
            m:node_labelpresent_kubernetes_io_os true
            m:node_labelpresent_empty true
            m:node_annotation_volumes_kubernetes_io_controller_managed_attach_detach true
            m:node_annotationpresent_volumes_kubernetes_io_controller_managed_attach_detach true
            m:node_condition_memorypressure false
            m:node_condition_ready unknown
            m:node_condition_example_com_odd true
            m:node_address_InternalIP 192.168.0.1
            m:node_address_ExternalIP 203.0.113.1
            m:node_address_Hostname node-1.local
            m:node_address_Odd_Type odd",
        );
        assert_eq!((found.len(), &*found[0].source, &found[0].pod), (1, "node/node-1", &None));
    }

    #[test]
    fn it_is_dialled_by_the_best_kind_of_address() {
        let all = ["Hostname", "LegacyHostIP", "ExternalDNS", "ExternalIP", "InternalDNS", "InternalIP"];
        for (number, kind) in all.iter().enumerate() {
            let mut node = node();
            let there = all[..=number].iter().map(|kind| json!({"type": kind, "address": kind})).collect();
            node["status"]["addresses"] = Value::Array(there);
            assert_eq!(addresses(&found(node).expect("an address")), [format!("{kind}:10250")]);
        }
    }

    #[test]
    fn ipv6_stands_in_brackets_and_an_unset_port_is_zero() {
        let mut node = node();
        node["status"]["addresses"] = json!([{"type": "InternalIP", "address": "fd00::1"}]);
        node["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 0}});
        assert_eq!(addresses(&found(node.clone()).expect("an address")), ["[fd00::1]:0"]);
        node["status"]["daemonEndpoints"] = Value::Null;
        assert_eq!(addresses(&found(node).expect("an address")), ["[fd00::1]:0"]);
    }

    #[test]
    fn nothing_is_said_of_a_node_without_a_usable_address() {
        for none in [json!([]), Value::Null, json!([{"type": "Odd", "address": "a"}])] {
            let mut node = node();
            node["status"]["addresses"] = none;
            assert_eq!(found(node), None);
        }
    }

    #[test]
    fn nodes_have_no_namespace_whatever_is_attached() {
        let found = found(node()).expect("an address");
        assert_eq!(value(&found, "m:namespace"), "");
    }
}
