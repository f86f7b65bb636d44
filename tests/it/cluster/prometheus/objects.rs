//! Objects of every kind that discovery looks at, in every form that its labels tell apart.
//!
//! Left out: two keys that become one label name (which of them wins is not specified), and slices of both families of
//! a dual-stack service (Prometheus has been of two minds about them since 3.11).

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::kubernetes::{Cluster, Namespace, node, pod, set_status, with};

/// Creates them all, in the namespaces `shop` and `bank`.
pub(super) async fn create(cluster: &Cluster) -> (Namespace, Namespace) {
    let (shop, bank) = (cluster.namespace("shop").await, cluster.namespace("bank").await);
    nodes(cluster).await;
    pods(&shop, &bank).await;
    services(&shop, &bank).await;
    endpoints(&shop, &bank).await;
    slices(&shop, &bank).await;
    ingresses(&shop).await;
    (shop, bank)
}

/// Changes something of each kind. What endpoints refer to by name stays: Prometheus shows a pod there as it was when the
/// endpoints last changed.
pub(super) async fn change(cluster: &Cluster, (shop, bank): (Namespace, Namespace)) {
    let nodes: Api<Node> = Api::all(cluster.admin());
    set_status(&nodes, "n2", node("n2", &[("InternalIP", "10.0.0.2")])["status"].take()).await;
    let relabel = json!({"metadata": {"labels": {"empty": "not-now", "kubernetes.io/os": null}}});
    nodes.patch("n1", &PatchParams::default(), &Patch::Merge(relabel)).await.expect("a change");
    nodes.delete("n4", &DeleteParams::default()).await.expect("it is deleted");
    for name in ["n5", "n6"] {
        cluster.node(node(name, &[("InternalIP", "10.0.0.5")])).await;
    }

    for pod in ["done", "dual"] {
        shop.delete_pod(pod).await;
    }
    // A name, and the address of one that is gone, in other hands.
    let successor = pod("broken").on("n1").account("successor").port("https", 8443).port("http", 8080);
    shop.replace_pod("broken", successor.running("10.1.0.4")).await;
    shop.change::<Pod>("host", json!({"metadata": {"labels": {"app.kubernetes.io/name": "host"}}})).await;
    shop.set_pod_status("starting", json!({"phase": "Running", "podIP": "10.1.0.14"})).await;
    bank.create_pod(pod("second").on("n2").running("10.1.0.9")).await;

    shop.change::<Service>(
        "web",
        json!({"metadata": {"labels": {"empty": null}}, "spec": {"ports": [
            {"name": "http", "port": 81},
        ]}}),
    )
    .await;
    delete::<Service>(&shop, "six").await;
    shop.change::<Endpoints>(
        "of-no-service",
        json!({"subsets": [{
            "notReadyAddresses": [{"ip": "fd00:1::7", "hostname": "six"}], "ports": [{"port": 8080}],
        }]}),
    )
    .await;
    shop.change::<EndpointSlice>(
        "names",
        json!({"endpoints": [
            {"addresses": ["other.example.com"], "conditions": {"ready": false}, "zone": "z-2"},
        ]}),
    )
    .await;
    delete::<EndpointSlice>(&shop, "of-no-service").await;
    shop.change::<Ingress>(
        "classless",
        json!({"spec": {
            "ingressClassName": "new", "tls": [{"hosts": ["*.example.com"]}],
            "rules": [{"host": "x.example.com"}, {"host": "x.y.example.com"}],
        }}),
    )
    .await;
}

async fn delete<K>(namespace: &Namespace, name: &str)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    namespace.api::<K>().delete(name, &DeleteParams::default()).await.expect("it is deleted");
}

async fn nodes(cluster: &Cluster) {
    let of_every_type = [
        ("Hostname", "n1.example"),
        ("ExternalIP", "192.0.2.1"),
        ("InternalDNS", "n1.internal"),
        ("InternalIP", "10.0.0.1"),
        ("InternalIP", "10.0.0.101"),
        ("ExternalDNS", "n1.example.com"),
    ];
    let details = json!({
        "metadata": {
            "labels": {"kubernetes.io/os": "linux", "topology.kubernetes.io/zone": "z-1", "empty": ""},
            "annotations": {"node.alpha/ttl": "0", "note": "ünï\n\"x\" \\"},
        },
        "spec": {"providerID": "cloud:///z-1/n1"},
        "status": {"conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "MemoryPressure", "status": "False"},
            {"type": "NetworkUnavailable", "status": "Unknown"},
        ]},
    });
    let no_kubelet = json!({"status": {"daemonEndpoints": null}});
    let manifests = [
        with(node("n1", &of_every_type), details),
        with(node("n2", &[("Hostname", "n2.example")]), no_kubelet),
        with(
            node("n3", &[("InternalIP", "fd00::3"), ("InternalIP", "10.0.0.3")]),
            json!({"spec": {"unschedulable": true}}),
        ),
        node("n4", &[("ExternalDNS", "n4.example.com"), ("ExternalIP", "192.0.2.4")]),
        node("no-address", &[]),
    ];
    for manifest in manifests {
        cluster.node(manifest).await;
    }
}

async fn pods(shop: &Namespace, bank: &Namespace) {
    let web = |name: &str| pod(name).on("n1").port("http", 8080);
    let status = |status: Value| json!({"status": status});
    let not_ready = json!([{"type": "Ready", "status": "False"}]);
    let of_shop = [
        web("plain")
            .account("cart")
            .with(json!({"metadata": {
                "labels": {"app.kubernetes.io/name": "plain", "A-b.C_9": "x", "9.digit": "y", "empty": ""},
                "annotations": {
                    "prometheus.io/scrape": "true",
                    "prometheus.istio.io/secure-port": "15092",
                    "x.y/Z-1": "line\nbreak \"quoted\" \\ ünï",
                    "empty": "",
                },
            }}))
            .container(json!({"name": "dns", "image": "dns:1", "ports": [
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                {"containerPort": 9153},
                {"name": "sig", "containerPort": 2905, "protocol": "SCTP"},
            ]}))
            .container(json!({"name": "silent", "image": "registry.example:5000/silent:1"}))
            .owned_by("apps/v1", "ReplicaSet", "plain-5b7")
            .running("10.1.0.1")
            .with(status(json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}]}))),
        pod("no-ports").on("n1").label("app.kubernetes.io/name", "other").running("10.1.0.2"),
        pod("six")
            .on("n3")
            .port("http", 8080)
            .container(json!({"name": "silent", "image": "s:1"}))
            .running("fd00:1::7"),
        web("dual").running("10.1.0.4").with(status(json!({"podIPs": [{"ip": "10.1.0.4"}, {"ip": "fd00:1::4"}]}))),
        pod("sidecars")
            .on("n2")
            .port("http", 8080)
            .init_container(json!({"name": "setup", "image": "setup:1", "ports": [{"containerPort": 7000}]}))
            .init_container(json!({"name": "istio-proxy", "image": "proxy:1", "restartPolicy": "Always", "ports": [
                {"name": "http-envoy-prom", "containerPort": 15090}, {"containerPort": 15092},
            ]}))
            .init_container(json!({"name": "bare", "image": "bare:1", "restartPolicy": "Always"}))
            .running("10.1.0.5")
            // Whose containers the kubelet has not told of yet.
            .with(status(json!({"containerStatuses": null}))),
        pod("host")
            .on("n1")
            .with(json!({"spec": {"hostNetwork": true}}))
            .port("metrics", 9100)
            .owned_by("apps/v1", "DaemonSet", "host")
            .running("10.0.0.1"),
        pod("unscheduled").port("http", 8080),
        web("starting"),
        web("pending").running("10.1.0.6").with(status(json!({"phase": "Pending", "conditions": not_ready}))),
        web("lost").running("10.1.0.7").with(status(json!({
            "phase": "Unknown", "conditions": [{"type": "Ready", "status": "Unknown"}],
        }))),
        web("unconditional").running("10.1.0.8").with(status(json!({"conditions": null}))),
        web("done")
            .owned_by("batch/v1", "Job", "nightly-1")
            .running("10.1.0.9")
            .with(status(json!({"phase": "Succeeded", "conditions": not_ready}))),
        web("broken").running("10.1.0.9").with(status(json!({"phase": "Failed"}))),
        pod("elsewhere").on("no-such-node").port("http", 8080).running("10.1.0.10"),
        pod("no-node").port("http", 8080).running("10.1.0.11"),
        web("adopted").running("10.1.0.12").with(json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "not-a-controller", "uid": "u-1"},
        ]}})),
        web("leaving").running("10.1.0.13"),
    ];
    shop.create_pods(of_shop).await;
    shop.terminate_pod("leaving").await;
    bank.create_pod(pod("plain").account("ledger").on("n2").port("http", 8080).running("10.2.0.1")).await;
}

async fn services(shop: &Namespace, bank: &Namespace) {
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let port = |number: u16| json!([{"port": number}]);
    let of_web = json!({
        "selector": {"app": "web"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "sig", "port": 2905, "protocol": "SCTP"},
        ],
    });
    let details = json!({"metadata": {
        "labels": {"app.kubernetes.io/name": "web", "empty": ""}, "annotations": {"prometheus.io/port": "80"},
    }});
    let balanced = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.80"}]}}});
    let of_shop = [
        with(service("web", of_web), details),
        service("node-port", json!({"type": "NodePort", "ports": port(8080)})),
        with(
            service("balanced", json!({"type": "LoadBalancer", "loadBalancerIP": "192.0.2.80", "ports": port(443)})),
            balanced,
        ),
        service("balanced-nameless", json!({"type": "LoadBalancer", "ports": port(443)})),
        service("named", json!({"type": "ExternalName", "externalName": "db.example.com", "ports": port(5432)})),
        service("named-portless", json!({"type": "ExternalName", "externalName": "db.example.com"})),
        service("headless", json!({"clusterIP": "None", "ports": port(9000)})),
        service("headless-portless", json!({"clusterIP": "None"})),
        service("six", json!({"ipFamilies": ["IPv6"], "ports": port(80)})),
        service("dual", json!({"ipFamilyPolicy": "RequireDualStack", "ports": port(80)})),
    ];
    for manifest in of_shop {
        shop.create_object::<Service>(manifest).await;
    }
    bank.create_object::<Service>(service("web", json!({"ports": port(80)}))).await;
}

async fn endpoints(shop: &Namespace, bank: &Namespace) {
    let of_shop = [
        json!({
            "metadata": {"name": "web", "labels": {"endpoints.x/y": "z"}, "annotations": {"note": "n"}},
            "subsets": [
                {
                    "addresses": [
                        {"ip": "10.1.0.1", "nodeName": "n1", "hostname": "web-0", "targetRef": to("Pod", "shop", "plain")},
                        {"ip": "10.1.0.5", "nodeName": "n2", "targetRef": to("Pod", "shop", "sidecars")},
                        {"ip": "10.9.0.1"},
                        {"ip": "fd00:9::1", "nodeName": "n3"},
                    ],
                    "notReadyAddresses": [
                        {"ip": "10.1.0.6", "nodeName": "n1", "targetRef": to("Pod", "shop", "pending")},
                        {"ip": "10.9.0.2", "targetRef": to("Pod", "shop", "no-such-pod")},
                    ],
                    "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
                },
                {
                    "addresses": [{"ip": "10.0.0.2", "targetRef": to("Node", "", "n2")}],
                    "ports": [{"port": 15092}],
                },
                {"addresses": [{"ip": "10.9.0.3"}]},
            ],
        }),
        json!({
            "metadata": {"name": "of-no-service"},
            "subsets": [{
                "addresses": [{"ip": "fd00:1::7", "nodeName": "no-such-node", "targetRef": to("Pod", "shop", "six")}],
                "ports": [{"name": "other", "port": 9999}],
            }],
        }),
        json!({"metadata": {"name": "headless"}}),
    ];
    for manifest in of_shop {
        shop.create_object::<Endpoints>(manifest).await;
    }
    let of_bank = json!({
        "metadata": {"name": "web"},
        "subsets": [{
            "addresses": [{"ip": "10.2.0.1", "targetRef": to("Pod", "bank", "plain")}],
            "ports": [{"name": "http", "port": 8080}],
        }],
    });
    bank.create_object::<Endpoints>(of_bank).await;
}

async fn slices(shop: &Namespace, bank: &Namespace) {
    let of = |name: &str, service: &str| json!({"name": name, "labels": {"kubernetes.io/service-name": service}});
    let of_shop = [
        json!({
            "metadata": with(of("web-1", "web"), json!({"labels": {"x.y/z": "1"}, "annotations": {"note": "n"}})),
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": ["10.1.0.1", "10.1.0.101"], "hostname": "web-0", "nodeName": "n1", "zone": "z-1",
                    "conditions": {"ready": true, "serving": true, "terminating": false},
                    "targetRef": to("Pod", "shop", "plain"),
                },
                {
                    "addresses": ["10.1.0.13"], "nodeName": "n1",
                    "conditions": {"ready": false, "serving": true, "terminating": true},
                    "targetRef": to("Pod", "shop", "leaving"),
                },
                {"addresses": ["10.1.0.5"], "conditions": {"ready": false}, "targetRef": to("Pod", "shop", "sidecars")},
                {"addresses": ["10.9.0.1"]},
                {"addresses": ["10.0.0.2"], "nodeName": "n1", "targetRef": to("Node", "", "n2")},
                {"addresses": ["10.9.0.2"], "targetRef": to("Pod", "shop", "no-such-pod")},
            ],
            "ports": [
                {"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        }),
        json!({
            "metadata": of("web-2", "web"),
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.0.1"], "targetRef": to("Pod", "shop", "plain")}],
            "ports": [{"port": 9153}],
        }),
        json!({
            "metadata": of("six", "six"),
            "addressType": "IPv6",
            "endpoints": [{"addresses": ["fd00:1::7"], "nodeName": "n3", "targetRef": to("Pod", "shop", "six")}],
            "ports": [{"name": "http", "port": 8080}, {"name": "any"}],
        }),
        json!({
            "metadata": {"name": "names"},
            "addressType": "FQDN",
            "endpoints": [{"addresses": ["db.example.com"], "conditions": {"ready": true}}],
            "ports": [{"name": "pg", "port": 5432}, {"name": "any"}],
        }),
        json!({
            "metadata": of("of-no-service", "no-such-service"),
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.9.0.3"]}],
            "ports": [{"port": 80}],
        }),
        json!({"metadata": {"name": "portless"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.9.0.4"]}]}),
        json!({"metadata": {"name": "empty"}, "addressType": "IPv4", "endpoints": [], "ports": [{"port": 80}]}),
    ];
    for manifest in of_shop {
        shop.create_object::<EndpointSlice>(manifest).await;
    }
    let of_bank = json!({
        "metadata": of("web-1", "web"),
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.2.0.1"], "targetRef": to("Pod", "bank", "plain")}],
        "ports": [{"name": "http", "port": 8080}],
    });
    bank.create_object::<EndpointSlice>(of_bank).await;
}

async fn ingresses(shop: &Namespace) {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = |path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": backend});
    let all = json!({
        "metadata": {"name": "all", "labels": {"a/b": "c"}, "annotations": {"note": "n"}},
        "spec": {
            "ingressClassName": "nginx",
            "defaultBackend": backend,
            "tls": [
                {"hosts": ["secure.example.com", "*.wild.example.com"], "secretName": "s"},
                {"secretName": "for-nobody"},
            ],
            "rules": [
                {"host": "secure.example.com", "http": {"paths": [path("/", "Prefix"), path("/api", "Exact")]}},
                {"host": "open.example.com", "http": {"paths": [path("", "ImplementationSpecific")]}},
                {"host": "a.wild.example.com", "http": {"paths": [path("/", "Prefix")]}},
                {"host": "a.b.wild.example.com", "http": {"paths": [path("/", "Prefix")]}},
                {"host": "*.wild.example.com", "http": {"paths": [path("/", "Prefix")]}},
                {"host": "*.other.example.com", "http": {"paths": [path("/", "Prefix")]}},
                {"host": "pathless.example.com"},
                {"http": {"paths": [path("/everywhere", "Prefix")]}},
            ],
        },
    });
    let classless = json!({
        "metadata": {"name": "classless"},
        "spec": {"rules": [{"host": "x.example.com", "http": {"paths": [path("/", "Prefix")]}}]},
    });
    let only_default = json!({"metadata": {"name": "only-default"}, "spec": {"defaultBackend": backend}});
    for manifest in [all, classless, only_default] {
        shop.create_object::<Ingress>(manifest).await;
    }
}

/// A reference from an endpoint to the object behind it.
fn to(kind: &str, namespace: &str, name: &str) -> Value {
    json!({"kind": kind, "namespace": namespace, "name": name})
}
