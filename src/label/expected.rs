//! Who must answer for a target: the label `__spiffe_id__`, where it may come from, and what it comes to.
//!
//! The label is written by discovery, by the job's trust domain (from namespace and service account, before
//! relabelling), or by a relabel rule that names it literally as its `target_label`. A rule that arrives at the name by a
//! template or by mapping names could be steered by whoever writes a pod's labels, so a value that came that way
//! counts as none, unless the job says `identity_from_annotations: true`.

use crate::config::{ScrapeConfig, SpiffeJob};
use crate::model::{Failure, Labels, Peer, Pod, Reason, SpiffeId, TrustDomain, clean};
use crate::relabel::Action;

/// The label that names who must answer. It never reaches a series.
pub const SPIFFE_ID_LABEL: &str = "__spiffe_id__";

const NAMESPACE: &str = "__meta_kubernetes_namespace";
const SERVICE_ACCOUNT: &str = "__meta_kubernetes_pod_service_account_name";
const POD_PHASE: &str = "__meta_kubernetes_pod_phase";

/// What became of the expected identity before relabelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// The label is there, or nothing could be said.
    Done,
    /// It would follow from namespace and service account, once the trust domain is known.
    WaitsForTrustDomain,
}

/// Fills in the identity of a pod's service account where nothing else named one. A finished pod gets none: its address
/// may belong to another pod already.
pub(super) fn fill(labels: &mut Labels, pod: Option<&Pod>, trust_domain: Option<&TrustDomain>) -> Filled {
    let (namespace, account) = (labels.value(NAMESPACE), labels.value(SERVICE_ACCOUNT));
    let finished = pod.is_some_and(|pod| pod.finished) || matches!(labels.value(POD_PHASE), "Succeeded" | "Failed");
    if labels.contains(SPIFFE_ID_LABEL) || namespace.is_empty() || account.is_empty() || finished {
        return Filled::Done;
    }
    let Some(trust_domain) = trust_domain else { return Filled::WaitsForTrustDomain };
    // A name that no SPIFFE ID can hold leaves the label absent: nobody may answer then.
    if let Ok(id) = SpiffeId::of_service_account(trust_domain, namespace, account) {
        labels.set(SPIFFE_ID_LABEL, id.as_str());
    }
    Filled::Done
}

/// What relabelling made of a label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relabelled {
    /// It stays. If the value of `__spiffe_id__` comes from a rule that may not write it, that rule's number (from 0).
    Kept { intruder: Option<usize> },
    /// This rule, counted from 0, dropped it.
    Dropped { by_rule: usize },
}

/// Applies the job's rules and watches who writes `__spiffe_id__`.
pub(super) fn relabel(job: &ScrapeConfig, labels: &mut Labels) -> Relabelled {
    let mut intruder = None;
    for (number, rule) in job.relabel.iter().enumerate() {
        let before = labels.get(SPIFFE_ID_LABEL).map(str::to_owned);
        if !rule.apply(labels) {
            return Relabelled::Dropped { by_rule: number };
        }
        // A rule that changes nothing, because it does not match, does not change either who wrote what is there.
        if labels.get(SPIFFE_ID_LABEL) == before.as_deref() || job.identity_from_annotations {
            continue;
        }
        let spec = rule.spec();
        // The target_label of a labelmap is without effect.
        let names_it = spec.target_label.as_deref() == Some(SPIFFE_ID_LABEL) && spec.action != Action::LabelMap;
        if !names_it {
            intruder = Some(number);
        } else if !spec.source_labels.iter().any(|source| source == SPIFFE_ID_LABEL) {
            intruder = None;
        }
    }
    Relabelled::Kept { intruder }
}

/// Who must answer for a target of a SPIFFE job, from its labels after relabelling.
pub(super) fn expected_peer(
    job: &SpiffeJob,
    trust_domain: Option<&TrustDomain>,
    labels: &Labels,
    filled: Filled,
    intruder: Option<usize>,
) -> Result<Peer, Failure> {
    let text = labels.value(SPIFFE_ID_LABEL);
    if let Some(number) = intruder.filter(|_| !text.is_empty()) {
        let detail = format!(
            "relabel rule {} wrote {SPIFFE_ID_LABEL} without naming it as its target_label, so its value does not count",
            number + 1
        );
        return Err(Failure::new(Reason::NoExpectedIdentity, detail));
    }
    if text.is_empty() {
        return Err(match filled {
            Filled::WaitsForTrustDomain => Failure::new(
                Reason::IdentityUnknown,
                "the trust domain is not known before our own certificate is loaded",
            ),
            Filled::Done => {
                Failure::new(Reason::NoExpectedIdentity, format!("the target has no {SPIFFE_ID_LABEL} label"))
            }
        });
    }
    match SpiffeId::parse(text) {
        Ok(id) => Ok(peer(job, trust_domain, id)),
        Err(error) => {
            let detail = format!("{SPIFFE_ID_LABEL} {:?} is not a SPIFFE ID: {error}", clean(text));
            Err(Failure::new(Reason::NoExpectedIdentity, detail))
        }
    }
}

/// Why nobody may answer for a finished pod, whoever named an identity for it.
pub(super) fn finished() -> Failure {
    Failure::new(Reason::NoExpectedIdentity, "the pod has finished, and its address may belong to another by now")
}

/// The peer that `id` stands for: in a trust domain that has several names, the same path under each of them. An ID of
/// a foreign trust domain stands for itself alone.
fn peer(job: &SpiffeJob, trust_domain: Option<&TrustDomain>, id: SpiffeId) -> Peer {
    let names: Vec<TrustDomain> = trust_domain.into_iter().chain(&job.aliases).cloned().collect();
    let aliases = if names.contains(id.trust_domain()) { names.as_slice() } else { &[] };
    Peer::with_aliases(id, aliases, job.rule)
}
