//! What is found, and that no alert fires beside "All is well".

mod lately;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;

use super::super::overview::headline;
use super::super::testing::target;
use super::*;
use crate::clock::Clock;
use crate::config::{self, CertificateFiles};
use crate::discover::{self, Problem};
use crate::model::{
    DropCause, DroppedTarget, Labels, PeerReport, Phases, ScrapeReport, Target, TenantRule, Tenants, Verification,
    WriteFormat,
};
use crate::scrape::{PoolSnapshot, TargetSnapshot, TargetStatus};
use crate::send::{ReceiverSnapshot, Refusal, Trouble, TroubleKind};
use crate::status::health::Health;
use crate::status::{Configuration, Process, Unusable};

const DAY: u64 = 86_400;

/// A certificate that is valid on these days since 1970.
fn certificate(days: std::ops::Range<u64>) -> CertificateFacts {
    let day = |number: u64| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(number * DAY);
    let mut params = CertificateParams::default();
    (params.not_before, params.not_after) = (day(days.start), day(days.end));
    let made = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    CertificateFacts::read(made.der()).expect("it can be read")
}

fn identity(own: std::ops::Range<u64>, root: std::ops::Range<u64>) -> IdentitySnapshot {
    IdentitySnapshot {
        files: CertificateFiles::in_dir(Path::new("certs")),
        generation: 1,
        changed_at: None,
        id: None,
        trust_domain: None,
        own: vec![certificate(own)],
        own_certificate_untrusted: None,
        roots: vec![certificate(root)],
        not_ready: None,
        problems: Vec::new(),
        changes: 1,
        refusals: 0,
        history: Vec::new(),
    }
}

fn said(own: std::ops::Range<u64>, root: std::ops::Range<u64>, today: u64) -> Vec<String> {
    let identity = identity(own, root);
    let now = UNIX_EPOCH + Duration::from_secs(today * DAY);
    ending(&identity, now, "certs").into_iter().map(|finding| finding.title).collect()
}

#[test]
fn certificates_that_should_have_been_renewed_are_told_as_the_alerts_tell_them() {
    assert_eq!(said(0..100, 0..3_650, 79), [""; 0]);
    assert_eq!(said(0..100, 0..3_650, 81), ["Our own certificate ends in 19d and was not renewed"]);
    assert_eq!(said(3_600..3_630, 0..3_650, 3_610), [""; 0], "40 days are enough for a root");
    assert_eq!(said(3_600..3_650, 0..3_650, 3_621), ["The last root ends in 29d"]);
    assert_eq!(said(10..20, 10..20, 17), [""; 0], "a root of days is renewed as late as that");
    assert_eq!(said(10..20, 10..20, 19).len(), 2);
}

#[test]
fn nothing_stays_in_use_where_nothing_ever_was() {
    let fix = |not_ready: Option<Failure>| {
        let mut identity = identity(0..100, 0..3_650);
        (identity.not_ready, identity.problems) = (not_ready, vec!["cert-chain.pem does not exist (yet)".into()]);
        let all = of(&look(vec![identity], vec![], receiver()));
        let found = all.into_iter().find(|finding| finding.title.starts_with("Certificate files cannot be used"));
        found.expect("it is said").fix
    };
    assert!(fix(None).starts_with("what is good in them, or was last, stays in use until it ends"), "{}", fix(None));
    let missing = fix(Some(Failure::new(Reason::NoOwnCertificate, "none")));
    assert!(!missing.contains("use until") && missing.contains("check certs DIR"), "{missing}");
}

#[test]
fn that_somebody_else_answered_comes_first() {
    let mut reasons = [Reason::ConnectRefused, Reason::PlaintextServer, Reason::IdentityMismatch];
    reasons.sort_by_key(|reason| rank_of(*reason));
    assert_eq!(reasons, [Reason::IdentityMismatch, Reason::PlaintextServer, Reason::ConnectRefused]);
}

const RULES: &str = include_str!("../../../../../deploy/monitoring/rules.yaml");

/// By which words the overview says what each alert says, or why it does not.
const ALERTS: &[(&str, Result<&str, &str>)] = &[
    ("MeshscrapeAbsent", Err("without an agent there is no page")),
    ("MeshscrapeDown", Err("without an agent there is no page")),
    ("MeshscrapeRestarting", Err("a process knows nothing of those before it")),
    ("MeshscrapeConfigReloadFailed", Ok("configuration that was read last cannot be used")),
    ("MeshscrapeMemoryBudget", Ok("memory_budget")),
    ("MeshscrapeIdentityMismatch", Ok("identity_mismatch")),
    ("MeshscrapePeerUntrusted", Ok("unknown_authority")),
    ("MeshscrapeHandshakeFailing", Ok("tls_handshake")),
    ("MeshscrapePlaintextTarget", Ok("plaintext_server")),
    ("MeshscrapeUnverifiedTargets", Ok("in plain text")),
    ("MeshscrapeWeakerMatch", Ok("another identity than the expected one")),
    ("MeshscrapeTargetUnidentified", Ok("no_expected_identity")),
    ("MeshscrapeForgedSamples", Ok("series that only the scraper writes")),
    ("MeshscrapeIdentityNotReady", Ok("No handshake can be tried")),
    ("MeshscrapeCertificateNotRenewed", Ok("and was not renewed")),
    ("MeshscrapeCertificateUntrusted", Ok("certificate is not trusted")),
    ("MeshscrapeRootExpiring", Ok("The last root ends")),
    ("MeshscrapeCertificateFilesBroken", Ok("Certificate files cannot be used")),
    ("MeshscrapeJobFailing", Ok("target down")),
    ("MeshscrapeTargetsDown", Ok("connect_refused")),
    ("MeshscrapePartialMerge", Ok("partial_merge")),
    ("MeshscrapeTargetsMalformed", Ok("cannot be scraped as it is described")),
    ("MeshscrapeTargetsOverLimit", Ok("over namespace_target_limit")),
    ("MeshscrapeDiscoveryStale", Ok("API server has not been heard")),
    ("MeshscrapeDiscoveryFailing", Ok("source of targets cannot be used")),
    ("MeshscrapeRemoteWriteBehind", Ok("behind")),
    ("MeshscrapeRemoteWriteRejected", Ok("rejected")),
    ("MeshscrapeSamplesWithoutTenant", Ok("of no tenant")),
    ("MeshscrapeSpoolFilling", Ok("The memory of the queue")),
    ("MeshscrapeSpoolDiskFilling", Ok("The disk of the queue")),
    ("MeshscrapeSpoolDiskFailing", Ok("is not on disk")),
    ("MeshscrapeSpoolDamaged", Ok("are damaged")),
    ("MeshscrapeSamplesLost", Ok("are lost")),
    ("MeshscrapeHistogramsDropped", Err("they are counted where series are made, which no view reads; it is a note")),
];

/// An agent in these states.
fn look(identities: Vec<IdentitySnapshot>, targets: Vec<TargetSnapshot>, receiver: ReceiverSnapshot) -> Look {
    let job = config::parse(Path::new("-"), "scrape_configs: [{job_name: shop}]", &|_| None);
    let job = Arc::clone(&job.config.expect("a configuration").scrape_configs[0]);
    let pool = PoolSnapshot {
        pool: "shop".into(),
        config: job,
        active: targets,
        dropped: vec![],
        dropped_count: 0,
        dropped_by_rule: <_>::default(),
        surplus: 0,
    };
    let now = UNIX_EPOCH + Duration::from_secs(90 * DAY);
    Look {
        now,
        pools: vec![pool],
        identities,
        receivers: vec![receiver],
        discovery: Arc::new(discover::Snapshot { first_pass_done: true, ..<_>::default() }),
        configuration: Configuration { yaml: "".into(), taken: now, refused: None },
        process: Arc::new(Process { clock: Clock::system(), started: now, host: "node".into(), flags: vec![] }),
        findings: Vec::new(),
    }
}

/// Of whom nothing is to be said: what it lost, and the damage that was found, are older than the alerts look back.
fn receiver() -> ReceiverSnapshot {
    let mut receiver = ReceiverSnapshot {
        name: "central".into(),
        url: "http://central/".into(),
        message: WriteFormat::V1,
        queue: <_>::default(),
        lag: Duration::from_secs(120),
        delivered_samples: 1,
        samples_per_second: 1.0,
        rejected_samples: 0,
        too_old_samples: 5,
        since_loss: Some(Duration::from_secs(300)),
        last_delivery: None,
        trouble: None,
        last_refusal: None,
    };
    (receiver.queue.waiting_bytes, receiver.queue.capacity_bytes) = (50, 100);
    receiver.queue.dropped_samples = 5;
    let disk = receiver.queue.disk.insert(<_>::default());
    (disk.works, disk.bytes, disk.capacity_bytes) = (true, 50, 100);
    disk.since_damage = Some(Duration::from_secs(3600));
    receiver
}

/// A candidate that no rule drops and that is no target.
fn unfit(cause: DropCause, error: &str) -> Arc<DroppedTarget> {
    Arc::new(DroppedTarget { discovered: Labels::new(), cause, by_rule: None, error: Some(error.into()) })
}

/// A target whose last scrape was like that.
fn scraped(change: impl FnOnce(&mut Target, &mut ScrapeReport)) -> TargetSnapshot {
    let mut target = target("10.0.0.1:15020");
    let mut last = ScrapeReport {
        started: UNIX_EPOCH,
        phases: Phases::default(),
        samples: 1,
        samples_kept: 1,
        forged: 0,
        body_bytes: 1,
        peer: None,
        failure: None,
        lack: None,
    };
    change(&mut target, &mut last);
    TargetSnapshot { target: Arc::new(target), status: TargetStatus { last: Some(last), ..<_>::default() } }
}

fn peer(exact: bool) -> PeerReport {
    PeerReport {
        identity: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        exact,
        tls_version: "TLSv1.3".into(),
        cipher: String::new(),
        not_after: UNIX_EPOCH,
        chain: Vec::new(),
    }
}

/// Everything goes wrong that can be seen.
fn all_that_can_be_wrong() -> Vec<Finding> {
    let mut ours = identity(0..100, 0..100);
    ours.own_certificate_untrusted = Some("issued by nobody".into());
    ours.problems = vec!["no key".into()];
    let mut none = identity(0..100, 0..3_650);
    none.not_ready = Some(Failure::new(Reason::NoOwnCertificate, "none"));
    let down = [
        Reason::MemoryBudget,
        Reason::IdentityMismatch,
        Reason::UnknownAuthority,
        Reason::TlsHandshake,
        Reason::PlaintextServer,
        Reason::NoExpectedIdentity,
        Reason::ConnectRefused,
    ];
    let mut targets: Vec<_> = down
        .into_iter()
        .map(|reason| scraped(|_, last| last.failure = Some(Failure::new(reason, "so it is"))))
        .collect();
    let rule = TenantRule::new("{team}", None).expect("a template");
    targets.extend([
        scraped(|_, last| last.lack = Some(Failure::new(Reason::PartialMerge, "no application"))),
        scraped(|_, last| last.forged = 2),
        scraped(|_, last| last.peer = Some(peer(false))),
        scraped(|target, _| target.verification = Verification::None),
        scraped(|target, _| target.tenants = Tenants::of(&[rule], &Labels::new())),
    ]);
    let mut ill = receiver();
    ill.lag += Duration::from_secs(1);
    ill.since_loss = Some(Duration::from_secs(299));
    ill.last_refusal = Some(Refusal {
        at: UNIX_EPOCH + Duration::from_secs(90 * DAY - 1),
        status: 400,
        samples: 3,
        words: "no".into(),
    });
    ill.queue.waiting_bytes += 1;
    let disk = ill.queue.disk.as_mut().expect("it has one");
    (disk.works, disk.bytes) = (false, 51);
    disk.since_damage = Some(Duration::from_secs(3599));
    let mut look = look(vec![ours, none], targets, ill);
    look.configuration.refused = Some(Unusable { since: UNIX_EPOCH, problems: vec!["line 3 is no key".into()] });
    look.pools[0].dropped = vec![unfit(DropCause::Malformed, "no address"), unfit(DropCause::Surplus, "one too many")];
    (look.pools[0].dropped_count, look.pools[0].surplus) = (2, 1);
    look.discovery = Arc::new(discover::Snapshot {
        first_pass_done: true,
        problems: vec![Problem { source: "a file".into(), message: "cannot be read".into() }],
        unconfirmed: true,
        ..<_>::default()
    });
    of(&look)
}

#[test]
fn a_target_is_as_bad_on_its_own_page_as_in_the_overview() {
    let failed = |reason| scraped(move |_, last| last.failure = Some(Failure::new(reason, "so it is")));
    for (active, severity) in [
        (failed(Reason::ConnectRefused), Severity::Bad),
        (failed(Reason::PodTerminating), Severity::Note),
        (scraped(|_, last| last.lack = Some(Failure::new(Reason::PartialMerge, "no application"))), Severity::Warning),
    ] {
        let health = Health::of(&active);
        let reason = health.complaint().expect("something").reason;
        let look = look(Vec::new(), vec![active.clone()], receiver());
        let finding = of(&look).into_iter().find(|finding| finding.reason == Some(reason)).expect("it is told");
        assert_eq!(finding.severity, severity, "{reason}");
        let page = super::super::target::page(&look, &active.target.id.to_string());
        let body = page.unwrap_or_else(|page| panic!("{}", page.title)).body.into_string();
        let told = format!("<div class=\"finding {}\">", severity.class());
        assert!(body.contains(&told) && body.contains(severity.word()), "{reason}: {body}");
    }
}

#[test]
fn whatever_an_alert_says_the_overview_says_no_milder() {
    let rules: Vec<(&str, &str)> = RULES
        .split("- alert: ")
        .skip(1)
        .map(|rule| {
            let (name, rest) = rule.split_once('\n').expect("lines");
            let (_, severity) = rest.split_once("severity: ").expect("a severity");
            (name, severity.split_whitespace().next().expect("a word"))
        })
        .collect();
    let shipped: BTreeSet<&str> = rules.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = ALERTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, shipped, "each alert is in the table");
    let findings = all_that_can_be_wrong();
    for (alert, severity) in rules {
        let Some((_, Ok(words))) = ALERTS.iter().find(|(name, _)| *name == alert) else { continue };
        let least = match severity {
            "critical" => Severity::Bad,
            "warning" => Severity::Warning,
            _ => Severity::Note,
        };
        let says = |finding: &&Finding| {
            let reason = finding.reason.map_or("", Reason::name);
            format!("{reason} {}", finding.title).contains(words)
        };
        let finding = findings.iter().find(says).unwrap_or_else(|| panic!("{alert}: {words}: {findings:#?}"));
        assert!(finding.severity <= least, "{alert} is {severity}: {finding:?}");
    }
}

#[test]
fn at_the_thresholds_all_is_well_and_old_losses_are_history() {
    let exact = scraped(|_, last| last.peer = Some(peer(true)));
    let look = look(vec![identity(0..400, 0..3_650)], vec![exact], receiver());
    assert_eq!(of(&look), []);
    assert!(says_that_all_is_well(&look));
}

#[test]
fn it_is_said_why_a_configuration_was_refused() {
    let mut look = look(vec![], vec![], receiver());
    for (problems, words) in [
        (vec!["m.yaml:3:1: no key"], "m.yaml:3:1: no key. Since "),
        (vec!["m.yaml:3:1: no key", "b", "c"], "m.yaml:3:1: no key (and 2 more problems). Since "),
    ] {
        let problems = problems.into_iter().map(ToOwned::to_owned).collect();
        look.configuration.refused = Some(Unusable { since: UNIX_EPOCH, problems });
        let findings = of(&look);
        assert!(findings[0].detail.starts_with(words), "{findings:?}");
    }
}

/// Whether the first line of the overview is the good one.
fn says_that_all_is_well(look: &Look) -> bool {
    let line = headline(look, look.tally()).into_string();
    assert_eq!(line.contains("All is well"), line.contains("good"), "{line}");
    line.contains("good")
}

#[test]
fn what_an_alert_may_say_never_stands_beside_all_is_well() {
    let exact = scraped(|_, last| last.peer = Some(peer(true)));
    for finding in all_that_can_be_wrong() {
        let mut look = look(vec![identity(0..400, 0..3_650)], vec![exact.clone()], receiver());
        look.findings = vec![finding];
        assert!(!says_that_all_is_well(&look), "{:?}", look.findings);
    }
    let going = scraped(|_, last| last.failure = Some(Failure::new(Reason::PodTerminating, "so")));
    let mut look = look(vec![], vec![exact, going], receiver());
    look.findings = of(&look);
    assert!(!says_that_all_is_well(&look), "one of two is down: {:?}", look.findings);
}

#[test]
fn what_is_no_target_is_told_by_its_kind_and_counted_by_it() {
    let mut look = look(vec![], vec![], receiver());
    look.pools[0].dropped = vec![
        unfit(DropCause::Superseded, "its address is that of a newer pod"),
        unfit(DropCause::Surplus, "namespace_target_limit exceeded"),
        unfit(DropCause::Malformed, "no address"),
        unfit(DropCause::Malformed, "no port"),
    ];
    (look.pools[0].dropped_count, look.pools[0].surplus) = (23, 20);
    let findings = of(&look);
    let told: Vec<_> = findings.iter().map(|one| (one.severity, &*one.title, &*one.detail, &*one.link.0)).collect();
    let of = |state| format!("/service-discovery?state={state}");
    assert_eq!(
        told,
        [
            (Severity::Warning, "2 candidates cannot be scraped as it is described", "no address", &*of("malformed")),
            (
                Severity::Warning,
                "20 targets over namespace_target_limit",
                "namespace_target_limit exceeded",
                &*of("surplus")
            ),
            (
                Severity::Note,
                "1 pod whose address a newer pod has",
                "its address is that of a newer pod",
                &*of("superseded")
            ),
        ]
    );
    assert!(findings[1].fix.contains("namespace_target_limit"), "{findings:?}");
}

#[test]
fn a_receiver_that_takes_nothing_is_told_once_and_losses_of_a_moment_ago_beside_it() {
    let mut away = receiver();
    let trouble = Trouble { kind: TroubleKind::Connect, detail: "refused".into() };
    (away.trouble, away.lag) = (Some((UNIX_EPOCH, trouble)), Duration::from_secs(3600));
    away.since_loss = Some(Duration::ZERO);
    let titles: Vec<String> = of(&look(vec![], vec![], away)).into_iter().map(|finding| finding.title).collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
    assert!(titles[0].contains("takes nothing") && titles[1].contains("are lost"), "{titles:?}");
}

#[test]
fn who_is_nobodys_is_counted_with_an_example() {
    let rule = TenantRule::new("{team}", None).expect("a template");
    let nobodys = scraped(|target, _| target.tenants = Tenants::of(&[rule], &Labels::new()));
    let findings = of(&look(vec![], vec![nobodys.clone(), nobodys], receiver()));
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.severity, &*finding.title), (Severity::Bad, "2 targets of no tenant"));
    assert_eq!(finding.examples[0].2, "{team}: the target has no label team");
    assert_eq!(finding.examples[0].0, "/targets/0000000000000007");
}
