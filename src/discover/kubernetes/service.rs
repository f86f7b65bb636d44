//! Role `service`: one target for each port of each service, by its name in the cluster.

use super::meta::{self, Draft, with_port};
use super::object::{Service, ServicePort};
use super::surroundings::Surroundings;
use crate::model::Candidate;

/// The targets of a service.
pub(super) fn candidates(service: &Service, around: &Surroundings<'_>) -> Vec<Candidate> {
    let (metadata, spec) = (&service.metadata, &service.spec);
    let mut group = Draft::new(around.names);
    around.set_namespace(&mut group, metadata);
    group.set_metadata(&meta::SERVICE, metadata);
    group.set("__meta_kubernetes_service_type", &spec.kind);
    if spec.kind.as_str() == "ExternalName" {
        group.set("__meta_kubernetes_service_external_name", &spec.external_name);
    } else {
        group.set("__meta_kubernetes_service_cluster_ip", &spec.cluster_ip);
    }
    if spec.kind.as_str() == "LoadBalancer" {
        group.set("__meta_kubernetes_service_loadbalancer_ip", &spec.load_balancer_ip);
    }
    let source = format!("svc/{}/{}", metadata.namespace, metadata.name).into();
    let host = format!("{}.{}.svc", metadata.name, metadata.namespace);
    let candidate_of = |port: &ServicePort| {
        let mut own = group.clone();
        own.set("__meta_kubernetes_service_port_name", &port.name);
        own.set_made("__meta_kubernetes_service_port_number", &port.port.to_string());
        own.set("__meta_kubernetes_service_port_protocol", &port.protocol);
        own.into_candidate(&with_port(&host, port.port), &source, None)
    };
    spec.ports.iter().map(candidate_of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{Others, add, addresses, assert_labels, object, value, values};
    use super::*;
    use crate::config::AttachMetadata;

    fn service() -> Value {
        json!({
            "metadata": {"name": "cart", "namespace": "shop", "labels": {"app": "cart"}, "annotations": {"a/b": ""}},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                "loadBalancerIP": "203.0.113.7",
                "externalName": "ignored.example",
                "ports": [
                    {"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30080, "protocol": "TCP"},
                    {"port": 53, "targetPort": "dns", "protocol": "UDP"}
                ]
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}
        })
    }

    fn found(json: Value) -> Vec<Candidate> {
        candidates(&object(json), &Others::default().around())
    }

    #[test]
    fn every_label_of_a_service() {
        let found = found(service());
        assert_labels(
            &found[0],
            "__address__ cart.shop.svc:80
            m:namespace shop
            m:service_name cart
            m:service_label_app cart
            m:service_labelpresent_app true
            m:service_annotationpresent_a_b true
            m:service_port_name http
            m:service_port_number 80
            m:service_port_protocol TCP
            m:service_type LoadBalancer
            m:service_cluster_ip 10.96.0.7
            m:service_loadbalancer_ip 203.0.113.7",
        );
        assert_eq!(addresses(&found), ["cart.shop.svc:80", "cart.shop.svc:53"]);
        assert_eq!(values(&found, "m:service_port_name"), ["http", ""]);
        assert_eq!(values(&found, "m:service_port_protocol"), ["TCP", "UDP"]);
        assert_eq!((&*found[1].source, &found[1].pod), ("svc/shop/cart", &None));
    }

    #[test]
    fn each_type_has_its_labels() {
        for (kind, cluster_ip, external_name, load_balancer_ip) in [
            ("ClusterIP", "10.96.0.7", "", ""),
            ("NodePort", "10.96.0.7", "", ""),
            ("LoadBalancer", "10.96.0.7", "", "203.0.113.7"),
            ("ExternalName", "", "ignored.example", ""),
        ] {
            let mut service = service();
            service["spec"]["type"] = kind.into();
            let found = found(service);
            assert_eq!(value(&found, "m:service_type"), kind);
            assert_eq!(value(&found, "m:service_cluster_ip"), cluster_ip, "{kind}");
            assert_eq!(value(&found, "m:service_external_name"), external_name, "{kind}");
            assert_eq!(value(&found, "m:service_loadbalancer_ip"), load_balancer_ip, "{kind}");
            assert_eq!(addresses(&found)[0], "cart.shop.svc:80", "{kind}");
        }
    }

    #[test]
    fn a_headless_service_says_so() {
        let mut service = service();
        service["spec"]["clusterIP"] = "None".into();
        assert_eq!(value(&found(service), "m:service_cluster_ip"), "None");
    }

    #[test]
    fn a_service_without_ports_has_no_targets() {
        for none in [json!([]), Value::Null] {
            let mut service = service();
            service["spec"]["ports"] = none;
            assert!(found(service).is_empty());
        }
    }

    #[test]
    fn its_namespace_is_attached() {
        let attach = AttachMetadata { namespace: true, ..Default::default() };
        let mut others = Others { attach, ..Default::default() };
        add(&mut others.namespaces, json!({"metadata": {"name": "shop", "labels": {"team": "t"}}}));
        assert_eq!(value(&candidates(&object(service()), &others.around()), "m:namespace_label_team"), "t");
        others.attach.namespace = false;
        assert_eq!(value(&candidates(&object(service()), &others.around()), "m:namespace_label_team"), "");
    }
}
