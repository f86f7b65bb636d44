//! The tables of keys: what may stand in each kind of mapping, and what Prometheus knows there and we do not.

use super::keys::{Absent, Section, Treatment};

use Treatment::{IgnoredUnlessOff, Passed, Planned, Refused, RefusedUnlessOff};

const fn absent(key: &'static str, treatment: Treatment, what: &'static str) -> Absent {
    Absent { key, what, treatment }
}

const SERVER: &str = "it is for a Prometheus server, and this is an agent";
const PROXY: &str = "it connects to no HTTP proxy";
const TOKENS: &str = "it gets no OAuth 2 tokens for API servers";

pub(super) static FILE: Section = Section {
    name: "the file",
    keys: &["global", "scrape_configs", "scrape_config_files", "remote_write"],
    absent: &[
        absent("rule_files", IgnoredUnlessOff, SERVER),
        absent("alerting", IgnoredUnlessOff, SERVER),
        absent("storage", IgnoredUnlessOff, SERVER),
        absent("tracing", IgnoredUnlessOff, SERVER),
        absent("otlp", IgnoredUnlessOff, SERVER),
        absent("runtime", IgnoredUnlessOff, SERVER),
        absent("remote_read", IgnoredUnlessOff, SERVER),
    ],
};

/// A file that `scrape_config_files` finds.
pub(super) static FILE_OF_JOBS: Section =
    Section { name: "a file of scrape_config_files", keys: &["scrape_configs"], absent: &[] };

pub(super) static GLOBAL: Section = Section {
    name: "global",
    keys: &[
        "scrape_interval",
        "scrape_timeout",
        "scrape_protocols",
        "external_labels",
        "require_identity",
        "scrape_memory_limit",
        "body_size_limit",
        "sample_limit",
        "target_limit",
        "label_limit",
        "label_name_length_limit",
        "label_value_length_limit",
        "keep_dropped_targets",
        "metric_name_validation_scheme",
        "metric_name_escaping_scheme",
        "extra_scrape_metrics",
        "scrape_native_histograms",
        "always_scrape_classic_histograms",
        "convert_classic_histograms_to_nhcb",
    ],
    absent: &[
        absent("evaluation_interval", Passed, SERVER),
        absent("rule_query_offset", Passed, SERVER),
        absent("query_log_file", IgnoredUnlessOff, SERVER),
        absent("scrape_failure_log_file", IgnoredUnlessOff, "failed scrapes go to the ordinary log"),
    ],
};

pub(super) static SCRAPE: Section = Section {
    name: "scrape_configs",
    keys: &[
        "job_name",
        "scrape_interval",
        "scrape_timeout",
        "scrape_protocols",
        "fallback_scrape_protocol",
        "metrics_path",
        "scheme",
        "params",
        "honor_labels",
        "honor_timestamps",
        "track_timestamps_staleness",
        "enable_compression",
        "follow_redirects",
        "enable_http2",
        "require_complete",
        "trust_target_labels",
        "protect_external_labels",
        "identity_from_annotations",
        "body_size_limit",
        "sample_limit",
        "target_limit",
        "label_limit",
        "label_name_length_limit",
        "label_value_length_limit",
        "keep_dropped_targets",
        "metric_name_validation_scheme",
        "metric_name_escaping_scheme",
        "extra_scrape_metrics",
        "scrape_native_histograms",
        "always_scrape_classic_histograms",
        "convert_classic_histograms_to_nhcb",
        "native_histogram_bucket_limit",
        "native_histogram_min_bucket_factor",
        "tls_config",
        "basic_auth",
        "authorization",
        "bearer_token",
        "bearer_token_file",
        "oauth2",
        "http_headers",
        "proxy_url",
        "no_proxy",
        "proxy_from_environment",
        "proxy_connect_header",
        "istio_sd_configs",
        "kubernetes_sd_configs",
        "static_configs",
        "file_sd_configs",
        "http_sd_configs",
        "pod_ports",
        "pod_cidrs",
        "namespace_target_limit",
        "relabel_configs",
        "metric_relabel_configs",
    ],
    absent: &[
        absent("scrape_failure_log_file", IgnoredUnlessOff, "failed scrapes go to the ordinary log"),
        absent("scrape_classic_histograms", Refused, "since Prometheus 3 its name is always_scrape_classic_histograms"),
        absent("dns_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("azure_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("consul_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("digitalocean_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("docker_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("dockerswarm_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("ec2_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("aws_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("eureka_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("gce_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("hetzner_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("ionos_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("kuma_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("lightsail_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("linode_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("marathon_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("nerve_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("nomad_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("openstack_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("ovhcloud_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("puppetdb_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("scaleway_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("serverset_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("stackit_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("triton_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("uyuni_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("vultr_sd_configs", RefusedUnlessOff, DISCOVERY),
    ],
};

const DISCOVERY: &str = "it finds targets in Kubernetes, in files and over HTTP only";

pub(super) static STATIC: Section = Section { name: "static_configs", keys: &["targets", "labels"], absent: &[] };

pub(super) static FILE_SD: Section =
    Section { name: "file_sd_configs", keys: &["files", "refresh_interval"], absent: &[] };

pub(super) static HTTP_SD: Section = Section {
    name: "http_sd_configs",
    keys: &[
        "url",
        "refresh_interval",
        "tls_config",
        "basic_auth",
        "authorization",
        "bearer_token",
        "bearer_token_file",
        "oauth2",
        "http_headers",
        "proxy_url",
        "no_proxy",
        "proxy_from_environment",
        "proxy_connect_header",
        "follow_redirects",
        "enable_http2",
    ],
    absent: &[],
};

pub(super) static KUBERNETES_SD: Section = Section {
    name: "kubernetes_sd_configs",
    keys: &[
        "role",
        "kubeconfig_file",
        "api_server",
        "tls_config",
        "basic_auth",
        "authorization",
        "bearer_token",
        "bearer_token_file",
        "follow_redirects",
        "enable_http2",
        "namespaces",
        "selectors",
        "attach_metadata",
    ],
    absent: CLIENT,
};

pub(super) static ISTIO_SD: Section = Section {
    name: "istio_sd_configs",
    keys: &[
        "port",
        "scope",
        "host_network",
        "include_merged",
        "ports",
        "kubeconfig_file",
        "api_server",
        "tls_config",
        "basic_auth",
        "authorization",
        "bearer_token",
        "bearer_token_file",
        "follow_redirects",
        "enable_http2",
        "namespaces",
    ],
    absent: &[
        absent("role", Refused, "these are always pods"),
        absent("selectors", Refused, "scope says which pods; relabel_configs can drop more of them"),
        absent("oauth2", RefusedUnlessOff, TOKENS),
        absent("proxy_url", RefusedUnlessOff, PROXY),
        absent("no_proxy", RefusedUnlessOff, PROXY),
        absent("proxy_from_environment", RefusedUnlessOff, PROXY),
        absent("proxy_connect_header", RefusedUnlessOff, PROXY),
        absent("http_headers", RefusedUnlessOff, HEADERS),
    ],
};

/// What Prometheus knows about clients of an API server, and we do not.
const CLIENT: &[Absent] = &[
    absent("oauth2", RefusedUnlessOff, TOKENS),
    absent("proxy_url", RefusedUnlessOff, PROXY),
    absent("no_proxy", RefusedUnlessOff, PROXY),
    absent("proxy_from_environment", RefusedUnlessOff, PROXY),
    absent("proxy_connect_header", RefusedUnlessOff, PROXY),
    absent("http_headers", RefusedUnlessOff, HEADERS),
];

const HEADERS: &str = "it adds no headers where it asks an API server";

pub(super) static NAMESPACES: Section = Section { name: "namespaces", keys: &["names", "own_namespace"], absent: &[] };

pub(super) static SELECTOR: Section = Section { name: "selectors", keys: &["role", "label", "field"], absent: &[] };

pub(super) static ATTACH: Section =
    Section { name: "attach_metadata", keys: &["node", "namespace", "deployment", "job", "cronjob"], absent: &[] };

pub(super) static RELABEL: Section = Section {
    name: "relabel rules",
    keys: &["source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action"],
    absent: &[],
};

const INLINE: &str = "it reads certificates and keys from files only";

pub(super) static JOB_TLS: Section = Section {
    name: "tls_config",
    keys: &[
        "certs_dir",
        "ca_file",
        "cert_file",
        "key_file",
        "server_name",
        "insecure_skip_verify",
        "min_version",
        "max_version",
        "spiffe",
    ],
    absent: &[
        absent("ca", RefusedUnlessOff, INLINE),
        absent("cert", RefusedUnlessOff, INLINE),
        absent("key", RefusedUnlessOff, INLINE),
        absent("ca_ref", RefusedUnlessOff, INLINE),
        absent("cert_ref", RefusedUnlessOff, INLINE),
        absent("key_ref", RefusedUnlessOff, INLINE),
    ],
};

pub(super) static DISCOVERY_TLS: Section = Section {
    name: "tls_config of a discovery",
    keys: &["ca_file", "cert_file", "key_file", "server_name", "insecure_skip_verify", "min_version", "max_version"],
    absent: &[
        absent("ca", RefusedUnlessOff, INLINE),
        absent("cert", RefusedUnlessOff, INLINE),
        absent("key", RefusedUnlessOff, INLINE),
        absent("ca_ref", RefusedUnlessOff, INLINE),
        absent("cert_ref", RefusedUnlessOff, INLINE),
        absent("key_ref", RefusedUnlessOff, INLINE),
        absent("certs_dir", Refused, "a mesh certificate names no host, and here chain and host name are verified"),
        absent("spiffe", Refused, "who is asked for targets is verified by chain and host name"),
    ],
};

pub(super) static RECEIVER_TLS: Section =
    Section { name: "tls_config of remote_write", keys: JOB_TLS.keys, absent: JOB_TLS.absent };

pub(super) static JOB_SPIFFE: Section = Section {
    name: "spiffe",
    keys: &["trust_domain", "trust_domain_aliases", "match"],
    absent: &[
        absent("server_ids", Refused, "a target's identity is its label __spiffe_id__; server_ids is for remote_write"),
        absent("bundles", Planned, OTHER_DOMAINS),
        absent("crl_file", Planned, REVOCATION),
        absent("crl_strict", Planned, REVOCATION),
    ],
};

pub(super) static RECEIVER_SPIFFE: Section = Section {
    name: "spiffe of remote_write",
    keys: &["trust_domain", "trust_domain_aliases", "server_ids"],
    absent: &[
        absent("match", Refused, "a receiver must be exactly one of server_ids"),
        absent("bundles", Planned, OTHER_DOMAINS),
        absent("crl_file", Planned, REVOCATION),
        absent("crl_strict", Planned, REVOCATION),
    ],
};

const OTHER_DOMAINS: &str = "it trusts the roots of one trust domain only";
const REVOCATION: &str = "it reads no revocation lists";

pub(super) static BASIC_AUTH: Section = Section {
    name: "basic_auth",
    keys: &["username", "username_file", "password", "password_file"],
    absent: &[
        absent("username_ref", RefusedUnlessOff, "it has no secret providers"),
        absent("password_ref", RefusedUnlessOff, "it has no secret providers"),
    ],
};

pub(super) static AUTHORIZATION: Section = Section {
    name: "authorization",
    keys: &["type", "credentials", "credentials_file"],
    absent: &[absent("credentials_ref", RefusedUnlessOff, "it has no secret providers")],
};

pub(super) static OAUTH2: Section = Section {
    name: "oauth2",
    keys: &[
        "client_id",
        "client_secret",
        "client_secret_file",
        "scopes",
        "token_url",
        "endpoint_params",
        "tls_config",
        "proxy_url",
        "no_proxy",
        "proxy_from_environment",
        "proxy_connect_header",
    ],
    absent: &[
        absent("grant_type", RefusedUnlessOff, JWT),
        absent("client_certificate_key", RefusedUnlessOff, JWT),
        absent("client_certificate_key_file", RefusedUnlessOff, JWT),
        absent("client_certificate_key_id", RefusedUnlessOff, JWT),
        absent("signature_algorithm", RefusedUnlessOff, JWT),
        absent("iss", RefusedUnlessOff, JWT),
        absent("audience", RefusedUnlessOff, JWT),
        absent("claims", RefusedUnlessOff, JWT),
        absent("http_headers", RefusedUnlessOff, "it adds no headers to what it asks for tokens"),
    ],
};

const JWT: &str = "it asks for tokens with a client secret only";

/// One header of `http_headers`.
pub(super) static HTTP_HEADER: Section =
    Section { name: "a header of http_headers", keys: &["values", "secrets", "files"], absent: &[] };

pub(super) static REMOTE_WRITE: Section = Section {
    name: "remote_write",
    keys: &[
        "url",
        "name",
        "remote_timeout",
        "headers",
        "follow_redirects",
        "enable_http2",
        "tls_config",
        "basic_auth",
        "authorization",
        "bearer_token",
        "bearer_token_file",
        "oauth2",
        "http_headers",
        "tenant",
        "proxy_url",
        "no_proxy",
        "proxy_from_environment",
        "proxy_connect_header",
        "write_relabel_configs",
        "metadata_config",
        "queue_config",
        "protobuf_message",
        "send_native_histograms",
        "send_exemplars",
    ],
    absent: &[
        absent("sigv4", RefusedUnlessOff, "it signs no requests for AWS"),
        absent("azuread", RefusedUnlessOff, "it gets no tokens from Azure"),
        absent("google_iam", RefusedUnlessOff, "it gets no tokens from Google"),
        absent("round_robin_dns", RefusedUnlessOff, "it does not spread requests over a name's addresses"),
        absent("failed_request_logging", IgnoredUnlessOff, "refused requests are always logged"),
    ],
};

pub(super) static TENANT: Section =
    Section { name: "tenant", keys: &["template", "header", "default", "from_pod_metadata"], absent: &[] };

pub(super) static METADATA: Section =
    Section { name: "metadata_config", keys: &["send", "send_interval", "max_samples_per_send"], absent: &[] };

pub(super) static QUEUE: Section = Section {
    name: "queue_config",
    keys: &[
        "max_memory",
        "max_disk",
        "max_disk_age",
        "capacity",
        "min_shards",
        "max_shards",
        "max_samples_per_send",
        "batch_send_deadline",
        "min_backoff",
        "max_backoff",
        "retry_on_http_429",
        "sample_age_limit",
        "max_requests_in_flight",
        "max_samples_per_second",
        "split_rejected",
        "catch_up",
    ],
    absent: &[],
};

/// All of the main file.
pub(super) static SECTIONS: [&Section; 25] = [
    &FILE,
    &GLOBAL,
    &SCRAPE,
    &KUBERNETES_SD,
    &ISTIO_SD,
    &NAMESPACES,
    &SELECTOR,
    &ATTACH,
    &STATIC,
    &FILE_SD,
    &HTTP_SD,
    &RELABEL,
    &JOB_TLS,
    &DISCOVERY_TLS,
    &JOB_SPIFFE,
    &BASIC_AUTH,
    &AUTHORIZATION,
    &OAUTH2,
    &HTTP_HEADER,
    &REMOTE_WRITE,
    &RECEIVER_TLS,
    &RECEIVER_SPIFFE,
    &TENANT,
    &METADATA,
    &QUEUE,
];
