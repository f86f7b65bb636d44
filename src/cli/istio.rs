//! What Istio calls things: the annotations and variables by which a pod offers its metrics over mTLS, and its proxy.

use k8s_openapi::api::core::v1::{Container, Pod};

/// The annotation that names the port of merged metrics. Istio's injector writes it where the proxy has
/// [`MERGED_VARIABLE`]; a value of the user's own wins.
pub(super) const MERGED_ANNOTATION: &str = "prometheus.istio.io/secure-port";
/// The annotation that names the port of Envoy's own metrics; nothing but the user ever writes it.
pub(super) const ENVOY_ANNOTATION: &str = "prometheus.istio.io/secure-envoy-port";
/// The annotation whose `proxyMetadata` sets variables of the proxy.
pub(super) const PROXY_CONFIG_ANNOTATION: &str = "proxy.istio.io/config";
/// The variable that opens the port of merged metrics.
pub(super) const MERGED_VARIABLE: &str = "ENVOY_SECURE_MERGED_METRICS_PORT";
/// The variable that opens the port of Envoy's own metrics.
pub(super) const ENVOY_VARIABLE: &str = "ENVOY_SECURE_METRICS_PORT";
/// The port of merged metrics, by convention.
pub(super) const MERGED_PORT: u16 = 15092;
/// The port of Envoy's own metrics, by convention.
pub(super) const ENVOY_PORT: u16 = 15091;
/// The annotation that names the path, as many pods have it for other reasons.
pub(super) const PATH_ANNOTATION: &str = "prometheus.io/path";
/// The path that both ports route.
pub(super) const METRICS_PATH: &str = "/stats/prometheus";
/// The variable that closes the plaintext ports to everybody outside the pod.
pub(super) const LOCALHOST_ONLY_VARIABLE: &str = "METRICS_LOCALHOST_ACCESS_ONLY";
/// The port of merged metrics in plain text.
pub(super) const PLAIN_MERGED_PORT: u16 = 15020;
/// The port of Envoy's own metrics in plain text.
pub(super) const PLAIN_ENVOY_PORT: u16 = 15090;
/// The container that is the proxy, a regular one or an init container.
pub(super) const PROXY_CONTAINER: &str = "istio-proxy";
/// The label, or annotation, that says whether the injector makes the proxy.
pub(super) const INJECT: &str = "sidecar.istio.io/inject";
/// The label that names the `Gateway` resource that a pod was made of; waypoints are such, too.
pub(super) const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The annotation that takes ports out of inbound capture.
pub(super) const EXCLUDE_ANNOTATION: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// The annotation that lists the ports that inbound capture is for; absent or `*`: all.
pub(super) const INCLUDE_ANNOTATION: &str = "traffic.sidecar.istio.io/includeInboundPorts";

/// The annotation of a pod that is in ambient mode.
const AMBIENT_ANNOTATION: &str = "ambient.istio.io/redirection";
/// Where the injector puts no proxy into anything.
const IGNORED_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Whether the traffic of a pod goes through the ztunnel of its node.
pub(super) fn is_ambient(pod: &Pod) -> bool {
    annotation(pod, AMBIENT_ANNOTATION) == Some("enabled")
}

/// Whether a pod says that the injector is to leave it alone.
pub(super) fn is_opted_out(pod: &Pod) -> bool {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(INJECT)).map(String::as_str);
    [annotation(pod, INJECT), label].contains(&Some("false"))
}

/// Whether the injector leaves the namespace of a pod alone.
pub(super) fn is_ignored(pod: &Pod) -> bool {
    pod.metadata.namespace.as_deref().is_some_and(|namespace| IGNORED_NAMESPACES.contains(&namespace))
}

/// An annotation of a pod.
pub(super) fn annotation<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The proxy of a pod, if it has one.
pub(super) fn proxy(pod: &Pod) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.into_iter().find(|container| container.name == PROXY_CONTAINER)
}
