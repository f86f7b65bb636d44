//! The configuration as values: `global` and `scrape_configs[]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Auth, HttpHeader, HttpSd, JobSecurity, KubernetesSd, OAuth2, Proxies, RemoteWrite};
use crate::model::{Cidr, Labels, MAX_SCHEMA, MIN_SCHEMA, Scheme, TenantRule};
use crate::relabel::{NameScheme, Rule};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What holds for all jobs and receivers.
    pub global: Global,
    /// The jobs in the order of the file; `job_name` is unique.
    pub scrape_configs: Vec<Arc<ScrapeConfig>>,
    /// The receivers in the order of the file; `name` is unique.
    pub remote_write: Vec<Arc<RemoteWrite>>,
    /// The configuration as YAML with its defaults written out, for people: secrets are `<secret>`, environment
    /// variables stand as `${NAME}`. Loading it gives the same configuration, but for secrets that stood in the file.
    pub effective: Arc<str>,
}

/// `global`. What jobs inherit is already in the jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// The interval of jobs that write none.
    pub scrape_interval: Duration,
    /// The timeout of jobs that write none (never longer than the job's interval).
    pub scrape_timeout: Duration,
    /// Added to every series that leaves, where the series does not have the label itself.
    pub external_labels: Labels,
    /// No target may be scraped without verification: a job with `scheme: http` is a problem of the file, and a target
    /// of an ordinary job that a label turns to `http` is to be refused.
    pub require_identity: bool,
    /// How many bytes all scrapes under way may hold together, until their answers prove good. A key of ours.
    pub scrape_memory_limit: u64,
}

/// One of `scrape_configs[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeConfig {
    /// The name of the job and of its scrape pool.
    pub job_name: Arc<str>,
    /// How often a target is scraped; not zero.
    pub scrape_interval: Duration,
    /// How long one scrape may take; not zero, not longer than the interval.
    pub scrape_timeout: Duration,
    /// What is asked for, best first; not empty, each once.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// What an answer without a usable content type is taken for.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    /// The path, without a query; a leading slash is added where one is missing.
    pub metrics_path: String,
    /// The scheme, unless a label of an ordinary job says otherwise. Always `https` in a SPIFFE job.
    pub scheme: Scheme,
    /// The query, in the order of the file.
    pub params: Vec<(String, Vec<String>)>,
    /// Whether labels of the exposition win over those of the target.
    pub honor_labels: bool,
    /// Whether timestamps of the exposition are kept.
    pub honor_timestamps: bool,
    /// Whether series with own timestamps get staleness markers, too.
    pub track_timestamps_staleness: bool,
    /// Whether gzip is asked for.
    pub enable_compression: bool,
    /// Whether redirects are followed (in a SPIFFE job only to the same scheme and address).
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be spoken; SPIFFE jobs speak HTTP/1.1.
    pub enable_http2: bool,
    /// Whether an answer must show its end (a last line feed, `# EOF`) before a sample counts. A key of ours.
    pub require_complete: bool,
    /// Whether `honor_labels` may be on in a SPIFFE job, where targets could then forge `job` and `instance`. A key of
    /// ours.
    pub trust_target_labels: bool,
    /// Whether external labels count as target labels, so that an exposition cannot forge them. A key of ours; on in
    /// SPIFFE jobs unless switched off.
    pub protect_external_labels: bool,
    /// Whether relabelling may build `__spiffe_id__` from what a pod's owner writes. A key of ours; to be shown, because
    /// a tenant then chooses who may answer for him.
    pub identity_from_annotations: bool,
    /// The limits.
    pub limits: Limits,
    /// What becomes of histograms.
    pub histograms: Histograms,
    /// Which metric and label names are valid.
    pub names: NameScheme,
    /// Which escaping is asked for.
    pub escaping: EscapingScheme,
    /// Whether the additional synthetic series are made.
    pub extra_scrape_metrics: bool,
    /// Rules for targets.
    pub relabel: Vec<Rule>,
    /// Rules for series.
    pub metric_relabel: Vec<Rule>,
    /// Targets written in the file.
    pub static_configs: Vec<StaticConfig>,
    /// Targets in files.
    pub file_sd_configs: Vec<FileSd>,
    /// Targets in lists that are fetched over HTTP.
    pub http_sd_configs: Vec<HttpSd>,
    /// Targets in Kubernetes, those of `istio_sd_configs` among them.
    pub kubernetes_sd_configs: Vec<KubernetesSd>,
    /// The ports that may be dialled on a pod; empty: any. A key of ours; `istio_sd_configs` sets it.
    pub pod_ports: Vec<u16>,
    /// Where the addresses of pods lie; empty: anywhere but on loopback, link-local, multicast and unspecified ones.
    /// A key of ours.
    pub pod_cidrs: Vec<Cidr>,
    /// How many targets of one namespace there may be; 0: any number. What is over that is refused. A key of ours;
    /// `istio_sd_configs` sets it.
    pub namespace_target_limit: u64,
    /// How the one who answers is verified.
    pub security: JobSecurity,
    /// The `Authorization` header.
    pub auth: Option<Auth>,
    /// Whose tokens it holds instead; none where SPIFFE IDs are verified.
    pub oauth2: Option<Arc<OAuth2>>,
    /// Headers that are added to every request.
    pub http_headers: Vec<HttpHeader>,
    /// Through which proxies targets are asked; none where SPIFFE IDs are verified.
    pub proxies: Option<Arc<Proxies>>,
    /// The rules by which receivers tell whose the samples of a target are, each once.
    pub tenants: Vec<TenantRule>,
}

impl ScrapeConfig {
    /// Whether what is remembered of a target's series under `other` goes on to count, as Prometheus judges it: all is
    /// equal but `sample_limit` and how a connection is made.
    pub fn keeps_series_of(&self, other: &Self) -> bool {
        let alike = Self {
            limits: Limits { sample_limit: other.limits.sample_limit, ..self.limits },
            follow_redirects: other.follow_redirects,
            enable_http2: other.enable_http2,
            security: other.security.clone(),
            auth: other.auth.clone(),
            oauth2: other.oauth2.clone(),
            http_headers: other.http_headers.clone(),
            proxies: other.proxies.clone(),
            tenants: other.tenants.clone(),
            ..self.clone()
        };
        alike == *other
    }

    /// Whether a connection that was made for `other` may carry requests of this job: how it is verified, what proves who
    /// we are, and how answers lead on are equal.
    pub fn keeps_client_of(&self, other: &Self) -> bool {
        // Every key is named, so that nobody adds one without deciding this.
        let Self {
            job_name: _,
            scrape_interval: _,
            scrape_timeout: _,
            scrape_protocols: _,
            fallback_scrape_protocol: _,
            metrics_path: _,
            scheme: _,
            params: _,
            honor_labels: _,
            honor_timestamps: _,
            track_timestamps_staleness: _,
            enable_compression: _,
            follow_redirects,
            enable_http2,
            require_complete: _,
            trust_target_labels: _,
            protect_external_labels: _,
            identity_from_annotations: _,
            limits: _,
            histograms: _,
            names: _,
            escaping: _,
            extra_scrape_metrics: _,
            relabel: _,
            metric_relabel: _,
            static_configs: _,
            file_sd_configs: _,
            http_sd_configs: _,
            kubernetes_sd_configs: _,
            pod_ports: _,
            pod_cidrs: _,
            namespace_target_limit: _,
            security,
            auth,
            oauth2,
            http_headers,
            proxies,
            tenants: _,
        } = self;
        *follow_redirects == other.follow_redirects
            && *enable_http2 == other.enable_http2
            && *security == other.security
            && *auth == other.auth
            && *oauth2 == other.oauth2
            && *http_headers == other.http_headers
            && *proxies == other.proxies
    }
}

/// Limits of a job; 0 is off. Meaning and message of each: the Prometheus documentation of the key of that name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Samples of one scrape after relabelling.
    pub sample_limit: u64,
    /// Labels of a series, all counted.
    pub label_limit: u64,
    /// Bytes of a label name.
    pub label_name_length_limit: u64,
    /// Bytes of a label value.
    pub label_value_length_limit: u64,
    /// Bytes of the decompressed body.
    pub body_size_limit: u64,
    /// Targets of the job after relabelling.
    pub target_limit: u64,
    /// Dropped targets that are remembered for display.
    pub keep_dropped_targets: u64,
}

/// What becomes of the histograms of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Histograms {
    /// Whether native ones are read as such.
    pub native: bool,
    /// Whether the classic series are kept beside a native histogram.
    pub classic_too: bool,
    /// Whether classic ones become native ones with listed bounds.
    pub convert: bool,
    /// How many buckets a native one may have, 0 for any number; where it has more, neighbours are merged.
    pub bucket_limit: u64,
    /// The least growth from bound to bound that is wanted; 0 for any.
    pub min_bucket_factor: f64,
}

impl Histograms {
    /// The finest schema whose bounds grow by `min_bucket_factor` at least, as Prometheus chooses it.
    pub fn max_schema(&self) -> i32 {
        if self.min_bucket_factor <= 1.0 {
            return MAX_SCHEMA;
        }
        let finest = (-self.min_bucket_factor.log2().log2()).floor();
        finest.clamp(MIN_SCHEMA.into(), MAX_SCHEMA.into()) as i32
    }
}

/// A format that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// `PrometheusProto`
    PrometheusProto,
    /// `OpenMetricsText1.0.0`
    OpenMetricsText100,
    /// `OpenMetricsText0.0.1`
    OpenMetricsText001,
    /// `PrometheusText1.0.0`
    PrometheusText100,
    /// `PrometheusText0.0.4`
    PrometheusText004,
}

impl ScrapeProtocol {
    /// All of them, best first.
    pub const ALL: [ScrapeProtocol; 5] = [
        ScrapeProtocol::PrometheusProto,
        ScrapeProtocol::OpenMetricsText100,
        ScrapeProtocol::OpenMetricsText001,
        ScrapeProtocol::PrometheusText100,
        ScrapeProtocol::PrometheusText004,
    ];

    /// Those that are asked for by default, in this order; where native histograms are read it is [`Self::ALL`].
    pub const TEXT: [ScrapeProtocol; 4] = [
        ScrapeProtocol::OpenMetricsText100,
        ScrapeProtocol::OpenMetricsText001,
        ScrapeProtocol::PrometheusText100,
        ScrapeProtocol::PrometheusText004,
    ];

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            ScrapeProtocol::PrometheusProto => "PrometheusProto",
            ScrapeProtocol::OpenMetricsText100 => "OpenMetricsText1.0.0",
            ScrapeProtocol::OpenMetricsText001 => "OpenMetricsText0.0.1",
            ScrapeProtocol::PrometheusText100 => "PrometheusText1.0.0",
            ScrapeProtocol::PrometheusText004 => "PrometheusText0.0.4",
        }
    }
}

/// How a target is asked to write names outside the legacy character set. It changes only what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EscapingScheme {
    /// As they are.
    AllowUtf8,
    /// Each illegal character as an underscore.
    Underscores,
    /// Dots as `_dot_`, other illegal characters as `__`.
    Dots,
    /// Illegal characters as their code points.
    Values,
}

impl EscapingScheme {
    /// The word in the file and in the `Accept` header.
    pub fn as_str(self) -> &'static str {
        match self {
            EscapingScheme::AllowUtf8 => "allow-utf-8",
            EscapingScheme::Underscores => "underscores",
            EscapingScheme::Dots => "dots",
            EscapingScheme::Values => "values",
        }
    }
}

/// One of `static_configs[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticConfig {
    /// Addresses; `host:port`, or anything else that relabelling makes an address of.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: Labels,
}

/// One of `file_sd_configs[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSd {
    /// Files, absolute or relative to the working directory; a `*` may stand in the last part of the path.
    pub files: Vec<PathBuf>,
    /// How often they are read even though no change was seen; not zero.
    pub refresh_interval: Duration,
}
