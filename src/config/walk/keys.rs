//! Every key that may stand in the file, by the kind of mapping it stands in.
//!
//! The walker may only ask for keys of these tables, so they are complete; `config/reference.yaml` is held against
//! them.

/// A kind of mapping.
#[derive(Debug)]
pub struct Section {
    /// What it is called in messages.
    pub name: &'static str,
    /// The keys that mean something here, in the order in which they are printed.
    pub keys: &'static [&'static str],
    /// Keys that mean something elsewhere, in Prometheus or in another section.
    pub(super) absent: &'static [Absent],
}

/// A key that has a meaning elsewhere, but not here.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) key: &'static str,
    /// What is lacking, as the end of a sentence; or why it means nothing here.
    pub(super) what: &'static str,
    pub(super) treatment: Treatment,
}

/// What happens where such a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// A problem, whatever its value.
    Refused,
    /// A problem, unless it is empty, `false` or 0, which switches it off as we do.
    RefusedUnlessOff,
    /// As before, but it is no key of Prometheus: it is one of ours that this version does not have yet.
    Planned,
    /// A warning, unless it is empty, `false` or 0: without it the agent does less, but nothing else.
    IgnoredUnlessOff,
    /// Nothing: it concerns what an agent does not do, and stands in nearly every file.
    Passed,
}

use Treatment::{IgnoredUnlessOff, Passed, Planned, Refused, RefusedUnlessOff};

const fn absent(key: &'static str, treatment: Treatment, what: &'static str) -> Absent {
    Absent { key, what, treatment }
}

const SERVER: &str = "it is for a Prometheus server, and this is an agent";
const NATIVE: &str = "no native histograms are scraped";
const PROXY: &str = "it connects to no HTTP proxy";

pub(super) static FILE: Section = Section {
    name: "the file",
    keys: &["global", "scrape_configs", "remote_write"],
    absent: &[
        absent("rule_files", IgnoredUnlessOff, SERVER),
        absent("alerting", IgnoredUnlessOff, SERVER),
        absent("storage", IgnoredUnlessOff, SERVER),
        absent("tracing", IgnoredUnlessOff, SERVER),
        absent("otlp", IgnoredUnlessOff, SERVER),
        absent("runtime", IgnoredUnlessOff, SERVER),
        absent("remote_read", IgnoredUnlessOff, SERVER),
        absent("scrape_config_files", RefusedUnlessOff, "it reads jobs from this one file only"),
    ],
};

pub(super) static GLOBAL: Section = Section {
    name: "global",
    keys: &[
        "scrape_interval",
        "scrape_timeout",
        "scrape_protocols",
        "external_labels",
        "require_identity",
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
    ],
    absent: &[
        absent("evaluation_interval", Passed, SERVER),
        absent("rule_query_offset", Passed, SERVER),
        absent("query_log_file", IgnoredUnlessOff, SERVER),
        absent("scrape_failure_log_file", IgnoredUnlessOff, "failed scrapes go to the ordinary log"),
        absent("scrape_native_histograms", RefusedUnlessOff, NATIVE),
        absent("always_scrape_classic_histograms", Passed, NATIVE),
        absent("convert_classic_histograms_to_nhcb", RefusedUnlessOff, NATIVE),
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
        "tls_config",
        "basic_auth",
        "authorization",
        "bearer_token",
        "bearer_token_file",
        "static_configs",
        "file_sd_configs",
        "relabel_configs",
        "metric_relabel_configs",
    ],
    absent: &[
        absent("oauth2", RefusedUnlessOff, "it gets no OAuth 2 tokens"),
        absent("proxy_url", RefusedUnlessOff, PROXY),
        absent("no_proxy", RefusedUnlessOff, PROXY),
        absent("proxy_from_environment", RefusedUnlessOff, PROXY),
        absent("proxy_connect_header", RefusedUnlessOff, PROXY),
        absent("http_headers", RefusedUnlessOff, "it adds no headers to scrapes"),
        absent("scrape_failure_log_file", IgnoredUnlessOff, "failed scrapes go to the ordinary log"),
        absent("scrape_native_histograms", RefusedUnlessOff, NATIVE),
        absent("always_scrape_classic_histograms", Passed, NATIVE),
        absent("scrape_classic_histograms", Passed, NATIVE),
        absent("convert_classic_histograms_to_nhcb", RefusedUnlessOff, NATIVE),
        absent("native_histogram_bucket_limit", IgnoredUnlessOff, NATIVE),
        absent("native_histogram_min_bucket_factor", IgnoredUnlessOff, NATIVE),
        absent("kubernetes_sd_configs", RefusedUnlessOff, DISCOVERY),
        absent("istio_sd_configs", Planned, DISCOVERY),
        absent("http_sd_configs", RefusedUnlessOff, DISCOVERY),
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

const DISCOVERY: &str = "it finds targets by static_configs and file_sd_configs only";

pub(super) static STATIC: Section = Section { name: "static_configs", keys: &["targets", "labels"], absent: &[] };

pub(super) static FILE_SD: Section =
    Section { name: "file_sd_configs", keys: &["files", "refresh_interval"], absent: &[] };

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
        "write_relabel_configs",
        "queue_config",
        "protobuf_message",
    ],
    absent: &[
        absent("oauth2", RefusedUnlessOff, "it gets no OAuth 2 tokens"),
        absent("sigv4", RefusedUnlessOff, "it signs no requests for AWS"),
        absent("azuread", RefusedUnlessOff, "it gets no tokens from Azure"),
        absent("google_iam", RefusedUnlessOff, "it gets no tokens from Google"),
        absent("proxy_url", RefusedUnlessOff, PROXY),
        absent("no_proxy", RefusedUnlessOff, PROXY),
        absent("proxy_from_environment", RefusedUnlessOff, PROXY),
        absent("proxy_connect_header", RefusedUnlessOff, PROXY),
        absent("http_headers", RefusedUnlessOff, "headers of requests are written under headers"),
        absent("send_exemplars", RefusedUnlessOff, "it sends no exemplars"),
        absent("send_native_histograms", RefusedUnlessOff, NATIVE),
        absent("round_robin_dns", RefusedUnlessOff, "it does not spread requests over a name's addresses"),
        absent("failed_request_logging", IgnoredUnlessOff, "refused requests are always logged"),
        absent("metadata_config", IgnoredUnlessOff, "no metadata is sent"),
    ],
};

pub(super) static QUEUE: Section = Section {
    name: "queue_config",
    keys: &[
        "max_memory",
        "capacity",
        "min_shards",
        "max_shards",
        "max_samples_per_send",
        "batch_send_deadline",
        "min_backoff",
        "max_backoff",
        "retry_on_http_429",
        "sample_age_limit",
    ],
    absent: &[],
};

static SECTIONS: [&Section; 14] = [
    &FILE,
    &GLOBAL,
    &SCRAPE,
    &STATIC,
    &FILE_SD,
    &RELABEL,
    &JOB_TLS,
    &JOB_SPIFFE,
    &BASIC_AUTH,
    &AUTHORIZATION,
    &REMOTE_WRITE,
    &RECEIVER_TLS,
    &RECEIVER_SPIFFE,
    &QUEUE,
];

/// All kinds of mappings with fixed keys.
pub fn sections() -> &'static [&'static Section] {
    &SECTIONS
}

/// Whether `key` says where targets are found.
pub(super) fn is_discovery(key: &str) -> bool {
    key == "static_configs" || key.ends_with("_sd_configs")
}

impl Section {
    /// The known key that is written almost like `key`.
    pub(super) fn nearest(&self, key: &str) -> Option<&'static str> {
        nearest(key, self.keys.iter().copied())
    }

    /// What to do about the `absent` key of this section.
    pub(super) fn instead_of(&self, absent: &str) -> &'static str {
        if is_discovery(absent) { "write static_configs or file_sd_configs in its place" } else { "remove it" }
    }

    /// What the author of the unknown `key` probably meant.
    pub(super) fn suggest(&self, key: &str) -> Option<String> {
        if let Some(near) = self.nearest(key) {
            return Some(format!("write {near}"));
        }
        let home = sections().iter().find(|section| section.keys.contains(&key))?;
        Some(format!("move it: {key} is a key of {}", home.name))
    }
}

/// The candidate that differs least from `word`, if it differs by little.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let word = word.to_ascii_lowercase();
    candidates
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The last two rows of the table of distances between beginnings of `a` and `b`.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(from != to)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && *from == b[j - 1] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_meant() {
        for (key, expected) in [
            ("scrape_intervall", Some("write scrape_interval")),
            ("scrapeInterval", Some("write scrape_interval")),
            ("job-name", Some("write job_name")),
            ("Scheme", Some("write scheme")),
            ("relabel_config", Some("write relabel_configs")),
            ("certs_dir", Some("move it: certs_dir is a key of tls_config")),
            ("frobnicate", None),
        ] {
            assert_eq!(SCRAPE.suggest(key).as_deref(), expected, "{key}");
        }
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn no_key_is_both_known_and_absent() {
        for section in sections() {
            for absent in section.absent {
                assert!(!section.keys.contains(&absent.key), "{} of {}", absent.key, section.name);
            }
        }
    }
}
