//! Pods as they are in a mesh that has been in use for a while: made by a chart and a Deployment, injected, on a network
//! of Calico's. Their fields are those of a real one, for it is the fields nobody looks at that make a pod big.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::support::kubernetes::{PodManifest, pod};

/// Where secure ports are.
pub(super) const SECURE: &str = "prometheus.istio.io/secure-port";

/// How many workloads share a namespace.
const WORKLOADS: usize = 20;

/// A word of so many hexadecimal digits that belongs to a number.
fn digits(number: usize, count: usize) -> String {
    let mixed = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{mixed:032x}{:032x}", mixed.rotate_left(61))[..count].to_owned()
}

/// The service account of pod `number`.
pub(super) fn account(number: usize) -> String {
    format!("workload-{}", number % WORKLOADS)
}

/// Pod `number`, running on `node` at `ip`.
pub(super) fn realistic(number: usize, node: &str, ip: Ipv4Addr) -> PodManifest {
    let workload = account(number);
    let replica_set = format!("{workload}-{}", digits(number % WORKLOADS, 10));
    let name = format!("{replica_set}-{}", digits(number, 5 + number / 100_000));
    let mut containers = vec![application(&workload)];
    if number.is_multiple_of(3) {
        containers.push(log_shipper());
    }
    let init = [istio_init(), istio_proxy(&workload)];
    let mut annotations = annotations(&workload, ip, number);
    if number.is_multiple_of(4) {
        let applied = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [application(&workload)]}});
        annotations["kubectl.kubernetes.io/last-applied-configuration"] = json!(applied.to_string());
    }
    let status = status(&containers, &init, ip, number);
    pod(&name).owned_by("apps/v1", "ReplicaSet", &replica_set).account(&workload).on(node).with(json!({
        "metadata": {"generateName": format!("{replica_set}-"), "labels": labels(&workload), "annotations": annotations},
        "spec": {
            "containers": containers,
            "initContainers": init,
            "volumes": volumes(&workload),
            "securityContext": {"runAsNonRoot": true, "fsGroup": 1337, "seccompProfile": {"type": "RuntimeDefault"}},
            "tolerations": tolerations(),
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/name": workload}},
            }],
        },
        "status": status,
    }))
}

fn labels(workload: &str) -> Value {
    json!({
        "app": workload,
        "app.kubernetes.io/component": "backend",
        "app.kubernetes.io/instance": workload,
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/name": workload,
        "app.kubernetes.io/part-of": "shop",
        "app.kubernetes.io/version": "1.42.0",
        "helm.sh/chart": format!("{workload}-0.7.3"),
        "pod-template-hash": digits(workload.len(), 10),
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": workload,
        "service.istio.io/canonical-revision": "1.42.0",
        "topology.istio.io/network": "network-1",
        "version": "1.42.0",
    })
}

fn annotations(workload: &str, ip: Ipv4Addr, number: usize) -> Value {
    json!({
        "checksum/config": digits(number % WORKLOADS, 64),
        "checksum/secret": digits(number % WORKLOADS + 1, 64),
        "cni.projectcalico.org/containerID": digits(number, 64),
        "cni.projectcalico.org/podIP": format!("{ip}/32"),
        "cni.projectcalico.org/podIPs": format!("{ip}/32"),
        "istio.io/rev": "default",
        "kubectl.kubernetes.io/default-container": "app",
        "kubectl.kubernetes.io/default-logs-container": "app",
        "kubectl.kubernetes.io/restartedAt": "2026-10-01T08:15:42+02:00",
        "prometheus.io/path": "/stats/prometheus",
        "prometheus.io/port": "15020",
        "prometheus.io/scrape": "true",
        "proxy.istio.io/config": "proxyMetadata:\n  ENVOY_SECURE_MERGED_METRICS_PORT: \"15092\"\nholdApplicationUntilProxyStarts: true\n",
        "sidecar.istio.io/status": sidecar_status(workload),
    })
}

/// What the injector writes down about what it did.
fn sidecar_status(workload: &str) -> String {
    let volumes = [
        "workload-socket",
        "credential-socket",
        "workload-certs",
        "istio-envoy",
        "istio-data",
        "istio-podinfo",
        "istio-token",
        "istiod-ca-cert",
        "istio-ca-crl",
    ];
    let mounts: Vec<Value> =
        volumes.iter().map(|name| json!({"name": name, "mountPath": format!("/var/run/{name}")})).collect();
    json!({
        "initContainers": ["istio-init", "istio-proxy"], "containers": null, "volumes": volumes, "imagePullSecrets": null,
        "revision": "default", "mounts": mounts, "workload": workload,
        "templates": ["sidecar"], "hash": digits(workload.len(), 64),
    })
    .to_string()
}

fn application(workload: &str) -> Value {
    let mut env: Vec<Value> = ["POD_NAME", "POD_NAMESPACE"]
        .iter()
        .zip(["metadata.name", "metadata.namespace"])
        .map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}))
        .collect();
    env.extend(["DATABASE", "CACHE", "QUEUE", "SEARCH", "PAYMENT", "ACCOUNTS", "STOCK", "MAIL"].iter().flat_map(|other| {
        [
            json!({"name": format!("{other}_URL"), "value": format!("http://{}.shop.svc.cluster.local:8080/api/v2", other.to_lowercase())}),
            json!({"name": format!("{other}_TOKEN"), "valueFrom": {"secretKeyRef": {"name": workload, "key": other.to_lowercase()}}}),
        ]
    }));
    json!({
        "name": "app",
        "image": format!("registry.example.com/shop/{workload}:1.42.0"),
        "args": ["--config=/etc/app/config.yaml", "--log-format=json", "--log-level=info"],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "grpc", "containerPort": 9090}],
        "env": env,
        "envFrom": [{"configMapRef": {"name": workload}}],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [mount("config", "/etc/app"), mount("tmp", "/tmp"), api_access()],
        "startupProbe": probe("/healthz/startup"),
        "livenessProbe": probe("/healthz/live"),
        "readinessProbe": probe("/healthz/ready"),
        "securityContext": hardened(),
    })
}

fn log_shipper() -> Value {
    json!({
        "name": "log-shipper", "image": "registry.example.com/base/log-shipper:3.2.1",
        "ports": [{"name": "http-metrics", "containerPort": 2020}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "volumeMounts": [mount("tmp", "/tmp"), api_access()],
        "securityContext": hardened(),
    })
}

fn istio_init() -> Value {
    json!({
        "name": "istio-init", "image": "docker.io/istio/proxyv2:1.31.0",
        "args": ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*",
            "-d", "15090,15021,15020", "--log_output_level=default:info"],
        "resources": proxy_resources(),
        "volumeMounts": [api_access()],
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}},
    })
}

fn istio_proxy(workload: &str) -> Value {
    let fields = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("INSTANCE_IP", "status.podIP"),
        ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ("HOST_IP", "status.hostIP"),
        ("ISTIO_CPU_LIMIT", "spec.nodeName"),
    ];
    let values = [
        ("PILOT_CERT_PROVIDER", "istiod"),
        ("CA_ADDR", "istiod.istio-system.svc:15012"),
        ("PROXY_CONFIG", "{\"holdApplicationUntilProxyStarts\":true}\n"),
        (
            "ISTIO_META_POD_PORTS",
            "[{\"name\":\"http\",\"containerPort\":8080,\"protocol\":\"TCP\"},{\"name\":\"grpc\",\"containerPort\":9090,\"protocol\":\"TCP\"}]",
        ),
        ("ISTIO_META_APP_CONTAINERS", "app"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_NODE_NAME", ""),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
        ("ISTIO_META_WORKLOAD_NAME", workload),
        ("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/shop/deployments/workload"),
        ("ISTIO_META_MESH_ID", "cluster.local"),
        ("TRUST_DOMAIN", "cluster.local"),
        ("ENVOY_SECURE_MERGED_METRICS_PORT", "15092"),
        ("ISTIO_PROMETHEUS_ANNOTATIONS", "{\"scrape\":\"true\",\"path\":\"/metrics\",\"port\":\"8080\"}"),
        (
            "ISTIO_KUBE_APP_PROBERS",
            "{\"/app-health/app/livez\":{\"httpGet\":{\"path\":\"/healthz/live\",\"port\":8080,\"scheme\":\"HTTP\"},\"timeoutSeconds\":1}}",
        ),
    ];
    let mut env: Vec<Value> = fields
        .iter()
        .map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}))
        .collect();
    env.extend(values.iter().map(|(name, value)| json!({"name": name, "value": value})));
    json!({
        "name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.31.0", "restartPolicy": "Always",
        "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning",
            "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info"],
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090}],
        "env": env,
        "resources": proxy_resources(),
        "startupProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 15, "failureThreshold": 4},
        "volumeMounts": [
            mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"), mount("credential-socket", "/var/run/secrets/credential-uds"),
            mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"), mount("istiod-ca-cert", "/var/run/secrets/istio"),
            mount("istio-data", "/var/lib/istio/data"), mount("istio-envoy", "/etc/istio/proxy"),
            mount("istio-token", "/var/run/secrets/tokens"), mount("istio-podinfo", "/etc/istio/pod"), api_access(),
        ],
        "securityContext": hardened(),
    })
}

fn volumes(workload: &str) -> Value {
    let token = |audience: &str| json!({"serviceAccountToken": {"path": "token", "audience": audience, "expirationSeconds": 43200}});
    let field = |path: &str, field: &str| json!({"path": path, "fieldRef": {"fieldPath": field}});
    let mut volumes: Vec<Value> = ["workload-socket", "credential-socket", "workload-certs", "istio-data", "tmp"]
        .iter()
        .map(|name| json!({"name": name, "emptyDir": {}}))
        .collect();
    volumes.extend([
        json!({"name": "config", "configMap": {"name": workload}}),
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [field("labels", "metadata.labels"), field("annotations", "metadata.annotations")]}}),
        json!({"name": "istio-token", "projected": {"sources": [token("istio-ca")]}}),
        json!({"name": "istiod-ca-cert", "configMap": {"name": "istio-ca-root-cert"}}),
        json!({"name": "kube-api-access", "projected": {"sources": [
            token("kubernetes"), {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [field("namespace", "metadata.namespace")]}},
        ]}}),
    ]);
    json!(volumes)
}

/// Everything that a kubelet says.
fn status(containers: &[Value], init: &[Value], ip: Ipv4Addr, number: usize) -> Value {
    let statuses = |containers: &[Value]| -> Vec<Value> {
        let one = |container: &Value| {
            let image = container["image"].as_str().expect("an image");
            json!({
                "name": container["name"], "image": image, "imageID": format!("{image}@sha256:{}", digits(image.len(), 64)),
                "containerID": format!("containerd://{}", digits(number, 64)), "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-10-01T06:16:03Z"}},
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "volumeMounts": container["volumeMounts"],
            })
        };
        containers.iter().map(one).collect()
    };
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-10-01T06:16:03Z"}))
        .collect();
    json!({
        "phase": "Running", "qosClass": "Burstable", "startTime": "2026-10-01T06:15:58Z", "conditions": conditions,
        "hostIP": "10.0.17.4", "hostIPs": [{"ip": "10.0.17.4"}], "podIP": ip, "podIPs": [{"ip": ip}],
        "containerStatuses": statuses(containers), "initContainerStatuses": statuses(init),
    })
}

fn tolerations() -> Value {
    let tolerate = |key: &str| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    json!([tolerate("not-ready"), tolerate("unreachable")])
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

fn api_access() -> Value {
    json!({"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true})
}

fn probe(path: &str) -> Value {
    json!({"httpGet": {"path": path, "port": 8080}, "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3})
}

fn proxy_resources() -> Value {
    json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}})
}

fn hardened() -> Value {
    json!({"allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        "runAsUser": 1337, "runAsGroup": 1337, "capabilities": {"drop": ["ALL"]}})
}
