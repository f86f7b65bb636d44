//! What Istio calls things: the annotations and variables by which a pod offers its metrics over mTLS.

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
