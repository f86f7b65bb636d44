//! The result of an audit: pods, what is wrong with each, and what it comes to. Its JSON form is a promise: names and
//! meanings stay within a `version`.

use serde::Serialize;

use super::judge::Finding;
use super::rule::{Rule, Severity};
use crate::cli::exposure::{Facts, Role, Whereabouts};
use crate::model::clean;

/// The version of the JSON document: it grows when a field goes or changes its meaning, not when one is added.
const VERSION: u32 = 1;

/// An audit that has been made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audit {
    version: u32,
    /// Whether ports were asked; without, only the API server was.
    pub(super) connected: bool,
    /// Whether every pod was come to in time.
    pub(super) complete: bool,
    /// Plaintext ports that were not asked of every pod, because others of the namespace did not answer there and nobody did.
    pub(super) given_up: Vec<u16>,
    /// The trust domain of the identities that had to answer.
    pub(super) trust_domain: Option<String>,
    pub(super) summary: Summary,
    pub(super) pods: Vec<Audited>,
    /// Why there was nothing to audit, where that is not meant.
    #[serde(skip)]
    pub(super) in_vain: Option<String>,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Pods that the API server listed.
    pub(super) listed: usize,
    /// Those of the mesh that run.
    pub(super) meshed: usize,
    /// Those of them whose ports were asked, and on which nothing was found that matters.
    pub(super) secured: usize,
    /// Pods outside the mesh.
    pub(super) foreign: usize,
    /// Pods that have ended.
    pub(super) finished: usize,
    /// Pods that are being deleted.
    pub(super) leaving: usize,
    pub(super) errors: usize,
    pub(super) warnings: usize,
    pub(super) notes: usize,
}

/// A pod of the mesh.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Audited {
    pub(super) namespace: String,
    pub(super) name: String,
    /// What it came from, as `deployment/cart` or `gateway/edge`.
    pub(super) workload: Option<String>,
    role: &'static str,
    address: Option<String>,
    service_account: String,
    /// Its ports were asked, and nothing was found on it that matters.
    secured: bool,
    pub(super) findings: Vec<Found>,
}

/// A finding on a pod.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    pub(super) id: &'static str,
    /// The ID in words.
    name: &'static str,
    pub(super) severity: Severity,
    pub(super) port: Option<u16>,
    /// Why a scrape of the port fails, from the list of reasons.
    pub(super) reason: Option<&'static str>,
    pub(super) message: String,
    pub(super) fix: String,
    #[serde(skip)]
    pub(super) rule: Rule,
}

impl Audit {
    pub(super) fn new(connected: bool, trust_domain: Option<String>) -> Self {
        let (summary, pods) = (Summary::default(), Vec::new());
        Self {
            version: VERSION,
            connected,
            complete: true,
            given_up: Vec::new(),
            trust_domain,
            summary,
            pods,
            in_vain: None,
        }
    }

    /// Adds a pod of the mesh, with what was found and whether its ports were asked.
    pub(super) fn add(&mut self, facts: &Facts, was_asked: bool, findings: Vec<Finding>) {
        for finding in &findings {
            *match finding.rule.severity() {
                Severity::Error => &mut self.summary.errors,
                Severity::Warning => &mut self.summary.warnings,
                Severity::Note => &mut self.summary.notes,
            } += 1;
        }
        let secured = was_asked && findings.iter().all(|finding| finding.rule.leaves_secured());
        self.summary.meshed += 1;
        self.summary.secured += usize::from(secured);
        self.pods.push(Audited {
            namespace: clean(&facts.namespace).into_owned(),
            name: clean(&facts.name).into_owned(),
            workload: facts.source.origin(),
            role: role(facts.role),
            address: match facts.whereabouts {
                Whereabouts::At(ip) => Some(ip.to_string()),
                Whereabouts::Nowhere | Whereabouts::OnNode => None,
            },
            service_account: clean(&facts.account).into_owned(),
            secured,
            findings: findings.into_iter().map(Found::from).collect(),
        });
    }

    /// Puts the pods in the order of their names, whichever was come to first.
    pub(super) fn sort(&mut self) {
        self.pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    }

    /// The worst that was found.
    pub(super) fn worst(&self) -> Option<Severity> {
        self.pods.iter().flat_map(|pod| &pod.findings).map(|found| found.severity).max()
    }
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        let Finding { rule, port, reason, message, fix } = finding;
        let reason = reason.map(|reason| reason.name());
        Self { id: rule.id(), name: rule.name(), severity: rule.severity(), port, reason, message, fix, rule }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Sidecar => "sidecar",
        Role::Gateway => "gateway",
        Role::Waypoint => "waypoint",
        Role::Ztunnel => "ztunnel",
        Role::Ambient => "ambient",
    }
}
