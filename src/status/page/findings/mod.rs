//! What is wrong right now, each with what to do about it, the worst first.
//!
//! The thresholds are those of the alerts that are shipped, so that the page and an alert say the same: as long as one
//! fires that is about what an agent knows of itself, there is something here, also where the alert looks back: what a
//! target did within that time counts, as long as the target is there. What repeats itself for many targets is said once for
//! each reason.

mod receivers;
mod targets;
#[cfg(test)]
mod tests;

pub(super) use self::targets::{LACKING, how_bad};

use std::time::{Duration, SystemTime};

use super::look::Look;
use super::parts::Severity;
use super::words::{counted, relative};
use crate::identity::{CertificateFacts, IdentitySnapshot};
use crate::model::{DropCause, ExitClass, Failure, Reason, clean, clean_to};
use crate::status::Unusable;

/// The least share of its time that a certificate which is renewed in time has left.
const LEAST_LEFT: f64 = 0.2;
/// A root that lasts for longer is no worry yet.
const ROOT_WARNING: Duration = Duration::from_secs(30 * 86_400);

/// How bad it is that the API server is silent: of new pods nothing is scraped.
pub(super) const SILENT: Severity = Severity::Bad;
/// How bad it is that a source of targets cannot be used: what it said before holds.
pub(super) const UNUSABLE: Severity = Severity::Warning;
/// How bad it is that a configuration was refused: an older one is in force.
pub(super) const REFUSED: Severity = Severity::Warning;

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What, in a few words.
    pub(super) title: String,
    /// The word of the closed list, where it is a failure of scrapes.
    pub(super) reason: Option<Reason>,
    /// What exactly.
    pub(super) detail: String,
    /// What to do.
    pub(super) fix: String,
    /// Where all of it is to be seen.
    pub(super) link: (String, String),
    /// Some of those whom it concerns: page, name, detail.
    pub(super) examples: Vec<(String, String, String)>,
}

/// Everything.
pub(super) fn of(look: &Look) -> Vec<Finding> {
    let mut all = Vec::new();
    identities(look, &mut all);
    targets::add(look, &mut all);
    receivers::add(look, &mut all);
    discovery(look, &mut all);
    if let Some(Unusable { since, problems }) = &look.configuration.refused {
        all.push(finding(
            REFUSED,
            "The configuration that was read last cannot be used",
            format!(
                "{}. Since {} the one of {} stays in force.",
                first_of(problems),
                relative(*since, look.now),
                relative(look.configuration.taken, look.now)
            ),
            "run `meshscrape check config FILE`: it names every problem with its place",
            ("/config", "Configuration in force"),
        ));
    }
    all.sort_by_key(|finding| finding.severity);
    all
}

/// The first of some problems of a file, and how many more there are.
pub(super) fn first_of(problems: &[String]) -> String {
    let first = problems.first().map(|first| clean_to(first, 1024).into_owned()).unwrap_or_default();
    match problems.len() {
        0 | 1 => first,
        more => format!("{first} (and {})", counted(more - 1, "more problem")),
    }
}

fn finding(severity: Severity, title: &str, detail: String, fix: &str, (url, to): (&str, &str)) -> Finding {
    Finding {
        severity,
        title: title.to_owned(),
        reason: None,
        detail,
        fix: fix.to_owned(),
        link: (url.to_owned(), to.to_owned()),
        examples: Vec::new(),
    }
}

fn identities(look: &Look, all: &mut Vec<Finding>) {
    let to = ("/identity", "Identity");
    for identity in &look.identities {
        let files = clean(&identity.files.chain.display().to_string()).into_owned();
        if let Some(failure) = &identity.not_ready {
            let title = "No handshake can be tried with our certificates";
            all.push(Finding {
                reason: Some(failure.reason),
                ..finding(Severity::Bad, title, format!("{} ({files})", failure.detail), &failure.hint(), to)
            });
        }
        if let Some(why) = &identity.own_certificate_untrusted {
            let fix = "peers with the same roots refuse us: compare with `meshscrape check certs DIR`";
            all.push(finding(
                Severity::Bad,
                "Our own certificate is not trusted",
                format!("{} ({files})", clean(why)),
                fix,
                to,
            ));
        }
        if !identity.problems.is_empty() {
            let fix = match still_used(identity) {
                Some(used) => format!("{used}; run `meshscrape check certs DIR`"),
                None => "run `meshscrape check certs DIR`, which says what is wrong with each".to_owned(),
            };
            all.push(finding(
                Severity::Warning,
                "Certificate files cannot be used as they are",
                identity.problems.iter().map(|problem| clean(problem)).collect::<Vec<_>>().join("; "),
                &fix,
                to,
            ));
        }
        all.extend(ending(identity, look.now, &files));
    }
}

/// What is used while the files are not as they should be; nothing where nothing in them could ever be used, or what could has
/// ended.
pub(super) fn still_used(identity: &IdentitySnapshot) -> Option<&'static str> {
    identity.not_ready.is_none().then_some("what is good in them, or was last, stays in use until it ends")
}

/// Certificates that should have been renewed by now.
fn ending(identity: &IdentitySnapshot, now: SystemTime, files: &str) -> Vec<Finding> {
    let to = ("/identity", "Identity");
    let mut all = Vec::new();
    if let Some(leaf) = identity.own.first()
        && identity.not_ready.is_none()
        && left(leaf, now).1 < LEAST_LEFT
    {
        let fix = "its issuer renews it at half or two thirds of its time: look at who writes these files, istio-proxy for example";
        let title = format!("Our own certificate ends {} and was not renewed", relative(leaf.not_after, now));
        all.push(finding(Severity::Bad, &title, files.to_owned(), fix, to));
    }
    if let Some(root) = identity.roots.iter().max_by_key(|root| root.not_after) {
        let (time, share) = left(root, now);
        if time < ROOT_WARNING && share < LEAST_LEFT {
            let fix = "begin a root rotation: from then on nobody can be verified";
            let title = format!("The last root ends {}", relative(root.not_after, now));
            all.push(finding(Severity::Bad, &title, root.name().to_owned(), fix, to));
        }
    }
    all
}

/// How long a certificate lasts yet, and which share of its whole time that is.
pub(super) fn left(certificate: &CertificateFacts, now: SystemTime) -> (Duration, f64) {
    let whole = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
    let left = certificate.not_after.duration_since(now).unwrap_or_default();
    (left, left.as_secs_f64() / whole.as_secs_f64().max(1.0))
}

/// Where a failure stands among others: that somebody else answered comes first.
pub(super) fn rank(failure: &Failure) -> (u8, Reason) {
    rank_of(failure.reason)
}

fn rank_of(reason: Reason) -> (u8, Reason) {
    let order = match reason {
        Reason::IdentityMismatch => 0,
        _ if reason.class() == ExitClass::Identity => 1,
        _ => 2,
    };
    (order, reason)
}

fn discovery(look: &Look, all: &mut Vec<Finding>) {
    let to = ("/service-discovery", "Service discovery");
    if !look.discovery.first_pass_done {
        let detail = "Some source of targets has not answered since the agent has started.".to_owned();
        all.push(finding(
            Severity::Warning,
            "The targets are not known yet",
            detail,
            "wait a moment; what is in the way is listed below",
            to,
        ));
    }
    for problem in &look.discovery.problems {
        let title = format!("A source of targets cannot be used: {}", clean(&problem.source));
        let fix = "look at it, and at the way to it; what it said before still holds";
        all.push(finding(UNUSABLE, &title, problem.message.clone(), fix, to));
    }
    if look.discovery.unconfirmed {
        let detail =
            "Pods may have changed unseen, so each is scraped only as long as it is surely the same.".to_owned();
        let fix = "look at the API server and at the way to it";
        all.push(finding(SILENT, "The API server has not been heard for too long", detail, fix, to));
    }
    left_out(look, all);
}

/// What is no target though no rule drops it.
fn left_out(look: &Look, all: &mut Vec<Finding>) {
    for (cause, severity, noun, what, fix) in [
        (
            DropCause::Malformed,
            Severity::Warning,
            "candidate",
            "cannot be scraped as it is described",
            "its annotations, labels or relabel rules make no target of it",
        ),
        (
            DropCause::Surplus,
            Severity::Warning,
            "target",
            "over namespace_target_limit",
            "raise namespace_target_limit of the job if the namespace may have so many, or have its owner stop what makes them",
        ),
        (
            DropCause::Superseded,
            Severity::Note,
            "pod",
            "whose address a newer pod has",
            "it goes by itself once the older pod is gone; if its node is, delete the pod",
        ),
    ] {
        let dropped = || look.pools.iter().flat_map(|pool| &pool.dropped).filter(|dropped| dropped.cause == cause);
        if let Some(error) = dropped().find_map(|dropped| dropped.error.as_deref()) {
            let count = look.pools.iter().map(|pool| pool.left_out(cause)).sum();
            let title = format!("{} {what}", counted(count, noun));
            let to = format!("/service-discovery?state={}", cause.name());
            all.push(finding(severity, &title, clean(error).into_owned(), fix, (&to, "All of them")));
        }
    }
}
