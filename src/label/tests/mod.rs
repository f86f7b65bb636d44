//! Targets as tables: what the candidate says, what the job says, what comes of it.

mod expected;
mod target;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{
    CertificateFiles, EscapingScheme, Histograms, JobSecurity, Limits, OrdinaryTls, ScrapeConfig, ScrapeProtocol,
    SpiffeJob,
};
use crate::model::{
    Candidate, JobTargets, Labels, Match, Pod, Reason, Scheme, Target, Tenant, TenantRule, Tenants, TrustDomain,
    Verification,
};
use crate::relabel::{Action, NameScheme, Rule, RuleSpec};

/// An ordinary job with Prometheus's defaults.
pub(crate) fn ordinary_job() -> ScrapeConfig {
    ScrapeConfig {
        job_name: "j".into(),
        scrape_interval: Duration::from_secs(60),
        scrape_timeout: Duration::from_secs(10),
        scrape_protocols: ScrapeProtocol::TEXT.to_vec(),
        fallback_scrape_protocol: None,
        metrics_path: "/metrics".to_owned(),
        scheme: Scheme::Http,
        params: Vec::new(),
        honor_labels: false,
        honor_timestamps: true,
        track_timestamps_staleness: false,
        enable_compression: true,
        follow_redirects: true,
        enable_http2: true,
        require_complete: false,
        trust_target_labels: false,
        protect_external_labels: false,
        identity_from_annotations: false,
        limits: Limits::default(),
        histograms: Histograms::default(),
        names: NameScheme::Utf8,
        escaping: EscapingScheme::AllowUtf8,
        extra_scrape_metrics: false,
        relabel: Vec::new(),
        metric_relabel: Vec::new(),
        static_configs: Vec::new(),
        file_sd_configs: Vec::new(),
        http_sd_configs: Vec::new(),
        kubernetes_sd_configs: Vec::new(),
        pod_ports: Vec::new(),
        pod_cidrs: Vec::new(),
        namespace_target_limit: 0,
        security: JobSecurity::Ordinary(OrdinaryTls::default()),
        auth: None,
        oauth2: None,
        http_headers: Vec::new(),
        proxies: None,
        tenants: Vec::new(),
    }
}

/// A job that verifies SPIFFE IDs.
pub(crate) fn spiffe_job() -> ScrapeConfig {
    let files = CertificateFiles::in_dir("/certs".as_ref());
    let security = SpiffeJob { files, trust_domain: None, aliases: Vec::new(), rule: Match::Exact };
    ScrapeConfig { scheme: Scheme::Https, security: JobSecurity::Spiffe(security), ..ordinary_job() }
}

/// A candidate with these labels.
pub(crate) fn candidate(labels: &[(&str, &str)]) -> Candidate {
    Candidate { labels: labels.iter().copied().collect(), source: "test".into(), pod: None }
}

pub(super) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("valid")
}

fn rule(source: &str, regex: &str, target: &str, replacement: &str) -> Rule {
    let spec = RuleSpec {
        source_labels: source.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        regex: Some(regex.to_owned()),
        target_label: Some(target.to_owned()),
        replacement: Some(replacement.to_owned()),
        ..RuleSpec::default()
    };
    Rule::new(spec, NameScheme::Utf8).expect("a usable rule")
}

fn rule_on(action: Action, source: &str, regex: &str, replacement: Option<&str>) -> Rule {
    let spec = RuleSpec {
        source_labels: source.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        regex: Some(regex.to_owned()),
        replacement: replacement.map(str::to_owned),
        action,
        ..RuleSpec::default()
    };
    Rule::new(spec, NameScheme::Utf8).expect("a usable rule")
}

pub(super) fn targets(job: &ScrapeConfig, candidates: &[&[(&str, &str)]]) -> JobTargets {
    let candidates: Vec<Candidate> = candidates.iter().map(|labels| candidate(labels)).collect();
    targets_of(job, &candidates, Some(&domain()))
}

/// The one target that comes of one candidate.
fn target(job: &ScrapeConfig, labels: &[(&str, &str)]) -> Arc<Target> {
    let targets = targets(job, &[labels]);
    assert_eq!(targets.active.len(), 1, "{:?}", targets.dropped);
    targets.active[0].clone()
}

/// Why one candidate comes to no target.
fn error(job: &ScrapeConfig, labels: &[(&str, &str)]) -> String {
    let targets = targets(job, &[labels]);
    assert_eq!((targets.active.len(), targets.dropped.len(), targets.dropped_count), (0, 1, 1));
    targets.dropped[0].error.clone().expect("malformed, not dropped by a rule")
}

pub(super) fn refusal(target: &Target) -> Reason {
    match &target.verification {
        Verification::Refused(failure) => failure.reason,
        other => panic!("{other:?}"),
    }
}

fn text(labels: &Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

pub(super) const POD: [(&str, &str); 4] = [
    ("__address__", "10.0.0.7:15092"),
    ("__meta_kubernetes_namespace", "shop"),
    ("__meta_kubernetes_pod_service_account_name", "cart"),
    ("__meta_kubernetes_pod_ip", "10.0.0.7"),
];

fn pod_with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    POD.into_iter().chain(more.iter().copied()).collect()
}

pub(super) fn expected(target: &Target) -> &str {
    match &target.verification {
        Verification::Spiffe(peer) => peer.expected().as_str(),
        other => panic!("{other:?}"),
    }
}
