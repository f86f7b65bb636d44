//! `GET /api/v1/targets?state=active|dropped|any&scrapePool=JOB` and `GET /api/v1/scrape_pools`.
//!
//! They answer as Prometheus does; each active target also has `id`, `reason`, `hint`, `podTerminating`, `expectedIdentity`,
//! `identityMatch`, `acceptedIdentities`, `presentedIdentity`, `peer` and, where receivers have tenants, `tenants`, each dropped one what dropped it, and the whole has `waitingPods`, which can be no targets yet, and
//! `problems`, what the agent is in trouble with.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::parameters::Parameters;
use super::{found, map, rfc3339};
use crate::model::{Failure, NoTenant, PeerReport, Tenant, TenantRule};
use crate::scrape::{PoolSnapshot, TargetSnapshot};
use crate::status::Sources;
use crate::status::health::Health;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetsData {
    active_targets: Vec<ActiveTarget>,
    dropped_targets: Vec<DroppedTarget>,
    /// One entry a job, not limited by `scrapePool`; null where only active targets are asked for.
    dropped_target_counts: Option<BTreeMap<String, usize>>,
    /// Ours: pods that are known and have no target yet, each with what it waits for, not limited by `scrapePool`; empty where
    /// only active targets are asked for.
    waiting_pods: Vec<WaitingPod>,
    /// How many there are besides, at least.
    waiting_pods_omitted: usize,
    /// Ours: what the agent still lacks or cannot read, as readiness says it, whatever was asked for.
    problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ActiveTarget {
    discovered_labels: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
    /// Ours from here on: what a live scrape is asked for by.
    id: String,
    /// The name of the failure's reason, or of what the answers of a healthy target lack; empty when all is well.
    reason: &'static str,
    hint: Cow<'static, str>,
    /// What the answers of a healthy target lack, in a sentence.
    lack: String,
    pod_terminating: bool,
    expected_identity: String,
    /// How much of the expected identity must agree, in the words of the file; empty where none is expected.
    identity_match: &'static str,
    /// The identity in each trust domain in which it is accepted.
    accepted_identities: Vec<String>,
    presented_identity: String,
    samples_scraped: usize,
    samples_kept: usize,
    scrapes_succeeded: u64,
    scrapes_failed: u64,
    peer: Option<Peer>,
    /// Whose its samples are, by the template of each receiver with tenants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tenants: Vec<TenantOf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TenantOf {
    template: String,
    /// Empty if they are nobody's, and not sent.
    tenant: String,
    /// Why they are nobody's.
    error: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    identity: String,
    exact: bool,
    tls_version: String,
    cipher: String,
    not_after: String,
    chain: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DroppedTarget {
    discovered_labels: BTreeMap<String, String>,
    scrape_pool: String,
    /// Ours from here on: the relabel rule of the job that dropped it, counted from 1, and what it says; absent where
    /// no rule did.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_rule: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// What is wrong with it; absent where a rule dropped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct WaitingPod {
    pod: String,
    why: String,
}

pub(super) async fn targets(State(sources): State<Sources>, parameters: Parameters) -> Response {
    let state = parameters.get("state").to_ascii_lowercase();
    let (active, dropped) = match state.as_str() {
        "" | "any" => (true, true),
        "active" => (true, false),
        "dropped" => (false, true),
        // As Prometheus has it: another word names no target.
        _ => (false, false),
    };
    let readiness = (sources.readiness)();
    let mut pools = sources.scrape.snapshot();
    pools.sort_by(|a, b| a.pool.cmp(&b.pool));
    let counts = pools.iter().map(|pool| (pool.pool.to_string(), pool.dropped_count)).collect();
    let discovery = (sources.discovery)();
    let waiting = dropped.then_some(&discovery.waiting);
    let job = parameters.get("scrapePool");
    let wanted = |pool: &&PoolSnapshot| job.is_empty() || *job == *pool.pool;
    let chosen: Vec<_> = pools.iter().filter(wanted).collect();
    found(TargetsData {
        active_targets: match active {
            true => chosen.iter().flat_map(|pool| pool.active.iter().map(active_target)).collect(),
            false => Vec::new(),
        },
        dropped_targets: match dropped {
            true => chosen.iter().flat_map(|pool| dropped_targets(pool)).collect(),
            false => Vec::new(),
        },
        dropped_target_counts: dropped.then_some(counts),
        waiting_pods: waiting
            .into_iter()
            .flat_map(|waiting| &waiting.pods)
            .map(|(pod, why)| WaitingPod { pod: pod.clone(), why: why.clone() })
            .collect(),
        waiting_pods_omitted: waiting.map_or(0, |waiting| waiting.more),
        problems: [readiness.missing, readiness.troubles].concat(),
    })
}

pub(super) async fn scrape_pools(State(sources): State<Sources>) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Pools {
        scrape_pools: Vec<String>,
    }
    let mut scrape_pools: Vec<_> = sources.scrape.snapshot().iter().map(|pool| pool.pool.to_string()).collect();
    scrape_pools.sort();
    found(Pools { scrape_pools })
}

fn dropped_targets(pool: &PoolSnapshot) -> impl Iterator<Item = DroppedTarget> {
    pool.dropped.iter().map(|dropped| DroppedTarget {
        discovered_labels: map(&dropped.discovered),
        scrape_pool: pool.pool.to_string(),
        by_rule: dropped.by_rule.map(|number| number + 1),
        rule: dropped.by_rule.and_then(|number| Some(pool.config.relabel.get(number)?.spec().to_string())),
        error: dropped.error.clone(),
    })
}

fn active_target(snapshot: &TargetSnapshot) -> ActiveTarget {
    let TargetSnapshot { target, status } = snapshot;
    let health = Health::of(snapshot);
    let (last, failure, complaint) = (health.last, health.failure, health.complaint());
    let wanted = health.wanted();
    ActiveTarget {
        discovered_labels: map(&target.discovered),
        labels: map(&target.labels),
        scrape_pool: target.pool.to_string(),
        scrape_url: target.url(),
        global_url: target.url(),
        last_error: failure.map(ToString::to_string).unwrap_or_default(),
        last_scrape: rfc3339(last.map(|report| report.started)),
        last_scrape_duration: last.map_or(0.0, |report| report.phases.total.as_secs_f64()),
        health: health.state.word(),
        scrape_interval: crate::config::format_duration(target.interval),
        scrape_timeout: crate::config::format_duration(target.timeout),
        id: target.id.to_string(),
        reason: complaint.map_or("", |failure| failure.reason.name()),
        hint: complaint.map(Failure::hint).unwrap_or_default(),
        lack: health.lack.map(|lack| lack.detail.clone()).unwrap_or_default(),
        pod_terminating: target.pod.as_ref().is_some_and(|pod| pod.terminating),
        expected_identity: health.expected(),
        identity_match: wanted.map_or("", |peer| peer.rule().word()),
        accepted_identities: wanted
            .map(|peer| peer.accepted().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        presented_identity: health.presented().to_owned(),
        samples_scraped: last.map_or(0, |report| report.samples),
        samples_kept: last.map_or(0, |report| report.samples_kept),
        scrapes_succeeded: status.succeeded,
        scrapes_failed: status.failed,
        peer: health.peer().map(peer_of),
        tenants: target.tenants.iter().map(|(rule, tenant)| tenant_of(rule, tenant)).collect(),
    }
}

fn tenant_of(rule: &TenantRule, tenant: &Result<Tenant, NoTenant>) -> TenantOf {
    TenantOf {
        template: rule.template().to_owned(),
        tenant: tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
        error: tenant.as_ref().err().map(ToString::to_string).unwrap_or_default(),
    }
}

fn peer_of(peer: &PeerReport) -> Peer {
    Peer {
        identity: peer.identity.clone(),
        exact: peer.exact,
        tls_version: peer.tls_version.clone(),
        cipher: peer.cipher.clone(),
        not_after: rfc3339(Some(peer.not_after)),
        chain: peer.chain.clone(),
    }
}
