//! What the jobs of Istio's sample look for, each in the forms that its rules tell apart.
//!
//! Pods and nodes have loopback addresses. Endpoints may not have one, so theirs are addresses of documentation, where nobody
//! is.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::Api;
use serde_json::{Value, json};

use crate::support::kubernetes::{Cluster, Namespace, PodManifest, create, node, pod};
use crate::support::loopback;

/// A node with its kubelet at this address.
pub(super) async fn kubelet(cluster: &Cluster, name: &str, ip: Ipv4Addr) {
    let mut manifest = node(name, &[("InternalIP", &ip.to_string()), ("Hostname", name)]);
    manifest["metadata"]["labels"] = json!({"kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "z-1"});
    cluster.node(manifest).await;
}

/// A pod whose merged metrics are behind mTLS, with more than one container port.
pub(super) fn meshed(name: &str, account: &str, secure_port: &str, ip: Ipv4Addr) -> PodManifest {
    pod(name)
        .account(account)
        .on("n1")
        .label("app", name)
        .annotation("prometheus.istio.io/secure-port", secure_port)
        .annotation("prometheus.io/path", "/stats/prometheus")
        .port("http", 8080)
        .port("grpc", 9090)
        .running(&ip.to_string())
}

/// The API server's own endpoints, which nobody maintains here, and everything that is found by `prometheus.io/…`.
pub(super) async fn annotated(cluster: &Cluster, shop: &Namespace) {
    let own = json!({
        "metadata": {"name": "kubernetes"},
        "subsets": [{"addresses": [{"ip": "192.0.2.10"}], "ports": [{"name": "https", "port": 6443}]}],
    });
    create::<Endpoints>(&Api::namespaced(cluster.admin(), "default"), own).await;
    shop.create_pods(pods()).await;
    services(shop).await;
}

fn pods() -> Vec<PodManifest> {
    let scraped = |name: &str, ip: &str| {
        pod(name).on("n1").label("app.kubernetes.io/name", name).annotation("prometheus.io/scrape", "true").running(ip)
    };
    let own = || loopback().to_string();
    vec![
        scraped("whole", &own())
            .annotation("prometheus.io/port", "9100")
            .annotation("prometheus.io/path", "/m")
            .annotation("prometheus.io/scheme", "https")
            .annotation("prometheus.io/param_module", "a")
            .port("http", 8080)
            .port("grpc", 9090),
        scraped("of-many-ports", &own()).port("http", 8080).port("grpc", 9090),
        scraped("six", "2001:db8::7").annotation("prometheus.io/port", "9100"),
        scraped("odd", &own()).annotation("prometheus.io/port", "x").annotation("prometheus.io/scheme", "ftp"),
        scraped("slow", &own()).annotation("prometheus.io/scrape_slow", "true").port("http", 8080),
        scraped("waiting", &own()).port("http", 8080).with(phase("Pending")),
        scraped("done", &own()).port("http", 8080).with(phase("Succeeded")),
        pod("silent").on("n1").port("http", 8080).running(&own()),
        // Behind the service `web`, which has another port than its own.
        pod("web-0").on("n1").label("app", "web").port("http", 8080).port("admin", 9000).running("192.0.2.20"),
    ]
}

fn phase(phase: &str) -> Value {
    json!({"status": {"phase": phase}})
}

async fn services(shop: &Namespace) {
    let services: [(&str, &[(&str, &str)]); 6] = [
        ("web", &[("scrape", "true"), ("port", "9100"), ("path", "/m"), ("scheme", "https"), ("param_module", "a")]),
        ("plain", &[("scrape", "true")]),
        ("slow", &[("scrape", "true"), ("scrape_slow", "true")]),
        ("probed", &[("probe", "true")]),
        ("pushed", &[("probe", "pushgateway")]),
        ("silent", &[]),
    ];
    for (name, annotations) in services {
        let annotations: serde_json::Map<String, Value> =
            annotations.iter().map(|(key, value)| (format!("prometheus.io/{key}"), json!(value))).collect();
        let metadata = json!({"name": name, "labels": {"app": name}, "annotations": annotations});
        let ports = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 81}]);
        shop.create_object::<Service>(json!({"metadata": metadata, "spec": {"ports": ports}})).await;
        let to_pod = json!({"kind": "Pod", "namespace": shop.name(), "name": "web-0"});
        let behind = json!({"name": name, "labels": {"app": name}});
        let addresses = json!([{"ip": "192.0.2.20", "nodeName": "n1", "targetRef": to_pod}, {"ip": "192.0.2.21"}]);
        let subset = json!({
            "addresses": addresses,
            "notReadyAddresses": [{"ip": "192.0.2.22"}],
            "ports": [{"name": "http", "port": 8080}],
        });
        shop.create_object::<Endpoints>(json!({"metadata": behind, "subsets": [subset]})).await;
    }
}
