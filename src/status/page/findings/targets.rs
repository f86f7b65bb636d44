//! What is wrong with targets, now and within the time that alerts look back.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::super::look::Look;
use super::super::parts::{Severity, name, target_url};
use super::super::query::link;
use super::super::words::{count, counted, relative, span};
use super::{Finding, finding, rank_of};
use crate::model::{Failure, Reason, Target, Verification, clean};
use crate::scrape::{Event, TargetSnapshot};
use crate::status::health::Health;

/// How many targets are named one by one.
const EXAMPLES: usize = 3;
/// How long answers that lacked something, and samples that only the scraper writes, are news.
pub(super) const LACKED: Duration = Duration::from_secs(10 * 60);
/// The same of identities other than the expected one.
pub(super) const WEAKER: Duration = Duration::from_secs(15 * 60);

/// How bad it is that a target is up and its answers lack something.
pub(in super::super) const LACKING: Severity = Severity::Warning;

/// How bad it is that a target is down for this reason. That of a pod which is being deleted is no trouble.
fn how_bad_down(reason: Reason) -> Severity {
    match reason {
        Reason::PodTerminating => Severity::Note,
        _ => Severity::Bad,
    }
}

/// How bad it is what there is to complain about of a target.
pub(in super::super) fn how_bad(health: &Health<'_>) -> Severity {
    health.failure.map_or(LACKING, |failure| how_bad_down(failure.reason))
}

/// How long a failure is news though the target is up again, and how bad it is then: as its alert looks back. The others
/// are over when the target is up.
pub(super) fn news(reason: Reason) -> Option<(Duration, Severity)> {
    let minutes = |number: u64| Duration::from_secs(60 * number);
    match reason {
        Reason::IdentityMismatch | Reason::NoSpiffeId | Reason::InvalidSvid | Reason::HostNameMismatch => {
            Some((minutes(5), Severity::Bad))
        }
        Reason::UnknownAuthority
        | Reason::CertificateExpired
        | Reason::CertificateNotYetValid
        | Reason::TlsHandshake
        | Reason::ClosedInHandshake
        | Reason::ClosedAfterHandshake
        | Reason::ClientCertificateRejected
        | Reason::VerificationEnded
        | Reason::PlaintextServer
        | Reason::PlaintextRefused
        | Reason::NoExpectedIdentity
        | Reason::AmbiguousTarget => Some((minutes(5), Severity::Warning)),
        Reason::MemoryBudget => Some((minutes(10), Severity::Warning)),
        _ => None,
    }
}

/// The targets that fail, or lack something, for one reason.
#[derive(Default)]
struct Group<'a> {
    count: usize,
    first: Option<&'a Failure>,
    examples: Vec<(String, String, String)>,
}

impl<'a> Group<'a> {
    fn add(&mut self, target: &Target, failure: &'a Failure) {
        self.first.get_or_insert(failure);
        self.count(target, failure.detail.clone());
    }

    /// One more, for no failure.
    fn count(&mut self, target: &Target, detail: String) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push((target_url(target), name(target), detail));
        }
    }

    /// What was so for this reason, and is not now.
    fn lately(self, severity: Severity, reason: Reason, what: &str, within: Duration) -> Finding {
        let count = counted(self.count, "target");
        let title = format!("{count} {what} within the last {}, and not so now", span(within));
        let fix = self.first.map(|failure| failure.hint().into_owned()).unwrap_or_default();
        let all = finding(severity, &title, reason.when().to_owned(), &fix, ("/targets", "Targets"));
        Finding { reason: Some(reason), examples: self.examples, ..all }
    }

    /// Of targets that are scraped, if there are any: something is to be said of what came.
    fn remark(self, severity: Severity, what: &str, detail: &str, fix: &str) -> Option<Finding> {
        let title = format!("{} {what}", counted(self.count, "target"));
        let all = finding(severity, &title, detail.to_owned(), fix, ("/targets", "Targets"));
        (self.count > 0).then_some(Finding { examples: self.examples, ..all })
    }

    fn finding(self, severity: Severity, reason: Reason, what: &str, state: &str) -> Finding {
        Finding {
            severity,
            title: format!("{} {what}", counted(self.count, "target")),
            reason: Some(reason),
            detail: reason.when().to_owned(),
            fix: self.first.map(|failure| failure.hint().into_owned()).unwrap_or_default(),
            link: (
                link("/targets", state, reason.name(), ""),
                if self.count > EXAMPLES {
                    format!("All {}", count(self.count as u64))
                } else {
                    "In the list".to_owned()
                },
            ),
            examples: self.examples,
        }
    }
}

pub(super) fn add(look: &Look, all: &mut Vec<Finding>) {
    let mut seen = Seen::default();
    for (_, active) in look.targets() {
        seen.now(active);
        seen.lately(active, look.now);
    }
    seen.tell(all);
}

/// What was seen of all targets.
#[derive(Default)]
struct Seen<'a> {
    down: BTreeMap<Reason, Group<'a>>,
    lacking: BTreeMap<Reason, Group<'a>>,
    down_lately: BTreeMap<Reason, Group<'a>>,
    lacked_lately: BTreeMap<Reason, Group<'a>>,
    unverified: usize,
    forged: Group<'a>,
    weaker: Group<'a>,
    nobodys: Group<'a>,
}

impl<'a> Seen<'a> {
    /// What its last scrape was like.
    fn now(&mut self, active: &'a TargetSnapshot) {
        let (target, health) = (&active.target, Health::of(active));
        if let Some(failure) = health.failure {
            self.down.entry(failure.reason).or_default().add(target, failure);
        } else if let Some(lack) = health.lack {
            self.lacking.entry(lack.reason).or_default().add(target, lack);
        }
        self.unverified += usize::from(target.verification == Verification::None);
        if let Some(dropped) = forged_now(&health) {
            self.forged.count(target, format!("{} dropped", counted(dropped, "sample")));
        }
        if let Some(identity) = weaker_now(&health) {
            self.weaker.count(target, clean(identity).into_owned());
        }
        if let Some((rule, Err(why))) = target.tenants.iter().find(|(_, tenant)| tenant.is_err()) {
            self.nobodys.count(target, format!("{}: {why}", rule.template()));
        }
    }

    /// What happened to it before, as far as that is news and no more so.
    fn lately(&mut self, active: &'a TargetSnapshot, now: SystemTime) {
        let (target, health) = (&active.target, Health::of(active));
        for (at, event) in active.status.past.events() {
            let within = |time| now.duration_since(at).is_ok_and(|ago| ago < time);
            let when = relative(at, now);
            match event {
                Event::Failed(failure) => {
                    let is_now = health.failure.is_some_and(|known| known.reason == failure.reason);
                    if !is_now && news(failure.reason).is_some_and(|(time, _)| within(time)) {
                        let group = self.down_lately.entry(failure.reason).or_default();
                        group.first.get_or_insert(failure);
                        group.count(target, format!("{when}: {}", failure.detail));
                    }
                }
                Event::Lacked(lack) if health.lack.is_none() && within(LACKED) => {
                    let group = self.lacked_lately.entry(lack.reason).or_default();
                    group.first.get_or_insert(lack);
                    group.count(target, format!("{when}: {}", lack.detail));
                }
                Event::Forged(dropped) if forged_now(&health).is_none() && within(LACKED) => {
                    self.forged.count(target, format!("{when}: {} dropped", counted(*dropped, "sample")));
                }
                Event::Weaker(identity) if weaker_now(&health).is_none() && within(WEAKER) => {
                    self.weaker.count(target, format!("{when}: {}", clean(identity)));
                }
                Event::Lacked(_) | Event::Forged(_) | Event::Weaker(_) => {}
            }
        }
    }

    fn tell(self, all: &mut Vec<Finding>) {
        let mut down: Vec<_> = self.down.into_iter().collect();
        down.sort_by_key(|(reason, group)| (rank_of(*reason).0, Reverse(group.count)));
        all.extend(down.into_iter().map(|(reason, group)| {
            let what = if reason == Reason::PodTerminating { "of pods that are being deleted" } else { "down" };
            group.finding(how_bad_down(reason), reason, what, "down")
        }));
        all.extend(
            self.lacking
                .into_iter()
                .map(|(reason, group)| group.finding(LACKING, reason, "up, but lacking something", "up")),
        );
        all.extend(self.down_lately.into_iter().filter_map(|(reason, group)| {
            let (within, severity) = news(reason)?;
            Some(group.lately(severity, reason, "down", within))
        }));
        all.extend(
            self.lacked_lately
                .into_iter()
                .map(|(reason, group)| group.lately(LACKING, reason, "lacking something", LACKED)),
        );
        all.extend(self.nobodys.remark(
            Severity::Bad,
            "of no tenant",
            "Their samples are not sent to receivers with this template of tenants.",
            "give them the labels that the template names, by relabel_configs, or a default to its entry",
        ));
        all.extend(self.forged.remark(
            Severity::Warning,
            "with series that only the scraper writes",
            "Samples named up or scrape_… were dropped from their answers within ten minutes.",
            "drop the name by metric_relabel_configs, or have the application rename it",
        ));
        all.extend(self.weaker.remark(
            Severity::Note,
            "answered by another identity than the expected one",
            "It is accepted because match of their jobs asks for less than the whole SPIFFE ID.",
            "set match: exact once every target's expected SPIFFE ID is the one that it has",
        ));
        if self.unverified > 0 {
            all.push(finding(
                Severity::Note,
                &format!("{} in plain text", counted(self.unverified, "target")),
                "Their jobs say scheme: http, so nobody checks who answers.".to_owned(),
                "global.require_identity makes such a job an error of the configuration",
                ("/targets", "Targets"),
            ));
        }
    }
}

/// How many samples of its last answer only the scraper may write.
fn forged_now(health: &Health<'_>) -> Option<usize> {
    health.last.map(|last| last.forged).filter(|dropped| *dropped > 0)
}

/// Who answered last, if he is not exactly who was expected.
fn weaker_now<'a>(health: &Health<'a>) -> Option<&'a str> {
    health.peer().filter(|peer| !peer.exact).map(|peer| peer.identity.as_str())
}
